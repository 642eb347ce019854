"""A private folder for one piece of work: only we can enter it, and it goes away with the work.

Each folder holds a lock file that its owner keeps locked. A folder whose lock is free belongs to a process that was
killed; the next one to make a folder removes it.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

# Both names together mark a folder as ours to remove, so neither may be one that somebody would choose.
_PREFIX = "intelligentscan-work-"
_LOCK = ".intelligentscan-work-lock"
_SETTLING_S = 60.0
"""A lock file younger than this may belong to an owner that is about to lock it."""


@dataclass(frozen=True, slots=True)
class _Made:
    path: Path
    lock: int


@asynccontextmanager
async def private_folder() -> AsyncIterator[Path]:
    """Make an empty folder that only this user can enter; it is removed at the end, also after a cancellation.

    Raises:
        OSError: the temporary folder is full or cannot be written.
    """
    with anyio.CancelScope(shield=True):
        made = await run_sync(_make)
    try:
        yield made.path
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(_remove, made)


@contextmanager
def private_folder_blocking() -> Iterator[Path]:
    """Make such a folder from a worker thread.

    Raises:
        OSError: the temporary folder is full or cannot be written.
    """
    made = _make()
    try:
        yield made.path
    finally:
        _remove(made)


def _make() -> _Made:
    _sweep(Path(tempfile.gettempdir()))
    path = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    work = path / "work"
    work.mkdir(mode=0o700)
    return _Made(work, lock)


def _remove(made: _Made) -> None:
    shutil.rmtree(made.path.parent, ignore_errors=True)
    os.close(made.lock)


def _sweep(temporary: Path) -> None:
    for folder in temporary.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    # In a shared temporary folder others choose the names: only a real folder of our own is looked into.
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if time.time() - os.fstat(lock).st_mtime < _SETTLING_S:
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
