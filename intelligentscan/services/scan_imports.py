"""What another scanner has written, read into a report."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from intelligentscan._collector import paused_collector
from intelligentscan._credential_forms import without_credentials
from intelligentscan._digest import sha256_hex
from intelligentscan._paths import AllowedRoots
from intelligentscan.domain.errors import InvalidArgument, SarifInvalid
from intelligentscan.domain.scan import ScanStatus
from intelligentscan.scanners.finding_context import placed
from intelligentscan.scanners.interface import Sarif, ScanReport
from intelligentscan.scanners.line_hash import with_line_hashes
from intelligentscan.scanners.plain_findings import read_plain_findings
from intelligentscan.scanners.redaction import redact_sarif
from intelligentscan.scanners.sarif_document import MAX_SARIF_BYTES, parse_sarif
from intelligentscan.scanners.sarif_reader import read_sarif
from intelligentscan.scanners.secret_digest import SecretDigests
from intelligentscan.scanners.secret_text import Secrets
from intelligentscan.scanners.source_lines import SourceLines

UNNAMED = "unnamed scanner"


@dataclass(frozen=True, slots=True)
class ScannerOutput:
    """The three forms of a scanner's output, of which exactly one is given."""

    sarif_path: str | None
    sarif: Sarif | None
    findings: list[dict[str, Any]] | None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.sarif_path, self.sarif, self.findings)) != 1:
            raise InvalidArgument(
                "Give exactly one of sarif_path, sarif and findings.",
                next="call log_scan_run with sarif_path, the path of the scanner's SARIF file.",
            )


@dataclass(frozen=True, slots=True)
class Imported:
    """A report, the digest of what it was read from, and the values that were taken out of it."""

    report: ScanReport
    digest: str
    secrets: Secrets


def read_output(
    given: ScannerOutput,
    roots: AllowedRoots,
    root: Path | None,
    scanner: str | None,
    version: str | None,
    digests: SecretDigests | None = None,
) -> Imported:
    """Read a scanner's output; blocks.

    Args:
        given: the output.
        roots: where a SARIF file may lie.
        root: the scanned folder, for relative paths and the text of lines.
        scanner: its name; what the document says if None.
        version: its version; what the document says if None.
        digests: makes the digests of reported secrets; without, findings have none.

    Raises:
        SarifInvalid: the document is not SARIF 2.1.0, or has no run.
        InvalidArgument: a finding lacks its rule or message, or a value is wrong.
    """
    with paused_collector():
        return _read(given, roots, root, scanner, version, digests)


def _read(
    given: ScannerOutput,
    roots: AllowedRoots,
    root: Path | None,
    scanner: str | None,
    version: str | None,
    digests: SecretDigests | None,
) -> Imported:
    sources = SourceLines(root) if root is not None else None
    if given.findings is not None:
        digest = _digest(given.findings)
        reading = read_plain_findings(
            given.findings, scanner=scanner or UNNAMED, scanner_version=version or "", root=root, digests=digests
        )
        raw = {}
    else:
        if given.sarif_path is not None:
            data = roots.read_bytes(given.sarif_path, MAX_SARIF_BYTES, argument="sarif_path")
            content, digest = parse_sarif(data), sha256_hex(data)
            del data
        else:
            content = parse_sarif(given.sarif or {})
            digest = _digest(content)
        reading = read_sarif(content, root=root, digests=digests)
        if sources is not None:
            reading = replace(reading, findings=with_line_hashes(reading.findings, sources, reading.secrets))
        if not reading.runs:
            raise SarifInvalid("The SARIF log has no run.", next="give a log that a scanner has written.")
        ours = given.sarif_path is not None
        safe = redact_sarif(content, root=root, secrets=reading.secrets, collected=True, consume=ours, as_text=True)
        raw = {"imported": safe}
    around = placed(reading.findings, sources, reading.failed_files)
    status: ScanStatus = "complete" if reading.executed and not reading.failed_files else "partial"
    report = ScanReport(
        kind="import",
        scanner=without_credentials(scanner or reading.scanner or UNNAMED),
        scanner_version=without_credentials(version or reading.scanner_version),
        target=str(root) if root is not None else "",
        status=status,
        findings=around.findings,
        engine_sarif=raw,
        rules_run=reading.rules_run,
        sketches=around.sketches,
        failed_files={engine: reading.failed_files for engine in reading.rules_run if reading.failed_files},
        files_analyzed=len({f.path for f in reading.findings if f.path}),
        files_failed=len(reading.failed_files),
        warnings=reading.warnings,
    )
    return Imported(report, digest, reading.secrets)


def _digest(content: Any) -> str:
    return sha256_hex(json.dumps(content, sort_keys=True, separators=(",", ":")).encode("utf-8", "replace"))
