"""The fraud example: its data, its two training scripts, and the story of its model from end to end."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from intelligentscan.settings import Settings
from intelligentscan.trusted_models import TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "fraud_detection"
SIZE = 200_000


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the story and what it has told, as somebody runs it."""
    home = tmp_path_factory.mktemp("fraud") / "story"
    ended = subprocess.run(
        [sys.executable, str(FOLDER / "story.py"), "--home", str(home)],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return home, ended.stdout


@pytest.fixture
def client(told: tuple[Path, str]) -> "MlflowClient":
    """Plain MLflow on the store that the story has left."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=Settings(home=told[0] / "store").store_uri)


@pytest.fixture
def attempts(client: "MlflowClient") -> "dict[str, Run]":
    """The two runs, by name."""
    experiment = client.get_experiment_by_name("/team-awesome/fraud-detection-v1")
    assert experiment is not None
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


@pytest.fixture
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's modules can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    sys.modules.pop("transactions", None)


def test_the_story_reaches_production_with_the_other_ones_signature(told: tuple[Path, str]) -> None:
    story = told[1]
    for said in (
        "EXPERIMENT_LOCKED: experiment '/team-awesome/fraud-detection-v1' was locked by a registration",
        "✓ the same in /team-awesome/fraud-detection-v2 works: run ",
        "✓ version 1 is in Staging, alias ['challenger']",
        "✓ only a review is missing; it is requested: ",
        "✓ alice: approve, authenticated",
        "✓ version 1 is in Production; four_eyes: True",
        "✓ not fraud",
        "✓ version 1 is live",
        "✓ everything is as it was sealed, locked and recorded",
    ):
        assert said in story
    assert "BEST" in story


def test_production_is_refused_with_every_failing_gate_named_until_they_pass(told: tuple[Path, str]) -> None:
    early, late = (re.split(r"\n--- ", told[1])[n] for n in (chapter(told[1], "Production, too early"), -3))
    assert {"no_open_findings", "fresh", "reviewed"} <= set(re.findall(r"^  fail +(\w+)", early, re.M))
    assert "scan_vulnerabilities" in early
    assert re.findall(r"^  fail", late, re.M) == []
    assert late.startswith("Production\n")


def test_who_trained_the_model_cannot_approve_it(told: tuple[Path, str]) -> None:
    parts = re.split(r"\n--- ", told[1])
    refusal = parts[chapter(told[1], "bob approves what bob has trained")]
    assert "authenticated" not in refusal
    assert re.search(r"^[A-Z_]+: ", refusal, re.M)


def test_both_attempts_log_everything_that_a_reviewer_asks_for(
    client: "MlflowClient", attempts: "dict[str, Run]"
) -> None:
    assert {name: run.data.params["algorithm"] for name, run in attempts.items()} == {
        "rf_attempt_1": "RandomForest",
        "xgb_attempt_1": "XGBoost",
    }
    for run in attempts.values():
        metrics = run.data.metrics
        assert {"accuracy", "precision", "recall", "f1", "roc_auc", "training_time_s", "memory_mb"} <= set(metrics)
        assert sorted(key for key in metrics if ".subgroup." in key) == [
            f"recall.subgroup.{region}" for region in ("east", "north", "south", "west")
        ]
        assert 0.9 < metrics["accuracy"] < 1
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
            "confusion_matrix.png",
            "feature_importance.csv",
            "feature_importance.png",
        }
        assert [entry.dataset.name for entry in run.inputs.dataset_inputs] != []
        assert len(run.data.tags["mlflow.source.git.commit"]) == 40
        assert json.loads(run.data.tags[TAG])["list"] == 1
    assert [attempts[name].data.tags["mlflow.user"] for name in ("rf_attempt_1", "xgb_attempt_1")] == ["alice", "bob"]
    assert attempts["xgb_attempt_1"].data.metrics["f1"] > attempts["rf_attempt_1"].data.metrics["f1"]


def test_the_registered_model_is_sealed_with_signature_and_example(
    told: tuple[Path, str], client: "MlflowClient", attempts: "dict[str, Run]"
) -> None:
    from mlflow.models import Model

    version = client.get_model_version("team_awesome_fraud_detector", "1")
    assert version.run_id == attempts["xgb_attempt_1"].info.run_id
    assert version.current_stage == "Production"
    sealed = Path(version.source.removeprefix("file://"))
    assert told[0] / "store" / "archive" in sealed.parents
    model = Model.load(str(sealed))
    assert model.signature is not None
    assert model.saved_input_example_info is not None


@pytest.mark.usefixtures("own_modules")
def test_the_transactions_are_always_the_same_unbalanced_and_small() -> None:
    import transactions  # type: ignore[import-not-found]

    table = transactions.make()
    assert table.equals(transactions.make())
    assert not table.equals(transactions.make(seed=3))
    assert 2_000 < len(table) < 10_000
    assert 0.05 < table[transactions.LABEL].mean() < 0.2
    assert set(table[transactions.GROUP]) == {"north", "south", "east", "west"}
    assert len(transactions.FEATURES) == 5


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    ended = subprocess.run(
        [sys.executable, str(FOLDER / "story.py"), "--home", str(tmp_path)],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "is not empty" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_examples_ship_with_the_package_and_stay_small() -> None:
    import tomllib

    root = FOLDER.parents[1]
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["force-include"]["examples"] == "intelligentscan/_examples"
    shipped = [p for p in FOLDER.parent.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(path.stat().st_size for path in shipped) < SIZE


def chapter(story: str, title: str) -> int:
    """Return which chapter has this title."""
    return next(n for n, part in enumerate(re.split(r"\n--- ", story)) if part.startswith(title))
