"""Signed records of scans: what our own engines counted in a commit, as the gates may rely on it.

Anybody can write tags and metrics of a run; only this service can sign. A record says nothing but which run, which
commit, whether the working tree was that commit, whether everything was seen, and how many serious findings are open.

Results from the scan cache are never evidence. So a scan that could become evidence does without them, until there is
a record of the same commit, configuration and engines that is less than twelve hours old: then a rescan has nothing to
prove, may use the cache, and leaves that record in force. The next record is made well before a gate finds the last one
too old, for the least age that a policy can demand is one day.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import anyio.to_thread

from intelligentscan._digest import sha256_file
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.scanners.config import DEFAULT_ENGINES, ScanConfig
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.scanners.git import describe
from intelligentscan.scanners.interface import ScanReport, Vcs
from intelligentscan.services.principal import person
from intelligentscan.services.review_facts import scan_record
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import Act, Subject
from intelligentscan.stores.interface import RunRecord, Stores

RECORDED = "scan.recorded"
SARIF = "sarif/combined.sarif"
_STANDS_MS = 12 * 3_600_000
logger = logging.getLogger(__name__)


class ScanEvidence:
    """Records scans of one store."""

    def __init__(self, store: StoreAccess) -> None:
        self._store = store

    async def record(self, run: RunRecord, report: ScanReport, artifacts: Path) -> str | None:
        """Record a scan of a commit in the trail; return a warning if that cannot be, for the scan itself is done.

        Args:
            run: the run that the scan was logged as.
            report: what the scan produced.
            artifacts: the folder whose files the run has.
        """
        if report.kind != "scan" or report.vcs.commit is None:
            return None
        if report.files_cached:
            return await self._said_of_cached(report)
        try:
            digest = await anyio.to_thread.run_sync(sha256_file, artifacts / SARIF)
            return await self._store.write(lambda s: _record(s, run, report, digest))
        except (IntelligentScanError, OSError) as exc:  # whoever scans needs the findings, not this
            logger.info("a scan could not be recorded as evidence", exc_info=True)
            why = exc.message.rstrip(".") if isinstance(exc, IntelligentScanError) else "its report cannot be read"
            return f"This scan cannot serve as evidence for a promotion: {why}."

    async def is_wanted(self, root: Path, config: ScanConfig) -> bool:
        """Tell whether a scan of the folder, made without the cache, would be evidence that is not there yet.

        In doubt it would. Whether the folder is a clean commit is found out again when it is scanned.
        """
        try:
            if not _is_unabridged(config) or not await self._store.read(lambda s: s.governance.installed()):
                return False
            vcs = await describe(root)
            if not _is_clean_commit(vcs):
                return False
            facts = {name: await ENGINES[name].facts(options, root) for name, options in config.engines.items()}
            return await self._is_missing(vcs, config, {name: said.version for name, said in facts.items()})
        except IntelligentScanError:  # it comes up again in the scan, or when it is recorded
            return True

    async def _is_missing(self, vcs: Vcs, config: ScanConfig, engines: Mapping[str, str]) -> bool:
        return not await self._store.read(lambda s: _stands(s, vcs.commit, config, engines))

    async def _said_of_cached(self, report: ScanReport) -> str | None:
        """Return a warning if a scan with results from the cache would have been evidence without them."""
        if report.config is None or not covers_everything(report) or not _is_clean_commit(report.vcs):
            return None
        engines = {each.engine: each.version for each in report.coverage}
        try:
            if not await self._store.read(lambda s: s.governance.installed()):
                return None
            if not await self._is_missing(report.vcs, report.config, engines):
                return None
        except IntelligentScanError:
            logger.info("it is not known whether a scan from the cache stands in for evidence", exc_info=True)
        return (
            f"This scan cannot serve as evidence for a promotion: results of {report.files_cached:,} files are from "
            "the scan cache; scan the clean commit again (intelligentscan scan --no-cache)."
        )


def covers_everything(report: ScanReport) -> bool:
    """Tell whether a scan looked at the whole working tree, with our engines as they come and their default rules.

    The commits of submodules are not compared, so a repository that has some is never scanned as a whole.
    """
    return report.status == "complete" and _is_whole(report.vcs) and _is_unabridged(report.config)


def _is_clean_commit(vcs: Vcs) -> bool:
    return vcs.commit is not None and vcs.dirty is False and _is_whole(vcs)


def _is_whole(vcs: Vcs) -> bool:
    return vcs.subpath is None and not vcs.submodules


def _is_unabridged(config: ScanConfig | None) -> bool:
    if config is None or not config.engines.keys() >= set(DEFAULT_ENGINES):
        return False
    # More engines only add findings. Another interpreter could hide some, and whoever scans chooses it.
    ours = [config.engines[name] for name in DEFAULT_ENGINES]
    return not any(engine.select or engine.ignore or engine.python for engine in ours)


def _stands(stores: Stores, commit: str | None, config: ScanConfig, engines: Mapping[str, str]) -> bool:
    """Tell whether there is a young record of a complete scan of the commit by the same configuration and engines."""
    with stores.governance.reading() as read:
        row = scan_record(read, commit) if commit is not None else None
    if row is None or not row["clean"] or not row["complete"]:
        return False
    same = row.facts.get("config") == config.digest and row.facts.get("engines") == dict(engines)
    return same and 0 <= time.time() * 1000 - row.at < _STANDS_MS


def _record(stores: Stores, run: RunRecord, report: ScanReport, digest: str) -> str | None:
    if not stores.governance.installed():
        return None
    complete, clean = covers_everything(report), report.vcs.dirty is False
    still_open = [finding.severity for finding in report.findings if finding.counts]
    silenced = [f for f in report.findings if f.suppressed and f.kind == "fail" and f.baseline_state != "absent"]
    row = {
        "run_id": run.run_id,
        "experiment_id": int(run.experiment_id),
        "commit_id": report.vcs.commit,
        "clean": int(clean),
        "complete": int(complete),
        "critical": still_open.count("critical"),
        "high": still_open.count("high"),
        "suppressed": sum(finding.severity in ("critical", "high") for finding in silenced),
        "sarif_digest": digest,
    }
    facts = {
        "commit": report.vcs.commit,
        "config": report.config.digest if report.config else None,
        "engines": {each.engine: each.version for each in report.coverage},
    }
    with stores.governance.unit() as unit:
        unit.append(
            Act(
                RECORDED,
                person(),
                Subject(experiment_id=run.experiment_id, run_id=run.run_id),
                facts=facts,
                rows={"scan_record": [row]},
            )
        )
    return None
