"""Our own SARIF: valid, complete, and without anything of this machine."""

import json
from pathlib import Path
from typing import Any

import pytest
from sarif_samples import at, bandit_of, check_schema, log, result, ruff_of, run

from intelligentscan.domain.scan import EngineCoverage, Finding, Suppression
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.interface import ScanReport, Vcs
from intelligentscan.scanners.redaction import redact_sarif
from intelligentscan.scanners.report_view import RunFacts
from intelligentscan.scanners.sarif_reader import parse_sarif, read_sarif
from intelligentscan.scanners.sarif_writer import combined


def finding(**more: Any) -> Finding:
    facts = {
        "rule": "S602", "engine": "ruff", "severity": "critical", "severity_source": "test", "message": "m",
        "path": "src/ü b.py", "line": 3, "column": 5, "end_line": 4, "snippet": "call()", "symbol": "f",
        "cwe": ["CWE-78"], "fingerprint": "f" * 64,
    }  # fmt: skip
    return Finding(**{**facts, **more})


def coverage(engine: str, **more: Any) -> EngineCoverage:
    facts = {
        "engine": engine, "version": "1.2", "status": "complete", "files_seen": 2, "files_analyzed": 2,
        "files_failed": 0, "findings": 1, "duration_s": 0.5, "exit_code": 0,
    }  # fmt: skip
    return EngineCoverage(**{**facts, **more})


def report(*findings: Finding, **more: Any) -> ScanReport:
    facts: dict[str, Any] = {
        "kind": "scan", "scanner": "bandit, ruff", "scanner_version": "1, 2", "target": "/home/ana/project",
        "status": "complete", "coverage": (coverage("ruff"),), "rules_run": {"ruff": ("S101", "S602")},
        "config": ScanConfig.of_engines(["ruff"]),
    }  # fmt: skip
    return ScanReport(**{"findings": findings, **facts, **more})


def test_every_finding_is_there_with_its_place_state_and_identity():
    (run,) = combined(report(finding(line_hash="5a5a:1")), RunFacts(run_id="a" * 32))["runs"]
    (result,) = run["results"]
    assert result["ruleId"] == run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "S602"
    assert result["level"] == "error"
    assert result["properties"]["severity"] == "critical"
    assert result["partialFingerprints"] == {"intelligentscan/v1": "f" * 64, "primaryLocationLineHash": "5a5a:1"}
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "src/%C3%BC%20b.py", "uriBaseId": "SRCROOT"}
    assert place["region"] == {"startLine": 3, "startColumn": 5, "endLine": 4, "snippet": {"text": "call()"}}
    assert run["automationDetails"]["id"] == f"intelligentscan/ruff/{'a' * 32}"
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == {"S101", "S602"}


def test_all_forms_of_findings_make_valid_sarif():
    findings = [
        finding(),
        finding(path=None, line=None, symbol=None),
        finding(line=None, severity="info"),
        finding(end_line=1, column=None, snippet=None, suppressed=True),
        finding(path="https://example.org/x", engine="other", baseline_state="absent"),
        finding(path="/srv/ci/a.py", engine="other", suppressed=True, producer_fingerprints={"x/v1": "1"}),
        finding(path="weird\x00:name.py", message="", rule="unknown"),
    ]
    failed = {"ruff": tuple(f"bad{n}.py" for n in range(1500))}
    vcs = Vcs(url="git@example.org:team/app.git", commit="c" * 40, branch="main")
    made = combined(report(*findings, failed_files=failed, vcs=vcs, status="partial"))
    check_schema(made)
    json.dumps(made, allow_nan=False)
    assert [run["tool"]["driver"]["name"] for run in made["runs"]] == ["ruff", "other"]
    assert len(made["runs"][0]["invocations"][0]["toolExecutionNotifications"]) == 1001


def test_reading_it_back_gives_the_same_findings():
    findings = [
        finding(),
        finding(
            rule="S101",
            severity="low",
            line=9,
            end_line=12,
            cwe=["CWE-703"],
            symbol=None,
            suppressed=True,
            suppression=Suppression(kind="external", justification="agreed"),
        ),
        finding(rule="S602", path="https://example.org/x", line=None, column=None, end_line=None, snippet=None),
    ]
    again = read_sarif(parse_sarif(combined(report(*findings)))).findings
    lost = {"severity_source", "fingerprint"}
    assert [f.model_dump(exclude=lost) for f in again] == [f.model_dump(exclude=lost) for f in findings]


def test_a_file_that_could_not_be_analysed_is_a_notification_with_its_reason():
    row = coverage("ruff", status="partial", files_failed=1, failures=["a.py: not UTF-8"])
    (run,) = combined(report(coverage=(row,), failed_files={"ruff": ("a.py", "b.py")}))["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    told = [note["message"]["text"] for note in invocation["toolExecutionNotifications"]]
    assert told == ["not UTF-8", "The file could not be analysed."]
    assert read_sarif({"version": "2.1.0", "runs": [run]}).failed_files == ("a.py", "b.py")


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://example.org/app.git", "https://example.org/app.git"),
        ("git@example.org:team/app.git", "ssh://git@example.org/team/app.git"),
        ("https://ana:tok@example.org/app.git", None),
        ("../bare", None),
        (None, None),
    ],
)
def test_the_repository_is_named_by_a_uri_without_a_password_or_not_at_all(url, written):
    (run,) = combined(report(finding(), vcs=Vcs(url=url, commit="c" * 40, branch="main")))["runs"]
    if written is None:
        assert "versionControlProvenance" not in run
        assert "tok" not in json.dumps(run)
    else:
        expected = {
            "repositoryUri": written,
            "revisionId": "c" * 40,
            "branch": "main",
            "mappedTo": {"uriBaseId": "SRCROOT"},
        }
        assert run["versionControlProvenance"] == [expected]


def test_real_scans_come_out_valid_described_and_without_machine_paths(tmp_path: Path):
    root = tmp_path.resolve()
    (root / "a.py").write_text("import subprocess\nsubprocess.call(x, shell=True)\npassword = 'hunter2'\n")
    documents = {"bandit": bandit_of(root), "ruff": ruff_of(root)}
    readings = {engine: read_sarif(document, root=root, engine=engine) for engine, document in documents.items()}
    made = combined(
        report(
            *(finding for reading in readings.values() for finding in reading.findings),
            engine_sarif={engine: redact_sarif(document, root=root) for engine, document in documents.items()},
            coverage=(coverage("bandit"), coverage("ruff")),
            rules_run={"bandit": ("B602",), "ruff": ("S602",)},
            target=str(root),
        )
    )
    check_schema(made)
    text = json.dumps(made)
    assert str(root) not in text
    assert "hunter2" not in text
    rules = {rule["id"]: rule for run in made["runs"] for rule in run["tool"]["driver"]["rules"]}
    assert rules["B602"]["helpUri"].startswith("https://")
    assert "shortDescription" in rules["S602"]
    assert rules["S602"]["properties"]["tags"] == ["security", "external/cwe/cwe-078"]


def test_rules_of_an_import_are_described_as_its_scanner_did():
    rules = [{"id": "X1", "shortDescription": {"text": "about X1"}, "helpUri": "javascript:alert(1)"}]
    document = log(run([result("X1", "m", at("a.py", 1))], "Example Scan", rules))
    reading = read_sarif(document)
    made = combined(
        report(*reading.findings, coverage=(), rules_run=reading.rules_run, engine_sarif={"imported": document})
    )
    check_schema(made)
    assert made["runs"][0]["tool"]["driver"]["rules"] == [{"id": "X1", "shortDescription": {"text": "about X1"}}]
