"""Which paths a caller may name, and opening files below them."""

import os
import socket
from pathlib import Path

import pytest

from intelligentscan._credentials import is_credential
from intelligentscan._paths import AllowedRoots, default_roots, open_beneath, read_bytes
from intelligentscan.domain.errors import (
    IntelligentScanError,
    PathNotFound,
    PathRefused,
    PathUnreadable,
    TooLarge,
    WrongPathKind,
)


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path.resolve() / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "app.py").write_text("x = 1\n")
    return root


@pytest.fixture
def allowed(root) -> AllowedRoots:
    return AllowedRoots(roots=(root,), home=root.parent / "home")


def refusal(call, *arguments, **options) -> IntelligentScanError:
    with pytest.raises(IntelligentScanError) as caught:
        call(*arguments, **options)
    assert caught.value.message
    assert caught.value.next
    return caught.value


def test_folders_and_files_inside_a_root_are_taken_absolute_or_relative(allowed, root):
    assert allowed.folder(".") == root
    assert allowed.folder("src/../src") == root / "src"
    assert allowed.folder(str(root / "src")) == root / "src"
    assert allowed.file("src/app.py") == root / "src" / "app.py"
    assert allowed.read_bytes("src/app.py", 100) == b"x = 1\n"


def test_relative_paths_start_from_the_base_if_one_is_given(root):
    allowed = AllowedRoots(roots=(root,), home=root.parent / "home", base=root / "src")

    assert allowed.file("app.py") == root / "src" / "app.py"


def test_a_tilde_is_the_home_folder(allowed, root, monkeypatch):
    monkeypatch.setenv("HOME", str(root))

    assert allowed.folder("~/src") == root / "src"
    assert allowed.folder("~") == root


def test_what_lies_outside_is_refused_alike_whether_it_exists_or_not(allowed, root):
    (root.parent / "projectile").mkdir()

    for path in ("/etc", "/no/such/folder", "..", "src/../../projectile", str(root.parent / "projectile")):
        error = refusal(allowed.folder, path)
        assert type(error) is PathRefused
        assert "outside the allowed folders" in error.message
        assert "INTELLIGENTSCAN_ALLOWED_ROOTS" in error.next
        assert "intelligentscan install … --root" in error.next


def test_without_roots_the_refusal_names_the_setting_and_the_command(root):
    error = refusal(AllowedRoots(roots=(), home=root).folder, str(root))

    assert "INTELLIGENTSCAN_ALLOWED_ROOTS" in error.next
    assert "intelligentscan install … --root" in error.next


def test_links_are_judged_by_where_they_lead(allowed, root):
    (root / "inside").symlink_to(root / "src")
    (root / "outside").symlink_to("/etc")
    (root / "circle").symlink_to(root / "circle")
    (root / "dangling").symlink_to(root / "nothing")

    assert allowed.folder("inside") == root / "src"
    assert "outside" in refusal(allowed.folder, "outside").message
    assert refusal(allowed.file, "outside/passwd").code == "PATH_NOT_ALLOWED"
    assert isinstance(refusal(allowed.folder, "circle"), PathRefused)
    assert isinstance(refusal(allowed.folder, "circle/deeper"), PathRefused)
    assert isinstance(refusal(allowed.folder, "dangling"), PathNotFound)


def test_a_root_that_is_a_link_allows_what_it_leads_to(root):
    link = root.parent / "link"
    link.symlink_to(root)

    assert AllowedRoots(roots=(link,), home=root.parent / "home").folder("src") == root / "src"


def test_our_own_home_is_refused_by_whatever_name_it_has(root):
    home = root / "store"
    (home / "artifacts").mkdir(parents=True)
    (root / "alias").symlink_to(home)
    allowed = AllowedRoots(roots=(root,), home=root / "alias")

    for path in ("store", "store/artifacts", "alias/artifacts"):
        assert "INTELLIGENTSCAN_HOME" in refusal(allowed.folder, path).message
    assert allowed.folder("src") == root / "src"


@pytest.mark.parametrize(
    "path",
    [
        ".ssh/config", ".aws/credentials", ".gnupg/x", ".kube/config", ".docker/config.json", ".netrc", ".env",
        ".env.local", "server.pem", "server.KEY", "id_rsa", "id_ed25519.pub", "a.p12", "a.pfx", "a.jks", ".npmrc",
        ".pypirc", ".git-credentials", "Library/Keychains/login.db", ".config/gcloud/token", ".cargo/credentials.toml",
        ".SSH/known",
    ],
)  # fmt: skip
def test_credentials_are_refused_inside_a_root(allowed, root, path):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("secret")

    assert "credential" in refusal(allowed.file, path).message
    assert "credential" in refusal(allowed.read_bytes, path, 100).message
    assert "secret" not in str(refusal(allowed.file, path))


