"""The report of a scan for people: as Markdown and as one HTML page that needs nothing else.

All text from the target passes through bounding and escaping here, whoever made it safe before.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from intelligentscan import __version__
from intelligentscan.domain.severity import SEVERITIES
from intelligentscan.domain.text import table_cell, untrusted, visible
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.report_view import MAX_ROWS, ReportView, RunFacts, view

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["MAX_ROWS", "RunFacts", "render_html", "render_markdown"]

_MESSAGE = 300
_NAME = 120
_TEMPLATE = "report.html.jinja"
_STYLE = "report.css"


def render_markdown(report: ScanReport, facts: RunFacts | None = None) -> str:
    """Return the report as Markdown.

    Args:
        report: a finished scan or import.
        facts: what the run it is logged under adds.
    """
    shown = view(report, facts or RunFacts())
    parts = [
        f"# Scan of {_inline(shown.title)}",
        shown.verdict,
        _table(("", ""), _facts(shown)),
        "## Findings by severity",
        _table(SEVERITIES, [tuple(f"{shown.severities[s]:,}" for s in SEVERITIES)]),
        *_change(shown),
        *_coverage(shown),
        *_gaps(shown),
        *_warnings(shown),
        "## Findings, the worst first",
        *_findings(shown),
        *_fixed(shown),
        f"IntelligentScan {__version__}. Messages, names and paths come from the scanned code and its scanners.",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(shown: ReportView) -> list[tuple[str, ...]]:
    return [(name, table_cell(value, _NAME)) for name, value in _named_facts(shown)]


def _named_facts(shown: ReportView) -> list[tuple[str, str]]:
    """Return name and raw value of what identifies the scan; what is unknown is left out."""
    report, facts, vcs = shown.report, shown.facts, shown.report.vcs
    commit = f"{vcs.commit}{' with uncommitted changes' if vcs.dirty else ''}" if vcs.commit else None
    files = f"{report.files_analyzed:,} of {report.files_discovered:,} analysed, {report.files_failed:,} failed"
    known: list[tuple[str, str | None]] = [
        ("Status", report.status),
        ("Scanner", report.scanner),
        ("Version", report.scanner_version),
        ("Configuration", report.config.name if report.config else None),
        ("Files", files if report.files_discovered else None),
        ("Lines", f"{report.lines:,}" if report.lines else None),
        ("Duration", f"{report.duration_s:,.1f} s" if report.duration_s else None),
        ("Suppressed", f"{shown.suppressed:,}" if shown.suppressed else None),
        ("Repository", vcs.repository),
        ("Branch", vcs.branch),
        ("Commit", commit),
        ("Experiment", facts.experiment),
        ("Run", facts.run_id),
        ("Started", facts.started),
        ("User", facts.user),
    ]
    return [(name, value) for name, value in known if value]


def _change(shown: ReportView) -> list[str]:
    change = shown.facts.change
    if change is None:
        return []
    counts = (change.new, change.fixed, change.persisting, change.not_comparable)
    parts = [
        f"## Change against {table_cell(shown.facts.baseline_run_id or 'the baseline', _NAME)}",
        _table(("new", "fixed", "persisting", "not comparable"), [tuple(f"{number:,}" for number in counts)]),
    ]
    if shown.reasons:
        lines = [
            f"- {count:,} not comparable: {untrusted(why, _NAME)}" for why, count in list(shown.reasons.items())[:10]
        ]
        parts.append("\n".join(lines))
    return parts


def _coverage(shown: ReportView) -> list[str]:
    if not shown.coverage:
        return []
    heads = ("engine", "version", "status", "seen", "analysed", "failed", "findings", "seconds", "network")
    rows = [
        (
            table_cell(c.engine),
            table_cell(c.version),
            c.status,
            *(f"{number:,}" for number in (c.files_seen, c.files_analyzed, c.files_failed, c.findings)),
            f"{c.duration_s:,.1f}",
            table_cell(c.network),
        )
        for c in shown.coverage
    ]
    return ["## Coverage", _table(heads, rows)]


def _gaps(shown: ReportView) -> list[str]:
    skipped = shown.report.files_skipped
    if not shown.gaps and not skipped:
        return []
    parts = ["## What was not scanned"]
    if skipped:
        parts.append(f"{skipped:,} {'entry was' if skipped == 1 else 'entries were'} left out: {_SKIPPED}.")
    if shown.gaps:
        rows = [(table_cell(g.engine), table_cell(g.path, _NAME), table_cell(g.reason, _NAME)) for g in shown.gaps]
        parts.append(_table(("engine", "file", "why"), rows))
    if shown.more_gaps:
        parts.append(f"And {shown.more_gaps:,} more files.")
    return parts


_SKIPPED = "links, special files, credentials and other files that are never read"


def _warnings(shown: ReportView) -> list[str]:
    if not shown.report.warnings:
        return []
    lines = [f"- {untrusted(warning, _MESSAGE)}" for warning in shown.report.warnings[:20]]
    more = len(shown.report.warnings) - len(lines)
    return ["## Warnings", "\n".join([*lines, f"- and {more:,} more"] if more > 0 else lines)]


def _findings(shown: ReportView) -> list[str]:
    if not shown.rows:
        return ["None."]
    compared = shown.facts.change is not None
    heads = ("severity", *(("state",) if compared else ()), "rule", "location", "message")
    rows = [
        (
            row.finding.severity,
            *((_state(row.state),) if compared else ()),
            table_cell(row.finding.rule),
            table_cell(row.finding.location, _NAME),
            table_cell(row.finding.message, _MESSAGE),
        )
        for row in shown.rows
    ]
    return [_table(heads, rows), *([_left_out(shown)] if shown.left_out else [])]


def _left_out(shown: ReportView) -> str:
    return (
        f"These are the first {len(shown.rows):,} of {shown.total:,} open findings; "
        "all of them are in findings/findings.jsonl and sarif/combined.sarif."
    )


def _fixed(shown: ReportView) -> list[str]:
    if not shown.fixed:
        return []
    rows = [(f.severity, table_cell(f.rule), table_cell(f.location, _NAME)) for f in shown.fixed]
    change = shown.facts.change
    more = (change.fixed if change else 0) - len(rows)
    parts = ["## Fixed since then", _table(("severity", "rule", "location"), rows)]
    return [*parts, f"And {more:,} more."] if more > 0 else parts


def _state(state: str | None) -> str:
    return (state or "").replace("_", " ")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def _inline(text: str) -> str:
    return table_cell(text, _NAME)


def render_html(report: ScanReport, facts: RunFacts | None = None) -> str:
    """Return the report as one HTML page without scripts, without anything loaded from elsewhere.

    Args:
        report: a finished scan or import.
        facts: what the run it is logged under adds.
    """
    shown = view(report, facts or RunFacts())
    style = files("intelligentscan.scanners").joinpath(_STYLE).read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        view=shown,
        report=report,
        change=shown.facts.change,
        facts=_named_facts(shown),
        severities=SEVERITIES,
        bar=_bar(shown),
        left_out=_left_out(shown) if shown.left_out else "",
        skipped=_SKIPPED,
        style=style,
        style_digest=digest,
        version=__version__,
    )


def _template() -> "Template":
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = _shown
    environment.filters["state"] = _state
    # The style is our own file, and quoting it would change the bytes that the policy names.
    environment.filters["verbatim"] = Markup
    return environment.from_string(files("intelligentscan.scanners").joinpath(_TEMPLATE).read_text("utf-8"))


def _shown(text: str, limit: int = _MESSAGE) -> str:
    """Bound the text and make the unseen visible; the template escapes it."""
    seen = visible(text[: limit + 1])
    return seen if len(seen) <= limit else seen[: limit - 1] + "…"


def _bar(shown: ReportView) -> list[dict[str, object]]:
    """Return the parts of the bar under the counts, in units of a bar 1,000 wide."""
    parts: list[dict[str, object]] = []
    start = 0.0
    for severity in SEVERITIES:
        if number := shown.severities[severity]:
            width = 1_000 * number / shown.total
            parts.append({"severity": severity, "x": round(start, 2), "width": round(width, 2)})
            start += width
    return parts
