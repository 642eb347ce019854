"""Which rows of which tables belong to one experiment or model version, in whatever schema the database has."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from intelligentscan.stores.guards.map import REGISTRY
from intelligentscan.stores.guards.paths import belongs, guarded_tables
from intelligentscan.stores.guards.schema import Schema, quoted, read_schema

_POSTGRES_TYPES = text(
    "SELECT c.relname, a.attname, t.typname FROM pg_catalog.pg_attribute a"
    " JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = :home AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"
)
_SQLITE_TYPES = text(
    "SELECT m.name, p.name, lower(p.type) FROM main.sqlite_master m JOIN pragma_table_xinfo(m.name, 'main') p"
    " WHERE m.type = 'table'"
)


@dataclass(frozen=True, slots=True)
class ExperimentRows:
    """Everything that belongs to one experiment."""

    experiment_id: str


@dataclass(frozen=True, slots=True)
class VersionRows:
    """What the registry holds of one model version, without its stage."""

    workspace: str
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows and columns of one table count, and in which order."""

    table: str
    columns: tuple[str, ...]
    order: tuple[str, ...]
    where: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TypedSchema:
    """The database's schema with the types of its columns."""

    schema: Schema
    types: dict[str, dict[str, str]]

    @classmethod
    def read(cls, connection: Connection) -> "TypedSchema":
        """Look at the connected database."""
        schema = read_schema(connection)
        query = _SQLITE_TYPES if schema.dialect == "sqlite" else _POSTGRES_TYPES
        types: dict[str, dict[str, str]] = {}
        for table, column, kind in connection.execute(query, {"home": schema.home} if schema.home else {}):
            types.setdefault(table, {})[column] = kind
        return cls(schema, types)


def rows_of(schema: Schema, of: ExperimentRows | VersionRows) -> Iterator[Selection]:
    """Return what belongs to an experiment or a version, table by table."""
    return _of_experiment(schema, of) if isinstance(of, ExperimentRows) else _of_version(schema, of)


def _of_experiment(schema: Schema, of: ExperimentRows) -> Iterator[Selection]:
    for table in guarded_tables(schema):
        if not table.digested:
            continue
        present = schema.tables[table.name]
        leading = {reach.column for reach in table.reaches if reach.column in present}
        # Sorting run by run keeps the sorted pieces small where the rows of one run are millions.
        first = sorted(leading) if len(leading) == 1 and leading < set(table.key) else []
        yield Selection(
            table.name,
            tuple(sorted(set(present) - set(table.left_out))),
            tuple(dict.fromkeys(name for name in (*first, *table.key) if name in present)),
            belongs(table, "r", ":experiment", schema),
            {"experiment": int(of.experiment_id)},
        )


def _of_version(schema: Schema, of: VersionRows) -> Iterator[Selection]:
    for table in REGISTRY:
        present = schema.tables.get(table.name)
        if present is None or not table.versioned:
            continue
        where, values = "r.name = :name AND r.version = :version", {"name": of.name, "version": of.version}
        if "workspace" in present:
            where += " AND r.workspace = :workspace"
            values["workspace"] = of.workspace
        # The workspace is the same in all rows; a schema older than workspaces sorts alike.
        order = tuple(name for name in table.key if name in present and name != "workspace")
        yield Selection(table.name, tuple(sorted(set(present) - set(table.free))), order, where, values)


__all__ = ["ExperimentRows", "Selection", "TypedSchema", "VersionRows", "quoted", "rows_of"]
