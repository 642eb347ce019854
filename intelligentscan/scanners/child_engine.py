"""What all engines that are programs have in common: batches, coverage, suppressed findings, the limits of a call.

A part per engine says how to call its program and how to tell from its output which files it lost; see `bandit.py`.
"""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import ClassVar

import anyio
from anyio.to_thread import run_sync

from intelligentscan._private_folder import private_folder
from intelligentscan._process import MIB, ProcessResult, run, scrubbed_env
from intelligentscan.domain.errors import ScanFailed
from intelligentscan.domain.scan import EngineCoverage, ScanStatus
from intelligentscan.domain.text import untrusted, visible
from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.batches import BatchesResult, NoReport, cut, run_batches
from intelligentscan.scanners.config import EngineConfig, ScanConfig
from intelligentscan.scanners.copies import CopyNames
from intelligentscan.scanners.engine_call import Call, Parsed, Report, Setting, check_ended, read_own_sarif
from intelligentscan.scanners.interface import EngineFacts, EngineResult, FilesDone, Target, TargetFile
from intelligentscan.scanners.rule_files import RuleSet
from intelligentscan.scanners.rule_selection import select_rules
from intelligentscan.scanners.sarif_reader import read_sarif

SHOWN_FAILURES = 10
MAX_REPORT_BYTES = 32 * MIB
MAX_STDERR_CHARACTERS = 64_000
_FACTS_TIMEOUT_S = 60.0
_PROXY = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE")


@dataclass(slots=True)
class _Calls:
    """What the calls of one scan have left."""

    setting: Setting
    exit_codes: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    number: int = 0


