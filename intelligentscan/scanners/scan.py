"""One scan of a folder: one file list, all engines of a configuration at once, one report of what each of them saw."""

import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio
from anyio.to_thread import run_sync

from intelligentscan._collector import paused_collector
from intelligentscan._credential_forms import without_credentials
from intelligentscan._paths import open_folder
from intelligentscan._private_folder import private_folder
from intelligentscan.domain.errors import IntelligentScanError, NothingToScan, PathUnreadable, ScanFailed
from intelligentscan.domain.scan import EngineCoverage, Finding, ScanStatus
from intelligentscan.scanners import git
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.copies import Copier
from intelligentscan.scanners.engine_sarif import SCHEMA
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.scanners.files import FileList, list_files
from intelligentscan.scanners.finding_context import placed
from intelligentscan.scanners.interface import (
    Engine,
    EngineResult,
    Progress,
    Sarif,
    ScanReport,
    Target,
    TargetFile,
    Vcs,
    shown_path,
)
from intelligentscan.scanners.line_hash import with_line_hashes
from intelligentscan.scanners.redaction import redact_findings, redact_sarif
from intelligentscan.scanners.reported_secrets import collect_secrets
from intelligentscan.scanners.result_cache import ResultCache, scan_with_cache
from intelligentscan.scanners.rule_files import pinned
from intelligentscan.scanners.secret_digest import SecretDigests
from intelligentscan.scanners.secret_text import Secrets
from intelligentscan.scanners.source_lines import SourceLines

_COPIES_AT_ONCE = 500
_SHARE_LISTED, _SHARE_COPIED, _SHARE_ENGINES = 0.02, 0.10, 0.97
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")


async def scan_folder(
    root: Path,
    config: ScanConfig,
    *,
    progress: Progress | None = None,
    exclude: Sequence[Path] = (),
    digests: SecretDigests | None = None,
    cache: ResultCache | None = None,
) -> ScanReport:
    """Scan a folder with the engines of a configuration. A cancellation ends every child process.

    Args:
        root: real absolute path of the folder, checked against the allowed roots.
        config: engines and rules.
        progress: told the share done, from 0 to 1, never falling.
        exclude: folders that are left out wherever they are met, such as INTELLIGENTSCAN_HOME.
        digests: makes the digests of reported secrets; without, findings have none.
        cache: results of earlier scans, to be used and added to; a scan that used them is no evidence for a gate.

    Returns:
        The report; its status is `complete` only if every engine analysed every file it takes.

    Raises:
        InvalidArgument: the configuration names an unknown engine or one that is not installed, or selects no rule.
        NothingToScan: the folder holds no file that an engine takes.
        PathRefused: the folder is missing, no folder, or neither it nor any of its files can be read.
        ScanFailed: no engine analysed any file.
        TooLarge: there are more files than a scan takes.
    """
    began = time.perf_counter()
    meter = _Meter(progress, len(config.engines))
    engines = [ENGINES[name] for name in sorted(config.checked().engines)]
    config = await run_sync(_checked, config, engines, root)
    try:
        async with private_folder() as workspace:
            await meter.tell(0.0, "listing files")
            listed = await run_sync(lambda: list_files(root, exclude=(*exclude, workspace)))
            candidates = _candidates(listed, engines)
            await meter.tell(_SHARE_LISTED, "reading files")
            files = await _copy(root, workspace, candidates, meter)
            _check_readable(files)
            closed, warned = listed.unreadable_folders, listed.warnings
            target = Target(root, files, listed.skipped, workspace, closed, warned, digests)
            outcome = await _run_engines(target, engines, config, meter, cache)
            report = await run_sync(lambda: _report(target, listed, config, outcome, time.perf_counter() - began))
    except OSError as exc:
        # Files of the target never get here; what remains is our own temporary folder.
        raise _no_space(exc) from exc
    await meter.tell(1.0, "done")
    return report


def _no_space(exc: OSError) -> ScanFailed:
    return ScanFailed(
        f"The scan could not write its temporary files: {os.strerror(exc.errno or 0)}.",
        next="free space in the temporary folder, or set TMPDIR to another one; then call scan_vulnerabilities again.",
    )


class _Meter:
    """Turns what was done into one share that never falls."""

    def __init__(self, progress: Progress | None, engines: int) -> None:
        self._progress = progress
        self._engines = engines
        self._share = 0.0
        self._done: Counter[str] = Counter()
        self._total: Counter[str] = Counter()

    async def tell(self, share: float, text: str) -> None:
        self._share = max(self._share, share)
        if self._progress is not None:
            await self._progress(self._share, text)

    async def files_done(self, engine: str, more: int, total: int) -> None:
        self._done[engine] += more
        self._total[engine] = total
        done = sum(self._done[name] / max(1, count) for name, count in self._total.items()) / self._engines
        share = _SHARE_COPIED + (_SHARE_ENGINES - _SHARE_COPIED) * min(1.0, done)
        await self.tell(share, f"{engine}: {self._done[engine]} of {total} files")


