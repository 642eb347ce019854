"""The same services on a real PostgreSQL: opened by many at once, written as a whole, one run per key."""

import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import anyio
import pytest
from child_work import create_shared, draft, write_once
from child_work import register as register_there
from conftest import Trained, plain_mlflow, train
from postgres_server import Postgres
from reviewed import approve, release

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    ExperimentLocked,
    ExperimentNotFound,
    GatesFailed,
    IdempotencyConflict,
    IntelligentScanError,
    NotAdopted,
    NotGoverned,
    StoreError,
    StoreUnavailable,
    ValueConflict,
    VersionNotFound,
)
from intelligentscan.domain.registry import RegisteredVersion
from intelligentscan.settings import Settings
from intelligentscan.stores.interface import MetricValue, RunDraft
from intelligentscan.stores.mlflow_open import MlflowStores, open_stores


@pytest.fixture
def settings(postgres: Postgres, database: str, tmp_path: Path, project: Path) -> Settings:
    return Settings(home=tmp_path / "home", tracking_uri=postgres.uri(database), allowed_roots=(project,))


@pytest.fixture
def stores(settings: Settings) -> MlflowStores:
    return open_stores(settings)


@pytest.fixture
def experiment(stores: MlflowStores) -> str:
    return stores.tracking.create_experiment("runs", {})[0].experiment_id


@pytest.fixture
def counts(postgres: Postgres, database: str) -> Callable[[], dict[str, int]]:
    """Return a function that counts the rows of the tables that runs and models are in."""
    tables = ("experiments", "runs", "params", "metrics", "latest_metrics", "tags", "registered_models",
              "model_versions", "registered_model_aliases", "model_version_tags")  # fmt: skip
    query = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in tables)  # noqa: S608
    return lambda: dict(postgres.sql(query, database))


def write(stores: MlflowStores, wanted: RunDraft) -> Any:
    return stores.call(lambda s: s.tracking.write_run(wanted))


def test_four_processes_at_once_on_an_empty_database_end_in_one_complete_schema(
    postgres: Postgres, tmp_path: Path, children: ForkServerContext
) -> None:
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.db.utils import _get_latest_schema_revision

    database = postgres.database()
    with ProcessPoolExecutor(4, mp_context=children) as pool:
        waiting = [pool.submit(create_shared, str(tmp_path), postgres.uri(database)) for _ in range(4)]
        answers = [future.result() for future in waiting]
    assert len({experiment_id for experiment_id, _ in answers}) == 1
    assert [created for _, created in answers].count(True) == 1
    tables = {row[0] for row in postgres.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database)}
    assert set(Base.metadata.tables) < tables
    assert postgres.sql("SELECT version_num FROM alembic_version", database) == [(_get_latest_schema_revision(),)]
    index = "SELECT count(*) FROM pg_indexes WHERE indexname = 'intelligentscan_idempotency'"
    assert postgres.sql(index, database) == [(1,)]
    assert postgres.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


def test_a_run_holds_everything_that_was_sent(stores: MlflowStores, experiment: str) -> None:
    written = write(stores, draft(experiment, 1, params={f"p{i}": "v" for i in range(250)}))
    run = stores.tracking.get_run(written.run.run_id)
    assert run is not None
    assert (len(run.params), len(run.metrics), run.status, run.tags["number"]) == (250, 10, "FINISHED", "1")


@pytest.mark.parametrize("key", [None, "key"])
@pytest.mark.parametrize("table", ["params", "metrics", "latest_metrics"])
def test_a_failure_inside_a_write_leaves_no_trace(
    stores: MlflowStores,
    experiment: str,
    postgres: Postgres,
    database: str,
    tmp_path: Path,
    counts: Callable[[], dict[str, int]],
    table: str,
    key: str | None,
) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file.txt").write_text("x")
    write(stores, draft(experiment, 0))
    postgres.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'integrity_constraint_violation'; END $$",
        database,
    )
    postgres.sql(f"CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()", database)
    before = counts()
    with pytest.raises(StoreError) as caught:
        write(stores, draft(experiment, 1, key, artifacts=tmp_path / "given"))
    assert "not this one" in caught.value.message
    assert counts() == before
    assert not list((tmp_path / "home").rglob("file.txt"))
    postgres.sql(f"DROP TRIGGER refuse ON {table}", database)
    assert write(stores, draft(experiment, 1, key)).created


