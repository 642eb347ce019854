"""Digests of the rows that a lock or a seal keeps as they are: one SHA-256 per table, recomputable after upgrades.

A digest says which columns it covers and in which order it took the rows, so that it can be computed again
when a later schema has more columns or longer keys. The bytes that are hashed are JSON: a header with the
table and its columns, then one array per row, each followed by a comma. Numbers are what Python's shortest
representation of the IEEE value says, truth values are 0 and 1, text stays text, bytes and JSON documents
are wrapped in an object of their own, so that no two different rows give the same bytes.

Rows are sorted by the database, bytewise, and read in pieces: memory stays bounded. On SQLite and PostgreSQL
the driver's own cursor is read, since a registration hashes millions of metrics while it holds its locks.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import rfc8785
from sqlalchemy import Connection, text

from intelligentscan.domain.errors import StoreBroken
from intelligentscan.stores.row_selection import ExperimentRows, TypedSchema, VersionRows, quoted, rows_of

FORMAT = 1
Kind = Literal["changed", "rows added", "rows removed", "table missing", "column missing", "not covered"]
_PIECE = 1000
_JSON_TYPES = frozenset({"json", "jsonb"})


@dataclass(frozen=True, slots=True)
class TableDigest:
    """The rows of one table.

    Attributes:
        columns: what is covered, sorted by name.
        order: what the rows are sorted by; decides for each row, together with what the digest is of.
    """

    name: str
    columns: tuple[str, ...]
    order: tuple[str, ...]
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RowsDigest:
    """The digests of all tables that hold rows of one experiment or version."""

    of: ExperimentRows | VersionRows
    tables: tuple[TableDigest, ...]

    @property
    def document(self) -> dict[str, Any]:
        """What is archived: JSON values."""
        match self.of:
            case ExperimentRows(experiment_id):
                of: dict[str, Any] = {"experiment_id": experiment_id}
            case VersionRows(workspace, name, version):
                of = {"workspace": workspace, "name": name, "version": version}
        tables = {
            table.name: {
                "columns": list(table.columns),
                "order": list(table.order),
                "rows": table.rows,
                "sha256": table.sha256,
            }
            for table in self.tables
        }
        return {"format": FORMAT, "of": of, "tables": tables}

    @property
    def digest(self) -> str:
        """SHA-256 of the document's canonical JSON."""
        return hashlib.sha256(rfc8785.dumps(self.document)).hexdigest()

    @property
    def rows(self) -> int:
        """How many rows there are in all tables."""
        return sum(table.rows for table in self.tables)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "RowsDigest":
        """Read an archived document.

        Raises:
            StoreBroken: it is none, or was written by a later release.
        """
        try:
            if document["format"] != FORMAT:
                raise ValueError("another format")
            of = document["of"]
            tables = tuple(
                TableDigest(
                    name, tuple(map(str, t["columns"])), tuple(map(str, t["order"])), int(t["rows"]), t["sha256"]
                )
                for name, t in sorted(document["tables"].items())
            )
            if "experiment_id" in of:
                return cls(ExperimentRows(str(of["experiment_id"])), tables)
            return cls(VersionRows(str(of["workspace"]), str(of["name"]), int(of["version"])), tables)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise StoreBroken(
                "A record of row digests cannot be read: it was changed, or written by a later release.",
                next="use the newest release of intelligentscan; if it is the newest, restore the archive's folder.",
            ) from exc


@dataclass(frozen=True, slots=True)
class Difference:
    """One table that is not as it was recorded."""

    table: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a digest passes over because MLflow itself moves it during an upgrade.

    Attributes:
        rows: table, column and value: rows that hold this value there.
        columns: table and column.
    """

    rows: frozenset[tuple[str, str, str]] = frozenset()
    columns: frozenset[tuple[str, str]] = frozenset()


NOTHING = LeftOut()


def experiment_digest(connection: Connection, experiment_id: str, left_out: LeftOut = NOTHING) -> RowsDigest:
    """Digest every row of every table that belongs to an experiment, in the caller's transaction."""
    return _digest(connection, ExperimentRows(str(int(experiment_id))), {}, left_out)


def version_digest(
    connection: Connection, workspace: str, name: str, version: int, left_out: LeftOut = NOTHING
) -> RowsDigest:
    """Digest the rows of a model version and of its tags, without its stage and the time of its last change."""
    return _digest(connection, VersionRows(workspace, name, version), {}, left_out)


def recompute(connection: Connection, recorded: RowsDigest, left_out: LeftOut = NOTHING) -> RowsDigest:
    """Digest the same rows again, over the columns that were covered then and are still there."""
    return _digest(connection, recorded.of, {table.name: table for table in recorded.tables}, left_out)


