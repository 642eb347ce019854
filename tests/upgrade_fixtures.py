"""Fixtures of the upgrade tests: copies of stores as older releases left them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from old_stores import OldStores, copied, make_old_store
from postgres_server import Postgres


@pytest.fixture(scope="session")
def templates() -> dict[tuple[str, str, bool], str]:
    return {}


@pytest.fixture
def old_files(
    templates: dict[tuple[str, str, bool], str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> OldStores:
    """Old SQLite stores, made once per revision and copied for each test."""
    folder = tmp_path / "store"
    folder.mkdir()

    def copy(revision: str, governed: bool) -> str:
        key = ("sqlite", revision, governed)
        if key not in templates:
            made = tmp_path_factory.mktemp("old") / "old.db"
            make_old_store(f"sqlite:///{made}", revision, governed=governed)
            templates[key] = str(made)
        return copied(Path(templates[key]), folder / "mlflow.db")

    return OldStores("sqlite", copy)


@pytest.fixture
def old_databases(templates: dict[tuple[str, str, bool], str], postgres: Postgres) -> OldStores:
    """Old PostgreSQL stores, made once per revision and copied for each test."""

    def copy(revision: str, governed: bool) -> str:
        key = ("postgresql", revision, governed)
        if key not in templates:
            templates[key] = postgres.database()
            make_old_store(postgres.uri(templates[key]), revision, governed=governed)
        return postgres.uri(postgres.database(templates[key]))

    return OldStores("postgresql", copy)


@pytest.fixture(params=["old_files", "old_databases"])
def old(request: pytest.FixtureRequest) -> OldStores:
    """Old stores on either kind of database."""
    found: OldStores = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def file(old_files: OldStores) -> tuple[str, Path]:
    """An old SQLite store in WAL mode, as our embedded one is."""
    uri = old_files.store()
    path = Path(uri.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return uri, path
