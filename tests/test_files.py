"""The file list of a scan."""

import os
from pathlib import Path

import pytest

from intelligentscan.domain.errors import PathNotFound, TooLarge, WrongPathKind
from intelligentscan.scanners import files as files_module
from intelligentscan.scanners.files import list_files


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path.resolve() / "project"


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x = 1\n")


def listed(root: Path, **options: object) -> list[str]:
    return [file.path for file in list_files(root, **options).files]


def test_files_come_in_one_order_with_their_sizes(root):
    write(root, "b.py", "a/z.py", "a.py", "a/b/c.txt", "B.py")

    result = list_files(root)

    assert [file.path for file in result.files] == ["B.py", "a.py", "a/b/c.txt", "a/z.py", "b.py"]
    assert {file.size for file in result.files} == {6}
    assert all(file.readable for file in result.files)
    assert result.warnings == ()


def test_folders_of_tools_and_packages_are_left_out_and_packages_are_said(root):
    write(root, "app.py", ".git/x.py", "a/__pycache__/x.py", ".tox/x.py", ".mypy_cache/x.py", ".svn/x.py", ".hg/x.py")
    assert listed(root) == ["app.py"]
    assert list_files(root).warnings == ()

    write(root, "node_modules/x.py", "lib/site-packages/x.py", "env/pyvenv.cfg", "env/bin/x.py")
    assert listed(root) == ["app.py"]
    warnings = " ".join(list_files(root).warnings)
    assert "1 folders that are Python virtual environments" in warnings
    assert "2 folders of installed packages" in warnings


def test_build_folders_and_folders_merely_named_like_environments_are_listed(root):
    write(root, "build/a.py", "dist/b.py", "venv/c.py", ".venv/d.py", ".hidden/e.py")

    assert listed(root) == [".hidden/e.py", ".venv/d.py", "build/a.py", "dist/b.py", "venv/c.py"]


def test_the_scanned_folder_itself_may_be_one_that_is_left_out_elsewhere(root):
    write(root, "site-packages/lib/a.py", "site-packages/pyvenv.cfg")

    assert listed(root / "site-packages") == ["lib/a.py", "pyvenv.cfg"]


def test_links_are_never_followed_and_counted(root, tmp_path):
    write(root, "src/a.py")
    (root / "circle").symlink_to(root)
    (root / "src" / "self").symlink_to("self")
    (root / "outside").symlink_to("/etc")
    (root / "link.py").symlink_to("src/a.py")

    result = list_files(root)

    assert [file.path for file in result.files] == ["src/a.py"]
    assert result.skipped == 4
    assert result.left_out == ("circle/", "link.py", "outside/", "src/self")


def test_credentials_pipes_and_excluded_folders_are_left_out_and_said(root):
    write(root, "a.py", ".env", ".ssh/config", "server.key", "id_rsa.py", "home/store.py")
    os.mkfifo(root / "pipe.py")

    result = list_files(root, exclude=(root / "home", root / "missing"))

    assert [file.path for file in result.files] == ["a.py"]
    assert result.skipped == 5
    assert result.left_out == (".env", ".ssh/", "home/", "id_rsa.py", "pipe.py", "server.key")
    assert any("4 files or folders that have the name of a credential" in text for text in result.warnings)
    assert any("1 named pipes" in text for text in result.warnings)


def test_any_name_is_listed_as_it_is(root):
    root.mkdir()
    names = [b"two words.py", b"line\nbreak.py", b"-rf.py", "größe.py".encode(), b"caf\xe9.py", b"'quote\".py"]
    for name in names:
        (root / os.fsdecode(name)).touch()

    result = list_files(root).files

    assert [os.fsencode(file.path) for file in result] == sorted(names)
    assert next(file for file in result if file.path.startswith("caf")).shown == "caf�.py"


def test_nesting_beyond_the_limit_is_reported_and_not_silent(root):
    write(root, "a.py", "/".join(["d"] * 105) + "/deep.py")

    result = list_files(root)

    assert [file.path for file in result.files] == ["a.py"]
    assert len(result.unreadable_folders) == 1
    assert any("nested too deeply" in text for text in result.warnings)


def test_too_many_files_or_folders_are_refused(root, monkeypatch):
    write(root, "a/1.py", "b/2.py", "c/3.py")

    monkeypatch.setattr(files_module, "MAX_FILES", 2)
    with pytest.raises(TooLarge, match="2 files"):
        list_files(root)
    monkeypatch.setattr(files_module, "MAX_FILES", 10)
    monkeypatch.setattr(files_module, "MAX_FOLDERS", 2)
    with pytest.raises(TooLarge, match="2 folders"):
        list_files(root)


def test_a_folder_that_is_missing_a_file_or_behind_a_link_is_refused(root, tmp_path):
    write(root, "a.py")
    (tmp_path / "link").symlink_to(root)

    with pytest.raises(PathNotFound):
        list_files(root / "nothing")
    with pytest.raises(WrongPathKind):
        list_files(root / "a.py")
    with pytest.raises(WrongPathKind):
        list_files(tmp_path.resolve() / "link")
