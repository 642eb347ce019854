"""One call of an engine: what it is to do, and what came of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intelligentscan._process import MIB, Network, ProcessResult
from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.batches import NoReport
from intelligentscan.scanners.config import EngineConfig
from intelligentscan.scanners.interface import EngineFacts, Sarif, TargetFile
from intelligentscan.scanners.rule_files import RuleSet

DEFAULT_MEMORY_MB = 4096
"""What one call may use; measured on a tree of 1,800 files, no engine came near a tenth of it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all calls of one scan share: program, options and rules.

    Attributes:
        program: absolute program and its leading arguments.
        facts: what the program says about itself.
        options: from the configuration.
        rules: ids of the rules to run; empty if the engine does not tell which it has.
        rule_set: the rule files, for engines that have such.
        workspace: a private folder of the engine.
    """

    program: Sequence[str]
    facts: EngineFacts
    options: EngineConfig
    rules: Sequence[str]
    rule_set: RuleSet | None
    workspace: Path

    @property
    def memory(self) -> int:
        """Bytes of memory that one call may use."""
        return (self.options.memory_mb or DEFAULT_MEMORY_MB) * MIB


@dataclass(frozen=True, slots=True)
class Call:
    """What one call of an engine is to do; `output` is a private folder of this call alone."""

    files: Sequence[TargetFile]
    setting: Setting
    output: Path
    ignore_suppressions: bool = False

    @property
    def rules(self) -> Sequence[str]:
        """The rules to run."""
        return self.setting.rules

    @property
    def workspace(self) -> Path:
        """The private folder of the engine."""
        return self.setting.workspace

    @property
    def copies(self) -> list[str]:
        """The absolute paths of the copies to analyse."""
        return [str(file.copy) for file in self.files if file.copy is not None]


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a call said, as SARIF.

    Attributes:
        sarif: its report.
        lost: texts that name a copy each, and why that file was not analysed.
        counts: the engine's own counts, such as dependencies that were skipped.
        stderr: what it wrote for people, if that is not all it wrote.
    """

    sarif: Sarif
    lost: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    stderr: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The output of one call."""

    call: Call
    parsed: Parsed
    stderr: str
    exit_code: int
    network: Network

    @property
    def files(self) -> Sequence[TargetFile]:
        """The files of the call."""
        return self.call.files

    @property
    def sarif(self) -> Sarif:
        """What the engine reported."""
        return self.parsed.sarif


def check_ended(result: ProcessResult, setting: Setting, exit_codes: frozenset[int]) -> None:
    """Check that a call ended by itself in a way that its engine knows; the exit code alone says nothing more.

    Raises:
        NoReport: a limit ended it, or it crashed.
    """
    if result.out_of_memory:
        raise NoReport(f"the engine needed more memory than its limit of {setting.memory // MIB:,} MiB")
    if result.timed_out:
        raise NoReport("the engine did not end within the time limit")
    if result.stdout_truncated:
        raise NoReport("the engine's report is too large")
    if result.exit_code not in exit_codes:
        how = f"code {result.exit_code}" if result.exit_code > 0 else f"signal {-result.exit_code}"
        raise NoReport(f"the engine crashed ({how})")


def read_json(data: bytes) -> Any:
    """Return the JSON value that an engine wrote.

    Raises:
        NoReport: it is none.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise NoReport("the engine gave no report") from exc


def read_own_sarif(data: bytes) -> Sarif:
    """Return the SARIF log that an engine wrote.

    Raises:
        NoReport: it is none, or has no run.
    """
    document = read_json(data)
    if not engine_sarif.runs(document):
        raise NoReport("the engine gave no report")
    found: Sarif = document
    return found


def read_file(path: Path, most: int) -> bytes:
    """Return what an engine wrote to a file.

    Raises:
        NoReport: it wrote none, or more than `most` bytes.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as exc:
        raise NoReport("the engine gave no report") from exc
    if len(data) > most:
        raise NoReport("the engine's report is too large")
    return data


def sarif_of(
    name: str, version: str, rules: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]
) -> Sarif:
    """Return a SARIF log with one run, for engines that write another format."""
    driver = {"name": name, "version": version, "rules": [dict(rule) for rule in rules]}
    return {"version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": [dict(item) for item in results]}]}


def result_of(rule: str, level: str, message: str, copy: str, line: int) -> dict[str, Any]:
    """Return a SARIF result on one line of a copy."""
    place = {"artifactLocation": {"uri": copy}, "region": {"startLine": line}}
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
    }
