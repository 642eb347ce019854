"""Optional engines as services offer them: what is logged, what is refused, what doctor says."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from engine_targets import TARGET, required, write

from intelligentscan.app import Services
from intelligentscan.domain.errors import InvalidArgument, PathRefused
from intelligentscan.scanners import programs
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.rule_files import own_pack
from intelligentscan.services.installation import check_more_engines
from intelligentscan.services.scan_evidence import covers_everything

if TYPE_CHECKING:
    from mlflow import MlflowClient

MY_RULE = "id: my-eval\nlanguage: python\nseverity: error\nmessage: Text is run.\nrule: {pattern: eval($X)}\n"


@pytest.fixture
def repo(project: Path) -> Path:
    return write(project / "repo", TARGET)


async def test_engines_asked_for_by_name_run_beside_ours_and_what_they_ran_with_is_logged(
    services: Services, repo: Path, client: "MlflowClient"
) -> None:
    required("ast-grep", "hadolint")

    scan = await services.scans.scan(str(repo), engines=["bandit", "ruff", "ast-grep", "hadolint"])

    run = client.get_run(scan.run_id).data
    assert run.params["engines"] == "ast-grep,bandit,hadolint,ruff"
    assert run.params["engine.ast-grep.ruleset"] == own_pack("ast-grep").label
    assert run.params["engine.bandit.python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert run.params["engine.hadolint.version"] == await ENGINES["hadolint"].version()
    assert run.metrics["findings.engine.hadolint"] == 2
    assert {item.engine for item in scan.coverage} == {"ast-grep", "bandit", "hadolint", "ruff"}
    again = await services.scans.scan(str(repo), engines=["bandit", "ruff", "ast-grep", "hadolint"])
    assert (again.new, again.fixed, again.not_comparable) == (0, 0, 0)


async def test_other_rules_make_earlier_findings_not_comparable_instead_of_fixed(
    services: Services, repo: Path, project: Path
) -> None:
    required("ast-grep")
    rules = write(project / "rules", {"a.yml": MY_RULE})
    config = project / "config.yml"
    config.write_text(f"name: mine\nengines:\n  ast-grep:\n    rules: ['{rules}']\n")
    first = await services.scans.scan(str(repo), config=str(config))
    assert first.vulnerabilities_found == 1
    (rules / "a.yml").write_text(MY_RULE.replace("eval($X)", "exec($X)"))

    second = await services.scans.scan(str(repo), config=str(config))

    assert second.vulnerabilities_found == 0
    assert (second.fixed, second.not_comparable) == (0, 1)


async def test_rules_outside_the_allowed_folders_are_refused(services: Services, repo: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"a.yml": MY_RULE})
    (repo / "config.yml").write_text(f"name: mine\nengines:\n  ast-grep:\n    rules: ['{outside}']\n")

    with pytest.raises(PathRefused):
        await services.scans.scan(str(repo), config=str(repo / "config.yml"))


async def test_a_configuration_in_the_target_cannot_have_a_program_of_it_run(
    services: Services, repo: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    write(repo, {"hadolint": f"#!/bin/sh\ntouch '{marker}'\n"})
    (repo / "hadolint").chmod(0o755)
    for option in (f"hadolint: {{executable: '{repo / 'hadolint'}'}}", f"bandit: {{python: '{repo / 'hadolint'}'}}"):
        (repo / "config.yml").write_text(f"name: mine\nengines:\n  {option}\n")
        with pytest.raises(InvalidArgument, match=programs.SETTING) as refusal:
            await services.scans.scan(str(repo), config=str(repo / "config.yml"))
        assert refusal.value.code == "INVALID_ARGUMENT"
    assert not marker.exists()


@pytest.mark.parametrize(
    ("engines", "counts"),
    [
        ({"bandit": {}, "ruff": {}}, True),
        ({"bandit": {}, "ruff": {}, "hadolint": {}}, True),
        ({"bandit": {}, "hadolint": {}}, False),
        ({"bandit": {"python": "/usr/bin/python3"}, "ruff": {}}, False),
        ({"bandit": {}, "ruff": {"ignore": ["S101"]}}, False),
    ],
)
def test_a_scan_is_evidence_only_with_our_engines_as_they_come(engines: dict[str, object], counts: bool) -> None:
    config = ScanConfig.from_data({"engines": engines})
    report = ScanReport("scan", "x", "1", "/x", "complete", (), config=config)

    assert covers_everything(report) is counts


async def test_doctor_lists_engines_that_are_there_and_how_to_get_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    required("hadolint")
    real = programs.find_program

    def without_zizmor(name: str, **options: Path | None) -> Path | None:
        return None if name in {"zizmor", "semgrep"} else real(name, **options)

    monkeypatch.setattr("intelligentscan.scanners.optional_engine.find_program", without_zizmor)

    check = await check_more_engines()

    assert check.status == "ok"
    assert f"hadolint {await ENGINES['hadolint'].version()}" in check.fact
    assert check.details["zizmor"] is None
    assert check.next is not None
    assert "zizmor: pip install 'intelligentscan[ci]'" in check.next
    assert "semgrep: uv tool install semgrep" in check.next
