"""Ruff, run with its security rules on the private copies.

It would read `ruff.toml` or `pyproject.toml` near its files and leave out what `.gitignore` names; both are switched
off. It reads UTF-8 only and ignores a coding line, so a file that declares another encoding is handed over decoded:
otherwise it is lost, or, written in UTF-7 or with escapes, its code is hidden. Syntax errors come as results and mean
that most rules did not run; they count as a failed file. The newest known syntax is accepted.
"""

import codecs
import io
import json
import os
import re
import tokenize
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.child_engine import ChildEngine
from intelligentscan.scanners.config import EngineConfig
from intelligentscan.scanners.copies import CopyNames
from intelligentscan.scanners.engine_call import Call, Report, Setting
from intelligentscan.scanners.interface import EngineFacts, TargetFile
from intelligentscan.scanners.text_copy import SLOW_CODECS

_MIB = 1024 * 1024
_NEWEST_SYNTAX = "py314"
_FAILED = re.compile(r"^(?:warning|error): Failed to \w+ (\S+): (.*)$", re.MULTILINE)


class Ruff(ChildEngine):
    """The ruff engine; see the module."""

    name: str = "ruff"
    package: ClassVar[str | None] = "ruff"
    default_rules: ClassVar[tuple[str, ...]] = ("S",)
    per_file: ClassVar[bool] = True
    max_files: ClassVar[int] = 1_000
    max_bytes: ClassVar[int] = 64 * _MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the file suffixes the engine analyses."""
        return (".py", ".pyw", ".pyi")

    def parallel(self) -> int:
        """Return how many calls may run at once: one, because ruff uses all processors itself."""
        return 1

    def program(self, options: EngineConfig | None = None, avoid: Path | None = None) -> list[str]:
        """Return the program that came with our dependency, never one from PATH.

        Raises:
            ScanFailed: ruff is not installed.
        """
        try:
            from ruff import find_ruff_bin  # type: ignore[import-untyped]  # ruff ships no types
        except ImportError as exc:
            raise self.not_started("it is not installed") from exc
        try:
            return [os.path.abspath(find_ruff_bin())]  # noqa: PTH100  (links are kept as they are)
        except FileNotFoundError as exc:
            raise self.not_started("it is not installed") from exc

    async def read_facts(self, program: Sequence[str], workspace: Path) -> EngineFacts:
        """Ask ruff for its version and its stable rules.

        Raises:
            ScanFailed: ruff is missing or does not answer.
        """
        version = (await self.answer(program, ["--version"], workspace)).decode("utf-8", "replace").split()
        try:
            rules = json.loads(await self.answer(program, ["rule", "--all", "--output-format", "json"], workspace))
            return EngineFacts(version[1], tuple(sorted(rule["code"] for rule in rules if _runs(rule))))
        except (ValueError, KeyError, IndexError, TypeError) as exc:
            raise self.not_started("its answer was not understood") from exc

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile:
        """Return the file with a UTF-8 copy if it declares another encoding."""
        if file.copy is None:
            return file
        data = file.copy.read_bytes()
        try:
            encoding = codecs.lookup(tokenize.detect_encoding(io.BytesIO(data).readline)[0]).name
            if encoding in {"utf-8", "utf-8-sig"}:
                data.decode("utf-8")
                return file
            if encoding in SLOW_CODECS:
                return replace(file, copy=None, reason=f"its encoding {encoding} is not supported")
            decoded = data.decode(encoding)
        except (SyntaxError, LookupError, ValueError):
            return replace(file, copy=None, reason="not in the encoding it declares (UTF-8 if none)")
        folder = setting.workspace / "decoded"
        folder.mkdir(mode=0o700, exist_ok=True)
        copy = folder / file.copy.name
        copy.write_bytes(decoded.encode("utf-8", "replace"))
        return replace(file, copy=copy)

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""
        return [
            *("check", "--isolated", "--no-cache", "--no-respect-gitignore", "--no-force-exclude", "--no-fix"),
            *("--output-format", "sarif", "--exit-zero", "--target-version", _NEWEST_SYNTAX),
            *("--select", ",".join(call.rules)),
            *(["--ignore-noqa"] if call.ignore_suppressions else []),
            *call.copies,
        ]

    def lost_files(self, report: Report, names: CopyNames) -> dict[str, str]:
        """Return the files ruff could not read or parse."""
        lost = {}
        for match in _FAILED.finditer(report.stderr):
            if (file := names.file(match[1])) is not None:
                lost[file.path] = match[2][:200]
        for result in engine_sarif.results(report.sarif):
            # Whatever is no rule code is ruff speaking of its own trouble with the file.
            file = names.file(engine_sarif.first_uri(result))
            if file is not None and not re.fullmatch(r"[A-Z]+[0-9]+", result["ruleId"]):
                lost[file.path] = "not valid Python" if result["ruleId"] == "invalid-syntax" else "not analysed by ruff"
        return lost


def _runs(rule: dict[str, Any]) -> bool:
    """Tell whether a rule runs when selected: preview and removed ones do not."""
    status = rule.get("status")
    return not rule.get("preview") and not (isinstance(status, dict) and {"Preview", "Removed"} & status.keys())
