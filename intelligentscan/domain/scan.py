"""Scans and findings as every face shows them."""

from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.noun import Noun
from intelligentscan.domain.run import RunStatus
from intelligentscan.domain.severity import Severity

ScanStatus = Literal["complete", "partial", "failed"]
FindingState = Literal["new", "persisting", "moved", "fixed", "reopened", "suppressed", "not_comparable", "unmatched"]


class Suppression(Noun):
    """A finding set aside, as its scanner tells it."""

    kind: Annotated[Literal["inSource", "external"], Field(description="By a comment in the source, or elsewhere.")]
    justification: Annotated[str | None, Field(description="Untrusted.")] = None


class Finding(Noun):
    """One reported weakness, as it is stored with its run. Texts come from the target and the scanner."""

    rule: Annotated[str, Field(description="Canonical rule id, as the scanner names it.")]
    engine: str
    severity: Severity
    severity_source: Annotated[str, Field(description="Where the band came from.")]
    message: str
    path: Annotated[str | None, Field(description="Relative to the scanned root, with forward slashes.")] = None
    line: int | None = None
    column: int | None = None
    end_line: int | None = None
    snippet: str | None = None
    symbol: str | None = None
    cwe: list[str] = []
    fingerprint: Annotated[str, Field(description="sha256 of rule, path, normalised line text and occurrence.")]
    content_fingerprint: Annotated[str | None, Field(description="sha256 of rule and redacted line text.")] = None
    context: Annotated[str | None, Field(description="Digest of the lines around it, without their literals.")] = None
    secret_digest: Annotated[str | None, Field(description="Keyed digest of a reported secret's value.")] = None
    line_hash: Annotated[str | None, Field(description="GitHub's primaryLocationLineHash of its line.")] = None
    producer_fingerprints: dict[str, str] = {}
    suppressed: bool = False
    suppression: Suppression | None = None
    baseline_state: str | None = None
    kind: str = "fail"

    @property
    def counts(self) -> bool:
        """Whether it is an open vulnerability: kind fail, not suppressed, not absent."""
        return self.kind == "fail" and not self.suppressed and self.baseline_state != "absent"

    @property
    def location(self) -> str:
        """Where it is, as people write it: path:line."""
        if self.path is None:
            return "(no location)"
        return self.path if self.line is None else f"{self.path}:{self.line}"


class EngineCoverage(Noun):
    """What one engine saw of the target. Exit code 0 is not a clean scan; this is."""

    engine: str
    version: str
    python_version: Annotated[str | None, Field(description="Of the interpreter that parses, where it matters.")] = None
    status: ScanStatus
    files_seen: int
    files_analyzed: int
    files_failed: int
    files_cached: Annotated[int, Field(description="Of the analysed ones, those answered from the scan cache.")] = 0
    failures: Annotated[list[str], Field(description="path: reason; the first few.")] = []
    findings: int
    duration_s: float
    exit_code: int | None = None
    network: Annotated[str, Field(description="blocked, not blocked, or needed (an online engine).")] = "not blocked"
    ruleset: Annotated[str | None, Field(description="Name and digest of the rule files, for engines with such.")] = (
        None
    )
    counts: Annotated[dict[str, int], Field(description="The engine's own counts, such as dependencies skipped.")] = {}


class TopFinding(Noun):
    """One of the worst findings of a scan."""

    rule: str
    severity: Severity
    location: str
    message: str


class ScanRun(Noun):
    """A scan that was logged as a run."""

    run_id: str
    created: Annotated[bool, Field(description="False if it was there before.")]
    status: RunStatus
    scan_status: ScanStatus
    experiment_id: str
    experiment: Annotated[str, Field(description="Untrusted.")]
    vulnerabilities_found: int
    critical_count: int
    severities: Annotated[dict[str, int], Field(description="Count by severity.")]
    top_findings: Annotated[
        list[TopFinding], Field(description="The 10 worst: rule, severity, location, message; untrusted text.")
    ]
    report: Annotated[str, Field(description="URI of the report resource.")]
    baseline_run_id: str | None = None
    new: int | None = None
    fixed: int | None = None
    persisting: int | None = None
    not_comparable: int | None = None
    coverage: Annotated[list[EngineCoverage], Field(description="Per engine: seen, analysed, failed; untrusted.")] = []
    warnings: Annotated[list[str], Field(description="Untrusted.")] = []


class FindingRow(Noun):
    """One finding in a list."""

    rule: str
    severity: Severity
    state: FindingState
    location: str
    message: str
    engine: str
    cwe: list[str]
    fingerprint: str
    method: Annotated[str | None, Field(description="How it was recognised in the baseline.")] = None
    reason: Annotated[str | None, Field(description="Why the state is not the plain one.")] = None
    previous: Annotated[str | None, Field(description="Where the baseline had it, if elsewhere.")] = None


class FindingList(Noun):
    """A page of findings, the worst first."""

    run_id: str
    total: int
    findings: Annotated[list[FindingRow], Field(description="Untrusted text in rule, location, previous and message.")]
    next_cursor: str | None = None
