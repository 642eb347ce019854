"""What git says about a folder, without running anything a hostile repository names."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from intelligentscan.scanners import git as git_module
from intelligentscan.scanners.git import describe
from intelligentscan.scanners.interface import Vcs

IDENTITY = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
    "PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "GIT_TERMINAL_PROMPT": "0",
}  # fmt: skip


def git(folder: Path, *arguments: str, check: bool = True, stdin: str = "") -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=IDENTITY, capture_output=True, text=True, check=check, input=stdin
    )
    return done.stdout.strip()


def committed(folder: Path, *options: str) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main", *options)
    (folder / "src").mkdir()
    (folder / "src" / "app.py").write_text("x = 1\n")
    (folder / "other.py").write_text("y = 1\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def repository(tmp_path) -> Path:
    return committed(tmp_path.resolve() / "app")


async def test_a_clean_work_tree_has_commit_branch_and_is_not_dirty(repository):
    vcs = await describe(repository)

    assert vcs == Vcs(repository="app", branch="main", commit=git(repository, "rev-parse", "HEAD"), dirty=False)


def change(root: Path) -> None:
    (root / "src" / "app.py").write_text("x = 2\n")


def change_keeping_size_and_time(root: Path) -> None:
    status = (root / "src" / "app.py").stat()
    change(root)
    os.utime(root / "src" / "app.py", ns=(status.st_atime_ns, status.st_mtime_ns))


def change_that_the_index_denies(root: Path) -> None:
    git(root, "update-index", "--assume-unchanged", "src/app.py")
    change(root)


def stage(root: Path) -> None:
    change(root)
    git(root, "add", ".")


@pytest.mark.parametrize(
    "act",
    [
        change,
        change_keeping_size_and_time,
        change_that_the_index_denies,
        stage,
        lambda root: (root / "src" / "app.py").unlink(),
        lambda root: (root / "src" / "new.py").write_text(""),
        lambda root: (root / "src" / "app.py").chmod(0o755),
    ],
    ids=["changed", "same size and time", "assumed unchanged", "staged", "deleted", "untracked", "made executable"],
)
async def test_a_difference_from_the_commit_makes_it_dirty_where_it_lies(repository, act):
    act(repository)

    assert (await describe(repository)).dirty is True
    inside = await describe(repository / "src")
    assert (inside.dirty, inside.subpath) == (True, "src")


async def test_ignored_files_touched_files_and_changes_beside_the_folder_do_not_make_it_dirty(repository):
    (repository / "debug.log").write_text("x")
    (repository / ".git" / "info" / "exclude").write_text("*.tmp\n")
    (repository / "scratch.tmp").write_text("x")
    (repository / "src" / "empty").mkdir()
    os.utime(repository / "other.py", (1, 1))
    assert (await describe(repository)).dirty is False

    (repository / "other.py").write_text("changed")
    assert (await describe(repository / "src")).dirty is False


async def test_line_endings_that_attributes_convert_are_no_difference(tmp_path):
    root = tmp_path.resolve() / "crlf"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / ".gitattributes").write_text("*.py text eol=crlf\n")
    (root / "a.py").write_bytes(b"x = 1\r\ny = 2\r\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")

    assert (await describe(root)).dirty is False
    (root / "a.py").write_bytes(b"x = 1\r\ny = 3\r\n")
    assert (await describe(root)).dirty is True


async def test_where_a_filter_would_have_to_run_dirty_is_unknown(repository):
    (repository / ".gitattributes").write_text("other.py filter=lfs\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "attributes")
    (repository / "other.py").write_text("a large file in place of its pointer")
    assert (await describe(repository)).dirty is None

    change(repository)
    assert (await describe(repository)).dirty is True


async def test_a_repository_without_commits_has_a_branch_only(tmp_path):
    root = tmp_path.resolve() / "new"
    root.mkdir()
    git(root, "init", "-q", "-b", "trunk")

    assert await describe(root) == Vcs(repository="new", branch="trunk")


async def test_a_detached_head_has_a_commit_only(repository):
    git(repository, "checkout", "-q", "--detach")

    vcs = await describe(repository)

    assert (vcs.branch, vcs.commit, vcs.dirty) == (None, git(repository, "rev-parse", "HEAD"), False)


async def test_packed_refs_and_packed_objects_are_read(repository):
    git(repository, "checkout", "-q", "-b", "feature/größe")
    git(repository, "gc", "-q")
    git(repository, "pack-refs", "--all")

    vcs = await describe(repository)

    assert (vcs.branch, vcs.commit, vcs.dirty) == ("feature/größe", git(repository, "rev-parse", "HEAD"), False)


async def test_sha256_repositories_are_read(tmp_path):
    root = committed(tmp_path.resolve() / "app", "--object-format=sha256")

    vcs = await describe(root)

    assert (vcs.commit, vcs.dirty) == (git(root, "rev-parse", "HEAD"), False)
    assert len(vcs.commit) == 64


async def test_a_linked_work_tree_and_a_submodule_are_read(repository, tmp_path):
    tree = tmp_path.resolve() / "tree"
    git(repository, "worktree", "add", "-q", "-b", "side", str(tree))
    above = committed(tmp_path.resolve() / "above")
    git(above, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "sub")
    git(above, "commit", "-q", "-m", "sub")
    commit = git(repository, "rev-parse", "HEAD")

    linked, submodule = await describe(tree), await describe(above / "sub")

    assert (linked.branch, linked.commit, linked.dirty) == ("side", commit, False)
    assert (submodule.branch, submodule.commit, submodule.dirty) == ("main", commit, False)
    assert (await describe(above)).dirty is False
    (tree / "src" / "app.py").write_text("changed")
    assert (await describe(tree)).dirty is True


async def test_a_folder_outside_any_work_tree_and_a_bare_repository_have_nothing(tmp_path):
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    (tmp_path / "plain").mkdir()

    assert await describe(tmp_path.resolve() / "plain") == Vcs()
    assert await describe(tmp_path.resolve() / "bare.git") == Vcs()


async def test_without_a_git_program_commit_and_branch_are_known(repository, monkeypatch):
    monkeypatch.setattr(git_module, "find_executable", lambda *_, **__: None)

    vcs = await describe(repository)

    assert (vcs.branch, vcs.commit, vcs.dirty, vcs.url) == ("main", git(repository, "rev-parse", "HEAD"), None, None)


@pytest.mark.parametrize(
    ("url", "shown", "name"),
    [
        ("https://user:token@example.org/team/shop.git", "https://example.org/team/shop.git", "shop"),
        ("https://token@example.org:8443/shop?key=1#x", "https://example.org:8443/shop", "shop"),
        ("git@example.org:team/shop.git", "ssh://example.org/team/shop.git", "shop"),
        ("ssh://git@[2001:db8::1]:22/shop.git", "ssh://[2001:db8::1]:22/shop.git", "shop"),
        ("/srv/private/shop.git", None, "app"),
        ("file:///srv/private/shop.git", None, "app"),
        ("ext::sh -c 'echo hello'", None, "app"),
        ("https://example.org/\x1b[31mshop", "https://example.org/\\u001b[31mshop", "\\u001b[31mshop"),
    ],
)
async def test_the_remote_is_shown_without_credentials_and_local_paths(repository, url, shown, name):
    git(repository, "config", "remote.origin.url", url)

    vcs = await describe(repository)

    assert (vcs.url, vcs.repository) == (shown, name)
    assert "token" not in str(vcs)


@dataclass(frozen=True)
class Trap:
    """A repository that runs a script, and the git command by which it does when git trusts it."""

    name: str
    set_up: Callable[[Path, Path], None]
    springs_on: tuple[str, ...] = ()


def config(*pairs: str) -> Callable[[Path, Path], None]:
    def set_up(root: Path, script: Path) -> None:
        for pair in pairs:
            key, _, value = pair.partition("=")
            git(root, "config", key, value.format(script=script))

    return set_up


def attributes(line: str, *pairs: str) -> Callable[[Path, Path], None]:
    def set_up(root: Path, script: Path) -> None:
        (root / ".gitattributes").write_text(line + "\n")
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", "attributes")
        config(*pairs)(root, script)
        change(root)

    return set_up


def hook(root: Path, script: Path) -> None:
    (root / ".git" / "hooks" / "post-index-change").symlink_to(script)


def hooks_elsewhere(root: Path, script: Path) -> None:
    (root / "hooks").mkdir()
    (root / "hooks" / "post-index-change").symlink_to(script)
    git(root, "config", "core.hooksPath", str(root / "hooks"))


def included(key: str) -> Callable[[Path, Path], None]:
    def set_up(root: Path, script: Path) -> None:
        (root / "evil.config").write_text(f"[core]\n\tfsmonitor = {script}\n")
        git(root, "config", key, str(root / "evil.config"))

    return set_up


def submodule(root: Path, script: Path) -> None:
    inner = committed(root.parent / "inner")
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    git(root, "commit", "-q", "-m", "sub")
    git(root / "sub", "config", "core.fsmonitor", str(script))


def submodule_update(root: Path, script: Path) -> None:
    submodule(root, Path("/bin/true"))
    git(root, "config", "submodule.sub.update", f"!{script}")
    git(root / "sub", "commit", "-q", "--allow-empty", "-m", "later")


def work_tree_config(root: Path, script: Path) -> None:
    git(root, "config", "extensions.worktreeConfig", "true")
    (root / ".git" / "config.worktree").write_text(f"[core]\n\tfsmonitor = {script}\n")


def missing_object(root: Path, script: Path) -> None:
    blob = git(root, "rev-parse", "HEAD:src/app.py")
    (root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    config(
        "core.repositoryformatversion=1",
        "extensions.partialClone=origin",
        "remote.origin.promisor=true",
        "remote.origin.url=ext::{script}",
        "protocol.ext.allow=always",
    )(root, script)


TRAPS = [
    Trap("file system monitor", config("core.fsmonitor={script}"), ("status",)),
    Trap("hook", hook, ("read-tree", "HEAD")),
    Trap("hooks path", hooks_elsewhere, ("read-tree", "HEAD")),
    Trap("clean filter", attributes("* filter=x", "filter.x.clean={script}"), ("status",)),
    Trap("filter process", attributes("* filter=x", "filter.x.process={script}"), ("status",)),
    Trap("smudge filter", attributes("* filter=x", "filter.x.smudge={script}"), ("checkout", "src/app.py")),
    Trap("textconv", attributes("* diff=x", "diff.x.textconv={script}"), ("diff",)),
    Trap("external diff", attributes("* text", "diff.external={script}"), ("diff",)),
    Trap("diff driver", attributes("* diff=x", "diff.x.command={script}"), ("diff",)),
    Trap("ssh command", config("core.sshCommand={script}", "remote.origin.url=a@b:c"), ("ls-remote",)),
    Trap("alias", config("alias.ls-files=!{script}", "alias.x=!{script}"), ("x",)),
    Trap("include", included("include.path"), ("status",)),
    Trap("conditional include", included("includeIf.gitdir:**.path"), ("status",)),
    Trap("work tree configuration", work_tree_config, ("status",)),
    Trap("submodule", submodule, ("status",)),
    Trap("submodule update", submodule_update, ("submodule", "update")),
    Trap("credential helper", config("credential.helper=!{script}"), ("credential", "fill")),
    Trap("lazy fetch", missing_object, ("cat-file", "-p", "HEAD:src/app.py")),
    Trap("pager", config("core.pager={script}", "pager.ls-files={script}", "pager.config={script}")),
    Trap("editor and signatures", config("core.editor={script}", "gpg.program={script}", "log.showSignature=true")),
    Trap("git proxy", config("core.gitProxy={script}", "core.askPass={script}", "core.alternateRefsCommand={script}")),
]


def springs(root: Path, marker: Path, command: tuple[str, ...]) -> bool:
    """Tell whether git itself, told to trust the repository, runs the script; and take the trace away."""
    git(root, *command, check=False, stdin="protocol=https\nhost=example.org\n\n")
    sprung = marker.exists()
    marker.unlink(missing_ok=True)
    return sprung


@pytest.mark.parametrize("trap", TRAPS, ids=[trap.name for trap in TRAPS])
async def test_a_hostile_repository_runs_nothing(repository, tmp_path, trap):
    marker, script = tmp_path / "marker", tmp_path / "script.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\ncat >/dev/null 2>&1 </dev/null\nexit 0\n")
    script.chmod(0o755)
    trap.set_up(repository, script)
    marker.unlink(missing_ok=True)

    vcs = await describe(repository)

    assert not marker.exists()
    assert vcs.commit == git(repository, "-c", "core.fsmonitor=false", "rev-parse", "HEAD")
    assert vcs.branch == "main"
    if trap.springs_on:
        marker.unlink(missing_ok=True)
        assert springs(repository, marker, trap.springs_on), "the trap is none, so the test shows nothing"


async def test_nothing_is_written_into_the_target(repository):
    def state() -> dict[str, tuple[int, int]]:
        return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in sorted(repository.rglob("*"))}

    change(repository)
    before = state()

    assert (await describe(repository)).dirty is True
    assert state() == before


async def test_a_work_tree_setting_does_not_lead_elsewhere(repository, tmp_path):
    elsewhere = tmp_path.resolve() / "elsewhere"
    elsewhere.mkdir()
    git(repository, "config", "core.worktree", str(elsewhere))

    assert (await describe(repository)).dirty is False


async def test_a_pointer_to_a_repository_that_does_not_point_back_shows_nothing(repository, tmp_path):
    target = tmp_path.resolve() / "target"
    target.mkdir()
    (target / ".git").write_text(f"gitdir: {repository}/.git\n")

    assert await describe(target) == Vcs()
    (target / ".git").unlink()
    (target / ".git").symlink_to(repository / ".git")
    assert await describe(target) == Vcs()


@pytest.mark.parametrize(
    "head",
    [
        "ref: refs/../../secret",
        "ref: /etc/passwd",
        "ref: refs/heads/a\nb",
        "garbage",
        "",
        "ref: refs/heads/.invalid",
        "\0",
    ],
)
async def test_a_malformed_head_gives_no_commit(repository, head):
    (repository.parent / "secret").write_text("a" * 40)
    (repository / ".git" / "HEAD").write_text(head)

    vcs = await describe(repository)

    assert (vcs.commit, vcs.dirty) == (None, None)


async def test_pipes_in_place_of_git_files_do_not_hang(repository, monkeypatch):
    monkeypatch.setattr(git_module, "TIMEOUT_S", 1.0)
    for name in ("config", "packed-refs"):
        (repository / ".git" / name).unlink(missing_ok=True)
        os.mkfifo(repository / ".git" / name)
    os.mkfifo(repository / ".git" / "objects" / "pack" / "pack-1.idx")
    (repository / ".gitignore").unlink()
    os.mkfifo(repository / ".gitignore")

    vcs = await describe(repository)

    assert vcs.commit == (repository / ".git" / "refs" / "heads" / "main").read_text().strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_a_repository_of_another_user_is_read_and_one_planted_above_is_not(repository):
    for folder, folders, files in os.walk(repository):
        for name in (".", *folders, *files):
            os.lchown(Path(folder, name), 65534, 65534)
    assert (await describe(repository)).dirty is False

    mine = repository / "mine"
    mine.mkdir()
    assert await describe(mine) == Vcs()
