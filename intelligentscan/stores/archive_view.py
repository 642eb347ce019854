"""Views: a sealed model as a folder of plain files, as any MLflow client loads it, and what is wrong with one.

Each file is a hard link to its blob, or a copy where there are no links. Beside the manifest's files a view holds:

- MLflow's note `registered_model_meta`. A plain load of `models:/NAME/…` writes it into the folder of a local source,
  so without a writable file of that name a load would fail in a folder that is protected against writing. It is
  compared by content. An empty one is right too: a load that is going on has just cut it, or one was killed then.
- an empty file `__pycache__` beside Python files. Importing a model's code as root, who may write anywhere, would
  leave compiled files there, which could not be told from planted ones, and Python runs those instead of the source.
  With a file in that place it compiles in memory only. Whatever compiled code turns up is reported.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from intelligentscan._paths import open_beneath, open_folder_beneath
from intelligentscan.domain.errors import InvalidArgument, StoreBroken, TooLarge, WrongPathKind
from intelligentscan.stores.archive_blobs import BLOB_MODE, blob_path, hash_of, write_file
from intelligentscan.stores.archive_manifest import (
    DAMAGED_NEXT,
    Manifest,
    ManifestEntry,
    Problems,
    folders_of,
    is_plain_path,
)
from intelligentscan.stores.archive_place import NO_LINKS, reason
from intelligentscan.stores.archive_source import META_FILE
from intelligentscan.stores.archive_tree import TreeEntry, raw_name, walk

CACHE = "__pycache__"
Extra = Mapping[str, tuple[bytes, ...]]
"""Files of a view that its manifest does not name: the contents that are right, of which the first is written."""

_FOLDER_MODE = 0o555
_MAX_EXTRA_BYTES = 64 * 1024
_MAX_ENTRIES = 1_000_000


def model_meta(name: str, version: int) -> Extra:
    """Return the note that a plain MLflow load leaves in the folder of a registered version.

    MLflow writes the version as text if the URI named a number or a stage, and as a number if it named an alias.
    """
    dumpers = (getattr(yaml, "CSafeDumper", yaml.SafeDumper), yaml.SafeDumper)  # they break long lines differently
    contents = (
        yaml.dump(
            {"model_name": name, "model_version": shown},
            default_flow_style=False,
            allow_unicode=True,
            sort_keys=True,
            Dumper=dumper,
        ).encode()
        for dumper in dumpers
        for shown in (str(version), version)
    )
    return {META_FILE: tuple(dict.fromkeys(contents))}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a view must hold, by the raw names of this system."""

    files: dict[str, ManifestEntry]
    extra: dict[str, tuple[bytes, ...]]
    folders: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest, extra: Extra) -> "Expected":
        """Return what a view of this manifest holds.

        Raises:
            InvalidArgument: an extra file has no plain name, or the manifest has it already.
        """
        files = {raw_name(entry.path): entry for entry in manifest.entries}
        folders = frozenset(folder for path in files for folder in folders_of(path))
        for name, contents in extra.items():
            if "/" in name or not is_plain_path(name) or name in files or name in folders or not contents:
                raise InvalidArgument(
                    "A file that MLflow would write over is part of the model.",
                    next="take the model into the archive again without it.",
                    details={"file": name},
                )
        beside = {path.rpartition("/")[0] for path in files if path.endswith(".py")}
        caches = {f"{folder}/{CACHE}" if folder else CACHE for folder in beside}
        added = dict.fromkeys(caches - folders - files.keys(), (b"",))
        return cls(files, added | dict(extra), folders)


