"""Stores and names that somebody prepared: acts 29, 35, 45 and 52 of the notes."""

from pathlib import Path

import pytest
import sqlalchemy
from conftest import plain_mlflow
from hostile import LOCKED, PREFIX, World, experiment, forget, log, postgres_world, sqlite_world
from hostile_rows import everything
from mlflow.exceptions import MlflowException
from old_stores import SPAN_COSTS, make_old_store
from postgres_server import Postgres
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from test_hostile_sql import refusals

NAMES = (
    "quo'te\"s;-- '; DROP TABLE gov_event; -- back`tick\\slash $guard$ %s %d {x} $1 ? :y", "new\nline\r\u2028x\x07\t",
    "emoji 🧨 \u202eevil", "x" * 250, "é" * 256, " blanks ", "00000", "fraud-v2",
)  # fmt: skip


async def test_an_experiment_may_have_any_name(own: World) -> None:
    """The refusal stays one line, names the experiment and the next one, and the record holds the names as they are."""
    for number, name in enumerate(NAMES):
        logged = log(own, experiment(own, name))
        made = await own.services.registry.register(f"model-{number}", run_id=logged.run)
        [(kept, following)] = own.sql(
            f"SELECT experiment_name, next_experiment FROM {own.gov('experiment_lock')} ORDER BY event DESC LIMIT 1",
            owner=True,
        )
        assert (kept, made.experiment_locked) == (name, True)
        assert following.endswith(("-v2", "-v3"))
        assert len(following) <= 250
        with pytest.raises(MlflowException) as caught:
            own.client.set_tag(logged.run, "a", "b")
        line = next(line for line in str(caught.value).split("\n") if "EXPERIMENT_LOCKED: " in line)
        assert line.rstrip().endswith("'.")
        assert line.isprintable()
        assert len(line) < 400
        if len(name) < 100 and name.isprintable():
            assert f"experiment '{name}' was locked by a registration; continue in '{following}'." in line
    assert await own.problems() == set()


async def test_next_names_that_were_taken_before_are_passed_over(own: World) -> None:
    where = experiment(own, "sq")
    experiment(own, "sq-v2")
    own.client.delete_experiment(experiment(own, "sq-v3"))
    assert await own.register(log(own, where).run, "sq") == "version 1, next sq-v4"


async def test_a_next_experiment_that_somebody_made_and_locked_or_deleted_does_not_stop_anybody_for_long(
    own: World,
) -> None:
    services = own.services
    assert await own.register(log(own, experiment(own, "sq")).run, "sq") == "version 1, next sq-v2"
    squatted = log(own, experiment(own, "sq-v2"))
    assert await own.register(squatted.run, "squatted") == "version 1, next sq-v3"
    lock = (await services.locks.of([own.client.get_experiment_by_name("sq").experiment_id])).popitem()[1]
    assert lock.next_experiment == "sq-v3"  # the end of the chain, for who asks us
    await services.experiments.create("sq-v3")
    assert (await services.runs.log("sq-v3", params={"a": 1})).created
    own.client.delete_experiment(own.client.get_experiment_by_name("sq-v3").experiment_id)
    with pytest.raises(Exception, match="restore") as caught:
        await services.runs.log("sq-v3", params={"a": 1})
    assert caught.value.code == "EXPERIMENT_DELETED"  # type: ignore[attr-defined]


async def test_nothing_is_registered_from_the_default_experiment(own: World) -> None:
    run = log(own, "0").run
    before = everything(own)
    answer = await own.register(run, "zero")
    assert answer.startswith("DEFAULT_EXPERIMENT ")
    assert "create_experiment" in answer
    changed = {table for table, digest in everything(own).items() if digest != before[table]}
    assert changed <= {"event", "gov_event"}  # the refusal is noted
    own.client.set_tag(run, "still", "open")


# Before there were guards