def test_one_key_makes_one_run_among_threads_and_processes(
    stores: MlflowStores,
    experiment: str,
    settings: Settings,
    tmp_path: Path,
    children: ForkServerContext,
    counts: Callable[[], dict[str, int]],
) -> None:
    ready = threading.Barrier(8)

    def at_once(number: int) -> Any:
        ready.wait()
        return write(stores, draft(experiment, number, "threads"))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(at_once, range(8)))
    assert len({answer.run.run_id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
    assert counts()["runs"] == 1
    with ProcessPoolExecutor(3, mp_context=children) as processes:
        arguments = (str(tmp_path), experiment, "processes", "same", settings.store_uri)
        others = [f.result() for f in [processes.submit(write_once, *arguments) for _ in range(6)]]
    assert [answer[1] for answer in others].count(True) == 1
    assert counts()["runs"] == 2
    with pytest.raises(IdempotencyConflict):
        write(stores, draft(experiment, 1, "threads", "other"))


def test_a_key_on_a_given_run_applies_once_among_threads(stores: MlflowStores, experiment: str) -> None:
    run = write(stores, draft(experiment, status="RUNNING", metrics=())).run
    ready = threading.Barrier(6)

    def at_once(number: int) -> None:
        ready.wait()
        wanted = draft(experiment, number, "more", run_id=run.run_id, metrics=(MetricValue("m", number, number),))
        write(stores, wanted)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(at_once, range(6)))
    assert len(stores.tracking.metric_history(run.run_id, "m", 10)) == 1


def test_a_changed_param_refuses_the_whole_addition(
    stores: MlflowStores, experiment: str, counts: Callable[[], dict[str, int]]
) -> None:
    run = write(stores, draft(experiment, params={"p": "old"})).run
    before = counts()
    with pytest.raises(ValueConflict):
        write(stores, RunDraft(experiment, "t", 1, run_id=run.run_id, params={"a": "1", "p": "new"}))
    assert counts() == before


async def test_sixteen_callers_at_once_lose_nothing(settings: Settings, counts: Callable[[], dict[str, int]]) -> None:
    services = build(settings)
    await services.experiments.create("exp")

    async def call(number: int) -> None:
        for step in range(5):
            await services.runs.log("exp", params={"n": number}, metrics={"m": step})

    async with anyio.create_task_group() as group:
        for number in range(16):
            group.start_soon(call, number)
    assert counts()["runs"] == 80
    found = await services.runs.search("exp", order_by=["metrics.m DESC"], limit=100)
    assert len(found.runs) == 80


async def test_a_connection_that_is_cut_is_an_error_at_most_once_and_leaves_no_half_run(
    settings: Settings, postgres: Postgres, database: str, counts: Callable[[], dict[str, int]]
) -> None:
    services = build(settings)
    await services.experiments.create("exp")
    await services.runs.log("exp", params={"a": 1})
    postgres.sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
    )
    assert (await services.runs.log("exp", params={"a": 1})).created
    postgres.sql(
        "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$",
        database,
    )
    postgres.sql("CREATE TRIGGER cut BEFORE INSERT ON params FOR EACH ROW EXECUTE FUNCTION cut()", database)
    before = counts()
    with pytest.raises(StoreUnavailable) as caught:
        await services.runs.log("exp", params={"a": 1}, idempotency_key="k")
    assert caught.value.next
    assert counts() == before
    postgres.sql("DROP TRIGGER cut ON params", database)
    assert (await services.runs.log("exp", params={"a": 1}, idempotency_key="k")).created


async def test_numbers_beyond_the_databases_integers_are_not_found(settings: Settings) -> None:
    services = build(settings)
    for name in ("9999999999", "9" * 18, "9" * 30):
        with pytest.raises(ExperimentNotFound):
            await services.runs.search(name)


@pytest.mark.parametrize("target", ["postgresql+psycopg://nobody:secret@127.0.0.1:1/x", "postgresql://u:secret@[::1/x"])
async def test_a_database_that_cannot_be_reached_is_an_error_that_shows_no_secret(tmp_path: Path, target: str) -> None:
    services = build(Settings(home=tmp_path, tracking_uri=target, deadline_s=20))
    for _ in range(2):
        with pytest.raises(IntelligentScanError) as caught:
            await services.experiments.search()
        assert caught.value.next
        assert "secret" not in str(caught.value)


