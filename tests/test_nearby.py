"""Other stores in the allowed roots: found where people leave them, counted, and left untouched."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import copy_store

from intelligentscan.settings import Settings, sqlite_path, sqlite_uri
from intelligentscan.stores.nearby import find


def put_runs(database: Path, count: int) -> None:
    """Put runs into a store, and leave the file as a client that ended leaves it."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO runs (run_uuid, experiment_id, lifecycle_stage, artifact_uri) VALUES (?, 0, 'active', '/x')",
            [(f"{number:032x}",) for number in range(count)],
        )


@pytest.fixture
def lab(tmp_path: Path, template: Path) -> Path:
    """A root that holds a store with three runs at its top."""
    root = copy_store(template, tmp_path / "root")
    put_runs(root / "mlflow.db", 3)
    return root


def test_a_store_at_the_top_of_a_root_or_one_folder_below_is_found(lab: Path, template: Path) -> None:
    copy_store(template, lab / "below")
    put_runs(lab / "below" / "mlflow.db", 2)
    copy_store(template, lab / "below" / "deeper")
    put_runs(lab / "below" / "deeper" / "mlflow.db", 1)
    found = find([lab], "sqlite:////elsewhere.db")
    assert [(s.path, s.runs) for s in found] == [(lab / "mlflow.db", 3), (lab / "below" / "mlflow.db", 2)]
    assert str(found[0]) == f"{lab}/mlflow.db holds 3 runs; MLFLOW_TRACKING_URI=sqlite:///{lab}/mlflow.db selects it."


def test_the_uri_that_is_told_selects_the_store(lab: Path, template: Path) -> None:
    odd = copy_store(template, lab / "100%41 #1?")
    put_runs(odd / "mlflow.db", 1)
    uris = {s.path: s.uri for s in find([lab], "")}
    assert sqlite_path(Settings(home=lab, tracking_uri=uris[odd / "mlflow.db"]).store_uri) == odd / "mlflow.db"


def test_the_store_in_force_and_empty_stores_are_not_named(lab: Path, template: Path) -> None:
    copy_store(template, lab / "empty")
    assert find([lab], sqlite_uri(lab / "mlflow.db")) == []


def test_a_folder_of_runs_as_older_clients_leave_it_is_found(tmp_path: Path) -> None:
    for run in ("a", "b"):
        (tmp_path / "work" / "mlruns" / "0" / run).mkdir(parents=True)
        (tmp_path / "work" / "mlruns" / "0" / run / "meta.yaml").write_text("x")
    (tmp_path / "work" / "mlruns" / "0" / "meta.yaml").write_text("x")
    found = find([tmp_path], "")
    assert [(s.path.name, s.runs, s.uri) for s in found] == [("mlruns", 2, (tmp_path / "work" / "mlruns").as_uri())]


def test_looking_leaves_nothing_behind(lab: Path) -> None:
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in lab.rglob("*") if p.is_file()}
    assert find([lab], "")
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in lab.rglob("*") if p.is_file()} == before


def test_a_store_that_is_in_use_is_counted_with_its_latest_runs(lab: Path) -> None:
    with closing(sqlite3.connect(lab / "mlflow.db")) as connection:
        connection.execute("INSERT INTO runs (run_uuid, experiment_id, artifact_uri) VALUES ('x', 0, '/x')")
        connection.commit()
        assert (lab / "mlflow.db-wal").stat().st_size > 0
        assert [s.runs for s in find([lab], "")] == [4]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_store_is_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    (tmp_path / "mlruns").write_text("a file")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mlflow.db").mkdir()
    assert find([tmp_path], "") == []
    assert find([tmp_path / "missing"], "") == []


def test_hidden_and_dependency_folders_and_links_are_not_entered(lab: Path, template: Path) -> None:
    for name in (".venv", "node_modules", "__pycache__"):
        copy_store(template, lab / name)
        put_runs(lab / name / "mlflow.db", 1)
    (lab / "link").symlink_to(lab)
    assert [s.path for s in find([lab], "")] == [lab / "mlflow.db"]


def test_many_folders_are_not_all_looked_into(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"d{number:03}" / "mlruns" / "0" / "run").mkdir(parents=True)
        (tmp_path / f"d{number:03}" / "mlruns" / "0" / "run" / "meta.yaml").touch()
    assert len(find([tmp_path], "")) == 200
