"""What the connected database really holds: its tables, columns and foreign keys, whatever revision made it."""

from dataclasses import dataclass

from sqlalchemy import Connection

from intelligentscan.stores.governance.tables import PREFIX, SCHEMA

_SQLITE_COLUMNS = """
SELECT m.name, p.name FROM main.sqlite_master AS m JOIN pragma_table_xinfo(m.name, 'main') AS p
WHERE m.type = 'table' AND substr(m.name, 1, 7) <> 'sqlite_'
"""
_SQLITE_KEYS = """
SELECT m.name, f."from", f."table" FROM main.sqlite_master AS m JOIN pragma_foreign_key_list(m.name, 'main') AS f
WHERE m.type = 'table'
"""
_POSTGRES_HOME = """
SELECT n.nspname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = 'experiments' AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'gov'
ORDER BY array_position(current_schemas(false), n.nspname) NULLS LAST LIMIT 1
"""
_POSTGRES_COLUMNS = """
SELECT n.nspname, c.relname, a.attname FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname IN (%s, %s)
ORDER BY n.nspname, c.relname, a.attnum
"""
_POSTGRES_KEYS = """
SELECT c.relname, a.attname, t.relname FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS t ON t.oid = k.confrelid
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
WHERE k.contype = 'f' AND n.nspname = %s
"""


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables and columns of one database.

    Attributes:
        dialect: `sqlite` or `postgresql`.
        home: the PostgreSQL schema that MLflow's tables lie in; empty on SQLite, and where there are none.
        columns: the columns of MLflow's tables and of others beside them, sorted by table.
        governance: the plain names of the governance tables that are there.
        references: for each foreign key between MLflow's tables: table, column, table referred to.
    """

    dialect: str
    home: str
    columns: tuple[tuple[str, tuple[str, ...]], ...]
    governance: tuple[str, ...]
    references: tuple[tuple[str, str, str], ...]

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """The columns by table."""
        return dict(self.columns)

    def of_mlflow(self, table: str) -> str:
        """Return how a table of MLflow is called in SQL."""
        return f"{quoted(self.home)}.{table}" if self.home else table

    def of_governance(self, table: str) -> str:
        """Return how a governance table is called in SQL."""
        return f"{SCHEMA}.{table}" if self.dialect == "postgresql" else f"{PREFIX}{table}"


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def read_schema(connection: Connection) -> Schema:
    """Look at the connected database."""
    if connection.dialect.name == "postgresql":
        return _read_postgres(connection)
    if connection.dialect.name == "sqlite":
        return _read_sqlite(connection)
    raise ValueError(f"there are no guards for {connection.dialect.name}")


def _read_sqlite(connection: Connection) -> Schema:
    columns = _grouped(connection.exec_driver_sql(_SQLITE_COLUMNS))
    governance = tuple(sorted(name[len(PREFIX) :] for name in columns if name.startswith(PREFIX)))
    own = {name: found for name, found in columns.items() if not name.startswith(PREFIX)}
    references = tuple(sorted({tuple(row) for row in connection.exec_driver_sql(_SQLITE_KEYS) if row[0] in own}))
    return Schema("sqlite", "", _sorted(own), governance, references)


def _read_postgres(connection: Connection) -> Schema:
    home: str = connection.exec_driver_sql(_POSTGRES_HOME).scalar() or ""
    found: dict[str, dict[str, list[str]]] = {home: {}, SCHEMA: {}}
    for space, table, column in connection.exec_driver_sql(_POSTGRES_COLUMNS, (home, SCHEMA)):
        found[space].setdefault(table, []).append(column)
    references = tuple(sorted({tuple(row) for row in connection.exec_driver_sql(_POSTGRES_KEYS, (home,))}))
    return Schema("postgresql", home, _sorted(found[home]), tuple(sorted(found[SCHEMA])), references)


def _grouped(rows: object) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {}
    for table, column in rows:  # type: ignore[attr-defined]
        columns.setdefault(table, []).append(column)
    return columns


def _sorted(columns: dict[str, list[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((table, tuple(columns[table])) for table in sorted(columns))
