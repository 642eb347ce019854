"""Compares the guards in a database with those that belong there now.

Foreign is a trigger, rule or row policy on a guarded table that is not ours; unmapped is a table or column
that could lead to an experiment or version and that the map does not know.
"""

# ruff: noqa: S608  the names in these statements come from the map, never from a caller

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from intelligentscan.stores.governance.tables import EVERY, PREFIX, SCHEMA
from intelligentscan.stores.guards import postgres, sqlite
from intelligentscan.stores.guards.locks import ActiveLock, active_locks
from intelligentscan.stores.guards.map import CORE, GUARDED, LEFT_ALONE, REGISTRY, TELLING
from intelligentscan.stores.guards.schema import Schema, read_schema

_SQLITE_MASTER = "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE type IN ('table', 'trigger')"
_POSTGRES_TRIGGERS = f"""
SELECT n.nspname, c.relname, t.tgname, t.tgtype, t.tgenabled, p.pronamespace::regnamespace::text, p.proname,
  t.tgqual IS NULL AND t.tgnargs = 0 AND t.tgattr::text = ''
    AND t.tgoldtable IS NULL AND t.tgnewtable IS NULL
FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND n.nspname IN (%s, '{SCHEMA}')
"""
_POSTGRES_FUNCTIONS = f"""
SELECT p.proname, p.prosrc, p.prosecdef, p.proconfig, l.lanname, p.proowner = o.relowner,
  pg_get_function_identity_arguments(p.oid), p.prorettype::regtype::text
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
LEFT JOIN pg_catalog.pg_class AS o ON o.relname = 'event' AND o.relnamespace = p.pronamespace
WHERE p.pronamespace = to_regnamespace('{SCHEMA}') AND left(p.proname, 6) = 'guard_'
"""
_POSTGRES_OTHERS = f"""
SELECT n.nspname, c.relname, 'rule ' || r.rulename FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname IN (%s, '{SCHEMA}')
UNION ALL SELECT n.nspname, c.relname, 'row security' FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE (c.relrowsecurity OR c.relforcerowsecurity) AND n.nspname IN (%s, '{SCHEMA}')
"""


@dataclass(frozen=True, slots=True)
class GuardReport:
    """What is not as it belongs, in short texts; nothing if all is well."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    unmapped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every guard is there, unchanged, and nothing else is."""
        return not (self.missing or self.changed or self.foreign or self.unmapped)