def ungoverned(world: World) -> None:
    """Take every guard and governance table out of a SQLite store, as if an older release had made it."""
    for name, kind in world.sql("SELECT name, type FROM sqlite_master WHERE name LIKE 'gov_%' ORDER BY type DESC"):
        if kind in ("trigger", "table"):
            world.sql(f"DROP {kind} {name}")


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path, template: Path) -> World:
    """A store of plain MLflow, that nobody governs yet."""
    if request.param == "sqlite":
        (tmp_path / "w").mkdir()
        world = sqlite_world(tmp_path / "w", template)
        ungoverned(world)
        return world
    postgres: Postgres = request.getfixturevalue("postgres")
    request.getfixturevalue("hostile_postgres")  # makes the roles
    world = postgres_world(tmp_path / "home", postgres, postgres.database(request.getfixturevalue("migrated")))
    world.plain = world.owner  # nobody has granted anything yet
    return world


async def test_an_alias_moved_before_there_were_guards_is_legacy_and_does_not_pass(fresh: World) -> None:
    logged = log(fresh, experiment(fresh, "early"))
    with plain_mlflow(fresh.plain):
        fresh.client.create_registered_model("early")
        for _ in range(2):
            fresh.client.create_model_version("early", f"models:/{logged.model}", logged.run)
        fresh.client.set_registered_model_alias("early", "champion", "2")
        fresh.client.transition_model_version_stage("early", 2, "Production")  # type: ignore[arg-type]
    services = fresh.services_with(fresh.owner)
    adopted = await services.adoption.adopt()
    assert (adopted.installed, adopted.legacy_versions) == (True, 2)
    versions = (await services.registry.get("early")).versions
    assert [(v.state, v.review) for v in versions] == [("legacy", "legacy, unreviewed")] * 2
    for version in (1, 2):
        move = await services.registry.promote("early", version, "Production", reason="r", dry_run=True)
        assert [g.gate for g in move.gates if g.outcome == "fail"] == ["sealed", "reviewed"]
    answers = refusals(fresh, (
        "UPDATE registered_model_aliases SET version = 1",
        "UPDATE model_versions SET current_stage = 'Production' WHERE version = 1",
        "UPDATE model_versions SET source = '/evil' WHERE version = 1",
        "DELETE FROM model_versions",
    ))  # fmt: skip
    assert [a.split(":")[0] for _, a in answers] == [
        "ALIAS_RESERVED",
        "PROMOTION_REQUIRED",
        "VERSION_SEALED",
        "VERSION_SEALED",
    ]
    assert (await services.integrity.verify("early", 2)).problems[0].code == "LEGACY"
    fresh.close()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_a_schema_upgrade_past_our_command_leaves_guards_or_is_noticed(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """`mlflow db upgrade`, run directly: on SQLite it takes guards away or breaks off, on PostgreSQL they stay."""
    from mlflow.store.db.utils import _upgrade_db

    uri = f"sqlite:///{tmp_path}/old.db"
    if backend == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        uri = postgres.uri(postgres.database())
    make_old_store(uri, SPAN_COSTS)
    engine = sqlalchemy.create_engine(uri, poolclass=NullPool)
    broken_off = ""
    try:
        _upgrade_db(engine)
    except Exception as exc:  # alembic passes on what the database says
        broken_off = str(exc)
    world = World(backend, tmp_path / "home", uri, uri, uri)
    with engine.begin() as connection:
        try:
            connection.exec_driver_sql("UPDATE runs SET name = 'x' WHERE experiment_id = 1")
            refused = ""
        except DBAPIError as exc:
            refused = str(exc.orig)
    assert "EXPERIMENT_LOCKED" in refused or backend == "sqlite"
    if broken_off:
        return
    check = await world.services.adoption.check()
    if refused and check.guards == {}:
        return
    assert check.guards
    assert (await world.register("r2-0", "late")).startswith(("GUARDS_BROKEN", "NO_MODEL", "NOT_ADOPTED"))
    forget(uri)


def test_the_roles_are_those_of_the_tests(hostile_postgres: World) -> None:
    """What the other tests rest on: the attacker's account is the app role, and no more."""
    [(account, superuser)] = hostile_postgres.sql(
        "SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
    )
    assert (account, superuser) == (f"{PREFIX}_app", False)
    answers = refusals(hostile_postgres, ["DELETE FROM metrics"])
    assert [answer for _, answer in answers] == [LOCKED]
