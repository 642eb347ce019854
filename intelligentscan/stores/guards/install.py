"""Puts the guards into a database and takes them out, and holds what a governed act must hold alone.

Everything happens in the caller's transaction. The advisory locks of PostgreSQL end with it; on SQLite a
writing transaction is alone anyway.
"""

# ruff: noqa: S608  the names in these statements come from the map and the database's own catalogue

from typing import Any

from sqlalchemy import Connection

from intelligentscan.stores.governance.tables import SCHEMA
from intelligentscan.stores.guards import postgres, sqlite
from intelligentscan.stores.guards.locks import active_locks
from intelligentscan.stores.guards.rules import workspace
from intelligentscan.stores.guards.schema import quoted, read_schema

_OUR_TRIGGERS = f"""
SELECT n.nspname, c.relname, t.tgname FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace AS f ON f.oid = p.pronamespace
WHERE f.nspname = '{SCHEMA}' AND left(p.proname, 6) = 'guard_'
"""
_OWNER = f"""
SELECT pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class AS c
WHERE c.oid = to_regclass('{SCHEMA}.event') AND pg_get_userbyid(c.relowner) <> current_user
"""
_OUR_FUNCTIONS = f"""
SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS f ON f.oid = p.pronamespace
WHERE f.nspname = '{SCHEMA}' AND left(p.proname, 6) = 'guard_'
"""


def install(connection: Connection) -> None:
    """Put every guard into the database; the governance tables are there, the guards are not."""
    schema = read_schema(connection)
    if schema.dialect == "postgresql":
        for statement in postgres.statements(schema):
            _run(connection, statement)
        _hand_over(connection)
        return
    for statement in sqlite.OWN_TABLES.values():
        _run(connection, statement)
    for lock in {lock.experiment_id for lock in active_locks(connection)}:
        connection.exec_driver_sql(f"INSERT INTO {sqlite.LOCKED} (experiment_id) VALUES (?)", (lock,))
    for statement in sqlite.guards(schema).values():
        _run(connection, statement)
    _name_locks(connection)


def _hand_over(connection: Connection) -> None:
    """Give the functions to who owns the governance tables, where an administrator with more rights made them."""
    owner = connection.exec_driver_sql(_OWNER).scalar()
    if owner is not None:
        for (signature,) in connection.exec_driver_sql(_OUR_FUNCTIONS).all():
            _run(connection, f"ALTER FUNCTION {signature} OWNER TO {quoted(owner)}")


def drop(connection: Connection) -> None:
    """Take every guard out of the database, whichever release put them there."""
    if connection.dialect.name == "postgresql":
        for space, table, name in connection.exec_driver_sql(_OUR_TRIGGERS).all():
            _run(connection, f"DROP TRIGGER {quoted(name)} ON {quoted(space)}.{quoted(table)}")
        for (signature,) in connection.exec_driver_sql(_OUR_FUNCTIONS).all():
            _run(connection, f"DROP FUNCTION {signature}")
        return
    for name in _sqlite_triggers(connection):
        if sqlite.OWN.match(name):
            _run(connection, f"DROP TRIGGER {quoted(name)}")
    for table in sqlite.OWN_TABLES:
        _run(connection, f"DROP TABLE IF EXISTS {table}")


def announce_lock(connection: Connection, experiment_id: int) -> None:
    """Let refusals name a newly locked experiment, and the next one; the lock's row is written already.

    The lock holds without it, but only a general line would be said on SQLite, and the inventory would differ.
    """
    _name_locks(connection)


def retract_lock(connection: Connection, experiment_id: int) -> None:
    """Take an experiment out of the refusals; the row that unlocks it is written already."""
    _name_locks(connection)


def hold_experiment(connection: Connection, experiment_id: int) -> None:
    """Wait until no open transaction has written to the experiment, and keep others from writing until ours ends."""
    if connection.dialect.name == "postgresql":
        number = postgres.NUMBER + int(experiment_id)
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s::bigint)", (number,))


def hold_name(connection: Connection, space: str, name: str) -> None:
    """Wait until no open transaction has written under the registered name, and keep others from it until ours ends."""
    if connection.dialect.name != "postgresql":
        return
    schema = read_schema(connection)
    if "registered_models" in schema.tables:
        # first the row, as MLflow takes it, then the number, as the guards do: the other order could dead-lock
        key = f"m.name = %s AND {workspace('registered_models', 'm', schema)} = %s"
        models = schema.of_mlflow("registered_models")
        connection.exec_driver_sql(f"SELECT 1 FROM {models} AS m WHERE {key} FOR NO KEY UPDATE", (name, space))
    number = postgres.name_number("%s::text", "%s::text")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({number})", (space, name))


def hold_trail(connection: Connection) -> None:
    """Wait until nobody else is appending to the trail, and keep others from it until our transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s::bigint)", (postgres.TRAIL_NUMBER,))


def _name_locks(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    _run(connection, f"DROP TRIGGER IF EXISTS {sqlite.NAMES}")
    for statement in sqlite.lock_guards(active_locks(connection)).values():
        _run(connection, statement)


def _sqlite_triggers(connection: Connection) -> list[str]:
    rows: Any = connection.exec_driver_sql("SELECT name FROM main.sqlite_master WHERE type = 'trigger'")
    return [row[0] for row in rows]


def _run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
