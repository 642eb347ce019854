"""Raw SQL against what is locked and sealed: acts 5 to 8, 10, 12, 13, 21, 22 and 41 of the notes.

On SQLite the attacker has the file, on PostgreSQL the app role. Every statement is refused and changes nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hostile import LOCKED, World
from hostile_rows import LEADING, REGISTRY, Stored, belonging, belonging_tables, counted, everything, tables
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

# leading columns that are empty here, or that identify the row itself
_NOT_MOVED = {("assessments", "run_id"), ("logged_model_metrics", "dataset_uuid"), ("inputs", "input_uuid")}


@contextmanager
def nothing_changes(world: World) -> Iterator[None]:
    """Assert that no row of any table is another one afterwards."""
    before = everything(world)
    yield
    assert everything(world) == before


def refusal(connection: Connection, statement: str) -> str:
    """Run a statement; return what the database said against it: a guard's line, or another error with its class."""
    try:
        if " THEN COPY " in statement:
            return _copied(connection, statement)
        found = connection.exec_driver_sql(statement)
        return "ALLOWED" if found.returns_rows or found.rowcount else "NO ROW"
    except DBAPIError as exc:
        orig: Any = exc.orig
        if hasattr(orig, "sqlstate"):
            return _line(orig)
        return str(orig) if isinstance(exc, IntegrityError) else f"{type(orig).__name__}: {orig}"


def _copied(connection: Connection, statement: str) -> str:
    """Write back by COPY what the statement reads."""
    driver: Any = connection.connection.driver_connection
    reading, writing = statement.split(" THEN ")
    with driver.cursor() as cursor:
        with cursor.copy(reading) as copy:
            data = b"".join(copy)
        assert data
        try:
            with cursor.copy(writing) as copy:
                copy.write(data)
        except Exception as exc:
            return _line(exc)
    return "ALLOWED"


def _line(exc: Any) -> str:
    text = str(exc.diag.message_primary)
    return text if exc.sqlstate == "P0001" else f"{exc.sqlstate}: {text}"


