"""Upgrades in processes of their own, some of which are killed; and what a store holds, to compare."""

import hashlib
import json
import resource
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from child_work import die_at_statement
from old_stores import engine_of, event
from sqlalchemy import Connection

from intelligentscan.stores import sqlite_maintenance
from intelligentscan.stores.governance.migrations import migrate
from intelligentscan.stores.governance.reach import reach
from intelligentscan.stores.governance.tables import table_name
from intelligentscan.stores.guards.schema import read_schema
from intelligentscan.stores.mlflow_upgrade import GovernanceSteps, UpgradeFacts, UpgradeReport, upgrade
from intelligentscan.stores.sqlite_maintenance import alone


def record(connection: Connection, facts: UpgradeFacts) -> None:
    """Append the facts to the trail."""
    last = connection.exec_driver_sql(
        f"SELECT COALESCE(max(seq), 0) FROM {table_name('event', connection.dialect.name)}"  # noqa: S608
    ).scalar_one()
    event(connection, int(last) + 1, json.dumps(facts.document))


def upgraded(uri: str, **changed: Any) -> UpgradeReport:
    """Upgrade as the service does."""
    return upgrade(uri, GovernanceSteps(migrate, record, **changed))


def upgrade_and_die(uri: str, statement: int) -> None:
    """Begin an upgrade and be killed before its n-th statement."""
    die_at_statement(statement)
    upgraded(uri)


def publish_and_die(target: str, source: str, limit: int, killed: bool) -> None:
    """Begin to publish a file's content and be ended by the first write beyond so many bytes of any file.

    Without being killed, the write fails as it does on a full disk.
    """
    with alone(Path(target)) as file:
        if killed:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        file.publish(Path(source))


def publish_page_by_page_and_die(target: str, source: str, pages: int) -> None:
    """Begin to publish a file's content and be killed after so many pages."""
    sqlite_maintenance._PAGES_AT_ONCE = 1

    def report(_status: int, remaining: int, total: int) -> None:
        if total - remaining >= pages:
            signal.raise_signal(signal.SIGKILL)

    sqlite_maintenance._report = report
    with alone(Path(target)) as file:
        file.publish(Path(source))


def hold_open(path: str, ready: Any, done: Any) -> None:
    """Have a store's file open, without doing anything with it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM runs").fetchone()
        ready.set()
        done.wait(60)


def holding(uri: str) -> str:
    """Return a digest of everything in a store: each table's columns and rows, and the guards."""
    digest = hashlib.sha256()
    with engine_of(uri).connect() as connection:
        schema = read_schema(connection)
        dialect = connection.dialect.name
        tables = [schema.of_mlflow(name) for name in schema.tables]
        tables += [table_name(name, dialect) for name in schema.governance]
        for table in tables:
            found = connection.exec_driver_sql(f"SELECT * FROM {table}")  # noqa: S608
            columns = list(found.keys())
            order = sorted(range(len(columns)), key=columns.__getitem__)
            rows = sorted(repr([row[number] for number in order]) for row in found)
            digest.update(repr((table, sorted(columns), rows)).encode())
        digest.update(repr(sorted(guards_in(connection))).encode())
    return digest.hexdigest()


def guards_in(connection: Connection) -> list[str]:
    """Return the names of all triggers with their tables."""
    if connection.dialect.name == "sqlite":
        found = connection.exec_driver_sql(
            "SELECT name || ' on ' || tbl_name FROM sqlite_master WHERE type = 'trigger'"
        )
    else:
        found = connection.exec_driver_sql(
            "SELECT tgname || ' on ' || tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
        )
    return [name for (name,) in found]


def reach_of_file(path: str) -> tuple[bool, tuple[str, ...]]:
    """Return what this process could do to a store's file."""
    with engine_of(f"sqlite:///file:{path}?mode=ro&immutable=1&uri=true").connect() as connection:
        found = reach(connection)
    return found.alters_guards, found.reasons