@dataclass(slots=True)
class _Found:
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def report(self, schema: Schema) -> GuardReport:
        if schema.columns:  # a governance database of its own has none of MLflow's tables
            self.missing += [f"table {name}" for name in CORE if name not in schema.tables]
        self.missing += [f"table {schema.of_governance(name)}" for name in EVERY if name not in schema.governance]
        kinds = (self.missing, self.changed, self.foreign, unmapped(schema))
        return GuardReport(*(tuple(sorted(set(kind))) for kind in kinds))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a report on a SQLite database depends on, and the report."""

    master: list[Any]
    locks: tuple[ActiveLock, ...]
    locked: set[int]
    report: GuardReport


_last: list[_Seen] = []


def inspect(connection: Connection) -> GuardReport:
    """Compare the guards with those that belong there; when nothing has changed, the last report is given again."""
    if connection.dialect.name == "postgresql":
        return _inspect_postgres(connection)
    return _inspect_sqlite(connection)


def unmapped(schema: Schema) -> list[str]:
    """Return the tables and columns that could lead to an experiment or version and that the map does not know."""
    known = {table.name: set(table.columns) for table in (*GUARDED, *REGISTRY)}
    alone = {table.name: set(table.columns) for table in LEFT_ALONE}
    leading = {(table, column) for table, column, to in schema.references if to in known}
    found = []
    for table, columns in schema.columns:
        if table in known:
            strange = set(columns) - known[table]
        else:
            telling = {c for c in columns if c in TELLING or (table, c) in leading}
            strange = telling - alone.get(table, set())
        found += [f"column {table}.{column}" for column in strange]
    return found


def _inspect_sqlite(connection: Connection) -> GuardReport:
    master = [tuple(row) for row in connection.exec_driver_sql(_SQLITE_MASTER)]
    tables = {name for kind, name, _, _ in master if kind == "table"}
    governed = {f"{PREFIX}experiment_lock", f"{PREFIX}experiment_unlock"} <= tables
    locks = active_locks(connection) if governed else ()
    rows = connection.exec_driver_sql(f"SELECT experiment_id FROM {sqlite.LOCKED}") if sqlite.LOCKED in tables else ()
    locked = {row[0] for row in rows}
    for seen in _last:
        if (seen.locks, seen.locked) == (locks, locked) and seen.master == master:
            return seen.report
    schema = read_schema(connection)
    found = _Found()
    _compare_sqlite(found, master, schema, locks)
    if sqlite.LOCKED in tables and locked != {lock.experiment_id for lock in locks}:
        found.changed.append(f"table {sqlite.LOCKED}: its rows are not the locked experiments")
    report = found.report(schema)
    _last[:] = [_Seen(master, locks, locked, report), *_last[:3]]
    return report


def _compare_sqlite(found: _Found, master: list[Any], schema: Schema, locks: Iterable[ActiveLock]) -> None:
    there = {(kind, name): (table, sql) for kind, name, table, sql in master}
    for name, statement in sqlite.OWN_TABLES.items():
        if ("table", name) not in there:
            found.missing.append(f"table {name}")
        elif there["table", name][1] != statement:
            found.changed.append(f"table {name}")
    belongs = {**sqlite.guards(schema), **sqlite.lock_guards(locks)}
    for name, statement in belongs.items():
        if ("trigger", name) not in there:
            found.missing.append(f"trigger {name}")
        elif there["trigger", name][1] != statement:
            found.changed.append(f"trigger {name}")
    watched = _watched()
    watched |= {f"{PREFIX}{name}" for name in EVERY} | set(sqlite.OWN_TABLES)
    for (kind, name), (table, _) in there.items():
        if kind == "trigger" and name not in belongs and (table in watched or sqlite.OWN.match(name)):
            found.foreign.append(f"trigger {name} on {table}")


def _inspect_postgres(connection: Connection) -> GuardReport:
    schema = read_schema(connection)
    belongs = postgres.guards(schema)
    found = _Found()
    _compare_functions(found, belongs.functions, connection.exec_driver_sql(_POSTGRES_FUNCTIONS).all())
    triggers = {(t.space, t.table, t.name): t for t in belongs.triggers}
    there = {tuple(row[:3]): row[3:] for row in connection.exec_driver_sql(_POSTGRES_TRIGGERS, (schema.home,))}
    for key, trigger in triggers.items():
        text = f"trigger {trigger.name} on {trigger.space}.{trigger.table}"
        if key not in there:
            found.missing.append(text)
        elif there[key] != (trigger.kind, "A", SCHEMA, trigger.function, True):
            state = "" if there[key][1] == "A" else ": disabled"
            found.changed.append(text + state)
    watched = {(schema.home, name) for name in _watched()} | {(SCHEMA, name) for name in EVERY}
    others = connection.exec_driver_sql(_POSTGRES_OTHERS, (schema.home, schema.home))
    foreign = [(s, t, f"trigger {n}") for s, t, n in there if (s, t, n) not in triggers]
    for space, table, what in (*foreign, *others):
        if (space, table) in watched:
            found.foreign.append(f"{what} on {space}.{table}")
    return found.report(schema)


def _compare_functions(found: _Found, belongs: Iterable[postgres.Function], rows: Iterable[Any]) -> None:
    there = {(row[0], row[6]): row for row in rows}
    for function in belongs:
        row = there.pop((function.name, function.arguments), None)
        if row is None:
            found.missing.append(f"function {SCHEMA}.{function.name}")
        else:
            found.changed += [f"function {SCHEMA}.{function.name}: {what}" for what in _differing(function, row)]
    found.foreign += [f"function {SCHEMA}.{name}" for name, _ in there]


def _differing(function: postgres.Function, row: Any) -> Iterator[str]:
    _, body, definer, options, language, owned, _, returns = row
    if body != function.body or (language, returns) != ("plpgsql", function.returns):
        yield "another body"
    if not definer:
        yield "not run as its owner"
    if tuple(options or ()) != postgres.OPTIONS:
        yield "another search path"
    if not owned:
        yield "another owner"


def _watched() -> set[str]:
    return {table.name for table in (*GUARDED, *REGISTRY)}
