"""MLflow's schema in a database: its revision, and MLflow's own migrations inside a transaction of ours.

The migrations take their connection from what is handed to their `env.py`, and leave the transaction alone
if there is one already.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy
from alembic import command
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from mlflow.store.db.base_sql_model import Base
from mlflow.store.db.utils import _get_alembic_config
from sqlalchemy import Connection

from intelligentscan.stores.row_digests import LeftOut

MIGRATION_LEASE = 0x1A7E_1153
"""The advisory lock under which one process at a time migrates a PostgreSQL database."""
_COSTS = ("input_cost", "output_cost", "total_cost")
_TOKENS = (
    "input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
)  # fmt: skip
_MOVES = {
    # Names, tokens and costs of traces and spans become columns of the rows that they describe.
    "75868b020152": LeftOut(
        rows=frozenset({
            ("trace_tags", "key", "mlflow.traceName"),
            *(("trace_request_metadata", "key", f"mlflow.trace.{name}") for name in ("session", "tokenUsage", "cost")),
            *(("trace_metrics", "key", name) for name in _TOKENS),
            *(("span_metrics", "key", name) for name in _COSTS),
        }),
        columns=frozenset({("spans", "dimension_attributes")}),
    ),
}  # fmt: skip
"""What MLflow's migrations move within an experiment, by revision; any other difference refuses the upgrade."""


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    """How MLflow's schema in a database stands to the installed MLflow.

    Attributes:
        current: the database's revision; None if it has none.
        head: the revision that the installed MLflow needs.
        known: whether the installed MLflow knows the database's revision.
        missing_tables: tables that MLflow would make by itself when it opens the store.
    """

    current: str | None
    head: str
    known: bool
    missing_tables: tuple[str, ...]

    @property
    def at_head(self) -> bool:
        """Whether the schema is the installed MLflow's."""
        return self.current == self.head and not self.missing_tables

    @property
    def would_migrate(self) -> bool:
        """Whether a plain MLflow client would begin to migrate the database just by opening it."""
        return bool(self.missing_tables)


def schema_facts(connection: Connection) -> SchemaFacts:
    """Return how the database's MLflow schema stands to the installed MLflow."""
    script = _script()
    current = MigrationContext.configure(connection).get_current_revision()
    known = current is not None and current in {each.revision for each in script.walk_revisions()}
    there = set(sqlalchemy.inspect(connection).get_table_names())
    missing = tuple(sorted(set(Base.metadata.tables) - there))
    return SchemaFacts(current, str(script.get_current_head()), known, missing)


def mlflow_tables() -> frozenset[str]:
    """Return the names of all tables of the installed MLflow, and of the one that holds the schema's revision."""
    return frozenset(Base.metadata.tables) | {"alembic_version"}


def moved_between(current: str, head: str) -> LeftOut:
    """Return what MLflow itself moves on the way from one revision to a later one."""
    passed = {each.revision for each in _script().iterate_revisions(head, current)}
    moves = [left_out for revision, left_out in _MOVES.items() if revision in passed]
    return LeftOut(
        frozenset().union(*(each.rows for each in moves)), frozenset().union(*(each.columns for each in moves))
    )


class _Lent:
    """What MLflow's `env.py` takes for a connection to a database, and asks for another one: it gets ours."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def engine(self) -> "_Lent":
        return self

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        yield self._connection


def migrate(connection: Connection) -> None:
    """Bring MLflow's tables to the installed MLflow's schema, in the caller's transaction.

    Raises:
        RuntimeError: a migration met data that it cannot carry over.
        SQLAlchemyError: the database refused a statement.
    """
    config = _get_alembic_config("sqlite://")
    config.attributes["connection"] = _Lent(connection)
    command.upgrade(config, "heads")


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_get_alembic_config(""))
