"""What a scan looked at, beside what it found: enough to say later whether an absent finding means anything."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from intelligentscan.domain.errors import StoreBroken
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.fingerprint import FINGERPRINT_VERSION
from intelligentscan.scanners.interface import ScanReport

FORMAT = 1
MAX_JSON_CHARACTERS = 200_000_000


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """One scan as matching needs it.

    Attributes:
        findings: all of them, suppressed ones included.
        engines: version of each engine that ran.
        rules_run: rule ids per engine; an empty tuple means that the scanner does not tell.
        files: every file that was to be analysed; empty means that the scanner does not tell.
        failed_files: per engine, files (or folders, ending in a slash) that it could not analyse.
        uncertain: engines that failed in part without saying on which files.
        scope: which part of the repository was scanned.
        fingerprint_version: how the fingerprints of the findings were made.
    """

    findings: tuple[Finding, ...] = ()
    engines: Mapping[str, str] = field(default_factory=dict)
    rules_run: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    failed_files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    uncertain: frozenset[str] = frozenset()
    scope: str = ""
    fingerprint_version: str = FINGERPRINT_VERSION

    @staticmethod
    def of(report: ScanReport) -> "ScanRecord":
        """Return the record of a finished scan."""
        engines = {c.engine: c.version for c in report.coverage if c.status != "failed"}
        partial = {c.engine for c in report.coverage if c.status == "partial"}
        if not report.coverage and report.status != "failed":
            engines = dict.fromkeys(report.rules_run, report.scanner_version)
            partial = set(engines) if report.status == "partial" else set()
        failed = {engine: frozenset(paths) for engine, paths in report.failed_files.items() if paths}
        # What is there but was not looked into is like a failed file: an earlier finding in it is not fixed.
        unknown = {engine: failed.get(engine, frozenset()) | set(report.left_out) for engine in {*failed, *engines}}
        return ScanRecord(
            findings=report.findings,
            engines=engines,
            rules_run={engine: report.rules_run.get(engine, ()) for engine in engines},
            files=frozenset(report.files),
            failed_files={engine: paths for engine, paths in unknown.items() if paths},
            uncertain=frozenset(partial - failed.keys()),
            scope=report.vcs.subpath or "",
        )

    def to_json(self) -> str:
        """Return everything but the findings as the text of the artifact `coverage/files.json`."""
        data = {
            "format": FORMAT,
            "fingerprint_version": self.fingerprint_version,
            "scope": self.scope,
            "engines": dict(sorted(self.engines.items())),
            "rules_run": {engine: sorted(rules) for engine, rules in sorted(self.rules_run.items())},
            "files": sorted(self.files),
            "failed_files": {engine: sorted(paths) for engine, paths in sorted(self.failed_files.items())},
            "uncertain": sorted(self.uncertain),
        }
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    @staticmethod
    def from_json(text: str, findings: Iterable[Finding]) -> "ScanRecord":
        """Return the record of a logged scan from its artifact and its findings.

        Raises:
            StoreBroken: the artifact is not what `to_json` writes.
        """
        try:
            if len(text) > MAX_JSON_CHARACTERS:
                raise ValueError("too long")
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ValueError("another format")
            return ScanRecord(
                findings=tuple(findings),
                engines=_texts(data["engines"]),
                rules_run={engine: tuple(_list(rules)) for engine, rules in data["rules_run"].items()},
                files=frozenset(_list(data["files"])),
                failed_files={engine: frozenset(_list(paths)) for engine, paths in data["failed_files"].items()},
                uncertain=frozenset(_list(data["uncertain"])),
                scope=str(data["scope"]),
                fingerprint_version=str(data["fingerprint_version"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise StoreBroken(
                "The scan's record of analysed files (coverage/files.json) cannot be read.",
                next="compare with another run, or scan again with scan_vulnerabilities.",
            ) from exc


def _list(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("a list of texts is due")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(item) for key, item in value.items()}
