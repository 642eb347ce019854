"""Experiments, runs and artifacts through MLflow's tracking store, whatever its backend."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from mlflow.entities import ExperimentTag, Run, ViewType
from mlflow.entities import RunStatus as MlflowRunStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.dbmodels.models import SqlLoggedModel, SqlRun
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from intelligentscan._private_folder import private_folder_blocking
from intelligentscan.domain.errors import ArtifactNotFound, InvalidArgument, TooLarge
from intelligentscan.domain.run import RunStatus
from intelligentscan.stores.interface import (
    ARGUMENTS_TAG,
    IDEMPOTENCY_TAG,
    ArtifactRecord,
    DatasetRecord,
    ExperimentRecord,
    Idempotency,
    MetricValue,
    Page,
    RunDraft,
    RunFolder,
    RunningRun,
    RunRecord,
    WrittenRun,
)
from intelligentscan.stores.mlflow_errors import bad_filter, none_if_missing
from intelligentscan.stores.mlflow_records import experiment_record, page_token, run_reader, run_record
from intelligentscan.stores.mlflow_unit import Units
from intelligentscan.stores.mlflow_write import check_arguments

_ALL_EXPERIMENTS = 50_000


class MlflowTracking:
    """One tracking store.

    Args:
        store: MLflow's own store object.
        uri: its URI, for artifact repositories that go through the server.
        write: writes a draft in the way that suits the backend.
        before_ordering: called before runs are ordered by a metric or a param.
        units: transactions on the store's database, None if it is behind a server.
    """

    def __init__(
        self,
        store: Any,
        uri: str,
        write: Callable[[RunDraft], WrittenRun],
        before_ordering: Callable[[], None] | None = None,
        units: Units | None = None,
    ) -> None:
        self._store = store
        self._uri = uri
        self._write = write
        self._read: Callable[[str], Run] = run_reader(store)
        self._before_ordering = before_ordering
        self._units = units
        self._experiment_ids: tuple[str, ...] = ()
        self._listing = threading.Lock()

    def find_experiment(self, name_or_id: str) -> ExperimentRecord | None:
        """Return the experiment of this name, else of this id, deleted ones too."""
        by_name = self.find_experiment_by_name(name_or_id)
        if by_name is None and name_or_id.isdecimal() and name_or_id.isascii() and int(name_or_id) < 2**63:
            return self.experiment_by_id(name_or_id)
        return by_name

    def experiment_by_id(self, experiment_id: str) -> ExperimentRecord | None:
        """Return the experiment of this id, a deleted one too."""
        found = none_if_missing(lambda: self._store.get_experiment(experiment_id))
        return experiment_record(found) if found is not None else None

    def create_experiment(self, name: str, tags: dict[str, str]) -> tuple[ExperimentRecord, bool]:
        """Return the experiment of this name and whether this call made it."""
        if (there := self.find_experiment_by_name(name)) is not None:
            return there, False
        try:
            experiment_id = self._store.create_experiment(name, None, [ExperimentTag(k, v) for k, v in tags.items()])
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            there = self.find_experiment_by_name(name)
            if there is None:
                raise
            return there, False
        return experiment_record(self._store.get_experiment(experiment_id)), True

    def find_experiment_by_name(self, name: str) -> ExperimentRecord | None:
        """Return the experiment of exactly this name, a deleted one too."""
        found = none_if_missing(lambda: self._store.get_experiment_by_name(name))
        return experiment_record(found) if found is not None else None

    def search_experiments(
        self, text: str | None, tags: dict[str, str], limit: int, token: str | None
    ) -> Page[ExperimentRecord]:
        """Return experiments whose name contains the text, last changed first."""
        terms = [f"tags.`{key}` = {quoted(value)}" for key, value in tags.items()]
        if text:
            terms.append(f"name ILIKE {quoted(f'%{text}%')}")
        try:
            found = self._store.search_experiments(
                view_type=ViewType.ACTIVE_ONLY,
                max_results=limit,
                filter_string=" AND ".join(terms) or None,
                order_by=["last_update_time DESC"],
                page_token=token,
            )
        except MlflowException as exc:
            raise _search_error(exc) from exc
        return Page(tuple(experiment_record(e) for e in found), page_token(found.token))

    def together(self) -> AbstractContextManager[object]:
        """Open one transaction for all that is called within, where the store is a database; short acts only."""
        return self._units.unit() if self._units is not None else nullcontext()

    def write_run(self, draft: RunDraft) -> WrittenRun:
        """Write the draft as a whole; the winner's run if the idempotency key was used before."""
        return self._write(draft)

    def run_by_key(self, experiment_id: str, key: Idempotency) -> RunRecord | None:
        """Return the run that an idempotency key was used for."""
        found = self._search((experiment_id,), f"tags.`{IDEMPOTENCY_TAG}` = '{key.key}'", [], 1, None).rows
        if not found:
            return None
        check_arguments(found[0], ARGUMENTS_TAG, key)
        return found[0]

    def get_run(self, run_id: str) -> RunRecord | None:
        """Return the run of this full id, deleted ones too."""
        found = none_if_missing(lambda: self._read(run_id))
        return run_record(found) if found is not None else None

    def runs_by_ids(self, run_ids: Sequence[str]) -> tuple[RunRecord, ...]:
        """Return the runs of these full ids in one search; missing ones are left out."""
        wanted = f"attributes.run_id IN ({', '.join(map(quoted, run_ids))})"
        rows = self._search(self._all_experiments(), wanted, [], len(run_ids), None).rows
        if len(rows) < len(set(run_ids)):  # perhaps a run of an experiment made after the listing
            rows = self._search(self._all_experiments(refresh=True), wanted, [], len(run_ids), None).rows
        return rows

    def runs_by_prefix(self, prefix: str, experiment_id: str | None, limit: int) -> tuple[RunRecord, ...]:
        """Return runs whose id begins with the prefix."""
        experiments = (experiment_id,) if experiment_id else self._all_experiments(refresh=True)
        return self._search(experiments, f"attributes.run_id LIKE {quoted(f'{prefix}%')}", [], limit, None).rows

    def search_runs(
        self, experiment_id: str, filter: str, order_by: Sequence[str], limit: int, token: str | None
    ) -> Page[RunRecord]:
        """Return a page of the experiment's runs."""
        if self._before_ordering and any("metric" in o or "param" in o or "tag" in o for o in (*order_by, filter)):
            self._before_ordering()
        return self._search((experiment_id,), filter, order_by, limit, token)

    def running(self, experiment_id: str, limit: int) -> tuple[RunningRun, ...]:
        """Return runs of the experiment that have not ended."""
        found = itertools.chain.from_iterable(
            self._store.search_runs([experiment_id], f"attributes.status = '{status}'", ViewType.ACTIVE_ONLY, limit)
            for status in ("RUNNING", "SCHEDULED")
        )
        return tuple(
            RunningRun(
                run.info.run_id,
                run.info.run_name or "",
                max([run.info.start_time or 0, *(m.timestamp for m in run.data._metric_objs)]),
            )
            for run in found
        )

    def end_run(self, run_id: str, status: RunStatus, time: int) -> None:
        """End a run."""
        self._store.update_run_info(run_id, MlflowRunStatus.from_string(status), time, None)

    def folders(self, experiment_id: str) -> tuple[RunFolder, ...]:
        """Return where the runs and the logged models of an experiment keep their files, deleted ones too."""
        if hasattr(self._store, "ManagedSessionMaker"):
            with self._store.ManagedSessionMaker() as session:
                within = {"experiment_id": int(experiment_id)}
                runs = session.query(SqlRun.run_uuid, SqlRun.artifact_uri, SqlRun.status, SqlRun.end_time)
                model = SqlLoggedModel
                models = session.query(
                    model.model_id, model.artifact_location, model.status, model.last_updated_timestamp_ms
                )
                found = [(f"run {run_id}", *rest) for run_id, *rest in runs.filter_by(**within)]
                found += [(f"model {model_id}", *rest) for model_id, *rest in models.filter_by(**within)]
        else:
            infos = (run.info for run in self._all_runs(experiment_id))
            found = [(f"run {i.run_id}", i.artifact_uri, i.status, i.end_time) for i in infos]
        return tuple(RunFolder(label, _local_folder(uri), f"{status} {at}") for label, uri, status, at in sorted(found))

    def _all_runs(self, experiment_id: str) -> Iterator[Run]:
        token: str | None = None
        while True:
            page = self._store.search_runs([experiment_id], "", ViewType.ALL, 1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def datasets(self, run_id: str) -> tuple[DatasetRecord, ...]:
        """Return the datasets that a run has logged as inputs."""
        inputs = self._store.get_run(run_id).inputs
        return tuple(
            DatasetRecord(
                i.dataset.name,
                i.dataset.digest,
                next((t.value for t in i.tags if t.key == "mlflow.data.context"), None),
            )
            for i in (inputs.dataset_inputs if inputs else [])
        )

    def metric_history(self, run_id: str, key: str, limit: int) -> tuple[MetricValue, ...]:
        """Return up to `limit` points of a metric in the order of their steps."""
        found = self._store.get_metric_history(run_id, key, max_results=limit)
        points = sorted(itertools.islice(found, limit), key=lambda m: (m.step, m.timestamp))
        return tuple(MetricValue(key, m.value, m.timestamp, m.step) for m in points)

    def list_artifacts(self, run: RunRecord, path: str | None = None) -> tuple[ArtifactRecord, ...]:
        """Return one level of the run's artifact tree."""
        found = self._artifacts(run).list_artifacts(path)
        return tuple(ArtifactRecord(f.path, f.is_dir, f.file_size) for f in found)

    def read_artifact(self, run: RunRecord, path: str, limit: int) -> bytes | None:
        """Return an artifact's bytes, None if there is none; more than `limit` bytes are refused."""
        folder = path.rpartition("/")[0]
        entry = next((f for f in self.list_artifacts(run, folder or None) if f.path == path and not f.folder), None)
        if entry is None:
            return None
        if entry.size is not None and entry.size > limit:
            raise TooLarge(
                f"The artifact {path} has {entry.size:,} bytes; the most shown here is {limit:,}.",
                next="download it with MLflow's client: mlflow artifacts download.",
            )
        with private_folder_blocking() as private:
            local = self._artifacts(run).download_artifacts(path, str(private))
            data = Path(local).read_bytes()
        if len(data) > limit:
            raise ArtifactNotFound(f"The artifact {path} grew while it was read.", next="call again.")
        return data

    def _artifacts(self, run: RunRecord) -> Any:
        return get_artifact_repository(run.artifact_uri, tracking_uri=self._uri)

    def _search(
        self, experiments: Sequence[str], filter: str, order_by: Sequence[str], limit: int, token: str | None
    ) -> Page[RunRecord]:
        try:
            found = self._store.search_runs(
                list(experiments), filter, ViewType.ACTIVE_ONLY, limit, list(order_by), token
            )
        except MlflowException as exc:
            raise _search_error(exc) from exc
        return Page(tuple(run_record(r) for r in found), page_token(found.token))

    def _all_experiments(self, refresh: bool = False) -> tuple[str, ...]:
        """Return the ids of all active experiments, from a listing kept between calls.

        MLflow searches runs only within named experiments, and finds nothing in an empty list.
        """
        with self._listing:
            if refresh or not self._experiment_ids:
                ids: list[str] = []
                token: str | None = None
                while len(ids) < _ALL_EXPERIMENTS:
                    page = self._store.search_experiments(ViewType.ACTIVE_ONLY, 1000, page_token=token)
                    ids += [str(e.experiment_id) for e in page]
                    token = page.token
                    if not token:
                        break
                self._experiment_ids = tuple(ids)
            return self._experiment_ids


def _local_folder(uri: str) -> Path | None:
    return Path(local_file_uri_to_path(uri)) if is_local_uri(uri) else None


def _search_error(exc: MlflowException) -> Exception:
    if exc.error_code == "INVALID_PARAMETER_VALUE" or exc.error_code == "BAD_REQUEST":
        return bad_filter(exc)
    return exc


def quoted(text: str) -> str:
    """Return text as a string of MLflow's filter language, which takes either quote but has no escape."""
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise InvalidArgument("A search text cannot contain both kinds of quotes.", next="search for the part before one.")
