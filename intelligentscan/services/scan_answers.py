"""Scans and findings as they are answered: texts from the target made safe and bounded."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from intelligentscan.domain.scan import (
    EngineCoverage,
    Finding,
    FindingRow,
    ScanRun,
    ScanStatus,
    TopFinding,
)
from intelligentscan.domain.severity import SEVERITIES, rank
from intelligentscan.domain.text import untrusted
from intelligentscan.services.scan_changes import Change, StoredChanges
from intelligentscan.services.scan_facts import BASELINE_TAG, STATUS_TAG
from intelligentscan.stores.interface import ExperimentRecord, RunRecord

TOP = 10
MAX_WARNINGS = 20


def scan_run(
    within: ExperimentRecord,
    run: RunRecord,
    findings: Sequence[Finding],
    *,
    created: bool,
    coverage: Sequence[EngineCoverage] = (),
    warnings: Sequence[str] = (),
) -> ScanRun:
    """Return the answer for a logged scan; its counts are those of the run."""
    open_findings = [f for f in findings if f.counts]
    by_severity = Counter(f.severity for f in open_findings)
    worst = sorted(open_findings, key=lambda f: (rank(f.severity), f.path or "", f.line or 0, f.rule))[:TOP]
    shown = [untrusted(w, 300) for w in warnings[:MAX_WARNINGS]]
    if (more := len(warnings) - MAX_WARNINGS) > 0:
        shown.append(f"{more} more warnings are in the report.")
    return ScanRun(
        run_id=run.run_id,
        created=created,
        status=run.status,
        scan_status=cast("ScanStatus", run.tags.get(STATUS_TAG, "complete")),
        experiment_id=within.experiment_id,
        experiment=untrusted(within.name, 250),
        vulnerabilities_found=len(open_findings),
        critical_count=by_severity["critical"],
        severities={severity: by_severity[severity] for severity in SEVERITIES},
        top_findings=[
            TopFinding(
                rule=untrusted(f.rule, 100),
                severity=f.severity,
                location=untrusted(f.location, 200),
                message=untrusted(f.message, 160),
            )
            for f in worst
        ],
        report=f"intelligentscan://runs/{run.run_id}/report",
        baseline_run_id=run.tags.get(BASELINE_TAG),
        new=_count(run, "new"),
        fixed=_count(run, "fixed"),
        persisting=_count(run, "persisting"),
        not_comparable=_count(run, "not_comparable"),
        coverage=[_safe(c) for c in coverage],
        warnings=shown,
    )


def finding_row(finding: Finding, change: Change) -> FindingRow:
    """Return a finding and what became of it as a row of a list."""
    return FindingRow(
        rule=untrusted(finding.rule, 100),
        severity=finding.severity,
        state=change.state,
        location=untrusted(finding.location, 250),
        message=untrusted(finding.message, 250),
        engine=untrusted(finding.engine, 60),
        cwe=[untrusted(cwe, 20) for cwe in finding.cwe[:5]],
        fingerprint=finding.fingerprint,
        method=untrusted(change.method, 60) if change.method else None,
        reason=untrusted(change.reason, 200) if change.reason else None,
        previous=untrusted(change.previous, 250) if change.previous else None,
    )


def with_changes(findings: Iterable[Finding], changes: StoredChanges | None) -> Iterator[tuple[Finding, Change]]:
    """Yield every finding of a scan with what became of it, and those that only the baseline had."""
    known = iter(changes.current if changes else ())
    for finding in findings:
        yield finding, next(known, Change("suppressed" if finding.suppressed else "unmatched"))
    for change, finding in changes.gone if changes else ():
        yield finding, change


def lies_under(path: str | None, wanted: str) -> bool:
    """Tell whether a finding's path is the wanted file, or lies in the wanted folder."""
    wanted = wanted.strip("/").removeprefix("./")
    return path is not None and (path == wanted or not wanted or path.startswith(f"{wanted}/"))


def _count(run: RunRecord, name: str) -> int | None:
    value = run.metrics.get(f"compare.{name}")
    return int(value) if value is not None else None


def _safe(coverage: EngineCoverage) -> EngineCoverage:
    return coverage.model_copy(update={"failures": [untrusted(f, 200) for f in coverage.failures]})
