"""SARIF out: one valid SARIF 2.1.0 log of a whole scan, one run per engine, without any path of this machine.

What is valid says the OASIS schema in `schemas/`; the tests hold every kind of log against it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from urllib.parse import quote

from intelligentscan import __version__
from intelligentscan._credential_forms import without_credentials
from intelligentscan.domain.scan import EngineCoverage, Finding
from intelligentscan.domain.severity import Severity
from intelligentscan.scanners.fingerprint import FINGERPRINT_VERSION
from intelligentscan.scanners.interface import Sarif, ScanReport, Vcs
from intelligentscan.scanners.line_hash import LINE_HASH
from intelligentscan.scanners.matching import FindingChange
from intelligentscan.scanners.report_view import RunFacts
from intelligentscan.scanners.sarif_document import json_bytes
from intelligentscan.scanners.sarif_rules import text_of, whole
from intelligentscan.scanners.sarif_tool import CWE, ToolPart, invocation_of
from intelligentscan.scanners.severity_map import SEVERITY_MAP_VERSION

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "SRCROOT"
FINGERPRINT_KEY = f"intelligentscan/v{FINGERPRINT_VERSION}"
MAX_NOTIFICATIONS = 1_000
_LEVELS: dict[Severity, str] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
    "info": "note",
}
_TIMES = ("startTimeUtc", "endTimeUtc")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z")
_SCP = re.compile(r"\A((?:[\w.\-]+@)?[\w.\-]{2,}):(?!/)(.+)\Z")
_DRIVE = re.compile(r"[A-Za-z]:/")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:[!-~]+")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One result to be: a finding, and what became of it if it was compared."""

    finding: Finding
    change: FindingChange | None = None
    absent: bool = False


def combined(report: ScanReport, facts: RunFacts | None = None, *, as_text: bool = False) -> Sarif:
    """Return the report as one SARIF log.

    Args:
        report: a finished scan or import, redacted.
        facts: what is known about its run and its baseline; with a change, the log has baseline states, and absent
            results for what is gone.
        as_text: whether each result is returned as its JSON text, as `sarif_pieces` takes it.
    """
    facts = facts or RunFacts()
    coverage = {row.engine: row for row in report.coverage}
    by_engine: dict[str, list[_Entry]] = {engine: [] for engine in (*coverage, *report.rules_run)}
    changes: Sequence[FindingChange | None] = facts.change.current if facts.change else ()
    for finding, change in zip_longest(report.findings, changes[: len(report.findings)]):
        by_engine.setdefault(finding.engine, []).append(_Entry(finding, change))
    for gone in facts.change.gone if facts.change else ():
        # An engine that did not run says nothing about its earlier results, not even that they are absent.
        if gone.finding.engine in by_engine:
            by_engine[gone.finding.engine].append(_Entry(gone.finding, gone, absent=True))
    keep = json_bytes if as_text else _unchanged
    runs = [_run(report, facts, engine, found, coverage.get(engine), keep) for engine, found in by_engine.items()]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}


def _unchanged(result: Sarif) -> Sarif:
    return result


def _run(
    report: ScanReport,
    facts: RunFacts,
    engine: str,
    entries: Sequence[_Entry],
    coverage: EngineCoverage | None,
    keep: Callable[[Sarif], Sarif | bytes],
) -> Sarif:
    tool = ToolPart(report, engine, [entry.finding for entry in entries])
    version = coverage.version if coverage else report.scanner_version
    driver: Sarif = {"name": engine, **({"version": version} if version else {}), "rules": tool.rules}
    name = report.config.name if report.config else report.kind
    own: Sarif = {"version": __version__, "severityMap": SEVERITY_MAP_VERSION}
    if facts.baseline_run_id is not None:
        own["baselineRunId"] = facts.baseline_run_id
    run: Sarif = {
        "tool": {"driver": driver},
        "automationDetails": {
            "id": f"intelligentscan/{_segment(name)}/{_segment(facts.run_id or facts.started or '')}"
        },
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {ROOT: {"description": {"text": "The scanned folder."}}},
        "invocations": [_invocation(report, engine, coverage)],
        "results": [keep(_result(entry, tool)) for entry in entries],
        "properties": {"intelligentscan": own},
    }
    if tool.taxonomy is not None:
        driver["supportedTaxonomies"] = [{"name": CWE, "index": 0}]
        run["taxonomies"] = [tool.taxonomy]
    if provenance := _provenance(report.vcs):
        run["versionControlProvenance"] = [provenance]
    return run


