"""Bandit, run by our own interpreter in isolated mode on the private copies.

Its interpreter is part of the result: bandit cannot parse what that Python cannot, so its version is recorded. Bandit
would take options from a `.bandit` file and leave out paths that contain `.git` or `.egg` anywhere; both are switched
off. It drops files without a word to the exit code, so every file handed over must turn up in its metrics.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.batches import processors
from intelligentscan.scanners.child_engine import ChildEngine
from intelligentscan.scanners.config import EngineConfig
from intelligentscan.scanners.copies import CopyNames
from intelligentscan.scanners.engine_call import Call, Report
from intelligentscan.scanners.interface import EngineFacts, TargetFile
from intelligentscan.scanners.programs import chosen_program

_MIB = 1024 * 1024
_FACTS = """
import json, platform, sys
import bandit
from bandit.core.extension_loader import MANAGER
json.dump({"version": bandit.__version__, "python": platform.python_version(),
           "rules": sorted({*MANAGER.plugins_by_id, *MANAGER.blacklist_by_id})}, sys.stdout)
"""
_CRASHED_CHECK = re.compile(r"Bandit internal error running: \S+ on file (\S+) at line")


class Bandit(ChildEngine):
    """The bandit engine; see the module."""

    name: str = "bandit"
    package: ClassVar[str | None] = "bandit"
    default_rules: ClassVar[tuple[str, ...]] = ("B",)
    per_file: ClassVar[bool] = True
    max_files: ClassVar[int] = 500
    max_bytes: ClassVar[int] = 2 * _MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the file suffixes the engine analyses."""
        return (".py", ".pyw")

    def parallel(self) -> int:
        """Return how many calls may run at once: bandit uses one processor each."""
        return processors()

    def program(self, options: EngineConfig | None = None, avoid: Path | None = None) -> list[str]:
        """Return the interpreter that the options name, else our own, in isolated mode.

        Raises:
            InvalidArgument: the installation does not allow the named interpreter.
            ScanFailed: this process was not started by an interpreter that could run bandit.
        """
        python = sys.executable
        if options is not None and options.python is not None:
            python = str(chosen_program(options.python, engine=self.name))
        if not python:
            raise self.not_started("the Python interpreter is unknown")
        return [python, "-I", "-X", "utf8", "-W", "ignore"]

    async def read_facts(self, program: Sequence[str], workspace: Path) -> EngineFacts:
        """Ask bandit for its version and rules, and the interpreter for its own.

        Raises:
            ScanFailed: bandit is missing or does not answer.
        """
        answer = await self.answer(program, ["-c", _FACTS], workspace)
        try:
            told = json.loads(answer)
            return EngineFacts(told["version"], tuple(told["rules"]), told["python"])
        except (ValueError, KeyError) as exc:
            raise self.not_started("its answer was not understood") from exc

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""
        options, settings = call.workspace / "options.ini", call.workspace / "settings.yaml"
        if not settings.exists():
            options.write_text("[bandit]\n")
            settings.write_text('exclude_dirs: []\ninclude: ["*.py", "*.pyw"]\n')
        return [
            *("-m", "bandit", "--quiet", "--format", "sarif", "--exit-zero"),
            *("--ini", str(options), "--configfile", str(settings), "--exclude", ""),
            *("--tests", ",".join(call.rules)),
            *(["--ignore-nosec"] if call.ignore_suppressions else []),
            *call.copies,
        ]

    def lost_files(self, report: Report, names: CopyNames) -> dict[str, str]:
        """Return the files bandit skipped, did not mention, or on which one of its checks crashed."""
        lost = {}
        processed = {file.path for key in _metrics(report) if (file := names.file(key)) is not None}
        for file in report.files:
            if file.path not in processed:
                lost[file.path] = "not analysed by bandit"
        for match in _CRASHED_CHECK.finditer(report.stderr):
            if (file := names.file(match[1])) is not None:
                lost[file.path] = "a check of bandit crashed"
        for run in engine_sarif.runs(report.sarif):
            for notification in _notifications(run):
                if (file := names.file(engine_sarif.first_uri(notification))) is not None:
                    lost[file.path] = _reason(notification, report.call.setting.facts)
        return lost

    def silenced(self, report: Report, names: CopyNames) -> list[TargetFile]:
        """Return the files for which bandit counted a nosec comment."""
        counted = {
            file.path
            for key, metrics in _metrics(report).items()
            if (metrics.get("nosec") or metrics.get("skipped_tests")) and (file := names.file(key)) is not None
        }
        return [file for file in report.files if file.path in counted]


def _metrics(report: Report) -> Mapping[str, Mapping[str, Any]]:
    """Return bandit's counters per file, keyed by the path it was given."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in engine_sarif.runs(report.sarif):
        found |= run.get("properties", {}).get("metrics", {})
    return found


def _notifications(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        notification
        for invocation in run.get("invocations") or []
        for notification in invocation.get("toolConfigurationNotifications") or []
    ]


def _reason(notification: Mapping[str, Any], facts: EngineFacts) -> str:
    told = str(notification.get("message", {}).get("text", ""))
    if told.startswith("syntax error"):
        version = (facts.python_version or "").rpartition(".")[0]
        return f"not parsable by Python {version}"
    return told[:200] or "not analysed by bandit"
