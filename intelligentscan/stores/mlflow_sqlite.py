"""The SQLite file under a store: created whole or not at all, and kept fast for every client on it."""

import fcntl
import glob
import logging
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import sqlalchemy
from mlflow.store.db.base_sql_model import Base
from mlflow.store.db.utils import create_sqlalchemy_engine
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from intelligentscan.domain.errors import StoreBroken
from intelligentscan.settings import sqlite_uri
from intelligentscan.stores.governance.migrations import migrate
from intelligentscan.stores.guards import install as guards

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
        if any(_leftovers(path)):  # of a process killed just after the link
            with suppress(OSError), _creating(path):
                _remove_leftovers(path)
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _creating(path):
        _remove_leftovers(path)
        if path.exists():
            _check(path)
            return
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


def _leftovers(path: Path) -> Iterator[Path]:
    """Return the files that creators of this store left when they were killed; call it with their lease to be sure."""
    return path.parent.glob(f".{glob.escape(path.name)}.new-*")


def _remove_leftovers(path: Path) -> None:
    for leftover in _leftovers(path):
        leftover.unlink(missing_ok=True)


def _migrate(fresh: Path, artifact_root: str) -> None:
    uri = sqlite_uri(fresh)
    with closing(sqlite3.connect(fresh)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    give_engines(uri)
    try:
        SqlAlchemyStore(uri, "/")
    finally:
        for store in (SqlAlchemyStore, RegistryStore):
            store._engine_map.pop(uri).dispose()
    with closing(sqlite3.connect(fresh)) as connection:
        # MLflow would write the root into its SQL as it is, and stumble over quotes and colons in it.
        location = f"{artifact_root.rstrip('/')}/0"
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (location,))
        connection.commit()
    govern(uri)
    with closing(sqlite3.connect(fresh)) as connection:
        connection.execute("ANALYZE")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def govern(uri: str) -> None:
    """Make governance tables and guards in a SQLite store."""
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as connection:
        migrate(connection)
        guards.drop(connection)
        guards.install(connection)
    engine.dispose()


def give_engines(uri: str) -> None:
    """Give MLflow's stores their engines for a file.

    Left to themselves, they try for 100 s to open a file that cannot be opened, and make a folder named
    like the URI where it differs from the path.
    """
    for store in (SqlAlchemyStore, RegistryStore):
        with store._engine_map_lock:
            if uri not in store._engine_map:
                store._engine_map[uri] = _quickened(create_sqlalchemy_engine(uri))


def _leave_to_parent() -> None:
    """Give every engine new connections after a fork: those of the parent cannot be shared, nor closed here."""
    for store in (SqlAlchemyStore, RegistryStore):
        for engine in store._engine_map.values():
            _of_parent.append(engine.pool)
            engine.dispose(close=False)


_of_parent: list[Pool] = []
os.register_at_fork(after_in_child=_leave_to_parent)


def _check(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
            found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as exc:
        if "readonly" in str(exc):  # to read a file in WAL mode, SQLite writes beside it
            raise StoreBroken(
                f"The store's file {path.name} may not be written by this user.",
                next=f"give this user {path} and its folder, or set MLFLOW_TRACKING_URI to another store.",
            ) from exc
        raise StoreBroken(
            f"The store's file {path.name} cannot be opened: {exc}.",
            next=f"move {path} away, or set MLFLOW_TRACKING_URI to another store.",
        ) from exc
    if not {"alembic_version", "experiments"} <= found:
        raise StoreBroken(
            f"The store's file {path.name} is no complete MLflow database.",
            next=f"move {path} away, or set MLFLOW_TRACKING_URI to another store.",
        )
    if missing := set(Base.metadata.tables) - found:  # MLflow would migrate the file that others are using
        raise StoreBroken(
            f"The store's file {path.name} was made by another release of MLflow: it lacks {len(missing)} tables.",
            next="back it up, end what uses it, then run 'intelligentscan db upgrade'.",
        )


def _quickened(engine: Engine) -> Engine:
    """Let connections of a new engine sync once per checkpoint instead of per commit, which is safe with WAL."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            connection.execute("PRAGMA synchronous = NORMAL")

    return engine


class PlannerStatistics:
    """Keeps SQLite's planner statistics fresh enough that ordering runs by a metric stays linear.

    Without them SQLite joins MLflow's sorting subquery without an index: quadratic time. A connection
    reads them once, when it is opened, so pooled ones are renewed when they have changed.

    Args:
        path: the file.
        engines: engines on it, whose pools are renewed.
    """

    def __init__(self, path: Path, *engines: Engine) -> None:
        self._path = path
        self._pooled = engines
        self._seen: int | None = None
        self._writes = 0
        self._one_at_a_time = threading.Lock()

    def after_write(self) -> None:
        """Look at the statistics now and then: after 1, 2, 4, 8 … writes, later after every 256."""
        self._writes += 1
        if self._writes % 256 == 0 or self._writes & (self._writes - 1) == 0:
            self.freshen()

    def freshen(self) -> None:
        """Run ANALYZE if the number of runs has doubled since the last time, by whomever they were written."""
        try:
            with self._one_at_a_time, closing(sqlite3.connect(self._path, timeout=20)) as connection:
                runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
                if runs < ANALYZE_FIRST_AT:
                    return
                known = _known_runs(connection)
                if known is None or runs >= 2 * known:
                    connection.execute("ANALYZE")
                    connection.commit()
                    known = _known_runs(connection)
                if known != self._seen:
                    self._seen = known
                    for engine in self._pooled:
                        engine.dispose()
        except sqlite3.OperationalError:
            logger.info("planner statistics could not be refreshed now", exc_info=True)


def _known_runs(connection: sqlite3.Connection) -> int | None:
    """Return how many runs there were when the statistics were made, None if they never were."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone():
        return None
    query = "SELECT max(CAST(stat AS INTEGER)) FROM sqlite_stat1 WHERE tbl = 'runs'"
    known: int | None = connection.execute(query).fetchone()[0]
    return known
