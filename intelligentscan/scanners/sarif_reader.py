"""SARIF in: a tolerant reader that turns any producer's SARIF 2.1.0 into findings.

One bad result never loses the file; it becomes a warning that names its place. What is read is
already redacted, so nothing downstream has to remember to do it.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intelligentscan._credential_forms import without_credentials, without_key_lines
from intelligentscan.domain.errors import TooLarge
from intelligentscan.domain.scan import Finding, Suppression
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners.fingerprint import Sighting, fingerprints
from intelligentscan.scanners.interface import Sarif
from intelligentscan.scanners.redaction import is_personal
from intelligentscan.scanners.reported_secrets import (
    collect_secrets,
    is_inside_key,
    secret_code,
    secret_message,
    secret_of,
)
from intelligentscan.scanners.sarif_document import parse_sarif
from intelligentscan.scanners.sarif_message import bounded, fallback_message, message_of
from intelligentscan.scanners.sarif_rating import rate
from intelligentscan.scanners.sarif_rules import (
    RuleBook,
    as_list,
    as_object,
    is_secret_result,
    objects,
    result_cwes,
    text_of,
    whole,
)
from intelligentscan.scanners.sarif_uris import UriResolver
from intelligentscan.scanners.secret_digest import SecretDigests
from intelligentscan.scanners.secret_text import REDACTED, Secrets, without_named_literals
from intelligentscan.scanners.severity_map import canonical_rule, cwes
from intelligentscan.scanners.source_lines import SourceLines

__all__ = ["MAX_FINDINGS", "SarifReading", "engine_name", "parse_sarif", "read_sarif"]

MAX_FINDINGS = 200_000
MAX_SNIPPET = 400
MAX_WARNINGS = 100
_MAX_LINE = 10_000
_MAX_SECRET_MESSAGE = 1_000_000
_MAX_JUSTIFICATION, _MAX_SHOWN_JUSTIFICATION = 4_000, 400
# Drafts of the standard said "existing" of what was there before.
_BASELINES = {"new": "new", "unchanged": "unchanged", "updated": "updated", "absent": "absent", "existing": "unchanged"}
_NOT_A_FINDING = frozenset({"pass", "open", "informational", "notApplicable", "review"})
_PLACEHOLDER_PRINTS = frozenset({"requires login", "unknown", "none", "null", "0", ""})
_NAME = re.compile(r"[^a-z0-9._]+")
_SYNTAX_RULES = frozenset({"invalid-syntax", "syntax-error", "E999", "io-error", "E902"})


@dataclass(frozen=True, slots=True)
class SarifReading:
    """What a SARIF document says.

    Attributes:
        findings: in the order of the document, redacted and fingerprinted.
        scanner: the names of the tools, as they call themselves.
        scanner_version: their versions.
        versions: the version of each engine.
        rules_run: rule ids per engine that ran; an empty tuple means the report does not tell which.
        failed_files: files that a tool says it could not analyse.
        warnings: what was not understood, each naming its place.
        runs: how many SARIF runs the document has.
        executed: false if a tool says that it failed, or a run has no results at all.
        not_findings: results of a kind other than fail.
        secrets: the values that were taken out, to be taken out of the document as well.
    """

    findings: tuple[Finding, ...] = ()
    scanner: str = ""
    scanner_version: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    rules_run: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failed_files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    runs: int = 0
    executed: bool = True
    not_findings: int = 0
    secrets: Secrets = field(default_factory=Secrets, repr=False, compare=False)


def read_sarif(
    document: Sarif,
    *,
    root: Path | None = None,
    engine: str | None = None,
    secrets: Secrets | None = None,
    digests: SecretDigests | None = None,
) -> SarifReading:
    """Read all findings of a SARIF log.

    Args:
        document: as `parse_sarif` returned it.
        root: the scanned folder; paths are made relative to it and the text of lines is read from it.
        engine: the name of our engine that wrote it; without, the tools' own names are used.
        secrets: values known from other documents of the same scan, taken out here as well.
        digests: makes the digests of reported secrets; without, findings have none.

    Raises:
        TooLarge: the document holds more than 200,000 results.
    """
    total = sum(len(as_list(run.get("results"))) for run in objects(document.get("runs")))
    if total > MAX_FINDINGS:
        raise TooLarge(
            f"The document holds {total:,} results; the most is {MAX_FINDINGS:,}.",
            next="split the report, or narrow the rules.",
        )
    sources = SourceLines(root) if root is not None else None
    known = collect_secrets(document, root=root, sources=sources)
    if secrets is not None:
        known.update(secrets)
    return _Reader(root, engine, sources, known, digests).read(document)


class _Reader:
    """Collects what the runs of one document say."""

    def __init__(
        self,
        root: Path | None,
        engine: str | None,
        sources: SourceLines | None,
        secrets: Secrets,
        digests: SecretDigests | None,
    ) -> None:
        self._digests = digests
        self._root = root
        self._engine = engine
        self._sources = sources
        self._secrets = secrets
        self._rows: list[dict[str, Any]] = []
        self._sightings: list[Sighting] = []
        self._failed: dict[str, None] = {}
        self._warnings: list[str] = []
        self._left_out = 0
        self._rules: dict[str, tuple[str, ...]] = {}
        self._versions: dict[str, str] = {}
        self._scanners: dict[str, None] = {}
        self._executed = True
        self._kinds: Counter[str] = Counter()

    def read(self, document: Sarif) -> SarifReading:
        runs = as_list(document.get("runs"))
        for number, run in enumerate(runs):
            if isinstance(run, dict):
                self._run(number, run)
            else:
                self._warn(f"run {number}: not an object, skipped")
        if not runs:
            self._warn("the document has no runs")
        if document.get("inlineExternalProperties"):
            self._warn("the document has inlineExternalProperties, which are not read")
        if self._kinds:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self._kinds.items()))
            self._warn(f"results that are no findings: {kinds}")
        prints = fingerprints(self._sightings)
        self._drop_constant_prints()
        findings = tuple(
            Finding(fingerprint=fingerprint, **row) for fingerprint, row in zip(prints, self._rows, strict=True)
        )
        if self._left_out:
            self._warnings.append(f"and {self._left_out:,} more")
        return SarifReading(
            findings=findings,
            scanner=bounded(", ".join(self._scanners), 250),
            scanner_version=bounded(", ".join(dict.fromkeys(v for v in self._versions.values() if v)), 250),
            versions=self._versions,
            rules_run=self._rules,
            failed_files=tuple(sorted(self._failed)),
            warnings=tuple(self._warnings),
            runs=len(runs),
            executed=self._executed and bool(runs),
            not_findings=sum(self._kinds.values()),
            secrets=self._secrets,
        )

    def _warn(self, text: str) -> None:
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(text)
        else:
            self._left_out += 1

    def _run(self, number: int, run: Sarif) -> None:
        book = RuleBook(run)
        uris = UriResolver(run, self._root, self._sources)
        engine = self._engine or engine_name(book.scanner)
        driver = as_object(as_object(run.get("tool")).get("driver"))
        self._scanners[without_credentials(book.scanner) or "unknown"] = None
        version = text_of(driver.get("semanticVersion"), 100) or text_of(driver.get("version"), 100)
        self._versions[engine] = without_credentials(version)
        successful = self._invocations(number, run, uris)
        if external := sorted(as_object(run.get("externalPropertyFileReferences"))):
            kinds = untrusted(", ".join(external), 100)
            self._warn(f"run {number} ({engine}): parts of it are in other files, which are not read: {kinds}")
            if "results" in external:
                self._executed = False
        results = run.get("results")
        if not isinstance(results, list):
            self._executed = False
            said = "no results" if results is None else "results that are no list"
            self._warn(f"run {number} ({engine}): {said}; it counts as not run")
            return
        if not results and not successful:
            return
        hit: set[str] = set()
        for index, result in enumerate(results):
            if not isinstance(result, dict):
                self._warn(f"run {number}, result {index}: not an object, skipped")
                continue
            hit.add(self._result(f"run {number}, result {index}", result, book, uris, engine))
        self._rules[engine] = _merged(self._rules.get(engine), _rules_run(book, hit))

    def _invocations(self, number: int, run: Sarif, uris: UriResolver) -> bool:
        """Remember the files a tool failed on, and return whether it says that it executed successfully."""
        successful = True
        for invocation in objects(run.get("invocations")):
            if invocation.get("executionSuccessful") is False:
                successful = self._executed = False
                self._warn(f"run {number}: the tool says that it did not execute successfully")
            for key in ("toolExecutionNotifications", "toolConfigurationNotifications"):
                for notification in objects(invocation.get(key)):
                    if notification.get("level") == "error":
                        for location in objects(notification.get("locations")):
                            artifact = as_object(location.get("physicalLocation")).get("artifactLocation")
                            if path := uris.place(artifact).path:
                                self._failed[without_credentials(path)] = None
        return successful

    def _result(self, where: str, result: Sarif, book: RuleBook, uris: UriResolver, engine: str) -> str:
        """Add the finding of one result and return the id of its rule."""
        facts = book.of(result)
        kind = result.get("kind")
        if isinstance(kind, str) and kind in _NOT_A_FINDING:
            self._kinds[kind] += 1
            return facts.id
        location = _first_location(result.get("locations"))
        physical = as_object(location.get("physicalLocation"))
        place = uris.place(physical.get("artifactLocation"))
        if place.problem:
            self._warn(f"{where}: {place.problem}; kept without a path")
        if facts.id in _SYNTAX_RULES and engine == "ruff":
            if place.path:
                self._failed[without_credentials(place.path)] = None
            return facts.id
        secret = is_secret_result(facts, result)
        message = message_of(result, facts, _MAX_SECRET_MESSAGE) if secret else message_of(result, facts)
        if message is None:
            self._warn(f"{where}: has no message; the rule's description is used")
            message = fallback_message(facts)
        elif secret:
            message = secret_message(message, only_secrets=book.only_secrets)
        message = self._secrets.redact(without_credentials(message))
        region = as_object(physical.get("region"))
        line = _position(region.get("startLine"))
        column = _position(region.get("startColumn"))
        text = self._line_text(place.path if place.is_file else None, line, region)
        shown, basis = self._shown(text, secret, book.only_secrets)
        rating = rate(result, facts, engine, message, book.level_override(result, facts.id))
        baseline = result.get("baselineState")
        rule = without_credentials(facts.id) if facts.id.isprintable() else untrusted(facts.id, 250)
        path = None if place.path is None else without_credentials(place.path)
        self._rows.append(
            {
                "rule": canonical_rule(engine, rule),
                "engine": engine,
                "severity": rating.severity,
                "severity_source": rating.source,
                "message": bounded(message),
                "path": path,
                "line": line,
                "column": column,
                "end_line": _position(region.get("endLine")),
                "snippet": None if shown is None else bounded(shown, MAX_SNIPPET),
                "symbol": _symbol(location),
                "cwe": list(cwes(engine, facts.id, result_cwes(result, facts) or facts.cwes)),
                "secret_digest": self._digest(result, book, uris) if secret else None,
                "producer_fingerprints": {} if secret else _prints(result),
                **self._suppression(where, result.get("suppressions")),
                "baseline_state": _BASELINES.get(baseline) if isinstance(baseline, str) else None,
            }
        )
        self._sightings.append(
            Sighting(engine, self._rows[-1]["rule"], path, message if basis is None else basis, line, column)
        )
        return facts.id

    def _digest(self, result: Sarif, book: RuleBook, uris: UriResolver) -> str | None:
        value = secret_of(result, only_secrets=book.only_secrets, uris=uris, sources=self._sources)
        return self._digests.digest(value) if self._digests is not None and value is not None else None

    def _line_text(self, path: str | None, line: int | None, region: Sarif) -> str | None:
        if self._sources is not None and path is not None and line is not None:
            found = self._sources.line(path, line)
            if found is not None:
                return REDACTED if is_inside_key(self._sources, path, line, found) else found[:_MAX_LINE]
        snippet = text_of(as_object(region.get("snippet")).get("text"), _MAX_LINE)
        return snippet.strip("\r\n").partition("\n")[0] if snippet.strip() else None

    def _shown(self, text: str | None, secret: bool, only_secrets: bool) -> tuple[str | None, str | None]:
        """Return the line as it may be shown, and as the fingerprint takes it."""
        if text is None:
            return None, None
        if secret:
            text = secret_code(text, only_secrets=only_secrets)
        safe = without_credentials(without_key_lines(without_named_literals(text)))
        basis = self._secrets.redact_unmistakable(safe)
        return self._secrets.redact(basis, code=True), basis

    def _suppression(self, where: str, suppressions: Any) -> dict[str, Any]:
        """Apply SARIF 2.1.0 section 3.27.23: suppressed if there are suppressions and none is open or rejected."""
        if not suppressions:
            return {}
        if not isinstance(suppressions, list) or not all(isinstance(item, dict) for item in suppressions):
            self._warn(f"{where}: suppressions are malformed; counted as not suppressed")
            return {}
        if not all((item.get("status") or "accepted") == "accepted" for item in suppressions):
            return {}
        for item in suppressions:
            if item.get("kind") in ("inSource", "external"):
                said = self._secrets.redact(without_credentials(text_of(item.get("justification"), _MAX_JUSTIFICATION)))
                known = Suppression(kind=item["kind"], justification=bounded(said, _MAX_SHOWN_JUSTIFICATION) or None)
                return {"suppressed": True, "suppression": known}
        return {"suppressed": True}

    def _drop_constant_prints(self) -> None:
        """Forget producer fingerprints that are the same for every result, for they identify nothing."""
        seen: dict[tuple[str, str], set[str]] = {}
        count: Counter[tuple[str, str]] = Counter()
        for row in self._rows:
            for key, value in row["producer_fingerprints"].items():
                seen.setdefault((row["engine"], key), set()).add(value)
                count[row["engine"], key] += 1
        constant = {key for key, values in seen.items() if len(values) == 1 and count[key] > 1}
        if constant:
            for row in self._rows:
                row["producer_fingerprints"] = {
                    key: value
                    for key, value in row["producer_fingerprints"].items()
                    if (row["engine"], key) not in constant
                }


def engine_name(scanner: str) -> str:
    """Return a tool's name as it is used in metric and file names: lower case, without blanks."""
    return _NAME.sub("-", without_credentials(scanner).lower()).strip("-.")[:60] or "unknown"


