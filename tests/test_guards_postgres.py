"""The guards on a real PostgreSQL with split roles: what is refused, what stays free, and the race for the lock."""

# ruff: noqa: S608  the statements are the tests' own

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from guard_acts import FREE, ON_GOVERNED, ON_LOCKED, World, build_world
from guard_stories import STORIES, Store, says
from guard_world import (
    GOVERNANCE_ROWS,
    Governance,
    add,
    experiment_row,
    fill,
    fresh,
    govern,
    sample_rows,
    unchanged,
)
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from postgres_server import Postgres
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.pool import NullPool

from intelligentscan.stores.governance.tables import ERASABLE, EVERY
from intelligentscan.stores.guards import install
from intelligentscan.stores.guards.inventory import GuardReport, inspect
from intelligentscan.stores.guards.map import GUARDED
from intelligentscan.stores.guards.paths import BY_NAME

LOCKED, OPEN = 1017, 1018
TABLES = [table.name for table in GUARDED]
CLERK = "guarded_clerk"
"""A role that may read and write MLflow's rows, and nothing else."""
IDLE = "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
REMADE = (
    "CREATE OR REPLACE TRIGGER gov_guard BEFORE {} ON runs FOR EACH ROW {} EXECUTE FUNCTION gov.guard_runs();"
    "ALTER TABLE runs ENABLE ALWAYS TRIGGER gov_guard"
)
REWRITTEN = (
    "CREATE OR REPLACE FUNCTION gov.guard_runs() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
    "SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END'"
)


def engine_of(postgres: Postgres, database: str, role: str = "postgres") -> Engine:
    return create_engine(postgres.uri(database, role), poolclass=NullPool)


@pytest.fixture(scope="module")
def built_database(postgres: Postgres, migrated: str) -> tuple[str, World]:
    """A guarded database that plain clients filled, with sample rows in every table, to be copied."""
    name = postgres.database(migrated)
    world = build_world(MlflowClient(postgres.uri(name)))
    dispose(world.client)
    engine = engine_of(postgres, name)
    governance = Governance(engine)
    if not postgres.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{CLERK}'"):
        postgres.sql(f"CREATE ROLE {CLERK} LOGIN")
    with engine.begin() as connection:
        govern(connection)
        fill(connection, "locked", LOCKED)
        fill(connection, "open", OPEN)
        governance.event(connection, {"governed_model": {"workspace": "default", "name": "governed"}})
        for experiment_id in (LOCKED, int(world.locked.experiment)):
            governance.lock(connection, experiment_id)
        for statement in (
            f"GRANT USAGE ON SCHEMA public TO {CLERK}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {CLERK}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {CLERK}",
        ):
            connection.exec_driver_sql(statement)
    # MLflow keeps connections of its own, and a database in use cannot be copied
    postgres.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    return name, world


def dispose(client: MlflowClient) -> None:
    client._tracking_client.store.engine.dispose()
    client._get_registry_client().store.engine.dispose()


def open_store(postgres: Postgres, database: str, world: World) -> Iterator[Store]:
    """Open a database: plain clients come as the clerk, governance rows are made by the owner."""
    client = MlflowClient(postgres.uri(database, CLERK))
    engine = engine_of(postgres, database)
    yield Store(replace(world, client=client), engine, Governance(engine))
    dispose(client)


@pytest.fixture(scope="module")
def shared(postgres: Postgres, built_database: tuple[str, World]) -> Iterator[Store]:
    """A store for acts that change nothing."""
    name, world = built_database
    yield from open_store(postgres, postgres.database(name), world)


@pytest.fixture
def store(postgres: Postgres, built_database: tuple[str, World]) -> Iterator[Store]:
    name, world = built_database
    yield from open_store(postgres, postgres.database(name), world)


