"""The world that hostile tests attack, on both databases; its fixtures are in `conftest`.

One experiment, `fraud`, is locked; versions 1 and 2 of `fm` are sealed from it, version 1 is in Production. The
attacker has a plain MLflow client and raw SQL: on SQLite with the file, on PostgreSQL with the app role.
"""

import hashlib
import itertools
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy
from conftest import copy_store, plain_mlflow
from hostile_rows import fill_rest
from mlflow import MlflowClient
from mlflow.entities import (
    AssessmentSource,
    Dataset,
    DatasetInput,
    Feedback,
    InputTag,
    LoggedModelOutput,
    TraceInfo,
    TraceLocation,
    TraceState,
)
from mlflow.entities.span import Span
from mlflow.utils.file_utils import local_file_uri_to_path
from postgres_server import Postgres
from reviewed import approve, try_release
from sqlalchemy import Engine
from sqlalchemy.pool import NullPool

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.settings import Settings

PREFIX = "hostile"
LOCKED = "EXPERIMENT_LOCKED: experiment 'fraud' was locked by a registration; continue in 'fraud-v2'."


@dataclass(frozen=True)
class Ids:
    """What the builder made, by id."""

    fraud: str = ""
    open: str = ""
    run: str = ""
    second: str = ""
    free: str = ""
    deleted: str = ""
    model: str = ""
    free_model: str = ""
    trace: str = ""
    free_trace: str = ""


@dataclass
class World:
    """One governed store with its attackers.

    Attributes:
        backend: `sqlite` or `postgresql`.
        home: INTELLIGENTSCAN_HOME of the service, with keys and archive; copies of a world share it.
        uri: the store as the service opens it.
        plain: the store as an attacker opens it: on SQLite another spelling, so that nothing is shared in MLflow.
        owner: the store with the rights of who may alter it.
    """

    backend: str
    home: Path
    uri: str
    plain: str
    owner: str
    postgres: Postgres | None = None
    ids: Ids = field(default_factory=Ids)

    @property
    def sqlite(self) -> bool:
        return self.backend == "sqlite"

    @cached_property
    def services(self) -> Services:
        """The services, as the service account runs them."""
        return self.services_with()

    def services_with(self, uri: str | None = None, home: Path | None = None, **more: Any) -> Services:
        """Return new services of another account, or with other settings."""
        settings = Settings(home=home or self.home, tracking_uri=uri or self.uri, **more)
        return build(settings, anywhere=True)

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.plain, registry_uri=self.plain)

    @cached_property
    def attacker(self) -> Engine:
        """Raw SQL of an attacker; statements are committed one by one."""
        return engine(self.plain)

    @cached_property
    def owning(self) -> Engine:
        """Raw SQL of who owns the tables: the file's owner, or PostgreSQL's administrator."""
        return engine(self.owner)

    def sql(self, statement: str, *values: object, owner: bool = False) -> list[Any]:
        """Run one statement and commit it; placeholders are `?` on both databases."""
        with (self.owning if owner else self.attacker).connect() as connection:
            text = statement if self.sqlite else statement.replace("%", "%%").replace("?", "%s")
            found = connection.exec_driver_sql(text, tuple(values))
            return [tuple(row) for row in found] if found.returns_rows else []

    def gov(self, table: str) -> str:
        """Return how a governance table is called."""
        return f"gov_{table}" if self.sqlite else f"gov.{table}"

    async def problems(self, name: str | None = None, services: Services | None = None) -> set[str]:
        """Return the codes of what `verify_integrity` finds."""
        return {p.code for p in (await (services or self.services).integrity.verify(name)).problems}

    async def promote(self, name: str = "fm", version: int = 2) -> str:
        """Promote to Production; return what became of it, or the code of the refusal with its text."""
        try:
            decision = await try_release(self.services, name, version, reason="better")
        except IntelligentScanError as error:
            return f"{error.code} {error}"
        return decision.status

    async def register(self, run_id: str, name: str) -> str:
        """Register; return the version, or the code of the refusal with its text."""
        try:
            made = await self.services.registry.register(name, run_id=run_id)
        except IntelligentScanError as error:
            return f"{error.code} {error}"
        return f"version {made.version}, next {made.next_experiment}"

    def close(self) -> None:
        """Give back every connection of this world."""
        forget(self.uri, self.plain, self.owner)