@dataclass(slots=True)
class _Outcome:
    """What the engines and git said."""

    vcs: Vcs = field(default_factory=Vcs)
    results: dict[str, EngineResult] = field(default_factory=dict)
    refusals: dict[str, IntelligentScanError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def _checked(config: ScanConfig, engines: Sequence[Engine], root: Path) -> ScanConfig:
    """Return the configuration with the digests of its rules, once every engine can do what is asked of it."""
    config = pinned(config)
    for engine in engines:
        engine.check(config.engines[engine.name], root)
    return config


def _candidates(listed: FileList, engines: Sequence[Engine]) -> list[TargetFile]:
    """Return the files that some engine takes."""
    candidates = [file for file in listed.files if any(engine.takes(file.path) for engine in engines)]
    if candidates:
        return candidates
    names = " or ".join(engine.name for engine in engines)
    taken = ", ".join(sorted({kind for engine in engines for kind in engine.kinds()}))
    if listed.unreadable_folders:
        raise PathUnreadable(
            f"The folder holds no readable file that {names} analyses, and {len(listed.unreadable_folders)} of its "
            "folders cannot be read by this user.",
            next="grant read access, or call again with repo_path set to a folder that is readable.",
        )
    raise NothingToScan(
        f"The folder holds {_found(listed)}; {names} analyses {taken}.",
        next=f"call scan_vulnerabilities with a repo_path that holds files with {taken}, or log the report of another "
        "scanner with log_scan_run and sarif_path.",
        details={"files": len(listed.files), "skipped": listed.skipped},
    )


def _found(listed: FileList) -> str:
    """Say what a folder holds by kinds of files; only plain suffixes are repeated, for they are the target's text."""
    if not listed.files:
        return "no files" if not listed.skipped else f"no files but {listed.skipped} that are never read"
    kinds = Counter(suffix if _SUFFIX.fullmatch(suffix := _suffix(file)) else "other" for file in listed.files)
    shown = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(3))
    return f"{len(listed.files)} files ({shown})"


def _suffix(file: TargetFile) -> str:
    return PurePosixPath(file.path).suffix.lower()


async def _copy(root: Path, workspace: Path, files: Sequence[TargetFile], meter: _Meter) -> tuple[TargetFile, ...]:
    folder = workspace / "files"
    folder.mkdir(mode=0o700)
    descriptor = await run_sync(open_folder, root)
    try:
        copier = Copier(descriptor, folder)
        copied: list[TargetFile] = []
        for start in range(0, len(files), _COPIES_AT_ONCE):
            # In portions, because a thread at work cannot be cancelled.
            copied += await run_sync(copier.copy, files[start : start + _COPIES_AT_ONCE])
            share = _SHARE_LISTED + (_SHARE_COPIED - _SHARE_LISTED) * len(copied) / len(files)
            await meter.tell(share, f"read {len(copied)} of {len(files)} files")
        return tuple(copied)
    finally:
        os.close(descriptor)


def _check_readable(files: Sequence[TargetFile]) -> None:
    if not any(file.readable for file in files):
        raise PathUnreadable(
            f"None of the {len(files)} files to scan can be read by this user.",
            next="grant read access, or call again with repo_path set to a folder that is readable.",
            details={"files": len(files)},
        )


async def _run_engines(
    target: Target, engines: Sequence[Engine], config: ScanConfig, meter: _Meter, cache: ResultCache | None
) -> _Outcome:
    outcome = _Outcome()

    async def describe() -> None:
        outcome.vcs = await git.describe(target.root)

    async def scan(engine: Engine) -> None:
        try:
            outcome.results[engine.name] = await _run_engine(target, engine, config, meter, cache, outcome.warnings)
        except IntelligentScanError as exc:
            # Kept, not raised: a task group would wrap it, and the other engines still have something to say.
            outcome.refusals[engine.name] = exc
        except OSError as exc:
            outcome.refusals[engine.name] = _no_space(exc)

    async with anyio.create_task_group() as group:
        group.start_soon(describe)
        for engine in engines:
            group.start_soon(scan, engine)
    for refusal in outcome.refusals.values():
        if not isinstance(refusal, ScanFailed):
            raise refusal
    _check_learned(outcome)
    return outcome


async def _run_engine(
    target: Target,
    engine: Engine,
    config: ScanConfig,
    meter: _Meter,
    cache: ResultCache | None,
    warnings: list[str],
) -> EngineResult:
    files = [file for file in target.files if engine.takes(file.path)]
    options = config.engines[engine.name]
    version = (await engine.facts(options, target.root)).version
    if options.version is not None and options.version != version:
        warnings.append(
            f"degraded: the configuration asks for {engine.name} {options.version}, this is {version}; findings may "
            "differ for that reason alone."
        )

    async def on_files_done(more: int) -> None:
        await meter.files_done(engine.name, more, len(files))

    if cache is not None and engine.per_file:
        return await scan_with_cache(cache, engine, target, files, config, on_files_done)
    return await engine.scan(target, files, config, on_files_done)


