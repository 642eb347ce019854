"""Walking a folder that somebody else may change meanwhile: no link is followed, and nothing is opened by full path.

Each folder is opened from its parent's descriptor, so a folder that is swapped for a link is refused, not followed.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from intelligentscan._paths import open_folder, open_folder_beneath
from intelligentscan.domain.errors import PathRefused, TooLarge
from intelligentscan.domain.text import untrusted
from intelligentscan.stores.archive_manifest import MAX_DEPTH

Kind = Literal["file", "folder", "link", "special"]


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """Something that a folder holds.

    Attributes:
        path: path below the folder that the walk started from.
        name: the last part of the path.
        kind: what it is; a link is not followed.
        status: its status when the folder was listed.
        parent: descriptor of the folder that holds it; open until the walk goes on.
    """

    path: str
    name: str
    kind: Kind
    status: os.stat_result
    parent: int


def open_tree(folder: Path, below: Path | None) -> int:
    """Open a folder to walk; return its file descriptor.

    Args:
        folder: absolute path.
        below: folder on the way to it that the operator chose: links up to there are followed, none after it. If
            None, no link is followed at all.

    Raises:
        OSError: it is missing, not a folder, not readable, or a link stands in the way.
        PathRefused: it does not lie below `below`.
    """
    if below is None:
        return open_folder(folder)
    if ".." in folder.parts or not folder.is_relative_to(below):
        raise PathRefused(
            f"'{untrusted(str(folder))}' does not lie where the store keeps its artifacts.",
            next="log the model again in an experiment of this store, then repeat the call.",
        )
    return open_folder(Path(os.path.realpath(below), folder.relative_to(below)))


def walk(
    folder: int,
    *,
    max_entries: int,
    enter: Callable[[TreeEntry], bool] = lambda _: True,
    unreadable: Callable[[TreeEntry, OSError], None] | None = None,
) -> Iterator[TreeEntry]:
    """Yield everything below an open folder, each folder before what it holds, in the order of names.

    Args:
        folder: descriptor of an open folder.
        max_entries: most entries to yield.
        enter: which of the folders to look into.
        unreadable: told about folders that cannot be opened; without it the error is raised.

    Raises:
        TooLarge: there are more entries, or folders are nested too deeply.
        OSError: a folder cannot be opened, or is no folder any more.
    """
    seen = 0
    waiting = [_Listing(folder, _listed("", folder, max_entries))]
    try:
        while waiting:
            entry = next(waiting[-1].entries, None)
            if entry is None:
                if len(waiting) > 1:
                    os.close(waiting[-1].descriptor)
                waiting.pop()
                continue
            seen += 1
            if seen > max_entries:
                raise _too_many(max_entries)
            yield entry
            if entry.kind != "folder" or not enter(entry):
                continue
            if len(waiting) >= MAX_DEPTH:
                raise TooLarge(
                    f"Folders are nested more than {MAX_DEPTH} deep.",
                    next="keep the files in fewer levels of folders, then repeat the call.",
                    details={"path": untrusted(entry.path)},
                )
            try:
                waiting.append(_opened(entry, max_entries))
            except OSError as exc:
                if unreadable is None:
                    raise
                unreadable(entry, exc)
    finally:
        for listing in waiting[1:]:
            os.close(listing.descriptor)


def remove_tree(parent: int, name: str, depth: int = 0) -> None:
    """Remove a file or a whole folder, write-protected ones too, without following links; gone already is fine.

    Raises:
        OSError: it cannot be removed, or is nested more deeply than anything that the archive makes.
    """
    if depth > 2 * MAX_DEPTH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=parent)
        except (IsADirectoryError, PermissionError):  # which of them a folder gives depends on the system
            folder = open_folder_beneath(parent, name)
            try:
                os.fchmod(folder, 0o700)
                for inner in names_in(folder):
                    remove_tree(folder, inner, depth + 1)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=parent)


def names_in(folder: int) -> list[str]:
    """Return the names in an open folder, sorted."""
    with os.scandir(folder) as listing:
        return sorted(entry.name for entry in listing)


def raw_name(text: str) -> str:
    """Return a path of a manifest as this system's calls take it, whatever its locale."""
    return os.fsdecode(text.encode())


def text_name(raw: str) -> str | None:
    """Return a path as a manifest holds it, None if its bytes are not UTF-8."""
    try:
        return os.fsencode(raw).decode()
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True, slots=True)
class _Listing:
    descriptor: int
    entries: Iterator[TreeEntry]


def _opened(entry: TreeEntry, max_entries: int) -> _Listing:
    descriptor = open_folder_beneath(entry.parent, entry.name)
    try:
        return _Listing(descriptor, _listed(entry.path, descriptor, max_entries))
    except BaseException:
        os.close(descriptor)
        raise


def _listed(path: str, folder: int, max_entries: int) -> Iterator[TreeEntry]:
    found: list[TreeEntry] = []
    with os.scandir(folder) as listing:
        for each in listing:
            try:
                status = each.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since it was listed
            below = f"{path}/{each.name}" if path else each.name
            found.append(TreeEntry(below, each.name, _kind(status.st_mode), status, folder))
            if len(found) > max_entries:
                raise _too_many(max_entries)
    return iter(sorted(found, key=lambda entry: entry.name))


def _kind(mode: int) -> Kind:
    kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "special")


def _too_many(limit: int) -> TooLarge:
    return TooLarge(
        f"The folder holds more than {limit:,} files and folders.",
        next="log fewer, larger files, then repeat the call.",
    )