def build_view(root: int, folder: int, expected: Expected, *, shared: bool) -> None:
    """Fill an empty folder, write-protect and sync it.

    Raises:
        StoreBroken: a blob is missing, or is not what the manifest says.
        OSError: the archive cannot be written.
    """
    for path in sorted(expected.folders):
        parent, name = _parent(folder, path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        finally:
            os.close(parent)
    for path, entry in expected.files.items():
        parent, name = _parent(folder, path)
        try:
            _place_blob(root, entry, parent, name)
        finally:
            os.close(parent)
    for path, contents in expected.extra.items():
        writable = path.rpartition("/")[2] != CACHE
        # In a shared archive a plain load by another account must be able to write the note as well.
        mode = (0o666 if shared else 0o644) if writable else BLOB_MODE
        parent, name = _parent(folder, path)
        try:
            write_file(parent, name, contents[0], mode)
        finally:
            os.close(parent)
    for path in sorted(expected.folders, reverse=True):
        inner = open_folder_beneath(folder, path)
        try:
            _protect(inner)
        finally:
            os.close(inner)
    _protect(folder)


def check_view(root: int, folder: int, expected: Expected) -> Problems:
    """Compare an open view with what it must hold."""
    problems = Problems()
    seen: set[str] = set()
    if stat.S_IMODE(os.fstat(folder).st_mode) != _FOLDER_MODE:
        problems.add("MODE", ".", "The folder is not protected against writing.")

    def unreadable(entry: TreeEntry, exc: OSError) -> None:
        problems.add("UNREADABLE", entry.path, f"The folder cannot be read: {reason(exc)}.")
        seen.update(path for path in (*expected.files, *expected.extra) if path.startswith(f"{entry.path}/"))

    entries = walk(
        folder, max_entries=_MAX_ENTRIES, enter=lambda entry: entry.path in expected.folders, unreadable=unreadable
    )
    try:
        for entry in entries:
            if problems.full:
                break
            seen.add(entry.path)
            if entry.kind == "folder":
                _check_folder(entry, expected, problems)
            elif entry.path in expected.files:
                _check_file(root, entry, expected.files[entry.path], problems)
            elif entry.path in expected.extra:
                _check_extra(entry, expected.extra[entry.path], problems)
            else:
                _added(entry, problems)
    except TooLarge as exc:
        problems.add("ADDED", ".", exc.message)
    for path in (*expected.files, *expected.extra):
        if path not in seen:
            problems.add("MISSING", path, "The file is gone.")
    return problems


def _check_folder(entry: TreeEntry, expected: Expected, problems: Problems) -> None:
    if entry.path in expected.folders:
        if stat.S_IMODE(entry.status.st_mode) != _FOLDER_MODE:
            problems.add("MODE", entry.path, "The folder is not protected against writing.")
    elif entry.name == CACHE:
        problems.add("BYTECODE", entry.path, "Compiled Python was added, which would run instead of the sealed source.")
    elif entry.path in expected.files or entry.path in expected.extra:
        problems.add("SPECIAL", entry.path, "A folder stands in the place of the file.")
    else:
        problems.add("ADDED", entry.path, "The folder was added.")


def _added(entry: TreeEntry, problems: Problems) -> None:
    if entry.kind == "link":
        problems.add("LINK", entry.path, "A link is there that was not sealed.")
    elif entry.kind == "special":
        problems.add("SPECIAL", entry.path, "Something that is no file was added.")
    elif entry.name.endswith(".pyc"):
        problems.add("BYTECODE", entry.path, "Compiled Python was added, which could run instead of the sealed source.")
    else:
        problems.add("ADDED", entry.path, "The file was added.")


def _check_file(root: int, entry: TreeEntry, wanted: ManifestEntry, problems: Problems) -> None:
    descriptor = _open_checked(entry, problems)
    if descriptor is None:
        return
    try:
        status = os.fstat(descriptor)
        if status.st_size != wanted.size or hash_of(descriptor) != wanted.sha256:
            problems.add("CHANGED", entry.path, "The file's bytes are not those that were sealed.")
        elif status.st_nlink > 1 and not _is_blob(root, wanted.sha256, status):
            problems.add("LINK", entry.path, "The file is a hard link to something outside of the archive's blobs.")
        elif stat.S_IMODE(status.st_mode) != BLOB_MODE:
            problems.add("MODE", entry.path, "The file is not protected against writing.")
    except OSError as exc:
        problems.add("UNREADABLE", entry.path, f"The file cannot be read: {reason(exc)}.")
    finally:
        os.close(descriptor)


def _check_extra(entry: TreeEntry, contents: tuple[bytes, ...], problems: Problems) -> None:
    descriptor = _open_checked(entry, problems)
    if descriptor is None:
        return
    try:
        if os.fstat(descriptor).st_nlink > 1:
            problems.add("LINK", entry.path, "The file is a hard link to something outside of the view.")
            return
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            data = stream.read(_MAX_EXTRA_BYTES)
    except OSError as exc:
        problems.add("UNREADABLE", entry.path, f"The file cannot be read: {reason(exc)}.")
        return
    finally:
        os.close(descriptor)
    if data and data not in contents:
        if entry.name == CACHE:
            problems.add("BYTECODE", entry.path, "The file that keeps compiled Python out was changed.")
        else:
            problems.add("META", entry.path, "MLflow's note about the registered model names something else.")


def _open_checked(entry: TreeEntry, problems: Problems) -> int | None:
    if entry.kind == "link":
        problems.add("LINK", entry.path, "A link stands in the place of the file.")
        return None
    try:
        if entry.kind == "file":  # a device is not opened even to look at it
            return open_beneath(entry.parent, entry.name)
    except WrongPathKind:
        pass
    except OSError as exc:
        problems.add("UNREADABLE", entry.path, f"The file cannot be read: {reason(exc)}.")
        return None
    problems.add("SPECIAL", entry.path, "Something that is no file stands in the place of the file.")
    return None


def _is_blob(root: int, digest: str, status: os.stat_result) -> bool:
    try:
        blob = os.stat(blob_path(digest), dir_fd=root, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(blob, status)


def _place_blob(root: int, entry: ManifestEntry, parent: int, name: str) -> None:
    try:
        blob = open_beneath(root, blob_path(entry.sha256))
    except (FileNotFoundError, WrongPathKind) as exc:
        raise _not_the_blob(entry) from exc
    try:
        if os.fstat(blob).st_size != entry.size:
            raise _not_the_blob(entry)
        try:
            os.link(blob_path(entry.sha256), name, src_dir_fd=root, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            _copy(blob, parent, name, entry)
    finally:
        os.close(blob)


def _copy(blob: int, parent: int, name: str, entry: ManifestEntry) -> None:
    target = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    with os.fdopen(target, "w+b") as copy:
        while part := os.read(blob, 1024 * 1024):
            copy.write(part)
        copy.flush()
        if hash_of(target) != entry.sha256:
            raise _not_the_blob(entry)
        os.fchmod(target, BLOB_MODE)
        os.fsync(target)


def _protect(folder: int) -> None:
    os.fchmod(folder, _FOLDER_MODE)
    os.fsync(folder)


def _parent(folder: int, path: str) -> tuple[int, str]:
    above, _, name = path.rpartition("/")
    return open_folder_beneath(folder, above), name


def _not_the_blob(entry: ManifestEntry) -> StoreBroken:
    return StoreBroken(
        "A file of the model is missing from the archive, or has other bytes than its manifest says.",
        next=DAMAGED_NEXT,
        details={"sha256": entry.sha256},
    )
