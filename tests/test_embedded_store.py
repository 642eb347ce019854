"""The embedded store: made whole or not at all, by any number of processes, from any place; broken files are named."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing.context import ForkServerContext
from pathlib import Path

import child_work
import pytest
from conftest import run_plain

from intelligentscan.app import build
from intelligentscan.domain.errors import StoreBroken
from intelligentscan.settings import Settings
from intelligentscan.stores.mlflow_open import open_stores

OWN_FILES = {"mlflow.db", "mlflow.db-wal", "mlflow.db-shm", ".mlflow.db.creating"}


def facts(home: Path) -> tuple[set[str], str, str, int]:
    """Return tables, revision, journal mode and the number of planner statistics."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
        journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
        statistics = connection.execute("SELECT count(*) FROM sqlite_stat1").fetchone()[0]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return tables, revision, journal, statistics


def assert_complete(home: Path) -> None:
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.db.utils import _get_latest_schema_revision

    tables, revision, journal, statistics = facts(home)
    assert set(Base.metadata.tables) < tables
    assert revision == _get_latest_schema_revision()
    assert journal == "wal"
    assert statistics > 0
    assert {path.name for path in home.iterdir()} <= OWN_FILES
    assert (home / "mlflow.db").stat().st_nlink == 1


def test_eight_processes_on_an_empty_home_end_in_one_complete_store(
    tmp_path: Path, children: ForkServerContext
) -> None:
    home = tmp_path / "home"
    with ProcessPoolExecutor(8, mp_context=children) as pool:
        answers = [f.result() for f in [pool.submit(child_work.create_shared, str(home)) for _ in range(8)]]
    assert len({experiment_id for experiment_id, _ in answers}) == 1
    assert [created for _, created in answers].count(True) == 1
    assert_complete(home)


def test_a_creator_killed_at_any_point_leaves_nothing_that_hinders_the_next(
    tmp_path: Path, children: ForkServerContext
) -> None:
    home = tmp_path / "home"
    for point in ("1", "200", "before link"):
        child = children.Process(target=child_work.create_and_die, args=(str(home), point))
        child.start()
        child.join()
        assert child.exitcode == -9, point
        assert not (home / "mlflow.db").exists(), point
    assert child_work.create_shared(str(home)) == ("1", True)
    assert_complete(home)


def test_a_creator_killed_after_publishing_leaves_a_store_that_the_next_cleans(
    tmp_path: Path, children: ForkServerContext
) -> None:
    home = tmp_path / "home"
    child = children.Process(target=child_work.create_and_die, args=(str(home), "after link"))
    child.start()
    child.join()
    assert child.exitcode == -9
    assert (home / "mlflow.db").stat().st_nlink == 2
    assert child_work.create_shared(str(home)) == ("1", True)
    assert_complete(home)


def test_an_existing_store_is_opened_as_it_is(home: Path) -> None:
    before = facts(home)
    identity = (home / "mlflow.db").stat().st_ino
    open_stores(Settings(home=home))
    open_stores(Settings(home=home))
    assert facts(home) == before
    assert (home / "mlflow.db").stat().st_ino == identity


def test_a_store_of_plain_mlflow_keeps_its_journal_mode_and_is_written_to(home: Path) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    experiment_id, _ = child_work.create_shared("unused", f"sqlite:///{home / 'mlflow.db'}")
    child_work.write_runs("unused", experiment_id, 0, 2, f"sqlite:///{home / 'mlflow.db'}")
    assert facts(home)[2] == "delete"


async def test_a_home_with_any_characters_works(tmp_path: Path, project: Path) -> None:
    home = tmp_path / "sp ace 100%41 #1 a?b=c ünï'中 &;@+:"
    (project / "note.txt").write_text("kept")
    services = build(Settings(home=home, allowed_roots=(project,)))
    await services.experiments.create("odd")
    logged = await services.runs.log("odd", artifacts={"sub/note.txt": "note.txt"})
    assert await services.runs.artifact_text(logged.run_id, "sub/note.txt") == "kept"
    assert len(list((home / "artifacts").rglob("note.txt"))) == 1
    assert {path.name for path in home.iterdir()} - OWN_FILES == {"artifacts"}
    assert {path.name for path in tmp_path.iterdir()} == {home.name, "project"}


