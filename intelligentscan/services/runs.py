"""Logging, finding and reading runs."""

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from intelligentscan._paths import AllowedRoots, open_beneath
from intelligentscan._private_folder import private_folder
from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import ArtifactNotFound, InvalidArgument, TooLarge
from intelligentscan.domain.run import ArtifactRow, LoggedRun, MetricPoint, RunDetails, RunList, RunRow, RunStatus
from intelligentscan.domain.text import untrusted
from intelligentscan.services import cursor as cursors
from intelligentscan.services.denials import Denials
from intelligentscan.services.idempotency import idempotency
from intelligentscan.services.locks import LockService, experiment_locked
from intelligentscan.services.principal import real_user
from intelligentscan.services.resolve import Resolver, no_run
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import Subject
from intelligentscan.stores.interface import (
    ARGUMENTS_TAG,
    IDEMPOTENCY_TAG,
    KIND_TAG,
    ArtifactRecord,
    MetricValue,
    RunDraft,
    RunRecord,
    TrackingStore,
)

MAX_ARTIFACTS = 100
MAX_ARTIFACT_BYTES = 2**30
MAX_HISTORY_METRICS = 10
MAX_HISTORY_POINTS = 1_000
MAX_TEXT_ARTIFACT = 4_000_000
_COMMIT_TAG = "mlflow.source.git.commit"
_PARENT_TAG = "mlflow.parentRunId"
_DEFAULT_COLUMNS = 8
_HIDDEN_TAGS = ("mlflow.log-model.history", IDEMPOTENCY_TAG, ARGUMENTS_TAG)
_POINT = ("value", "step", "time", "time_ms")
_STATUSES: tuple[RunStatus, ...] = ("FINISHED", "RUNNING", "FAILED", "KILLED")
Points = Mapping[str, Sequence[Mapping[str, object] | float]]


