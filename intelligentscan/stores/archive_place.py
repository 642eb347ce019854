"""The archive's own folder: made private, opened without following links, with leases on unfinished work.

Unfinished work lies in `tmp/<id>/` (and views being built in `sealed/.<id>`), and its process keeps `tmp/<id>.lock`
locked. Work whose lock is free belongs to a process that was killed.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from intelligentscan._paths import open_folder, open_folder_beneath
from intelligentscan.domain.errors import StoreBroken, StoreError
from intelligentscan.stores.archive_manifest import DAMAGED_NEXT
from intelligentscan.stores.archive_tree import names_in, remove_tree

SETTING = "INTELLIGENTSCAN_ARCHIVE"
BLOBS, SEALED, SIGNATURES = "sha256", "sealed", "signatures"
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK})
"""What link(2) answers where a hard link cannot be had although all is well."""

_WORK = "tmp"
_LOCK = "lock"
_LEASE = ".lock"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_OTHERS_WRITE = 0o022
_OTHERS_READ = 0o055


@dataclass(frozen=True, slots=True)
class Work:
    """A temporary folder inside the archive that goes away with the work; its id, and its open descriptor."""

    id: str
    folder: int


class Place:
    """Where the archive lies.

    Args:
        root: its folder, which is made on first use.
        shared: whether other accounts of this machine may read it; otherwise it is made for its owner alone.
    """

    def __init__(self, root: Path, *, shared: bool) -> None:
        self.root = Path(os.path.realpath(root))
        self.shared = shared
        self._mode = 0o755 if shared else 0o700

    @contextmanager
    def writing(self) -> Iterator[int]:
        """Open the folder to write in it, and make it if need be; the file system's refusals come out as ours.

        Raises:
            StoreBroken: it is full, not writable, not a folder, or others may write in it.
        """
        with self._errors():
            root = self._made()
            try:
                yield root
            finally:
                os.close(root)

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Open the folder to read in it.

        Raises:
            FileNotFoundError: there is none.
            StoreBroken: it cannot be read.
        """
        with self._errors(keep=FileNotFoundError):
            root = open_folder(self.root)
            try:
                yield root
            finally:
                os.close(root)

    @contextmanager
    def work(self, root: int) -> Iterator[Work]:
        """Make a temporary folder; it and what is built beside the views under its id are removed at the end."""
        tmp = open_folder_beneath(root, _WORK)
        try:
            lease, name = _leased(tmp)
            try:
                os.mkdir(name, 0o700, dir_fd=tmp)
                folder = open_folder_beneath(tmp, name)
                try:
                    yield Work(name, folder)
                finally:
                    os.close(folder)
            finally:
                with suppress(OSError):  # what cannot be removed now is removed by the next sweep
                    _remove_work(root, tmp, name)
                os.close(lease)
        finally:
            os.close(tmp)

    @contextmanager
    def locked(self, root: int) -> Iterator[None]:
        """Keep other processes and threads from publishing or removing views; for moments only."""
        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def remove_abandoned_work(self, root: int) -> None:
        """Remove what killed processes have left unfinished; work that is going on is left alone."""
        tmp = open_folder_beneath(root, _WORK)
        try:
            for name in names_in(tmp):
                if name.endswith(_LEASE):
                    with suppress(OSError):
                        self._remove_if_abandoned(root, tmp, name)
        finally:
            os.close(tmp)

    def subfolder(self, root: int, *names: str) -> int:
        """Open a folder of the archive, made if need be, and return its descriptor."""
        descriptor = os.dup(root)
        for name in names:
            try:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=descriptor)
                    inner = open_folder_beneath(descriptor, name)
                    try:
                        os.fchmod(inner, self._mode)
                    finally:
                        os.close(inner)
                    os.fsync(descriptor)
                following = open_folder_beneath(descriptor, name)
            finally:
                os.close(descriptor)
            descriptor = following
        self._let_others_read(descriptor)
        return descriptor

    def _remove_if_abandoned(self, root: int, tmp: int, lease_name: str) -> None:
        lease = os.open(lease_name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tmp)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_work(root, tmp, lease_name.removesuffix(_LEASE))
        finally:
            os.close(lease)

    def _made(self) -> int:
        try:
            root = open_folder(self.root)
        except FileNotFoundError:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.root.mkdir(mode=0o700)
                self.root.chmod(self._mode)
                above = open_folder(self.root.parent)
                try:
                    os.fsync(above)
                finally:
                    os.close(above)
            root = open_folder(self.root)
        try:
            self._let_others_read(root)
            if os.fstat(root).st_mode & _OTHERS_WRITE:
                raise StoreBroken(
                    "Other accounts can write in the archive's folder, so nothing in it would be evidence.",
                    next=f"take the write permission of group and others away from it, or set {SETTING} to a folder "
                    "of its own.",
                    details={"archive": str(self.root)},
                )
            for name in (BLOBS, SEALED, SIGNATURES, _WORK):
                os.close(self.subfolder(root, name))
        except BaseException:
            os.close(root)
            raise
        return root

    def _let_others_read(self, folder: int) -> None:
        """Make up for a process that was killed between making a folder and setting its mode."""
        if self.shared and os.fstat(folder).st_mode & _OTHERS_READ != _OTHERS_READ:
            os.fchmod(folder, self._mode)

    @contextmanager
    def _errors(self, keep: type[OSError] | tuple[type[OSError], ...] = ()) -> Iterator[None]:
        try:
            yield
        except keep:
            raise
        except OSError as exc:
            raise self._broken(exc) from exc

    def _broken(self, exc: OSError) -> StoreError:
        details: dict[str, object] = {"archive": str(self.root)}
        if exc.errno in _FULL:
            return StoreBroken(
                "The archive's file system is full, or a quota is used up.",
                next=f"free space there, or move the archive and set {SETTING} to its new folder; then try again.",
                details=details,
            )
        if exc.errno in _DENIED:
            return StoreBroken(
                "This user may not read and write the archive's folder.",
                next=f"give the folder to the account that runs IntelligentScan, or set {SETTING} to another folder.",
                details=details,
            )
        if exc.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return StoreBroken(
                "A part of the archive's folder is missing, or was replaced by something else.",
                next=DAMAGED_NEXT,
                details=details,
            )
        return StoreBroken(
            f"The archive cannot be used: {reason(exc)}.",
            next=f"check the disk that holds it, or set {SETTING} to a folder on another one.",
            details=details,
        )


def reason(exc: OSError) -> str:
    """Return the system's words for a failure."""
    return os.strerror(exc.errno) if exc.errno else "unknown reason"


def _leased(tmp: int) -> tuple[int, str]:
    while True:
        name = secrets.token_hex(8)
        lease = os.open(name + _LEASE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=tmp)
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lease).st_nlink:  # a sweep may have found the file before it was locked
                return lease, name
        except BlockingIOError:
            pass
        except BaseException:
            os.close(lease)
            raise
        os.close(lease)


def _remove_work(root: int, tmp: int, name: str) -> None:
    sealed = open_folder_beneath(root, SEALED)
    try:
        for unfinished in (f".{name}", f".{name}.old"):
            remove_tree(sealed, unfinished)
    finally:
        os.close(sealed)
    remove_tree(tmp, name)
    os.unlink(name + _LEASE, dir_fd=tmp)  # last, so that no folder is ever left without it
