"""The guards on a real SQLite file: what is refused, what stays free, and that nothing locked has changed."""

# ruff: noqa: S608  the statements are the tests' own

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from guard_acts import FREE, ON_GOVERNED, ON_LOCKED, World, build_world
from guard_stories import STORIES, Store, says
from guard_world import GOVERNANCE_ROWS, Governance, add, experiment_row, fill, fresh, govern, sample_rows, unchanged
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from intelligentscan.stores.governance.tables import ERASABLE, EVERY
from intelligentscan.stores.guards import install
from intelligentscan.stores.guards.inventory import GuardReport, inspect
from intelligentscan.stores.guards.map import GUARDED
from intelligentscan.stores.guards.paths import BY_NAME, guarded_tables
from intelligentscan.stores.guards.schema import read_schema

LOCKED, OPEN = 17, 18
TABLES = [table.name for table in GUARDED]
PARENTS = ("experiments", "runs", "scorers")  # without a cascade: their children are in the way


def engine_of(path: Path, foreign_keys: bool = True) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def on_connect(connection: object, _record: object) -> None:
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")  # type: ignore[attr-defined]

    return engine


@pytest.fixture(scope="module")
def filled(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with rows in every table: of a locked experiment, and of an open one."""
    path = tmp_path_factory.mktemp("guards") / "filled.db"
    shutil.copyfile(template, path)
    engine = engine_of(path)
    with engine.begin() as connection:
        govern(connection)
        fill(connection, "locked", LOCKED)
        fill(connection, "open", OPEN)
        Governance(engine).lock(connection, LOCKED)
    settle(engine)
    return path


def settle(engine: Engine) -> None:
    """Bring everything into the one file, so that it can be copied."""
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture(params=[True, False], ids=["foreign keys on", "foreign keys off"])
def engine(filled: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    shutil.copyfile(filled, tmp_path / "store.db")
    engine = engine_of(tmp_path / "store.db", request.param)
    yield engine
    engine.dispose()


def row_of(table: str, mark: str) -> dict[str, object]:
    number = {"locked": LOCKED, "open": OPEN}.get(mark, OPEN)
    return experiment_row(mark, number) if table == "experiments" else sample_rows(mark, number)[table]


def refused(connection: Connection, statement: str, values: tuple[object, ...] = ()) -> None:
    with pytest.raises(IntegrityError) as caught, connection.begin_nested():
        connection.exec_driver_sql(statement, values)
    said = str(caught.value.orig)
    assert said == "EXPERIMENT_LOCKED: experiment 'locked' was locked by a registration; continue in 'locked-v2'."


def key_of(table: str, mark: str) -> tuple[str, tuple[object, ...]]:
    row = {"workspace": "default", **row_of(table, mark)}
    key = BY_NAME[table].key
    return " AND ".join(f"{column} = ?" for column in key), tuple(row[column] for column in key)


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_a_locked_experiment_cannot_be_changed_removed_replaced_or_pushed_aside(
    engine: Engine, table: str
) -> None:
    locked, opened = row_of(table, "locked"), row_of(table, "open")
    where, key = key_of(table, "locked")
    at_open, open_key = key_of(table, "open")
    with unchanged(engine, LOCKED), engine.begin() as connection:
        rowid = connection.exec_driver_sql(f"SELECT rowid FROM {table} WHERE {where}", key).scalar_one()
        for column in locked:
            refused(connection, f"UPDATE {table} SET {column} = {column} WHERE {where}", key)
        refused(connection, f"DELETE FROM {table} WHERE {where}", key)
        columns, signs = ", ".join(locked), ", ".join("?" for _ in locked)
        into = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({signs})"
        refused(connection, into, tuple(locked.values()))
        same_key = {**opened, **{column: locked[column] for column in BY_NAME[table].key}}
        refused(connection, into, tuple(same_key[column] for column in locked))
        other = fresh(table, opened)
        by_rowid = f"INSERT OR REPLACE INTO {table} (rowid, {columns}) VALUES (?, {signs})"
        if table != "experiments":  # there the rowid is the key
            refused(connection, by_rowid, (rowid, *(other[column] for column in locked)))
            refused(connection, f"UPDATE OR REPLACE {table} SET rowid = ? WHERE {at_open}", (rowid, *open_key))
        assignment = ", ".join(f"{column} = ?" for column in BY_NAME[table].key)
        refused(connection, f"UPDATE OR REPLACE {table} SET {assignment} WHERE {at_open}", (*key, *open_key))
        for unique in BY_NAME[table].unique:
            known = {"workspace": "default", **locked}
            assignment = ", ".join(f"{column} = ?" for column in unique)
            values = tuple(known[column] for column in unique)
            refused(connection, f"UPDATE OR REPLACE {table} SET {assignment} WHERE {at_open}", (*values, *open_key))
            stolen = {**fresh(table, opened), **dict(zip(unique, values, strict=True))}
            names, marks = ", ".join(stolen), ", ".join("?" for _ in stolen)
            steal = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})"
            refused(connection, steal, tuple(stolen.values()))


@pytest.mark.parametrize("table", TABLES)
def test_rows_cannot_be_added_or_moved_into_a_locked_experiment(engine: Engine, table: str) -> None:
    if table == "experiments":
        return
    added = fresh(table, row_of(table, "locked"))
    at_open, open_key = key_of(table, "open")
    leading = dict.fromkeys(reach.column for reach in BY_NAME[table].reaches)
    locked = row_of(table, "locked")
    with unchanged(engine, LOCKED), engine.begin() as connection:
        columns, signs = ", ".join(added), ", ".join("?" for _ in added)
        for verb in ("INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR FAIL"):
            refused(connection, f"{verb} INTO {table} ({columns}) VALUES ({signs})", tuple(added.values()))
        for column in leading:
            if table in ("inputs", "entity_associations") and column == "source_id":
                continue  # that end does not lead there: the row belongs to its run
            move = f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {at_open}"
            refused(connection, move, (locked[column], *open_key))


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_an_open_experiment_stay_free(engine: Engine, table: str) -> None:
    where, key = key_of(table, "open")
    row = row_of(table, "open")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        for column in row:
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = {column} WHERE {where}", key)
        add(connection, table, fresh(table, row))
        if table not in PARENTS:
            add(connection, table, row, "INSERT OR REPLACE INTO")
            assert connection.exec_driver_sql(f"DELETE FROM {table} WHERE {where}", key).rowcount == 1


# Plain clients


@pytest.fixture(scope="module")
def built(template: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A guarded store that plain clients filled: one experiment is locked, one model is governed."""
    path = tmp_path_factory.mktemp("guards") / "built.db"
    shutil.copyfile(template, path)
    world = build_world(MlflowClient(f"sqlite:///{path}"))
    engine = engine_of(path)
    governance = Governance(engine)
    with engine.begin() as connection:
        govern(connection)
        governance.event(connection, {"governed_model": {"workspace": "default", "name": "governed"}})
        governance.lock(connection, int(world.locked.experiment))
    settle(engine)
    return world


@pytest.fixture
def store(built: World, tmp_path: Path) -> Iterator[Store]:
    path = Path(make_url(built.client.tracking_uri).database or "")
    shutil.copyfile(path, tmp_path / "store.db")
    engine = engine_of(tmp_path / "store.db")
    client = MlflowClient(f"sqlite:///{tmp_path / 'store.db'}")
    yield Store(replace(built, client=client), engine, Governance(engine))
    client._tracking_client.store.engine.dispose()


QUIET = {
    "log tags only": "Failed to set tags with given within 3 retries",
    "start a trace": "Trace with ID 'tr-new' no longer exists",
    "assess a trace": "due to a constraint violation",
    "register a version": "Giving up after 3 attempts",
    "copy a version into it": "Giving up after 3 attempts",
}
"""Where MLflow takes what SQLite calls an integrity error for a clash, and says its own words instead of ours."""


@pytest.mark.parametrize("name", ON_LOCKED)
def test_a_plain_client_cannot_write_to_a_locked_experiment(
    store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # MLflow waits 13 s in all between its tries to set tags
    with unchanged(store.engine, store.locked), pytest.raises(MlflowException) as caught:
        ON_LOCKED[name](store.world)
    ours = "EXPERIMENT_LOCKED: experiment 'locked' was locked by a registration; continue in 'locked-v2'."
    assert QUIET.get(name, ours) in caught.value.message
    assert caught.value.error_code != "TEMPORARILY_UNAVAILABLE"


@pytest.mark.parametrize("name", ON_GOVERNED)
def test_a_plain_client_cannot_change_a_governed_model(store: Store, name: str) -> None:
    code, act = ON_GOVERNED[name]
    with unchanged(store.engine, store.locked), pytest.raises(MlflowException) as caught:
        act(store.world)
    assert QUIET.get(name, f"{code}: ") in caught.value.message
    assert caught.value.error_code != "TEMPORARILY_UNAVAILABLE"


@pytest.mark.parametrize("name", FREE)
def test_what_is_neither_locked_nor_governed_stays_free(store: Store, name: str) -> None:
    FREE[name](store.world)


@pytest.mark.parametrize("story", STORIES)
def test_what_was_recorded_decides(store: Store, story: Callable[[Store], None]) -> None:
    story(store)


def test_registry_rows_of_a_governed_model_are_not_pushed_aside(store: Store) -> None:
    client = store.world.client
    client.set_registered_model_alias("plain", "mine", "1")
    client.set_registered_model_tag("plain", "mine", "1")
    client.set_registered_model_tag("governed", "team", "1")
    store.governance.alias("governed", "champion", 1)
    client.set_registered_model_alias("governed", "champion", "1")
    with unchanged(store.engine, store.locked), store.engine.begin() as connection:
        for table in ("registered_models", "model_versions", "registered_model_tags", "model_version_tags",
                      "registered_model_aliases"):  # fmt: skip
            at = f"SELECT min(rowid) FROM {table} WHERE name = 'governed'"
            moved = f"UPDATE OR REPLACE {table} SET rowid = ({at}) WHERE name = 'plain' AND rowid = "
            says(connection, "MODEL_GOVERNED", f"{moved} (SELECT min(rowid) FROM {table} WHERE name = 'plain')")
            columns = [r[1] for r in connection.exec_driver_sql(f"PRAGMA table_info({table})") if r[1] != "name"]
            listed = ", ".join(columns)
            copied = f"SELECT ({at}), 'new', {listed} FROM {table} WHERE name = 'plain' LIMIT 1"
            says(connection, "MODEL_GOVERNED", f"INSERT OR REPLACE INTO {table} (rowid, name, {listed}) {copied}")
        renamed = "SET name = 'governed' WHERE name = 'plain'"
        says(connection, "MODEL_GOVERNED", f"UPDATE OR REPLACE registered_models {renamed}")
        says(connection, "TICKET_REQUIRED", f"UPDATE OR REPLACE model_versions {renamed}")
        says(connection, "MODEL_GOVERNED", "INSERT OR REPLACE INTO registered_models (name) VALUES ('governed')")
        says(connection, "MODEL_GOVERNED", "UPDATE registered_models SET workspace = 'w' WHERE name = 'governed'")


def test_the_same_name_in_another_workspace_is_another_model(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO registered_models (name, workspace) VALUES ('governed', 'other')")
        version = "INSERT INTO model_versions (name, workspace, version) VALUES ('governed', 'other', 1)"
        connection.exec_driver_sql(version)
        says(connection, "TICKET_REQUIRED", "UPDATE model_versions SET workspace = 'default' WHERE workspace = 'other'")


# Governance tables


@pytest.mark.parametrize("plain", EVERY)
def test_governance_rows_are_added_and_never_changed(store: Store, plain: str) -> None:
    governance, table = store.governance, f"gov_{plain}"
    with store.engine.begin() as connection:
        governance.event(connection, GOVERNANCE_ROWS)
        connection.exec_driver_sql(
            "INSERT INTO gov_principal_name (principal_id, kind, name) VALUES ('p', 'user', 'Ann')"
        )
        connection.exec_driver_sql("INSERT INTO gov_free_text VALUES (1, 'reason', 'salt', 'said')")
        before = connection.exec_driver_sql(f"SELECT rowid, * FROM {table}").all()
        names = [row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table})")]
        says(connection, "GOVERNANCE_APPEND_ONLY", f"UPDATE {table} SET {names[-1]} = {names[-1]}")
        listed = ", ".join(names)
        for columns in (listed, f"rowid, {listed}"):
            copied = f"SELECT {columns} FROM {table}"
            says(connection, "GOVERNANCE_APPEND_ONLY", f"INSERT OR REPLACE INTO {table} ({columns}) {copied}")
        if plain not in ERASABLE:
            says(connection, "GOVERNANCE_APPEND_ONLY", f"DELETE FROM {table}")
            assert connection.exec_driver_sql(f"SELECT rowid, * FROM {table}").all() == before
        else:
            assert connection.exec_driver_sql(f"DELETE FROM {table}").rowcount == 1


def test_events_continue_the_trail(store: Store) -> None:
    with store.engine.begin() as connection:
        row = connection.exec_driver_sql("SELECT seq, hash FROM gov_event ORDER BY seq DESC LIMIT 1").one()
        rest = "'h', 1, 'a', 'x', '{}', 'k', 's'"
        into = "INSERT INTO gov_event (seq, prev, hash, at, actor, action, body, key_id, signature) VALUES"
        for seq, prev in ((row[0] + 2, row[1]), (row[0] + 1, "0" * 64), (row[0], row[1]), (0, "0" * 64)):
            says(connection, "GOVERNANCE_APPEND_ONLY", f"{into} ({seq}, '{prev}', {rest})")
        connection.exec_driver_sql(f"{into} ({row[0] + 1}, '{row[1]}', {rest})")


# Locks


def test_unlocking_frees_the_experiment_and_locking_again_closes_it(store: Store) -> None:
    client, locked = store.world.client, store.world.locked
    with store.engine.connect() as connection:
        event = connection.exec_driver_sql("SELECT max(event) FROM gov_experiment_lock").scalar_one()
    store.governance.unlock(store.locked, event)
    client.set_tag(locked.run, "x", "1")
    with store.engine.begin() as connection:
        assert inspect(connection).ok
        store.governance.lock(connection, store.locked, following="locked-v3")
        assert inspect(connection).ok
    with pytest.raises(MlflowException, match="continue in 'locked-v3'"):
        client.set_tag(locked.run, "x", "2")


@pytest.mark.parametrize("name", ['it\'s 100% "new"\nline\x00\u2028end; --', "x" * 5000, "ünïcode 模型"])
def test_a_hostile_name_ends_in_one_bounded_line(store: Store, name: str) -> None:
    with store.engine.begin() as connection:
        store.governance.lock(connection, int(store.world.open.experiment), name.replace("\x00", ""), f"{name}-v2")
        assert inspect(connection).ok
    with pytest.raises(IntegrityError) as caught, store.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE runs SET name = 'x' WHERE experiment_id = {store.world.open.experiment}")
    said = str(caught.value.orig)
    assert said.startswith("EXPERIMENT_LOCKED: experiment '")
    assert len(said) < 400
    assert said.isprintable()


def test_of_hundreds_of_locks_the_last_are_named_and_all_hold(store: Store) -> None:
    with store.engine.begin() as connection:
        for number in range(1000, 1500):
            row = {"experiment_id": number, "experiment_name": f"e{number}", "next_experiment": f"e{number}-v2"}
            store.governance.event(connection, {"experiment_lock": {**row, "rows_digest": "", "files_digest": ""}})
        install.announce_lock(connection, 1499)
        assert inspect(connection).ok
        for number, said in ((1000, "ends in -v2"), (1480, "in 'e1480-v2'"), (1499, "in 'e1499-v2'")):
            with pytest.raises(IntegrityError, match=f"EXPERIMENT_LOCKED: .*{said}"), connection.begin_nested():
                connection.exec_driver_sql(f"INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', {number})")


def test_a_lock_cannot_be_taken_back_before_it_was_made(store: Store) -> None:
    with store.engine.begin() as connection:
        ahead = "INSERT INTO gov_experiment_unlock (event, lock_event) SELECT max(seq), max(seq) + 1 FROM gov_event"
        says(connection, "GOVERNANCE_APPEND_ONLY", ahead)


def test_a_replaced_row_takes_no_locked_row_with_it(engine: Engine) -> None:
    """A metric of the locked model hangs on a run of the open experiment; replacing that run would cascade to it."""
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys")
        lock = connection.exec_driver_sql("SELECT event FROM gov_experiment_lock").scalar_one()
    governance = Governance(engine)
    governance.unlock(LOCKED, lock)
    shared = {**sample_rows("locked", LOCKED)["logged_model_metrics"], "run_id": "run-other", "experiment_id": OPEN}
    other = {**sample_rows("open", OPEN)["runs"], "run_uuid": "run-other"}
    with engine.begin() as connection:
        add(connection, "runs", other)
        add(connection, "logged_model_metrics", shared)
        governance.lock(connection, LOCKED)
    with unchanged(engine, LOCKED), engine.begin() as connection:
        cascades = connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one()
        for statement in ("DELETE FROM runs WHERE run_uuid = 'run-other'", replacing(other)):
            if cascades:
                refused(connection, statement)
            else:
                connection.exec_driver_sql(statement)


def replacing(row: dict[str, object]) -> str:
    return f"INSERT OR REPLACE INTO runs ({', '.join(row)}) VALUES ({', '.join(repr(v) for v in row.values())})"


def test_an_idempotency_key_replaces_no_locked_tag(store: Store) -> None:
    key, locked = "intelligentscan.idempotency", store.world.locked.run
    with store.engine.begin() as connection:
        event = connection.exec_driver_sql("SELECT max(event) FROM gov_experiment_lock").scalar_one()
    store.governance.unlock(store.locked, event)
    store.world.client.set_tag(locked, key, "k")
    with store.engine.begin() as connection:
        index = f"CREATE UNIQUE INDEX IF NOT EXISTS intelligentscan_idempotency ON tags (value) WHERE key = '{key}'"
        connection.exec_driver_sql(index)
        store.governance.lock(connection, store.locked)
    with unchanged(store.engine, store.locked), store.engine.begin() as connection:
        into = "INSERT OR REPLACE INTO tags (key, value, run_uuid) VALUES"
        says(connection, "EXPERIMENT_LOCKED", f"{into} ('{key}', 'k', '{store.world.open.run}')")
        connection.exec_driver_sql(f"{into} ('other', 'k', '{store.world.open.run}')")


def test_the_table_of_locked_experiments_cannot_be_written_around(store: Store) -> None:
    with store.engine.begin() as connection:
        for statement in (
            "DELETE FROM gov_locked",
            "UPDATE gov_locked SET experiment_id = 99",
            "INSERT OR REPLACE INTO gov_locked VALUES (99)",
        ):
            says(connection, "GOVERNANCE_APPEND_ONLY", statement)
        says(connection, "EXPERIMENT_LOCKED", f"INSERT INTO gov_denied VALUES ({store.locked})")


def test_temporary_tables_and_pragmas_do_not_help(store: Store) -> None:
    with unchanged(store.engine, store.locked), store.engine.connect() as connection:
        for statement in (
            "CREATE TEMP TABLE gov_locked (experiment_id INTEGER PRIMARY KEY)",
            "CREATE TEMP TABLE runs AS SELECT * FROM main.runs LIMIT 0",
            "PRAGMA trusted_schema = OFF",
            "PRAGMA case_sensitive_like = ON",
            "PRAGMA recursive_triggers = ON",
            "PRAGMA ignore_check_constraints = ON",
        ):
            connection.exec_driver_sql(statement)
        into = "INSERT OR REPLACE INTO main.params (key, value, run_uuid) VALUES"
        says(connection, "EXPERIMENT_LOCKED", f"{into} ('new', 'v', '{store.world.locked.run}')")
        says(connection, "ALIAS_RESERVED", "INSERT INTO registered_model_aliases (name, alias, version) VALUES "
             "('governed', 'Prod', 1)")  # fmt: skip


# Inventory


def test_the_inventory_of_a_guarded_store_is_in_order(store: Store) -> None:
    with store.engine.connect() as connection:
        assert inspect(connection) == GuardReport()


@pytest.mark.parametrize(
    ("statement", "kind", "text"),
    [
        ("DROP TRIGGER gov_guard_runs_update", "missing", "trigger gov_guard_runs_update"),
        ("DROP TRIGGER gov_say_names", "missing", "trigger gov_say_names"),
        ("DROP TABLE gov_denied", "missing", "table gov_denied"),
        ("DROP TABLE gov_seal", "missing", "table gov_seal"),
        ("ALTER TABLE metrics RENAME COLUMN value TO amount", "unmapped", "column metrics.amount"),
        ("ALTER TABLE params RENAME TO parameters", "missing", "table params"),
        ("CREATE TRIGGER mine AFTER INSERT ON runs BEGIN DELETE FROM tags; END", "foreign", "trigger mine on runs"),
        ("CREATE TRIGGER mine AFTER INSERT ON gov_seal BEGIN DELETE FROM tags; END", "foreign", "mine on gov_seal"),
        ("ALTER TABLE runs ADD COLUMN colour TEXT", "unmapped", "column runs.colour"),
        ("ALTER TABLE jobs ADD COLUMN run_id TEXT", "unmapped", "column jobs.run_id"),
        ("CREATE TABLE extra (id INTEGER, experiment_id INTEGER)", "unmapped", "column extra.experiment_id"),
        ("CREATE TABLE extra (r TEXT REFERENCES runs (run_uuid))", "unmapped", "column extra.r"),
    ],
)
def test_the_inventory_finds_what_was_done_to_the_guards(store: Store, statement: str, kind: str, text: str) -> None:
    with store.engine.begin() as connection:
        assert inspect(connection).ok
        connection.exec_driver_sql(statement)
        report = inspect(connection)
        assert not report.ok
        assert any(text in found for found in getattr(report, kind)), report


def test_the_inventory_finds_an_altered_guard_and_a_forged_lock_list(store: Store) -> None:
    with store.engine.begin() as connection:
        name = "gov_guard_runs_insert"
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
        connection.exec_driver_sql(f"CREATE TRIGGER {name} BEFORE INSERT ON runs WHEN 0 BEGIN SELECT 1; END")
        assert inspect(connection).changed == (f"trigger {name}",)
        connection.exec_driver_sql("DROP TRIGGER gov_keep_delete")
        connection.exec_driver_sql("DELETE FROM gov_locked")
        assert any("gov_locked" in found for found in inspect(connection).changed)


def test_things_that_lead_nowhere_do_not_disturb_the_inventory(store: Store) -> None:
    with store.engine.begin() as connection:
        for statement in (
            "CREATE TABLE notes (id INTEGER, text TEXT)",
            "CREATE VIEW seen AS SELECT run_uuid, experiment_id FROM runs",
            "CREATE TEMP TABLE passing (experiment_id INTEGER)",
            "CREATE INDEX more ON runs (name)",
            "CREATE TRIGGER theirs AFTER INSERT ON webhooks BEGIN SELECT 1; END",
        ):
            connection.exec_driver_sql(statement)
        assert inspect(connection).ok


def test_guards_are_put_back_for_another_schema(store: Store) -> None:
    """An older revision lacks tables and columns; the guards are made for what is there."""
    with store.engine.begin() as connection:
        install.drop(connection)
        for table in ("issues", "span_metrics", "review_queue_items"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("ALTER TABLE assessments DROP COLUMN is_numeric_value")
        install.install(connection)
        assert inspect(connection).ok
        says(connection, "EXPERIMENT_LOCKED", f"DELETE FROM assessments WHERE trace_id = '{store.world.locked.trace}'")


def test_guards_hold_in_a_schema_of_years_ago(tmp_path: Path) -> None:
    """Without workspaces, logged models and traces, as MLflow 2.3 made it."""
    path = tmp_path / "old.db"
    engine = engine_of(path)
    InitialBase.metadata.create_all(engine)
    command.upgrade(_get_alembic_config(f"sqlite:///{path}"), "7f2a7d5fae7d")
    governance = Governance(engine)
    with engine.begin() as connection:
        govern(connection)
        assert inspect(connection) == GuardReport()
        schema = read_schema(connection)
        present = [table.name for table in guarded_tables(schema)]
        assert present[:3] == ["experiments", "experiment_tags", "runs"]
        assert "logged_models" not in present
        for mark, number in (("locked", LOCKED), ("open", OPEN)):
            add(connection, "experiments", experiment_row(mark, number))
            for table, row in sample_rows(mark, number).items():
                if table in present:
                    add(connection, table, {c: v for c, v in row.items() if c in schema.tables[table]})
        connection.exec_driver_sql("INSERT INTO registered_models (name) VALUES ('governed')")
        connection.exec_driver_sql("INSERT INTO model_versions (name, version) VALUES ('governed', 1)")
        governance.event(connection, {"governed_model": {"workspace": "default", "name": "governed"}})
        governance.lock(connection, LOCKED)
        assert inspect(connection) == GuardReport()
    with unchanged(engine, LOCKED), engine.begin() as connection:
        for table in present:
            where, key = key_of(table, "locked")
            refused(connection, f"DELETE FROM {table} WHERE {where}", key)
            at_open, open_key = key_of(table, "open")
            column = next(iter(row_of(table, "open")))
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = {column} WHERE {at_open}", open_key)
        says(connection, "VERSION_SEALED", "UPDATE model_versions SET source = 'x'")
        says(connection, "TICKET_REQUIRED", "INSERT INTO model_versions (name, version) VALUES ('governed', 2)")