class RunService:
    """One use case per method."""

    def __init__(
        self, store: StoreAccess, resolver: Resolver, roots: AllowedRoots, locks: LockService, denials: Denials
    ) -> None:
        self._denials = denials
        self._store = store
        self._resolver = resolver
        self._roots = roots
        self._locks = locks

    async def log(
        self,
        experiment: str,
        *,
        run_id: str | None = None,
        run_name: str | None = None,
        params: dict[str, object] | None = None,
        metrics: dict[str, float] | None = None,
        metric_history: Points | None = None,
        tags: dict[str, object] | None = None,
        artifacts: dict[str, str] | None = None,
        parent_run_id: str | None = None,
        status: str | None = None,
        idempotency_key: str | None = None,
    ) -> LoggedRun:
        """Write a new run, or add to the one that `run_id` names; as a whole or not at all.

        A new run ends as FINISHED unless `status` says otherwise; a given run keeps its status.

        Raises:
            InvalidArgument: a name, value, status or path is wrong; nothing was written.
            IdempotencyConflict: the key was used before with other arguments.
            ValueConflict: a param of the given run has another value already.
        """
        now = int(time.time() * 1000)
        wanted_status = _status(status)
        points = [MetricValue(k, v, now) for k, v in names.metrics(metrics).items()]
        points += _history(metric_history, now)
        checked_params, checked_tags = names.params(params), names.tags(tags)
        name = names.run_name(run_name) if run_name is not None else None
        within = await self._resolver.experiment(experiment)
        given = await self._resolver.run(run_id, experiment) if run_id is not None else None
        if parent_run_id is not None:
            checked_tags[_PARENT_TAG] = (await self._resolver.run(parent_run_id, experiment)).run_id
        user = real_user()
        key = idempotency(
            idempotency_key,
            person=user,
            tool="log_run",
            experiment_id=within.experiment_id,
            arguments={
                "run_id": given.run_id if given else None,
                "run_name": name,
                "params": checked_params,
                "metrics": names.metrics(metrics),
                "metric_history": metric_history,
                "tags": checked_tags,
                "artifacts": artifacts,
                "status": wanted_status,
            },
        )
        locked = (await self._locks.of([within.experiment_id])).get(within.experiment_id)
        if key is not None and (artifacts or locked) and given is None:  # a repeated call needs neither again
            known = await self._store.read(lambda s: s.tracking.run_by_key(within.experiment_id, key))
            if known is not None:
                return _logged(known, created=False)
        if locked is not None:
            async with self._denials.noting("log_run", Subject(within.experiment_id)):
                raise experiment_locked(locked)
        async with AsyncExitStack() as stack:
            staged = None
            if artifacts:
                staged = await stack.enter_async_context(private_folder())
                await anyio.to_thread.run_sync(self._stage, artifacts, staged)
            draft = RunDraft(
                experiment_id=within.experiment_id,
                user=user,
                time=now,
                run_id=given.run_id if given else None,
                run_name=name,
                params=checked_params,
                metrics=tuple(points),
                tags=checked_tags if given else authored(checked_tags, user),
                artifacts=staged,
                status=wanted_status if given or wanted_status else "FINISHED",
                idempotency=key,
            )
            written = await self._store.write(lambda s: s.tracking.write_run(draft))
        return _logged(written.run, created=written.created)

    async def search(
        self,
        experiment: str,
        *,
        filter: str | None = None,
        order_by: Sequence[str] | None = None,
        limit: int = 20,
        cursor: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> RunList:
        """Return a page of an experiment's runs, the newest first unless `order_by` says otherwise.

        Raises:
            InvalidFilter: MLflow cannot read the filter or the ordering.
        """
        cursors.checked_limit(limit)
        wanted, order = names.search_filter(filter), names.ordering(order_by) or ["attributes.start_time DESC"]
        within = await self._resolver.experiment(experiment)
        call = ("runs", within.experiment_id, filter, *(order_by or ()))
        token = cursors.decode(cursor, *call)
        page = await self._store.read(
            lambda s: s.tracking.search_runs(within.experiment_id, wanted, order, limit, token)
        )
        notes = []
        if not page.rows and token is None:
            notes.append("No run matches." if filter else "The experiment has no run yet.")
        return RunList(
            experiment_id=within.experiment_id,
            runs=[run_row(r, columns) for r in page.rows],
            next_cursor=cursors.encode(page.next_token, *call),
            notes=notes,
        )

    async def get(
        self, run_id: str, *, experiment: str | None = None, metric_history: Sequence[str] | None = None
    ) -> RunDetails:
        """Return everything about one run except the bytes of its artifacts.

        Raises:
            RunNotFound: there is no such run.
            AmbiguousRun: the prefix fits several runs.
        """
        wanted = list(metric_history or ())
        if len(wanted) > MAX_HISTORY_METRICS:
            raise TooLarge(
                f"The history of {len(wanted)} metrics was asked for; the most is {MAX_HISTORY_METRICS}.",
                next="call get_run again with fewer names in metric_history.",
            )
        if names.is_run_id(run_id) and experiment is None:
            found = await self._store.read(lambda s: _read_whole(s.tracking, run_id))
        else:
            run = await self._resolver.run(run_id, experiment)
            found = await self._store.read(lambda s: _read_whole(s.tracking, run.run_id))
        history: dict[str, list[MetricPoint]] = {}
        for key in wanted:
            history[untrusted(key, names.MAX_KEY)] = await self._metric_history(found.run, key)
        return _details(found, history)

    async def artifact_text(self, run_id: str, path: str, *, limit: int = MAX_TEXT_ARTIFACT) -> str:
        """Return a text artifact of at most `limit` bytes.

        Raises:
            ArtifactNotFound: the run has no such artifact, or it is no UTF-8 text.
            TooLarge: it has more bytes.
        """
        run = await self._resolver.run(run_id)
        data = await self._store.read(lambda s: s.tracking.read_artifact(run, path, limit))
        if data is None:
            raise ArtifactNotFound(
                f"The run has no artifact '{untrusted(path, 100)}'.", next="get_run lists the artifacts of a run."
            )
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise ArtifactNotFound(
                f"The artifact '{untrusted(path, 100)}' is no text.", next="get_run lists the artifacts of a run."
            ) from exc

    async def _metric_history(self, run: RunRecord, key: str) -> list[MetricPoint]:
        points = await self._store.read(lambda s: s.tracking.metric_history(run.run_id, key, MAX_HISTORY_POINTS + 1))
        if len(points) > MAX_HISTORY_POINTS:
            raise TooLarge(
                f"The metric '{untrusted(key, 80)}' has more than {MAX_HISTORY_POINTS:,} points.",
                next="read it with MLflow's client, get_metric_history.",
            )
        kept = (p for p in points if math.isfinite(p.value))
        return [MetricPoint(value=p.value, step=p.step, time=rfc3339(p.time) or "") for p in kept]

    def _stage(self, artifacts: dict[str, str], folder: Path) -> None:
        if len(artifacts) > MAX_ARTIFACTS:
            raise TooLarge(
                f"One call takes at most {MAX_ARTIFACTS} artifacts.", next="log the others in further calls."
            )
        for target, source in artifacts.items():
            path = folder / artifact_path(target)
            real = self._roots.file(source, argument="artifacts")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(exist_ok=False)
            except OSError as exc:
                raise InvalidArgument(
                    f"The artifact path '{untrusted(target, 60)}' cannot be used beside the others: {exc.strerror}.",
                    next="call again with artifacts in places of their own.",
                ) from exc
            with os.fdopen(open_beneath(real.parent, real.name), "rb") as opened, path.open("wb") as copy:
                if os.fstat(opened.fileno()).st_size > MAX_ARTIFACT_BYTES:
                    raise TooLarge(
                        f"An artifact has more than {MAX_ARTIFACT_BYTES:,} bytes.",
                        next="upload it with MLflow's client: mlflow artifacts log-artifact.",
                    )
                shutil.copyfileobj(opened, copy)


def artifact_path(text: str) -> str:
    """Return a path inside a run's artifacts, checked.

    Raises:
        InvalidArgument: it is absolute, leaves the folder, or has invisible characters.
    """
    parts = text.split("/")
    if not text or len(text) > 500 or text != untrusted(text, 500) or any(p in ("", ".", "..") for p in parts):
        raise InvalidArgument(
            f"'{untrusted(text, 60)}' is no artifact path.", next="use a relative path such as 'plots/roc.png'."
        )
    return text


def run_row(run: RunRecord, columns: Sequence[str] | None = None) -> RunRow:
    """Return a run as a row; `columns` picks params and metrics by key, with or without their prefix."""
    params: Mapping[str, str] = run.params
    metrics: Mapping[str, float] = finite(run)
    if columns is None:
        params = dict(sorted(params.items())[:_DEFAULT_COLUMNS])
        metrics = dict(sorted(metrics.items())[:_DEFAULT_COLUMNS])
    else:
        params = {k: v for k, v in params.items() if k in columns or f"params.{k}" in columns}
        metrics = {k: v for k, v in metrics.items() if k in columns or f"metrics.{k}" in columns}
    user = run.tags.get("mlflow.user")
    return RunRow(
        run_id=run.run_id,
        run_name=untrusted(run.run_name, 100),
        status=run.status,
        start_time=rfc3339(run.start_time),
        user=untrusted(user, 100) if user else None,
        kind=run.tags.get(KIND_TAG),
        params={untrusted(k, 100): untrusted(v, 100) for k, v in params.items()},
        metrics={untrusted(k, 100): v for k, v in metrics.items()},
    )


@dataclass(frozen=True, slots=True)
class _WholeRun:
    run: RunRecord
    artifacts: tuple[ArtifactRecord, ...]


def _read_whole(tracking: TrackingStore, run_id: str) -> _WholeRun:
    """Read a run and the root of its artifacts in one visit to the store."""
    run = tracking.get_run(run_id)
    if run is None or run.deleted:
        raise no_run(run_id)
    return _WholeRun(run, tracking.list_artifacts(run))


def _details(found: _WholeRun, history: dict[str, list[MetricPoint]]) -> RunDetails:
    run, metrics = found.run, finite(found.run)
    lost = sorted(run.metrics.keys() - metrics.keys())
    user, commit = run.tags.get("mlflow.user"), run.tags.get(_COMMIT_TAG)
    return RunDetails(
        run_id=run.run_id,
        run_name=untrusted(run.run_name, 250),
        experiment_id=run.experiment_id,
        status=run.status,
        params={untrusted(k, 250): untrusted(v, 500) for k, v in run.params.items()},
        metrics={untrusted(k, 250): v for k, v in metrics.items()},
        metric_history=history,
        tags={untrusted(k, 250): untrusted(v, 500) for k, v in _shown_tags(run.tags).items()},
        artifacts=[ArtifactRow(path=untrusted(a.path, 200), size=a.size, folder=a.folder) for a in found.artifacts],
        models=[f"models:/{model_id}" for model_id in run.model_ids],
        start_time=rfc3339(run.start_time),
        end_time=rfc3339(run.end_time),
        user=untrusted(user, 100) if user else None,
        git_commit=untrusted(commit, 64) if commit else None,
        notes=[f"Not a finite number: {', '.join(untrusted(key, 60) for key in lost[:20])}."] if lost else [],
    )


def finite(run: RunRecord) -> dict[str, float]:
    """Return the metrics of a run that are numbers; JSON has no NaN and no infinity, which plain MLflow may log."""
    return {key: value for key, value in run.metrics.items() if math.isfinite(value)}


def _shown_tags(tags: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in sorted(tags.items()) if not k.startswith(_HIDDEN_TAGS)}


def _logged(run: RunRecord, *, created: bool) -> LoggedRun:
    return LoggedRun(run_id=run.run_id, created=created, status=run.status, experiment_id=run.experiment_id)


def authored(tags: dict[str, str], user: str) -> dict[str, str]:
    """Return the tags with those by which MLflow's UI shows author and source of a run."""
    return {**tags, "mlflow.user": user, "mlflow.source.name": "intelligentscan", "mlflow.source.type": "LOCAL"}


def _status(text: str | None) -> RunStatus | None:
    if text is None:
        return None
    for status in _STATUSES:
        if text.strip().upper() == status:
            return status
    raise InvalidArgument(f"There is no status '{untrusted(text, 40)}'.", next=f"use one of {', '.join(_STATUSES)}.")


def _history(given: Points | None, now: int) -> list[MetricValue]:
    points: list[MetricValue] = []
    for key, values in (given or {}).items():
        checked = names.key(key, "metric")
        if not isinstance(values, list | tuple):
            raise InvalidArgument(
                f"The history of metric '{checked}' is no list.", next='give points as [{"value": 0.9, "step": 1}].'
            )
        for position, point in enumerate(values):
            if isinstance(point, Mapping):
                if unknown := point.keys() - _POINT:
                    raise InvalidArgument(
                        f"A point of metric '{checked}' has the unknown field '{untrusted(str(min(unknown)), 40)}'.",
                        next=f"give points with {', '.join(_POINT)}; only value is required.",
                    )
                step, at = point.get("step", position), _moment(point, now)
                value = names.metric_value(checked, point.get("value"))
            else:
                step, at, value = position, now, names.metric_value(checked, point)
            if not (_is_integer(step) and _is_integer(at)):
                raise InvalidArgument(
                    f"A step or time_ms of metric '{checked}' is no 64-bit integer.",
                    next='give points as {"value": 0.9, "step": 1}.',
                )
            points.append(MetricValue(checked, value, int(str(at)), int(str(step))))
        if len(points) > names.MAX_METRIC_POINTS:
            raise TooLarge(
                f"One call takes at most {names.MAX_METRIC_POINTS:,} metric points.",
                next="send the history in several calls with run_id.",
            )
    return points


def _moment(point: Mapping[str, object], now: int) -> object:
    """Return the time of a point in milliseconds: as given, or from RFC 3339 as get_run writes it."""
    if "time" not in point:
        return point.get("time_ms", now)
    try:
        moment = datetime.fromisoformat(str(point["time"]))
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
    except (ValueError, OverflowError) as exc:
        raise InvalidArgument(
            f"'{untrusted(str(point['time']), 40)}' is no time.", next="write time like 2026-01-31T12:00:00Z."
        ) from exc


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