def refusals(world: World, statements: Iterable[str], setup: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Run statements one after the other as the attacker; return each with its refusal."""
    with world.attacker.connect() as connection:
        for each in setup:
            connection.exec_driver_sql(each)
        return [(each, refusal(connection, each)) for each in statements]


@dataclass(frozen=True)
class Rows:
    """A table, the condition of its locked rows and that of rows of the open experiment."""

    table: Stored
    locked: str
    open: str

    @property
    def changed_key(self) -> dict[str, str]:
        """A key column and an expression of another value, under which the row leads to the same experiment."""
        foreign = {c for c in LEADING if len(self.table.key) > 1} | {"experiment_id"}
        column = next((c for c in self.table.key if c not in foreign), None)
        number = column in ("step", "timestamp", "scorer_version")
        return {column: f"{column} + 5" if number else f"'x' || substr({column}, 2)"} if column else {}


def everywhere(rows: Rows) -> Iterator[str]:
    """Return statements that both databases understand, each against rows of the locked experiment."""
    name, key, last = rows.table.place, rows.table.key, rows.table.written[-1]
    columns = ", ".join(rows.table.written)
    same = f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {name} WHERE {rows.locked} LIMIT 1"
    for column in sorted({key[0], last}):
        yield f"UPDATE {name} SET {column} = {column} WHERE {rows.locked}"
    yield f"DELETE FROM {name} WHERE {rows.locked}"
    yield same
    yield f"{same} ON CONFLICT DO NOTHING"
    yield f"{same} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {last} = excluded.{last}"
    for column in (c for c in rows.table.written if (c in LEADING or c == "experiment_id") and (c,) != key):
        for to, at in ((rows.locked, rows.open), (rows.open, rows.locked)):
            if (rows.table.name, column) not in _NOT_MOVED:
                value = f"(SELECT s.{column} FROM {name} AS s WHERE s.{column} IS NOT NULL AND ({to}) LIMIT 1)"
                yield f"UPDATE {name} SET {column} = {value} WHERE {column} IS NOT NULL AND ({at})"
    if rows.changed_key:
        fresh = ", ".join(rows.changed_key.get(column, column) for column in rows.table.written)
        yield f"INSERT INTO {name} ({columns}) SELECT {fresh} FROM {name} WHERE {rows.locked} LIMIT 1"


def on_sqlite(rows: Rows) -> Iterator[str]:
    """Return statements that would push locked rows aside without deleting them."""
    name, key = rows.table.place, rows.table.key
    columns = ", ".join(rows.table.written)
    for verb in ("REPLACE", "INSERT OR REPLACE", "INSERT OR IGNORE", "INSERT OR ROLLBACK"):
        yield f"{verb} INTO {name} ({columns}) SELECT {columns} FROM {name} WHERE {rows.locked} LIMIT 1"
    yield f"UPDATE OR IGNORE {name} SET {key[0]} = {key[0]} WHERE {rows.locked}"
    yield f"UPDATE OR FAIL {name} SET {key[0]} = {key[0]} WHERE {rows.locked} RETURNING *"
    taken = ", ".join(f"{c} = (SELECT s.{c} FROM {name} AS s WHERE {rows.locked} LIMIT 1)" for c in key)
    one = f"(SELECT s.rowid FROM {name} AS s WHERE {rows.open} LIMIT 1)"
    yield f"UPDATE OR REPLACE {name} SET {taken} WHERE rowid = {one}"
    if rows.table.name == "experiments":  # there the rowid is the key
        return
    rowid = f"(SELECT s.rowid FROM {name} AS s WHERE {rows.locked} LIMIT 1)"
    yield f"UPDATE OR REPLACE {name} SET rowid = {rowid} WHERE rowid = {one}"
    if rows.changed_key:
        fresh = ", ".join(rows.changed_key.get(column, column) for column in rows.table.written)
        yield f"REPLACE INTO {name} (rowid, {columns}) SELECT {rowid}, {fresh} FROM {name} WHERE {rows.open} LIMIT 1"


def on_postgres(rows: Rows) -> Iterator[str]:
    """Return the ways of writing that PostgreSQL has beside."""
    name, key, last = rows.table.place, rows.table.key, rows.table.written[-1]
    columns = ", ".join(rows.table.written)
    same = " AND ".join(f"t.{c} = s.{c}" for c in key)
    source = f"(SELECT {columns} FROM {name} WHERE {rows.locked}) AS s"
    yield f"MERGE INTO {name} AS t USING {source} ON {same} WHEN MATCHED THEN UPDATE SET {last} = s.{last}"
    yield f"MERGE INTO {name} AS t USING {source} ON {same} WHEN MATCHED THEN DELETE"
    yield f"WITH gone AS (DELETE FROM {name} WHERE {rows.locked} RETURNING 1) SELECT count(*) FROM gone"
    yield f"UPDATE {name} AS t SET {last} = s.{last} FROM {source} WHERE {same}"
    yield f"COPY (SELECT {columns} FROM {name} WHERE {rows.locked}) TO STDOUT THEN COPY {name} ({columns}) FROM STDIN"
    quoted = rows.locked.replace("'", "''")
    yield f"DO $$ BEGIN EXECUTE 'DELETE FROM {name} WHERE {quoted}'; END $$"


def special(w: World) -> Iterator[str]:
    """Return what is peculiar to one table: names taken over, runs moved, values changed."""
    locked, free = w.ids.fraud, w.ids.open
    experiment = "(experiment_id, name, workspace, artifact_location, lifecycle_stage)"
    values = "VALUES (999, 'fraud', 'default', '/evil', 'active')"
    for change in ("experiment_id = 999", "name = 'gone'"):
        yield f"INSERT INTO experiments {experiment} {values} ON CONFLICT (workspace, name) DO UPDATE SET {change}"
    yield f"UPDATE experiments SET name = 'other', lifecycle_stage = 'deleted' WHERE experiment_id = {locked}"
    yield f"UPDATE runs SET experiment_id = {free} WHERE run_uuid = '{w.ids.run}'"
    yield f"UPDATE runs SET experiment_id = {locked} WHERE run_uuid = '{w.ids.free}'"
    yield f"UPDATE metrics SET value = 0.99 WHERE run_uuid = '{w.ids.run}'"
    yield f"DELETE FROM metrics WHERE run_uuid = '{w.ids.run}'"
    # another data set under the number that a locked run names would be shown as the run's own
    data = "dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source"
    row = f"SELECT dataset_uuid, {free}, 'evil', '666', 'local', '' FROM datasets WHERE experiment_id = {locked}"
    yield f"INSERT INTO datasets ({data}) {row}"
    if w.sqlite:
        yield f"REPLACE INTO experiments {experiment} {values}"
        yield "REPLACE INTO experiments (experiment_id, name, lifecycle_stage) VALUES (999, 'fraud', 'active')"
        for number in (f"'{locked}'", f"' {locked} '", f"{locked}.0", f"'0{locked}'", f"'{locked}e0'"):
            yield f"INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', {number})"
        yield f"UPDATE OR REPLACE experiments SET name = 'fraud' WHERE experiment_id = {free}"
        for table, columns, new in (
            ("label_schemas", "name, type, input_type, input_config, created_time, last_update_time", "schema_id"),
            ("scorers", "scorer_name", "scorer_id"),
        ):
            row = f"SELECT experiment_id, {columns}, 'new' FROM {table} WHERE experiment_id = {locked}"
            yield f"REPLACE INTO {table} (experiment_id, {columns}, {new}) {row}"
        row = f"SELECT 'new', name, workspace, 1, 1 FROM endpoints WHERE experiment_id = {locked}"
        yield f"REPLACE INTO endpoints (endpoint_id, name, workspace, created_at, last_updated_at) {row}"


def test_rows_of_a_locked_experiment_stay_as_they_are_whatever_the_statement(world: World) -> None:
    statements: list[str] = list(special(world))
    for table in belonging_tables(world):
        rows = Rows(table, belonging(table, world.ids.fraud) or "", belonging(table, world.ids.open) or "")
        statements += everywhere(rows)
        statements += on_sqlite(rows) if world.sqlite else on_postgres(rows)
    assert len(statements) > 400
    settings = (("OFF", "OFF"), ("ON", "ON")) if world.sqlite else ((),)
    for each in settings:
        pragmas = [
            f"PRAGMA {name} = {on}" for name, on in zip(("foreign_keys", "recursive_triggers"), each, strict=False)
        ]
        with nothing_changes(world), counted(world) as seen:
            answers = refusals(world, statements, pragmas)
        assert [answer for answer in answers if answer[1] != LOCKED] == []
        copies = sum(" THEN COPY " in each for each in statements)  # these go past SQLAlchemy
        assert (seen.writes + copies, seen.refused + copies) == (len(statements), len(statements))


def registry(w: World) -> Iterator[tuple[str, str]]:
    """Return statements against the governed model, each with the code of its refusal."""
    first, second = (f"name = 'fm' AND version = {n}" for n in (1, 2))
    for column in (
        "creation_time", "description", "user_id", "source", "run_id", "status", "status_message", "run_link",
        "storage_location",
    ):  # fmt: skip
        yield f"UPDATE model_versions SET {column} = '1' WHERE {second}", "VERSION_SEALED"
    for change in (
        "name = 'plain'", "version = 7", "workspace = 'other'", "current_stage = 'Deleted_Internal'",
        "current_stage = 'Production', version = 3", "current_stage = NULL", "current_stage = 'production'",
    ):  # fmt: skip
        yield f"UPDATE model_versions SET {change} WHERE {second}", "VERSION_SEALED"
    yield f"UPDATE model_versions SET current_stage = 'Production' WHERE {second}", "PROMOTION_REQUIRED"
    yield f"UPDATE model_versions SET current_stage = 'Archived' WHERE {first}", "PROMOTION_REQUIRED"
    yield "UPDATE model_versions SET current_stage = 'None' WHERE name = 'fm'", "PROMOTION_REQUIRED"
    yield f"DELETE FROM model_versions WHERE {second}", "VERSION_SEALED"
    yield "UPDATE model_versions SET name = 'fm', version = 3 WHERE name = 'plain'", "TICKET_REQUIRED"
    into = "INSERT INTO model_versions (name, version, workspace, current_stage, source, run_id, status)"
    for version, stage, tail, code in (
        (3, "None", "", "TICKET_REQUIRED"),
        (3, "Production", "", "TICKET_REQUIRED"),
        (1, "None", "", "VERSION_SEALED"),
        (2, "None", "ON CONFLICT DO NOTHING", "VERSION_SEALED"),
        (2, "None", "ON CONFLICT (workspace, name, version) DO UPDATE SET source = '/evil'", "VERSION_SEALED"),
    ):
        copy = f"SELECT 'fm', {version}, 'default', '{stage}', source, run_id, status FROM model_versions WHERE {first}"
        yield f"{into} {copy} {tail}", code
    for change in ("name = 'other'", "workspace = 'other'", "creation_time = 1", "description = 'x'"):
        yield f"UPDATE registered_models SET {change} WHERE name = 'fm'", "MODEL_GOVERNED"
    yield "DELETE FROM registered_models WHERE name = 'fm'", "MODEL_GOVERNED"
    again = "INSERT INTO registered_models (name, workspace, creation_time) VALUES ('fm', 'default', 1) ON CONFLICT"
    yield f"{again} (workspace, name) DO UPDATE SET description = 'x'", "MODEL_GOVERNED"
    tag = "INSERT INTO model_version_tags (workspace, name, version, key, value) VALUES ('default', 'fm', 1, 'a', 'b')"
    yield tag, "VERSION_SEALED"
    yield "UPDATE model_version_tags SET value = 'x' WHERE name = 'fm'", "VERSION_SEALED"
    yield "DELETE FROM model_version_tags WHERE name = 'fm'", "VERSION_SEALED"
    marked = "('default', 'fm', 'mlflow.prompt.is_prompt', 'true')"
    yield f"INSERT INTO registered_model_tags (workspace, name, key, value) VALUES {marked}", "MODEL_GOVERNED"
    for alias, version in {
        "champion": 2,
        "Champ1on": 2,
        "pr-od": 2,
        "previous": 2,
        "challenger": 2,
        "free": 77,
    }.items():
        row = f"('default', 'fm', '{alias}', {version})"
        yield f"INSERT INTO registered_model_aliases (workspace, name, alias, version) VALUES {row}", "ALIAS_RESERVED"
    at = "name = 'fm' AND alias = 'champion'"
    for change in ("version = 2", "alias = 'mine'", "alias = 'previous'", "name = 'plain'", "workspace = 'other'"):
        yield f"UPDATE registered_model_aliases SET {change} WHERE {at}", "ALIAS_RESERVED"
    yield f"DELETE FROM registered_model_aliases WHERE {at}", "ALIAS_RESERVED"
    yield "UPDATE registered_model_aliases SET name = 'fm', alias = 'prod' WHERE name = 'plain'", "ALIAS_RESERVED"


def registry_on_sqlite(w: World) -> Iterator[tuple[str, str]]:
    """Return statements that would push the governed model's rows aside."""
    for table in REGISTRY:
        code = "MODEL_GOVERNED" if table == "registered_models" else "VERSION_SEALED"
        yield f"REPLACE INTO {table} SELECT * FROM {table} WHERE name = 'fm'", code
    alias = "SELECT alias, 2, name, workspace FROM registered_model_aliases WHERE name = 'fm'"
    yield f"REPLACE INTO registered_model_aliases {alias}", "ALIAS_RESERVED"
    yield "UPDATE OR REPLACE registered_models SET name = 'fm' WHERE name = 'plain'", "MODEL_GOVERNED"
    yield "UPDATE OR REPLACE model_versions SET name = 'fm' WHERE name = 'plain'", "TICKET_REQUIRED"
    for table, columns, values in (
        ("registered_models", "name, workspace", "'new', 'default'"),
        ("model_versions", "name, version, workspace, current_stage", "'plain', 9, 'default', 'None'"),
        ("registered_model_aliases", "name, alias, version, workspace", "'plain', 'x', 1, 'default'"),
    ):
        row = f"SELECT rowid, {values} FROM {table} WHERE name = 'fm' LIMIT 1"
        yield f"REPLACE INTO {table} (rowid, {columns}) {row}", "MODEL_GOVERNED"
        aside = f"(SELECT s.rowid FROM {table} AS s WHERE s.name = 'fm' LIMIT 1)"
        yield f"UPDATE OR REPLACE {table} SET rowid = {aside} WHERE name = 'plain'", "MODEL_GOVERNED"


def test_rows_of_a_governed_model_stay_as_they_are_whatever_the_statement(world: World) -> None:
    wanted = dict([*registry(world), *(registry_on_sqlite(world) if world.sqlite else ())])
    with nothing_changes(world), counted(world) as seen:
        answers = dict(refusals(world, wanted))
    assert {each: answer for each, answer in answers.items() if not answer.startswith(f"{wanted[each]}: ")} == {}
    assert (seen.writes, seen.refused) == (len(wanted), len(wanted))


def test_governance_rows_are_not_changed_by_those_who_may_not_alter_the_tables(world: World) -> None:
    """On SQLite they may be added: what comes of that is in `test_hostile_record`."""
    statements = []
    for table in tables(world):
        if table.schema == "gov" or (table.name.startswith("gov_") and table.name not in ("gov_denied", "gov_locked")):
            column, columns = table.columns[-1], ", ".join(table.columns)
            statements.append(f"UPDATE {table.place} SET {column} = {column}")
            if not table.name.endswith(("principal_name", "free_text", "alembic_version")):
                statements.append(f"DELETE FROM {table.place}")
            if not table.name.endswith("alembic_version"):
                statements.append(f"INSERT INTO {table.place} ({columns}) SELECT {columns} FROM {table.place}")
    if world.sqlite:
        statements += [each.replace("INSERT", "REPLACE") for each in statements if each.startswith("INSERT")]
        statements += [
            f"INSERT INTO gov_event SELECT seq + {n}, at, actor, on_behalf_of, action, experiment_id, workspace,"
            "name, version, run_id, body, hash, 'h', key_id, signature FROM gov_event WHERE seq = 3"
            for n in (1, 99)
        ]
    with nothing_changes(world):
        answers = refusals(world, statements)
    if world.sqlite:
        left = {each: answer for each, answer in answers if not answer.startswith("GOVERNANCE_APPEND_ONLY: ")}
        assert {answer for each, answer in left.items() if "alembic_version" not in each} <= {"NO ROW"}, left
    else:
        assert {answer.split(":")[0] for _, answer in answers} == {"42501"}
