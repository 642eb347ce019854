"""Stores with runs and models made by plain MLflow, as training scripts leave them, and cheap copies of them."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from intelligentscan.app import Services, build
from intelligentscan.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


@dataclass(frozen=True)
class Trained:
    """A store with runs made by plain MLflow, as training scripts leave them.

    Attributes:
        home: the home of the services on it.
        settings: their settings.
        client: a plain client on the store.
        experiment: holds every finished run.
        with_model, better: each has one model; the second one is trained otherwise.
        with_two: has the models `left` and `right`.
        without: has none.
        legacy: has one in its folder, as clients before MLflow 3 leave it.
        unfinished: the experiment of the next two; a run that goes on keeps its experiment from being locked.
        running, failed: runs without a model.
    """

    home: Path
    settings: Settings
    client: "MlflowClient"
    experiment: "Experiment"
    with_model: str
    better: str
    with_two: str
    without: str
    legacy: str
    unfinished: str
    running: str
    failed: str

    @property
    def services(self) -> Services:
        """New services on this store."""
        return build(self.settings)


@contextmanager
def plain_mlflow(uri: str) -> Iterator[None]:
    """Let plain `mlflow` in this process write to a store, as a training script does."""
    import mlflow
    from mlflow.tracking import fluent

    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        fluent._active_experiment_id = None
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


def train(home: Path, settings: Settings, uri: str) -> Trained:
    """Log one run of every kind that a registration meets."""
    import mlflow
    from mlflow import MlflowClient
    from sklearn.linear_model import LogisticRegression

    client = MlflowClient(tracking_uri=uri)
    with plain_mlflow(uri):

        def experiment(name: str) -> str:
            location = str(home / "artifacts" / name) if uri.startswith("sqlite") else None
            return str(client.create_experiment(name, artifact_location=location))

        experiment_id, unfinished = experiment("training"), experiment("unfinished")

        def run(name: str, models: tuple[str, ...] = (), strength: float = 1.0) -> str:
            model = LogisticRegression(C=strength).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
            with mlflow.start_run(experiment_id=experiment_id, run_name=name) as started:
                mlflow.log_params({"C": strength})
                mlflow.log_metric("accuracy", 0.9 + strength / 100)
                for each in models:
                    mlflow.sklearn.log_model(model, name=each, pip_requirements=["scikit-learn"])
            return str(started.info.run_id)

        with_model = run("first", ("model",))
        better = run("better", ("model",), strength=3.0)
        with_two = run("two", ("left", "right"))
        without = run("none")
        legacy = run("legacy")
        folder = home / "legacy-model"
        mlflow.sklearn.save_model(
            LogisticRegression().fit([[0.0], [1.0]], [0, 1]), str(folder), pip_requirements=["scikit-learn"]
        )
        client.log_artifacts(legacy, str(folder), "classifier")
        running = client.create_run(unfinished).info.run_id
        failed = client.create_run(unfinished).info.run_id
        client.set_terminated(failed, "FAILED")
    return Trained(
        home=home,
        settings=settings,
        client=client,
        experiment=client.get_experiment(experiment_id),
        with_model=with_model,
        better=better,
        with_two=with_two,
        without=without,
        legacy=legacy,
        unfinished=unfinished,
        running=running,
        failed=failed,
    )


def settle(home: Path) -> None:
    """Bring everything into the store's file itself, so that copying the file copies the store."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def copy_trained(trained: Trained, home: Path) -> Trained:
    """Return a copy of a SQLite store with its artifacts, whose paths fit the new place."""
    from mlflow import MlflowClient

    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(trained.home / "mlflow.db", home / "mlflow.db")
    shutil.copytree(trained.home / "artifacts", home / "artifacts")
    moved = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location"}
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        for table, column in moved.items():
            replaced = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"  # noqa: S608
            connection.execute(replaced, (str(trained.home), str(home)))
    settings = Settings(home=home)
    client = MlflowClient(tracking_uri=settings.store_uri)
    experiment = client.get_experiment(trained.experiment.experiment_id)
    return replace(trained, home=home, settings=settings, client=client, experiment=experiment)