@pytest.fixture
def clerk(postgres: Postgres, shared: Store) -> Iterator[Connection]:
    """A connection of the clerk, whose transaction is undone."""
    engine = create_engine(shared.world.client.tracking_uri, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
        connection.rollback()


def refused(connection: Connection, statement: str, values: tuple[object, ...] = ()) -> None:
    with pytest.raises(ProgrammingError) as caught, connection.begin_nested():
        connection.exec_driver_sql(statement, values)
    said = str(caught.value.orig).split("\nCONTEXT: ")[0]
    assert said == "EXPERIMENT_LOCKED: experiment 'locked' was locked by a registration; continue in 'locked-v2'."
    assert getattr(caught.value.orig, "sqlstate", "") == "P0001"


def row_of(table: str, mark: str) -> dict[str, object]:
    number = {"locked": LOCKED, "open": OPEN}[mark]
    return experiment_row(mark, number) if table == "experiments" else sample_rows(mark, number)[table]


def key_of(table: str, mark: str) -> tuple[str, tuple[object, ...]]:
    row, key = row_of(table, mark), BY_NAME[table].key
    return " AND ".join(f"{column} = %s" for column in key), tuple(row[column] for column in key)


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_a_locked_experiment_cannot_be_changed_removed_or_upserted(
    shared: Store, clerk: Connection, table: str
) -> None:
    locked, opened = row_of(table, "locked"), row_of(table, "open")
    where, key = key_of(table, "locked")
    at_open, open_key = key_of(table, "open")
    with unchanged(shared.engine, LOCKED):
        for column in locked:
            refused(clerk, f"UPDATE {table} SET {column} = {column} WHERE {where}", key)
        refused(clerk, f"DELETE FROM {table} WHERE {where}", key)
        columns, signs = ", ".join(locked), ", ".join("%s" for _ in locked)
        same_key = {**opened, **{column: locked[column] for column in BY_NAME[table].key}}
        target, first = ", ".join(BY_NAME[table].key), next(iter(locked))
        upsert = f"ON CONFLICT ({target}) DO UPDATE SET {first} = EXCLUDED.{first}"
        values = tuple(same_key[column] for column in locked)
        refused(clerk, f"INSERT INTO {table} ({columns}) VALUES ({signs}) {upsert}", values)
        on = " AND ".join(f"t.{column} = s.{column}" for column in BY_NAME[table].key)
        merge = f"MERGE INTO {table} AS t USING (SELECT * FROM {table} WHERE {where}) AS s ON {on}"
        refused(clerk, f"{merge} WHEN MATCHED THEN DELETE", key)
        if table != "experiments":
            moved = {c: locked[c] for c in (reach.column for reach in BY_NAME[table].reaches)}
            assignment = ", ".join(f"{column} = %s" for column in moved)
            refused(clerk, f"UPDATE {table} SET {assignment} WHERE {at_open}", (*moved.values(), *open_key))
            added = fresh(table, locked)
            refused(clerk, f"INSERT INTO {table} ({columns}) VALUES ({signs})", tuple(added[c] for c in locked))


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_an_open_experiment_stay_free(clerk: Connection, table: str) -> None:
    where, key = key_of(table, "open")
    row = row_of(table, "open")
    for column in row:
        clerk.exec_driver_sql(f"UPDATE {table} SET {column} = {column} WHERE {where}", key)
    add(clerk, table, fresh(table, row))
    if table not in ("experiments", "runs"):  # without a cascade: their children are in the way
        assert clerk.exec_driver_sql(f"DELETE FROM {table} WHERE {where}", key).rowcount == 1


@pytest.mark.parametrize("name", ON_LOCKED)
def test_a_plain_client_cannot_write_to_a_locked_experiment(shared: Store, name: str) -> None:
    with unchanged(shared.engine, shared.locked), pytest.raises(MlflowException) as caught:
        ON_LOCKED[name](shared.world)
    said = "EXPERIMENT_LOCKED: experiment 'locked' was locked by a registration; continue in 'locked-v2'."
    assert said in caught.value.message
    assert caught.value.error_code in ("BAD_REQUEST", "INTERNAL_ERROR" if name in WRAPPED else "")


WRAPPED = ("log a data set", "log a model as input of a locked run", "make a logged model of the run elsewhere")
"""Where MLflow says of every exception that it is an internal error."""


@pytest.mark.parametrize("name", ON_GOVERNED)
def test_a_plain_client_cannot_change_a_governed_model(shared: Store, name: str) -> None:
    code, act = ON_GOVERNED[name]
    with unchanged(shared.engine, shared.locked), pytest.raises(MlflowException) as caught:
        act(shared.world)
    assert f"{code}: " in caught.value.message
    assert caught.value.error_code != "TEMPORARILY_UNAVAILABLE"


@pytest.mark.parametrize("name", FREE)
def test_what_is_neither_locked_nor_governed_stays_free(store: Store, name: str) -> None:
    FREE[name](store.world)


@pytest.mark.parametrize("story", STORIES)
def test_what_was_recorded_decides(store: Store, story: Callable[[Store], None]) -> None:
    story(store)


# Ways around


def test_copied_and_truncated_rows_are_refused(shared: Store, clerk: Connection) -> None:
    with unchanged(shared.engine, LOCKED):
        raw = clerk.connection.driver_connection
        assert raw is not None
        with (
            pytest.raises(Exception, match="EXPERIMENT_LOCKED") as caught,
            raw.cursor() as cursor,
            cursor.copy("COPY params (key, value, run_uuid) FROM STDIN") as copy,
        ):
            copy.write_row(("new", "v", "run-locked"))
        assert getattr(caught.value, "sqlstate", "") == "P0001"
        clerk.rollback()
        with shared.engine.connect() as owner:
            for table in ("metrics", "params", "experiments CASCADE"):
                says(owner, "EXPERIMENT_LOCKED", f"TRUNCATE {table}")


def test_switching_ordinary_triggers_off_leaves_the_guards_on(shared: Store) -> None:
    with unchanged(shared.engine, LOCKED), shared.engine.connect() as owner:
        owner.exec_driver_sql("SET session_replication_role = replica")
        refused(owner, "DELETE FROM params WHERE run_uuid = 'run-locked'")
        owner.rollback()


def test_the_clerk_can_neither_reach_the_guards_nor_the_record(clerk: Connection) -> None:
    for statement in (
        "ALTER TABLE metrics DISABLE TRIGGER gov_guard",
        "DROP TRIGGER gov_guard ON metrics",
        f"CREATE TRIGGER zz BEFORE INSERT ON metrics FOR EACH ROW {IDLE}",
        "SET session_replication_role = replica",
        "TRUNCATE params",
        "SELECT * FROM gov.event",
        "INSERT INTO gov.experiment_unlock VALUES (1, 2)",
        "DELETE FROM gov.experiment_lock",
        "CREATE OR REPLACE FUNCTION gov.guard_params() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "SELECT gov.guard_text(1017)",
        "COPY params TO PROGRAM 'cat'",
    ):
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), clerk.begin_nested():
            clerk.exec_driver_sql(statement)


