"""The tool part of our own SARIF: the rules of one engine, as its scanner describes them, and their CWEs."""

import re
from collections.abc import Iterable, Iterator

from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.interface import Sarif, ScanReport
from intelligentscan.scanners.sarif_reader import engine_name
from intelligentscan.scanners.sarif_rules import as_object, objects, text_of
from intelligentscan.scanners.severity_map import canonical_rule

CWE = "CWE"
MAX_RULES = 5_000
_WEB = re.compile(r"https?://[!-~]{1,500}")
_CWE_ID = re.compile(r"CWE-(\d{1,9})")


class ToolPart:
    """Rules and taxonomy of one engine's run.

    Attributes:
        rules: those that found something, then those that only ran.
        index: where each rule is.
        taxonomy: the CWEs of the findings as a SARIF taxonomy; None if there are none.
    """

    def __init__(self, report: ScanReport, engine: str, findings: Iterable[Finding]) -> None:
        cwes: dict[str, dict[str, None]] = {}
        for finding in findings:
            named = cwes.setdefault(finding.rule, {})
            if finding.cwe:
                named.update(dict.fromkeys(finding.cwe))
        taxa = sorted({cwe for named in cwes.values() for cwe in named}, key=lambda cwe: (_number(cwe), cwe))
        self._taxa = {cwe: _reference(cwe, place) for place, cwe in enumerate(taxa)}
        self.taxonomy = _taxonomy(taxa) if taxa else None
        self.rules = self._rules(report, engine, cwes)
        self.index = {rule["id"]: number for number, rule in enumerate(self.rules)}

    def taxon(self, cwe: str) -> Sarif:
        """Return the reference to a CWE of one of the findings."""
        return self._taxa[cwe]

    def _rules(self, report: ScanReport, engine: str, cwes: dict[str, dict[str, None]]) -> list[Sarif]:
        described = _descriptions(report, engine)
        ran = {canonical_rule(engine, rule) for rule in report.rules_run.get(engine, ())}
        rules: list[Sarif] = []
        for rule in [*sorted(cwes), *sorted(ran - cwes.keys())][: MAX_RULES + len(cwes)]:
            descriptor = {"id": rule, **described.get(rule, {})}
            if named := cwes.get(rule):
                tags = [f"external/cwe/cwe-{_number(cwe):03d}" for cwe in named]
                descriptor["relationships"] = [{"target": self._taxa[cwe], "kinds": ["superset"]} for cwe in named]
                descriptor["properties"] = {"tags": ["security", *tags]}
            rules.append(descriptor)
        return rules


def invocation_of(report: ScanReport, engine: str) -> Sarif:
    """Return the first invocation that an engine's own document tells of; empty if it tells of none."""
    for run in _runs_of(report, engine):
        for invocation in objects(run.get("invocations")):
            return invocation
    return {}


def _runs_of(report: ScanReport, engine: str) -> Iterator[Sarif]:
    for document in (*report.engine_sarif.values(), report.sarif):
        for run in objects(document.get("runs")):
            if engine_name(text_of(_driver(run).get("name"))) == engine:
                yield run


def _driver(run: Sarif) -> Sarif:
    return as_object(as_object(run.get("tool")).get("driver"))


def _descriptions(report: ScanReport, engine: str) -> dict[str, Sarif]:
    """Return what the scanner's own documents say about its rules."""
    found: dict[str, Sarif] = {}
    for run in _runs_of(report, engine):
        tool = as_object(run.get("tool"))
        for component in (_driver(run), *objects(tool.get("extensions"))):
            for descriptor in objects(component.get("rules")):
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


def _number(cwe: str) -> int:
    found = _CWE_ID.fullmatch(cwe)
    return int(found[1]) if found else 0


def _reference(cwe: str, place: int) -> Sarif:
    return {"id": cwe, "index": place, "toolComponent": {"name": CWE, "index": 0}}


def _taxonomy(taxa: list[str]) -> Sarif:
    return {
        "name": CWE,
        "organization": "MITRE",
        "shortDescription": {"text": "The MITRE Common Weakness Enumeration."},
        "informationUri": "https://cwe.mitre.org/",
        "isComprehensive": False,
        "taxa": [{"id": cwe, "helpUri": f"https://cwe.mitre.org/data/definitions/{_number(cwe)}.html"} for cwe in taxa],
    }
