"""A registration that is killed leaves nothing half locked, and the same call completes it: on both databases."""

import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from conftest import copy_store, plain_mlflow
from governed_work import MODEL, register, register_and_die, services_at, statements_of_registration
from postgres_server import Postgres
from reviewed import release

from intelligentscan.app import Services

BOUNDARIES = ("bytes without ticket", "ticket without commit", "at the commit", "committed, not hashed again")
ROUNDS = 8
COUNTED = ("event", "ticket", "ticket_close", "experiment_lock", "seal", "governed_model")


@dataclass(frozen=True)
class Place:
    """A store with one finished run that has a model."""

    home: Path
    uri: str | None
    run_id: str

    @property
    def services(self) -> Services:
        return services_at(str(self.home), self.uri)

    def rows(self) -> dict[str, int]:
        """Return how many rows the governance tables and the registry hold."""
        engine = sqlalchemy.create_engine(self.services.settings.store_uri, poolclass=sqlalchemy.pool.NullPool)
        prefix = "gov." if engine.dialect.name == "postgresql" else "gov_"
        tables = {**{name: prefix + name for name in COUNTED}, "versions": "model_versions"}
        with engine.connect() as connection:
            return {
                name: int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())  # noqa: S608
                for name, table in tables.items()
            }


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Place:
    """A SQLite store in which a model was trained, to be copied."""
    home = copy_store(template, tmp_path_factory.mktemp("killing") / "home")
    services = services_at(str(home), None)
    return Place(home, None, train(services.settings.store_uri, home / "artifacts" / "1"))


def train(uri: str, location: Path) -> str:
    import mlflow
    from mlflow import MlflowClient
    from sklearn.linear_model import LogisticRegression

    with plain_mlflow(uri):
        experiment_id = MlflowClient(tracking_uri=uri).create_experiment("killed", artifact_location=str(location))
        with mlflow.start_run(experiment_id=experiment_id) as run:
            mlflow.log_metric("accuracy", 0.9)
            model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
            mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
    return str(run.info.run_id)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, trained_once: Place, tmp_path: Path) -> Callable[[], Awaitable[Place]]:
    """Return a function that makes a fresh store like that, with artifacts at their old place."""
    made = 0

    async def sqlite() -> Place:
        nonlocal made
        made += 1
        home = tmp_path / f"home{made}"
        home.mkdir()
        old, new = (sqlite3.connect(folder / "mlflow.db") for folder in (trained_once.home, home))
        with closing(old), closing(new):
            old.backup(new)
        return Place(home, None, trained_once.run_id)

    if request.param == "sqlite":
        return sqlite
    postgres: Postgres = request.getfixturevalue("postgres")
    prepared: list[Any] = []

    async def postgresql() -> Place:
        nonlocal made
        made += 1
        if not prepared:
            first = postgres.database(request.getfixturevalue("migrated"))
            services = services_at(str(tmp_path / "first"), postgres.uri(first))
            await services.adoption.adopt()
            run_id = train(postgres.uri(first), tmp_path / "pg-artifacts")
            await services.store.read(lambda s: s.governance.engine.dispose())
            postgres.disconnect(first)
            prepared.extend([first, run_id])
        home = tmp_path / f"home{made}"
        shutil.copytree(tmp_path / "first", home)
        return Place(home, postgres.uri(postgres.database(prepared[0])), prepared[1])

    return postgresql


def killed(children: ForkServerContext, work: Callable[..., Any], *arguments: Any) -> bool:
    """Do something in a process that dies of it; False if it came to an end instead."""
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        try:
            pool.submit(work, *arguments).result(timeout=120)
        except BrokenProcessPool:
            return True
    return False


async def check_whole(place: Place) -> None:
    """Check that the act happened as a whole or not at all, then complete it and look at everything."""
    before = place.rows()
    happened = before["seal"]
    assert {before[name] for name in ("ticket", "ticket_close", "experiment_lock", "versions")} == {happened}, before
    services = place.services
    made = await services.registry.register(MODEL, run_id=place.run_id)
    assert (made.version, made.created) == (1, not happened)
    assert made.experiment_locked
    assert made.next_experiment == "killed-v2"
    after = place.rows()
    assert {after[n] for n in ("seal", "ticket", "ticket_close", "experiment_lock", "versions")} == {1}
    report = await services.integrity.verify()
    assert report.ok, report.problems
    decision = await release(services, MODEL, 1, reason="it survived")
    assert decision.stage == "Production"
    assert {g.outcome for g in decision.gates} == {"pass"}
    trail = await services.trail.verify()
    assert trail.ok, trail.problems


@pytest.mark.parametrize("point", BOUNDARIES)
async def test_a_kill_at_a_boundary_of_the_saga_is_completed_by_the_same_call(
    point: str, place: Callable[[], Awaitable[Place]], children: ForkServerContext
) -> None:
    here = await place()
    assert killed(children, register_and_die, str(here.home), here.uri, here.run_id, point)
    assert here.rows()["seal"] == (1 if point.startswith("committed") else 0)
    await check_whole(here)


async def test_kills_at_random_statements_leave_all_or_nothing(
    place: Callable[[], Awaitable[Place]], children: ForkServerContext
) -> None:
    first = await place()
    with ProcessPoolExecutor(1, mp_context=children) as pool:
        total = pool.submit(statements_of_registration, str(first.home), first.uri, first.run_id).result(timeout=120)
    assert total > 20
    for point in random.Random(3).sample(range(1, total + 1), ROUNDS):
        here = await place()
        died = killed(children, register_and_die, str(here.home), here.uri, here.run_id, point)
        assert died, f"it was not killed at statement {point} of {total}"
        await check_whole(here)


async def test_a_process_killed_twice_in_a_row_still_leaves_one_version(
    place: Callable[[], Awaitable[Place]], children: ForkServerContext
) -> None:
    here = await place()
    for point in BOUNDARIES[:3]:
        assert killed(children, register_and_die, str(here.home), here.uri, here.run_id, point)
    with ProcessPoolExecutor(2, mp_context=children) as pool:
        results = [pool.submit(register, str(here.home), here.uri, here.run_id) for _ in range(4)]
        made = [result.result(timeout=120) for result in results]
    assert {version for version, _ in made} == {1}
    assert sorted(created for _, created in made) == [False, False, False, True]
    await check_whole(here)