def _result(entry: _Entry, tool: ToolPart) -> Sarif:
    finding = entry.finding
    prints = {**finding.producer_fingerprints, FINGERPRINT_KEY: finding.fingerprint}
    if finding.line_hash is not None:
        prints.setdefault(LINE_HASH, finding.line_hash)
    properties: Sarif = {"severity": finding.severity, "severitySource": finding.severity_source}
    result: Sarif = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.message or "(no message)"},
        "partialFingerprints": prints,
        "properties": properties,
    }
    if (index := tool.index.get(finding.rule)) is not None:
        result["ruleIndex"] = index
    if finding.cwe:
        result["taxa"] = [tool.taxon(cwe) for cwe in finding.cwe]
    if finding.kind != "fail":
        result["kind"], result["level"] = finding.kind, "none"
    if (state := _baseline_state(entry)) is not None:
        result["baselineState"] = state
    if entry.change is not None:
        properties["state"] = entry.change.state
        if entry.change.reason:
            properties["stateReason"] = entry.change.reason
    if finding.suppressed:
        result["suppressions"] = [_suppression(finding)]
    if location := _location(finding):
        result["locations"] = [location]
    return result


def _baseline_state(entry: _Entry) -> str | None:
    """Return the state against the baseline; none where it cannot be told, for then nobody knows that it is new."""
    if entry.absent:
        return "absent"
    if entry.change is None or entry.change.state == "unmatched":
        return entry.finding.baseline_state
    if (before := entry.change.previous) is None or entry.change.state == "reopened":
        return None if entry.change.state == "not_comparable" else "new"
    return "unchanged" if _shown(before) == _shown(entry.finding) else "updated"


def _shown(finding: Finding) -> tuple[object, ...]:
    """Return what a result shows of a finding."""
    return finding.rule, finding.severity, finding.message, finding.location, finding.column, finding.suppressed


def _suppression(finding: Finding) -> Sarif:
    known = finding.suppression
    if known is None:
        return {"kind": "inSource" if finding.engine in ("bandit", "ruff") else "external", "status": "accepted"}
    justified = {"justification": known.justification} if known.justification else {}
    return {"kind": known.kind, "status": "accepted", **justified}


def _location(finding: Finding) -> Sarif:
    location: Sarif = {}
    if finding.path is not None:
        location["physicalLocation"] = {"artifactLocation": artifact_location(finding.path)}
        if region := _region(finding):
            location["physicalLocation"]["region"] = region
    if finding.symbol:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.symbol}]
    return location


def _region(finding: Finding) -> Sarif:
    if finding.line is None:
        return {}
    region: Sarif = {"startLine": finding.line}
    if finding.column is not None:
        region["startColumn"] = finding.column
    if finding.end_line is not None and finding.end_line > finding.line:
        region["endLine"] = finding.end_line
    if finding.snippet is not None:
        region["snippet"] = {"text": finding.snippet}
    return region


def artifact_location(path: str) -> Sarif:
    """Return where a finding's path points: below the scanned folder, or what it is if it is no file there."""
    if _URI.fullmatch(path):
        return {"uri": path}
    if path.startswith("/") or _DRIVE.match(path):
        return {"uri": f"file:///{quote(path.lstrip('/'), safe='/:')}"}
    return {"uri": quote(path, safe="/"), "uriBaseId": ROOT}


def _invocation(report: ScanReport, engine: str, coverage: EngineCoverage | None) -> Sarif:
    status = coverage.status if coverage else report.status
    invocation: Sarif = {"executionSuccessful": status == "complete"}
    said = invocation_of(report, engine)
    invocation |= {key: time for key in _TIMES if _TIME.fullmatch(time := text_of(said.get(key), 40))}
    exit_code = coverage.exit_code if coverage is not None else whole(said.get("exitCode"))
    if exit_code is not None:
        invocation["exitCode"] = exit_code
    failed = report.failed_files.get(engine, ())
    notifications = [_notification(path, coverage) for path in failed[:MAX_NOTIFICATIONS]]
    if len(failed) > MAX_NOTIFICATIONS:
        rest = len(failed) - MAX_NOTIFICATIONS
        notifications.append({"level": "error", "message": {"text": f"{rest:,} more files could not be analysed."}})
    if notifications:
        invocation["toolExecutionNotifications"] = notifications
    return invocation


def _notification(path: str, coverage: EngineCoverage | None) -> Sarif:
    reason = "The file could not be analysed."
    for failure in coverage.failures if coverage else ():
        if failure.startswith(f"{path}: "):
            reason = failure[len(path) + 2 :]
    return {
        "level": "error",
        "message": {"text": reason},
        "locations": [{"physicalLocation": {"artifactLocation": artifact_location(path)}}],
    }


def _provenance(vcs: Vcs) -> dict[str, Any] | None:
    """Return where the code came from; SARIF wants the repository as a URI, and nobody wants a password in it."""
    url = without_credentials(_SCP.sub(r"ssh://\1/\2", vcs.url)) if vcs.url else ""
    if not _URI.fullmatch(url) or "[redacted]" in url:
        return None
    details: Sarif = {"repositoryUri": url, "mappedTo": {"uriBaseId": ROOT}}
    if vcs.commit:
        details["revisionId"] = vcs.commit
    if vcs.branch:
        details["branch"] = vcs.branch
    return details


def _segment(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._\-]", "-", text)[:100]
