"""Our rules for ast-grep: each finds its true examples and none of its safe twins, in every language it is for."""

import json
from pathlib import Path

import anyio
import pytest
import yaml

from intelligentscan.scanners.config import EngineConfig, ScanConfig
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.rule_files import checked_rules, own_pack
from intelligentscan.scanners.scan import scan_folder

EXAMPLES: dict[str, dict[str, list[str]]] = yaml.safe_load(
    (Path(__file__).parent / "rule_examples" / "ast-grep.yml").read_text()
)
RULES = {rule["id"]: rule for rule in checked_rules(own_pack("ast-grep"), "ast-grep")}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ScanReport:
    """All examples, one file each, in one scan."""
    root = tmp_path_factory.mktemp("examples").resolve()
    for rule, example in EXAMPLES.items():
        for kind in ("found", "safe"):
            for number, code in enumerate(example[kind]):
                for suffix in example["suffixes"]:
                    path = root / rule / f"{kind}{number}{suffix}"
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(f"{code}\n")
    return anyio.run(scan_folder, root, ScanConfig(engines={"ast-grep": EngineConfig()}))


def test_every_rule_has_examples_that_are_true_and_safe_ones() -> None:
    assert EXAMPLES.keys() == RULES.keys()
    assert len(RULES) >= 12
    assert all(len(example["found"]) >= 2 and len(example["safe"]) >= 2 for example in EXAMPLES.values())


def test_every_rule_names_its_weakness_and_how_bad_it_is() -> None:
    for rule in RULES.values():
        assert rule["metadata"]["cwe"].startswith("CWE-")
        assert 4.0 <= float(rule["metadata"]["security-severity"]) <= 10.0
        assert rule["message"].endswith(".")
        assert rule["note"].endswith(".")


@pytest.mark.parametrize("rule", sorted(EXAMPLES))
def test_a_rule_finds_its_true_examples_and_no_safe_one(report: ScanReport, rule: str) -> None:
    wanted = {
        f"{rule}/found{number}{suffix}"
        for number in range(len(EXAMPLES[rule]["found"]))
        for suffix in EXAMPLES[rule]["suffixes"]
    }
    found = [finding for finding in report.findings if finding.rule == rule]

    assert {finding.path for finding in found if finding.path and finding.path.startswith(f"{rule}/")} == wanted
    assert not [finding.path for finding in report.findings if finding.path and "/safe" in finding.path]
    assert {cwe for finding in found for cwe in finding.cwe} == {RULES[rule]["metadata"]["cwe"]}
    assert {finding.severity_source for finding in found} == {"security-severity"}


def test_the_pack_is_recorded_with_its_version_and_digest(report: ScanReport) -> None:
    coverage = report.coverage[0]

    assert report.status == "complete"
    assert coverage.ruleset == own_pack("ast-grep").label
    assert coverage.ruleset is not None
    assert coverage.ruleset.startswith("intelligentscan 1 sha256:")
    assert report.rules_run["ast-grep"] == tuple(sorted(RULES))
    written = json.dumps(report.sarif)
    assert ".." not in {result["ruleId"] for run in report.sarif["runs"] for result in run["results"]}
    assert "..tsx" not in written