def _first_location(locations: Any) -> Sarif:
    found = objects(locations)
    for location in found:
        if location.get("physicalLocation"):
            return location
    return found[0] if found else {}


def _position(value: Any) -> int | None:
    number = whole(value)
    return number if number is not None and 1 <= number <= 2**31 else None


def _symbol(location: Sarif) -> str | None:
    for logical in objects(location.get("logicalLocations")):
        if name := text_of(logical.get("fullyQualifiedName")) or text_of(logical.get("name")):
            return without_credentials(name)
    return None


def _prints(result: Sarif) -> dict[str, str]:
    """Return the producer's fingerprints that can identify a finding and name no person."""
    kept: dict[str, str] = {}
    for group in ("fingerprints", "partialFingerprints"):
        for key, value in as_object(result.get(group)).items():
            if not isinstance(value, str) or len(value) > 300 or value.strip().lower() in _PLACEHOLDER_PRINTS:
                continue
            if len(kept) < 10 and not is_personal(key, value):
                kept[without_credentials(text_of(key, 100))] = without_credentials(text_of(value, 300))
    return kept


def _rules_run(book: RuleBook, hit: set[str]) -> tuple[str, ...]:
    """Return the rules a run says it ran, or nothing if it lists only those that found something."""
    listed = book.listed()
    return tuple(sorted({*listed, *hit})) if set(listed) - hit else ()


def _merged(before: tuple[str, ...] | None, rules: tuple[str, ...]) -> tuple[str, ...]:
    if before is None:
        return rules
    return tuple(sorted({*before, *rules})) if before and rules else ()