def test_temporary_tables_and_functions_stand_in_for_nothing(shared: Store, clerk: Connection) -> None:
    for statement in (
        "CREATE TEMP TABLE experiment_lock (event bigint, experiment_id bigint)",
        "CREATE TEMP TABLE experiment_unlock AS SELECT 1::bigint AS lock_event",
        "CREATE TEMP TABLE runs (run_uuid text, experiment_id int)",
        "INSERT INTO pg_temp.runs VALUES ('run-locked', 1)",
        "SET search_path = pg_temp, public, pg_catalog",
    ):
        clerk.exec_driver_sql(statement)
    refused(clerk, "INSERT INTO public.params (key, value, run_uuid) VALUES ('new', 'v', 'run-locked')")


def test_other_isolation_levels_are_refused_where_rows_reach_an_experiment(shared: Store) -> None:
    """Their old snapshot could not see a lock that was made while they waited."""
    with shared.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        says(connection, "GUARDS_READ_COMMITTED", "UPDATE params SET value = value WHERE run_uuid = 'run-open'")


@pytest.mark.parametrize("name", ['it\'s 100% "new"\nline\r\x1b[31m; --', "x" * 256, "ünïcode 模型"])
def test_a_hostile_name_ends_in_one_bounded_line(shared: Store, name: str) -> None:
    with shared.engine.connect() as connection:
        shared.governance.lock(connection, OPEN, name, name[:250] + "-v2")
        with pytest.raises(ProgrammingError) as caught, connection.begin_nested():
            connection.exec_driver_sql(f"UPDATE runs SET name = 'x' WHERE experiment_id = {OPEN}")
        said = str(caught.value.orig).split("\nCONTEXT: ")[0]
        assert said.startswith("EXPERIMENT_LOCKED: experiment '")
        assert len(said) < 400
        assert said.isprintable()
        connection.rollback()


# The race for the lock


def waiting_for_advisory_locks(engine: Engine) -> int:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


def wait_until_somebody_waits(engine: Engine, future: "Future[object]") -> None:
    patience = time.monotonic() + 20
    while not waiting_for_advisory_locks(engine):
        assert not future.done(), "it should wait"
        assert time.monotonic() < patience
        threading.Event().wait(0.01)


