"""The Python face: blocking calls from scripts, notebooks' event loops, threads, forks and processes without a home."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from conftest import Trained, run_plain
from reviewed import approve

import intelligentscan
from intelligentscan import api, plugin
from intelligentscan.domain.errors import ExperimentNotFound, IdempotencyConflict, InvalidArgument, NoModel
from intelligentscan.domain.experiment import Experiment
from intelligentscan.domain.review import ReviewRequest
from intelligentscan.settings import Settings

FINDINGS = [{"rule": "B105", "severity": "high", "message": "hard-coded password", "path": "a.py", "line": 3}]


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home that calls of the Python face use."""
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(home))
    return home


@pytest.fixture
def at_trained(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(trained.home))
    return trained


def test_a_script_logs_and_compares_in_a_few_lines(at_home: Path) -> None:
    experiment = intelligentscan.create_experiment("exp", description="why", tags={"team": "a"})
    assert str(experiment) == experiment.experiment_id
    first = intelligentscan.log_scan_run(experiment, findings=FINDINGS, scanner="mine", params={"p": 1})
    second = intelligentscan.log_scan_run("exp", findings=[], scanner="mine", metrics={"m": 0.5})
    assert (first.vulnerabilities_found, second.vulnerabilities_found) == (1, 0)
    compared = intelligentscan.compare_runs([first.run_id, second.run_id])
    assert [r.run_id for r in compared.runs] == [first.run_id, second.run_id]
    found = {m.key: m.best_run_id for m in compared.metrics}["vulnerabilities_found"]
    assert found == second.run_id
    assert intelligentscan.compare_runs(experiment=experiment, top_k=2).runs


def test_a_key_makes_one_scan_run(at_home: Path) -> None:
    intelligentscan.create_experiment("exp")
    one = intelligentscan.log_scan_run("exp", findings=FINDINGS, scanner="mine", idempotency_key="k")
    two = intelligentscan.log_scan_run("exp", findings=FINDINGS, scanner="mine", idempotency_key="k")
    assert (one.created, two.created, one.run_id) == (True, False, two.run_id)
    with pytest.raises(IdempotencyConflict):
        intelligentscan.log_scan_run("exp", findings=[], scanner="mine", idempotency_key="k")


def test_a_model_is_registered_and_promoted_under_either_spelling(at_trained: Trained) -> None:
    made = intelligentscan.register_model(at_trained.with_model, "spelled")
    same = intelligentscan.register_model(run_id=at_trained.with_model, name="spelled")
    other = intelligentscan.register_model(model_name="spelled", model_uri=f"runs:/{at_trained.better}/model")
    assert (made.version, same.version, other.version) == (1, 1, 2)
    assert intelligentscan.promote("spelled", "1", "Staging").aliases == ["challenger"]
    assert intelligentscan.promote("spelled", 2, stage="Production", reason="better").status == "pending_review"
    anyio.run(approve, at_trained.services, "spelled", 2)
    moved = intelligentscan.promote("spelled", 2, stage="Production", reason="better")
    assert (moved.stage, moved.aliases) == ("Production", ["champion"])


def test_errors_come_out_as_they_are(at_trained: Trained) -> None:
    with pytest.raises(ExperimentNotFound):
        intelligentscan.log_scan_run("nowhere", findings=[])
    with pytest.raises(NoModel):
        intelligentscan.register_model(at_trained.without, "none")
    for call in (
        lambda: intelligentscan.register_model(at_trained.with_model),
        lambda: intelligentscan.register_model(at_trained.with_model, "a", name="b"),
        lambda: intelligentscan.promote("m", 1),
        lambda: intelligentscan.promote("m", 1, "Staging", stage="Staging"),
        lambda: intelligentscan.promote("m", "first", "Staging"),
        lambda: intelligentscan.promote("m", 2.9, "Archived"),  # type: ignore[arg-type]
        lambda: intelligentscan.promote("m", True, "Archived"),
        lambda: intelligentscan.promote("m", [3], "Archived"),  # type: ignore[arg-type]
        lambda: intelligentscan.promote(None, 1, "Archived"),  # type: ignore[arg-type]
        lambda: intelligentscan.promote("m", 1, "Archived", reason=5),  # type: ignore[arg-type]
        lambda: intelligentscan.promote("m", 1, 5),  # type: ignore[arg-type]
        lambda: intelligentscan.get_history(5),  # type: ignore[arg-type]
        lambda: intelligentscan.get_history(actor=5),  # type: ignore[arg-type]
        lambda: intelligentscan.get_history(at=5),  # type: ignore[arg-type]
        lambda: intelligentscan.verify_integrity("m", 1.0),  # type: ignore[arg-type]
        lambda: intelligentscan.request_review("m", 1, "good"),  # type: ignore[arg-type]
        lambda: intelligentscan.register_model(at_trained.with_model, 5),  # type: ignore[arg-type]
        lambda: intelligentscan.compare_runs(),
        lambda: intelligentscan.compare_runs("0" * 32),
    ):
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert caught.value.next


