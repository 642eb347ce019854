"""Files changed behind the registry: acts 14, 15, 25, 28, 40, 50, 51 and 53 of the notes."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow.cli
import pytest
from click.testing import CliRunner
from conftest import plain_mlflow
from hostile import Logged, World, experiment, log, train
from hostile_rows import everything, locked_rows


@dataclass(frozen=True)
class Art:
    """A version of `art`, registered from an experiment of its own."""

    world: World
    logged: Logged
    source: Path

    @property
    def blobs(self) -> Path:
        return self.world.home / "archive" / "sha256"

    def blob(self, name: str = "MLmodel") -> Path:
        digest = hashlib.sha256((self.source / name).read_bytes()).hexdigest()
        return self.blobs / digest[:2] / digest


async def registered(world: World) -> Art:
    logged = log(world, experiment(world, "art"))
    made = await world.services.registry.register("art", run_id=logged.run)
    return Art(world, logged, Path(world.client.get_model_version("art", str(made.version)).source))


def artifact(path: str) -> Callable[[Art], None]:
    """Return an act that logs a file with the plain client."""

    def act(art: Art) -> None:
        given = art.world.home.parent / "late.txt"
        given.write_text("late")
        with plain_mlflow(art.world.plain):
            art.world.client.log_artifact(art.logged.run, str(given), path or None)

    return act


ORIGINALS: dict[str, Callable[[Art], object]] = {
    "a file in the run's folder": artifact(""),
    "a file in a folder of the run": artifact("model"),
    "a file beside the model": lambda a: (a.logged.folder / "late.txt").write_text("late"),
    "the model's file": lambda a: (a.logged.folder / "MLmodel").write_text("flavors: {evil: {}}\n"),
    "a link": lambda a: (a.logged.folder / "link").symlink_to("/etc/passwd"),
    "the model gone": lambda a: shutil.rmtree(a.logged.folder),
}


@pytest.mark.parametrize(
    ("own", "what"),
    [*(("sqlite", w) for w in ORIGINALS), ("postgresql", "a file in the run's folder")],
    indirect=["own"],
)
async def test_files_written_into_a_locked_experiment_are_found_and_block_promotion_until_they_are_accepted(
    own: World, what: str
) -> None:
    """No row is touched, so nothing can refuse it; the sealed copy stays as it is."""
    art = await registered(own)
    before, sealed = locked_rows(own), (art.source / "MLmodel").read_bytes()
    ORIGINALS[what](art)
    assert (await own.problems("art"), await own.problems("fm")) == ({"FILES"}, set())
    assert (await own.promote("art", 1)).startswith("GATES_FAILED")
    assert (locked_rows(own), (art.source / "MLmodel").read_bytes()) == (before, sealed)
    await own.services.adoption.reconcile("art", accept=True, reason="looked at it")
    assert await own.promote("art", 1) == "promoted"
    assert await own.problems("art") == set()


def writable(path: Path) -> Path:
    path.chmod(path.stat().st_mode | 0o700)
    return path


def flip(path: Path) -> None:
    writable(path.parent)
    data = bytearray(writable(path).read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def replaced(art: Art) -> None:
    """Put a file of the same size and times in the place of the sealed one."""
    path = writable(art.source) / "MLmodel"
    status, data = path.stat(), path.read_bytes()
    path.unlink()
    path.write_bytes(data.replace(b"flavors", b"Flavors"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def linked(art: Art) -> None:
    path = writable(art.source) / "MLmodel"
    copy = art.world.home.parent / "copy"
    shutil.copyfile(path, copy)
    path.unlink()
    path.symlink_to(copy)


def moved(art: Art) -> None:
    art.source.rename(f"{art.source}-old")
    art.source.symlink_to(f"{art.source}-old")


SEALED: dict[str, Callable[[Art], object]] = {
    "a bit flipped": lambda a: flip(a.source / "MLmodel"),
    "a bit of the blob flipped": lambda a: flip(a.blob()),
    "a change of the same size": replaced,
    "a file added": lambda a: (writable(a.source) / "more").write_text("x"),
    "a file removed": lambda a: (writable(a.source) / "MLmodel").unlink(),
    "a file renamed": lambda a: (writable(a.source) / "MLmodel").rename(a.source / "mlmodel"),
    "a link in its place": linked,
    "the whole view gone": lambda a: shutil.rmtree(writable(a.source)),
    "a link to another folder in its place": moved,
}


@pytest.mark.parametrize(
    ("own", "what"), [*(("sqlite", w) for w in SEALED), ("postgresql", "a bit flipped")], indirect=["own"]
)
async def test_a_changed_sealed_copy_is_found_and_never_passes_again(own: World, what: str) -> None:
    art = await registered(own)
    before = locked_rows(own)
    SEALED[what](art)
    assert await own.problems("art") == {"BYTES"}
    assert (await own.promote("art", 1)).startswith("GATES_FAILED")
    assert await own.problems("art") == {"BYTES", "QUARANTINED"}
    assert await own.problems("fm") == set()
    assert (await own.services.registry.get("art")).versions[0].state == "quarantined"
    assert locked_rows(own) == before
    if what == "a bit flipped":
        await own.services.adoption.reconcile("art", accept=True, reason="never mind")
        assert (await own.promote("art", 1)).startswith("GATES_FAILED")


async def test_a_signature_or_manifest_taken_from_the_archive_is_found(own: World) -> None:
    art = await registered(own)
    seal = await own.services.registry.register("art", run_id=art.logged.run)
    for path in (
        own.home / "archive" / "signatures" / f"{seal.manifest_digest}.json",
        art.blobs / str(seal.manifest_digest)[:2] / str(seal.manifest_digest),
    ):
        writable(path.parent)
        path.unlink()
        assert "BYTES" in await own.problems("art")


async def test_a_blob_deleted_before_its_time_leaves_the_sealed_copy_whole(own: World) -> None:
    """The copy's files are further names of the same bytes."""
    art = await registered(own)
    blob, said = art.blob(), (art.source / "MLmodel").read_text()
    writable(blob.parent)
    blob.unlink()
    assert (art.source / "MLmodel").read_text() == said
    assert await own.promote("art", 1) == "promoted"
    assert await own.register(art.logged.run, "art") == "version 1, next art-v2"


