"""Every SARIF document we write is valid by the OASIS schema, whatever the scan was like."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from sarif_samples import at, check_schema, log, result, run, sarif_schema

from intelligentscan.app import Services
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.line_hash import line_hashes
from intelligentscan.scanners.matching import match
from intelligentscan.scanners.report_view import RunFacts
from intelligentscan.scanners.sarif_reader import parse_sarif, read_sarif
from intelligentscan.scanners.sarif_writer import combined
from intelligentscan.scanners.scan import scan_folder
from intelligentscan.scanners.scan_record import ScanRecord

SOURCE = "import subprocess\nsubprocess.call(x, shell=True)\nassert x  # nosec # noqa: S101\n"


def test_the_schema_is_the_published_one_and_tells_invalid_documents():
    folder = files("intelligentscan.scanners").joinpath("schemas")
    data = folder.joinpath("sarif-2.1.0.json").read_bytes()
    notice = folder.joinpath("NOTICE").read_text("utf-8")
    assert hashlib.sha256(data).hexdigest() in notice
    assert "Copyright © OASIS Open" in notice
    assert json.loads(data)["id"] in notice
    for wrong in (
        {"version": "2.0.0", "runs": []},
        log(run([result(made_up=1)])),
        log(run([{"ruleId": "R1"}])),
        log(run([result("R1", "m", at("a b.py", 1))])),
        log(run([], invocations=[{"executionSuccessful": True, "startTimeUtc": "yesterday"}])),
    ):
        assert not sarif_schema().is_valid(wrong)
    assert sarif_schema().is_valid(log(run([result("R1", "m", at("a%20b.py", 1))])))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = (tmp_path / "project").resolve()
    root.mkdir()
    (root / "a.py").write_text(SOURCE)
    (root / "ü b.py").write_text("password = 'hunter2hunter2'\neval(x)\n")
    (root / "broken.py").write_text("def f(:\n")
    return root


async def scanned(root: Path) -> ScanReport:
    return await scan_folder(root, ScanConfig.of_engines(["bandit", "ruff"]))


async def test_a_scan_with_findings_failures_and_suppressions_is_valid_and_says_when_and_how_it_ran(root: Path):
    report = await scanned(root)
    made = combined(report, RunFacts(started="2026-11-24T10:00:00Z"))
    for document in (made, report.sarif, *report.engine_sarif.values()):
        check_schema(document)
    assert str(root) not in json.dumps(made)
    for one in made["runs"]:
        (invocation,) = one["invocations"]
        assert invocation["executionSuccessful"] is False
        assert invocation["startTimeUtc"] <= invocation["endTimeUtc"]
        assert isinstance(invocation["exitCode"], int)
        failed = [note["locations"][0] for note in invocation["toolExecutionNotifications"]]
        assert failed == [{"physicalLocation": {"artifactLocation": {"uri": "broken.py", "uriBaseId": "SRCROOT"}}}]
        assert one["automationDetails"]["id"] == "intelligentscan/default/2026-11-24T10-00-00Z"
        assert "uri" not in one["originalUriBaseIds"]["SRCROOT"]
        suppressed = [found for found in one["results"] if found.get("suppressions")]
        assert [found["suppressions"] for found in suppressed] == [[{"kind": "inSource", "status": "accepted"}]]


async def test_the_hash_of_a_line_is_there_unless_a_password_is_near(root: Path):
    made = combined(await scanned(root))
    hashes: dict[tuple[str, int], str | None] = {}
    for one in made["runs"]:
        for found in one["results"]:
            place = found["locations"][0]["physicalLocation"]
            key = (place["artifactLocation"]["uri"], place["region"]["startLine"])
            hashes[key] = found["partialFingerprints"].get("primaryLocationLineHash")
    expected = line_hashes(SOURCE, [1, 2, 3])
    assert {line: hashes["a.py", line] for line in (1, 2, 3)} == expected
    assert hashes["%C3%BC%20b.py", 1] is None
    assert hashes["%C3%BC%20b.py", 2] is None


async def test_cwes_are_a_taxonomy_that_rules_and_results_point_into(root: Path):
    for one in combined(await scanned(root))["runs"]:
        (taxonomy,) = one["taxonomies"]
        assert one["tool"]["driver"]["supportedTaxonomies"] == [{"name": "CWE", "index": 0}]
        named = 0
        for pointer in [taxon for found in one["results"] for taxon in found.get("taxa", ())] + [
            relation["target"] for rule in one["tool"]["driver"]["rules"] for relation in rule.get("relationships", ())
        ]:
            assert taxonomy["taxa"][pointer["index"]]["id"] == pointer["id"]
            named += 1
        assert named > 2


async def test_against_a_baseline_results_have_states_and_what_is_gone_is_there_as_absent(root: Path):
    before = await scanned(root)
    (root / "broken.py").unlink()
    (root / "ü b.py").unlink()
    (root / "a.py").write_text(f"import os\n{SOURCE}eval(x)\n")
    after = await scanned(root)
    change = match(ScanRecord.of(before), ScanRecord.of(after))
    made = combined(after, RunFacts(baseline_run_id="b" * 32, change=change))
    check_schema(made)
    states: dict[str, set[tuple[str, str]]] = {}
    for one in made["runs"]:
        assert one["properties"]["intelligentscan"]["baselineRunId"] == "b" * 32
        for found in one["results"]:
            told = (found["ruleId"], found["properties"]["state"])
            states.setdefault(found.get("baselineState", "none"), set()).add(told)
    assert ("B602", "persisting") in states["updated"]
    assert ("S307", "new") in states["new"]
    assert {state for _, state in states["absent"]} == {"fixed"}
    assert ("B105", "fixed") in states["absent"]
    again = read_sarif(parse_sarif(made))
    assert sum(f.counts for f in again.findings) == sum(f.counts for f in after.findings)
    same = combined(after, RunFacts(change=match(ScanRecord.of(after), ScanRecord.of(after))))
    assert {found["baselineState"] for one in same["runs"] for found in one["results"]} == {"unchanged"}


def test_absent_results_of_an_engine_that_did_not_run_are_left_out():
    def report(*engines: str) -> ScanReport:
        facts: dict[str, Any] = {"rule": "R1", "severity": "low", "severity_source": "test", "message": "m"}
        findings = tuple(Finding(engine=e, fingerprint=e, path="a.py", line=1, **facts) for e in engines)
        return ScanReport("import", "x", "1", "", "complete", findings, rules_run=dict.fromkeys(engines, ()))

    change = match(ScanRecord.of(report("one", "two")), ScanRecord.of(report("one")))
    made = combined(report("one"), RunFacts(change=change))
    check_schema(made)
    assert [one["tool"]["driver"]["name"] for one in made["runs"]] == ["one"]
    assert [found["baselineState"] for found in made["runs"][0]["results"]] == ["unchanged"]


async def test_the_artifacts_of_logged_scans_and_imports_are_valid(services: Services, project: Path):
    (project / "a.py").write_text(SOURCE)
    document = log(
        run([result("R1", "m", at("a.py", 2), suppressions=[{"kind": "external", "justification": "agreed"}])])
    )
    (project / "x.sarif").write_text(json.dumps(document))
    logged = await services.scans.log(
        "e", sarif_path=str(project / "x.sarif"), repo_path=str(project), create_missing=True
    )
    (project / "x.sarif").write_text(json.dumps(log(run([result("R2", "m", at("a.py", 2))]))))
    second = await services.scans.log("e", sarif_path=str(project / "x.sarif"), repo_path=str(project))
    seen = []
    for run_id in (logged.run_id, second.run_id):
        found = await services.store.read(lambda s, r=run_id: s.tracking.get_run(r))
        data = await services.store.read(lambda s, f=found: s.tracking.read_artifact(f, "sarif/combined.sarif", 10**6))
        raw = await services.store.read(lambda s, f=found: s.tracking.read_artifact(f, "sarif/imported.sarif", 10**6))
        check_schema(json.loads(data))
        check_schema(json.loads(raw))
        seen.append(json.loads(data)["runs"][0])
    (first,) = seen[0]["results"]
    assert first["suppressions"] == [{"kind": "external", "status": "accepted", "justification": "agreed"}]
    assert first["partialFingerprints"]["primaryLocationLineHash"] == line_hashes(SOURCE, [2])[2]
    assert seen[1]["properties"]["intelligentscan"]["baselineRunId"] == logged.run_id
