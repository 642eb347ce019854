"""Views of sealed models are made once, and whatever is done to one is found."""

import os
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import archive_work
import pytest
from archive_work import LIMITS, META, blobs, close_up, codes, fill, open_up, unfinished, while_it_goes_on, write_over

from intelligentscan._digest import sha256_file, sha256_hex
from intelligentscan.domain.errors import (
    InvalidArgument,
    StoreBroken,
)
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.archive_manifest import MAX_PROBLEMS, Manifest, ManifestEntry


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model."""
    return fill(tmp_path / "model")


# Views


def test_a_view_holds_the_model_as_write_protected_links_to_the_blobs(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    view = archive.view("v1", manifest, META, sealed=False)
    assert view == archive.view_path("v1") == archive.root / "sealed" / "v1"
    for entry in manifest.entries:
        assert (view / entry.path).samefile(blobs(archive)[entry.sha256])
        assert (view / entry.path).read_bytes() == (model / entry.path).read_bytes()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (view, view / "code")} == {0o555}
    assert archive.check_view("v1", manifest, META) == ()


def test_a_view_is_made_once(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    first = archive.view("v1", manifest, META, sealed=False).stat().st_ino
    assert archive.view("v1", manifest, META, sealed=False).stat().st_ino == first
    assert archive.view("v1", manifest, META, sealed=True).stat().st_ino == first


def test_a_view_that_is_not_right_is_replaced_only_while_it_is_not_sealed(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    view = archive.view("v1", manifest, META, sealed=False)
    open_up(view)
    (view / "added").touch()
    with pytest.raises(StoreBroken, match="not what was sealed") as refusal:
        archive.view("v1", manifest, META, sealed=True)
    assert "ADDED added" in refusal.value.details["problems"]  # type: ignore[operator]
    assert (view / "added").exists()
    archive.view("v1", manifest, META, sealed=False)
    assert archive.check_view("v1", manifest, META) == ()
    assert unfinished(archive) == []
    with pytest.raises(StoreBroken, match="not what was sealed"):
        archive.view("never-made", manifest, META, sealed=True)


def test_another_model_takes_the_place_of_an_unsealed_view(archive: Archive, model: Path) -> None:
    archive.view("v1", archive.take(model, **LIMITS), META, sealed=False)
    (model / "MLmodel").write_text("another")
    manifest = archive.take(model, **LIMITS)
    assert (archive.view("v1", manifest, META, sealed=False) / "MLmodel").read_text() == "another"


def test_a_view_needs_its_blobs(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    blobs(archive)[manifest.entries[0].sha256].unlink()
    with pytest.raises(StoreBroken, match="missing from the archive"):
        archive.view("v1", manifest, META, sealed=False)
    assert unfinished(archive) == []


@pytest.mark.parametrize("view_id", ["", "..", "../x", ".hidden", "a/b", "x" * 129])
def test_a_view_has_a_plain_id(archive: Archive, model: Path, view_id: str) -> None:
    with pytest.raises(InvalidArgument):
        archive.view(view_id, archive.take(model, **LIMITS), META, sealed=False)


def test_a_file_that_a_load_would_write_over_cannot_be_part_of_a_view() -> None:
    manifest = Manifest((ManifestEntry("registered_model_meta", 0, sha256_hex(b"")),))
    with pytest.raises(InvalidArgument, match="part of the model"):
        Archive(Path("/nowhere")).check_view("v1", manifest, META)


def flip_a_bit(view: Path) -> None:
    data = bytearray((view / "code/1.py").read_bytes())
    data[100] ^= 1
    write_over(view / "code/1.py", data)


def flip_a_bit_and_set_the_times_back(view: Path) -> None:
    times = (view / "code/1.py").stat()
    flip_a_bit(view)
    os.utime(view / "code/1.py", ns=(times.st_atime_ns, times.st_mtime_ns))


def swap_for_a_copy_with_other_bytes(view: Path) -> None:
    (view / "code/1.py").unlink()
    (view / "code/1.py").write_text("other")
    (view / "code/1.py").chmod(0o444)


def swap_for_a_link(view: Path) -> None:
    shutil.copyfile(view / "code/1.py", view.parent.parent.parent / "same")
    (view / "code/1.py").unlink()
    (view / "code/1.py").symlink_to(view.parent.parent.parent / "same")


def swap_for_a_hard_link_to_the_same_bytes_elsewhere(view: Path) -> None:
    elsewhere = view.parent.parent.parent / "same"
    shutil.copyfile(view / "code/1.py", elsewhere)
    elsewhere.chmod(0o444)
    (view / "code/1.py").unlink()
    (view / "code/1.py").hardlink_to(elsewhere)


def swap_the_folder_for_a_link(view: Path) -> None:
    shutil.move(view / "code", view.parent.parent.parent / "code")
    (view / "code").symlink_to(view.parent.parent.parent / "code")


def plant_bytecode(view: Path) -> None:
    (view / "code/__pycache__").unlink()
    (view / "code/__pycache__").mkdir()
    (view / "code/__pycache__/1.cpython-311.pyc").write_bytes(b"planted")


def note_another_name(view: Path) -> None:
    (view / "registered_model_meta").write_text("model_name: eggs\nmodel_version: '1'\n")


def link_the_note(view: Path) -> None:
    (view / "registered_model_meta").unlink()
    (view / "registered_model_meta").symlink_to("MLmodel")


def link_the_note_hard(view: Path) -> None:
    (view / "registered_model_meta").hardlink_to(view.parent.parent.parent / "note")


TAMPERED: list[tuple[Callable[[Path], object], list[tuple[str, str]]]] = [
    (flip_a_bit, [("CHANGED", "code/1.py")]),
    (flip_a_bit_and_set_the_times_back, [("CHANGED", "code/1.py")]),
    (swap_for_a_copy_with_other_bytes, [("CHANGED", "code/1.py")]),
    (lambda view: write_over(view / "MLmodel", b""), [("CHANGED", "MLmodel")]),
    (lambda view: (view / "added").touch(), [("ADDED", "added")]),
    (lambda view: (view / "code/inner").mkdir(), [("ADDED", "code/inner")]),
    (lambda view: (view / "1.pyc").touch(), [("BYTECODE", "1.pyc")]),
    (plant_bytecode, [("BYTECODE", "code/__pycache__")]),
    (lambda view: (view / "code/__pycache__").unlink(), [("MISSING", "code/__pycache__")]),
    (lambda view: (view / "MLmodel").unlink(), [("MISSING", "MLmodel")]),
    (lambda view: (view / "MLmodel").rename(view / "MLmodel2"), [("MISSING", "MLmodel"), ("ADDED", "MLmodel2")]),
    (lambda view: (view / "MLmodel").rename(view / "mlmodel"), [("MISSING", "MLmodel"), ("ADDED", "mlmodel")]),
    (lambda view: ((view / "MLmodel").unlink(), (view / "MLmodel").mkdir()), [("SPECIAL", "MLmodel")]),
    (swap_for_a_link, [("LINK", "code/1.py")]),
    (swap_for_a_hard_link_to_the_same_bytes_elsewhere, [("LINK", "code/1.py")]),
    (lambda view: (view / "extra").symlink_to("/etc/passwd"), [("LINK", "extra")]),
    (lambda view: ((view / "MLmodel").unlink(), os.mkfifo(view / "MLmodel")), [("SPECIAL", "MLmodel")]),
    (lambda view: os.mkfifo(view / "pipe"), [("SPECIAL", "pipe")]),
    (lambda view: (view / "MLmodel").chmod(0o644), [("MODE", "MLmodel")]),
    (lambda view: (view / "MLmodel").chmod(0o4555), [("MODE", "MLmodel")]),
    (note_another_name, [("META", "registered_model_meta")]),
    (link_the_note, [("LINK", "registered_model_meta")]),
    (lambda view: (view / "registered_model_meta").unlink(), [("MISSING", "registered_model_meta")]),
]


@pytest.mark.parametrize(("tamper", "expected"), TAMPERED, ids=range(len(TAMPERED)))
def test_what_was_done_to_a_view_is_found_and_named(
    archive: Archive, model: Path, tamper: Callable[[Path], object], expected: list[tuple[str, str]]
) -> None:
    manifest = archive.take(model, **LIMITS)
    view = archive.view("v1", manifest, META, sealed=False)
    open_up(view)
    tamper(view)
    close_up(view)
    assert codes(archive.check_view("v1", manifest, META)) == expected


def test_a_folder_swapped_for_a_link_and_what_it_held_are_found(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    view = archive.view("v1", manifest, META, sealed=False)
    open_up(view)
    swap_the_folder_for_a_link(view)
    close_up(view)
    found = codes(archive.check_view("v1", manifest, META))
    assert ("LINK", "code") in found
    assert ("MISSING", "code/1.py") in found


def test_a_view_that_is_gone_or_a_link_itself_is_found(archive: Archive, model: Path, tmp_path: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    view = archive.view("v1", manifest, META, sealed=False)
    assert codes(Archive(tmp_path / "none").check_view("v1", manifest, META)) == [("MISSING", ".")]
    assert codes(archive.check_view("v2", manifest, META)) == [("MISSING", ".")]
    view.chmod(0o755)
    assert codes(archive.check_view("v1", manifest, META)) == [("MODE", ".")]
    view.rename(tmp_path / "moved")
    view.symlink_to(tmp_path / "moved")
    assert codes(archive.check_view("v1", manifest, META)) == [("LINK", ".")]


def test_a_note_that_a_load_has_just_cut_is_no_problem(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    view = archive.view("v1", manifest, META, sealed=False)
    (view / "registered_model_meta").write_bytes(b"")
    assert archive.check_view("v1", manifest, META) == ()


def test_hostile_names_are_shown_harmlessly_and_a_flood_is_cut(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    view = archive.view("v1", manifest, META, sealed=False)
    open_up(view)
    for number in range(MAX_PROBLEMS + 50):
        (view / f"\x1b[2J{number}").touch()
    close_up(view)
    found = archive.check_view("v1", manifest, META)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].code == "MORE"
    assert all(problem.path.isprintable() for problem in found)


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (lambda blob: write_over(blob, b"flavors: []\n"), "CHANGED"),
        (Path.unlink, "MISSING"),
        (lambda blob: (blob.unlink(), blob.symlink_to("/etc/passwd")), "LINK"),
        (lambda blob: (blob.unlink(), os.mkfifo(blob)), "SPECIAL"),
        (lambda blob: blob.chmod(0o644), "MODE"),
    ],
)
def test_what_was_done_to_a_blob_is_found(
    archive: Archive, model: Path, tamper: Callable[[Path], object], code: str
) -> None:
    manifest = archive.take(model, **LIMITS)
    assert archive.check_blobs(manifest) == ()
    tamper(blobs(archive)[sha256_file(model / "MLmodel")])
    assert codes(archive.check_blobs(manifest)) == [(code, "MLmodel")]


def test_bytes_that_were_damaged_are_not_taken_for_the_same(archive: Archive, model: Path) -> None:
    archive.take(model, **LIMITS)
    write_over(blobs(archive)[sha256_file(model / "MLmodel")], b"flavors: []\n")
    with pytest.raises(StoreBroken, match="other bytes"):
        archive.take(model, **LIMITS)


# Sweeping


def test_a_sweep_removes_what_was_left_and_nothing_else(archive: Archive, model: Path, tmp_path: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    for view_id in ("sealed", "left"):
        archive.view(view_id, manifest, META, sealed=False)
    (archive.root / "sealed" / "note.txt").touch()
    (archive.root / "sealed" / "a-file").touch()
    (archive.root / "tmp" / "0123.lock").touch()
    (archive.root / "tmp" / "0123").mkdir()
    (archive.root / "tmp" / "0123" / "1").touch()
    (archive.root / "sealed" / ".0123" / "code").mkdir(parents=True)
    close_up(archive.root / "sealed" / ".0123")
    assert archive.sweep(lambda view_id: view_id == "sealed", 3600) == ()
    assert unfinished(archive) == []
    assert archive.view_path("left").exists()
    assert archive.sweep(lambda view_id: view_id == "sealed", 0) == ("left",)
    assert {path.name for path in (archive.root / "sealed").iterdir()} == {"sealed", "note.txt", "a-file"}
    assert archive.check_view("sealed", manifest, META) == archive.check_blobs(manifest) == ()
    assert Archive(tmp_path / "none").sweep(lambda _: False, 0) == ()


def test_sweeps_do_not_disturb_work_that_goes_on(tmp_path: Path, model: Path, children: ForkServerContext) -> None:
    archive = Archive(tmp_path / "archive")

    def work() -> None:
        with ProcessPoolExecutor(2, mp_context=children) as pool:
            jobs = [
                pool.submit(archive_work.take_and_view, str(archive.root), str(model), f"v{n % 4}") for n in range(40)
            ]
            assert len({job.result(timeout=120) for job in jobs}) == 1

    while_it_goes_on(lambda: archive.sweep(lambda _: False, 3600) and None, work)
    assert unfinished(archive) == []
