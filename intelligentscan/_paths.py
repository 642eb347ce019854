"""Which paths a caller may name, and how files below them are opened without following links.

A path argument is checked once, on its real form: inside an allowed root, not a credential, not our own home, and of
the kind that is needed. Opening then starts at the file system's root and walks folder by folder without following
links, so a link that is put in place after the check is refused and not followed.
"""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from intelligentscan._credentials import is_credential, is_credential_folder
from intelligentscan.domain.errors import (
    IntelligentScanError,
    PathNotFound,
    PathRefused,
    PathUnreadable,
    TooLarge,
    WrongPathKind,
)
from intelligentscan.domain.text import untrusted

MAX_PATH_CHARACTERS = 4096
ROOTS_SETTING = "INTELLIGENTSCAN_ALLOWED_ROOTS"
PROJECT_MARKS = (
    ".git", ".hg", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "Pipfile", "MLproject",
    "package.json", "go.mod", "Cargo.toml", "pom.xml", "build.gradle", "build.gradle.kts", "Gemfile", "composer.json",
    "CMakeLists.txt", "Makefile", "Dockerfile",
)  # fmt: skip
"""Any of these in a folder makes it a project."""

_FOLDER_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_PATH needs no read permission on the folders on the way, only the right to pass; macOS does not have it.
_PASS_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | _FOLDER_FLAGS
# Without O_NONBLOCK, opening a named pipe would wait for a writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class AllowedRoots:
    """The folders that path arguments may lie in.

    Attributes:
        roots: allowed folders; with none, every path is refused.
        home: INTELLIGENTSCAN_HOME, which is always refused.
        base: what relative paths start from; the first root if None.
    """

    roots: tuple[Path, ...]
    home: Path
    base: Path | None = None

    def folder(self, path: str, *, argument: str = "repo_path") -> Path:
        """Return the real path of an existing, readable folder inside the roots.

        Raises:
            PathRefused: the path is outside the roots or refused by its kind; subclasses say that it is missing, not a
                folder, or not readable.
            TooLarge: the path is longer than any path can be.
        """
        real, status = self._checked(path, argument)
        if not stat.S_ISDIR(status.st_mode):
            raise WrongPathKind(
                f"'{untrusted(path)}' is {_kind(status.st_mode)}; {argument} takes a folder.",
                next=f"call again with {argument} set to the folder that holds it.",
            )
        if is_credential_folder(real):
            raise _credential(path, argument)
        if not os.access(real, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise _unreadable(path, argument)
        return real

    def file(self, path: str, *, argument: str = "sarif_path") -> Path:
        """Return the real path of an existing regular file inside the roots.

        Raises:
            PathRefused: as for `folder`.
            TooLarge: the path is longer than any path can be.
        """
        real, status = self._checked(path, argument)
        if not stat.S_ISREG(status.st_mode):
            raise WrongPathKind(
                f"'{untrusted(path)}' is {_kind(status.st_mode)}; {argument} takes a regular file.",
                next=f"call again with {argument} set to a file.",
            )
        if is_credential(real):
            raise _credential(path, argument)
        return real

    def read_bytes(self, path: str, max_bytes: int, *, argument: str = "sarif_path") -> bytes:
        """Return the bytes of a regular file inside the roots.

        Raises:
            PathRefused: as for `folder`.
            TooLarge: the file has more than `max_bytes`.
        """
        return _read_real(self.file(path, argument=argument), path, max_bytes, argument)

    def _checked(self, path: str, argument: str) -> tuple[Path, os.stat_result]:
        if not self.roots:
            raise _no_roots(argument)
        text = _plain(path, argument)
        base = self.base if self.base is not None else self.roots[0]
        try:
            # Folders are resolved as the system does ('..' after links), and what lies outside is not told apart.
            real = Path(os.path.realpath(Path(base, text)))
        except (OSError, ValueError) as exc:
            raise _refused(path, argument, self.roots) from exc
        if not any(_inside(real, root) for root in self.roots):
            raise _refused(path, argument, self.roots)
        if _is_or_lies_in(real, self.home):
            raise PathRefused(
                f"'{untrusted(path)}' lies in INTELLIGENTSCAN_HOME, which is never read as a target.",
                next=f"call again with {argument} outside of it; runs and artifacts are read with get_run.",
            )
        if is_credential(real):
            raise _credential(path, argument)
        try:
            return real, real.lstat()
        except OSError as exc:
            raise _not_opened(exc, path, argument) from exc


def default_roots(cwd: Path, user_home: Path) -> tuple[Path, ...]:
    """Return the roots when none are set: the working directory if it is a project, otherwise none.

    Args:
        cwd: the working directory of the server.
        user_home: the user's home folder, which is never a default root, nor is any folder above it.
    """
    real, home = Path(os.path.realpath(cwd)), Path(os.path.realpath(user_home))
    if home.is_relative_to(real) or real == Path(real.anchor) or is_credential_folder(real):
        return ()
    return (real,) if any(os.path.lexists(real / mark) for mark in PROJECT_MARKS) else ()


def read_own(path: str, max_bytes: int, *, argument: str) -> bytes:
    """Return the bytes of a regular file that a person names at the command line, wherever it lies.

    A private key or a signature is meant to be read there, so neither roots nor the names of credentials count.

    Raises:
        PathRefused: it is missing, not readable, or not a regular file.
        TooLarge: it has more than `max_bytes`.
    """
    text = _plain(path, argument)
    return _read_real(Path(os.path.realpath(text)), path, max_bytes, argument)


def open_folder(folder: Path) -> int:
    """Open a folder by its real absolute path, following no link on the way; return its file descriptor.

    Raises:
        OSError: it is missing, not a folder, not readable, or a link stands in the way.
    """
    return _walk_from_top(folder, (), os.O_RDONLY | _FOLDER_FLAGS)


def open_folder_beneath(root: int, relative: str) -> int:
    """Open a folder below an open folder, following no link on the way; '' is the folder itself.

    Raises:
        OSError: as for `open_folder`.
    """
    return _walk(root, _parts(relative) if relative else (), os.O_RDONLY | _FOLDER_FLAGS)


def open_beneath(root: Path | int, relative: str, *, shown: str | None = None) -> int:
    """Open a regular file below a root folder, following no link on the way; return its file descriptor.

    Args:
        root: real absolute path of a folder, or the descriptor of an open folder.
        relative: path of the file below it, with forward slashes.
        shown: how an error names it; `relative` if None.

    Raises:
        WrongPathKind: it is not a regular file.
        OSError: it is missing, not readable, or a link stands in the way.
    """
    parts = _parts(relative)
    descriptor = _walk(root, parts, _FILE_FLAGS) if isinstance(root, int) else _walk_from_top(root, parts, _FILE_FLAGS)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise WrongPathKind(
            f"'{untrusted(shown or relative)}' is {_kind(mode)}, not a regular file.",
            next="give the path of a regular file.",
        )
    return descriptor


def read_bytes(root: Path, relative: str, max_bytes: int, *, argument: str = "path", shown: str | None = None) -> bytes:
    """Return the bytes of a regular file below a root folder.

    Args:
        root: real absolute path of the folder.
        relative: path of the file below it, with forward slashes.
        max_bytes: the most that is read.
        argument: what the caller sets to another path.
        shown: how an error names the file; `relative` if None.

    Raises:
        PathRefused: it is missing, not readable, not a regular file, or behind a link.
        TooLarge: it has more than `max_bytes`.
    """
    try:
        with os.fdopen(open_beneath(root, relative, shown=shown), "rb") as stream:
            # One byte more than allowed, because a size read beforehand can be outgrown.
            data = stream.read(max_bytes + 1)
    except OSError as exc:
        raise _not_opened(exc, shown or relative, argument) from exc
    if len(data) > max_bytes:
        raise TooLarge(
            f"'{untrusted(shown or relative)}' has more than {max_bytes:,} bytes.",
            next=f"call again with {argument} set to a smaller file.",
        )
    return data


def _read_real(real: Path, path: str, max_bytes: int, argument: str) -> bytes:
    relative = str(real.relative_to(real.anchor))
    return read_bytes(Path(real.anchor), relative, max_bytes, argument=argument, shown=path)


def _walk_from_top(folder: Path, parts: tuple[str, ...], last_flags: int) -> int:
    if not folder.is_absolute():
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    top = os.open(folder.anchor, _PASS_FLAGS)
    try:
        return _walk(top, (*folder.parts[1:], *parts), last_flags)
    finally:
        os.close(top)


def _walk(start: int, parts: tuple[str, ...], last_flags: int) -> int:
    descriptor = os.open(".", _PASS_FLAGS if parts else last_flags, dir_fd=start)
    for number, part in enumerate(parts, start=1):
        try:
            following = os.open(part, last_flags if number == len(parts) else _PASS_FLAGS, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = following
    return descriptor


def _parts(relative: str) -> tuple[str, ...]:
    parts = tuple(relative.split("/"))
    if any(part in {"", ".", ".."} for part in parts):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return parts


def _inside(path: Path, folder: Path) -> bool:
    return path.is_relative_to(os.path.realpath(folder))


def _is_or_lies_in(path: Path, folder: Path) -> bool:
    """Compare by identity, because one folder can have two spellings where letter case does not count."""
    try:
        wanted = folder.stat()
    except OSError:
        return _inside(path, folder)
    for candidate in (path, *path.parents):
        with suppress(OSError):
            if os.path.samestat(candidate.lstat(), wanted):
                return True
    return False


def _plain(path: str, argument: str) -> str:
    if len(path) > MAX_PATH_CHARACTERS:
        raise TooLarge(
            f"{argument} has {len(path):,} characters; the most is {MAX_PATH_CHARACTERS:,}.",
            next=f"call again with {argument} set to the path of a folder or file.",
        )
    if not path.strip():
        raise PathRefused(f"{argument} is empty.", next=f"call again with {argument} set; '.' is the allowed root.")
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in path):
        raise PathRefused(
            f"{argument} '{untrusted(path, 80)}' has control characters or is not UTF-8.",
            next=f"call again with {argument} in printable characters; scan a folder above it instead.",
        )
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path  # noqa: PTH111  (cannot raise)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFLNK: "a link that leads nowhere",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _not_opened(exc: OSError, path: str, argument: str) -> IntelligentScanError:
    shown = untrusted(path)
    if exc.errno in {errno.EACCES, errno.EPERM}:
        return _unreadable(path, argument)
    if exc.errno in {errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR}:
        return PathNotFound(
            f"There is no '{shown}'.", next=f"call again with {argument} set to a path that exists; check its spelling."
        )
    if exc.errno == errno.ELOOP:
        return PathRefused(
            f"'{shown}' goes through a symbolic link that leads in a circle or was just changed.",
            next=f"call again with {argument} set to the real path.",
        )
    reason = os.strerror(exc.errno) if exc.errno else "unknown reason"
    return PathUnreadable(f"'{shown}' could not be opened: {reason}.", next=f"check the path given as {argument}.")


def _unreadable(path: str, argument: str) -> PathUnreadable:
    return PathUnreadable(
        f"'{untrusted(path)}' cannot be read by this user.",
        next=f"grant read access, or call again with {argument} set to a path that is readable.",
    )


def _no_roots(argument: str) -> PathRefused:
    return PathRefused(
        "No folder is allowed for path arguments: the working directory is no project.",
        next=f"set {ROOTS_SETTING} to the folders to allow, or connect again with "
        f"`intelligentscan install … --root FOLDER`; then call again with {argument} below one of them.",
    )


def _refused(path: str, argument: str, roots: tuple[Path, ...]) -> PathRefused:
    return PathRefused(
        f"'{untrusted(path)}' is outside the allowed folders.",
        next=f"call again with {argument} below an allowed folder, or add its folder to {ROOTS_SETTING} "
        "(or connect again with `intelligentscan install … --root FOLDER`).",
        details={"allowed_roots": [untrusted(str(root)) for root in roots[:10]]},
    )


def _credential(path: str, argument: str) -> PathRefused:
    return PathRefused(
        f"'{untrusted(path)}' has the name of a credential file or folder; those are never read.",
        next=f"call again with {argument} set to another path.",
    )
