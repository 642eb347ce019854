"""What the guards refuse on governed names, as conditions that both kinds of database understand, and what they say.

The conditions speak of `OLD` and `NEW` as triggers do. A rule counts only for rows of a governed name.
"""

# ruff: noqa: S608  the names in these statements come from the map, never from a caller

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from intelligentscan.stores.guards.map import REGISTRY, Registry
from intelligentscan.stores.guards.schema import Schema

SAYS = {
    "TICKET_REQUIRED": "TICKET_REQUIRED: versions of a governed model are made by registration alone; "
    "register it with register_model of IntelligentScan.",
    "VERSION_SEALED": "VERSION_SEALED: a registered version of a governed model does not change; "
    "make another version with register_model of IntelligentScan.",
    "PROMOTION_REQUIRED": "PROMOTION_REQUIRED: the Production stage of a governed model follows a recorded decision; "
    "call promote of IntelligentScan.",
    "MODEL_GOVERNED": "MODEL_GOVERNED: a governed model keeps its name and description and is not deleted; "
    "use another name for another model.",
    "TAG_RESERVED": "MODEL_GOVERNED: tags named mlflow.prompt.* and intelligentscan.* are not set on a governed model; "
    "use another key.",
    "ALIAS_RESERVED": "ALIAS_RESERVED: champion, challenger, previous and names like them follow recorded decisions "
    "on a governed model; call promote of IntelligentScan, or use another alias.",
    "ALIAS_ASCII": "ALIAS_RESERVED: an alias of a governed model is written in plain ASCII; use another alias.",
    "ALIAS_NOWHERE": "ALIAS_RESERVED: an alias of a governed model names a version that exists; choose one of them.",
    "LOCKED_SOMEWHERE": "EXPERIMENT_LOCKED: this experiment was locked by a registration; continue in the experiment "
    "of the same name that ends in -v2, or in the next higher number.",
    "APPEND_ONLY": "GOVERNANCE_APPEND_ONLY: governance records are added, never changed or removed; "
    "append a correcting record.",
    "UNLOCK_AHEAD": "GOVERNANCE_APPEND_ONLY: a lock is taken back after it was made; name a lock that exists.",
    "TRAIL_ORDER": "GOVERNANCE_APPEND_ONLY: an event continues the trail: next number, hash of the last one.",
}
"""The refusals by reason: one line each, beginning with a stable code; the same text on every database."""

RESERVED = ("champion", "challenger", "previous", "production", "prod", "staging", "stage", "archived", "live")
GRANTED = ("champion", "challenger", "previous")
GENESIS = "0" * 64
_LOOKS = {"0": "o", "1": "l", "i": "l", "3": "e", "4": "a", "5": "s", "6": "g", "9": "g", "7": "t", "8": "b", "-": "",
          "_": "", "rn": "m"}  # fmt: skip
_STAGES = "('None', 'Staging', 'Production', 'Archived')"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is refused: on a table, at `INSERT`, `UPDATE` or `DELETE`, if the condition holds."""

    table: str
    operation: str
    condition: str
    reason: str


def registry_tables(schema: Schema) -> list[Registry]:
    """Return the registry's tables that are there."""
    tables = schema.tables
    return [table for table in REGISTRY if table.name in tables]


def workspace(table: str, row: str, schema: Schema) -> str:
    """Return the expression of a row's workspace; schemas older than workspaces have one only."""
    return f"{row}.workspace" if "workspace" in schema.tables.get(table, ()) else "'default'"


def governed(table: str, row: str, schema: Schema) -> str:
    """Return the condition that a row's name is governed."""
    space = workspace(table, row, schema)
    model = schema.of_governance("governed_model")
    return f"EXISTS (SELECT 1 FROM {model} AS g WHERE g.workspace = {space} AND g.name = {row}.name)"


def looks(text: str) -> str:
    """Return how a name looks at a glance: names that look alike give the same."""
    text = text.lower()
    for seen, taken in _LOOKS.items():
        text = text.replace(seen, taken)
    return text


def looks_reserved(alias: str) -> bool:
    """Tell whether an alias is one of the reserved names, or looks like one."""
    return looks(alias) in {looks(word) for word in RESERVED}