class ChildEngine(ABC):
    """An engine that is a program, run as child processes.

    Attributes:
        name: as configurations and results write it.
        default_rules: selectors of the rules that run when none are selected; empty means all.
        max_files: files of one call.
        max_bytes: bytes of the files of one call.
        offline: whether it works without the network; one that does not gets it, and runs only when it is asked for.
        exit_codes: how a call ends that has a report.
        environment: variables that its program gets beside the scrubbed ones.
        optional: whether it is found when installed; the others come with IntelligentScan.
        package: the package that brings it in our environment; None if it has an environment of its own.
        install: how to install it, for people who ask for it and do not have it.
        per_file: whether what it says of a file depends on that file alone, so that it may be kept for the next scan.
    """

    name: str
    default_rules: ClassVar[tuple[str, ...]] = ()
    max_files: ClassVar[int]
    max_bytes: ClassVar[int]
    offline: ClassVar[bool] = True
    exit_codes: ClassVar[frozenset[int]] = frozenset({0})
    environment: ClassVar[Mapping[str, str]] = {}
    optional: ClassVar[bool] = False
    package: ClassVar[str | None] = None
    install: ClassVar[str] = "reinstall IntelligentScan with its dependencies (`uv sync`)"
    per_file: ClassVar[bool] = False

    def __init__(self) -> None:
        self._facts: dict[tuple[str, ...], EngineFacts] = {}

    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """Return the files the engine analyses as people say it: suffixes, or names such as 'Dockerfile'."""

    def takes(self, path: str) -> bool:
        """Tell whether the engine analyses a file of this path; by its suffix unless the engine says otherwise."""
        return PurePosixPath(path).suffix.lower() in self.kinds()

    @abstractmethod
    def program(self, options: EngineConfig | None = None, avoid: Path | None = None) -> list[str]:
        """Return the absolute program and its leading arguments.

        Args:
            options: may choose the program.
            avoid: the scanned folder, from which no program is taken.

        Raises:
            EngineMissing: it is not installed (an optional engine).
            InvalidArgument: the options choose a program that is not allowed.
            ScanFailed: it is not installed (an engine that comes with us).
        """

    @abstractmethod
    async def read_facts(self, program: Sequence[str], workspace: Path) -> EngineFacts:
        """Ask the program for its version and rules."""

    @abstractmethod
    def arguments(self, call: Call) -> list[str]:
        """Return the arguments of one call."""

    def learned(self, counts: Mapping[str, int]) -> bool:
        """Tell from the engine's own counts whether a call that lost all its files still says something of them."""
        return False

    def parse(self, call: Call, result: ProcessResult) -> Parsed:
        """Return what a call that ended by itself said; the default reads SARIF from its standard output.

        Raises:
            NoReport: there is no usable report.
        """
        return Parsed(read_own_sarif(result.stdout))

    def lost_files(self, report: Report, names: CopyNames) -> dict[str, str]:
        """Return the files of a call that the engine did not analyse, and why."""
        lost = {names.file(text): reason for text, reason in report.parsed.lost.items()}
        return {file.path: reason for file, reason in lost.items() if file is not None}

    @abstractmethod
    def parallel(self) -> int:
        """Return how many calls may run at once."""

    def rule_set(self, options: EngineConfig) -> RuleSet | None:
        """Return the rule files to run, for engines that have such.

        Raises:
            InvalidArgument: they are missing or wrong.
        """
        return None

    def known_rules(self, facts: EngineFacts, rule_set: RuleSet | None) -> tuple[str, ...]:
        """Return the ids of all rules, or nothing if the engine does not tell."""
        return facts.rules

    def prepared(self, file: TargetFile, setting: Setting) -> TargetFile | None:
        """Return the file as this engine needs it, None if it is none for it; the default is the plain copy."""
        return file

    def silenced(self, report: Report, names: CopyNames) -> list[TargetFile]:
        """Return the files of a call in which suppression comments may have silenced a rule."""
        return [file for file in report.files if file.suppressions]

    def check(self, options: EngineConfig, root: Path) -> None:
        """Check before anything is read that the engine can do what is asked of it; blocks.

        Raises:
            InvalidArgument: it is not installed, or an option is wrong.
        """
        if self.optional or options.python:
            self.program(options, root)
        self.rule_set(options)

    async def facts(self, options: EngineConfig | None = None, avoid: Path | None = None) -> EngineFacts:
        """Return what the installed engine says about itself, asked once per process and program.

        Raises:
            EngineMissing: it is not installed.
            ScanFailed: the program is missing or does not answer.
        """
        program = self.program(options, avoid) if options is not None or avoid is not None else self.program()
        key = tuple(program)
        if key not in self._facts:
            async with private_folder() as folder:
                self._facts[key] = await self.read_facts(program, folder)
        return self._facts[key]

    async def version(self) -> str:
        """Return the version of the installed program.

        Raises:
            EngineMissing: it is not installed.
            ScanFailed: the program is missing or does not answer.
        """
        return (await self.facts()).version

    async def scan(
        self, target: Target, files: Sequence[TargetFile], config: ScanConfig, on_files_done: FilesDone
    ) -> EngineResult:
        """Analyse exactly these files of the target; see `Engine.scan`."""
        options = config.engines.get(self.name, EngineConfig())
        facts = await self.facts(options, target.root)
        rule_set = await run_sync(self.rule_set, options)
        known = self.known_rules(facts, rule_set)
        selection = select_rules(self.name, facts.version, known, options, self.default_rules)
        rules, warnings = selection.rules, selection.warnings
        started, began = datetime.now(UTC), anyio.current_time()
        workspace = target.workspace / self.name
        workspace.mkdir(mode=0o700)
        setting = Setting(self.program(options, target.root), facts, options, rules, rule_set, workspace)
        calls = _Calls(setting)
        copied = await run_sync(self._prepare, files, setting)
        await on_files_done(len(files) - len(copied))
        names = CopyNames(copied)
        found = await self._run(copied, calls, options.timeout_s, on_files_done)
        failed = {file.path: file.reason for file in copied if file.copy is None} | found.failed
        silenced = await run_sync(self._take_stock, found.reports, names, failed)
        left_s = max(1.0, options.timeout_s - (anyio.current_time() - began))
        counts = dict(calls.counts)
        unsuppressed = await self._run(silenced, calls, left_s, _nobody, ignore_suppressions=True)
        exit_code = next((code for code in calls.exit_codes if code), 0) if calls.exit_codes else None
        document = await run_sync(
            engine_sarif.rebuilt,
            [report.sarif for report in found.reports],
            [report.sarif for report in unsuppressed.reports],
            names,
            selection.wants,
            {"name": self.name, "version": facts.version},
            engine_sarif.Invocation(
                started=started,
                ended=datetime.now(UTC),
                exit_code=exit_code,
                successful=len(failed) < len(copied) or not copied,
                failed=[(file, failed[file.path]) for file in copied if file.path in failed],
            ),
        )
        reading = await run_sync(
            lambda: read_sarif(document, root=target.root, engine=self.name, digests=target.digests)
        )
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
            ruleset=rule_set.label if rule_set is not None else None,
            status=status_of(len(copied), analyzed, bool(reading.findings) or self.learned(counts)),
            files_seen=len(copied),
            files_analyzed=analyzed,
            files_failed=len(failed),
            failures=[untrusted(f"{file.shown}: {failed[file.path]}", 300) for file in copied if file.path in failed][
                :SHOWN_FAILURES
            ],
            findings=sum(finding.counts for finding in reading.findings),
            duration_s=round(anyio.current_time() - began, 3),
            exit_code=exit_code,
            network=self._network(found.reports),
            counts=counts,
        )
        return EngineResult(
            coverage=coverage,
            findings=reading.findings,
            sarif=document,
            stderr=_readable_stderr([report.stderr for report in found.reports], names),
            rules_run=rules,
            failed_files=tuple(file.shown for file in copied if file.path in failed),
            warnings=(*warnings, *reading.warnings),
            certain_files=frozenset(file.path for file in copied) - found.failed.keys() - unsuppressed.failed.keys(),
        )

    async def call(
        self,
        program: Sequence[str],
        arguments: Sequence[str],
        workspace: Path,
        timeout_s: float,
        max_memory: int | None = None,
    ) -> ProcessResult:
        """Run the program once, in a private empty folder.

        Raises:
            ScanFailed: it cannot be started.
        """
        empty = workspace / "empty"
        empty.mkdir(mode=0o700, exist_ok=True)
        proxy = {} if self.offline else {name: os.environ[name] for name in _PROXY if name in os.environ}
        try:
            return await run(
                [*program, *arguments],
                cwd=empty,
                env={**scrubbed_env(workspace), **self.environment, **proxy},
                timeout_s=timeout_s,
                max_output=MAX_REPORT_BYTES,
                network=not self.offline,
                background=True,
                max_memory=max_memory,
            )
        except OSError as exc:
            raise self.not_started(str(exc.strerror or "unknown reason")) from exc

    async def answer(self, program: Sequence[str], arguments: Sequence[str], workspace: Path) -> bytes:
        """Return what the program prints about itself.

        Raises:
            ScanFailed: it cannot be started, or fails.
        """
        result = await self.call(program, arguments, workspace, _FACTS_TIMEOUT_S)
        if result.exit_code != 0 or result.stdout_truncated:
            raise self.not_started(f"it ended with code {result.exit_code}")
        return result.stdout

    def not_started(self, reason: str) -> ScanFailed:
        """Return the error of an engine that does not work on this machine."""
        return ScanFailed(
            f"The engine {self.name} could not be run: {reason}.",
            next=f"{self.install}, or scan without it: leave {self.name} out of engines.",
        )

    def _prepare(self, files: Sequence[TargetFile], setting: Setting) -> list[TargetFile]:
        found = (self.prepared(file, setting) if file.copy is not None else file for file in files)
        return [file for file in found if file is not None]

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
        setting = calls.setting
        copied = [file for file in files if file.copy is not None]
        await on_files_done(len(files) - len(copied))

        async def call(batch: Sequence[TargetFile], seconds: float) -> Report:
            calls.number += 1
            this = Call(batch, setting, setting.workspace / f"call{calls.number}", ignore_suppressions)
            # In threads, as everything below that handles whole reports: they can have many megabytes.
            arguments = await run_sync(self._prepare_call, this)
            try:
                result = await self.call(setting.program, arguments, setting.workspace, seconds, setting.memory)
            except ScanFailed as exc:
                raise NoReport(exc.message) from exc
            calls.exit_codes.append(result.exit_code)
            report = await run_sync(self._report, this, result)
            calls.counts.update(report.parsed.counts)
            return report

        # Small targets are cut finer, so that every processor gets a share.
        share = sum(file.size for file in copied) // self.parallel() + 1
        batches = cut(copied, max_files=self.max_files, max_bytes=min(self.max_bytes, max(share, self.max_bytes // 8)))
        return await run_batches(
            batches, call, timeout_s=timeout_s, parallel=self.parallel(), on_files_done=on_files_done
        )

    def _prepare_call(self, call: Call) -> list[str]:
        call.output.mkdir(mode=0o700)
        return self.arguments(call)

    def _report(self, call: Call, result: ProcessResult) -> Report:
        check_ended(result, call.setting, self.exit_codes)
        try:
            parsed = self.parse(call, result)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as exc:
            raise NoReport("the engine's report was not understood") from exc
        stderr = parsed.stderr if parsed.stderr is not None else result.stderr.decode("utf-8", "replace")
        return Report(call, parsed, stderr, result.exit_code, result.network)

    def _network(self, reports: Sequence[Report]) -> str:
        if not self.offline:
            return "needed"
        return "blocked" if reports and all(report.network == "blocked" for report in reports) else "not blocked"


async def _nobody(_: int) -> None:
    return


def status_of(seen: int, analyzed: int, learned: bool) -> ScanStatus:
    """Return the status of an engine: failed only if it analysed nothing and learned nothing either."""
    if analyzed == seen:
        return "complete"
    return "partial" if analyzed or learned else "failed"


def _readable_stderr(texts: Sequence[str], names: CopyNames) -> str:
    """Return what the engine wrote for people: paths of the target, no control characters, bounded."""
    original = names.original("".join(texts)[:MAX_STDERR_CHARACTERS])
    return "\n".join(visible(line) for line in original.splitlines())