def engine(uri: str, **options: Any) -> Engine:
    return sqlalchemy.create_engine(uri, **{"isolation_level": "AUTOCOMMIT", "poolclass": NullPool, **options})


def forget(*uris: str) -> None:
    """Let MLflow give back its connections to these stores."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for uri, store in itertools.product(uris, (SqlAlchemyStore, RegistryStore)):
        if (known := store._engine_map.get(uri)) is not None:
            known.dispose()


# Worlds


def sqlite_world(folder: Path, template: Path) -> World:
    home = copy_store(template, folder / "home")
    (folder / "x").mkdir()
    path = home / "mlflow.db"
    return World("sqlite", home, f"sqlite:///{path}", f"sqlite:///{folder}/x/../home/mlflow.db", f"sqlite:///{path}")


def postgres_world(home: Path, postgres: Postgres, database: str) -> World:
    service, app = (postgres.uri(database, f"{PREFIX}_{role}") for role in ("npta", "app"))
    return World("postgresql", home, service, app, postgres.uri(database), postgres)


async def split_roles(world: World) -> None:
    """Make the roles as the administrator does, and let them log in."""
    result = await world.services_with(world.owner).upkeep.init_roles(PREFIX)
    for role in result.roles:
        world.sql(f"ALTER ROLE {role} LOGIN", owner=True)
    forget(world.owner)


async def furnish(world: World) -> World:
    """Fill the world: two experiments with rows in every table, two sealed versions, a plain model, a prompt."""
    client = world.client
    fraud, free = experiment(world, "fraud"), experiment(world, "open")
    run, model = train(world, fraud, 1.0)
    second, _ = train(world, fraud, 2.0)
    free_run, free_model = train(world, free, 3.0)
    for each in (run, free_run):
        client.log_inputs(each, [DatasetInput(Dataset("d", "x1", "local", "{}"), [InputTag("a", "b")])])
    deleted = client.create_run(fraud).info.run_id
    client.set_terminated(deleted)
    client.delete_run(deleted)
    client.set_experiment_tag(fraud, "goal", "catch")
    traces = [traced(world, each) for each in (fraud, free)]
    for here, run_id, model_id, trace in ((fraud, run, model, traces[0]), (free, free_run, free_model, traces[1])):
        leading = {**dict.fromkeys(("run_uuid", "run_id", "source_run_id"), run_id), "model_id": model_id}
        fill_rest(world, here, {**leading, "trace_id": trace, "request_id": trace})
    world.ids = Ids(fraud, free, run, second, free_run, deleted, model, free_model, *traces)
    for each in (run, second):
        made = await world.services.registry.register("fm", run_id=each, description="first", tags={"k": "v"})
        await approve(world.services, "fm", made.version)
    assert await world.promote(version=1) == "promoted"
    with plain_mlflow(world.plain):
        client.create_registered_model("plain")
        client.create_model_version("plain", f"models:/{free_model}", free_run)
        client.set_registered_model_alias("plain", "champion", "1")
        client.create_prompt("greeting")
        client.create_prompt_version("greeting", "hello {{name}}")
    return world


def copied(world: World, folder: Path) -> World:
    """Return the same world in a database of its own; keys, archive and artifacts are shared."""
    if world.postgres is not None:
        world.close()
        database = _database_from(world.postgres, str(sqlalchemy.make_url(world.uri).database))
        return replace(postgres_world(world.home, world.postgres, database), ids=world.ids)
    (folder / "x").mkdir(parents=True)
    path = folder / "mlflow.db"
    with (
        closing(sqlite3.connect(world.uri.removeprefix("sqlite:///"))) as here,
        closing(sqlite3.connect(path)) as there,
    ):
        here.backup(there)
        there.execute("PRAGMA journal_mode = WAL")
    uri = f"sqlite:///{path}"
    return replace(world, uri=uri, plain=f"sqlite:///{folder}/x/../mlflow.db", owner=uri)


def _database_from(postgres: Postgres, source: str) -> str:
    """Copy a database; a connection that was given back may need a moment to end."""
    for patience in range(4):
        postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{source}'")  # noqa: S608
        try:
            return postgres.database(source)
        except sqlalchemy.exc.OperationalError:
            if patience == 3:
                raise
    raise AssertionError


# Things in it


def experiment(world: World, name: str) -> str:
    """Make an experiment with plain MLflow, its artifacts beside the others."""
    folder = world.home / "artifacts" / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}-{next(_numbers)}"
    return str(world.client.create_experiment(name, artifact_location=str(folder)))


def train(world: World, experiment_id: str, strength: float) -> tuple[str, str]:
    """Log a finished run with plain MLflow; return its id and its model's."""
    import mlflow
    from sklearn.linear_model import LogisticRegression

    with plain_mlflow(world.plain), mlflow.start_run(experiment_id=experiment_id) as run:
        mlflow.log_params({"C": strength, "solver": "lbfgs"})
        mlflow.log_metric("accuracy", 0.9, step=1, timestamp=1_700_000_000_000)
        mlflow.set_tag("team", "red")
        fitted = LogisticRegression(C=strength).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        logged = mlflow.sklearn.log_model(fitted, name="model", pip_requirements=["scikit-learn"])
        return str(run.info.run_id), str(logged.model_id)


