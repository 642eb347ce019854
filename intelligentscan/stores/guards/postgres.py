"""The guards of PostgreSQL: which functions and triggers belong in a database.

Every function runs as its owner and names each table with its schema, so that nobody's temporary table can stand
in for ours. A row guard first takes a shared lock on the experiment's number and then looks for its lock with a
fresh snapshot; who locks an experiment holds that number alone, so that no write can slip in between.
"""

# ruff: noqa: S608  the names in these statements come from the map, never from a caller

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from intelligentscan.stores.governance.tables import ERASABLE, EVERY, SCHEMA
from intelligentscan.stores.guards.map import Guarded
from intelligentscan.stores.guards.paths import Way, guarded_tables, ways
from intelligentscan.stores.guards.rules import (
    GENESIS,
    SAYS,
    changes,
    governed,
    registry_rules,
    registry_tables,
    workspace,
)
from intelligentscan.stores.guards.schema import Schema, quoted

OPTIONS = ("search_path=pg_catalog, pg_temp", "enable_seqscan=off")
"""The settings that belong to each function; a plan made while a table was small would read all of it for ever."""
NUMBER = 0x6953_6361_6E00_0000
"""Where the numbers of our advisory locks begin: this one plus an experiment's id is the experiment's."""
TRAIL_NUMBER = NUMBER - 1
_BITS = {"ROW": 1, "BEFORE": 2, "INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}
_ROWS = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
_CHANGES = ("INSERT", "DELETE", "UPDATE")
_ISOLATION = (
    "GUARDS_READ_COMMITTED: guarded tables are written with the isolation level read committed; "
    "leave default_transaction_isolation as PostgreSQL sets it."
)
_UNSEEN = r"[[:cntrl:]\u0080-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
"""Control characters, separators of lines and signs that turn the reading direction."""
_ACTIVE = (
    f"SELECT l.* FROM {SCHEMA}.experiment_lock AS l WHERE l.experiment_id = reached AND NOT EXISTS "
    f"(SELECT 1 FROM {SCHEMA}.experiment_unlock AS u WHERE u.lock_event = l.event)"
)


@dataclass(frozen=True, slots=True)
class Function:
    """A function in the governance schema."""

    name: str
    body: str
    arguments: str = ""
    returns: str = "trigger"

    @property
    def statements(self) -> tuple[str, ...]:
        """What makes it, and keeps others from calling it."""
        signature = f"{SCHEMA}.{self.name}({self.arguments})"
        how = " ".join(("LANGUAGE plpgsql SECURITY DEFINER", *(f"SET {o.replace('=', ' = ')}" for o in OPTIONS)))
        return (
            f"CREATE OR REPLACE FUNCTION {signature} RETURNS {self.returns} {how} AS $guard${self.body}$guard$",
            f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC",
        )


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger on a table, fired before the named operations, per row unless they are TRUNCATE."""

    space: str
    table: str
    name: str
    operations: tuple[str, ...]
    function: str

    @property
    def kind(self) -> int:
        """The bits that PostgreSQL keeps for it."""
        per_row = 0 if self.operations == ("TRUNCATE",) else _BITS["ROW"]
        return per_row | _BITS["BEFORE"] | sum(_BITS[operation] for operation in self.operations)

    @property
    def statements(self) -> tuple[str, ...]:
        """What makes it, firing even where ordinary triggers are switched off for replication."""
        table = f"{quoted(self.space)}.{self.table}"
        when = f"BEFORE {' OR '.join(self.operations)}"
        each = "STATEMENT" if self.operations == ("TRUNCATE",) else "ROW"
        call = f"EXECUTE FUNCTION {SCHEMA}.{self.function}()"
        return (
            f"CREATE TRIGGER {self.name} {when} ON {table} FOR EACH {each} {call}",
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {self.name}",
        )


@dataclass(frozen=True, slots=True)
class Guards:
    """What belongs in one database."""

    functions: tuple[Function, ...]
    triggers: tuple[Trigger, ...]


@lru_cache(maxsize=8)
def guards(schema: Schema) -> Guards:
    """Return the functions and triggers that belong in the database."""
    functions = [
        Function("guard_append_only", f"BEGIN {_raise(SAYS['APPEND_ONLY'])} END"),
        Function("guard_trail", _trail()),
        Function("guard_unlock", _unlock()),
        Function("guard_text", _locked_text(), "reached bigint", "text"),
        Function("guard_truncate", _truncate()),
    ]
    triggers: list[Trigger] = []
    named = {table.name: _experiment_guard(table, schema) for table in guarded_tables(schema)}
    named.update({table.name: _registry_guard(table.name, schema) for table in registry_tables(schema)})
    for table, body in named.items():
        functions.append(Function(f"guard_{table}", body))
        triggers.append(Trigger(schema.home, table, "gov_guard", _CHANGES, f"guard_{table}"))
        triggers.append(Trigger(schema.home, table, "gov_guard_truncate", ("TRUNCATE",), "guard_truncate"))
    for table in (table for table in EVERY if table in schema.governance):
        kept = ("UPDATE",) if table in ERASABLE else ("DELETE", "UPDATE")
        triggers.append(Trigger(SCHEMA, table, "gov_guard", kept, "guard_append_only"))
        triggers.append(Trigger(SCHEMA, table, "gov_guard_truncate", ("TRUNCATE",), "guard_append_only"))
    for table, function in {"event": "guard_trail", "experiment_unlock": "guard_unlock"}.items():
        if table in schema.governance:
            triggers.append(Trigger(SCHEMA, table, f"gov_{function}", ("INSERT",), function))
    return Guards(tuple(functions), tuple(triggers))


def name_number(space: str, name: str) -> str:
    """Return the expression of a registered name's number among the advisory locks."""
    return f"hashtextextended({space} || '/' || {name}, {NUMBER})"


def _experiment_guard(table: Guarded, schema: Schema) -> str:
    leaves = sorted({leaf for way in ways(table, "NEW", schema) for leaf in way.leaves})
    before, after = (_check(list(ways(table, row, schema))) for row in ("OLD", "NEW"))
    return (
        f"DECLARE reached bigint; BEGIN IF TG_OP <> 'INSERT' THEN {before} END IF; "
        f"IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; "
        f"IF TG_OP = 'INSERT' OR {changes(leaves, schema)} THEN {after} END IF; RETURN NEW; END"
    )


def _check(found: list[Way]) -> str:
    refuse = (
        f"{_FRESH} "
        f"IF NOT pg_try_advisory_xact_lock_shared({NUMBER} + reached) "
        f"THEN PERFORM pg_advisory_xact_lock_shared({NUMBER} + reached); END IF; "
        # most experiments were never locked: looking there first is cheaper than looking at once for unlocks too
        f"IF EXISTS (SELECT 1 FROM {SCHEMA}.experiment_lock AS l WHERE l.experiment_id = reached) "
        f"THEN IF EXISTS ({_ACTIVE}) "
        f"THEN RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = {SCHEMA}.guard_text(reached); END IF; END IF;"
    )
    if len(found) == 1 and found[0].unique:
        (way,) = found
        direct = not way.sources and not way.conditions  # without SELECT, no query is run for it
        find = f"reached := {way.experiment};" if direct else f"{_experiment(way, 'INTO reached ')};"
        return f"{find} IF reached IS NOT NULL THEN {refuse} END IF;"
    every = " UNION ".join(_experiment(way) for way in found)
    return f"FOR reached IN SELECT e.id FROM ({every}) AS e (id) WHERE e.id IS NOT NULL LOOP {refuse} END LOOP;"


def _experiment(way: Way, into: str = "") -> str:
    sources = f" FROM {' CROSS JOIN '.join(way.sources)}" if way.sources else ""
    conditions = f" WHERE {' AND '.join(way.conditions)}" if way.conditions else ""
    return f"SELECT {way.experiment} {into}{sources}{conditions}"


def _registry_guard(table: str, schema: Schema) -> str:
    parts = "".join(
        f"IF TG_OP = '{operation}' THEN {_refusals(table, operation, schema)} END IF; " for operation in _ROWS
    )
    return f"BEGIN {_FRESH} {parts}IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END"


def _refusals(table: str, operation: str, schema: Schema) -> str:
    hold = (
        f"PERFORM pg_advisory_xact_lock_shared({name_number(workspace(table, row, schema), f'{row}.name')});"
        for row in _ROWS[operation]
    )
    gates = " OR ".join(governed(table, row, schema) for row in _ROWS[operation])
    refusals = " ".join(
        f"IF {rule.condition} THEN {_raise(SAYS[rule.reason])} END IF;"
        for rule in registry_rules(schema)
        if (rule.table, rule.operation) == (table, operation)
    )
    return f"{' '.join(hold)} IF {gates} THEN {refusals or 'NULL;'} END IF;"


def _locked_text() -> str:
    def shown(column: str) -> str:
        cut = f"CASE WHEN length({column}) > 120 THEN left({column}, 120) || '...' ELSE {column} END"
        return f"regexp_replace({cut}, '{_UNSEEN}', '?', 'g')"

    text = (
        f"format('EXPERIMENT_LOCKED: experiment ''%s'' was locked by a registration; continue in ''%s''.', "
        f"{shown('held.experiment_name')}, {shown('held.next_experiment')})"
    )
    lock = _ACTIVE.replace("SELECT l.*", "SELECT l.experiment_name, l.next_experiment INTO held")
    return f"DECLARE held record; BEGIN {lock} ORDER BY l.event DESC LIMIT 1; RETURN {text}; END"


def _truncate() -> str:
    locked = _ACTIVE.replace("l.experiment_id = reached AND ", "")
    return (
        f"BEGIN IF EXISTS ({locked}) THEN {_raise(SAYS['LOCKED_SOMEWHERE'])} END IF; "
        f"IF EXISTS (SELECT 1 FROM {SCHEMA}.governed_model) THEN {_raise(SAYS['MODEL_GOVERNED'])} END IF; "
        "RETURN NULL; END"
    )


def _trail() -> str:
    last = f"SELECT e.seq, e.hash INTO last FROM {SCHEMA}.event AS e ORDER BY e.seq DESC LIMIT 1;"
    wrong = f"NEW.seq <> 1 + COALESCE(last.seq, 0) OR NEW.prev <> COALESCE(last.hash, '{GENESIS}')"
    return f"DECLARE last record; BEGIN {last} IF {wrong} THEN {_raise(SAYS['TRAIL_ORDER'])} END IF; RETURN NEW; END"


def _unlock() -> str:
    known = f"EXISTS (SELECT 1 FROM {SCHEMA}.experiment_lock AS l WHERE l.event = NEW.lock_event)"
    return f"BEGIN IF NOT {known} THEN {_raise(SAYS['UNLOCK_AHEAD'])} END IF; RETURN NEW; END"


def _raise(text: str) -> str:
    literal = text.replace("'", "''")
    return f"RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = '{literal}';"


_FRESH = f"IF current_setting('transaction_isolation') NOT LIKE 'read %' THEN {_raise(_ISOLATION)} END IF;"
"""An older snapshot would not show a lock, or that a name is governed by now."""


def statements(schema: Schema) -> Iterator[str]:
    """Return what makes every guard, in an order that works."""
    found = guards(schema)
    for function in found.functions:
        yield from function.statements
    for trigger in found.triggers:
        yield from trigger.statements
