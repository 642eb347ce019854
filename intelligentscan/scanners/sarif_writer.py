"""SARIF out: one valid SARIF 2.1.0 log of a whole scan, one run per engine, without any path of this machine."""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from intelligentscan import __version__
from intelligentscan.domain.scan import EngineCoverage, Finding
from intelligentscan.domain.severity import Severity
from intelligentscan.scanners.fingerprint import FINGERPRINT_VERSION
from intelligentscan.scanners.interface import Sarif, ScanReport, Vcs
from intelligentscan.scanners.sarif_reader import engine_name
from intelligentscan.scanners.sarif_rules import as_object, objects, text_of
from intelligentscan.scanners.secret_text import without_userinfo
from intelligentscan.scanners.severity_map import SEVERITY_MAP_VERSION, canonical_rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "SRCROOT"
FINGERPRINT_KEY = f"intelligentscan/v{FINGERPRINT_VERSION}"
MAX_NOTIFICATIONS = 1_000
MAX_RULES = 5_000
_LEVELS: dict[Severity, str] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
    "info": "note",
}
_WEB = re.compile(r"https?://[!-~]{1,500}")
_SCP = re.compile(r"\A((?:[\w.\-]+@)?[\w.\-]{2,}):(?!/)(.+)\Z")
_DRIVE = re.compile(r"[A-Za-z]:/")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:[!-~]+")


def combined(report: ScanReport, *, run_id: str | None = None) -> Sarif:
    """Return the report as one SARIF log.

    Args:
        report: a finished scan or import, redacted.
        run_id: the run it is logged under, if that is known; it becomes part of the automation id.
    """
    coverage = {row.engine: row for row in report.coverage}
    by_engine: dict[str, list[Finding]] = {engine: [] for engine in (*coverage, *report.rules_run)}
    for finding in report.findings:
        by_engine.setdefault(finding.engine, []).append(finding)
    runs = [_run(report, engine, found, coverage.get(engine), run_id) for engine, found in by_engine.items()]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}


def _run(
    report: ScanReport, engine: str, findings: Sequence[Finding], coverage: EngineCoverage | None, run_id: str | None
) -> Sarif:
    rules = _rules(report, engine, findings)
    index = {rule["id"]: number for number, rule in enumerate(rules)}
    version = coverage.version if coverage else report.scanner_version
    driver: Sarif = {"name": engine, "rules": rules}
    if version:
        driver["version"] = version
    name = report.config.name if report.config else report.kind
    run: Sarif = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"intelligentscan/{_segment(name)}/{_segment(run_id or '')}"},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {ROOT: {"description": {"text": "The scanned folder."}}},
        "invocations": [_invocation(report, engine, coverage)],
        "results": [_result(finding, index) for finding in findings],
        "properties": {"intelligentscan": {"version": __version__, "severityMap": SEVERITY_MAP_VERSION}},
    }
    if provenance := _provenance(report.vcs):
        run["versionControlProvenance"] = [provenance]
    return run


def _result(finding: Finding, index: dict[str, int]) -> Sarif:
    result: Sarif = {
        "ruleId": finding.rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.message or "(no message)"},
        "partialFingerprints": {**finding.producer_fingerprints, FINGERPRINT_KEY: finding.fingerprint},
        "properties": {"severity": finding.severity, "severitySource": finding.severity_source},
    }
    if finding.rule in index:
        result["ruleIndex"] = index[finding.rule]
    if finding.cwe:
        result["properties"]["cwe"] = list(finding.cwe)
    if finding.kind != "fail":
        result["kind"], result["level"] = finding.kind, "none"
    if finding.baseline_state:
        result["baselineState"] = finding.baseline_state
    if finding.suppressed:
        in_source = finding.engine in ("bandit", "ruff")
        result["suppressions"] = [{"kind": "inSource" if in_source else "external", "status": "accepted"}]
    if location := _location(finding):
        result["locations"] = [location]
    return result


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
    if coverage is not None and coverage.exit_code is not None:
        invocation["exitCode"] = coverage.exit_code
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


def _rules(report: ScanReport, engine: str, findings: Iterable[Finding]) -> list[Sarif]:
    """Return the rules that ran or found something, as far as the scanner describes them."""
    described = _descriptions(report, engine)
    cwes: dict[str, dict[str, None]] = {}
    for finding in findings:
        cwes.setdefault(finding.rule, {}).update(dict.fromkeys(finding.cwe))
    ran = {canonical_rule(engine, rule) for rule in report.rules_run.get(engine, ())}
    rules: list[Sarif] = []
    for rule in [*sorted(cwes), *sorted(ran - cwes.keys())][: MAX_RULES + len(cwes)]:
        descriptor = {"id": rule, **described.get(rule, {})}
        if tags := [f"external/cwe/cwe-{int(cwe[4:]):03d}" for cwe in cwes.get(rule, ())]:
            descriptor["properties"] = {"tags": ["security", *tags]}
        rules.append(descriptor)
    return rules


def _descriptions(report: ScanReport, engine: str) -> dict[str, Sarif]:
    """Return what the scanner's own documents say about its rules."""
    found: dict[str, Sarif] = {}
    for document in (*report.engine_sarif.values(), report.sarif):
        for run in objects(document.get("runs")):
            driver = as_object(as_object(run.get("tool")).get("driver"))
            if engine_name(text_of(driver.get("name"))) != engine:
                continue
            for descriptor in objects(driver.get("rules")):
                rule = canonical_rule(engine, text_of(descriptor.get("id")))
                if rule and rule not in found:
                    found[rule] = _description(descriptor)
    return found


def _description(descriptor: Sarif) -> Sarif:
    copy: Sarif = {}
    if name := text_of(descriptor.get("name")):
        copy["name"] = name
    if text := text_of(as_object(descriptor.get("shortDescription")).get("text"), 1_000):
        copy["shortDescription"] = {"text": text}
    uri = text_of(descriptor.get("helpUri"), 500)
    if _WEB.fullmatch(uri):
        copy["helpUri"] = uri
    return copy


def _provenance(vcs: Vcs) -> dict[str, Any] | None:
    """Return where the code came from; SARIF wants the repository as a URI, and nobody wants a password in it."""
    url = without_userinfo(_SCP.sub(r"ssh://\1/\2", vcs.url)) if vcs.url else ""
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
