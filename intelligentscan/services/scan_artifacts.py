"""The files that a scan leaves in its run, written to a private folder before anything is logged."""

from pathlib import Path

from intelligentscan._collector import paused_collector
from intelligentscan.scanners.findings_file import write_findings
from intelligentscan.scanners.interface import Sarif, ScanReport
from intelligentscan.scanners.plots import severity_plot
from intelligentscan.scanners.report import render_html, render_markdown
from intelligentscan.scanners.report_view import RunFacts
from intelligentscan.scanners.sarif_document import sarif_pieces
from intelligentscan.scanners.sarif_writer import combined
from intelligentscan.scanners.scan_record import ScanRecord
from intelligentscan.services.scan_changes import StoredChanges
from intelligentscan.services.scan_configs import CONFIG_ARTIFACT
from intelligentscan.services.scan_records import CHANGES, COVERAGE, ENGINES, FINDINGS, SeenByEngines

_MAX_STDERR = 100_000
_BUFFER = 1024 * 1024


def write_artifacts(folder: Path, report: ScanReport, facts: RunFacts) -> None:
    """Write every artifact of a scan; blocks, for up to seconds on a large scan."""
    with paused_collector():
        _write_documents(folder, report, facts)
        _write_findings(folder, report, facts)
        _write_report(folder, report, facts)


def _write_documents(folder: Path, report: ScanReport, facts: RunFacts) -> None:
    _write_sarif(combined(report, facts, as_text=True), folder / "sarif" / "combined.sarif")
    for engine, document in report.engine_sarif.items():
        _write_sarif(document, folder / "sarif" / f"{engine}.sarif")
    for engine, text in report.engine_stderr.items():
        if text.strip():
            _made(folder / "logs" / f"{engine}.stderr.txt").write_text(text[:_MAX_STDERR], encoding="utf-8")


def _write_findings(folder: Path, report: ScanReport, facts: RunFacts) -> None:
    write_findings(_made(folder / FINDINGS), report.findings)
    _made(folder / COVERAGE).write_text(ScanRecord.of(report).to_json(), encoding="utf-8")
    seen = SeenByEngines(coverage=report.coverage, warnings=report.warnings)
    (folder / ENGINES).write_text(seen.model_dump_json(indent=1), encoding="utf-8")
    if facts.change is not None and facts.baseline_run_id is not None:
        changes = StoredChanges.of(facts.change, facts.baseline_run_id)
        _made(folder / CHANGES).write_text(changes.to_json(), encoding="utf-8")
    if report.config is not None:
        _made(folder / CONFIG_ARTIFACT).write_text(report.config.to_yaml(), encoding="utf-8")


def _write_report(folder: Path, report: ScanReport, facts: RunFacts) -> None:
    _made(folder / "report" / "report.md").write_text(render_markdown(report, facts), encoding="utf-8")
    (folder / "report" / "report.html").write_text(render_html(report, facts), encoding="utf-8")
    severity_plot(report, _made(folder / "plots" / "severity.png"))


def _write_sarif(document: Sarif, path: Path) -> None:
    with _made(path).open("wb", buffering=_BUFFER) as stream:
        stream.writelines(sarif_pieces(document))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
