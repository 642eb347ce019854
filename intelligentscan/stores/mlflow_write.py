"""How a run is written: as one transaction on SQL stores, step by step with repair on others.

The idempotency key is a tag of the run. On SQL stores a partial unique index on it lets one of any
number of writers win, in whatever process; the others leave nothing and read the winner. Elsewhere
a writer looks again after creating, and one of those who meet claims the runs of all.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy.exc
from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.dbmodels.models import SqlMetric, SqlRun, SqlTag
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from sqlalchemy import Select, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from intelligentscan.domain.errors import (
    IdempotencyConflict,
    InvalidArgument,
    RunNotFinished,
    RunNotFound,
    StoreUnavailable,
    ValueConflict,
)
from intelligentscan.stores.interface import (
    ARGUMENTS_TAG,
    IDEMPOTENCY_TAG,
    Idempotency,
    RunDraft,
    RunRecord,
    WrittenRun,
)
from intelligentscan.stores.mlflow_errors import is_unavailable
from intelligentscan.stores.mlflow_records import CLAIM_PARAM, run_record
from intelligentscan.stores.mlflow_sqlite import PlannerStatistics
from intelligentscan.stores.mlflow_unit import UnitBroken, Units

logger = logging.getLogger(__name__)
_BATCH = 100
_INCOMING = ".incoming-"
_INCOMING_MAX_AGE_S = 3600
_BATCH_ENTRIES = 1000
_WINNER_PATIENCE_S = 10.0
_INDEX = "intelligentscan_idempotency"
_INDEX_PATIENCE_MS = 20_000


def index_idempotency(engine: Engine) -> bool:
    """Make the index that lets one writer of a key win; tell whether it is there.

    Raises:
        OperationalError: the database is busy.
    """
    if _indexed(engine):
        return True
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {_INDEX_PATIENCE_MS}")
            connection.exec_driver_sql(f"CREATE UNIQUE INDEX {_INDEX} ON tags (value) WHERE key = '{IDEMPOTENCY_TAG}'")
    except sqlalchemy.exc.SQLAlchemyError as exc:
        if _indexed(engine):  # another process was faster
            return True
        if "locked" in str(exc):
            raise
        logger.warning("this account may not add an index; idempotency keys are checked after each write instead")
        return False
    return True


def _indexed(engine: Engine) -> bool:
    return any(index["name"] == _INDEX for index in sqlalchemy.inspect(engine).get_indexes("tags"))


class SqlWriter:
    """Writes runs in one transaction."""

    def __init__(self, store: Any, units: Units, uri: str, statistics: PlannerStatistics | None) -> None:
        self._store = store
        self._units = units
        self._steps = StepWriter(store, uri)
        self._statistics = statistics

    def write(self, draft: RunDraft) -> WrittenRun:
        """Write the draft as a whole, or nothing of it."""
        written = self._write(draft)
        if self._statistics and written.created:
            self._statistics.after_write()
        return written

    def _write(self, draft: RunDraft) -> WrittenRun:
        """Copy the artifacts beside their place first: a copy inside the transaction would hold up every writer."""
        if draft.artifacts is None or draft.run_id is not None:
            return self._commit(draft, None)
        location = self._store.get_experiment(draft.experiment_id).artifact_location
        if not is_local_uri(location):
            return self._commit(draft, None)
        with _copied(draft.artifacts, Path(local_file_uri_to_path(location))) as copy:
            return self._commit(replace(draft, artifacts=None), copy)

    def _commit(self, draft: RunDraft, copy: Path | None) -> WrittenRun:
        artifact_uri: str | None = None
        try:
            with self._units.unit() as session:
                if draft.idempotency and (known := self._known(session, draft.idempotency, draft)) is not None:
                    return WrittenRun(known, created=False)
                run = self._steps.begin(draft)
                artifact_uri = run.artifact_uri
                if copy is not None:
                    place = Path(local_file_uri_to_path(artifact_uri))
                    place.parent.mkdir(parents=True, exist_ok=True)
                    copy.rename(place)
                self._steps.fill(run, draft if draft.run_id is None else _without_known_points(session, draft))
                if draft.run_id is None:
                    return WrittenRun(_end_new(session, run, draft), created=True)
                self._steps.end(run, draft)
                session.flush()
                session.expire_all()
                return WrittenRun(run_record(self._store.get_run(run.run_id)), created=False)
        except sqlalchemy.exc.IntegrityError:
            self._remove(draft, artifact_uri)
            if draft.idempotency is None:
                raise
            with self._units.unit() as session:
                known = self._known(session, draft.idempotency, draft)
            if known is None:
                raise
            return WrittenRun(known, created=False)
        except UnitBroken:
            if draft.run_id is None:
                self._remove(draft, artifact_uri)
                raise
            return self._steps.write(draft)
        except BaseException:
            self._remove(draft, artifact_uri)
            raise

    def _known(self, session: Session, key: Idempotency, draft: RunDraft) -> RunRecord | None:
        """Return the run that this key was used for before."""
        tag, value = _marker(key, draft)
        query: Select[Any] = select(SqlTag.run_uuid).where(SqlTag.key == tag)
        query = query.where(SqlTag.value == value if draft.run_id is None else SqlTag.run_uuid == draft.run_id)
        run_id = session.execute(query).scalar()
        if run_id is None:
            return None
        run = run_record(self._store.get_run(run_id))
        check_arguments(run, ARGUMENTS_TAG if draft.run_id is None else tag, key)
        return run

    def _remove(self, draft: RunDraft, artifact_uri: str | None) -> None:
        """Remove the artifacts of a run that was not kept."""
        if draft.run_id is None and artifact_uri is not None and is_local_uri(artifact_uri):
            shutil.rmtree(Path(local_file_uri_to_path(artifact_uri)).parent, ignore_errors=True)


@contextmanager
def _copied(source: Path, location: Path) -> Iterator[Path]:
    """Copy a folder into an experiment's artifact folder under a passing name; what is not moved on is removed.

    What a killed process left there is removed by a later one.
    """
    location.mkdir(parents=True, exist_ok=True)
    for leftover in location.glob(f"{_INCOMING}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _INCOMING_MAX_AGE_S:
                shutil.rmtree(leftover, ignore_errors=True)
    passing = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=location))
    try:
        passing.chmod(0o755)
        shutil.copytree(source, passing, dirs_exist_ok=True)
        yield passing
    finally:
        shutil.rmtree(passing, ignore_errors=True)


class StepWriter:
    """Writes runs call by call, for servers that offer no transaction."""

    def __init__(self, store: Any, uri: str) -> None:
        self._store = store
        self._uri = uri

    def write(self, draft: RunDraft) -> WrittenRun:
        """Write the draft; a repeated key completes or returns the run that it was used for before."""
        key = draft.idempotency
        if key is not None and self._marked(draft, key):
            return WrittenRun(self._settled(draft, key), created=False)
        run = self.begin(draft)
        try:
            if key is not None and draft.run_id is None and not self._claimed(run, draft, key):
                self._discard(run.run_id)
                return WrittenRun(self._settled(draft, key), created=False)
            self.fill(run, draft)
            self.end(run, draft)
        except Exception as exc:
            # With a key, a run that the server stopped answering for is completed by the repeated call.
            if draft.run_id is None and (key is None or not is_unavailable(exc)):
                self._discard(run.run_id)
            raise
        return WrittenRun(run_record(self._store.get_run(run.run_id)), created=draft.run_id is None)

    def begin(self, draft: RunDraft) -> RunRecord:
        """Create the run, or check the one that is there."""
        if draft.run_id is not None:
            run = run_record(self._store.get_run(draft.run_id))
            if run.deleted:
                raise RunNotFound("The run was deleted.", next="start a new run: call log_run without run_id.")
            if run.experiment_id != draft.experiment_id:
                raise RunNotFinished(
                    f"The run belongs to experiment {run.experiment_id}, not to {draft.experiment_id}.",
                    next=f"call again with experiment='{run.experiment_id}'.",
                )
            if changed := sorted(k for k, v in draft.params.items() if run.params.get(k, v) != v):
                raise ValueConflict(
                    f"The param '{changed[0]}' of this run has another value already; params do not change.",
                    next="log it under another key, or start a new run.",
                    details={"params": changed[:20]},
                )
            return run
        tags = dict(draft.tags)
        if draft.idempotency is not None:
            tags |= {IDEMPOTENCY_TAG: draft.idempotency.key, ARGUMENTS_TAG: draft.idempotency.arguments}
        return run_record(
            self._store.create_run(
                experiment_id=draft.experiment_id,
                user_id=draft.user,
                start_time=draft.start_time or draft.time,
                tags=[RunTag(k, v) for k, v in tags.items()],
                run_name=draft.run_name or "",
            )
        )

    def fill(self, run: RunRecord, draft: RunDraft) -> None:
        """Log params, metrics, late tags and artifacts."""
        params = [Param(k, v) for k, v in draft.params.items()]
        metrics = [Metric(m.key, m.value, m.time, m.step) for m in dict.fromkeys(draft.metrics)]
        tags: list[RunTag] = []
        if draft.run_id is not None:
            tags = [RunTag(k, v) for k, v in draft.tags.items()]
            if draft.idempotency is not None:
                tag, value = _marker(draft.idempotency, draft)
                tags.append(RunTag(tag, value))
        while params or metrics or tags:
            now = metrics[: _BATCH_ENTRIES - 2 * _BATCH], params[:_BATCH], tags[:_BATCH]
            self._store.log_batch(run.run_id, metrics=now[0], params=now[1], tags=now[2])
            metrics, params, tags = metrics[len(now[0]) :], params[_BATCH:], tags[_BATCH:]
        if draft.artifacts is not None:
            if not draft.artifacts.is_dir():
                raise InvalidArgument("The folder of the artifacts is not there.", next="call again with artifacts.")
            get_artifact_repository(run.artifact_uri, tracking_uri=self._uri).log_artifacts(str(draft.artifacts))

    def end(self, run: RunRecord, draft: RunDraft) -> None:
        """Set the status that the draft names."""
        if draft.status is None or (draft.status == "RUNNING" and draft.run_id is None):
            return
        ended = None if draft.status in ("RUNNING", "SCHEDULED") else draft.time
        self._store.update_run_info(run.run_id, RunStatus.from_string(draft.status), ended, None)

    def _marked(self, draft: RunDraft, key: Idempotency) -> list[RunRecord]:
        """Return the runs that carry the key, in an order that all writers share."""
        tag, value = _marker(key, draft)
        found = self._store.search_runs(
            [draft.experiment_id], f"tags.`{tag}` = '{value}'", ViewType.ACTIVE_ONLY, 50, ["attributes.start_time ASC"]
        )
        runs = sorted((run_record(r) for r in found), key=lambda r: (r.start_time or 0, r.run_id))
        return runs if draft.run_id is None else [r for r in runs if r.run_id == draft.run_id]

    def _claimed(self, run: RunRecord, draft: RunDraft, key: Idempotency) -> bool:
        """Claim every run that carries the key, our own too; tell whether nobody else has claimed one.

        A param is the one thing that a server lets one writer set. Of two writers at least one sees the
        other's run, so only one of them gets all the claims that it needs; and because all claim in the
        same order, one of them does. It removes the others, which may have no writer: a request whose
        answer was lost is sent again by MLflow's client.
        """
        rivals = self._marked(draft, key)
        if all(rival.run_id != run.run_id for rival in rivals):
            rivals.append(run)
        for rival in rivals:
            try:
                self._store.log_param(rival.run_id, Param(CLAIM_PARAM, run.run_id))
            except MlflowException:
                gone = run_record(self._store.get_run(rival.run_id)).deleted
                if rival.run_id == run.run_id or not gone:
                    return False
        for rival in rivals:
            if rival.run_id != run.run_id:
                self._discard(rival.run_id)
        return True

    def _settled(self, draft: RunDraft, key: Idempotency) -> RunRecord:
        """Return the run that the key belongs to, as soon as its writer has ended it; complete it for a dead one."""
        patience = time.monotonic() + _WINNER_PATIENCE_S
        while True:
            runs = self._marked(draft, key)
            ended = [r for r in runs if r.status != "RUNNING"] if draft.run_id is None else runs
            if ended or time.monotonic() > patience or (draft.status == "RUNNING" and len(runs) == 1):
                break
            time.sleep(0.2)
        if not runs:
            raise StoreUnavailable("The run of this idempotency_key was given up.", next="repeat the call.")
        known = (ended or runs)[0]
        check_arguments(known, ARGUMENTS_TAG if draft.run_id is None else _marker(key, draft)[0], key)
        if ended:
            return known
        self.fill(known, _timed_as(known, draft))
        self.end(known, draft)
        return run_record(self._store.get_run(known.run_id))

    def _discard(self, run_id: str) -> None:
        with suppress(Exception):  # the error that led here matters more
            self._store.delete_run(run_id)


def _end_new(session: Session, run: RunRecord, draft: RunDraft) -> RunRecord:
    """Set the status of a run made in this unit, and return it as it will be, without reading it again."""
    latest = {m.key: m.value for m in sorted(draft.metrics, key=lambda m: (m.step, m.time, m.value))}
    filled = replace(run, params=dict(draft.params), metrics=latest)
    if draft.status in (None, "RUNNING"):
        return filled
    row: Any = session.get_one(SqlRun, run.run_id)
    row.status, row.end_time = draft.status, draft.time
    return replace(filled, status=draft.status or "RUNNING", end_time=draft.time)


def _without_known_points(session: Session, draft: RunDraft) -> RunDraft:
    """Leave out metric points that the run has already; MLflow would roll the whole unit back for them."""
    if not draft.metrics:
        return draft
    times = [m.time for m in draft.metrics]
    known: set[tuple[str, int, int, float]] = set()
    keys = sorted({m.key for m in draft.metrics})
    for start in range(0, len(keys), _BATCH):
        query: Any = select(SqlMetric.key, SqlMetric.timestamp, SqlMetric.step, SqlMetric.value).where(
            SqlMetric.run_uuid == draft.run_id,
            SqlMetric.key.in_(keys[start : start + _BATCH]),
            SqlMetric.timestamp.between(min(times), max(times)),
        )
        known.update((key, time, step, value) for key, time, step, value in session.execute(query))
    return replace(draft, metrics=tuple(m for m in draft.metrics if (m.key, m.time, m.step, m.value) not in known))


def _marker(key: Idempotency, draft: RunDraft) -> tuple[str, str]:
    """Return the tag that marks a key as used: on a new run the key itself, on a given run one tag per key."""
    if draft.run_id is None:
        return IDEMPOTENCY_TAG, key.key
    return f"{IDEMPOTENCY_TAG}.{key.key[:32]}", key.arguments


def check_arguments(run: RunRecord, tag: str, key: Idempotency) -> None:
    """Refuse a key that comes back with other arguments than those noted in the run's tag.

    Raises:
        IdempotencyConflict: they differ.
    """
    if run.deleted:
        raise IdempotencyConflict(
            f"This idempotency_key was used for run {run.run_id}, which was deleted since.",
            next="use a new idempotency_key, or bring the run back with 'mlflow runs restore'.",
            details={"run_id": run.run_id},
        )
    if run.tags.get(tag) != key.arguments:
        raise IdempotencyConflict(
            f"This idempotency_key was used for run {run.run_id} with other arguments.",
            next="repeat the first call's arguments to get its result, or use a new idempotency_key.",
            details={"run_id": run.run_id},
        )


def _timed_as(known: RunRecord, draft: RunDraft) -> RunDraft:
    """Return the draft with its metrics at the known run's start, so that a point sent twice is one point."""
    if known.start_time is None:
        return draft
    sent = draft.start_time or draft.time
    metrics = tuple(replace(m, time=known.start_time) if m.time == sent else m for m in draft.metrics)
    return replace(draft, metrics=metrics)
