"""What a report says, worked out once for every form of it: counts, the worst first, gaps, change."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from intelligentscan.domain.scan import EngineCoverage, Finding, FindingState
from intelligentscan.domain.severity import SEVERITIES, Severity, rank
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.matching import Matching

MAX_ROWS = 1_000
MAX_FIXED = 100
MAX_GAPS = 50


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the run that holds the report adds to it; everything may be unknown.

    Attributes:
        run_id: the run the scan is logged under.
        experiment: its experiment.
        started: RFC 3339 time.
        user: who scanned.
        baseline_run_id: the scan it was compared with.
        change: the result of that comparison.
    """

    run_id: str | None = None
    experiment: str | None = None
    started: str | None = None
    user: str | None = None
    baseline_run_id: str | None = None
    change: Matching | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One finding of the report and what became of it."""

    finding: Finding
    state: FindingState | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """A file (or an engine as a whole) that was not analysed, and why."""

    engine: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportView:
    """Everything a report shows. Texts are as they were found; whoever prints them escapes and bounds them."""

    report: ScanReport
    facts: RunFacts
    severities: dict[Severity, int]
    total: int
    suppressed: int
    rows: Sequence[Row]
    left_out: int
    fixed: Sequence[Finding]
    gaps: Sequence[Gap]
    more_gaps: int
    reasons: dict[str, int]

    @property
    def coverage(self) -> tuple[EngineCoverage, ...]:
        """What each engine saw."""
        return self.report.coverage

    @property
    def title(self) -> str:
        """The name of what was scanned: its last folder, because the way there is nobody's business."""
        name = PurePath(self.report.target).name or self.report.vcs.repository or self.report.scanner
        return name or "unknown target"

    @property
    def verdict(self) -> str:
        """Return the scan's outcome in one sentence of our own words."""
        if self.report.status == "failed":
            return "The scan failed; nothing can be concluded from it."
        worst = next((severity for severity in SEVERITIES if self.severities[severity]), None)
        found = "No open finding." if worst is None else f"{_count(self.total, 'open finding')}, the worst is {worst}."
        if self.report.status == "partial":
            return f"{found} The scan is partial: what was not analysed may hide more."
        return found


def view(report: ScanReport, facts: RunFacts) -> ReportView:
    """Return what a report of this scan shows."""
    states: Sequence[FindingState | None] = [None] * len(report.findings)
    if facts.change is not None and len(facts.change.current) == len(report.findings):
        states = [change.state for change in facts.change.current]
    rows = [Row(f, s) for f, s in zip(report.findings, states, strict=True) if f.counts]
    rows.sort(key=_worst_first)
    counts = Counter(row.finding.severity for row in rows)
    gaps = _gaps(report)
    gone = facts.change.gone if facts.change else ()
    return ReportView(
        report=report,
        facts=facts,
        severities={severity: counts[severity] for severity in SEVERITIES},
        total=len(rows),
        suppressed=sum(finding.suppressed for finding in report.findings),
        rows=rows[:MAX_ROWS],
        left_out=max(0, len(rows) - MAX_ROWS),
        fixed=[change.finding for change in gone if change.state == "fixed"][:MAX_FIXED],
        gaps=gaps[:MAX_GAPS],
        more_gaps=max(0, len(gaps) - MAX_GAPS),
        reasons=facts.change.reasons() if facts.change else {},
    )


def _worst_first(row: Row) -> tuple[int, bool, str, int, str]:
    finding = row.finding
    fresh = row.state in ("new", "reopened")
    return rank(finding.severity), not fresh, finding.path or "", finding.line or 0, finding.rule


def _gaps(report: ScanReport) -> list[Gap]:
    told: dict[tuple[str, str], str] = {}
    for row in report.coverage:
        for failure in row.failures:
            path, _, reason = failure.partition(": ")
            told[row.engine, path] = reason
    silent = {row.engine: row for row in report.coverage if row.status == "failed" and not row.files_seen}
    found = [
        Gap(engine, "(all files)", row.failures[0] if row.failures else "the engine did not run")
        for engine, row in silent.items()
    ]
    for engine, paths in report.failed_files.items():
        if engine not in silent:
            found += [Gap(engine, path, told.get((engine, path), "not analysed")) for path in paths]
    return found


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
