"""What is written into a folder of artifacts later is found by its inventory."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_work import (
    codes,
    fill,
)

from intelligentscan.domain.errors import (
    IntelligentScanError,
    StoreBroken,
)
from intelligentscan.stores.archive import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model."""
    return fill(tmp_path / "model")


# Inventories


def test_an_unchanged_folder_equals_its_inventory(archive: Archive, model: Path, tmp_path: Path) -> None:
    (model / "link").symlink_to("/etc")
    (model / "empty").mkdir()
    os.mkfifo(model / "pipe")
    (Path(os.fsdecode(os.fsencode(model) + b"/\xff"))).write_text("x")
    document = archive.inventory(model, hash_up_to_bytes=10_000)
    assert archive.compare_inventory(document, model) == ()
    assert document == archive.inventory(model, hash_up_to_bytes=10_000)
    rows = json.loads(document)["entries"]
    assert sum("sha256" in row for row in rows) >= 3
    assert any("mtime_ns" in row for row in rows)
    copy = tmp_path / "copy"
    shutil.copytree(model / "code", copy)
    assert archive.compare_inventory(archive.inventory(model / "code", hash_up_to_bytes=1 << 20), copy) == ()


def keep_the_times(path: Path, act: Callable[[], object]) -> None:
    times = path.stat()
    act()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGED: list[tuple[Callable[[Path], object], list[tuple[str, str]]]] = [
    (lambda f: (f / "new").touch(), [("ADDED", "new")]),
    (lambda f: (f / "n").mkdir() or (f / "n/new").touch(), [("ADDED", "n")]),
    (lambda f: (f / "MLmodel").unlink(), [("MISSING", "MLmodel")]),
    (lambda f: (f / "MLmodel").write_text("more than it was"), [("CHANGED", "MLmodel")]),
    (
        lambda f: keep_the_times(f / "MLmodel", lambda: (f / "MLmodel").write_text("flavors: []\n")),
        [("CHANGED", "MLmodel")],
    ),
    (lambda f: ((f / "MLmodel").unlink(), (f / "MLmodel").symlink_to("0.py")), [("LINK", "MLmodel")]),
    (lambda f: ((f / "MLmodel").unlink(), (f / "MLmodel").mkdir()), [("CHANGED", "MLmodel")]),
    (lambda f: (f / "new").symlink_to("/etc"), [("LINK", "new")]),
    (lambda f: ((f / "link").unlink(), (f / "link").symlink_to("/etc")), [("CHANGED", "link")]),
    (lambda f: os.mkfifo(f / "new"), [("SPECIAL", "new")]),
    (lambda f: (f / "large").write_bytes(bytes(200_001)), [("CHANGED", "large")]),
    (lambda f: (f / "large").write_bytes(b"x" * 200_000), [("CHANGED", "large")]),
    (lambda f: keep_the_times(f / "large", lambda: (f / "large").write_bytes(b"x" * 200_000)), [("TOUCHED", "large")]),
    (lambda f: (f / "registered_model_meta").write_text("model_name: spam\n"), []),
    (lambda f: (f / "registered_model_meta").write_bytes(bytes(5000)), [("ADDED", "registered_model_meta")]),
    (lambda f: (f / "code/registered_model_meta").touch(), [("ADDED", "code/registered_model_meta")]),
    (
        lambda f: [(f / "code/__pycache__").mkdir(), *((f / "code/__pycache__" / n).touch() for n in ("1.pyc", "x"))],
        [("BYTECODE", "code/__pycache__"), ("BYTECODE", "code/__pycache__/1.pyc"), ("ADDED", "code/__pycache__/x")],
    ),
    (shutil.rmtree, [("MISSING", n) for n in ("0.py", "MLmodel", "code", "code/1.py", "code/2.py", "large", "link")]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGED, ids=range(len(CHANGED)))
def test_what_was_changed_in_a_folder_of_artifacts_is_found(
    archive: Archive, tmp_path: Path, change: Callable[[Path], object], expected: list[tuple[str, str]]
) -> None:
    folder = fill(tmp_path / "run", 3)
    (folder / "large").write_bytes(bytes(200_000))
    (folder / "link").symlink_to("MLmodel")
    document = archive.inventory(folder, hash_up_to_bytes=100_000)
    change(folder)
    assert codes(archive.compare_inventory(document, folder)) == expected


def test_a_run_without_artifacts_has_an_empty_inventory(archive: Archive, tmp_path: Path) -> None:
    document = archive.inventory(tmp_path / "none", hash_up_to_bytes=0)
    assert archive.compare_inventory(document, tmp_path / "none") == ()
    fill(tmp_path / "none")
    assert ("ADDED", "MLmodel") in codes(archive.compare_inventory(document, tmp_path / "none"))


def test_a_folder_of_artifacts_that_became_a_link_is_not_followed(
    archive: Archive, model: Path, tmp_path: Path
) -> None:
    document = archive.inventory(model, hash_up_to_bytes=1 << 20)
    model.rename(tmp_path / "moved")
    model.symlink_to(tmp_path / "moved")
    assert codes(archive.compare_inventory(document, model)) == [("UNREADABLE", ".")]
    with pytest.raises(IntelligentScanError):
        archive.inventory(model, hash_up_to_bytes=0)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"v":2,"entries":[]}', b'{"v":1,"entries":[{"kind":"file"}]}']
)
def test_what_is_no_inventory_is_refused(archive: Archive, model: Path, document: bytes) -> None:
    with pytest.raises(StoreBroken):
        archive.compare_inventory(document, model)
