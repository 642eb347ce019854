"""The file list of a scan: explicit, in one fixed order, the same for every engine.

Links are never followed, so a link in a circle is just a skipped link. Folders that hold what tools made or fetched
are left out (version control, caches, installed packages); `build` and `dist` are not, because hand-written code lives
there too and a name alone must not hide it. Whatever is left out for another reason is counted and said.
"""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from intelligentscan._credentials import is_credential_name
from intelligentscan._paths import open_folder, open_folder_beneath
from intelligentscan.domain.errors import PathNotFound, PathUnreadable, TooLarge, WrongPathKind
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners.interface import TargetFile

MAX_FILES = 200_000
MAX_FOLDERS = 100_000
MAX_DEPTH = 100
TOOL_FOLDERS = frozenset({
    ".git", ".hg", ".svn", ".bzr", "CVS", "_darcs", "__pycache__", ".tox", ".nox", ".eggs", ".mypy_cache",
    ".ruff_cache", ".pytest_cache", ".hypothesis",
})  # fmt: skip
"""Left out without a word: no project keeps its code there."""

PACKAGE_FOLDERS = frozenset({"node_modules", "site-packages"})
"""Left out, and said: code of others, which is scanned by naming the folder itself."""

ENVIRONMENT_MARK = "pyvenv.cfg"
_EFFECTIVE = os.access in os.supports_effective_ids


@dataclass(frozen=True, slots=True)
class FileList:
    """What lies below a folder, as far as it may be read.

    Attributes:
        files: the regular files, sorted by the bytes of their paths.
        skipped: how many links, special files and credentials were left out.
        unreadable_folders: folders that could not be listed.
        left_out: paths that are there but were not looked into; folders end in a slash. Folders of tools are not named.
        warnings: what else was left out.
    """

    files: tuple[TargetFile, ...]
    skipped: int
    unreadable_folders: tuple[str, ...]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Walk:
    """The state of one walk through a folder."""

    excluded: frozenset[tuple[int, int]]
    files: list[TargetFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=lambda: [""])
    unreadable: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seen_folders: int = 0

    def leave_out(self, kind: str, path: str) -> None:
        self.counts[kind] += 1
        if kind != "tool":
            _bounded(len(self.left_out), MAX_FILES, "links and other entries that are not scanned")
            self.left_out.append(path)


def list_files(root: Path, *, exclude: Sequence[Path] = ()) -> FileList:
    """List the files below a folder.

    Args:
        root: real absolute path of the folder.
        exclude: folders that are left out wherever they are met, such as INTELLIGENTSCAN_HOME.

    Raises:
        PathNotFound: the folder is gone.
        PathUnreadable: the folder itself cannot be listed.
        TooLarge: there are more files or folders than a scan takes.
        WrongPathKind: it is not a folder, or a link was put in its place.
    """
    walk = _Walk(excluded=frozenset(_identity(folder) for folder in exclude if folder.exists()))
    top = _open_root(root)
    try:
        while walk.folders:
            _list_folder(top, walk.folders.pop(), walk)
    finally:
        os.close(top)
    counts = walk.counts
    return FileList(
        files=tuple(sorted(walk.files, key=lambda file: os.fsencode(file.path))),
        skipped=counts["link"] + counts["special"] + counts["credential"],
        unreadable_folders=tuple(sorted(walk.unreadable, key=os.fsencode)),
        left_out=tuple(sorted(walk.left_out, key=os.fsencode)),
        warnings=_warnings(walk),
    )


def _open_root(root: Path) -> int:
    try:
        return open_folder(root)
    except FileNotFoundError as exc:
        raise PathNotFound(
            f"There is no folder '{untrusted(str(root))}'.", next="call again with repo_path set to an existing folder."
        ) from exc
    except PermissionError as exc:
        raise PathUnreadable(
            f"The folder '{untrusted(str(root))}' cannot be read by this user.",
            next="grant read access, or call again with repo_path set to a folder that is readable.",
        ) from exc
    except OSError as exc:
        raise WrongPathKind(
            f"'{untrusted(str(root))}' is not a folder, or goes through a symbolic link.",
            next="call again with repo_path set to the real path of a folder.",
        ) from exc