@dataclass(frozen=True)
class Logged:
    """A finished run whose model is a few small files."""

    run: str
    model: str
    folder: Path


def log(world: World, experiment_id: str, *, finish: bool = True) -> Logged:
    """Log a run with a model of one small file, quickly."""
    import mlflow

    run = world.client.create_run(experiment_id).info.run_id
    with plain_mlflow(world.plain):
        model = mlflow.initialize_logged_model(name="model", source_run_id=run, experiment_id=experiment_id)
        folder = Path(local_file_uri_to_path(model.artifact_location))
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text(f"flavors: {{}}\nrun_id: {run}\n")
        world.client.finalize_logged_model(model.model_id, "READY")
        world.client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
    if finish:
        world.client.set_terminated(run)
    return Logged(run, model.model_id, folder)


def tracking_store(world: World) -> Any:
    """Return the store below the client, whose methods a server calls for OTLP and traces."""
    return world.client._tracking_client.store


def traced(world: World, experiment_id: str) -> str:
    """Write a trace with one span, tags, metadata and an assessment."""
    store, info = tracking_store(world), trace_info(experiment_id)
    store.start_trace(info)
    store.log_spans(experiment_id, [span(info.trace_id)])
    store.create_assessment(feedback(info.trace_id))
    return str(info.trace_id)


def trace_info(experiment_id: str, trace_id: str | None = None) -> TraceInfo:
    return TraceInfo(
        trace_id=trace_id or f"tr-{next(_numbers):032x}",
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=1_700_000_000_000,
        state=TraceState.OK,
        execution_duration=5,
        trace_metadata={"m": "1"},
        tags={"t": "1"},
    )


def span(trace_id: str) -> Span:
    """Return a span as an OTLP request brings it."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, TraceFlags

    return Span(
        ReadableSpan(
            name="step",
            context=SpanContext(int(trace_id[3:], 16), next(_numbers), is_remote=False, trace_flags=TraceFlags(1)),
            resource=Resource.get_empty(),
            start_time=1_700_000_000_000_000_000,
            end_time=1_700_000_000_000_005_000,
            attributes={"mlflow.traceRequestId": f'"{trace_id}"', "mlflow.spanType": '"UNKNOWN"'},
        )
    )


def feedback(trace_id: str, name: str = "good") -> Feedback:
    return Feedback(name=name, value=True, trace_id=trace_id, source=AssessmentSource("HUMAN", "u"))


_numbers = itertools.count(1000)
