"""What the tests do in processes of their own: plain functions that a child can import."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import anyio
import sqlalchemy
from sqlalchemy import event

from intelligentscan.app import build
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.settings import Settings
from intelligentscan.stores import mlflow_sqlite
from intelligentscan.stores.interface import Idempotency, MetricValue, RunDraft
from intelligentscan.stores.mlflow_open import MlflowStores, open_stores
from intelligentscan.stores.mlflow_write import StepWriter


def draft(
    experiment_id: str, number: int = 0, key: str | None = None, arguments: str = "same", **changed: Any
) -> RunDraft:
    """Return a run of ten params and ten metrics."""
    given: dict[str, Any] = {
        "experiment_id": experiment_id,
        "user": "tester",
        "time": 1_700_000_000_000 + number,
        "run_name": f"run {number}",
        "params": {f"p{i}": str(i) for i in range(10)},
        "metrics": tuple(MetricValue(f"m{i}", float(number), 1_700_000_000_000) for i in range(10)),
        "tags": {"number": str(number)},
        "status": "FINISHED",
        "idempotency": Idempotency(key, arguments) if key else None,
    }
    return RunDraft(**{**given, **changed})


def opened(home: str, uri: str | None = None) -> MlflowStores:
    """Open the stores as the services do."""
    return open_stores(Settings(home=Path(home), tracking_uri=uri))


def create_shared(home: str, uri: str | None = None) -> tuple[str, bool]:
    """Open the store, which may not exist yet, and create one experiment that everybody wants."""
    found, created = opened(home, uri).call(lambda s: s.tracking.create_experiment("shared", {}))
    return found.experiment_id, created


def write_runs(home: str, experiment_id: str, first: int, count: int, uri: str | None = None) -> list[str]:
    """Write runs one after the other."""
    stores = opened(home, uri)
    numbers = range(first, first + count)
    return [stores.call(lambda s, n=n: s.tracking.write_run(draft(experiment_id, n))).run.run_id for n in numbers]  # type: ignore[misc]


def write_once(
    home: str, experiment_id: str, key: str, arguments: str = "same", uri: str | None = None
) -> tuple[str, bool] | str:
    """Write one run under a key; the code of the error if it is refused."""
    try:
        written = opened(home, uri).call(lambda s: s.tracking.write_run(draft(experiment_id, 7, key, arguments)))
    except IntelligentScanError as error:
        return error.code
    return written.run.run_id, written.created


def die_at_statement(number: int, statement: str = "") -> None:
    """End this process without warning before its n-th SQL statement that contains the text."""
    seen = 0

    @event.listens_for(sqlalchemy.Engine, "before_cursor_execute")
    def count(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        nonlocal seen
        seen += statement in sql
        if seen >= number:
            _die()


def create_and_die(home: str, point: str) -> None:
    """Begin to create a store and be killed at a point: before SQL statement N, before or after the link."""
    link: Callable[..., None] = os.link

    def after(*paths: Any) -> None:
        link(*paths)
        _die()

    if point == "before link":
        mlflow_sqlite.os.link = lambda *_: _die()  # type: ignore[attr-defined]
    elif point == "after link":
        mlflow_sqlite.os.link = after  # type: ignore[attr-defined]
    else:
        die_at_statement(int(point))
    opened(home)


def write_and_die(home: str, experiment_id: str, statement: str, number: int) -> None:
    """Begin to write a run and be killed in the middle."""
    stores = opened(home)
    die_at_statement(number, statement)
    stores.tracking.write_run(draft(experiment_id, 1, "killed"))


def register(home: str, name: str, run_id: str, uri: str | None = None) -> tuple[int, bool]:
    """Register a run's model; return the version and whether it was made now."""
    services = build(Settings(home=Path(home), tracking_uri=uri))
    made = anyio.run(lambda: services.registry.register(name, run_id=run_id))
    return made.version, made.created


def register_and_die(home: str, name: str, run_id: str, statement: str, uri: str | None = None) -> None:
    """Begin to register a run's model and be killed before the first SQL statement that contains the text."""
    die_at_statement(1, statement)
    register(home, name, run_id, uri)


def promote_and_die(home: str, name: str, version: int, statement: str, uri: str | None = None) -> None:
    """Begin to promote a version to Production and be killed before the first SQL statement that contains the text."""
    services = build(Settings(home=Path(home), tracking_uri=uri))
    die_at_statement(1, statement)
    anyio.run(lambda: services.registry.promote(name, version, "Production", reason="r"))


def remote_write_and_die(uri: str, experiment_id: str, key: str) -> None:
    """Begin to write a run through a server and be killed when it is created but still empty."""
    StepWriter.fill = lambda *_: _die()  # type: ignore[method-assign, assignment]
    opened("/nowhere", uri).tracking.write_run(draft(experiment_id, 1, key))


def as_nobody(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do something as a user who owns nothing; an error of ours comes back as its code and next step."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        return work(*arguments)
    except IntelligentScanError as error:
        return error.code, error.message, error.next


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process does not go on")
