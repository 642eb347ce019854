"""A bounded file of sealed entries that any number of processes share and none has to trust.

Each entry is encrypted and authenticated (AES-256-GCM) under a key of its own, made with HMAC-SHA-256 from a local key
and from everything the entry depends on, the digest of the scanned file among it. So an entry that somebody wrote or
changed does not open, and one that is ours opens only for whoever still has the very file it is about: a password that
is gone from the source cannot be got back from here. A file that is broken or not ours is thrown away, and nothing
that happens here fails a scan.
"""

import fcntl
import hmac
import logging
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from intelligentscan._local_key import local_key
from intelligentscan.domain.errors import KeyUnavailable

AT_ONCE = 500
"""Names in one statement; the oldest SQLite takes 999."""

FOLDER, FILE = "cache", "results.sqlite"
_LOCK = "results.lock"
_PURPOSE = "scan-cache/1"
_APPLICATION = 0x49534331
_FORMAT = 1
_NONCE_BYTES = 12
_BUSY_S = 3.0
_TOUCHED_AGAIN_S = 3600
_LARGEST_SHARE = 8
_KEPT_SHARE = 0.9
_EVICTED_SHARE = 20
_PASSING = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT,
})  # fmt: skip
"""Errors that say nothing against the file itself."""
_SCHEMA = """
CREATE TABLE entry (name BLOB NOT NULL UNIQUE, sealed BLOB NOT NULL, used INTEGER NOT NULL);
CREATE INDEX entry_used ON entry (used);
"""
logger = logging.getLogger(__name__)