def compare(connection: Connection, document: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return what is no longer as an archived document says; nothing if all rows are as they were.

    `not covered` names a table that holds rows now and that the document does not know.

    Raises:
        StoreBroken: the document cannot be read.
    """
    recorded = RowsDigest.from_document(document)
    return differences(recorded, recompute(connection, recorded))


def differences(before: RowsDigest, after: RowsDigest) -> tuple[Difference, ...]:
    """Return in which tables a recomputed digest differs from the recorded one."""
    found: list[Difference] = []
    now = {table.name: table for table in after.tables}
    for table in before.tables:
        again = now.pop(table.name, None)
        if again is None:
            found.append(Difference(table.name, "table missing"))
        elif (again.columns, again.order) != (table.columns, table.order):
            found.append(Difference(table.name, "column missing"))
        elif again.rows != table.rows:
            found.append(Difference(table.name, "rows added" if again.rows > table.rows else "rows removed"))
        elif again.sha256 != table.sha256:
            found.append(Difference(table.name, "changed"))
    found += [Difference(table.name, "not covered") for table in now.values() if table.rows]
    return tuple(found)


def _digest(
    connection: Connection,
    of: ExperimentRows | VersionRows,
    recorded: Mapping[str, TableDigest],
    left_out: LeftOut,
) -> RowsDigest:
    typed = TypedSchema.read(connection)
    tables = []
    for selection in sorted(rows_of(typed.schema, of), key=lambda s: s.table):
        name, covered, order = selection.table, selection.columns, selection.order
        if before := recorded.get(name):
            present = typed.types[name]
            covered = tuple(column for column in before.columns if column in present)
            order = tuple(column for column in before.order if column in present)
        columns = tuple(column for column in covered if (name, column) not in left_out.columns)
        where, values = f"({selection.where})", dict(selection.values)
        for number, (_, column, value) in enumerate(sorted(each for each in left_out.rows if each[0] == name)):
            where += f" AND (r.{quoted(column)} = :left_out{number}) IS NOT TRUE"
            values[f"left_out{number}"] = value
        rows, sha256 = _hash(connection, typed, name, columns, order, where, values)
        tables.append(TableDigest(name, columns, order, rows, sha256))
    return RowsDigest(of, tuple(tables))


def _hash(
    connection: Connection,
    typed: TypedSchema,
    table: str,
    columns: tuple[str, ...],
    order: tuple[str, ...],
    where: str,
    values: dict[str, Any],
) -> tuple[int, str]:
    types = typed.types[table]
    dialect = typed.schema.dialect
    shown = ", ".join(_selected(column, types[column], dialect) for column in columns)
    sorting = ", ".join(f"r.{quoted(column)}{_bytewise(types[column], dialect)}" for column in order)
    statement = f"SELECT {shown} FROM {typed.schema.of_mlflow(table)} AS r WHERE {where}"  # noqa: S608
    statement += f" ORDER BY {sorting}" if sorting else ""
    documents = [number for number, column in enumerate(columns) if types[column] in _JSON_TYPES]
    header = json.dumps([table, columns]).encode("ascii")
    try:
        return _hash_rows(header, documents, _pieces(connection, statement, values))
    except sqlite3.OperationalError as exc:
        if "decode" not in str(exc):
            raise
    # Bytes that are no UTF-8 must give a digest too: they are what a hostile hand may leave.
    return _hash_rows(header, documents, _pieces(connection, statement, values, _lenient))


def _hash_rows(header: bytes, documents: list[int], pieces: Iterator[list[tuple[Any, ...]]]) -> tuple[int, str]:
    digest = hashlib.sha256(header)
    rows = 0
    for piece in pieces:
        encoded = [_with_documents(row, documents) for row in piece] if documents else piece
        digest.update(_encode(encoded)[1:-1].encode("ascii"))
        digest.update(b",")
        rows += len(piece)
    return rows, digest.hexdigest()


def _selected(column: str, kind: str, dialect: str) -> str:
    shown = f"r.{quoted(column)}"
    if dialect == "postgresql" and kind in _JSON_TYPES:
        return f"{shown}::text"
    # A later schema may hold a truth value as a number, as SQLite always does.
    return f"{shown}::integer" if dialect == "postgresql" and kind == "bool" else shown


def _bytewise(kind: str, dialect: str) -> str:
    if dialect == "sqlite":
        return " COLLATE BINARY"
    return ' COLLATE "C"' if kind in {"varchar", "text", "bpchar"} else ""


def _with_documents(row: tuple[Any, ...], documents: list[int]) -> list[Any]:
    """Return the row with its JSON documents in canonical form."""
    changed = list(row)
    for number in documents:
        value = changed[number]
        if isinstance(value, str):
            try:
                changed[number] = {"json": json.dumps(json.loads(value), sort_keys=True, separators=(",", ":"))}
            except ValueError:
                changed[number] = {"no json": value}
    return changed


def _other(value: object) -> object:
    """Return how a value that JSON does not know is written."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    return {type(value).__name__: str(value)}


_encode = json.JSONEncoder(separators=(",", ":"), default=_other).encode


def _lenient(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _pieces(
    connection: Connection, statement: str, values: dict[str, Any], read_text: Callable[[bytes], str] = str
) -> Iterator[list[tuple[Any, ...]]]:
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "sqlite":
        # A named cursor is one of the server's: without, the driver would read all rows at once.
        with driver.cursor(name="intelligentscan_rows") as cursor:
            cursor.execute(str(text(statement).compile(dialect=connection.dialect)), values)
            while rows := cursor.fetchmany(_PIECE):
                yield rows
        return
    usual, driver.text_factory = driver.text_factory, read_text
    try:
        cursor = driver.execute(statement, values)
        while rows := cursor.fetchmany(_PIECE):
            yield rows
    finally:
        driver.text_factory = usual