def _list_folder(top: int, relative: str, walk: _Walk) -> None:
    try:
        folder = open_folder_beneath(top, relative)
    except OSError:
        # Unreadable, or replaced since its parent was listed.
        walk.unreadable.append(relative or ".")
        return
    try:
        names = os.listdir(folder)  # noqa: PTH208  (a descriptor, not a path)
        if relative and ENVIRONMENT_MARK in names:
            walk.leave_out("environment", f"{relative}/")
            return
        # In reverse, because the stack hands the last one out first.
        for name in sorted(names, key=os.fsencode, reverse=True):
            _take(folder, relative, name, walk)
    except OSError:
        walk.unreadable.append(relative or ".")
    finally:
        os.close(folder)


def _take(folder: int, relative: str, name: str, walk: _Walk) -> None:
    path = f"{relative}/{name}" if relative else name
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError:
        walk.files.append(TargetFile(path=path, size=0, readable=False, reason="cannot be read by this user"))
        return
    kind = _kind(name, relative, status, walk)
    if kind == "folder":
        _take_folder(path, walk)
    elif kind == "file":
        _take_file(folder, name, path, status.st_size, walk)
    else:
        walk.leave_out(kind, f"{path}/" if _is_folder(folder, name, status) else path)


def _kind(name: str, relative: str, status: os.stat_result, walk: _Walk) -> str:
    """Say what an entry is to a scan: folder, file, or the reason for leaving it out."""
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return "link"
    if is_credential_name(name, relative.rpartition("/")[2]):
        return "credential"
    if stat.S_ISREG(mode):
        return "file"
    if not stat.S_ISDIR(mode):
        return "special"
    if name in TOOL_FOLDERS:
        return "tool"
    if name in PACKAGE_FOLDERS:
        return "package"
    return "excluded" if (status.st_dev, status.st_ino) in walk.excluded else "folder"


def _is_folder(folder: int, name: str, status: os.stat_result) -> bool:
    """Tell whether an entry is a folder, or a link that leads to one."""
    if not stat.S_ISLNK(status.st_mode):
        return stat.S_ISDIR(status.st_mode)
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder).st_mode)
    except OSError:
        return False


def _take_folder(path: str, walk: _Walk) -> None:
    if path.count("/") >= MAX_DEPTH:
        walk.unreadable.append(path)
        return
    walk.seen_folders += 1
    _bounded(walk.seen_folders - 1, MAX_FOLDERS, "folders")
    walk.folders.append(path)


def _take_file(folder: int, name: str, path: str, size: int, walk: _Walk) -> None:
    _bounded(len(walk.files), MAX_FILES, "files")
    readable = os.access(name, os.R_OK, dir_fd=folder, effective_ids=_EFFECTIVE)
    reason = "" if readable else "cannot be read by this user"
    walk.files.append(TargetFile(path=path, size=size, readable=readable, reason=reason))


def _bounded(count: int, most: int, what: str) -> None:
    if count >= most:
        raise TooLarge(
            f"The folder has more than {most:,} {what} below it.",
            next="call again with repo_path set to one of its sub-folders.",
        )


def _warnings(walk: _Walk) -> tuple[str, ...]:
    counts = walk.counts
    notes = (
        (counts["environment"], "folders that are Python virtual environments (they hold a pyvenv.cfg)"),
        (counts["package"], "folders of installed packages (node_modules, site-packages)"),
        (counts["credential"], "files or folders that have the name of a credential"),
        (counts["special"], "named pipes, sockets or devices"),
    )
    said = [f"Not scanned: {count} {what}." for count, what in notes if count]
    if walk.unreadable:
        said.append(
            f"{len(walk.unreadable)} folders could not be read or are nested too deeply; what they hold is unknown."
        )
    return tuple(said)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
