"""The app role of PostgreSQL, temporary tables on both databases, and what is claimed: acts 10 to 13 of the notes."""

from pathlib import Path

import pytest
from hostile import LOCKED, PREFIX, World, copied, engine
from hostile_rows import counted, everything
from reviewed import release
from sqlalchemy.exc import DBAPIError
from test_hostile_sql import nothing_changes, refusals

from intelligentscan.domain.errors import ExperimentLocked, IntelligentScanError, KeyUnavailable, NotPermitted

DENIED = "42501"
OWNERS = f"{PREFIX}_owner"
FORBIDDEN = (
    # 11: guards disabled, dropped, joined by others
    "ALTER TABLE metrics DISABLE TRIGGER gov_guard",
    "ALTER TABLE metrics DISABLE TRIGGER ALL",
    "DROP TRIGGER gov_guard ON metrics",
    "CREATE TRIGGER mine BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE mine AS ON INSERT TO metrics DO INSTEAD NOTHING",
    "ALTER TABLE metrics ENABLE ROW LEVEL SECURITY",
    "DROP TABLE metrics",
    "ALTER TABLE metrics RENAME TO metrics_old",
    "ALTER TABLE gov.experiment_lock RENAME TO gone",
    "DROP SCHEMA gov CASCADE",
    "CREATE TABLE public.mine (a integer)",
    "CREATE SCHEMA mine",
    # 12: replication, truncation
    "SET session_replication_role = replica",
    "ALTER ROLE CURRENT_USER SET session_replication_role = replica",
    "TRUNCATE metrics",
    "TRUNCATE experiments CASCADE",
    "TRUNCATE gov.event CASCADE",
    # 13: functions
    "CREATE OR REPLACE FUNCTION gov.guard_metrics() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE FUNCTION gov.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "ALTER FUNCTION gov.guard_metrics() SECURITY INVOKER",
    "DROP FUNCTION gov.guard_metrics() CASCADE",
    "SELECT gov.guard_text(1)",
    # other roles, the machine
    f"SET ROLE {OWNERS}",
    f"SET ROLE {PREFIX}_npta",
    f"SET SESSION AUTHORIZATION {OWNERS}",
    f"GRANT {OWNERS} TO {PREFIX}_app",
    f"ALTER ROLE {PREFIX}_app SUPERUSER",
    f"ALTER TABLE metrics OWNER TO {PREFIX}_app",
    f"REASSIGN OWNED BY {OWNERS} TO {PREFIX}_app",
    "INSERT INTO gov.ticket_close (event, ticket_id) VALUES (1, 'x')",
    "COPY metrics TO PROGRAM 'cat'",
    "COPY metrics FROM PROGRAM 'cat /dev/null'",
    "COPY metrics FROM '/dev/null'",
    "SELECT pg_read_file('PG_VERSION')",
    "ALTER SYSTEM SET session_replication_role = replica",
    "CREATE EXTENSION plpython3u",
    "UPDATE alembic_version SET version_num = 'x'",
    "DELETE FROM alembic_version",
)


def test_the_app_role_cannot_reach_the_guards(hostile_postgres: World) -> None:
    with nothing_changes(hostile_postgres), counted(hostile_postgres) as seen:
        answers = refusals(hostile_postgres, FORBIDDEN, ["GRANT INSERT ON gov.ticket_close TO PUBLIC"])  # a warning
    elsewhere = {"CREATE EXTENSION plpython3u": ("42501", "0A000", "58P01")}  # it may not be installed at all
    wrong = [a for a in answers if a[1].split(":")[0] not in elsewhere.get(a[0], (DENIED,))]
    assert (wrong, seen.refused) == ([], len(FORBIDDEN))


@pytest.mark.parametrize("table", ["experiment_lock", "experiment_unlock", "governed_model", "ticket", "event"])
def test_a_temporary_table_does_not_stand_in_for_a_governance_table(world: World, table: str) -> None:
    """A temporary copy without rows, or with rows of the attacker's, is not what the guards read."""
    own = f"gov_{table}" if world.sqlite else table
    setup = [f"CREATE TEMPORARY TABLE {own} AS SELECT * FROM {world.gov(table)} WHERE 1 = 0"]
    if world.sqlite:
        setup.append("CREATE TEMPORARY TABLE IF NOT EXISTS gov_locked (experiment_id INTEGER PRIMARY KEY)")
    else:
        setup.append("SET search_path = pg_temp, public, gov")
    statements = (
        f"UPDATE metrics SET value = 77 WHERE run_uuid = '{world.ids.run}'",
        f"INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', {world.ids.fraud})",
        f"UPDATE runs SET experiment_id = {world.ids.open} WHERE run_uuid = '{world.ids.run}'",
        "INSERT INTO model_versions (name, version, current_stage) VALUES ('fm', 3, 'None')",
    )
    with nothing_changes(world):
        answers = refusals(world, statements, setup)
    assert [answer for _, answer in answers[:3]] == [LOCKED] * 3
    assert answers[3][1].startswith("TICKET_REQUIRED: ")