def test_a_writer_who_was_first_is_waited_for_and_is_part_of_what_is_locked(store: Store) -> None:
    add_one = "INSERT INTO params (key, value, run_uuid) VALUES ('late', 'v', 'run-open')"

    def lock() -> int:
        with store.engine.begin() as connection:
            install.hold_experiment(connection, OPEN)
            found = connection.exec_driver_sql("SELECT count(*) FROM params WHERE key = 'late'").scalar_one()
            store.governance.lock(connection, OPEN)
            return int(found)

    with ThreadPoolExecutor(1) as pool, store.engine.connect() as writer:
        writer.exec_driver_sql(add_one)
        locking: Future[object] = pool.submit(lock)
        wait_until_somebody_waits(store.engine, locking)
        writer.commit()
        assert locking.result(20) == 1
        with pytest.raises(ProgrammingError, match="EXPERIMENT_LOCKED"):
            writer.exec_driver_sql(add_one.replace("late", "later"))


def test_a_writer_who_came_later_waits_and_is_refused(store: Store) -> None:
    def write() -> None:
        with store.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO params (key, value, run_uuid) VALUES ('late', 'v', 'run-open')")

    with ThreadPoolExecutor(1) as pool, store.engine.connect() as locker:
        install.hold_experiment(locker, OPEN)
        writing: Future[object] = pool.submit(write)
        wait_until_somebody_waits(store.engine, writing)
        store.governance.lock(locker, OPEN)
        with unchanged(store.engine, OPEN):
            locker.commit()
            with pytest.raises(ProgrammingError, match="EXPERIMENT_LOCKED"):
                writing.result(20)


def test_a_version_raced_into_a_name_that_is_being_governed_is_refused(store: Store) -> None:
    client = store.world.client

    def register() -> None:
        client.create_model_version("plain", f"runs:/{store.world.open.run}/net", store.world.open.run)

    with ThreadPoolExecutor(1) as pool, store.engine.connect() as registrar:
        install.hold_name(registrar, "default", "plain")
        registering: Future[object] = pool.submit(register)
        patience = time.monotonic() + 20
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while not registrar.exec_driver_sql(blocked).scalar_one():
            assert not registering.done()
            assert time.monotonic() < patience
        row = {"workspace": "default", "name": "plain"}
        store.governance.event(registrar, {"governed_model": row})
        registrar.exec_driver_sql("UPDATE registered_models SET last_updated_time = 1 WHERE name = 'plain'")
        registrar.commit()
        with pytest.raises(MlflowException, match="TICKET_REQUIRED"):
            registering.result(20)


def test_the_trail_has_one_writer(store: Store) -> None:
    def append() -> int:
        with store.engine.begin() as connection:
            install.hold_trail(connection)
            return store.governance.event(connection, {})

    with ThreadPoolExecutor(6) as pool:
        numbers = [future.result(20) for future in [pool.submit(append) for _ in range(12)]]
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + 12))


# Governance tables


def test_a_lock_cannot_be_taken_back_before_it_was_made(shared: Store) -> None:
    with shared.engine.connect() as connection:
        ahead = "INSERT INTO gov.experiment_unlock (event, lock_event) SELECT max(seq), max(seq) + 1 FROM gov.event"
        says(connection, "GOVERNANCE_APPEND_ONLY", ahead)


@pytest.mark.parametrize("plain", EVERY)
def test_governance_rows_are_added_and_never_changed(shared: Store, plain: str) -> None:
    table = f"gov.{plain}"
    with shared.engine.connect() as connection:
        shared.governance.event(connection, GOVERNANCE_ROWS)
        connection.exec_driver_sql(
            "INSERT INTO gov.principal_name (principal_id, kind, name) VALUES ('p', 'user', 'Ann')"
        )
        connection.exec_driver_sql("INSERT INTO gov.free_text VALUES (1, 'reason', 'salt', 'said')")
        column = shared.governance.tables.metadata.tables[table].columns.keys()[-1]
        says(connection, "GOVERNANCE_APPEND_ONLY", f"UPDATE {table} SET {column} = {column}")
        says(connection, "GOVERNANCE_APPEND_ONLY", f"TRUNCATE {table} CASCADE")
        if plain in ERASABLE:
            assert connection.exec_driver_sql(f"DELETE FROM {table}").rowcount == 1
        else:
            says(connection, "GOVERNANCE_APPEND_ONLY", f"DELETE FROM {table}")
        connection.rollback()


def test_events_continue_the_trail(shared: Store) -> None:
    with shared.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT seq, hash FROM gov.event ORDER BY seq DESC LIMIT 1").one()
        rest = "'h', 1, 'a', 'x', '{}', 'k', 's'"
        into = "INSERT INTO gov.event (seq, prev, hash, at, actor, action, body, key_id, signature) VALUES"
        for seq, prev in ((row[0] + 2, row[1]), (row[0] + 1, "0" * 64), (row[0], row[1]), (0, "0" * 64)):
            says(connection, "GOVERNANCE_APPEND_ONLY", f"{into} ({seq}, '{prev}', {rest})")
        connection.exec_driver_sql(f"{into} ({row[0] + 1}, '{row[1]}', {rest})")
        connection.rollback()


