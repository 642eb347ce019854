"""Models that runs have logged: where they are, what their files are, and how ours are logged."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mlflow.entities import LoggedModelOutput, LoggedModelStatus, LoggedModelTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.dbmodels.models import SqlRun
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import append_to_uri_path, is_local_uri

from intelligentscan._digest import sha256_file
from intelligentscan._private_folder import private_folder_blocking
from intelligentscan.domain.errors import NoModel, TooLarge
from intelligentscan.stores.archive_source import META_FILE
from intelligentscan.stores.interface import ModelSource, PyfuncModel, RunRecord
from intelligentscan.stores.mlflow_errors import is_unavailable
from intelligentscan.stores.mlflow_records import run_record
from intelligentscan.stores.mlflow_unit import Units

MAX_MODEL_FILES = 20_000
_MAX_FOLDERS = 50
_MLMODEL = "MLmodel"
_STRAYS = ("uv.lock", "pyproject.toml", ".python-version")


class LoggedModels:
    """Logged models of one tracking store, and the models in run folders that older clients leave."""

    def __init__(self, store: Any, uri: str, units: Units | None) -> None:
        self._store = store
        self._uri = uri
        self._units = units

    def of_run(self, run: RunRecord) -> tuple[ModelSource, ...]:
        """Return the models that the run has logged, the newest first."""
        try:
            page = self._store.search_logged_models([run.experiment_id], f"source_run_id = '{run.run_id}'")
        except (MlflowException, NotImplementedError) as exc:  # servers before 3.0 know no logged models
            _unless_unavailable(exc)
            page = []
        ready = [m for m in page if m.status == LoggedModelStatus.READY]
        found = tuple(
            ModelSource(m.name, m.model_uri, m.artifact_location, m.model_id)
            for m in sorted(ready, key=lambda m: -m.creation_timestamp)
        )
        return found or self._in_folders(run)

    def _in_folders(self, run: RunRecord) -> tuple[ModelSource, ...]:
        repository = get_artifact_repository(run.artifact_uri, tracking_uri=self._uri)
        folders = [f.path for f in repository.list_artifacts() if f.is_dir][:_MAX_FOLDERS]
        return tuple(
            ModelSource(
                name=folder,
                uri=f"runs:/{run.run_id}/{folder}",
                location=append_to_uri_path(run.artifact_uri, folder),
                model_id=None,
            )
            for folder in folders
            if any(f.path == f"{folder}/{_MLMODEL}" for f in repository.list_artifacts(folder))
        )

    def at(self, uri: str) -> tuple[ModelSource, str] | None:
        """Return the logged model of a `models:/m-…` or `runs:/…` URI, and the run that it came from."""
        if uri.startswith("models:/m-"):
            try:
                model = self._store.get_logged_model(uri.removeprefix("models:/"))
            except MlflowException as exc:
                _unless_unavailable(exc)
                return None
            if model.status != LoggedModelStatus.READY:
                raise NoModel(
                    "The logged model was never finished.", next="log the model again, then call register_model."
                )
            source = ModelSource(model.name, model.model_uri, model.artifact_location, model.model_id)
            return source, model.source_run_id or ""
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        try:
            run = run_record(self._store.get_run(run_id))
        except MlflowException as exc:
            _unless_unavailable(exc)
            return None
        named = [m for m in self.of_run(run) if m.name == path]
        return (named[0], run.run_id) if named else None

    def runs_with_models(self, experiment_id: str, limit: int) -> tuple[str, ...]:
        """Return ids of runs of the experiment that have logged a model, the newest first."""
        try:
            newest = [{"field_name": "creation_timestamp", "ascending": False}]
            page = self._store.search_logged_models([experiment_id], max_results=50, order_by=newest)
        except (MlflowException, NotImplementedError) as exc:
            _unless_unavailable(exc)
            return ()
        runs = (m.source_run_id for m in page if m.source_run_id and m.status == LoggedModelStatus.READY)
        return tuple(dict.fromkeys(runs))[:limit]

    def log(self, run: RunRecord, wanted: PyfuncModel) -> ModelSource:
        """Log a pyfunc model that a module of ours loads from a data file."""
        import mlflow.pyfunc  # half a second that only this call needs
        import pandas as pd
        from mlflow.models import Model, ModelSignature
        from mlflow.types import ColSpec, Schema

        signature = ModelSignature(
            inputs=Schema([ColSpec(type=t, name=n) for n, t in wanted.inputs.items()]),
            outputs=Schema([ColSpec(type=t, name=n) for n, t in wanted.outputs.items()]),
        )
        model = self._store.create_logged_model(run.experiment_id, name=wanted.name, source_run_id=run.run_id)
        try:
            with private_folder_blocking() as private:
                folder = private / "model"
                mlflow.pyfunc.save_model(
                    str(folder),
                    loader_module=wanted.loader_module,
                    data_path=str(wanted.data),
                    pip_requirements=list(wanted.requirements),
                    mlflow_model=Model(
                        artifact_path=model.artifact_location, model_id=model.model_id, run_id=run.run_id
                    ),
                    signature=signature,
                    input_example=pd.DataFrame([wanted.example]),
                )
                for stray in _STRAYS:  # MLflow adds those of whatever project the process happens to stand in
                    (folder / stray).unlink(missing_ok=True)
                repository = get_artifact_repository(model.artifact_location, tracking_uri=self._uri)
                repository.log_artifacts(str(folder))
            if (first := self._finished_first(run, model.model_id)) is not None:
                return first
            self._store.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])
        except BaseException:
            self._store.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
            raise
        return ModelSource(wanted.name, model.model_uri, model.artifact_location, model.model_id)

    def _finished_first(self, run: RunRecord, model_id: str) -> ModelSource | None:
        """Finish the model unless the run has a finished one, which is returned: two processes may have begun."""
        with self._units.unit() if self._units is not None else nullcontext() as session:
            if session is not None:
                session.query(SqlRun).filter_by(run_uuid=run.run_id).with_for_update().first()
            there = self.of_run(run)
            status = LoggedModelStatus.FAILED if there else LoggedModelStatus.READY
            self._store.finalize_logged_model(model_id, status)
            return there[0] if there else None

    def note_version(self, source: ModelSource, name: str, version: int) -> None:
        """Leave on the logged model the link to its version that MLflow's UI shows."""
        if source.model_id is None:
            return
        model = self._store.get_logged_model(source.model_id)
        known = json.loads(model.tags.get("mlflow.modelVersions") or "[]")
        known.append({"name": name, "version": version})
        self._store.set_logged_model_tags(source.model_id, [LoggedModelTag("mlflow.modelVersions", json.dumps(known))])

    def fetch(self, source: ModelSource, folder: Path) -> Path:
        """Return a folder with the model's files: their own if they are local, else a copy in `folder`.

        Raises:
            NoModel: it holds no model.
        """
        if is_local_uri(source.location):
            local = Path(local_file_uri_to_path(source.location))
            if not (local / _MLMODEL).is_file():  # anybody could name a folder of secrets
                raise _no_model_file()
            return local
        folder.mkdir()
        repository = get_artifact_repository(source.location, tracking_uri=self._uri)
        return Path(repository.download_artifacts("", str(folder)))

    def manifest(self, source: ModelSource) -> list[dict[str, object]]:
        """Return path, size in bytes and sha256 of each file of the model, sorted by path."""
        if is_local_uri(source.location):
            return _manifest(Path(local_file_uri_to_path(source.location)))
        with private_folder_blocking() as private:
            repository = get_artifact_repository(source.location, tracking_uri=self._uri)
            return _manifest(Path(repository.download_artifacts("", str(private))))


def _no_model_file() -> NoModel:
    return NoModel(
        "The model's files are gone: its folder holds no MLmodel file.",
        next="log the model again, then call register_model with the new run.",
    )


def _unless_unavailable(exc: Exception) -> None:
    """Raise again what says nothing about the model, because the store did not answer."""
    if is_unavailable(exc):
        raise exc


def _manifest(folder: Path) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise NoModel(
                "The model's folder holds a link or a special file, whose bytes cannot be vouched for.",
                next="log the model again with plain files only.",
                details={"file": path.relative_to(folder).as_posix()[:200]},
            )
        if path.is_file() and path != folder / META_FILE:  # MLflow's note from an earlier load, no part of the model
            name = path.relative_to(folder).as_posix()
            entries.append({"path": name, "size": path.stat().st_size, "sha256": sha256_file(path)})
        if len(entries) > MAX_MODEL_FILES:
            raise TooLarge(f"The model has more than {MAX_MODEL_FILES:,} files.", next="log it as fewer, larger files.")
    if not any(entry["path"] == _MLMODEL for entry in entries):
        raise _no_model_file()
    return sorted(entries, key=lambda entry: str(entry["path"]))
