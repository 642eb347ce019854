"""Write-once blobs, each called by the SHA-256 of its bytes: how they come in, and whether they are still right.

A blob is written under a temporary name, synced, and only then linked to its own name, which fails if that is there
already. So a blob is complete or absent, whenever a process is killed, and two processes may bring the same bytes.
"""

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from intelligentscan._paths import open_beneath
from intelligentscan.domain.errors import StoreBroken, WrongPathKind
from intelligentscan.stores.archive_manifest import DAMAGED_NEXT, Problems, is_digest
from intelligentscan.stores.archive_place import BLOBS, NO_LINKS, Place, Work, reason
from intelligentscan.stores.archive_source import changed, source_errors, too_large
from intelligentscan.stores.archive_tree import TreeEntry

BLOB_MODE = 0o444
_CHUNK = 256 * 1024
_SYNC_EVERY = 8 * 1024 * 1024
"""Bytes after which a file's writing to disk is begun, so that it goes on while the rest is hashed."""
_SYNCERS = 16
"""Syncs that wait together share the work of the file system's journal."""
_MOST_OPEN = 64


class Incoming:
    """Brings files into the archive: all of them are there when `publish` returns, or none is referred to yet."""

    def __init__(self, place: Place, root: int, work: Work) -> None:
        self._place = place
        self._root = root
        self._work = work
        self._syncers = ThreadPoolExecutor(_SYNCERS, thread_name_prefix="archive-sync")
        self._syncing: deque[Future[None]] = deque()
        self._temporary: dict[str, str] = {}
        self._buffer = memoryview(bytearray(_CHUNK))
        self._number = 0

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._syncers.shutdown()

    def copy(self, entry: TreeEntry, max_bytes: int) -> tuple[str, int]:
        """Copy a file of a walked folder, hashing it meanwhile; return the digest and the number of bytes.

        Raises:
            NoModel: it is no regular file any more, or cannot be read.
            TooLarge: it has more bytes.
            BytesChanged: it changed while it was read.
            OSError: the archive cannot be written.
        """
        with source_errors(entry.path):
            source = open_beneath(entry.parent, entry.name)
        try:
            before = os.fstat(source)
            if before.st_size > max_bytes:
                raise too_large(entry.path)

            def read(buffer: memoryview) -> int:
                with source_errors(entry.path):
                    return os.readv(source, [buffer])

            digest, size = self._write(read, before.st_size)
            if size != before.st_size or _marks(os.fstat(source)) != _marks(before):
                raise changed(entry.path)
            return digest, size
        finally:
            os.close(source)

    def add(self, data: bytes) -> str:
        """Bring in bytes that are in memory; return their digest."""
        rest = memoryview(data)

        def read(buffer: memoryview) -> int:
            nonlocal rest
            part, rest = rest[: len(buffer)], rest[len(buffer) :]
            buffer[: len(part)] = part
            return len(part)

        return self._write(read, len(data))[0]

    def publish(self) -> None:
        """Make everything that was brought in durable, and then give it its name.

        Raises:
            StoreBroken: the archive holds other bytes under one of the digests.
            OSError: the archive cannot be written.
        """
        while self._syncing:
            self._syncing.popleft().result()
        folders = {digest[:2] for digest in self._temporary}
        opened = {name: self._place.subfolder(self._root, BLOBS, name) for name in sorted(folders)}
        try:
            for digest, temporary in self._temporary.items():
                self._name(temporary, opened[digest[:2]], digest)
            list(self._syncers.map(os.fsync, opened.values()))
            above = self._place.subfolder(self._root, BLOBS)
            try:
                os.fsync(above)
            finally:
                os.close(above)
        finally:
            for folder in opened.values():
                os.close(folder)

    def _write(self, read: Callable[[memoryview], int], expected: int) -> tuple[str, int]:
        self._number += 1
        temporary = str(self._number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(temporary, flags, 0o600, dir_fd=self._work.folder)
        early: Future[None] | None = None
        handed_on = False
        try:
            hashing = hashlib.sha256()
            size = synced = 0
            while size <= expected and (count := read(self._buffer)):  # what grows is not followed for ever
                part = self._buffer[:count]
                hashing.update(part)
                while part:
                    part = part[os.write(target, part) :]
                size += count
                if size - synced >= _SYNC_EVERY and (early is None or early.done()):
                    synced, early = size, self._syncers.submit(_begin_sync, target)
            os.fchmod(target, BLOB_MODE)
            digest = hashing.hexdigest()
            if digest in self._temporary:
                os.unlink(temporary, dir_fd=self._work.folder)
            else:
                self._temporary[digest] = temporary
                self._sync(target, early)
                handed_on = True
            return digest, size
        finally:
            if not handed_on:
                if early is not None:
                    early.exception()
                os.close(target)

    def _sync(self, target: int, early: "Future[None] | None") -> None:
        def finish() -> None:
            try:
                if early is not None:
                    early.result()
                os.fsync(target)
            finally:
                os.close(target)

        if len(self._syncing) >= _MOST_OPEN:
            self._syncing.popleft().result()
        self._syncing.append(self._syncers.submit(finish))

    def _name(self, temporary: str, folder: int, digest: str) -> None:
        if not link_once(self._place, self._root, self._work, temporary, folder, digest):
            _must_be_right(folder, digest)


def link_once(place: Place, root: int, work: Work, temporary: str, folder: int, name: str) -> bool:
    """Give a complete file its name unless the name is taken; return whether it was free."""
    try:
        os.link(temporary, name, src_dir_fd=work.folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as exc:
        if exc.errno not in NO_LINKS:
            raise
        with place.locked(root):  # without links, who looks for the name must also be the one to give it
            if _is_there(folder, name):
                return False
            os.rename(temporary, name, src_dir_fd=work.folder, dst_dir_fd=folder)
    return True


def blob_path(digest: str) -> str:
    """Return where in the archive a blob lies."""
    return f"{BLOBS}/{digest[:2]}/{digest}"


def check_blob(root: int, path: str, digest: str, size: int | None, problems: Problems) -> None:
    """Note what is wrong with a blob, under the path of a file that it holds."""
    if not is_digest(digest):
        problems.add("MISSING", path, "What names its bytes is no digest.")
        return
    try:
        descriptor = open_beneath(root, blob_path(digest))
    except FileNotFoundError:
        problems.add("MISSING", path, "Its bytes are gone from the archive.")
        return
    except WrongPathKind:
        problems.add("SPECIAL", path, "Something that is no file stands in its place in the archive.")
        return
    except OSError as exc:
        linked = exc.errno in {errno.ELOOP, errno.ENOTDIR}
        message = "A link stands in its place in the archive." if linked else f"It cannot be read: {reason(exc)}."
        problems.add("LINK" if linked else "UNREADABLE", path, message)
        return
    try:
        status = os.fstat(descriptor)
        if (size is not None and status.st_size != size) or hash_of(descriptor) != digest:
            problems.add("CHANGED", path, "Its bytes in the archive are not those that were sealed.")
        elif stat.S_IMODE(status.st_mode) != BLOB_MODE:
            problems.add("MODE", path, "Its file in the archive is not protected against writing.")
    except OSError as exc:
        problems.add("UNREADABLE", path, f"Its bytes in the archive cannot be read: {reason(exc)}.")
    finally:
        os.close(descriptor)


def write_file(folder: int, name: str, data: bytes, mode: int) -> None:
    """Write a new file and sync it.

    Raises:
        OSError: it exists, or cannot be written.
    """
    target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with os.fdopen(target, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(target, mode)
        os.fsync(target)


def hash_of(descriptor: int) -> str:
    """Return the SHA-256 of an open file's bytes from its beginning."""
    with os.fdopen(os.dup(descriptor), "rb", buffering=0) as stream:
        stream.seek(0)
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _begin_sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _marks(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _must_be_right(folder: int, digest: str) -> None:
    try:
        descriptor = open_beneath(folder, digest)
    except (WrongPathKind, OSError) as exc:
        raise _damaged(digest) from exc
    try:
        if hash_of(descriptor) != digest:
            raise _damaged(digest)
    finally:
        os.close(descriptor)


def _damaged(digest: str) -> StoreBroken:
    return StoreBroken(
        "The archive holds other bytes under the digest of a file that was to be added: they were damaged or changed.",
        next=DAMAGED_NEXT,
        details={"sha256": digest},
    )
