"""Changes a SQLite file as a whole: on a copy, while nobody else has it open, published in one transaction.

MLflow's migrations on SQLite rebuild tables statement by statement, and a process killed in between leaves
half a schema. So they run on a copy. The copy's pages are then written back by SQLite's own backup, which is
one transaction on the original file: after a kill at any point the next process that opens it finds either
the old content or the new. The file itself stays the same one, so that no other process can go on writing
to a predecessor of it.
"""

import glob
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from intelligentscan.domain.errors import Refused, StoreBroken

logger = logging.getLogger(__name__)
_WAIT_S = 5.0
_PAGES_AT_ONCE = 2000
_PROCESSES = Path("/proc")


class Alone:
    """A SQLite file that no other process has open, and the one connection to it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """Hand out a copy in the same folder; it is removed at the end.

        Raises:
            StoreBroken: the disk has no room for it.
        """
        self._make_room()
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.upgrade-", dir=self.path.parent)
        os.close(handle)
        try:
            self._copy_to(Path(name))
            yield Path(name)
        finally:
            _remove(Path(name))

    def keep(self, name: str) -> Path:
        """Keep the present content beside the file, for its owner alone, in place of an older file of that name."""
        handle, fresh = tempfile.mkstemp(prefix=f".{self.path.name}.upgrade-", dir=self.path.parent)
        os.close(handle)
        kept = self.path.parent / name
        self._copy_to(Path(fresh))
        _sync(Path(fresh))
        Path(fresh).replace(kept)
        _sync(self.path.parent)
        return kept

    def publish(self, changed: Path) -> None:
        """Write the content of another file into this one, in one transaction.

        Raises:
            StoreBroken: the other file is damaged, or this one cannot be written; it is as it was.
        """
        try:
            with closing(sqlite3.connect(changed)) as source:
                if (found := source.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise StoreBroken(f"The upgraded copy is damaged: {found}.", next="check the disk, then try again.")
                source.backup(self._connection, pages=_PAGES_AT_ONCE, progress=_report)
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as exc:
            raise StoreBroken(
                f"The store's file {self.path.name} could not be written: {exc}; it is as it was.",
                next="see that the disk has room and that this account owns the file, then try again.",
            ) from exc
        # SQLite has synced the file itself. Opening it here once more would give its lock away when that is closed.
        _sync(self.path.parent)

    def _copy_to(self, target: Path) -> None:
        with closing(sqlite3.connect(target)) as copy:
            copy.execute("PRAGMA synchronous = OFF")  # only `keep` needs it on the disk, and syncs it itself
            self._connection.backup(copy)

    def _make_room(self) -> None:
        for leftover in self.path.parent.glob(f".{glob.escape(self.path.name)}.upgrade-*"):
            _remove(leftover)  # of an upgrade that was killed: nobody else can be at it now
        # The copy grows while tables are rebuilt; beside it come the backup and what the last transaction writes.
        needed = 4 * self.path.stat().st_size + 2**24
        if shutil.disk_usage(self.path.parent).free < needed:
            raise StoreBroken(
                f"The disk has too little room for the upgrade: it needs {needed // 2**20} MiB beside the store.",
                next=f"free some space in the folder of {self.path.name}, then try again.",
            )


@contextmanager
def alone(path: Path) -> Iterator[Alone]:
    """Hold a SQLite file so that no other process reads or writes it meanwhile.

    Raises:
        Refused: another process, or another connection of this one, has it open.
        StoreBroken: it is not there, or cannot be opened for writing.
    """
    path = path.resolve()
    if not path.is_file():
        raise StoreBroken(f"There is no store at {path}.", next="check MLFLOW_TRACKING_URI and INTELLIGENTSCAN_HOME.")
    if others := open_elsewhere(path):
        raise _in_use(path, others)
    with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as connection:
        try:
            # Set before the first access: WAL then keeps its index in memory and asks for the file's own lock,
            # which even an idle connection elsewhere holds.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            if "locked" in str(exc):
                raise _in_use(path, open_elsewhere(path)) from exc
            raise _unusable(path, exc) from exc
        except sqlite3.DatabaseError as exc:
            raise _unusable(path, exc) from exc
        if others := open_elsewhere(path):  # came between the first look and the lock, and waits for it
            raise _in_use(path, others)
        yield Alone(path, connection)


def open_elsewhere(path: Path) -> list[int]:
    """Return the ids of other processes that have a file open, as far as the system tells; empty if it does not."""
    if not _PROCESSES.is_dir():
        return []
    wanted = path.stat()
    found = set()
    for process in _PROCESSES.glob("[0-9]*"):
        # A process may end while it is looked at, and those of other accounts do not show their files.
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    target = descriptor.stat()
                    if (target.st_dev, target.st_ino) == (wanted.st_dev, wanted.st_ino):
                        found.add(int(process.name))
    return sorted(found - {os.getpid()})


def _in_use(path: Path, processes: list[int]) -> Refused:
    named = f" by process {', '.join(map(str, processes[:10]))}" if processes else ""
    return Refused(
        f"The store's file {path.name} is in use{named}; an upgrade needs it alone.",
        next="end what uses the store (assistants, notebooks, the MLflow server), then repeat the command.",
        details={"processes": processes},
    )


def _unusable(path: Path, exc: sqlite3.Error) -> StoreBroken:
    return StoreBroken(
        f"The store's file {path.name} cannot be opened for writing: {exc}.",
        next="run the command from the account that owns the file and its folder.",
    )


def _report(_status: int, remaining: int, total: int) -> None:
    logger.debug("published %d of %d pages", total - remaining, total)


def _remove(path: Path) -> None:
    for each in (path, Path(f"{path}-journal"), Path(f"{path}-wal"), Path(f"{path}-shm")):
        each.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
