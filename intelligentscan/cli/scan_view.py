"""How a scan looks in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from intelligentscan.cli.terminal import SEVERITY_STYLE, answer, facts_table, plain_table
from intelligentscan.domain.scan import FindingRow, ScanRun, TopFinding
from intelligentscan.domain.severity import SEVERITIES

_MAX_SHOWN_FAILURES = 3
_LEAST_TEXT = 40
_GAPS = 3 * 4
"""Between and after the four columns of findings."""


def print_scan(run: ScanRun, *, title: str | None = None) -> None:
    """Print counts, changes, the worst findings and what was looked at."""
    console = answer()
    console.print(_headline(run, title))
    if run.top_findings:
        console.print()
        print_findings(console, run.top_findings)
        if (more := run.vulnerabilities_found - len(run.top_findings)) > 0:
            console.print(f"and {more} more", style="dim")
    console.print()
    console.print(facts_table(_facts(run)))


def print_findings(console: Console, findings: Sequence[TopFinding | FindingRow]) -> None:
    """Print findings as a table, in the order given."""
    table = plain_table("severity", "rule", "where", "what")
    widest = [max((len(text) for text in column), default=0) for column in zip(*map(_cells, findings), strict=True)]
    # One line each, as the whole text is in the report.
    room = max(console.width - sum(widest[:3]) - _GAPS, _LEAST_TEXT)
    for finding in findings:
        severity, rule, location, message = _cells(finding)
        what = Text(message)
        what.truncate(room, overflow="ellipsis")
        table.add_row(Text(severity, style=SEVERITY_STYLE[finding.severity]), rule, location, what)
    console.print(table)


def _cells(finding: TopFinding | FindingRow) -> tuple[str, str, str, str]:
    return finding.severity, finding.rule, finding.location, finding.message


def _headline(run: ScanRun, title: str | None) -> Text:
    line = Text()
    if title:
        line.append(f"{title}  ", style="bold")
    if not run.vulnerabilities_found:
        line.append("No vulnerabilities found", style="bold green")
    else:
        noun = "vulnerability" if run.vulnerabilities_found == 1 else "vulnerabilities"
        line.append(f"{run.vulnerabilities_found} {noun}", style="bold")
        counts = [(run.severities.get(severity, 0), severity) for severity in SEVERITIES]
        for position, (count, severity) in enumerate((c, s) for c, s in counts if c):
            line.append(", " if position else ": ")
            line.append(f"{count} {severity}", style=SEVERITY_STYLE[severity])
    if run.scan_status != "complete":
        line.append(f"  {run.scan_status.upper()}", style="bold yellow")
    return line


def _facts(run: ScanRun) -> list[tuple[str, str]]:
    facts = [("run", run.run_id + ("" if run.created else "  (logged before)"))]
    facts.append(("experiment", f"{run.experiment} ({run.experiment_id})"))
    if run.baseline_run_id is not None:
        changes = f"{run.new} new, {run.fixed} fixed, {run.persisting} persisting"
        if run.not_comparable:
            changes += f", {run.not_comparable} not comparable"
        facts.append((f"since {run.baseline_run_id[:8]}", changes))
    for engine in run.coverage:
        seen = f"{engine.files_analyzed} of {engine.files_seen} files in {engine.duration_s:.1f} s"
        facts.append(
            (f"{engine.engine} {engine.version}", seen if engine.status == "complete" else f"{seen}, {engine.status}")
        )
        facts += [("", failure) for failure in engine.failures[:_MAX_SHOWN_FAILURES]]
    facts += [("note", warning) for warning in run.warnings]
    return facts
