"""The guards of SQLite: which triggers belong in a database, by name, as SQLite keeps their text.

Three things about SQLite shape them. It replaces rows without firing DELETE triggers, so every guard also looks
at the rows that an insert or update would push aside: same key, same unique key, same rowid. Every connection
reads all their text, so the ids of locked experiments stand in a table of their own, `gov_locked`, which
triggers keep equal to the active locks. And RAISE takes a literal only, so the line that names an experiment is
raised by a trigger on the ever empty table `gov_denied`, into which guards insert the ids.
"""

# ruff: noqa: S608  the names in these statements come from the map, never from a caller

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from sqlalchemy import PrimaryKeyConstraint, Table, UniqueConstraint

from intelligentscan.stores.governance.tables import ERASABLE, EVERY, governance_tables
from intelligentscan.stores.guards.locks import ActiveLock, locked_text
from intelligentscan.stores.guards.map import Guarded
from intelligentscan.stores.guards.paths import Way, guarded_tables, ways
from intelligentscan.stores.guards.rules import GENESIS, SAYS, changes, governed, registry_rules, registry_tables
from intelligentscan.stores.guards.schema import Schema

DENIED = "gov_denied"
LOCKED = "gov_locked"
OWN_TABLES = {
    DENIED: f"CREATE TABLE {DENIED} (experiment_id BIGINT)",
    LOCKED: f"CREATE TABLE {LOCKED} (experiment_id INTEGER PRIMARY KEY)",
}
OWN = re.compile(r"gov_(guard|keep|say|trail)_")
"""How the names of our triggers begin."""
NAMES = "gov_say_names"
"""The trigger that names locked experiments."""
NAMED = 32
"""Locked experiments that are named: SQLite prepares these lines with every write, and MLflow has it do so often."""
_ROWS = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}


@lru_cache(maxsize=8)
def guards(schema: Schema) -> dict[str, str]:
    """Return the triggers that belong in the database whatever is locked, with their definitions."""
    found: dict[str, str] = {}
    for table in guarded_tables(schema):
        for operation in _ROWS:
            found.update(_experiment_guard(table, operation, schema))
    for name in (table.name for table in registry_tables(schema)):
        for operation in _ROWS:
            found.update(_registry_guard(name, operation, schema))
    present = governance_tables("sqlite")
    for plain in (name for name in EVERY if name in schema.governance):
        found.update(_append_only(getattr(present, plain), erasable=plain in ERASABLE))
    if "event" in schema.governance:
        found.update(_trail())
    if {"experiment_lock", "experiment_unlock"} <= set(schema.governance):
        found.update(_kept_locks())
    return found


def lock_guards(locks: Iterable[ActiveLock]) -> dict[str, str]:
    """Return the trigger that names the experiments locked last; the general line is said of the others."""
    texts = {int(lock.experiment_id): locked_text(lock) for lock in locks}
    named = list(texts.items())[-NAMED:]
    if not named:
        return {}
    branches = " ".join(f"WHEN {locked} THEN RAISE(ABORT, {_literal(text)})" for locked, text in named)
    return _trigger(NAMES, "BEFORE INSERT", DENIED, f"SELECT CASE NEW.experiment_id {branches} END")


def _kept_locks() -> dict[str, str]:
    """Keep the table of locked experiments equal to the active locks, whoever writes to it."""
    active = (
        "EXISTS (SELECT 1 FROM gov_experiment_lock AS l WHERE l.experiment_id = {} AND NOT EXISTS "
        "(SELECT 1 FROM gov_experiment_unlock AS u WHERE u.lock_event = l.event))"
    )
    refuse = _raise(SAYS["APPEND_ONLY"])
    lock, unlock = "gov_experiment_lock", "gov_experiment_unlock"
    of_unlock = f"(SELECT k.experiment_id FROM {lock} AS k WHERE k.event = NEW.lock_event)"
    add = f"INSERT OR IGNORE INTO {LOCKED} (experiment_id) VALUES (NEW.experiment_id)"
    ahead = f"NOT EXISTS (SELECT 1 FROM {lock} AS k WHERE k.event = NEW.lock_event)"
    remove = f"DELETE FROM {LOCKED} WHERE experiment_id = {of_unlock} AND NOT {active.format(of_unlock)}"
    return {
        **_trigger("gov_keep_lock", "AFTER INSERT", lock, add, active.format("NEW.experiment_id")),
        **_trigger("gov_keep_order", "BEFORE INSERT", unlock, _raise(SAYS["UNLOCK_AHEAD"]), ahead),
        **_trigger("gov_keep_unlock", "AFTER INSERT", unlock, remove),
        **_trigger("gov_keep_insert", "BEFORE INSERT", LOCKED, refuse, f"NOT {active.format('NEW.experiment_id')}"),
        **_trigger("gov_keep_update", "BEFORE UPDATE", LOCKED, refuse),
        **_trigger("gov_keep_delete", "BEFORE DELETE", LOCKED, refuse, active.format("OLD.experiment_id")),
        **_trigger(
            "gov_say_other", "AFTER INSERT", DENIED, _raise(SAYS["LOCKED_SOMEWHERE"]), f"NEW.experiment_id IN {LOCKED}"
        ),
    }


def _trigger(name: str, moment: str, table: str, body: str, when: str = "") -> dict[str, str]:
    condition = f"WHEN {when} " if when else ""
    return {name: f"CREATE TRIGGER {name} {moment} ON {table} {condition}BEGIN {body}; END"}


