"""The archive takes what a model was made of, whoever else writes meanwhile, and is never left half done."""

import errno
import json
import os
import random
import shutil
import socket
import stat
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import archive_work
import pytest
import rfc8785
from archive_work import (
    LIMITS,
    META,
    blobs,
    codes,
    fill,
    take,
    unfinished,
    while_it_goes_on,
    write_over,
)
from child_work import as_nobody
from conftest import run_plain

from intelligentscan._digest import sha256_file, sha256_hex
from intelligentscan.domain.errors import (
    BytesChanged,
    NoModel,
    PathRefused,
    StoreBroken,
    TooLarge,
)
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.archive_manifest import Manifest

SECRET = b"nothing of this may be copied"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model."""
    return fill(tmp_path / "model")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# Taking


def test_a_manifest_names_every_file_with_size_and_digest(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    files = sorted(path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file())
    listed = [{"path": p, "size": (model / p).stat().st_size, "sha256": sha256_file(model / p)} for p in files]
    assert json.loads(manifest.document) == listed
    assert manifest.digest == sha256_hex(rfc8785.dumps(listed))
    assert Manifest.from_document(manifest.document) == manifest


def test_blobs_are_complete_named_by_their_digest_and_write_protected(archive: Archive, model: Path) -> None:
    manifest = archive.take(model, **LIMITS)
    assert set(blobs(archive)) == {entry.sha256 for entry in manifest.entries}
    for name, path in blobs(archive).items():
        assert sha256_file(path) == name
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        assert path.stat().st_nlink == 1
    assert stat.S_IMODE(archive.root.stat().st_mode) == 0o700
    assert unfinished(archive) == []


def test_the_same_bytes_are_kept_once(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "same"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_bytes(b"same")
    first = archive.take(folder, **LIMITS)
    assert archive.take(folder, **LIMITS) == first
    assert list(blobs(archive)) == [sha256_hex(b"same")]


def test_a_large_file_is_copied_in_pieces(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "weights").write_bytes(random.Random(1).randbytes(20_000_001))
    (folder / "empty").touch()
    manifest = archive.take(folder, **LIMITS)
    assert [(e.path, e.size) for e in manifest.entries] == [("empty", 0), ("weights", 20_000_001)]
    assert archive.check_blobs(manifest) == ()


def test_odd_names_are_kept_as_they_are(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    names = [
        "-rf",
        "A",
        "a",
        " ",
        "line\nbreak",
        "tab\t",
        "é",
        unicodedata.normalize("NFD", "é"),
        "日本",
        "\u202egpj",
        "\\",
    ]
    for name in names:
        (folder / name).write_text(name)
    manifest = archive.take(folder, **LIMITS)
    assert [entry.path for entry in manifest.entries] == sorted(names)
    view = archive.view("v1", manifest, META, sealed=False)
    assert {name: (view / name).read_text() for name in names} == {name: name for name in names}
    assert archive.check_view("v1", manifest, META) == ()


def test_the_note_that_mlflow_leaves_when_it_loads_a_model_is_no_part_of_it(archive: Archive, model: Path) -> None:
    before = archive.take(model, **LIMITS)
    (model / "registered_model_meta").write_text("model_name: other\n")
    assert archive.take(model, **LIMITS) == before
    (model / "code" / "registered_model_meta").write_text("a file like any other\n")
    assert archive.take(model, **LIMITS) != before


def make_link(folder: Path) -> None:
    (folder / "leak").symlink_to("/etc/passwd")


def make_folder_link(folder: Path) -> None:
    (folder / "leak").symlink_to("/etc", target_is_directory=True)


def make_dangling_link(folder: Path) -> None:
    (folder / "leak").symlink_to("nowhere")


def make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "leak")


def make_device(folder: Path) -> None:
    try:
        os.mknod(folder / "leak", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def make_socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind("leak")
    finally:
        os.chdir(here)


def make_reserved_folder(folder: Path) -> None:
    (folder / "registered_model_meta").mkdir()


@pytest.mark.parametrize(
    "make", [make_link, make_folder_link, make_dangling_link, make_pipe, make_device, make_socket, make_reserved_folder]
)
def test_what_is_no_plain_file_is_refused(archive: Archive, model: Path, make: Callable[[Path], None]) -> None:
    make(model)
    with pytest.raises(NoModel, match="link or a special file"):
        archive.take(model, **LIMITS)
    assert blobs(archive) == {}
    assert unfinished(archive) == []


def test_a_name_that_is_not_text_is_refused(archive: Archive, model: Path) -> None:
    (Path(os.fsdecode(os.fsencode(model) + b"/\xff"))).write_text("x")
    with pytest.raises(NoModel, match="not UTF-8"):
        archive.take(model, **LIMITS)


def test_folders_nested_without_end_are_refused(archive: Archive, tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(2_000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    try:
        with pytest.raises(TooLarge, match="nested"):
            archive.take(deep, **LIMITS)
        with pytest.raises(TooLarge, match="nested"):
            archive.inventory(deep, hash_up_to_bytes=0)
    finally:
        while not os.path.samestat(os.fstat(here), deep.stat()):
            above = os.open("..", os.O_RDONLY, dir_fd=here)
            os.rmdir("d", dir_fd=above)
            os.close(here)
            here = above
        os.close(here)


def test_a_path_that_is_too_long_is_refused(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "long"
    inner = folder.joinpath(*["n" * 200] * 6)
    inner.mkdir(parents=True)
    (inner / "file").touch()
    with pytest.raises(NoModel, match="too long"):
        archive.take(folder, **LIMITS)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_bytes": 1 << 20, "max_files": 12}, "more than 12 files"),
        ({"max_bytes": 20_000, "max_files": 100}, "more bytes"),
        ({"max_bytes": 0, "max_files": 100}, "more bytes"),
    ],
)
def test_more_than_the_limits_is_refused(archive: Archive, model: Path, limits: dict[str, int], message: str) -> None:
    with pytest.raises(TooLarge, match=message) as refusal:
        archive.take(model, **limits)
    assert refusal.value.next
    assert blobs(archive) == {}
    assert unfinished(archive) == []


def test_folders_without_files_count_against_the_limit(archive: Archive, model: Path) -> None:
    for number in range(200):
        (model / f"empty{number}").mkdir()
    with pytest.raises(TooLarge):
        archive.take(model, max_bytes=1 << 20, max_files=100)


@pytest.mark.parametrize("make", [lambda p: None, Path.mkdir, lambda p: (p / "inner").mkdir(parents=True)])
def test_a_folder_without_files_is_no_model(archive: Archive, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "empty")
    with pytest.raises(NoModel, match="files are gone"):
        archive.take(tmp_path / "empty", **LIMITS)


def test_a_model_whose_folder_is_a_link_is_refused(archive: Archive, model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "run").mkdir(parents=True)
    (store / "run" / "model").symlink_to(model)
    with pytest.raises(NoModel):
        archive.take(store / "run" / "model", **LIMITS)
    with pytest.raises(NoModel):
        archive.take(store / "run" / "model", below=store, **LIMITS)


def test_links_on_the_way_to_the_store_are_followed(archive: Archive, model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    store = tmp_path / "elsewhere"
    assert archive.take(store / "model", below=store, **LIMITS) == archive.take(model, **LIMITS)
    with pytest.raises(NoModel):
        archive.take(store / "model", **LIMITS)


@pytest.mark.parametrize("outside", ["/etc", "archive/../../model"])
def test_a_model_outside_of_the_store_is_refused(archive: Archive, tmp_path: Path, outside: str) -> None:
    with pytest.raises(PathRefused):
        archive.take(tmp_path / "store" / outside, below=tmp_path / "store", **LIMITS)


# Others who write meanwhile


def test_a_file_that_grows_while_it_is_copied_is_refused(archive: Archive, model: Path) -> None:
    log = model / "training.log"
    log.write_bytes(bytes(30_000_000))

    def grow() -> None:
        with log.open("ab") as stream:
            stream.write(b"more")

    def work() -> None:
        with pytest.raises(BytesChanged, match="changed while"):
            archive.take(model, **LIMITS)

    while_it_goes_on(grow, work)
    assert blobs(archive) == {}


def test_a_file_that_is_written_over_while_it_is_copied_is_refused(archive: Archive, model: Path) -> None:
    weights = model / "weights"
    weights.write_bytes(bytes(30_000_000))

    def write() -> None:
        with weights.open("r+b") as stream:
            stream.seek(random.randrange(30_000_000))
            stream.write(b"x")

    def work() -> None:
        with pytest.raises(BytesChanged, match="changed while"):
            archive.take(model, **LIMITS)

    while_it_goes_on(write, work)


def test_folders_and_files_swapped_for_links_lead_nowhere(archive: Archive, model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for number in range(12):
        (outside / f"{number}.py").write_bytes(SECRET)
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "link0").symlink_to(outside / "0.py")

    def swap() -> None:
        for there, link, aside in (
            (model / "code", tmp_path / "link", tmp_path / "aside"),
            (model / "0.py", tmp_path / "link0", tmp_path / "aside0"),
        ):
            there.rename(aside)
            link.rename(there)
            there.rename(link)
            aside.rename(there)

    refused = 0

    def work() -> None:
        nonlocal refused
        for number in range(2000):
            try:
                archive.take(model, **LIMITS)
            except (NoModel, BytesChanged):
                refused += 1
            if number >= 60 and refused:
                break

    while_it_goes_on(swap, work)
    assert refused, "no swap was met"
    assert sha256_hex(SECRET) not in blobs(archive)


def test_processes_that_take_the_same_files_at_once_all_succeed(
    tmp_path: Path, model: Path, children: ForkServerContext
) -> None:
    root = tmp_path / "archive"
    with ProcessPoolExecutor(4, mp_context=children) as pool:
        jobs = [pool.submit(archive_work.take_and_view, str(root), str(model)) for _ in range(12)]
        digests = {job.result(timeout=120) for job in jobs}
    assert len(digests) == 1
    manifest = take(root, model)
    assert Archive(root).check_blobs(manifest) == ()
    assert Archive(root).check_view("v1", manifest, META) == ()
    assert unfinished(Archive(root)) == []


# Killed at any point

POINTS = [
    *(("link", number, after) for number in (1, 5, 13, 14, 20) for after in (False, True)),
    *(("fsync", number, after) for number in (1, 7, 30, 40) for after in (False, True)),
    *(("mkdir", number, True) for number in (1, 2, 6, 8)),
    *(("fchmod", number, False) for number in (2, 8, 25)),
    ("utime", 1, False),
    ("rename", 1, False),
    ("rename", 1, True),
]


@pytest.mark.parametrize(("function", "number", "after"), POINTS)
def test_a_killed_copy_leaves_complete_blobs_only_and_can_be_done_again(
    tmp_path: Path, model: Path, children: ForkServerContext, function: str, number: int, after: bool
) -> None:
    archive = Archive(tmp_path / "archive")
    child = children.Process(target=archive_work.die_at, args=(function, number, after, str(archive.root), str(model)))
    child.start()
    child.join(60)
    assert child.exitcode == -9
    assert_nothing_is_half_done(archive)
    archive.sweep(lambda _: True, 0)
    if archive.root.exists():
        assert unfinished(archive) == []
    assert archive_work.take_and_view(str(archive.root), str(model)) == take(tmp_path / "other", model).digest
    assert_nothing_is_half_done(archive)


def test_copies_killed_at_random_leave_nothing_half_done(tmp_path: Path, children: ForkServerContext) -> None:
    archive = Archive(tmp_path / "archive")
    chance = random.Random(7)
    for number in range(8):
        child = children.Process(
            target=archive_work.copy_for_ever, args=(str(archive.root), str(tmp_path / f"model{number}"))
        )
        child.start()
        time.sleep(chance.uniform(0.05, 0.4))
        child.kill()
        child.join()
        assert_nothing_is_half_done(archive)
        archive.sweep(lambda _: True, 0)
        assert not archive.root.exists() or unfinished(archive) == []


def assert_nothing_is_half_done(archive: Archive) -> None:
    """Compare every blob with its name, and every view with its own modes."""
    for name, path in blobs(archive).items():
        assert sha256_file(path) == name
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
    for view in (archive.root / "sealed").glob("[!.]*"):
        assert stat.S_IMODE(view.stat().st_mode) == 0o555
        assert (view / "MLmodel").is_file()
        assert (view / "registered_model_meta").read_bytes() in META["registered_model_meta"]


# Where the archive lies


def test_a_full_disk_is_told_with_the_setting_to_change(
    tmp_path: Path, model: Path, children: ForkServerContext
) -> None:
    (model / "weights").write_bytes(bytes(100_000))
    archive = Archive(tmp_path / "archive")
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        job = pool.submit(archive_work.take_with_little_room, str(archive.root), str(model), 50_000)
        with pytest.raises(StoreBroken, match="full") as refusal:
            job.result()
    assert "INTELLIGENTSCAN_ARCHIVE" in str(refusal.value)
    assert blobs(archive) == {}
    assert unfinished(archive) == []


def test_an_archive_that_may_not_be_written_is_told_with_the_setting_to_change(
    public_folder: Path, children: ForkServerContext
) -> None:
    model = fill(public_folder / "model")
    (public_folder / "theirs").mkdir(0o755)
    (public_folder / "theirs").chmod(0o555)
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        job = pool.submit(as_nobody, archive_work.digest_of_taken, str(public_folder / "theirs"), str(model))
        code, message, next_step = job.result()
    assert code == "STORE_BROKEN"
    assert "may not" in message
    assert "INTELLIGENTSCAN_ARCHIVE" in next_step


def test_a_model_that_may_not_be_read_is_told_apart_from_an_archive_that_may_not(
    public_folder: Path, children: ForkServerContext
) -> None:
    model = fill(public_folder / "model")
    (model / "MLmodel").chmod(0)
    (public_folder / "ours").mkdir()
    (public_folder / "ours").chmod(0o777)
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        job = pool.submit(as_nobody, archive_work.digest_of_taken, str(public_folder / "ours/archive"), str(model))
        code, message, _next = job.result()
    assert code == "NO_MODEL"
    assert "cannot be read" in message


def test_an_archive_in_which_others_may_write_is_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive").chmod(0o777)
    with pytest.raises(StoreBroken, match="Other accounts can write"):
        take(tmp_path / "archive", model)


@pytest.mark.parametrize("part", ["sha256", "sealed", "tmp"])
def test_a_part_of_the_archive_that_is_a_link_is_not_followed(tmp_path: Path, model: Path, part: str) -> None:
    (tmp_path / "archive").mkdir(mode=0o700)
    (tmp_path / "outside").mkdir()
    (tmp_path / "archive" / part).symlink_to(tmp_path / "outside")
    with pytest.raises(StoreBroken, match="replaced"):
        take(tmp_path / "archive", model)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_shared_archive_can_be_read_by_others(tmp_path: Path, model: Path) -> None:
    archive = Archive(tmp_path / "archive", shared=True)
    manifest = archive.take(model, **LIMITS)
    view = archive.view("v1", manifest, META, sealed=False)
    for folder in (archive.root, archive.root / "sealed", view):
        assert folder.stat().st_mode & 0o055 == 0o055
    assert stat.S_IMODE((view / "registered_model_meta").stat().st_mode) == 0o666
    assert archive.check_view("v1", manifest, META) == ()


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system answer as a file system without hard links does; none can be mounted in a test."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


def test_without_hard_links_everything_is_copied(
    archive: Archive, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch)
    manifest = archive.take(model, **LIMITS)
    assert archive.take(model, **LIMITS) == manifest
    view = archive.view("v1", manifest, META, sealed=False)
    assert archive.check_blobs(manifest) == archive.check_view("v1", manifest, META) == ()
    write_over(view / "MLmodel", b"flavors: []\n")
    assert codes(archive.check_view("v1", manifest, META)) == [("CHANGED", "MLmodel")]
    assert archive.check_blobs(manifest) == ()


# Documents and signatures


def test_a_document_comes_back_as_it_was_put(archive: Archive) -> None:
    digest = archive.put_document(b'{"a":1}')
    assert digest == sha256_hex(b'{"a":1}')
    assert archive.put_document(b'{"a":1}') == digest
    assert archive.read_document(digest, 100) == b'{"a":1}'
    assert archive.check_document(digest) == ()
    with pytest.raises(TooLarge):
        archive.read_document(digest, 6)


def test_a_changed_missing_or_misnamed_document_is_not_returned(archive: Archive) -> None:
    digest = archive.put_document(b'{"a":1}')
    write_over(blobs(archive)[digest], b'{"a":2}')
    with pytest.raises(StoreBroken, match="changed"):
        archive.read_document(digest, 100)
    assert codes(archive.check_document(digest)) == [("CHANGED", "document")]
    with pytest.raises(StoreBroken, match="other bytes"):
        archive.put_document(b'{"a":1}')
    for wrong in ("0" * 64, "../../../etc/passwd", ""):
        with pytest.raises(StoreBroken, match="missing"):
            archive.read_document(wrong, 100)
        assert [problem.code for problem in archive.check_document(wrong)] == ["MISSING"]


def test_the_first_signature_stays(archive: Archive) -> None:
    assert archive.read_signature("a" * 64) is None
    assert archive.put_signature("a" * 64, b"first") == b"first"
    assert archive.put_signature("a" * 64, b"second") == b"first"
    assert archive.read_signature("a" * 64) == b"first"
    with pytest.raises(StoreBroken):
        archive.read_signature("../a")


HOSTILE_ROWS: list[object] = [
    [{"path": "../x", "size": 1, "sha256": "0" * 64}],
    [{"path": "/etc/x", "size": 1, "sha256": "0" * 64}],
    [{"path": "a//b", "size": 1, "sha256": "0" * 64}],
    [{"path": "a/./b", "size": 1, "sha256": "0" * 64}],
    [{"path": "a\0b", "size": 1, "sha256": "0" * 64}],
    [{"path": "", "size": 1, "sha256": "0" * 64}],
    [{"path": "d/" * 200 + "x", "size": 1, "sha256": "0" * 64}],
    [{"path": "a", "size": -1, "sha256": "0" * 64}],
    [{"path": "a", "size": True, "sha256": "0" * 64}],
    [{"path": "a", "size": 1, "sha256": "../../../../etc/passwd"}],
    [{"path": "a", "size": 1, "sha256": "A" * 64}],
    [{"path": "b", "size": 1, "sha256": "0" * 64}, {"path": "a", "size": 1, "sha256": "0" * 64}],
    [{"path": "a", "size": 1, "sha256": "0" * 64}, {"path": "a", "size": 1, "sha256": "0" * 64}],
    [{"path": "a", "size": 1, "sha256": "0" * 64}, {"path": "a/b", "size": 1, "sha256": "0" * 64}],
    [{"path": "a", "size": 1, "sha256": "0" * 64, "more": 1}],
    {"path": "a"},
    [["a", 1]],
    None,
]


@pytest.mark.parametrize("rows", HOSTILE_ROWS, ids=range(len(HOSTILE_ROWS)))
def test_a_manifest_that_the_archive_did_not_write_is_refused(rows: object) -> None:
    with pytest.raises(StoreBroken):
        Manifest.from_document(json.dumps(rows, separators=(",", ":"), sort_keys=True).encode())


def test_the_archive_needs_neither_mlflow_nor_a_database() -> None:
    script = "import sys, intelligentscan.stores.archive\nprint({'mlflow', 'sqlalchemy'} & set(sys.modules))"
    assert run_plain(script).stdout == "set()\n"