def test_credential_folders_are_refused_and_look_alikes_are_not(allowed, root):
    for name in (".ssh", "keys", "keyrings", "environment", ".docker"):
        (root / name).mkdir()

    assert "credential" in refusal(allowed.folder, ".ssh").message
    for name in ("keys", "keyrings", "environment", ".docker"):
        assert allowed.folder(name) == root / name
    assert not is_credential(Path("src/env.py"))
    assert not is_credential(Path("src/keyboard.py"))


def test_a_link_to_a_credential_is_refused(allowed, root):
    (root / ".env").write_text("TOKEN=1")
    (root / "notes.txt").symlink_to(root / ".env")

    assert "credential" in refusal(allowed.file, "notes.txt").message


def test_the_wrong_kind_is_named_with_what_to_give_instead(allowed, root):
    error = refusal(allowed.folder, "src/app.py")
    assert isinstance(error, WrongPathKind)
    assert "is a file" in error.message
    assert "repo_path" in error.next

    assert isinstance(refusal(allowed.file, "src"), WrongPathKind)


def test_pipes_sockets_and_devices_are_refused_without_waiting(allowed, root, monkeypatch):
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)
        listener.bind("socket")

    assert "named pipe" in refusal(allowed.file, "pipe").message
    assert "socket" in refusal(allowed.file, "socket").message
    assert isinstance(refusal(AllowedRoots((Path("/dev"),), root).file, "/dev/null"), WrongPathKind)
    assert isinstance(refusal(read_bytes, root, "pipe", 10), WrongPathKind)


def test_missing_paths_are_named(allowed):
    error = refusal(allowed.folder, "src/nothing")

    assert isinstance(error, PathNotFound)
    assert "src/nothing" in error.message
    assert isinstance(refusal(allowed.folder, "src/app.py/below"), PathNotFound)
    assert isinstance(refusal(allowed.folder, "a" * 300), PathNotFound)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", PathRefused),
        ("   ", PathRefused),
        ("src\0/etc", PathRefused),
        ("src\n", PathRefused),
        ("\x1b[31m", PathRefused),
        ("caf\udce9", PathRefused),
        ("\ud800", PathRefused),
        ("a/" * 3000, TooLarge),
        ("a" * 5_000_000, TooLarge),
    ],
)
def test_strange_input_is_a_clear_refusal_of_bounded_length(allowed, path, kind):
    error = refusal(allowed.folder, path)

    assert isinstance(error, kind)
    assert str(error).isprintable()
    assert len(str(error)) < 500


def test_texts_of_refusals_cannot_carry_markup(allowed):
    error = refusal(allowed.folder, "/x/![a](http://b)<script>")

    assert "](" not in error.message
    assert "<script" not in error.message


def test_a_file_is_read_up_to_its_bound(root):
    assert read_bytes(root, "src/app.py", 6) == b"x = 1\n"
    assert isinstance(refusal(read_bytes, root, "src/app.py", 5), TooLarge)


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root reads everything; see test_scan_folder for the scan as another user"
)
def test_what_we_cannot_read_is_told_apart(allowed, root):
    (root / "src").chmod(0)
    try:
        assert isinstance(refusal(allowed.folder, "src"), PathUnreadable)
    finally:
        (root / "src").chmod(0o755)


def test_opening_beneath_a_root_follows_no_link_and_no_dots(root):
    (root / "src" / "link.py").symlink_to("app.py")
    (root / "other").symlink_to(root / "src")

    os.close(open_beneath(root, "src/app.py"))
    for path in (
        "src/link.py",
        "other/app.py",
        "../project/src/app.py",
        "src/./app.py",
        "/etc/passwd",
        "",
        "src//app.py",
    ):
        with pytest.raises(OSError, match=r".*"):
            open_beneath(root, path)


def test_a_folder_swapped_for_a_link_after_the_check_is_not_followed(allowed, root, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "app.py").write_text("secret")
    real = allowed.file("src/app.py")
    (root / "src").rename(root / "was")
    (root / "src").symlink_to(secret)

    assert isinstance(refusal(read_bytes, real.parent, real.name, 100), PathRefused)


def test_the_working_directory_is_a_default_root_only_if_it_is_a_project(tmp_path):
    home = tmp_path / "home"
    project = home / "work" / "app"
    project.mkdir(parents=True)

    assert default_roots(project, home) == ()
    (project / "pyproject.toml").touch()
    assert default_roots(project, home) == (project.resolve(),)


def test_the_file_systems_root_home_and_folders_above_it_are_no_default_roots(tmp_path):
    home = tmp_path / "home" / "user"
    (home / ".ssh").mkdir(parents=True)
    for folder in (tmp_path / "home", home, home / ".ssh"):
        (folder / ".git").mkdir()
        assert default_roots(folder, home) == ()
    assert default_roots(Path("/"), home) == ()
    (tmp_path / "link").symlink_to(home)
    assert default_roots(tmp_path / "link", home) == ()
