"""What commit a folder shows, read from git by plumbing only; a hostile repository must not run anything.

Git obeys the configuration of the repository it looks at: it can name programs for file system monitors, filters,
external diffs, hooks, pagers and credentials. So git never looks at the target's: HEAD and refs are read here, as
files. Whether the folder differs from its commit is asked of git in a private repository of our own that borrows
nothing but the target's objects. The index of the target is not used either: it can claim that a changed file is not.

`dirty` means: the scanned folder differs from the commit, by a changed, missing or additional file that no `.gitignore`
of the folder names. It is None where that cannot be told: no git program, no commit yet, another reference storage, or
only files that a filter (such as Git LFS) would have to convert. Submodules are not looked into.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import anyio
from anyio.to_thread import run_sync

from intelligentscan._credential_forms import without_credentials
from intelligentscan._paths import open_beneath
from intelligentscan._private_folder import private_folder
from intelligentscan._process import ProcessResult, find_executable, run, scrubbed_env
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.domain.text import visible
from intelligentscan.scanners.interface import Vcs

TIMEOUT_S = 10.0
_MAX_CONFIG_BYTES = 1024 * 1024
_MAX_PACKED_REFS_BYTES = 64 * 1024 * 1024
_MAX_TEXT = 1000
OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/[^\x00-\x20\x7f~^:?*\[\\]{1,500}")
# Booleans and words of the target's configuration that say how its files look, and can name no program.
_CARRIED_OVER = {
    "core.filemode": re.compile("true|false"),
    "core.symlinks": re.compile("true|false"),
    "core.ignorecase": re.compile("true|false"),
    "core.precomposeunicode": re.compile("true|false"),
    "core.autocrlf": re.compile("true|false|input"),
    "core.eol": re.compile("lf|crlf|native"),
}
_QUIET = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.attributesFile=/dev/null",
          "core.excludesFile=/dev/null", "core.untrackedCache=false", "protocol.allow=never", "submodule.recurse=false",
          "core.pager=cat", "credential.helper=", "gc.auto=0", "maintenance.auto=false")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Repository:
    """Where the parts of a repository lie.

    Attributes:
        top: the work tree.
        git_dir: its own part: HEAD.
        common_dir: what linked work trees share: refs, configuration, objects.
    """

    top: Path
    git_dir: Path
    common_dir: Path


@dataclass(frozen=True, slots=True)
class _Head:
    branch: str | None
    commit: str | None


async def describe(root: Path) -> Vcs:
    """Return what git knows about a folder; all None if it is in no work tree.

    Args:
        root: real absolute path of the folder, the top of a work tree or a folder below.
    """
    repository = await run_sync(find_repository, root)
    if repository is None:
        return Vcs()
    head = await run_sync(_read_head, repository)
    subpath = root.relative_to(repository.top).as_posix()
    git = await run_sync(lambda: find_executable("git", avoid=repository.top))
    url: str | None = None
    dirty: bool | None = None
    submodules = False
    if git is not None:
        async with private_folder() as folder:
            runner = Git(git, folder)
            with anyio.move_on_after(TIMEOUT_S):
                config = await _read_config(runner, repository)
                url = _without_credentials(config.get("remote.origin.url", ""))
                if head.commit is not None:
                    dirty = await _is_dirty(runner, repository, head.commit, config, subpath)
                    submodules = await _has_submodules(runner, repository)
    return Vcs(
        repository=_shown(_name(url) or repository.top.name),
        url=_shown(url),
        branch=_shown(head.branch),
        commit=head.commit,
        dirty=dirty,
        subpath=_shown(None if subpath == "." else subpath),
        submodules=submodules,
    )


def find_repository(root: Path) -> Repository | None:
    """Find the work tree that holds the folder."""
    for top in (root, *root.parents):
        entry = top / ".git"
        try:
            status = entry.lstat()
            owner_ok = top == root or status.st_uid in {os.geteuid(), root.lstat().st_uid}
        except OSError:
            continue
        # A `.git` above the folder, put there by somebody else, says nothing about it.
        if not owner_ok:
            return None
        return _at(top, entry)
    return None


def _at(top: Path, entry: Path) -> Repository | None:
    if entry.is_symlink():
        return None
    if entry.is_dir():
        return Repository(top, entry, entry) if _text(entry, "HEAD") is not None else None
    pointer = (_text(top, ".git") or "").strip()
    if not pointer.startswith("gitdir: "):
        return None
    git_dir = Path(os.path.realpath(top / pointer.removeprefix("gitdir: ")))
    # The other side must agree: a pointer alone could show the commits of any repository on this machine.
    if not _points_back(git_dir, top):
        return None
    shared = (_text(git_dir, "commondir") or "").strip()
    common_dir = Path(os.path.realpath(git_dir / shared)) if shared else git_dir
    return Repository(top, git_dir, common_dir)


def _points_back(git_dir: Path, top: Path) -> bool:
    """Tell whether a git folder elsewhere names this work tree: as a linked work tree, or as a submodule."""
    linked = (_text(git_dir, "gitdir") or "").strip()
    if linked:
        return os.path.realpath(git_dir / linked) == os.path.realpath(top / ".git")
    match = re.search(r"^\s*worktree\s*=\s*\"?([^\"\n]+?)\"?\s*$", _text(git_dir, "config") or "", re.MULTILINE)
    return match is not None and os.path.realpath(git_dir / match[1]) == os.path.realpath(top)


def _read_head(repository: Repository) -> _Head:
    head = (_text(repository.git_dir, "HEAD") or "").strip()
    if OBJECT_ID.fullmatch(head):
        return _Head(None, head)
    ref = head.removeprefix("ref: ").strip()
    if not head.startswith("ref: ") or not _REF.fullmatch(ref) or ".." in ref or ref.endswith(".invalid"):
        return _Head(None, None)
    found = (_text(repository.common_dir, ref) or "").strip() or _packed(repository, ref)
    return _Head(ref.removeprefix("refs/heads/"), found if OBJECT_ID.fullmatch(found) else None)


def _packed(repository: Repository, ref: str) -> str:
    packed = _text(repository.common_dir, "packed-refs", _MAX_PACKED_REFS_BYTES) or ""
    match = re.search(rf"^([0-9a-f]+) {re.escape(ref)}$", packed, re.MULTILINE)
    return match[1] if match else ""


def _text(folder: Path, relative: str, max_bytes: int = _MAX_CONFIG_BYTES) -> str | None:
    """Return a small regular file below a folder, not followed through links; None if there is none."""
    try:
        with os.fdopen(open_beneath(Path(os.path.realpath(folder)), relative), "rb") as stream:
            data = stream.read(max_bytes + 1)
    except (OSError, IntelligentScanError, ValueError):
        return None
    return data.decode("utf-8", "surrogateescape") if len(data) <= max_bytes else None


class Git:
    """Runs git commands that know nothing but a private repository."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self.folder = folder
        self.git_dir = folder / "repository"
        self._env = {
            **scrubbed_env(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_DIR": str(self.git_dir),
        }

    async def run(
        self, *arguments: str, stdin: bytes | None = None, extra: dict[str, str] | None = None, max_output: int = 2**24
    ) -> ProcessResult:
        """Run one git command, with settings under which nothing of the target is executed."""
        options = [part for setting in _QUIET for part in ("-c", setting)]
        return await run(
            [str(self._program), "--no-pager", *options, *arguments],
            cwd=self.folder,
            env=self._env | (extra or {}),
            timeout_s=TIMEOUT_S,
            stdin=stdin,
            max_output=max_output,
        )


async def _read_config(git: Git, repository: Repository) -> dict[str, str]:
    """Return the target's configuration as data: git parses the bytes it is handed, and follows no include."""
    text = await run_sync(_text, repository.common_dir, "config")
    if text is None:
        return {}
    result = await git.run(
        "config", "--file", "-", "--no-includes", "--null", "--list", stdin=text.encode("utf-8", "surrogateescape")
    )
    entries = result.stdout.decode("utf-8", "replace").split("\0") if result.exit_code == 0 else []
    return {key: value for key, _, value in (entry.partition("\n") for entry in entries)}


async def _is_dirty(git: Git, repository: Repository, commit: str, config: dict[str, str], subpath: str) -> bool | None:
    await run_sync(make_private_repository, git.git_dir, repository, commit, config)
    here = _seen_from(repository)
    if (await git.run("read-tree", commit, extra=here)).exit_code != 0:
        return None
    listing = ("ls-files", "-z", "--exclude-standard", "--no-empty-directory")
    where = ("--", f"{repository.top}/{'' if subpath == '.' else subpath}")
    # One file more or less is enough to know, so the list may be cut.
    other = await git.run(*listing, "--others", "--directory", *where, extra=here, max_output=2**20)
    changed = await git.run(*listing, "--modified", "--deleted", *where, extra=here)
    if other.timed_out or changed.timed_out or (changed.exit_code != 0 and not changed.stdout_truncated):
        return None
    if other.stdout or changed.stdout_truncated:
        return True
    return await _differ(git, [path for path in changed.stdout.split(b"\0") if path], here)


async def _has_submodules(git: Git, repository: Repository) -> bool:
    """Tell whether the index that was read names a commit of another repository; a list too long counts as yes."""
    listed = await git.run("ls-files", "-z", "--stage", extra=_seen_from(repository))
    entries = listed.stdout.split(b"\0")
    return listed.stdout_truncated or any(entry.startswith(b"160000 ") for entry in entries)


def _seen_from(repository: Repository) -> dict[str, str]:
    return {
        "GIT_OBJECT_DIRECTORY": str(repository.common_dir / "objects"),
        "GIT_WORK_TREE": str(repository.top),
        "GIT_LITERAL_PATHSPECS": "1",
    }


async def _differ(git: Git, paths: Sequence[bytes], here: dict[str, str]) -> bool | None:
    """Tell whether files that git calls changed are; where a filter would convert them, nobody knows without it."""
    if not paths:
        return False
    asked = await git.run("check-attr", "-z", "--stdin", "filter", stdin=b"\0".join(paths) + b"\0", extra=here)
    fields = asked.stdout.split(b"\0")
    if asked.exit_code != 0 or not fields:
        return None
    filtered = [value not in {b"unspecified", b"unset", b"set"} for value in fields[2::3]]
    return None if filtered and all(filtered) else True


def make_private_repository(git_dir: Path, repository: Repository, commit: str, config: dict[str, str]) -> None:
    """Write a repository that has no objects of its own and settings of our choice."""
    for folder in ("refs/heads", "objects", "info"):
        (git_dir / folder).mkdir(parents=True, mode=0o700, exist_ok=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/none\n")
    sha256 = len(commit) == 64
    lines = [
        "[core]",
        f"\trepositoryformatversion = {1 if sha256 else 0}",
        "\tbare = false",
        *(
            f"\t{key.removeprefix('core.')} = {config[key]}"
            for key, ok in _CARRIED_OVER.items()
            if _fits(config, key, ok)
        ),
        *(["[extensions]", "\tobjectformat = sha256"] if sha256 else []),
    ]
    (git_dir / "config").write_text("\n".join(lines) + "\n")
    excluded = _text(repository.common_dir, "info/exclude") or ""
    (git_dir / "info" / "exclude").write_bytes(excluded.encode("utf-8", "surrogateescape"))


def _fits(config: dict[str, str], key: str, allowed: re.Pattern[str]) -> bool:
    return allowed.fullmatch(config.get(key, "")) is not None


def _without_credentials(url: str) -> str | None:
    """Return a remote's URL without user, password, query and fragment; None for paths of this machine."""
    if "://" in url:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        if not host or parts.scheme not in {"https", "http", "ssh", "git"}:
            return None
        place = f"[{host}]" if ":" in host else host
        return urlunsplit((parts.scheme, f"{place}:{port}" if port else place, parts.path, "", ""))
    match = re.fullmatch(r"(?:[^@/\s]+@)?([A-Za-z0-9.\-]+):([^:\s?#][^\s?#]*)", url)
    return f"ssh://{match[1]}/{match[2].lstrip('/')}" if match else None


def _name(url: str | None) -> str | None:
    name = (url or "").rstrip("/").rpartition("/")[2].removesuffix(".git")
    return name or None


def _shown(text: str | None) -> str | None:
    if text is None:
        return None
    return visible(without_credentials(os.fsencode(text).decode("utf-8", "replace")))[:_MAX_TEXT]
