"""Scanning a repository, importing other scanners' results, and listing findings."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from intelligentscan._credential_forms import without_credentials
from intelligentscan._paths import AllowedRoots
from intelligentscan._private_folder import private_folder
from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import ExperimentLocked, InvalidArgument, KeyUnavailable, RunNotFound, ScanFailed
from intelligentscan.domain.scan import FindingList, FindingState, ScanRun
from intelligentscan.domain.severity import Severity, rank
from intelligentscan.domain.text import untrusted, visible
from intelligentscan.scanners.config import DEFAULT_ENGINES, MAX_CONFIG_BYTES, ScanConfig
from intelligentscan.scanners.git import describe
from intelligentscan.scanners.git_renames import renamed_between
from intelligentscan.scanners.interface import Progress, ScanReport
from intelligentscan.scanners.matching import Matching, match
from intelligentscan.scanners.report_view import RunFacts
from intelligentscan.scanners.rule_files import pinned
from intelligentscan.scanners.scan import scan_folder
from intelligentscan.scanners.scan_record import ScanRecord
from intelligentscan.scanners.secret_digest import SecretDigests
from intelligentscan.services import cursor as cursors
from intelligentscan.services.idempotency import idempotency
from intelligentscan.services.locks import LockService
from intelligentscan.services.principal import real_user
from intelligentscan.services.resolve import LATEST, Destination, Resolver
from intelligentscan.services.runs import authored
from intelligentscan.services.scan_answers import finding_row, lies_under, scan_run, with_changes
from intelligentscan.services.scan_artifacts import write_artifacts
from intelligentscan.services.scan_cache import ScanCache
from intelligentscan.services.scan_evidence import ScanEvidence
from intelligentscan.services.scan_extra import Extra
from intelligentscan.services.scan_facts import metrics_of, params_of, tags_of, target_of
from intelligentscan.services.scan_imports import ScannerOutput, read_output
from intelligentscan.services.scan_records import ScanRecords
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import ExperimentRecord, Idempotency, MetricValue, RunDraft, RunRecord

KeyIn = Callable[..., Idempotency | None]
"""Makes the idempotency key once the experiment is known: takes `experiment_id`."""

DEFAULT_EXPERIMENT = "vulnerability_scanning"


class ScanService:
    """One use case per method."""

    def __init__(
        self,
        store: StoreAccess,
        resolver: Resolver,
        roots: AllowedRoots,
        records: ScanRecords,
        locks: LockService,
        evidence: ScanEvidence,
        cache: ScanCache,
    ) -> None:
        self._store = store
        self._evidence = evidence
        self._cache = cache
        self._locks = locks
        self._resolver = resolver
        self._roots = roots
        self._records = records

    async def scan(
        self,
        repo_path: str,
        *,
        experiment: str | None = None,
        engines: list[str] | None = None,
        config: str | None = None,
        baseline: str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
        create_missing: bool = False,
        use_cache: bool = True,
    ) -> ScanRun:
        """Scan a folder with our engines and log the result as a run.

        A run is made only when the scan has something to say: a scan that fails or is cancelled leaves none.

        Args:
            repo_path: the folder.
            experiment: name or id; `vulnerability_scanning` if None, which is made when it is missing.
            engines: names of engines; all of ours if None.
            config: path of a scanning configuration (YAML), instead of engines.
            baseline: run to compare with, or 'latest'; the last scan of the same folder if None.
            idempotency_key: same key, same run.
            progress: receives the share done and a text.
            create_missing: make the named experiment if it is missing.
            use_cache: whether files that did not change since an earlier scan are answered from the cache; a scan that
                a gate may rely on never is.

        Raises:
            PathRefused: the folder is not allowed, missing, or cannot be read.
            NothingToScan: the folder holds nothing that an engine takes.
            ScanFailed: no engine completed.
        """
        root = await anyio.to_thread.run_sync(self._roots.folder, repo_path)
        chosen = await anyio.to_thread.run_sync(self._config, engines, config)
        destination = await self._locks.onward(
            await self._resolver.destination(experiment or DEFAULT_EXPERIMENT, create_missing or experiment is None)
        )
        key = partial(
            idempotency,
            idempotency_key,
            person=real_user(),
            tool="scan_vulnerabilities",
            arguments={"repo_path": str(root), "config": chosen.digest, "baseline": baseline},
        )
        if (known := await self._known(destination, key)) is not None:
            return known
        before = await self._baseline(destination, baseline, target_of("scan", "", str(root)))
        began = time.time()
        keyed = await anyio.to_thread.run_sync(self._digests)
        home = (self._roots.home,)
        cache = await self._cache.of_scan(root, chosen, destination, use_cache)
        report = await scan_folder(root, chosen, progress=progress, exclude=home, digests=keyed.digests, cache=cache)
        report = replace(report, warnings=(*report.warnings, *keyed.warnings))
        if report.status == "failed":
            raise ScanFailed("No engine completed the scan.", next="see 'intelligentscan doctor' for the engines.")
        return await self._logged(destination, report, before, key, began=began)

    async def log(
        self,
        experiment: str,
        *,
        sarif_path: str | None = None,
        sarif: dict[str, Any] | None = None,
        findings: list[dict[str, Any]] | None = None,
        repo_path: str | None = None,
        scanner: str | None = None,
        scanner_version: str | None = None,
        params: dict[str, object] | None = None,
        metrics: dict[str, float] | None = None,
        tags: dict[str, object] | None = None,
        baseline: str | None = None,
        idempotency_key: str | None = None,
        create_missing: bool = False,
    ) -> ScanRun:
        """Log the result of any scanner as a run: a SARIF file, a SARIF object, or a list of findings.

        Raises:
            SarifInvalid: the document is not SARIF 2.1.0.
            InvalidArgument: not exactly one of the three was given, or a value is wrong.
        """
        given = ScannerOutput(sarif_path, sarif, findings)
        extra = Extra.checked(params, metrics, tags)
        label = names.run_name(scanner) if scanner is not None else None
        root = await anyio.to_thread.run_sync(self._roots.folder, repo_path) if repo_path is not None else None
        keyed = await anyio.to_thread.run_sync(self._digests)
        work = partial(read_output, given, self._roots, root, label, scanner_version, keyed.digests)
        read = await anyio.to_thread.run_sync(work)
        destination = await self._locks.onward(await self._resolver.destination(experiment, create_missing))
        key = partial(
            idempotency,
            idempotency_key,
            person=real_user(),
            tool="log_scan_run",
            arguments={
                "content": read.digest,
                "repo_path": str(root) if root else None,
                "scanner": [scanner, scanner_version],
                "extra": [extra.params, extra.metrics, extra.tags],
                "baseline": baseline,
            },
        )
        if (known := await self._known(destination, key)) is not None:
            return known
        report = replace(read.report, warnings=(*read.report.warnings, *keyed.warnings))
        if root is not None:
            report = replace(report, vcs=await describe(root))
        before = await self._baseline(destination, baseline, target_of("import", report.scanner, report.target))
        return await self._logged(destination, report, before, key, extra=extra.without(read.secrets))

    async def findings(
        self,
        run_id: str,
        *,
        severity: Severity | None = None,
        state: FindingState | None = None,
        rule: str | None = None,
        path: str | None = None,
        experiment: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> FindingList:
        """Return a page of a scan's findings, the worst first.

        Without a baseline the state of a finding is 'unmatched'.

        Raises:
            RunNotFound: there is no such run.
            NotFound: the run is no scan.
        """
        cursors.checked_limit(limit)
        run = await self._resolver.run(run_id, experiment)
        call = ("findings", run.run_id, severity, state, rule, path)
        start = int(cursors.decode(cursor, *call) or 0)
        record = await self._records.read(run)
        changes = await self._records.changes_of(run)
        rows = [
            finding_row(finding, change)
            for finding, change in with_changes(record.findings, changes)
            if (severity is None or finding.severity == severity)
            and (state is None or change.state == state)
            and (rule is None or finding.rule == rule)
            and (path is None or lies_under(finding.path, path))
        ]
        rows.sort(key=lambda row: (rank(row.severity), row.location, row.rule, row.fingerprint))
        end = start + limit
        return FindingList(
            run_id=run.run_id,
            total=len(rows),
            findings=rows[start:end],
            next_cursor=cursors.encode(str(end) if end < len(rows) else None, *call),
        )

    def _config(self, engines: list[str] | None, config: str | None) -> ScanConfig:
        if config is None:
            return ScanConfig.of_engines(list(DEFAULT_ENGINES) if engines is None else engines)
        if engines is not None:
            raise InvalidArgument("Give either engines or config.", next="name the engines in the configuration.")
        data = self._roots.read_bytes(config, MAX_CONFIG_BYTES, argument="config")
        read = ScanConfig.from_yaml(data.decode("utf-8", "replace"))
        for source in (source for options in read.engines.values() for source in options.rules):
            allowed = self._roots.folder if Path(source.path).is_dir() else self._roots.file
            allowed(source.path, argument="rules")
        return pinned(read)

    def _digests(self) -> "_Keyed":
        """Return what makes the digests of reported secrets; a scan is worth logging without them too."""
        try:
            return _Keyed(SecretDigests.of_home(self._roots.home))
        except KeyUnavailable as exc:
            return _Keyed(None, (f"Reported secrets have no digests, so a changed one shows no difference: {exc}",))

    async def _known(self, destination: Destination, key: KeyIn) -> ScanRun | None:
        """Return the answer of the call that used this key before."""
        for within in destination.chain:
            used = key(experiment_id=within.experiment_id)
            if used is None:
                return None
            run = await self._store.read(lambda s, w=within, u=used: s.tracking.run_by_key(w.experiment_id, u))  # type: ignore[misc]
            if run is not None:
                return await self._shown(within, run)
        return None

    async def _baseline(self, destination: Destination, baseline: str | None, target: str) -> RunRecord | None:
        if baseline is None or baseline.strip().lower() == LATEST:
            found = None
            for within in destination.chain:
                if (found := await self._records.last_of(within.experiment_id, target)) is not None:
                    break
            if found is None and baseline is not None:
                raise RunNotFound(
                    "There is no earlier scan of this target in the experiment.",
                    next="call again without baseline; this scan becomes the first.",
                )
            return found
        run = await self._resolver.run(baseline)
        if not self._records.is_scan(run):
            raise InvalidArgument(
                f"The baseline {run.run_id} is no scan.", next="give the run_id of a scan, or baseline='latest'."
            )
        return run

    async def _logged(
        self,
        destination: Destination,
        report: ScanReport,
        before: RunRecord | None,
        key: KeyIn,
        *,
        began: float | None = None,
        extra: Extra | None = None,
    ) -> ScanRun:
        matching = None
        if before is not None:
            matching = await self._change(before, report)
            report = replace(report, warnings=(*report.warnings, *matching.limits))
        extra = extra or Extra()
        user, now = real_user(), int(time.time() * 1000)
        start = int(began * 1000) if began is not None else now
        own_params = params_of(report)
        own_metrics = await anyio.to_thread.run_sync(metrics_of, report, matching)
        if taken := (own_params.keys() & extra.params.keys()) | (own_metrics.keys() & extra.metrics.keys()):
            raise InvalidArgument(
                f"'{min(taken)}' is set by the scan itself.", next="log your value under another key."
            )
        extra = Extra({**extra.params, **own_params}, {**extra.metrics, **own_metrics}, extra.tags)
        try:
            return await self._written(destination, report, before, key, matching, extra, start, now, user)
        except ExperimentLocked:  # it was locked while we scanned
            onward = await self._locks.onward(await self._resolver.destination(destination.name, create=True))
            return await self._written(onward, report, before, key, matching, extra, start, now, user)

    async def _change(self, before: RunRecord, report: ScanReport) -> Matching:
        """Return how the report differs from an earlier scan."""
        earlier, changes = await self._records.read(before), await self._records.changes_of(before)
        fixed = changes.fixed_before if changes else ()
        renamed: dict[str, str] = {}
        if report.target:
            renamed = await renamed_between(Path(report.target), earlier.commit, report.vcs.commit)
        work = partial(match, earlier, ScanRecord.of(report), renamed_in_git=renamed, fixed_before=fixed)
        return await anyio.to_thread.run_sync(work)

    async def _written(
        self,
        destination: Destination,
        report: ScanReport,
        before: RunRecord | None,
        key: KeyIn,
        matching: Matching | None,
        extra: Extra,
        start: int,
        now: int,
        user: str,
    ) -> ScanRun:
        baseline = before.run_id if before else None
        within = await self._resolver.made(destination)
        if destination.earlier:
            locked = untrusted(destination.earlier[-1].name, 80)
            said = f"The experiment '{locked}' is locked; this scan was logged in the next one."
            report = replace(report, warnings=(*report.warnings, said))
        async with private_folder() as private:
            facts = RunFacts(
                experiment=within.name, started=rfc3339(start), user=user, baseline_run_id=baseline, change=matching
            )
            await anyio.to_thread.run_sync(write_artifacts, private, report, facts)
            draft = RunDraft(
                experiment_id=within.experiment_id,
                user=user,
                time=now,
                start_time=start,
                run_name=_name(report),
                params=extra.params,
                metrics=tuple(MetricValue(k, v, start) for k, v in extra.metrics.items()),
                tags=authored({**extra.tags, **tags_of(report, baseline)}, user),
                artifacts=private,
                status="FINISHED",
                idempotency=key(experiment_id=within.experiment_id),
            )
            written = await self._store.write(lambda s: s.tracking.write_run(draft))
            if not written.created:
                return await self._shown(within, written.run)
            unrecorded = await self._evidence.record(written.run, report, private)
        warnings = (*report.warnings, unrecorded) if unrecorded else report.warnings
        return scan_run(within, written.run, report.findings, created=True, coverage=report.coverage, warnings=warnings)

    async def _shown(self, within: ExperimentRecord, run: RunRecord) -> ScanRun:
        """Return the answer for a scan that was logged before, as it was then."""
        record = await self._records.read(run)
        seen = await self._records.engines_of(run)
        return scan_run(within, run, record.findings, created=False, coverage=seen.coverage, warnings=seen.warnings)


@dataclass(frozen=True, slots=True)
class _Keyed:
    """What makes digests, or the reason why there is none."""

    digests: SecretDigests | None
    warnings: tuple[str, ...] = ()


def _name(report: ScanReport) -> str:
    """Return a run name that tells scans apart: what was scanned, and by what."""
    target = Path(report.target).name if report.target else report.kind
    scanner = "+".join(report.config.engines) if report.config else report.scanner
    return visible(without_credentials(f"{target} {scanner}"))[: names.MAX_NAME]
