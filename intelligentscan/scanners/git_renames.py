"""Which files git says were renamed between two commits, asked by plumbing in a private repository (see `git`).

Rename detection compares blobs; attributes, filters and text conversions of the target play no part in it. A commit
that is not there (a shallow clone, a rebased branch) simply gives no answer, and neither does anything fetch it.
"""

import os
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from intelligentscan._private_folder import private_folder
from intelligentscan._process import find_executable
from intelligentscan.scanners.git import (
    OBJECT_ID,
    TIMEOUT_S,
    Git,
    find_repository,
    make_private_repository,
)

MAX_OUTPUT = 2**24
_OPTIONS = (
    *("-r", "-z", "--name-status", "--diff-filter=R", "-M50%", "-l1000"),
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative"),
)


async def renamed_between(root: Path, before: str | None, after: str | None) -> dict[str, str]:
    """Return new paths by old ones, relative to the folder; empty if git does not know both commits.

    Args:
        root: real absolute path of a folder in a work tree.
        before: object id of a commit; whatever is none is not handed to git.
        after: object id of another commit.
    """
    if not (before and after and before != after and OBJECT_ID.fullmatch(before) and OBJECT_ID.fullmatch(after)):
        return {}
    repository = await run_sync(find_repository, root)
    if repository is None:
        return {}
    program = await run_sync(lambda: find_executable("git", avoid=repository.top))
    if program is None:
        return {}
    async with private_folder() as folder:
        git = Git(program, folder)
        with anyio.move_on_after(TIMEOUT_S):
            await run_sync(make_private_repository, git.git_dir, repository, after, {})
            objects = {"GIT_OBJECT_DIRECTORY": str(repository.common_dir / "objects")}
            done = await git.run("diff-tree", *_OPTIONS, before, after, extra=objects, max_output=MAX_OUTPUT)
            if done.exit_code == 0 and not done.stdout_truncated:
                return _below(done.stdout, root.relative_to(repository.top).as_posix())
    return {}


def _below(output: bytes, subpath: str) -> dict[str, str]:
    """Read `R<score> NUL old NUL new NUL` records and keep those with both names below the folder."""
    prefix = b"" if subpath == "." else os.fsencode(subpath) + b"/"
    fields = output.split(b"\0")
    found: dict[str, str] = {}
    for status, old, new in zip(fields[0::3], fields[1::3], fields[2::3], strict=False):
        if status[:1] == b"R" and old.startswith(prefix) and new.startswith(prefix):
            found[_shown(old[len(prefix) :])] = _shown(new[len(prefix) :])
    return found


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")