class CacheStore:
    """Entries under names that only the local key leads to; see the module. Its methods block and never raise.

    Args:
        home: INTELLIGENTSCAN_HOME; the folder `cache` in it is made, with mode 0700, when it is first used.
        max_bytes: how large the file may grow, give or take one batch.
        clock: seconds since the epoch.
    """

    def __init__(self, home: Path, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._home = home
        self._folder = home / FOLDER
        self._max_bytes = max_bytes
        self._clock = clock

    def get(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those names that are here; what does not open is deleted.

        Args:
            names: everything an entry depends on, as bytes.
        """
        found: dict[bytes, bytes] = {}
        with self._guarded(), self._session() as (connection, key):
            for start in range(0, len(names), AT_ONCE):
                self._get(connection, key, names[start : start + AT_ONCE], found)
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values under their names, and drop what was not used for longest if they are too many."""
        largest = self._max_bytes // _LARGEST_SHARE
        fit = {name: value for name, value in values.items() if len(value) <= largest}
        if not fit:
            return
        with self._guarded(), self._session() as (connection, key):
            now = int(self._clock())
            rows = [(place := _place(key, name), _sealed(key, name, place, value), now) for name, value in fit.items()]
            for start in range(0, len(rows), AT_ONCE):
                with _writing(connection):
                    connection.executemany(
                        "INSERT INTO entry (name, sealed, used) VALUES (?, ?, ?) "
                        "ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, used = excluded.used",
                        rows[start : start + AT_ONCE],
                    )
                    self._evict(connection)

    def _get(
        self, connection: sqlite3.Connection, key: bytes, names: Sequence[bytes], found: dict[bytes, bytes]
    ) -> None:
        places = {_place(key, name): name for name in names}
        marks = ",".join("?" * len(places))
        rows = connection.execute(
            f"SELECT name, sealed, used FROM entry WHERE name IN ({marks})",  # noqa: S608 - only question marks
            list(places),
        ).fetchall()
        now, bad, old = int(self._clock()), [], []
        for place, sealed, used in rows:
            value = _opened(key, places[place], place, sealed)
            if value is None:
                bad.append(place)
                continue
            found[places[place]] = value
            if not now - _TOUCHED_AGAIN_S < used <= now:
                old.append(place)
        if not bad and not old:
            return
        if bad:
            logger.warning("%d entries of the scan cache were damaged or not ours and are dropped", len(bad))
        with _writing(connection):
            if bad:
                _for_each(connection, "DELETE FROM entry WHERE name IN (%s)", (), bad)
            if old:
                _for_each(connection, "UPDATE entry SET used = ? WHERE name IN (%s)", (now,), old)

    def _evict(self, connection: sqlite3.Connection) -> None:
        if _size(connection) <= self._max_bytes:
            return
        while _size(connection) > self._max_bytes * _KEPT_SHARE:
            (count,) = connection.execute("SELECT count(*) FROM entry").fetchone()
            if not count:
                break
            connection.execute(
                "DELETE FROM entry WHERE rowid IN (SELECT rowid FROM entry ORDER BY used, rowid LIMIT ?)",
                (max(1, count // _EVICTED_SHARE),),
            )
        connection.execute("PRAGMA incremental_vacuum").fetchall()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn whatever goes wrong into a line of the log: without a cache a scan is slower, not wrong."""
        try:
            yield
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _PASSING:
                logger.info("the scan cache is not used: %s", exc)
                return
            logger.warning("the scan cache is broken and is thrown away: %s", exc)
            self._throw_away()
        except (OSError, KeyUnavailable) as exc:
            logger.info("the scan cache is not used: %s", exc)

    @contextmanager
    def _session(self) -> Iterator[tuple[sqlite3.Connection, bytes]]:
        key = local_key(self._home, _PURPOSE)
        _make_private(self._folder)
        with self._locked(fcntl.LOCK_SH):
            self._check_file()
            with closing(sqlite3.connect(self._folder / FILE, timeout=_BUSY_S, isolation_level=None)) as connection:
                _prepare(connection)
                yield connection, key

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Keep others from throwing the file away while it is used, or from using it meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._folder / _LOCK, flags, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _check_file(self) -> None:
        """Make the file if it is missing, so that nobody else can read it; links and files of others go."""
        path = self._folder / FILE
        with suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                if stat.S_IMODE(status.st_mode) & 0o077:
                    path.chmod(0o600)
                return
            path.unlink()
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _throw_away(self) -> None:
        # Whoever else has the file open finds out by itself, so nobody is waited for.
        with suppress(OSError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal"):
                with suppress(FileNotFoundError):
                    (self._folder / name).unlink()


def _make_private(folder: Path) -> None:
    """Make the folder, or make sure that only this user can enter it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o700)  # which only its owner may do
    finally:
        os.close(descriptor)


def _prepare(connection: sqlite3.Connection) -> None:
    """Set up a new file.

    Raises:
        sqlite3.DatabaseError: the file is broken or not one of ours.
    """
    is_ours = _marks(connection) == (_APPLICATION, _FORMAT)
    if not is_ours:
        # Before the first table: it cannot be changed later.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 1000000").fetchall()
    if is_ours:
        return
    with _writing(connection):
        if _marks(connection) == (_APPLICATION, _FORMAT):
            return  # another process was quicker
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError("it is no scan cache of this version")
        for statement in _SCHEMA.strip().splitlines():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _marks(connection: sqlite3.Connection) -> tuple[int, int]:
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    return application, version


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _for_each(
    connection: sqlite3.Connection, statement: str, values: tuple[int, ...], places: Collection[bytes]
) -> None:
    connection.execute(statement % ",".join("?" * len(places)), (*values, *places))


def _size(connection: sqlite3.Connection) -> int:
    """Return the bytes of the file that hold something."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _place(key: bytes, name: bytes) -> bytes:
    return hmac.digest(key, b"place\0" + name, "sha256")


def _cipher(key: bytes, name: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, b"seal\0" + name, "sha256"))


def _sealed(key: bytes, name: bytes, place: bytes, value: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + _cipher(key, name).encrypt(nonce, value, place)


def _opened(key: bytes, name: bytes, place: bytes, sealed: object) -> bytes | None:
    if not isinstance(sealed, bytes) or len(sealed) <= _NONCE_BYTES:
        return None
    try:
        return _cipher(key, name).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
    except InvalidTag:
        return None