async def test_originals_swapped_after_the_promotion_do_not_reach_a_plain_load(own: World) -> None:
    run, _ = train(own, experiment(own, "swap"), 5.0)
    await own.services.registry.register("swapped", run_id=run)
    assert await own.promote("swapped", 1) == "promoted"
    with plain_mlflow(own.plain):
        uris = ("models:/swapped/Production", "models:/swapped@champion", "models:/swapped/1")
        expected = [mlflow.sklearn.load_model(uri).coef_.tolist() for uri in uris]
        model = own.client.search_logged_models([own.client.get_run(run).info.experiment_id])[0]
        folder = Path(model.artifact_location.removeprefix("file://"))
        for path in folder.rglob("*"):
            if path.is_file():
                path.write_bytes(b"evil")
        assert [mlflow.sklearn.load_model(uri).coef_.tolist() for uri in uris] == expected
    assert await own.problems("swapped") == {"FILES"}


async def test_gc_of_a_run_that_was_deleted_before_the_lock_is_refused_and_found(own: World) -> None:
    """MLflow removes artifacts first, then the row: the row stays, and what is missing shows."""
    where = experiment(own, "collected")
    logged, other = log(own, where), own.client.create_run(where).info.run_id
    with plain_mlflow(own.plain):
        own.client.log_text(other, "evidence", "evidence.txt")
    own.client.set_terminated(other)
    own.client.delete_run(other)
    assert await own.register(logged.run, "art") == "version 1, next collected-v2"
    before = everything(own)
    collect = ["--backend-store-uri", own.plain, "--tracking-uri", own.plain]
    for further in ([], ["--run-ids", other], ["--experiment-ids", where]):
        assert CliRunner().invoke(mlflow.cli.gc, [*collect, *further]).exit_code == 1
    assert everything(own) == before
    assert await own.problems("art") == {"FILES"}
    assert (await own.promote("art", 1)).startswith("GATES_FAILED")


def link_inside(logged: Logged, secret: Path) -> None:
    (logged.folder / "weights").symlink_to(secret / "id_rsa")


def link_as_folder(logged: Logged, secret: Path) -> None:
    shutil.rmtree(logged.folder)
    logged.folder.symlink_to(secret)


def link_as_model(logged: Logged, secret: Path) -> None:
    (logged.folder / "MLmodel").unlink()
    (logged.folder / "MLmodel").symlink_to(secret / "id_rsa")


def pipe(logged: Logged, _secret: Path) -> None:
    os.mkfifo(logged.folder / "pipe")


TRAPS = (link_inside, link_as_folder, link_as_model, pipe, None)


@pytest.mark.parametrize(
    ("own", "trap"), [*(("sqlite", trap) for trap in TRAPS), ("postgresql", None)], indirect=["own"]
)
async def test_a_run_whose_artifacts_lead_elsewhere_is_not_registered_and_nothing_is_copied(
    own: World, tmp_path: Path, trap: Callable[[Logged, Path], None] | None
) -> None:
    """Links, pipes, and a logged model whose location names a folder of secrets."""
    secret = tmp_path / "secret"
    secret.mkdir()
    text = f"private key {trap} {own.backend}"
    (secret / "id_rsa").write_text(text)
    logged = log(own, experiment(own, "trap"), finish=False)
    if trap is None:
        own.sql("UPDATE logged_models SET artifact_location = ? WHERE model_id = ?", secret.as_uri(), logged.model)
    else:
        trap(logged, secret)
    own.client.set_terminated(logged.run)
    before = everything(own)
    answer = await own.register(logged.run, "trapped")
    assert answer.startswith("NO_MODEL ")
    after = everything(own)
    assert {t for t in after if after[t] != before[t]} <= {"event", "gov_event", "principal_name", "gov_principal_name"}
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert not (own.home / "archive" / "sha256" / digest[:2] / digest).exists()


async def test_artifacts_at_a_file_uri_that_somebody_chose_are_sealed_as_they_are(own: World, tmp_path: Path) -> None:
    where = own.client.create_experiment("elsewhere", artifact_location=(tmp_path / "else where").as_uri())
    logged = log(own, where)
    assert await own.register(logged.run, "art") == "version 1, next elsewhere-v2"
    source = Path(own.client.get_model_version("art", "1").source)
    assert source.is_relative_to((own.home / "archive").resolve())
    shutil.rmtree(logged.folder)
    assert await own.problems("art") == {"FILES"}
    assert (source / "MLmodel").read_text().endswith(f"run_id: {logged.run}\n")


async def test_two_experiments_in_one_artifact_folder_do_not_disturb_each_other(own: World) -> None:
    location = own.client.get_experiment(own.ids.open).artifact_location
    shared = own.client.create_experiment("shared", artifact_location=location)
    mine, theirs = log(own, shared), log(own, own.ids.open)
    assert await own.register(mine.run, "art") == "version 1, next shared-v2"
    (theirs.folder / "more").write_text("x")
    log(own, own.ids.open)
    assert await own.problems("art") == set()