def changes(columns: Iterable[str], schema: Schema) -> str:
    """Return the condition that an update changes one of the columns, from or to null too."""
    different = "IS DISTINCT FROM" if schema.dialect == "postgresql" else "IS NOT"
    new, old = (", ".join(f"{row}.{column}" for column in columns) for row in ("NEW", "OLD"))
    return f"({new}) {different} ({old})"


def registry_rules(schema: Schema) -> Iterator[Rule]:
    """Return everything that is refused on rows of governed names."""
    for table in registry_tables(schema):
        yield from _RULES[table.name](table, schema)


def _models(table: Registry, schema: Schema) -> Iterator[Rule]:
    yield Rule(table.name, "UPDATE", changes(_kept(table, schema), schema), "MODEL_GOVERNED")
    yield Rule(table.name, "DELETE", "1 = 1", "MODEL_GOVERNED")


def _versions(table: Registry, schema: Schema) -> Iterator[Rule]:
    name = table.name
    space = workspace(name, "NEW", schema)
    same = f"m.name = NEW.name AND m.version = NEW.version AND {workspace(name, 'm', schema)} = {space}"
    exists = f"EXISTS (SELECT 1 FROM {schema.of_mlflow(name)} AS m WHERE {same})"
    yield Rule(name, "INSERT", exists, "VERSION_SEALED")
    # a ticket may name the last part of the place alone: whose folder it lies in stays out of the trail
    bound = "t.run_id = NEW.run_id AND (NEW.source = t.source OR NEW.source LIKE '%/' || t.source)"
    yield Rule(name, "INSERT", f"NOT {_open_ticket(space, schema, bound)}", "TICKET_REQUIRED")
    yield Rule(name, "INSERT", "COALESCE(NEW.current_stage <> 'None', TRUE)", "PROMOTION_REQUIRED")
    yield Rule(name, "UPDATE", f"NOT {governed(name, 'OLD', schema)}", "TICKET_REQUIRED")
    yield Rule(name, "UPDATE", changes(_kept(table, schema), schema), "VERSION_SEALED")
    yield Rule(name, "UPDATE", f"COALESCE(NEW.current_stage NOT IN {_STAGES}, TRUE)", "VERSION_SEALED")
    in_production = f"COALESCE({_last_stage(space, schema)} = 'Production', FALSE)"
    arrives = "NEW.current_stage = 'Production' AND COALESCE(OLD.current_stage <> 'Production', TRUE)"
    leaves = "OLD.current_stage = 'Production' AND COALESCE(NEW.current_stage <> 'Production', TRUE)"
    yield Rule(name, "UPDATE", f"{arrives} AND NOT {in_production}", "PROMOTION_REQUIRED")
    yield Rule(name, "UPDATE", f"{leaves} AND {in_production}", "PROMOTION_REQUIRED")
    yield Rule(name, "DELETE", "1 = 1", "VERSION_SEALED")


def _version_tags(table: Registry, schema: Schema) -> Iterator[Rule]:
    space = workspace(table.name, "NEW", schema)
    yield Rule(table.name, "INSERT", f"NOT {_open_ticket(space, schema)}", "VERSION_SEALED")
    yield Rule(table.name, "UPDATE", "1 = 1", "VERSION_SEALED")
    yield Rule(table.name, "DELETE", "1 = 1", "VERSION_SEALED")


def _model_tags(table: Registry, schema: Schema) -> Iterator[Rule]:
    for operation, rows in {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}.items():
        kept = (
            f"(substr({row}.key, 1, {len(prefix)}) = '{prefix}' AND {governed(table.name, row, schema)})"
            for row in rows
            for prefix in ("mlflow.prompt.", "intelligentscan.")
        )
        yield Rule(table.name, operation, " OR ".join(kept), "TAG_RESERVED")


