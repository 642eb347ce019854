"""The SQLite file under a store: created whole or not at all, and kept fast for every client on it."""

import fcntl
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from intelligentscan.domain.errors import StoreBroken

logger = logging.getLogger(__name__)
ANALYZE_FIRST_AT = 50
"""Runs after which planner statistics are first made; they are made anew whenever the number has doubled."""


def create_if_missing(path: Path, artifact_root: str) -> None:
    """Create the store's file unless it is there.

    MLflow's migrations run on a file of another name in the same folder, which then gets the right
    name by a hard link; the link fails if somebody else was faster. A process killed in between
    leaves a file that nobody opens; the next creator removes it.

    Raises:
        StoreBroken: the file is there but is no complete MLflow database.
    """
    if path.exists():
        _check(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _creating(path):
        if path.exists():
            _check(path)
            return
        for leftover in path.parent.glob(f".{path.name}.new-*"):
            leftover.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.new-", dir=path.parent)
        os.close(handle)
        fresh = Path(name)
        try:
            _migrate(fresh, artifact_root)
            os.link(fresh, path)
        except FileExistsError:
            logger.info("another process created the store first")
        finally:
            for leftover in (fresh, Path(f"{fresh}-wal"), Path(f"{fresh}-shm")):
                leftover.unlink(missing_ok=True)


@contextmanager
def _creating(path: Path) -> Iterator[None]:
    """Let one process at a time create; the kernel frees the lease of a killed one."""
    with (path.parent / f".{path.name}.creating").open("w") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        yield


def _migrate(fresh: Path, artifact_root: str) -> None:
    with closing(sqlite3.connect(fresh)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    SqlAlchemyStore(f"sqlite:///{fresh}", artifact_root)._dispose_engine()
    SqlAlchemyStore._engine_map.pop(f"sqlite:///{fresh}", None)
    with closing(sqlite3.connect(fresh)) as connection:
        connection.execute("ANALYZE")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _check(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as connection:
            found = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('alembic_version', 'experiments')"
            ).fetchone()[0]
    except sqlite3.Error as exc:
        raise StoreBroken(
            f"The store's file {path.name} cannot be opened: {exc}.",
            next=f"move {path} away, or set MLFLOW_TRACKING_URI to another store.",
        ) from exc
    if found != 2:
        raise StoreBroken(
            f"The store's file {path.name} is no complete MLflow database.",
            next=f"move {path} away, or set MLFLOW_TRACKING_URI to another store.",
        )


def quicken(engine: Engine) -> None:
    """Let new connections of this engine sync once per checkpoint instead of per commit, which is safe with WAL."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            connection.execute("PRAGMA synchronous = NORMAL")

    engine.dispose()


class PlannerStatistics:
    """Keeps SQLite's planner statistics fresh enough that ordering runs by a metric stays linear.

    Without them SQLite joins MLflow's sorting subquery without an index: quadratic time.
    """

    def __init__(self, path: Path) -> None:
        self._engine = sqlalchemy.create_engine(f"sqlite:///{path}", poolclass=NullPool)
        self._writes = 0

    def after_write(self) -> None:
        """Look at the statistics now and then: after 1, 2, 4, 8 … writes, later after every 256."""
        self._writes += 1
        if self._writes % 256 == 0 or self._writes & (self._writes - 1) == 0:
            self.freshen()

    def freshen(self) -> None:
        """Run ANALYZE if the number of runs has doubled since the last time."""
        try:
            with self._engine.connect() as connection:
                runs = connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one()
                if runs < ANALYZE_FIRST_AT:
                    return
                known = connection.exec_driver_sql(
                    "SELECT max(CAST(stat AS INTEGER)) FROM sqlite_stat1 WHERE tbl = 'runs'"
                ).scalar()
                if known is None or runs >= 2 * known:
                    connection.exec_driver_sql("ANALYZE")
                    connection.commit()
        except sqlalchemy.exc.OperationalError:
            logger.info("planner statistics could not be refreshed now", exc_info=True)
