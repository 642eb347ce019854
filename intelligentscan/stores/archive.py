"""The archive: a write-once copy of registered models, their manifests and signatures, and views to load them from.

    sha256/<aa>/<digest>      blobs: the files of models, manifests and inventories, each under its SHA-256
    sealed/<view id>/         a model as plain files, hard links to the blobs; the `source` of a version
    signatures/<digest>.json  what was signed about the manifest of this digest
    tmp/                      unfinished work

A copy may be killed at any moment: what it leaves is unfinished work, which `sweep` removes, and complete blobs. A
file's permissions do not stop its owner, nor root: `check_view` and `check_blobs` find what they change. Every method
blocks.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from intelligentscan._digest import sha256_hex
from intelligentscan._paths import open_beneath, open_folder_beneath
from intelligentscan.domain.errors import InvalidArgument, StoreBroken, TooLarge, WrongPathKind
from intelligentscan.stores.archive_blobs import BLOB_MODE, Incoming, blob_path, check_blob, link_once, write_file
from intelligentscan.stores.archive_inventory import compare_inventory, take_inventory
from intelligentscan.stores.archive_manifest import DAMAGED_NEXT, Manifest, ManifestEntry, Problem, Problems, is_digest
from intelligentscan.stores.archive_place import SEALED, SIGNATURES, Place, Work, reason
from intelligentscan.stores.archive_source import no_files, plain_path, source_errors, source_files
from intelligentscan.stores.archive_tree import names_in, open_tree
from intelligentscan.stores.archive_view import Expected, Extra, build_view, check_view

_VIEW_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_TRIES = 5
_MAX_SIGNATURE_BYTES = 1024 * 1024


class Archive:
    """The archive in one folder.

    Args:
        root: its folder, made on first use.
        shared: whether other accounts of this machine may read it, so that they can load models from its views.
    """

    def __init__(self, root: Path, *, shared: bool = False) -> None:
        self._place = Place(root, shared=shared)

    @property
    def root(self) -> Path:
        """The real path of its folder."""
        return self._place.root

    def take(self, folder: Path, *, max_bytes: int, max_files: int, below: Path | None = None) -> Manifest:
        """Copy every file below a folder into the archive; return the manifest of what was copied.

        The note that MLflow writes beside a model when it loads it is left out. Folders without files do not count.

        Args:
            folder: absolute path.
            max_bytes: most bytes of all files together.
            max_files: most files, and most folders.
            below: folder on the way that the operator chose; links are followed up to there, none after it.

        Raises:
            NoModel: the folder is missing or empty, or holds links, special files or names that are not UTF-8.
            TooLarge: it has more files or bytes, or is nested too deeply.
            BytesChanged: a file changed while it was copied.
            PathRefused: the folder does not lie below `below`.
            StoreBroken: the archive is full, not writable, or damaged.
        """
        entries: list[ManifestEntry] = []
        with source_errors(""):
            source = open_tree(folder, below)
        try:
            with (
                self._place.writing() as root,
                self._place.work(root) as work,
                Incoming(self._place, root, work) as batch,
            ):
                left = max_bytes
                for entry in source_files(source, max_files):
                    path = plain_path(entry)
                    digest, size = batch.copy(entry, left)
                    left -= size
                    entries.append(ManifestEntry(path, size, digest))
                if not entries:
                    raise no_files()
                batch.publish()
        finally:
            os.close(source)
        return Manifest(tuple(sorted(entries, key=lambda entry: entry.path)))

    def put_document(self, data: bytes) -> str:
        """Keep a document as a blob; return its digest.

        Raises:
            StoreBroken: the archive is full, not writable, or damaged.
        """
        with self._place.writing() as root, self._place.work(root) as work, Incoming(self._place, root, work) as batch:
            digest = batch.add(data)
            batch.publish()
        return digest

    def read_document(self, digest: str, max_bytes: int) -> bytes:
        """Return a document, whose bytes are checked.

        Raises:
            TooLarge: it has more bytes.
            StoreBroken: it is missing or damaged.
        """
        data = self._read(blob_path(digest), max_bytes) if is_digest(digest) else None
        if data is None:
            raise StoreBroken("A document is missing from the archive.", next=DAMAGED_NEXT, details={"sha256": digest})
        if len(data) > max_bytes:
            raise TooLarge(
                f"A document of the archive has more than {max_bytes:,} bytes.",
                next=DAMAGED_NEXT,
                details={"sha256": digest},
            )
        if sha256_hex(data) != digest:
            raise StoreBroken("A document of the archive was changed.", next=DAMAGED_NEXT, details={"sha256": digest})
        return data

    def check_document(self, digest: str) -> tuple[Problem, ...]:
        """Return what is wrong with a document."""
        return self._check_blobs({digest: ("document", None)})

    def check_blobs(self, manifest: Manifest) -> tuple[Problem, ...]:
        """Return what is wrong with the blobs of a manifest's files, each under the path of one file that it holds."""
        return self._check_blobs({entry.sha256: (entry.path, entry.size) for entry in reversed(manifest.entries)})

    def view_path(self, view_id: str) -> Path:
        """Return where the view of this id is, or will be."""
        return self.root / SEALED / _view_id(view_id)

    def view(self, view_id: str, manifest: Manifest, extra: Extra, *, sealed: bool) -> Path:
        """Return the folder that holds the model as plain files, and make it unless it is there and right.

        A new view is not hashed: its files are the blobs, which `take` has just written or hashed. `check_view`
        hashes it.

        Args:
            view_id: what to call it: letters, digits, '-' and '_'.
            manifest: its files.
            extra: files beside them, as from `model_meta`.
            sealed: whether a version refers to it already. Such a view is never replaced.

        Raises:
            StoreBroken: the view is sealed and not as it must be; or the archive is full, not writable, or damaged.
        """
        expected = Expected.of(manifest, extra)
        path = self.view_path(view_id)
        with self._place.writing() as root:
            folder = self._place.subfolder(root, SEALED)
            try:
                for _ in range(_TRIES):
                    with self._place.locked(root):
                        there = _touched(folder, view_id)
                    found = self._check_view(root, folder, view_id, expected)
                    if not found:
                        return path
                    if sealed:
                        raise _view_damaged(view_id, found)
                    with self._place.work(root) as work:
                        if self._publish(root, folder, view_id, expected, there, work):
                            return path
            finally:
                os.close(folder)
        raise StoreBroken(
            "A view of the archive is changed by somebody else all the time.",
            next=DAMAGED_NEXT,
            details={"view": view_id},
        )

    def check_view(self, view_id: str, manifest: Manifest, extra: Extra) -> tuple[Problem, ...]:
        """Return every difference between a view and what it must hold, in the order of paths; hashes all its files.

        Raises:
            StoreBroken: the archive cannot be read.
        """
        expected = Expected.of(manifest, extra)
        try:
            with self._place.reading() as root:
                folder = open_folder_beneath(root, SEALED)
                try:
                    return self._check_view(root, folder, _view_id(view_id), expected)
                finally:
                    os.close(folder)
        except FileNotFoundError:
            return (Problem("MISSING", ".", "The archive's folder is gone."),)

    def put_signature(self, manifest_digest: str, document: bytes) -> bytes:
        """Keep what was signed about a manifest, once; return what is kept, which may be an earlier signature.

        Raises:
            StoreBroken: the archive is full, not writable, or damaged.
        """
        name = _signature(manifest_digest)
        with self._place.writing() as root:
            folder = self._place.subfolder(root, SIGNATURES)
            try:
                with self._place.work(root) as work:
                    write_file(work.folder, name, document, BLOB_MODE)
                    link_once(self._place, root, work, name, folder, name)
                os.fsync(folder)
            finally:
                os.close(folder)
        return self.read_signature(manifest_digest) or b""

    def read_signature(self, manifest_digest: str) -> bytes | None:
        """Return what was signed about a manifest, None if there is nothing.

        Raises:
            StoreBroken: the archive cannot be read.
        """
        return self._read(f"{SIGNATURES}/{_signature(manifest_digest)}", _MAX_SIGNATURE_BYTES)

    def inventory(self, folder: Path, *, hash_up_to_bytes: int, below: Path | None = None) -> bytes:
        """Return a listing of a folder as canonical JSON, to find later writes in it; see `take_inventory`."""
        return take_inventory(folder, hash_up_to_bytes=hash_up_to_bytes, below=below)

    def compare_inventory(self, document: bytes, folder: Path, *, below: Path | None = None) -> tuple[Problem, ...]:
        """Return every difference between a folder and its inventory, in the order of paths."""
        return compare_inventory(document, folder, below=below).all()

    def sweep(self, keep: Callable[[str], bool], older_than_s: float) -> tuple[str, ...]:
        """Remove unfinished work of killed processes, and views that no version refers to; return their ids.

        Args:
            keep: whether the view of an id is sealed, or a ticket for it is open.
            older_than_s: age in seconds, since `view` last returned it, below which a view is left alone.

        Raises:
            StoreBroken: the archive is not writable.
        """
        if not self.root.is_dir():
            return ()
        with self._place.writing() as root:
            self._place.remove_abandoned_work(root)
            folder = self._place.subfolder(root, SEALED)
            try:
                views = [name for name in names_in(folder) if _VIEW_ID.fullmatch(name) and not keep(name)]
                return tuple(name for name in views if self._retire(root, folder, name, older_than_s))
            finally:
                os.close(folder)

    def _read(self, path: str, max_bytes: int) -> bytes | None:
        """Return one byte more than allowed if there are more, None if there is no such file."""
        try:
            with self._place.reading() as root, os.fdopen(open_beneath(root, path), "rb") as stream:
                return stream.read(max_bytes + 1)
        except FileNotFoundError:
            return None
        except WrongPathKind as exc:
            raise StoreBroken(
                "Something that is no file stands in the archive.", next=DAMAGED_NEXT, details={"file": path}
            ) from exc

    def _check_blobs(self, wanted: dict[str, tuple[str, int | None]]) -> tuple[Problem, ...]:
        problems = Problems()
        try:
            with self._place.reading() as root:
                for digest, (path, size) in wanted.items():
                    check_blob(root, path, digest, size, problems)
        except FileNotFoundError:
            problems.add("MISSING", ".", "The archive's folder is gone.")
        return problems.all()

    def _check_view(self, root: int, folder: int, view_id: str, expected: Expected) -> tuple[Problem, ...]:
        try:
            view = open_folder_beneath(folder, view_id)
        except FileNotFoundError:
            return (Problem("MISSING", ".", "The view is gone."),)
        except OSError as exc:
            if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
                return (Problem("LINK", ".", "A link or a file stands in the place of the view."),)
            return (Problem("UNREADABLE", ".", f"The view cannot be read: {reason(exc)}."),)
        try:
            return check_view(root, view, expected).all()
        finally:
            os.close(view)

    def _publish(
        self, root: int, folder: int, view_id: str, expected: Expected, judged: os.stat_result | None, work: Work
    ) -> bool:
        """Build a view beside the others and give it its name, unless another was published since one was judged."""
        building = f".{work.id}"
        os.mkdir(building, 0o700, dir_fd=folder)
        view = open_folder_beneath(folder, building)
        try:
            build_view(root, view, expected, shared=self._place.shared)
        finally:
            os.close(view)
        with self._place.locked(root):
            there = _status(folder, view_id)
            if there is not None:
                if judged is None or not os.path.samestat(there, judged):
                    return False
                os.rename(view_id, f"{building}.old", src_dir_fd=folder, dst_dir_fd=folder)
            os.rename(building, view_id, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
        return True

    def _retire(self, root: int, folder: int, name: str, older_than_s: float) -> bool:
        with self._place.work(root) as work, self._place.locked(root):
            there = _status(folder, name)
            if there is None or not stat.S_ISDIR(there.st_mode) or time.time() - there.st_ctime < older_than_s:
                return False
            os.rename(name, f".{work.id}.old", src_dir_fd=folder, dst_dir_fd=folder)
        return True


def _touched(folder: int, view_id: str) -> os.stat_result | None:
    """Make a view young again, so that a sweep leaves it alone while it is in work."""
    with suppress(FileNotFoundError):
        os.utime(view_id, dir_fd=folder, follow_symlinks=False)
    return _status(folder, view_id)


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _view_id(view_id: str) -> str:
    if not _VIEW_ID.fullmatch(view_id):
        raise InvalidArgument(
            "The id of a view has letters, digits, '-' and '_' only.", next="this is a fault of the caller; report it."
        )
    return view_id


def _signature(manifest_digest: str) -> str:
    if not is_digest(manifest_digest):
        raise StoreBroken("What names a manifest is no digest.", next=DAMAGED_NEXT)
    return f"{manifest_digest}.json"


def _view_damaged(view_id: str, problems: tuple[Problem, ...]) -> StoreBroken:
    return StoreBroken(
        "The sealed copy of a model is not what was sealed.",
        next=DAMAGED_NEXT,
        details={"view": view_id, "problems": [f"{p.code} {p.path}" for p in problems[:10]]},
    )