async def test_plain_mlflow_meets_us_in_a_home_with_any_characters(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    settings = Settings(home=tmp_path / "100%41#?ü")
    await build(settings).experiments.create("odd")
    client = MlflowClient(tracking_uri=settings.store_uri)
    run = client.create_run(client.get_experiment_by_name("odd").experiment_id)
    client.log_text(run.info.run_id, "kept", "sub/note.txt")
    assert await build(settings).runs.artifact_text(run.info.run_id, "sub/note.txt") == "kept"


BARE = """
import asyncio, os, sys
os.mkdir(sys.argv[1]); os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])
from intelligentscan.app import build
from intelligentscan.settings import Settings
services = build(Settings.load(home=sys.argv[2]))
async def main():
    await services.experiments.create("bare")
    logged = await services.runs.log("bare", params={"a": 1})
    print((await services.runs.get(logged.run_id)).params)
asyncio.run(main())
"""


def test_the_store_works_with_an_empty_environment_from_a_folder_that_was_removed(tmp_path: Path) -> None:
    ended = run_plain(BARE, str(tmp_path / "gone"), str(tmp_path / "home"))
    assert ended.stdout == "{'a': '1'}\n", ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


BROKEN = {
    "empty": lambda whole: b"",
    "a few bytes": lambda whole: whole[:10],
    "one page": lambda whole: whole[:4096],
    "half": lambda whole: whole[: len(whole) // 2],
    "all but a page": lambda whole: whole[:-4096],
    "garbage": lambda whole: bytes(range(256)) * 100,
    "a hole": lambda whole: whole[:8192] + bytes(len(whole) - 8192),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_file_is_named_with_a_way_out_and_left_alone(tmp_path: Path, template: Path, kind: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(BROKEN[kind](template.read_bytes()))
    before = (home / "mlflow.db").read_bytes()
    services = build(Settings(home=home))
    with pytest.raises(StoreBroken) as caught:
        await services.experiments.create("x")
    assert "mlflow.db" in caught.value.message + caught.value.next
    assert "MLFLOW_TRACKING_URI" in caught.value.next
    assert (home / "mlflow.db").read_bytes() == before


async def test_a_store_that_breaks_while_in_use_is_named_broken(home: Path) -> None:
    services = build(Settings(home=home))
    await services.experiments.create("x")
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (home / "mlflow.db").open("r+b") as file:
        file.truncate(8192)
    with pytest.raises(StoreBroken) as caught:
        await services.runs.search("x")
    assert caught.value.next


async def test_a_store_of_another_mlflow_release_is_not_migrated(home: Path) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute("DROP TABLE scorer_versions")
    with pytest.raises(StoreBroken) as caught:
        await build(Settings(home=home)).experiments.create("x")
    assert "intelligentscan db upgrade" in caught.value.next
    assert "scorer_versions" not in facts(home)[0]


async def test_a_store_with_another_revision_is_named(home: Path) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000deadbeef'")
    with pytest.raises(StoreBroken) as caught:
        await build(Settings(home=home)).experiments.create("x")
    assert "intelligentscan db upgrade" in caught.value.next


@pytest.mark.parametrize("place", ["a file", "a folder"])
async def test_something_else_in_the_place_of_the_store_is_named(tmp_path: Path, place: str) -> None:
    home = tmp_path / "home"
    if place == "a file":
        home.write_text("not a folder")
    else:
        (home / "mlflow.db").mkdir(parents=True)
    with pytest.raises(StoreBroken) as caught:
        await build(Settings(home=home)).experiments.create("x")
    assert caught.value.next


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_home_that_may_not_be_written_is_named(public_folder: Path, children: ForkServerContext) -> None:
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        answer = pool.submit(child_work.as_nobody, child_work.create_shared, str(public_folder / "home")).result()
    code, message, next_step = answer
    assert code == "STORE_BROKEN"
    assert "Permission denied" in message
    assert "INTELLIGENTSCAN_HOME" in next_step


def test_a_store_that_may_only_be_read_refuses_writes_by_name(
    public_folder: Path, template: Path, children: ForkServerContext
) -> None:
    home = public_folder / "home"
    home.mkdir()
    shutil.copyfile(template, home / "mlflow.db")
    (home / "mlflow.db").chmod(0o444)
    home.chmod(0o555)
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        answer = pool.submit(child_work.as_nobody, child_work.create_shared, str(home)).result()
    home.chmod(0o755)
    assert answer[0] == "STORE_BROKEN"
    assert "may not be written" in answer[1]
    assert os.listdir(home) == ["mlflow.db"]
