"""Scans as services log them: real engines on small folders, real MLflow on SQLite."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import Look

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    ExperimentNotFound,
    GatesFailed,
    IdempotencyConflict,
    InvalidArgument,
    NotFound,
    NothingToScan,
    PathNotFound,
    PathRefused,
    RunNotFound,
    SarifInvalid,
    WrongPathKind,
)
from intelligentscan.domain.scan import ScanRun
from intelligentscan.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

WEAK = """import subprocess
import yaml


def run(command):
    return subprocess.run(command, shell=True)


def load(text):
    return yaml.load(text)
"""
PASSWORD = 'password = "correct-horse-battery"\n'
PROMISED_ARTIFACTS = (
    "sarif/combined.sarif",
    "findings/findings.jsonl",
    "report/report.md",
    "report/report.html",
    "plots/severity.png",
    "coverage/files.json",
    "config/scan_config.yaml",
)


@pytest.fixture
def repo(project: Path) -> Path:
    """A small folder with weaknesses that both engines find."""
    folder = project / "repo"
    folder.mkdir()
    (folder / "weak.py").write_text(WEAK)
    return folder


def sarif(*results: dict[str, Any]) -> dict[str, Any]:
    """Return a SARIF log of one run with these results."""
    return {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "Other"}}, "results": list(results)}]}


def result(rule: str = "R1", line: int = 1) -> dict[str, Any]:
    """Return one SARIF result."""
    region = {"physicalLocation": {"artifactLocation": {"uri": "a.py"}, "region": {"startLine": line}}}
    return {"ruleId": rule, "level": "error", "message": {"text": f"{rule} at {line}"}, "locations": [region]}


async def test_a_scan_logs_everything_that_the_interface_promises(
    services: Services, repo: Path, client: "MlflowClient"
) -> None:
    scan = await services.scans.scan(str(repo))

    run = client.get_run(scan.run_id)
    assert scan.created
    assert scan.experiment == "vulnerability_scanning"
    assert (run.info.status, run.data.tags["intelligentscan.kind"]) == ("FINISHED", "scan")
    assert {"repo_path", "scanner", "scanner_version"} <= run.data.params.keys()
    assert run.data.params["repo_path"] == str(repo)
    metrics = run.data.metrics
    assert metrics["vulnerabilities_found"] == scan.vulnerabilities_found == sum(scan.severities.values()) > 0
    assert metrics["critical_count"] == scan.critical_count == metrics["findings.critical"]
    assert metrics["scan.files_analyzed"] == 1
    assert metrics["scan.files_failed"] == 0
    assert {"scan.duration_s", *(f"findings.{s}" for s in ("critical", "high", "medium", "low", "info"))} <= set(
        metrics
    )
    for path in PROMISED_ARTIFACTS:
        local = Path(client.download_artifacts(scan.run_id, path))
        assert local.stat().st_size > 0, path
    assert json.loads(Path(client.download_artifacts(scan.run_id, "sarif/combined.sarif")).read_text())["version"]


async def test_the_answer_names_the_worst_findings_and_links_the_report(services: Services, repo: Path) -> None:
    scan = await services.scans.scan(str(repo))

    assert scan.top_findings[0].severity == "critical"
    assert scan.top_findings[0].location.startswith("weak.py:")
    text = await services.runs.artifact_text(scan.run_id, "report/report.md")
    assert scan.report == f"intelligentscan://runs/{scan.run_id}/report"
    assert scan.top_findings[0].rule in text


async def test_git_commit_branch_and_dirty_flag_of_the_target_are_logged(
    services: Services, repo: Path, client: "MlflowClient"
) -> None:
    git = shutil.which("git")
    assert git is not None
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q", "-b", "trunk"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run([git, *arguments], cwd=repo, env=environment, check=True)
    commit = subprocess.run([git, "rev-parse", "HEAD"], cwd=repo, capture_output=True, text=True, check=True).stdout

    clean = client.get_run((await services.scans.scan(str(repo))).run_id)
    (repo / "weak.py").write_text(WEAK + "\n# changed\n")
    dirty = client.get_run((await services.scans.scan(str(repo))).run_id)

    assert clean.data.tags["mlflow.source.git.commit"] == commit.strip()
    assert clean.data.params["vcs.ref.head.name"] == "trunk"
    assert [r.data.params["vcs.dirty"] for r in (clean, dirty)] == ["False", "True"]


async def test_a_rescan_changes_nothing_and_a_cure_is_fixed(services: Services, repo: Path) -> None:
    first = await services.scans.scan(str(repo))
    again = await services.scans.scan(str(repo))
    (repo / "weak.py").write_text("\n\n# moved down\n" + WEAK.replace("yaml.load(text)", "yaml.safe_load(text)"))
    cured = await services.scans.scan(str(repo))

    assert (first.new, first.baseline_run_id) == (None, None)
    assert (again.new, again.fixed, again.persisting) == (0, 0, first.vulnerabilities_found)
    assert again.baseline_run_id == first.run_id
    assert (cured.new, cured.not_comparable) == (0, 0)
    assert cured.fixed == first.vulnerabilities_found - cured.vulnerabilities_found > 0
    fixed = await services.scans.findings(cured.run_id, state="fixed")
    assert fixed.total == cured.fixed
    assert {row.rule for row in fixed.findings} <= {"B506", "S506"}


async def test_an_engine_that_did_not_run_again_fixes_nothing(services: Services, repo: Path) -> None:
    await services.scans.scan(str(repo))
    narrow = await services.scans.scan(str(repo), engines=["ruff"])

    assert narrow.fixed == 0
    assert narrow.not_comparable is not None
    assert narrow.not_comparable > 0


async def test_findings_are_filtered_and_paged(services: Services, repo: Path) -> None:
    scan = await services.scans.scan(str(repo))
    everything = await services.scans.findings(scan.run_id, limit=100)
    collected, cursor = [], None
    while True:
        page = await services.scans.findings(scan.run_id, limit=1, cursor=cursor)
        collected += page.findings
        if (cursor := page.next_cursor) is None:
            break

    assert collected == everything.findings
    rule = everything.findings[0].rule
    only = await services.scans.findings(scan.run_id, rule=rule)
    assert {row.rule for row in only.findings} == {rule}
    assert (await services.scans.findings(scan.run_id, path="elsewhere")).total == 0
    assert (await services.scans.findings(scan.run_id, path="weak.py")).total == everything.total


async def test_a_password_is_nowhere_in_what_a_scan_leaves(services: Services, repo: Path, home: Path) -> None:
    (repo / "secret.py").write_text(PASSWORD)

    scan = await services.scans.scan(str(repo))

    assert any(f.rule == "B105" for f in scan.top_findings)
    everything = scan.model_dump_json().encode() + b"".join(
        path.read_bytes() for path in home.rglob("*") if path.is_file()
    )
    assert b"correct-horse" not in everything


async def test_hostile_names_in_the_target_do_not_act_in_the_answer(services: Services, repo: Path) -> None:
    (repo / "a\u202e](http:x)<img src=x>\n.py").write_text("import subprocess\nsubprocess.run('x', shell=True)\n")

    scan = await services.scans.scan(str(repo))

    shown = scan.model_dump_json()
    assert "\\u202e" not in shown.replace("\\\\u202e", "")
    assert "](http" not in shown
    assert "<img" not in shown
    report = await services.runs.artifact_text(scan.run_id, "report/report.html")
    assert "<img src=x>" not in report


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nowhere", PathNotFound),
        ("repo/weak.py", WrongPathKind),
        ("/etc", PathRefused),
        ("empty", NothingToScan),
        ("only-text", NothingToScan),
    ],
)
async def test_a_target_that_cannot_be_scanned_is_refused_and_leaves_no_trace(
    services: Services, repo: Path, look: Callable[[], Look], path: str, error: type[Exception]
) -> None:
    (repo.parent / "empty").mkdir()
    (repo.parent / "only-text").mkdir()
    (repo.parent / "only-text" / "notes.txt").write_text("nothing here")
    before = look()

    with pytest.raises(error) as refused:
        await services.scans.scan(path)

    assert refused.value.next  # type: ignore[attr-defined]
    assert look() == before


async def test_files_that_do_not_parse_make_a_scan_partial(services: Services, repo: Path) -> None:
    (repo / "broken.py").write_text("def broken(:\n")

    scan = await services.scans.scan(str(repo))

    assert scan.scan_status == "partial"
    assert scan.status == "FINISHED"
    failed = {c.engine: c.failures for c in scan.coverage}
    assert all("broken.py" in " ".join(lines) for lines in failed.values())
    assert scan.vulnerabilities_found > 0


async def test_an_unknown_experiment_is_refused_for_tools_and_made_for_the_command_line(
    services: Services, repo: Path, look: Callable[[], Look]
) -> None:
    before = look()
    with pytest.raises(ExperimentNotFound):
        await services.scans.scan(str(repo), experiment="unheard of")
    assert look() == before

    scan = await services.scans.scan(str(repo), experiment="unheard of", create_missing=True)
    assert scan.experiment == "unheard of"


async def test_the_same_key_gives_the_same_answer_also_at_once_and_from_another_process(
    services: Services, settings: Settings, repo: Path, client: "MlflowClient"
) -> None:
    answers: list[ScanRun] = []

    async def scan(by: Services) -> None:
        answers.append(await by.scans.scan(str(repo), idempotency_key="once"))

    async with anyio.create_task_group() as group:
        for by in (services, services, build(settings)):
            group.start_soon(scan, by)
    await scan(build(settings))

    assert len({a.run_id for a in answers}) == 1
    assert sorted(a.created for a in answers) == [False, False, False, True]
    first, *others = sorted(answers, key=lambda a: not a.created)
    assert all(other.model_copy(update={"created": True}) == first for other in others)
    assert len(client.search_runs([first.experiment_id])) == 1
    with pytest.raises(IdempotencyConflict):
        await services.scans.scan(str(repo), engines=["ruff"], idempotency_key="once")


async def test_a_cancelled_scan_leaves_nothing_and_its_key_works_afterwards(
    services: Services, repo: Path, look: Callable[[], Look]
) -> None:
    for number in range(40):
        (repo / f"more_{number}.py").write_text(WEAK)
    await services.store.read(lambda s: None)
    before = look()

    with anyio.CancelScope() as scope:

        async def cancel_in_the_middle(share: float, text: str) -> None:
            if share > 0.1:
                scope.cancel()

        await services.scans.scan(str(repo), idempotency_key="k", progress=cancel_in_the_middle)

    assert scope.cancelled_caught
    assert look() == before
    assert (await services.scans.scan(str(repo), idempotency_key="k")).created


async def test_an_import_is_a_run_like_any_scan(services: Services, client: "MlflowClient") -> None:
    await services.experiments.create("imports")
    logged = await services.scans.log(
        "imports", sarif=sarif(result("R1"), result("R2", 5)), params={"stage": "nightly"}
    )

    run = client.get_run(logged.run_id)
    assert (logged.vulnerabilities_found, logged.severities["high"]) == (2, 2)
    assert run.data.params["scanner"] == "Other"
    assert run.data.params["stage"] == "nightly"
    assert run.data.tags["intelligentscan.kind"] == "import"
    second = await services.scans.log("imports", sarif=sarif(result("R1")))
    assert (second.new, second.fixed, second.persisting) == (0, 1, 1)


async def test_plain_findings_are_logged(services: Services) -> None:
    await services.experiments.create("imports")
    findings = [{"rule": "X1", "severity": "critical", "path": "a.py", "line": 3, "message": "bad"}]

    logged = await services.scans.log("imports", findings=findings, scanner="my checker")

    assert (logged.critical_count, logged.top_findings[0].location) == (1, "a.py:3")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"sarif": {"version": "1.0.0", "runs": []}}, SarifInvalid),
        ({"sarif": {"version": "2.1.0", "runs": []}}, SarifInvalid),
        ({"sarif_path": "repo/weak.py"}, SarifInvalid),
        ({"sarif_path": "/etc/hostname"}, PathRefused),
        ({"findings": [{"rule": "R"}]}, InvalidArgument),
        ({"findings": [], "sarif": {}}, InvalidArgument),
        ({}, InvalidArgument),
        ({"findings": [], "metrics": {"m": float("nan")}}, InvalidArgument),
        ({"findings": [], "params": {"scanner": "mine"}}, InvalidArgument),
        ({"findings": [], "baseline": "latest"}, RunNotFound),
    ],
)
async def test_what_is_no_scan_result_is_refused_and_leaves_no_trace(
    services: Services, repo: Path, look: Callable[[], Look], arguments: dict[str, Any], error: type[Exception]
) -> None:
    await services.experiments.create("imports")
    before = look()

    with pytest.raises(error):
        await services.scans.log("imports", **arguments)

    assert look() == before


async def test_only_a_scan_has_findings_and_can_be_a_baseline(services: Services, repo: Path) -> None:
    await services.experiments.create("training")
    training = await services.runs.log("training", metrics={"accuracy": 0.9})

    with pytest.raises(NotFound):
        await services.scans.findings(training.run_id)
    with pytest.raises(InvalidArgument):
        await services.scans.scan(str(repo), baseline=training.run_id)


async def test_a_comparison_of_scans_tells_what_changed(services: Services, repo: Path) -> None:
    first = await services.scans.scan(str(repo))
    (repo / "more.py").write_text("import pickle\n\n\ndef read(data):\n    return pickle.loads(data)\n")
    second = await services.scans.scan(str(repo))

    compared = await services.comparisons.compare(run_ids=[second.run_id, first.run_id])

    assert compared.findings is not None
    (change,) = compared.findings.changes
    assert (change.from_run_id, change.to_run_id) == (first.run_id, second.run_id)
    assert (change.new, change.fixed) == (second.new, 0)
    best = {m.key: m.best_run_id for m in compared.metrics}
    assert best["vulnerabilities_found"] == first.run_id


async def test_the_configuration_of_a_scan_is_registered_promoted_loaded_and_used_by_plain_mlflow(
    services: Services, settings: Settings, repo: Path
) -> None:
    from intelligentscan.store_environment import exports

    scan = await services.scans.scan(str(repo))
    registered = await services.registry.register("scanning", run_id=scan.run_id)
    again = await services.registry.register("scanning", run_id=scan.run_id)
    await services.registry.promote("scanning", registered.version, "Staging")
    with pytest.raises(GatesFailed, match="evaluated"):
        await services.registry.promote("scanning", registered.version, "Production", reason="it finds them")

    assert (again.version, again.created) == (registered.version, False)
    source = await services.runs.get(registered.source_run_id)
    assert source.experiment_id != scan.experiment_id
    script = (
        "import mlflow.pyfunc, pandas, sys\n"
        "model = mlflow.pyfunc.load_model('models:/scanning@challenger')\n"
        "print(len(model.predict(pandas.DataFrame({'repo_path': [sys.argv[1]]}))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(repo)],
        env={**os.environ, **exports(settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-800:]
    assert int(done.stdout.split()[-1]) == scan.vulnerabilities_found


async def test_two_services_that_register_one_scan_at_once_make_one_version(
    services: Services, settings: Settings, repo: Path
) -> None:
    scan = await services.scans.scan(str(repo))
    made = []

    async def register(by: Services) -> None:
        made.append(await by.registry.register("scanning", run_id=scan.run_id))

    async with anyio.create_task_group() as group:
        for by in (services, build(settings), build(settings)):
            group.start_soon(register, by)

    assert {(m.version, m.model_uri) for m in made} == {(1, made[0].model_uri)}
    assert [m.created for m in made].count(True) == 1
