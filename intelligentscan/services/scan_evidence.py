"""Signed records of scans: what our own engines counted in a commit, as the gates may rely on it.

Anybody can write tags and metrics of a run; only this service can sign. A record says nothing but which run, which
commit, whether the working tree was that commit, whether everything was seen, and how many serious findings are open.
"""

import logging
from pathlib import Path

import anyio.to_thread

from intelligentscan._digest import sha256_file
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.scanners.config import DEFAULT_ENGINES, ScanConfig
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.services.principal import person
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import Act, Subject
from intelligentscan.stores.interface import RunRecord, Stores

RECORDED = "scan.recorded"
SARIF = "sarif/combined.sarif"
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
        try:
            digest = await anyio.to_thread.run_sync(sha256_file, artifacts / SARIF)
            return await self._store.write(lambda s: _record(s, run, report, digest))
        except (IntelligentScanError, OSError) as exc:  # whoever scans needs the findings, not this
            logger.info("a scan could not be recorded as evidence", exc_info=True)
            why = exc.message.rstrip(".") if isinstance(exc, IntelligentScanError) else "its report cannot be read"
            return f"This scan cannot serve as evidence for a promotion: {why}."


def covers_everything(report: ScanReport) -> bool:
    """Tell whether a scan looked at the whole working tree, with our engines as they come and their default rules.

    The commits of submodules are not compared, so a repository that has some is never scanned as a whole.
    """
    whole = report.vcs.subpath is None and not report.vcs.submodules
    return report.status == "complete" and whole and _is_unabridged(report.config)


def _is_unabridged(config: ScanConfig | None) -> bool:
    if config is None or not config.engines.keys() >= set(DEFAULT_ENGINES):
        return False
    # More engines only add findings. Another interpreter could hide some, and whoever scans chooses it.
    ours = [config.engines[name] for name in DEFAULT_ENGINES]
    return not any(engine.select or engine.ignore or engine.python for engine in ours)


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
