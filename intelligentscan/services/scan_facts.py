"""The params, metrics and tags of a scan run, by the names that the interface promises."""

from collections import Counter

from intelligentscan import __version__
from intelligentscan._credential_forms import without_credentials
from intelligentscan._digest import sha256_hex
from intelligentscan.domain.severity import SEVERITIES
from intelligentscan.scanners.findings_file import findings_digest
from intelligentscan.scanners.fingerprint import FINGERPRINT_VERSION
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.matching import Matching
from intelligentscan.scanners.rule_aliases import clusters
from intelligentscan.scanners.severity_map import SEVERITY_MAP_VERSION
from intelligentscan.services.scan_records import TARGET_TAG
from intelligentscan.stores.interface import KIND_TAG

STATUS_TAG = "intelligentscan.status"
BASELINE_TAG = "intelligentscan.baseline_run_id"
UNKNOWN = "unknown"
_TOP_CWES = 20
_MAX_VALUE = 5_000


def params_of(report: ScanReport) -> dict[str, str]:
    """Return what went into the scan."""
    vcs = report.vcs
    found: dict[str, object | None] = {
        "repo_path": report.target or UNKNOWN,
        "scanner": report.scanner or UNKNOWN,
        "scanner_version": report.scanner_version or UNKNOWN,
        "intelligentscan.version": __version__,
        "fingerprint.version": FINGERPRINT_VERSION,
        "severity.map.version": SEVERITY_MAP_VERSION,
        "vcs.repository.name": vcs.repository,
        "vcs.repository.url.full": vcs.url,
        "vcs.ref.head.name": vcs.branch,
        "vcs.ref.head.revision": vcs.commit,
        "vcs.dirty": vcs.dirty,
        "scan.target.subpath": vcs.subpath,
        "findings_digest": findings_digest(report.findings),
    }
    if report.config is not None:
        found |= {
            "engines": ",".join(report.config.engines),
            "scan.config.name": report.config.name,
            "scan.config.digest": report.config.digest,
        }
    for coverage in report.coverage:
        found[f"engine.{coverage.engine}.version"] = coverage.version
        found[f"engine.{coverage.engine}.python_version"] = coverage.python_version
        found[f"engine.{coverage.engine}.ruleset"] = coverage.ruleset
    return {
        key: without_credentials(str(value))[:_MAX_VALUE] for key, value in found.items() if value not in (None, "")
    }


def metrics_of(report: ScanReport, matching: Matching | None) -> dict[str, float]:
    """Return what the scan counted and measured."""
    open_findings = [f for f in report.findings if f.counts]
    by_severity = Counter(f.severity for f in open_findings)
    found: dict[str, float] = {
        "vulnerabilities_found": len(open_findings),
        "critical_count": by_severity["critical"],
        "findings.total": len(open_findings),
        **{f"findings.{severity}": by_severity[severity] for severity in SEVERITIES},
        "findings.unique": clusters(report.findings),
        "findings.suppressed": sum(1 for f in report.findings if f.suppressed),
        "scan.duration_s": report.duration_s,
        "scan.files_analyzed": report.files_analyzed,
        "scan.files_failed": report.files_failed,
    }
    for engine, count in Counter(f.engine for f in open_findings).items():
        found[f"findings.engine.{_key(engine)}"] = count
    for cwe, count in Counter(cwe for f in open_findings for cwe in f.cwe).most_common(_TOP_CWES):
        found[f"findings.cwe.{_key(cwe)}"] = count
    if report.kind == "scan":
        analyzable = report.files_analyzed + report.files_failed
        found |= {
            "scan.files_discovered": report.files_discovered,
            "scan.files_skipped": report.files_skipped,
            "scan.files_cached": report.files_cached,
            "scan.bytes": report.bytes,
            "scan.lines": report.lines,
            "scan.files_per_s": report.files_analyzed / report.duration_s if report.duration_s > 0 else 0.0,
            "scan.coverage_ratio": report.files_analyzed / analyzable if analyzable else 0.0,
        }
        if report.lines:
            found["density.per_kloc"] = 1000 * len(open_findings) / report.lines
    for coverage in report.coverage:
        found[f"engine.{coverage.engine}.duration_s"] = coverage.duration_s
        found[f"engine.{coverage.engine}.files_failed"] = coverage.files_failed
        for name, count in coverage.counts.items():
            found[f"engine.{coverage.engine}.{name}"] = count
        if coverage.exit_code is not None:
            found[f"engine.{coverage.engine}.exit_code"] = coverage.exit_code
    if matching is not None:
        found |= {
            "compare.new": matching.new,
            "compare.fixed": matching.fixed,
            "compare.persisting": matching.persisting,
            "compare.not_comparable": matching.not_comparable,
            "compare.moved": matching.moved,
            "compare.reopened": matching.reopened,
            "compare.suppressed": matching.silenced,
        }
    return {key: float(value) for key, value in found.items()}


def tags_of(report: ScanReport, baseline: str | None) -> dict[str, str]:
    """Return the tags that find the run again, MLflow's own for the code version among them."""
    found: dict[str, str | None] = {
        KIND_TAG: report.kind,
        STATUS_TAG: report.status,
        TARGET_TAG: target_of(report.kind, report.scanner, report.target),
        BASELINE_TAG: baseline,
        "mlflow.source.git.commit": report.vcs.commit,
        "mlflow.source.git.branch": report.vcs.branch,
        "mlflow.source.git.repoURL": report.vcs.url,
    }
    return {key: without_credentials(value)[:_MAX_VALUE] for key, value in found.items() if value}


def target_of(kind: str, scanner: str, repo_path: str) -> str:
    """Return a short digest that scans of the same target share: same folder, and for imports same scanner."""
    parts = [kind, repo_path] if kind == "scan" else [kind, scanner, repo_path]
    return sha256_hex("\0".join(parts).encode())[:32]


def _key(text: str) -> str:
    """Return text as part of a metric key, whose alphabet is small."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in text)[:100] or "_"