def test_an_account_that_may_only_read_and_write_rows_writes_whole_runs(
    postgres: Postgres, database: str, settings: Settings, stores: MlflowStores, experiment: str
) -> None:
    postgres.sql("DROP ROLE IF EXISTS clerk")
    postgres.sql("CREATE ROLE clerk LOGIN")
    for statement in (
        "GRANT USAGE ON SCHEMA public TO clerk",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk",
    ):
        postgres.sql(statement, database)
    try:
        own = open_stores(Settings(home=settings.home, tracking_uri=postgres.uri(database, "clerk")))
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n: write(own, draft(experiment, n, "k")), range(4)))
        assert [answer.created for answer in answers].count(True) == 1
        with pytest.raises(IntelligentScanError):
            write(own, draft(experiment, 1, "bad", params={"bad\nkey": "1"}))
        assert len(stores.tracking.search_runs(experiment, "", [], 10, None).rows) == 1
        own.tracking._store.engine.dispose()  # type: ignore[attr-defined]
        own.registry._store.engine.dispose()  # type: ignore[attr-defined]
    finally:
        postgres.sql("DROP OWNED BY clerk", database)
        postgres.sql("DROP ROLE clerk")


# Registry


@pytest.fixture(scope="module")
def trained_template(postgres: Postgres, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A database with trained models that nothing of ours was done to yet, to be copied."""
    home = tmp_path_factory.mktemp("pg-trained")
    database = postgres.database(migrated)
    settings = Settings(home=home, tracking_uri=postgres.uri(database))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(settings.artifact_root))
        trained = train(home, settings, settings.store_uri)
    postgres.disconnect(database)
    return trained


@pytest.fixture
def plain_trained(postgres: Postgres, trained_template: Trained, tmp_path: Path) -> Trained:
    from mlflow import MlflowClient

    uri = postgres.uri(postgres.database(str(trained_template.settings.tracking_uri).split("/")[-1].split("?")[0]))
    settings = Settings(home=tmp_path / "home", tracking_uri=uri)
    return replace(trained_template, home=settings.home, settings=settings, client=MlflowClient(tracking_uri=uri))


@pytest.fixture
async def pg_trained(plain_trained: Trained) -> Trained:
    assert (await plain_trained.services.adoption.adopt()).installed
    return plain_trained


async def state(services: Services, name: str) -> dict[int, tuple[str, list[str]]]:
    """Return stage and aliases of each version."""
    return {v.version: (v.stage, v.aliases) for v in (await services.registry.get(name)).versions}


async def test_a_database_is_adopted_before_anything_is_governed(plain_trained: Trained) -> None:
    trained, services = plain_trained, plain_trained.services
    trained.client.create_registered_model("theirs")
    trained.client.create_model_version("theirs", f"runs:/{trained.legacy}/classifier", trained.legacy)
    with pytest.raises(NotAdopted) as caught:
        await services.registry.register("m", run_id=trained.with_model)
    assert "intelligentscan adopt" in caught.value.next
    with pytest.raises(NotGoverned):
        await services.registry.promote("theirs", 1, "Staging")
    adopted = await services.adoption.adopt()
    assert (adopted.installed, adopted.models, adopted.legacy_versions) == (True, ["theirs"], 1)
    assert (await services.adoption.check()).ok
    assert (await services.registry.register("m", run_id=trained.with_model)).version == 1
    with pytest.raises(GatesFailed):
        await services.registry.promote("theirs", 1, "Production", reason="r")


async def test_models_are_registered_once_and_promoted_as_a_whole(pg_trained: Trained) -> None:
    services: Services = pg_trained.services
    made = await services.registry.register("m", run_id=pg_trained.with_model)
    again = await services.registry.register("m", run_id=pg_trained.with_model)
    better = await services.registry.register("m", run_id=pg_trained.better)
    assert [(v.version, v.created) for v in (made, again, better)] == [(1, True), (1, False), (2, True)]
    assert (made.experiment_locked, made.next_experiment) == (True, "training-v2")
    for version in (1, 2):
        await release(services, "m", version, reason="r")
    assert await state(services, "m") == {1: ("Archived", ["previous"]), 2: ("Production", ["champion"])}
    assert [v.version for v in (await services.history.get(name="m")).live["Production"]] == [2]
    with pytest.raises(VersionNotFound):
        await services.registry.promote("m", 2**40, "Staging")
    assert (await services.integrity.verify()).problems == []


async def test_plain_clients_are_refused_in_words_of_ours(pg_trained: Trained) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    services, client = pg_trained.services, pg_trained.client
    await services.registry.register("m", run_id=pg_trained.with_model)
    await services.runs.search("training")
    experiment_id = pg_trained.experiment.experiment_id
    source = f"runs:/{pg_trained.legacy}/classifier"
    acts = {
        "EXPERIMENT_LOCKED: .*continue in 'training-v2'": lambda: client.create_run(experiment_id),
        "TICKET_REQUIRED: .*register_model": lambda: mlflow.register_model(source, "m"),
        "PROMOTION_REQUIRED: .*promote": lambda: client.transition_model_version_stage("m", "1", "Production"),
        "VERSION_SEALED": lambda: client.set_model_version_tag("m", "1", "a", "b"),
        "ALIAS_RESERVED": lambda: client.set_registered_model_alias("m", "champion", "1"),
    }
    with plain_mlflow(pg_trained.settings.store_uri):
        for said, act in acts.items():
            with pytest.raises(MlflowException, match=said) as caught:
                act()
            assert caught.value.error_code == "BAD_REQUEST"
    with pytest.raises(ExperimentLocked):
        await services.runs.log("training")
    assert (await services.integrity.verify()).problems == []


async def test_a_chain_of_experiments_goes_on_and_a_lock_is_lifted(pg_trained: Trained) -> None:
    services = pg_trained.services
    findings = [{"rule": "X1", "severity": "high", "path": "a.py", "line": 3, "message": "bad"}]
    first = await services.scans.log("training", findings=findings, scanner="mine", idempotency_key="k")
    await services.registry.register("m", run_id=pg_trained.with_model)
    second = await services.scans.log("training", findings=[], scanner="mine")
    assert (second.experiment, second.baseline_run_id, second.fixed) == ("training-v2", first.run_id, 1)
    again = await services.scans.log("training", findings=findings, scanner="mine", idempotency_key="k")
    assert (again.run_id, again.created) == (first.run_id, False)
    await services.locks.unlock("training", "r")
    assert (await services.runs.log("training")).created
    locked = await services.registry.register("m", run_id=pg_trained.better)
    assert (locked.version, locked.next_experiment) == (2, "training-v3")
    assert (await services.integrity.verify()).problems == []


async def test_eight_registrations_of_one_run_under_a_new_name_make_one_version(pg_trained: Trained) -> None:
    answers: list[RegisteredVersion] = []

    async def register(through: Services) -> None:
        answers.append(await through.registry.register("crowded", run_id=pg_trained.with_model))

    one, other = pg_trained.services, pg_trained.services
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(register, (one, other)[number % 2])
    assert {a.version for a in answers} == {1}
    assert [a.created for a in answers].count(True) == 1
    assert [v.version for v in (await one.registry.get("crowded")).versions] == [1]


async def test_registrations_of_two_runs_from_processes_make_two_versions_under_one_lock(
    pg_trained: Trained, children: ForkServerContext
) -> None:
    runs = (pg_trained.with_model, pg_trained.better, pg_trained.with_model)
    with ProcessPoolExecutor(3, mp_context=children) as pool:
        given = (str(pg_trained.settings.home), "m")
        waiting = [pool.submit(register_there, *given, run_id, pg_trained.settings.store_uri) for run_id in runs]
        made = [await anyio.to_thread.run_sync(future.result) for future in waiting]
    assert sorted({version for version, _ in made}) == [1, 2]
    assert [created for _, created in made].count(True) == 2
    services = pg_trained.services
    events = [e.action for e in (await services.history.get(limit=50)).events]
    assert (events.count("experiment.locked"), events.count("version.registered")) == (1, 2)
    assert (await services.integrity.verify()).problems == []


async def test_promotions_of_two_versions_at_once_end_in_one_consistent_state(pg_trained: Trained) -> None:
    services = pg_trained.services
    await services.registry.register("contested", run_id=pg_trained.with_model)
    await services.registry.register("contested", run_id=pg_trained.better)
    for version in (1, 2):
        await approve(services, "contested", version)

    async def promote(version: int) -> None:
        for _ in range(4):
            await services.registry.promote("contested", version, "Production", reason="r")

    async with anyio.create_task_group() as group:
        for version in (1, 2, 1, 2):
            group.start_soon(promote, version)
    found = sorted((await state(services, "contested")).values())
    assert found == [("Archived", ["previous"]), ("Production", ["champion"])]
    assert (await services.integrity.verify("contested")).problems == []