def test_a_temporary_table_does_not_stand_in_for_mlflows(world: World) -> None:
    """The guards follow a run to its experiment in the real tables."""
    there = "main" if world.sqlite else "public"
    empty = [
        f"CREATE TEMPORARY TABLE {name} AS SELECT * FROM {there}.{name} WHERE 1 = 0" for name in ("runs", "metrics")
    ]
    setup = empty if world.sqlite else [*empty, "SET search_path = pg_temp, public"]
    changes = (
        f"UPDATE {there}.metrics SET value = 77 WHERE run_uuid = '{world.ids.run}'",
        f"DELETE FROM {there}.params WHERE run_uuid = '{world.ids.run}'",
    )
    with nothing_changes(world):
        assert [answer for _, answer in refusals(world, changes, setup)] == [LOCKED, LOCKED]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_an_old_snapshot_does_not_hide_a_lock_or_a_governed_name(
    hostile_postgres: World, tmp_path: Path, level: str
) -> None:
    world = copied(hostile_postgres, tmp_path)
    ids = world.ids
    world.client.create_registered_model("late")
    version = "INSERT INTO model_versions (name, version, current_stage, source) VALUES ('late', {}, 'None', '/x')"
    world.sql(version.format(1))
    statements = (
        f"INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', {ids.open})",
        version.format(3),
        "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('late', 'champion', 1)",
        "UPDATE model_versions SET current_stage = 'Production' WHERE name = 'late' AND version = 1",
        "DELETE FROM model_versions WHERE name = 'late' AND version = 1",
    )
    with engine(world.plain, isolation_level=level).connect() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM registered_models")
        assert await world.register(ids.free, "late") == "version 2, next open-v2"
        before = everything(world)
        for statement in statements:
            with pytest.raises(DBAPIError) as caught, connection.begin_nested():
                connection.exec_driver_sql(statement)
            assert "GUARDS_READ_COMMITTED: " in str(caught.value.orig)
    assert everything(world) == before
    world.close()


@pytest.mark.parametrize(
    "statement", ["TRUNCATE metrics", "TRUNCATE experiments CASCADE", "TRUNCATE gov.event CASCADE"]
)
def test_even_the_owner_does_not_truncate_by_mistake(hostile_postgres: World, statement: str) -> None:
    with nothing_changes(hostile_postgres), pytest.raises(DBAPIError) as caught:
        hostile_postgres.sql(statement, owner=True)
    assert str(caught.value.orig).startswith(("EXPERIMENT_LOCKED: ", "GOVERNANCE_APPEND_ONLY: "))


async def test_who_has_the_app_role_reads_and_logs_and_is_told_that_it_is_prevented(
    hostile_postgres: World, tmp_path: Path
) -> None:
    world = copied(hostile_postgres, tmp_path / "own")
    person = world.services_with(world.plain, home=tmp_path / "person")
    assert (await person.adoption.check()).enforcement == "prevented"
    assert [v.sealed for v in (await person.registry.get("fm")).versions] == [True, True]
    assert (await person.history.get(name="fm")).live["Production"][0].version == 1
    assert (await person.trail.verify()).ok
    await person.experiments.create("mine")
    assert (await person.runs.log("mine", params={"a": 1})).created
    with pytest.raises(ExperimentLocked) as locked:
        await person.runs.log("fraud", params={"a": 1})
    assert locked.value.details["next_experiment"] == "fraud-v2"
    before = everything(world)
    for act in (
        person.registry.register("new", run_id=world.ids.free),
        person.locks.unlock("fraud", "let me"),
        person.trail.rotate(),
        person.adoption.retain("fm", 1, hold=False, reason="let me"),
    ):
        try:
            await act
        except (KeyUnavailable, NotPermitted) as refusal:
            assert refusal.next
        else:
            raise AssertionError("an act of the service")
    assert everything(world) == before
    world.close()


@pytest.mark.parametrize("who", ["service", "service without its key", "owner"])
async def test_the_claim_follows_from_what_the_account_can_reach(world: World, tmp_path: Path, who: str) -> None:
    uri = world.owner if who == "owner" else world.uri
    home = tmp_path if who == "service without its key" else world.home
    services = world.services_with(uri, home=home, archive=world.home / "archive")
    report = await services.integrity.verify()
    expected = "detected" if home == tmp_path else "advisory"
    assert (report.ok, report.enforcement) == (True, expected)
    assert any(note.startswith("advisory: ") for note in report.notes) == (expected == "advisory")


async def test_a_stolen_service_credential_without_the_key_makes_nothing_that_counts(
    hostile_postgres: World, tmp_path: Path
) -> None:
    thief = hostile_postgres.services_with(home=tmp_path / "thief", archive=hostile_postgres.home / "archive")
    with nothing_changes(hostile_postgres):
        for act in (
            thief.registry.register("new", run_id=hostile_postgres.ids.free),
            release(thief, "fm", 2, reason="mine"),
        ):
            with pytest.raises(IntelligentScanError) as caught:
                await act
            assert caught.value.code == "KEY_UNAVAILABLE"