# Inventory


def test_the_inventory_of_a_guarded_database_is_in_order_for_everybody(shared: Store, clerk: Connection) -> None:
    with shared.engine.connect() as connection:
        assert inspect(connection) == GuardReport()
    assert inspect(clerk) == GuardReport()


@pytest.mark.parametrize(
    ("statement", "kind", "text"),
    [
        ("DROP TRIGGER gov_guard ON runs", "missing", "trigger gov_guard on public.runs"),
        ("DROP TRIGGER gov_guard_truncate ON gov.seal", "missing", "trigger gov_guard_truncate on gov.seal"),
        ("ALTER TABLE runs DISABLE TRIGGER gov_guard", "changed", "trigger gov_guard on public.runs: disabled"),
        ("ALTER TABLE runs ENABLE TRIGGER gov_guard", "changed", "trigger gov_guard on public.runs"),
        (REMADE.format("INSERT", ""), "changed", "trigger gov_guard on public.runs"),
        (
            REMADE.format("INSERT OR UPDATE OR DELETE", "WHEN (pg_trigger_depth() > 9)"),
            "changed", "trigger gov_guard on public.runs",
        ),
        (REWRITTEN, "changed", "function gov.guard_runs: another body"),
        ("ALTER FUNCTION gov.guard_runs() SECURITY INVOKER", "changed", "gov.guard_runs: not run as its owner"),
        ("ALTER FUNCTION gov.guard_runs() SET search_path = public", "changed", "gov.guard_runs: another search path"),
        (f"ALTER FUNCTION gov.guard_runs() OWNER TO {CLERK}", "changed", "gov.guard_runs: another owner"),
        (
            "CREATE FUNCTION gov.guard_extra() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "foreign", "function gov.guard_extra",
        ),
        (f"CREATE TRIGGER zz BEFORE UPDATE ON runs FOR EACH ROW {IDLE}", "foreign", "trigger zz on public.runs"),
        ("CREATE RULE r AS ON INSERT TO params DO INSTEAD NOTHING", "foreign", "rule r on public.params"),
        ("ALTER TABLE gov.experiment_lock FORCE ROW LEVEL SECURITY", "foreign", "row security on gov.experiment_lock"),
        ("ALTER TABLE runs ADD COLUMN colour TEXT", "unmapped", "column runs.colour"),
        ("ALTER TABLE jobs ADD COLUMN run_id TEXT", "unmapped", "column jobs.run_id"),
        ("CREATE TABLE extra (id INTEGER, experiment_id INTEGER)", "unmapped", "column extra.experiment_id"),
        ("CREATE TABLE extra (r VARCHAR REFERENCES runs (run_uuid))", "unmapped", "column extra.r"),
        ("DROP TABLE gov.seal", "missing", "table gov.seal"),
        ("DROP TABLE latest_metrics", "missing", "table latest_metrics"),
    ],
)  # fmt: skip
def test_the_inventory_finds_what_was_done_to_the_guards(shared: Store, statement: str, kind: str, text: str) -> None:
    with shared.engine.connect() as connection:
        connection.exec_driver_sql(statement)
        report = inspect(connection)
        assert not report.ok
        assert any(text in found for found in getattr(report, kind)), report
        connection.rollback()


def test_guards_are_taken_out_whole_and_put_back_in_whatever_schema_the_tables_lie(shared: Store) -> None:
    with shared.engine.connect() as connection:
        install.drop(connection)
        left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'gov%%'"
        assert connection.exec_driver_sql(left).scalar_one() == 0
        connection.exec_driver_sql('ALTER SCHEMA public RENAME TO "Odd schema"')
        connection.exec_driver_sql('DROP TABLE "Odd schema".issues')
        connection.exec_driver_sql('SET search_path = "Odd schema"')
        install.install(connection)
        assert inspect(connection) == GuardReport()
        refused(connection, "UPDATE params SET value = 'x' WHERE run_uuid = 'run-locked'")
        says(connection, "VERSION_SEALED", "DELETE FROM model_versions WHERE name = 'governed'")
        connection.rollback()


def test_no_guard_raises_what_mlflow_takes_for_a_clash(shared: Store) -> None:
    with shared.engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.exec_driver_sql("DELETE FROM gov.event")
    assert getattr(caught.value.orig, "sqlstate", "") == "P0001"