def _experiment_guard(table: Guarded, operation: str, schema: Schema) -> dict[str, str]:
    """Refuse what reaches a locked experiment: the row before, the row after, and rows pushed aside."""
    reached: list[tuple[str, str]] = []
    for row in _ROWS[operation]:
        for way in ways(table, row, schema):
            moved = changes(sorted(way.leaves), schema) if (operation, row) == ("UPDATE", "NEW") else ""
            reached.append((moved, _experiment(way)))
    if operation != "DELETE":
        reached += _pushed_aside(table, operation, schema)
    tests = " OR ".join(f"{when}{' AND ' if when else ''}{one} IN {LOCKED}" for when, one in reached)
    every = ", ".join(f"({one})" for one in dict.fromkeys(one for _, one in reached))
    body = f"INSERT INTO {DENIED} VALUES {every}"
    return _trigger(f"gov_guard_{table.name}_{operation.lower()}", f"BEFORE {operation}", table.name, body, tests)


def _pushed_aside(table: Guarded, operation: str, schema: Schema) -> Iterator[tuple[str, str]]:
    own = f"{table.name} AS o"
    there = schema.tables[table.name]
    for key in (table.key, *table.unique):
        columns = tuple(c for c in key if c in there)
        same = [f"o.{c} = NEW.{c}" for c in columns]
        for way in ways(table, "o", schema):
            if not way.leaves <= set(columns):  # else the new row leads to the same experiment
                yield (changes(columns, schema) if operation == "UPDATE" else ""), _experiment(way, own, *same)
    for way in ways(table, "o", schema):
        if table.unique_among is not None:
            columns, among = table.unique_among
            same = [*(f"o.{c} = NEW.{c}" for c in columns), among.format(row="o")]
            yield among.format(row="NEW"), _experiment(way, own, *same)
        moved = "NEW.rowid <> OLD.rowid" if operation == "UPDATE" else ""
        yield moved, _experiment(way, own, "o.rowid = NEW.rowid")


def _experiment(way: Way, *before: str) -> str:
    """Return the expression of the experiment that a way leads to, of a locked one if it leads to several.

    A way that does not begin in `OLD` or `NEW` is given the table that it begins in, and conditions on the row there.
    """
    sources, conditions = (*before[:1], *way.sources), (*before[1:], *way.conditions)
    if not way.unique:
        conditions = (*conditions, f"{way.experiment} IN {LOCKED}")
    if not sources:
        return f"CASE WHEN {' AND '.join(conditions)} THEN {way.experiment} END" if conditions else way.experiment
    # CROSS JOIN keeps the order: by primary keys, from the row to its experiment
    found = f"SELECT {way.experiment} FROM {' CROSS JOIN '.join(sources)} WHERE {' AND '.join(conditions)}"
    return f"({found})" if way.unique else f"({found} LIMIT 1)"


def _registry_guard(table: str, operation: str, schema: Schema) -> dict[str, str]:
    gates = [governed(table, row, schema) for row in _ROWS[operation]]
    refusals = [
        f"{_raise(SAYS[rule.reason])} WHERE {rule.condition}"
        for rule in registry_rules(schema)
        if (rule.table, rule.operation) == (table, operation)
    ]
    if operation != "DELETE":
        rows = {"o.rowid = NEW.rowid": "NEW.rowid <> OLD.rowid AND " if operation == "UPDATE" else ""}
        if (table, operation) == ("registered_models", "INSERT"):
            space = " AND o.workspace = NEW.workspace" if "workspace" in schema.tables[table] else ""
            rows[f"o.name = NEW.name{space}"] = ""
        for same, moved in rows.items():
            aside = f"{moved}EXISTS (SELECT 1 FROM {table} AS o WHERE {same} AND {governed(table, 'o', schema)})"
            gates.append(f"({aside})")
            refusals.insert(0, f"{_raise(SAYS['MODEL_GOVERNED'])} WHERE {aside}")
    name = f"gov_guard_{table}_{operation.lower()}"
    return _trigger(name, f"BEFORE {operation}", table, "; ".join(refusals), " OR ".join(gates))


def _append_only(table: Table, erasable: bool) -> dict[str, str]:
    refuse = _raise(SAYS["APPEND_ONLY"])
    found: dict[str, str] = {}
    for operation in ("UPDATE",) if erasable else ("UPDATE", "DELETE"):
        found.update(_trigger(f"gov_guard_{table.name}_{operation.lower()}", f"BEFORE {operation}", table.name, refuse))
    keys = sorted(
        tuple(column.name for column in constraint.columns)
        for constraint in table.constraints
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)
    )
    same = (" AND ".join(f"o.{column} = NEW.{column}" for column in key) for key in (("rowid",), *keys))
    tests = " OR ".join(f"EXISTS (SELECT 1 FROM {table.name} AS o WHERE {one})" for one in same)
    return {**found, **_trigger(f"gov_guard_{table.name}_insert", "BEFORE INSERT", table.name, refuse, tests)}


def _trail() -> dict[str, str]:
    last = "SELECT {} FROM gov_event ORDER BY seq DESC LIMIT 1"
    number = f"NEW.seq IS NOT 1 + COALESCE(({last.format('seq')}), 0)"
    joined = f"NEW.prev IS NOT COALESCE(({last.format('hash')}), '{GENESIS}')"
    refuse = _raise(SAYS["TRAIL_ORDER"])
    return _trigger("gov_trail_insert", "BEFORE INSERT", "gov_event", refuse, f"{number} OR {joined}")


def _raise(text: str) -> str:
    return f"SELECT RAISE(ABORT, {_literal(text)})"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
