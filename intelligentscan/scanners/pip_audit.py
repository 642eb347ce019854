"""pip-audit for files of pinned Python requirements: asks an online service about known vulnerabilities.

The only engine that needs the network, so it runs only when asked for by name. It never resolves, downloads or builds
what the target names: requirement files are read here, and only `name==version` reaches it, without indexes, links,
paths or options. A requirement without an exact version, or that the service does not know, makes its file a failed
one; pip-audit alone would end with code 0 and no finding.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from intelligentscan._process import MIB, ProcessResult
from intelligentscan.scanners.batches import NoReport
from intelligentscan.scanners.engine_call import Call, Parsed, Setting, read_json, result_of, sarif_of
from intelligentscan.scanners.file_kinds import is_requirements
from intelligentscan.scanners.interface import TargetFile
from intelligentscan.scanners.optional_engine import OptionalEngine, extra
from intelligentscan.scanners.text_copy import plain_text

_PINNED = re.compile(
    r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*===?\s*([A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"\s*(?:;[^#]*)?(?:\s+--hash[= ]\S+)*\s*"
)
_OPTION = re.compile(r"\s*--(?:hash|no-binary|only-binary|prefer-binary|index-url|extra-index-url|trusted-host)\b")
_CONTINUED = re.compile(r"\\\s*$")
_COMMENT = re.compile(r"(?:^|\s)#.*$")


@dataclass(frozen=True, slots=True)
class Requirements:
    """A requirement file: where each pinned name stands with its version, and how many other entries there are."""

    pinned: Mapping[str, tuple[str, int]]
    other: int


class PipAudit(OptionalEngine):
    """The pip-audit engine; see the module."""

    name: str = "pip-audit"
    command: ClassVar[str] = "pip-audit"
    package: ClassVar[str | None] = "pip-audit"
    install: ClassVar[str] = extra("deps")
    offline: ClassVar[bool] = False
    exit_codes: ClassVar[frozenset[int]] = frozenset({0, 1})
    max_files: ClassVar[int] = 1
    max_bytes: ClassVar[int] = MIB

    def kinds(self) -> tuple[str, ...]:
        """Return the files the engine analyses."""
        return ("requirements*.txt",)

    def takes(self, path: str) -> bool:
        """Tell whether a file lists requirements by its name."""
        return is_requirements(path)

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile:
        """Return the file with a copy that holds nothing but names and exact versions."""
        if file.copy is None:
            return file
        found = read_requirements(plain_text(file.copy.read_bytes()))
        if not found.pinned and found.other:
            return replace(file, copy=None, reason="no requirement has an exact version (name==version)")
        folder = setting.workspace / "pinned"
        folder.mkdir(mode=0o700, exist_ok=True)
        copy = folder / file.copy.name
        copy.write_text("".join(f"{name}=={version}\n" for name, (version, _) in found.pinned.items()))
        _notes(copy).write_text(json.dumps([found.other, {name: line for name, (_, line) in found.pinned.items()}]))
        return replace(file, copy=copy)

    def learned(self, counts: Mapping[str, int]) -> bool:
        """Tell whether any requirement was audited, for a file counts as failed if one of many was not."""
        return counts.get("dependencies_audited", 0) > 0

    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""
        cache = str(call.workspace / "cache")
        return [
            *("--format", "json", "--progress-spinner", "off", "--cache-dir", cache, "--disable-pip", "--no-deps"),
            *(option for copy in call.copies for option in ("--requirement", copy)),
        ]

    def parse(self, call: Call, result: ProcessResult) -> Parsed:
        """Return the known vulnerabilities as SARIF, and whether every requirement was audited.

        Raises:
            NoReport: the service did not answer, or there is no usable report.
        """
        copy = call.copies[0]
        other, lines = json.loads(_notes(Path(copy)).read_bytes())
        if not lines:
            return Parsed(sarif_of(self.name, call.setting.facts.version, [], []))
        if not result.stdout.strip():
            raise NoReport("the vulnerability service did not answer, or does not know a requirement")
        told = read_json(result.stdout)
        rows = told.get("dependencies") if isinstance(told, dict) else None
        if not isinstance(rows, list):
            raise NoReport("the engine gave no report")
        rules: dict[str, dict[str, Any]] = {}
        results = []
        for row in rows:
            for advisory in row.get("vulns") or []:
                rules[advisory["id"]] = _descriptor(advisory)
                line = lines.get(_canonical(row["name"]), 1)
                results.append(result_of(advisory["id"], "error", _message(row, advisory), copy, line))
        skipped = sum("skip_reason" in row for row in rows) + len(lines) - len(rows)
        lost = (
            {copy: f"{skipped + other} of {len(lines) + other} requirements were not audited"}
            if skipped + other
            else {}
        )
        counts = {"dependencies_audited": len(lines) - skipped, "dependencies_skipped": skipped + other}
        return Parsed(sarif_of(self.name, call.setting.facts.version, list(rules.values()), results), lost, counts)


def read_requirements(text: str) -> Requirements:
    """Read a requirement file (pip's format): pinned names with their lines; files it includes count as other."""
    pinned: dict[str, tuple[str, int]] = {}
    other = 0
    start, parts = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if not parts:
            start = number
        parts += _CONTINUED.sub(" ", line)
        if _CONTINUED.search(line):
            continue
        entry, parts = _COMMENT.sub("", parts).strip(), ""
        if not entry or _OPTION.match(entry):
            continue
        match = _PINNED.fullmatch(entry)
        # Of two versions of one name, for different markers, one is audited and the other counted as left out.
        if match is None or pinned.setdefault(_canonical(match[1]), (match[2], start))[0] != match[2]:
            other += 1
    return Requirements(pinned, other)


def _canonical(name: str) -> str:
    """Return a name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _notes(copy: Path) -> Path:
    return copy.with_suffix(".notes")


def _message(row: Mapping[str, Any], advisory: Mapping[str, Any]) -> str:
    fixed = ", ".join(advisory.get("fix_versions") or [])
    names = ", ".join([advisory["id"], *(advisory.get("aliases") or [])])
    return f"{row['name']} {row['version']} has a known vulnerability ({names}); " + (
        f"fixed in {fixed}." if fixed else "no fixed release is known."
    )


def _descriptor(advisory: Mapping[str, Any]) -> dict[str, Any]:
    text = str(advisory.get("description") or advisory["id"])[:1_000]
    return {
        "id": advisory["id"],
        "shortDescription": {"text": f"Known vulnerability {advisory['id']}"},
        "fullDescription": {"text": text},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["security", "external/cwe/cwe-1395"]},
    }
