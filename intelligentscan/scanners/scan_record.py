"""What a scan looked at, beside what it found: enough to say later whether an absent finding means anything."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from intelligentscan.domain.errors import StoreBroken
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.file_sketch import SKETCH_VERSION, FileSketch
from intelligentscan.scanners.fingerprint import FINGERPRINT_VERSION
from intelligentscan.scanners.interface import ScanReport

FORMAT = 2
"""Format 1 has no sketches, counts what was left out among the failed files, and does not say whether it is partial."""
MAX_JSON_CHARACTERS = 200_000_000


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """One scan as matching needs it.

    Attributes:
        findings: all of them, suppressed ones included.
        engines: version of each engine that ran.
        rules_run: rule ids per engine; an empty tuple means that the scanner does not tell.
        rulesets: name and digest of the rule files of engines that have such.
        files: every file that was to be analysed; empty means that the scanner does not tell.
        failed_files: per engine, files (or folders, ending in a slash) that it could not analyse.
        left_out: files and folders (ending in a slash) that are there but were not looked into.
        uncertain: engines that failed in part without saying on which files.
        partial: whether something that was to be analysed was not.
        scope: which part of the repository was scanned.
        commit: what git says was scanned, if it says.
        sketches: of files with findings and of failed ones, as far as their source was at hand.
        fingerprint_version: how the fingerprints of the findings were made.
        run_id: the run it was logged as; empty as long as it was not.
    """

    findings: tuple[Finding, ...] = ()
    engines: Mapping[str, str] = field(default_factory=dict)
    rules_run: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rulesets: Mapping[str, str] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    failed_files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    uncertain: frozenset[str] = frozenset()
    partial: bool = False
    scope: str = ""
    commit: str | None = None
    sketches: Mapping[str, FileSketch] = field(default_factory=dict)
    fingerprint_version: str = FINGERPRINT_VERSION
    run_id: str = ""

    @property
    def unseen(self) -> frozenset[str]:
        """Files and folders (ending in a slash) that were there and were not analysed, at least by one engine."""
        return self.left_out.union(*self.failed_files.values())

    @staticmethod
    def of(report: ScanReport) -> "ScanRecord":
        """Return the record of a finished scan."""
        engines = {c.engine: c.version for c in report.coverage if c.status != "failed"}
        partial = {c.engine for c in report.coverage if c.status == "partial"}
        if not report.coverage and report.status != "failed":
            engines = dict.fromkeys(report.rules_run, report.scanner_version)
            partial = set(engines) if report.status == "partial" else set()
        failed = {engine: frozenset(paths) for engine, paths in report.failed_files.items() if paths}
        return ScanRecord(
            findings=report.findings,
            engines=engines,
            rules_run={engine: report.rules_run.get(engine, ()) for engine in engines},
            rulesets={c.engine: c.ruleset for c in report.coverage if c.ruleset is not None},
            files=frozenset(report.files),
            failed_files=failed,
            left_out=frozenset(report.left_out),
            uncertain=frozenset(partial - failed.keys()),
            partial=report.status != "complete",
            scope=report.vcs.subpath or "",
            commit=report.vcs.commit,
            sketches=report.sketches,
        )

    def to_json(self) -> str:
        """Return everything but the findings as the text of the artifact `coverage/files.json`."""
        data = {
            "format": FORMAT,
            "fingerprint_version": self.fingerprint_version,
            "scope": self.scope,
            "commit": self.commit,
            "partial": self.partial,
            "engines": dict(sorted(self.engines.items())),
            "rules_run": {engine: sorted(rules) for engine, rules in sorted(self.rules_run.items())},
            "rulesets": dict(sorted(self.rulesets.items())),
            "files": sorted(self.files),
            "failed_files": {engine: sorted(paths) for engine, paths in sorted(self.failed_files.items())},
            "left_out": sorted(self.left_out),
            "uncertain": sorted(self.uncertain),
            "sketch_version": SKETCH_VERSION,
            "sketches": {path: [s.digest, s.encoded] for path, s in sorted(self.sketches.items())},
        }
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    @staticmethod
    def from_json(text: str, findings: Iterable[Finding], run_id: str = "") -> "ScanRecord":
        """Return the record of a logged scan from its artifact and its findings.

        Args:
            text: the artifact, of this format or an earlier one.
            findings: from the scan's other artifact.
            run_id: the run that has both.

        Raises:
            StoreBroken: the artifact is not what `to_json` writes.
        """
        try:
            if len(text) > MAX_JSON_CHARACTERS:
                raise ValueError("too long")
            data = json.loads(text)
            if data["format"] not in (1, FORMAT):
                raise ValueError("another format")
            uncertain = frozenset(_list(data["uncertain"]))
            known = data.get("sketch_version") == SKETCH_VERSION
            return ScanRecord(
                findings=tuple(findings),
                engines=_texts(data["engines"]),
                rules_run={engine: tuple(_list(rules)) for engine, rules in data["rules_run"].items()},
                rulesets=_texts(data.get("rulesets", {})),
                files=frozenset(_list(data["files"])),
                failed_files={engine: frozenset(_list(paths)) for engine, paths in data["failed_files"].items()},
                left_out=frozenset(_list(data.get("left_out", []))),
                uncertain=uncertain,
                partial=bool(data.get("partial", uncertain)),
                scope=str(data["scope"]),
                commit=str(data["commit"]) if data.get("commit") else None,
                sketches=_sketches(data["sketches"]) if known else {},
                fingerprint_version=str(data["fingerprint_version"]),
                run_id=run_id,
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


def _sketches(value: Any) -> dict[str, FileSketch]:
    return {str(path): FileSketch(*_list(parts)) for path, parts in value.items()}
