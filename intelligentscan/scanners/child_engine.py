"""What all engines that are programs have in common: batches, coverage, suppressed findings, the limits of a call.

A part per engine says how to call its program and how to tell from its output which files it lost; see `bandit.py`.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import anyio
from anyio.to_thread import run_sync

from intelligentscan._private_folder import private_folder
from intelligentscan._process import Network, ProcessResult, run, scrubbed_env
from intelligentscan.domain.errors import InvalidArgument, ScanFailed
from intelligentscan.domain.scan import EngineCoverage, ScanStatus
from intelligentscan.domain.text import untrusted, visible
from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.batches import BatchesResult, NoReport, cut, run_batches
from intelligentscan.scanners.config import EngineConfig, ScanConfig
from intelligentscan.scanners.copies import CopyNames
from intelligentscan.scanners.interface import EngineResult, FilesDone, Sarif, Target, TargetFile
from intelligentscan.scanners.sarif_reader import read_sarif

SHOWN_FAILURES = 10
MAX_REPORT_BYTES = 32 * 1024 * 1024
MAX_STDERR_CHARACTERS = 64_000
_FACTS_TIMEOUT_S = 60.0
_RULE = re.compile(r"([A-Z]+)([0-9]*)")


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an installed engine says about itself."""

    version: str
    rules: tuple[str, ...]
    python_version: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The output of one call."""

    files: Sequence[TargetFile]
    sarif: Sarif
    stderr: str
    exit_code: int
    network: Network


@dataclass(slots=True)
class _Calls:
    """What all calls of one scan share."""

    rules: Sequence[str]
    workspace: Path
    exit_codes: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Call:
    """What one call of an engine is to do."""

    files: Sequence[TargetFile]
    rules: Sequence[str]
    workspace: Path
    ignore_suppressions: bool = False

    @property
    def copies(self) -> list[str]:
        """The absolute paths of the copies to analyse."""
        return [str(file.copy) for file in self.files if file.copy is not None]


class ChildEngine(ABC):
    """An engine that is a program, run as child processes."""

    name: str
    default_rules: ClassVar[tuple[str, ...]]
    max_files: ClassVar[int]
    max_bytes: ClassVar[int]

    def __init__(self) -> None:
        self._facts: EngineFacts | None = None

    @abstractmethod
    def suffixes(self) -> frozenset[str]:
        """Return the file suffixes the engine analyses."""

    @abstractmethod
    def program(self) -> list[str]:
        """Return the absolute program and its leading arguments.

        Raises:
            ScanFailed: the program is not installed.
        """

    @abstractmethod
    async def read_facts(self, workspace: Path) -> EngineFacts:
        """Ask the program for its version and rules."""

    @abstractmethod
    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""

    @abstractmethod
    def lost_files(self, report: Report, names: CopyNames) -> dict[str, str]:
        """Return the files of a call that the engine did not analyse, and why."""

    @abstractmethod
    def parallel(self) -> int:
        """Return how many calls may run at once."""

    def prepared(self, file: TargetFile, workspace: Path) -> TargetFile:
        """Return the file as this engine needs it; the default hands over the plain copy."""
        return file

    def silenced(self, report: Report, names: CopyNames) -> list[TargetFile]:
        """Return the files of a call in which suppression comments may have silenced a rule."""
        return [file for file in report.files if file.suppressions]

    async def facts(self) -> EngineFacts:
        """Return what the installed engine says about itself, asked once per process.

        Raises:
            ScanFailed: the program is missing or does not answer.
        """
        if self._facts is None:
            async with private_folder() as folder:
                self._facts = await self.read_facts(folder)
        return self._facts

    async def version(self) -> str:
        """Return the version of the installed program.

        Raises:
            ScanFailed: the program is missing or does not answer.
        """
        return (await self.facts()).version

    async def scan(
        self, target: Target, files: Sequence[TargetFile], config: ScanConfig, on_files_done: FilesDone
    ) -> EngineResult:
        """Analyse exactly these files of the target; see `Engine.scan`."""
        facts = await self.facts()
        options = config.engines.get(self.name, EngineConfig())
        rules, warnings = self._selected(facts, options)
        started, began = datetime.now(UTC), anyio.current_time()
        calls = _Calls(rules, target.workspace / self.name)
        calls.workspace.mkdir(mode=0o700)
        copied = await run_sync(self._prepare, files, calls.workspace)
        names = CopyNames(copied)
        found = await self._run(copied, calls, options.timeout_s, on_files_done)
        failed = {file.path: file.reason for file in copied if file.copy is None} | found.failed
        silenced = await run_sync(self._take_stock, found.reports, names, failed)
        left_s = max(1.0, options.timeout_s - (anyio.current_time() - began))
        unsuppressed = await self._run(silenced, calls, left_s, _nobody, ignore_suppressions=True)
        exit_code = next((code for code in calls.exit_codes if code), 0) if calls.exit_codes else None
        document = await run_sync(
            engine_sarif.rebuilt,
            [report.sarif for report in found.reports],
            [report.sarif for report in unsuppressed.reports],
            names,
            rules,
            {"name": self.name, "version": facts.version},
            engine_sarif.Invocation(
                started=started,
                ended=datetime.now(UTC),
                exit_code=exit_code,
                successful=len(failed) < len(copied) or not copied,
                failed=[(file, failed[file.path]) for file in copied if file.path in failed],
            ),
        )
        reading = await run_sync(lambda: read_sarif(document, root=target.root, engine=self.name))
        if unsuppressed.failed:
            warnings = (
                *warnings,
                f"{self.name}: suppressed findings of {len(unsuppressed.failed)} files are not known.",
            )
        analyzed = len(copied) - len(failed)
        coverage = EngineCoverage(
            engine=self.name,
            version=facts.version,
            python_version=facts.python_version,
            status=_status(len(copied), analyzed),
            files_seen=len(copied),
            files_analyzed=analyzed,
            files_failed=len(failed),
            failures=[untrusted(f"{file.shown}: {failed[file.path]}", 300) for file in copied if file.path in failed][
                :SHOWN_FAILURES
            ],
            findings=sum(finding.counts for finding in reading.findings),
            duration_s=round(anyio.current_time() - began, 3),
            exit_code=exit_code,
            network=_network(found.reports),
        )
        return EngineResult(
            coverage=coverage,
            findings=reading.findings,
            sarif=document,
            stderr=_readable_stderr([report.stderr for report in found.reports], names),
            rules_run=tuple(rules),
            failed_files=tuple(file.shown for file in copied if file.path in failed),
            warnings=(*warnings, *reading.warnings),
        )

    async def call(self, arguments: Sequence[str], workspace: Path, timeout_s: float) -> ProcessResult:
        """Run the program once, in a private empty folder.

        Raises:
            ScanFailed: it cannot be started.
        """
        empty = workspace / "empty"
        empty.mkdir(mode=0o700, exist_ok=True)
        try:
            return await run(
                [*self.program(), *arguments],
                cwd=empty,
                env=scrubbed_env(workspace),
                timeout_s=timeout_s,
                max_output=MAX_REPORT_BYTES,
                background=True,
            )
        except OSError as exc:
            raise self.not_started(str(exc.strerror or "unknown reason")) from exc

    async def answer(self, arguments: Sequence[str], workspace: Path) -> bytes:
        """Return what the program prints about itself.

        Raises:
            ScanFailed: it cannot be started, or fails.
        """
        result = await self.call(arguments, workspace, _FACTS_TIMEOUT_S)
        if result.exit_code != 0 or result.stdout_truncated:
            raise self.not_started(f"it ended with code {result.exit_code}")
        return result.stdout

    def not_started(self, reason: str) -> ScanFailed:
        """Return the error of an engine that does not work on this machine."""
        return ScanFailed(
            f"The engine {self.name} could not be run: {reason}.",
            next=f"reinstall IntelligentScan with its dependencies (`uv sync`), or scan without it: leave {self.name} "
            "out of engines.",
        )

    def _selected(self, facts: EngineFacts, options: EngineConfig) -> tuple[list[str], tuple[str, ...]]:
        """Return the rules to run, and warnings about selectors that select nothing."""
        select = options.select or self.default_rules
        chosen = [rule for rule in facts.rules if any(_selects(selector, rule) for selector in select)]
        rules = [rule for rule in chosen if not any(_selects(selector, rule) for selector in options.ignore)]
        if not rules:
            raise InvalidArgument(
                f"The configuration selects no rule of {self.name} {facts.version}.",
                next=f"change engines.{self.name}.select and ignore in the configuration, or leave {self.name} out.",
            )
        unknown = [s for s in (*select, *options.ignore) if not any(_selects(s, rule) for rule in facts.rules)]
        return rules, tuple(
            f"{self.name} {facts.version} has no stable rule {selector}; nothing was run for it."
            for selector in unknown
        )

    def _prepare(self, files: Sequence[TargetFile], workspace: Path) -> list[TargetFile]:
        return [self.prepared(file, workspace) if file.copy is not None else file for file in files]

    def _take_stock(self, reports: Sequence[Report], names: CopyNames, failed: dict[str, str]) -> list[TargetFile]:
        """Add the files that the reports lost to `failed`; return those with suppression comments."""
        for report in reports:
            failed |= self.lost_files(report, names)
        return [file for report in reports for file in self.silenced(report, names) if file.path not in failed]

    async def _run(
        self,
        files: Sequence[TargetFile],
        calls: _Calls,
        timeout_s: float,
        on_files_done: FilesDone,
        *,
        ignore_suppressions: bool = False,
    ) -> BatchesResult[Report]:
        copied = [file for file in files if file.copy is not None]
        await on_files_done(len(files) - len(copied))

        async def call(batch: Sequence[TargetFile], seconds: float) -> Report:
            arguments = self.arguments(Call(batch, calls.rules, calls.workspace, ignore_suppressions))
            try:
                result = await self.call(arguments, calls.workspace, seconds)
            except ScanFailed as exc:
                raise NoReport(exc.message) from exc
            calls.exit_codes.append(result.exit_code)
            # In a thread, as everything below that handles whole reports: they can have many megabytes.
            return await run_sync(_report, batch, result)

        # Small targets are cut finer, so that every processor gets a share.
        share = sum(file.size for file in copied) // self.parallel() + 1
        batches = cut(copied, max_files=self.max_files, max_bytes=min(self.max_bytes, max(share, self.max_bytes // 8)))
        return await run_batches(
            batches, call, timeout_s=timeout_s, parallel=self.parallel(), on_files_done=on_files_done
        )


async def _nobody(_: int) -> None:
    return


def _report(files: Sequence[TargetFile], result: ProcessResult) -> Report:
    """Return the report of a call; the exit code alone says nothing about whether there is one."""
    if result.timed_out:
        raise NoReport("the engine did not end within the time limit")
    if result.stdout_truncated:
        raise NoReport("the engine's report is too large")
    if result.exit_code != 0:
        how = f"code {result.exit_code}" if result.exit_code > 0 else f"signal {-result.exit_code}"
        raise NoReport(f"the engine crashed ({how})")
    try:
        document: Any = json.loads(result.stdout)
    except (ValueError, RecursionError) as exc:
        raise NoReport("the engine gave no report") from exc
    if not engine_sarif.runs(document):
        raise NoReport("the engine gave no report")
    return Report(files, document, result.stderr.decode("utf-8", "replace"), result.exit_code, result.network)


def _selects(selector: str, rule: str) -> bool:
    """Tell whether a selector (a rule, or the beginning of its number) takes a rule; S does not take SIM101."""
    wanted, given = _RULE.fullmatch(selector), _RULE.fullmatch(rule)
    return wanted is not None and given is not None and wanted[1] == given[1] and given[2].startswith(wanted[2])


def _status(seen: int, analyzed: int) -> ScanStatus:
    if analyzed == seen:
        return "complete"
    return "partial" if analyzed else "failed"


def _network(reports: Sequence[Report]) -> Network:
    return "blocked" if reports and all(report.network == "blocked" for report in reports) else "not blocked"


def _readable_stderr(texts: Sequence[str], names: CopyNames) -> str:
    """Return what the engine wrote for people: paths of the target, no control characters, bounded."""
    original = names.original("".join(texts)[:MAX_STDERR_CHARACTERS])
    return "\n".join(visible(line) for line in original.splitlines())
