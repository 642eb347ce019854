"""Reports of real producers' habits, read; and what we write of each is valid and says the same."""

import json
from typing import Any

import pytest
from sarif_producers import PRODUCERS, Producer
from sarif_samples import check_schema

from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.redaction import redact_sarif
from intelligentscan.scanners.sarif_reader import SarifReading, parse_sarif, read_sarif
from intelligentscan.scanners.sarif_writer import combined

each = pytest.mark.parametrize("producer", PRODUCERS, ids=lambda producer: producer.name)


def report_of(reading: SarifReading, document: dict[str, Any]) -> ScanReport:
    return ScanReport(
        kind="import",
        scanner=reading.scanner,
        scanner_version=reading.scanner_version,
        target="",
        status="complete",
        findings=reading.findings,
        engine_sarif={"imported": redact_sarif(document, as_text=True)},
        rules_run=reading.rules_run,
    )


@each
def test_the_report_is_read_as_its_producer_means_it(producer: Producer):
    reading = read_sarif(parse_sarif(json.dumps(producer.document).encode()))
    assert len(reading.findings) == len(producer.findings)
    for finding, facts in zip(reading.findings, producer.findings, strict=True):
        assert {name: getattr(finding, name) for name in facts} == facts
    assert {name: getattr(reading, name) for name in producer.more} == producer.more
    for told, warning in zip(producer.warned, reading.warnings, strict=True):
        assert told in warning


@each
def test_what_we_write_of_it_is_valid_and_read_as_the_same_findings(producer: Producer):
    reading = read_sarif(parse_sarif(producer.document))
    made = combined(report_of(reading, producer.document))
    check_schema(made)
    again = read_sarif(parse_sarif(made))
    same = ("rule", "engine", "severity", "message", "path", "line", "column", "snippet", "cwe", "suppressed", "counts")
    assert [[getattr(f, name) for name in same] for f in again.findings] == [
        [getattr(f, name) for name in same] for f in reading.findings
    ]
    assert again.executed == reading.executed
