"""What is locked and sealed in a hostile world, found by the names of columns alone: it owes nothing to the product."""

# ruff: noqa: S608  the names in these statements come from the database's own catalogue

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from hostile import World

WRITING = (
    "INSERT",
    "UPDATE",
    "DELETE",
    "REPLACE",
    "MERGE",
    "TRUNCATE",
    "COPY",
    "WITH",
    "DROP",
    "ALTER",
    "CREATE",
    "DO",
)
REGISTRY = ("registered_models", "model_versions", "model_version_tags")
_FREE = {"model_versions": ("current_stage", "last_updated_time"), "registered_models": ("last_updated_time",)}
_RUNS = "SELECT run_uuid FROM runs WHERE experiment_id = {e}"
_MODELS = "SELECT model_id FROM logged_models WHERE experiment_id = {e}"
_TRACES = "SELECT request_id FROM trace_info WHERE experiment_id = {e}"
LEADING = {
    **dict.fromkeys(("run_uuid", "run_id", "source_run_id"), _RUNS),
    **dict.fromkeys(("request_id", "trace_id"), _TRACES),
    "model_id": _MODELS,
    "input_uuid": f"SELECT input_uuid FROM inputs WHERE destination_id IN ({_RUNS})",
    "scorer_id": "SELECT scorer_id FROM scorers WHERE experiment_id = {e}",
    "queue_id": "SELECT queue_id FROM review_queues WHERE experiment_id = {e}",
    "dataset_uuid": "SELECT dataset_uuid FROM datasets WHERE experiment_id = {e}",
    "destination_id": f"{_RUNS} UNION {_MODELS} UNION {_TRACES}",
}
_NOT_MLFLOWS = ("gov_", "sql_", "guardrail")  # ours, and sums that MLflow's background jobs make anew


@dataclass(frozen=True)
class Stored:
    """A table."""

    schema: str
    name: str
    columns: tuple[str, ...]
    written: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.schema}.{self.name}"


def tables(world: "World") -> list[Stored]:
    """Return every table of the store."""
    if world.backend not in _known:
        with world.owning.connect() as connection:
            inspector = sqlalchemy.inspect(connection)
            _known[world.backend] = [
                _stored(inspector, schema, name)
                for schema in (("main",) if world.sqlite else ("public", "gov"))
                for name in sorted(inspector.get_table_names(schema))
            ]
    return _known[world.backend]


def _stored(inspector: Any, schema: str, name: str) -> Stored:
    columns = inspector.get_columns(name, schema)
    return Stored(
        schema,
        name,
        tuple(str(column["name"]) for column in columns),
        tuple(str(column["name"]) for column in columns if "computed" not in column),
        tuple(inspector.get_pk_constraint(name, schema)["constrained_columns"]),
    )


_known: dict[str, list[Stored]] = {}


def belonging(table: Stored, experiment_id: str) -> str | None:
    """Return the condition of rows that belong to an experiment; None if none of the table can."""
    if table.schema == "gov" or table.name.startswith(_NOT_MLFLOWS) or table.name in REGISTRY:
        return None
    found = [f"{column} IN ({LEADING[column]})" for column in table.columns if column in LEADING]
    if "experiment_id" in table.columns:
        found.append("experiment_id = {e}")
    either = " OR ".join(found).format(e=experiment_id)
    if table.name == "logged_model_tags":  # written by each registration from that model
        return f"tag_key <> 'mlflow.modelVersions' AND ({either})"
    if table.name == "inputs":  # a run elsewhere may take the model as its input
        return f"source_type <> 'RUN_INPUT' AND ({either})"
    return either or None


def belonging_tables(world: "World") -> list[Stored]:
    """Return the tables whose rows belong to experiments."""
    return [table for table in tables(world) if belonging(table, "0") is not None]


def everything(world: "World") -> dict[str, str]:
    """Return a digest of every row of every table of the store, MLflow's and ours."""
    return _digests(world, lambda _: "1 = 1", whole=True)


def locked_rows(world: "World") -> dict[str, str]:
    """Return a digest of what is locked and sealed: rows of `fraud`, and of `fm` but for its stage and aliases."""

    def where(table: Stored) -> str | None:
        return "name = 'fm'" if table.name in REGISTRY else belonging(table, world.ids.fraud)

    return _digests(world, where, whole=False)


def _digests(world: "World", where: Callable[[Stored], str | None], *, whole: bool) -> dict[str, str]:
    wanted = []
    for table in tables(world):
        if (condition := where(table)) is not None:
            left_out = () if whole else _FREE.get(table.name, ())
            kept = ", ".join(f'"{column}"' for column in table.columns if column not in left_out)
            wanted.append((table.name, f"SELECT {kept} FROM {table.place} WHERE {condition}"))
    with world.owning.connect() as connection:
        if world.sqlite:
            rows = {name: sorted(map(repr, connection.exec_driver_sql(query))) for name, query in wanted}
            return {name: hashlib.sha256(repr(found).encode()).hexdigest()[:16] for name, found in rows.items()}
        each = "SELECT '{}', md5(coalesce(string_agg(r::text, '|' ORDER BY r::text), '')) FROM ({}) AS r"
        every = " UNION ALL ".join(each.format(name, query) for name, query in wanted)
        return {row[0]: row[1] for row in connection.exec_driver_sql(every)}


@dataclass
class Attempts:
    """What reached the database from an address.

    Attributes:
        writes: statements that would write.
        refused: statements that the database refused.
    """

    writes: int = 0
    refused: int = 0


@contextmanager
def counted(world: "World") -> Iterator[Attempts]:
    """Count the attacker's statements, through MLflow or raw."""
    seen, here = Attempts(), sqlalchemy.make_url(world.plain)

    def before(connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        seen.writes += connection.engine.url == here and sql.lstrip().upper().startswith(WRITING)

    def failed(context: Any) -> None:
        seen.refused += context.engine is not None and context.engine.url == here

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "handle_error", failed)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", before)
        event.remove(Engine, "handle_error", failed)


def fill_rest(world: "World", experiment_id: str, known: dict[str, object]) -> None:
    """Give an experiment a row in each table that leads to one and has none of it yet."""
    known = {
        **known, "experiment_id": int(experiment_id), "scorer_id": f"scorer-{experiment_id}",
        "queue_id": f"queue-{experiment_id}", "source_type": "trace", "source_id": known["trace_id"],
        "destination_type": "run", "destination_id": known["run_id"],
    }  # fmt: skip
    with world.owning.connect() as connection:
        spans = sqlalchemy.text("SELECT span_id FROM spans WHERE trace_id = :trace_id")
        known["span_id"] = connection.execute(spans, {"trace_id": known["trace_id"]}).scalar_one()
        wanted = [
            sqlalchemy.Table(table.name, sqlalchemy.MetaData(), autoload_with=connection)
            for table in belonging_tables(world)
            if not connection.exec_driver_sql(
                f"SELECT 1 FROM {table.name} WHERE {belonging(table, experiment_id)}"
            ).first()
        ]
        while wanted:  # parents come before their children sooner or later
            left = []
            for table in wanted:
                row = {c.name: _value(c, known, experiment_id) for c in table.c if c.computed is None}
                try:
                    connection.execute(table.insert().values(row))
                except sqlalchemy.exc.IntegrityError:
                    left.append(table)
            assert len(left) < len(wanted), [table.name for table in left]
            wanted = left


def _value(column: Any, known: dict[str, object], mark: str) -> object:
    if column.name in known:
        return known[column.name]
    kind = column.type.python_type
    return {str: f"{column.name[:12]}-{mark}", bool: False, float: 1.0, dict: {}}.get(kind, 1)
