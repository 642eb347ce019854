"""What a SQLite store says about itself without MLflow: its journal mode and how much it holds."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from intelligentscan.domain.errors import StoreBroken

_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class SqliteFacts:
    """Journal mode, and the numbers of active experiments and runs."""

    journal_mode: str
    experiments: int
    runs: int


def read_facts(path: Path) -> SqliteFacts:
    """Look into a store's file without changing it.

    Raises:
        StoreBroken: it cannot be opened, or is no MLflow database.
    """
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_WAIT_S)) as connection:
            return SqliteFacts(
                journal_mode=str(connection.execute("PRAGMA journal_mode").fetchone()[0]),
                experiments=_active(connection, "experiments"),
                runs=_active(connection, "runs"),
            )
    except sqlite3.Error as exc:
        raise StoreBroken(
            f"The store's file cannot be read as an MLflow database: {exc}.",
            next=f"move {path} away, or set MLFLOW_TRACKING_URI to another store.",
        ) from exc


def _active(connection: sqlite3.Connection, table: str) -> int:
    # `table` is one of two constants above.
    found = connection.execute(f"SELECT count(*) FROM {table} WHERE lifecycle_stage = 'active'")  # noqa: S608
    return int(found.fetchone()[0])