def _check_learned(outcome: _Outcome) -> None:
    """Refuse to report on a target of which no engine analysed anything."""
    seen = [result.coverage for result in outcome.results.values() if result.coverage.files_seen]
    if any(coverage.status != "failed" for coverage in seen):
        return
    if not outcome.results and len(outcome.refusals) == 1:
        raise next(iter(outcome.refusals.values()))
    if not seen and not outcome.refusals:
        raise NothingToScan(
            "The folder holds nothing that the rules of these engines are for.",
            next="call scan_vulnerabilities with other engines, or with a configuration that names rules for its "
            "languages.",
        )
    said = {name: refusal.message for name, refusal in outcome.refusals.items()}
    failures = [line for result in outcome.results.values() for line in result.coverage.failures]
    raise ScanFailed(
        "No engine could analyse any file, so nothing is known about the folder.",
        next="read details.failures; scan_vulnerabilities with another repo_path, or a configuration with a longer "
        "timeout_s if the time limit was reached.",
        details={"engines": said, "failures": failures[:10]},
    )


@paused_collector()
def _report(target: Target, listed: FileList, config: ScanConfig, outcome: _Outcome, duration_s: float) -> ScanReport:
    results = {name: outcome.results[name] for name in sorted(outcome.results)}
    coverage = tuple(
        results[name].coverage if name in results else _not_run(name, outcome.refusals[name])
        for name in sorted({*results, *outcome.refusals})
    )
    secrets = _secrets(target.root, results)
    findings = redact_findings([finding for result in results.values() for finding in result.findings], secrets)
    sources = SourceLines(target.root)
    findings = with_line_hashes(findings, sources, secrets)
    failures = {path for result in results.values() for path in result.failed_files}
    around = placed(_sorted(findings), sources, failures)
    documents = {name: _safe(result, target.root, secrets) for name, result in results.items()}
    closed = tuple(shown_path(f"{folder}/") for folder in target.unreadable_folders)
    failed = {name: result.failed_files for name, result in results.items()}
    failed |= {name: tuple(file.shown for file in target.files) for name in outcome.refusals}
    lost = {path for paths in failed.values() for path in paths}
    analyzed = [file for file in target.files if file.shown not in lost]
    discovered = len(listed.files) + listed.skipped
    return ScanReport(
        kind="scan",
        scanner=", ".join(item.engine for item in coverage),
        scanner_version=", ".join(item.version for item in coverage),
        target=str(target.root),
        status=_status(target, coverage),
        findings=around.findings,
        coverage=coverage,
        sarif={
            "$schema": SCHEMA,
            "version": "2.1.0",
            "runs": [run for document in documents.values() for run in document["runs"]],
        },
        engine_sarif=documents,
        engine_stderr={name: secrets.redact(without_credentials(result.stderr)) for name, result in results.items()},
        rules_run={name: result.rules_run for name, result in results.items()},
        files=tuple(file.shown for file in target.files),
        failed_files={name: (*paths, *closed) for name, paths in failed.items()},
        left_out=_left_out(listed, config),
        sketches=around.sketches,
        config=config,
        vcs=outcome.vcs,
        duration_s=round(duration_s, 3),
        files_discovered=discovered,
        files_analyzed=len(analyzed),
        files_failed=len(target.files) - len(analyzed),
        files_skipped=discovered - len(target.files),
        files_cached=len({path for result in results.values() for path in result.cached_files}),
        bytes=sum(file.size for file in analyzed),
        lines=sum(file.lines for file in analyzed),
        warnings=(
            *target.warnings,
            *outcome.warnings,
            *(refusal.message for refusal in outcome.refusals.values()),
            *(warning for result in results.values() for warning in result.warnings),
        ),
    )


def _left_out(listed: FileList, config: ScanConfig) -> tuple[str, ...]:
    """Return the folders, and the files of an engine's kind, that were not looked into."""
    engines = [ENGINES[name] for name in config.engines]
    return tuple(
        shown_path(path)
        for path in listed.left_out
        if path.endswith("/") or any(engine.takes(path) for engine in engines)
    )


def _secrets(root: Path, results: dict[str, EngineResult]) -> Secrets:
    """Return the passwords any engine reported: one engine names what another only shows."""
    secrets = Secrets()
    for result in results.values():
        if result.sarif is not None:
            secrets.update(collect_secrets(result.sarif, root=root))
    return secrets


def _safe(result: EngineResult, root: Path, secrets: Secrets) -> Sarif:
    return redact_sarif(result.sarif or {"version": "2.1.0", "runs": []}, root=root, secrets=secrets)


def _not_run(name: str, refusal: IntelligentScanError) -> EngineCoverage:
    return EngineCoverage(
        engine=name,
        version="",
        status="failed",
        files_seen=0,
        files_analyzed=0,
        files_failed=0,
        failures=[refusal.message],
        findings=0,
        duration_s=0.0,
    )


def _status(target: Target, coverage: Sequence[EngineCoverage]) -> ScanStatus:
    if target.unreadable_folders or any(item.status != "complete" for item in coverage):
        return "partial"
    return "complete"


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda f: (f.path or "", f.line or 0, f.column or 0, f.engine, f.rule)))