def _aliases(table: Registry, schema: Schema) -> Iterator[Rule]:
    name = table.name
    for operation in ("INSERT", "UPDATE"):
        ours = governed(name, "NEW", schema)
        yield Rule(name, operation, f"{ours} AND {_not_ascii('NEW.alias', schema)}", "ALIAS_ASCII")
        yield Rule(name, operation, f"{ours} AND NOT {_version_exists(schema)}", "ALIAS_NOWHERE")
        refused = f"{_is_reserved('NEW.alias', schema)} AND NOT ({_granted(schema)} OR {_staged(schema)})"
        yield Rule(name, operation, f"{ours} AND {refused}", "ALIAS_RESERVED")
    gone = f"{governed(name, 'OLD', schema)} AND {_is_reserved('OLD.alias', schema)} AND OLD.alias <> 'challenger'"
    still = f"{gone} AND COALESCE({_last_alias('OLD', schema)} = OLD.version, FALSE)"
    yield Rule(name, "DELETE", still, "ALIAS_RESERVED")
    moved = changes(schema.tables[name], schema)
    yield Rule(name, "UPDATE", f"{still} AND ({moved})", "ALIAS_RESERVED")


_RULES = {
    "registered_models": _models,
    "model_versions": _versions,
    "model_version_tags": _version_tags,
    "registered_model_tags": _model_tags,
    "registered_model_aliases": _aliases,
}


def _kept(table: Registry, schema: Schema) -> tuple[str, ...]:
    return tuple(c for c in schema.tables[table.name] if c not in table.free)


def _open_ticket(space: str, schema: Schema, bound: str = "1 = 1") -> str:
    ticket, close = schema.of_governance("ticket"), schema.of_governance("ticket_close")
    return (
        f"EXISTS (SELECT 1 FROM {ticket} AS t WHERE t.workspace = {space} AND t.name = NEW.name "
        f"AND t.version = NEW.version AND {bound} "
        f"AND NOT EXISTS (SELECT 1 FROM {close} AS c WHERE c.ticket_id = t.ticket_id))"
    )


def _last_stage(space: str, schema: Schema) -> str:
    return (
        f"(SELECT s.stage FROM {schema.of_governance('stage')} AS s WHERE s.workspace = {space} "
        "AND s.name = NEW.name AND s.version = NEW.version ORDER BY s.event DESC LIMIT 1)"
    )


def _last_alias(row: str, schema: Schema) -> str:
    return (
        f"(SELECT a.version FROM {schema.of_governance('alias')} AS a "
        f"WHERE a.workspace = {workspace('registered_model_aliases', row, schema)} "
        f"AND a.name = {row}.name AND a.alias = {row}.alias ORDER BY a.event DESC LIMIT 1)"
    )


def _granted(schema: Schema) -> str:
    names = ", ".join(f"'{alias}'" for alias in GRANTED)
    return f"(NEW.alias IN ({names}) AND COALESCE({_last_alias('NEW', schema)} = NEW.version, FALSE))"


def _staged(schema: Schema) -> str:
    return f"(NEW.alias = 'challenger' AND {_version_exists(schema, chr(39) + 'Staging' + chr(39))})"


def _version_exists(schema: Schema, stage: str = "") -> str:
    there = f"m.current_stage = {stage}" if stage else "COALESCE(m.current_stage <> 'Deleted_Internal', TRUE)"
    return (
        f"EXISTS (SELECT 1 FROM {schema.of_mlflow('model_versions')} AS m WHERE m.name = NEW.name "
        f"AND m.version = NEW.version AND {there} AND {workspace('model_versions', 'm', schema)} = "
        f"{workspace('registered_model_aliases', 'NEW', schema)})"
    )


def _is_reserved(alias: str, schema: Schema) -> str:
    plain = ' COLLATE "C"' if schema.dialect == "postgresql" else ""  # some languages have other small letters
    seen = f"lower({alias}{plain})"
    for one, taken in _LOOKS.items():
        seen = f"replace({seen}, '{one}', '{taken}')"
    return f"{seen} IN ({', '.join(repr(name) for name in sorted({looks(word) for word in RESERVED}))})"


def _not_ascii(alias: str, schema: Schema) -> str:
    if schema.dialect == "postgresql":
        return f"(octet_length(convert_to({alias}, 'UTF8')) <> char_length({alias}) OR {alias} ~ '[[:cntrl:]]')"
    return f"{alias} GLOB '*[^ -~]*'"