def test_a_script_asks_for_a_review_as_an_agent_does(at_trained: Trained) -> None:
    intelligentscan.register_model(at_trained.with_model, "asked")
    made = intelligentscan.request_review("asked", 1, {"bias": "no gap", "risks": {"limit": 3}})
    assert isinstance(made, ReviewRequest)
    assert (made.status, made.created, made.evidence["bias"], made.evidence["risks"]) == ("open", True, 1, 1)
    assert intelligentscan.request_review("asked", "1").review_id == made.review_id


async def test_a_call_inside_a_running_event_loop_finishes(at_home: Path) -> None:
    made = intelligentscan.create_experiment("from a loop")
    assert intelligentscan.create_experiment("from a loop").experiment_id == made.experiment_id


def test_calls_from_many_threads_get_their_own_answers(at_home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made: list[Experiment] = list(pool.map(intelligentscan.create_experiment, [f"e{n % 4}" for n in range(32)]))
    assert [e.name for e in made] == [f"e{n % 4}" for n in range(32)]
    assert len({e.experiment_id for e in made}) == 4
    assert [e.created for e in made].count(True) == 4


def test_one_event_loop_serves_every_call(at_home: Path) -> None:
    intelligentscan.create_experiment("exp")
    before = threading.active_count()
    for _ in range(20):
        intelligentscan.create_experiment("exp")
    assert threading.active_count() <= before


def test_a_changed_setting_takes_effect_with_the_next_call(
    at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intelligentscan.create_experiment("here")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other/runs.db")
    assert intelligentscan.create_experiment("here").created
    assert (tmp_path / "other" / "runs.db").exists()


def test_paths_are_the_callers_own_but_credentials_stay_refused(at_home: Path, tmp_path: Path) -> None:
    from intelligentscan.domain.errors import PathRefused

    intelligentscan.create_experiment("exp")
    (tmp_path / ".env").write_text("{}")
    for path in (tmp_path / ".env", at_home / "mlflow.db"):
        with pytest.raises(PathRefused):
            intelligentscan.log_scan_run("exp", sarif_path=path)


def test_the_names_are_importable_from_both_places_and_no_others() -> None:
    for name in intelligentscan.__all__:
        assert getattr(intelligentscan, name) is getattr(plugin if name == "AIModelHelper" else api, name)
    with pytest.raises(AttributeError):
        intelligentscan.nothing_of_this_name  # noqa: B018


USE = """
import os, sys
import intelligentscan
uri = intelligentscan.use(*sys.argv[2:])
import mlflow
from sklearn.linear_model import LogisticRegression
with mlflow.start_run(experiment_id=mlflow.create_experiment("notebook")) as run:
    mlflow.log_metric("accuracy", 0.9)
    mlflow.log_text("x", "note.txt")
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
intelligentscan.register_model(run.info.run_id, "noted")
intelligentscan.promote("noted", 1, "Staging")
print(mlflow.sklearn.load_model("models:/noted@challenger").predict([[1.0]])[0])
pid = os.fork()
if pid == 0:
    import signal
    signal.alarm(30)
    intelligentscan.create_experiment("from a fork")
    os._exit(0)
print(os.waitpid(pid, 0)[1])
print(intelligentscan.create_experiment("from a fork").created)
print(uri)
"""


def test_use_points_plain_mlflow_at_our_store_and_a_fork_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "work").mkdir()
    ended = run_plain(USE, "-", env={"INTELLIGENTSCAN_HOME": str(home)}, cwd=tmp_path / "work")
    assert ended.stdout.split() == ["1", "0", "False", f"sqlite:///{home}/mlflow.db"], ended.stderr
    assert list((tmp_path / "work").iterdir()) == []
    assert len(list((home / "artifacts").rglob("note.txt"))) == 1
    assert len(list((home / "artifacts").rglob("MLmodel"))) == 1


def test_use_takes_a_path_or_a_uri(tmp_path: Path, at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    wanted = tmp_path / "a #1?" / "runs.db"
    try:
        assert intelligentscan.use(wanted) == Settings(tracking_uri=intelligentscan.use(wanted)).store_uri
        assert wanted.exists()
        assert mlflow.get_tracking_uri() == intelligentscan.use(str(wanted))
        assert intelligentscan.create_experiment("in it").artifact_location.startswith("file:///")
        assert mlflow.get_experiment_by_name("in it") is not None
        assert intelligentscan.use(f"sqlite:///{at_home}/mlflow.db") == f"sqlite:///{at_home}/mlflow.db"
        assert mlflow.get_experiment_by_name("in it") is None
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]
