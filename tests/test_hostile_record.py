"""Forged records and guards taken away: acts 11, 13, 21, 30, 40 and 41 of the notes, where they can only be detected.

Raw SQL on SQLite and PostgreSQL's owner can add governance rows; the guards then let the act through that the forged
row allows. `verify_integrity` reports it, and no gate passes on it.
"""

from dataclasses import dataclass

import pytest
from conftest import plain_mlflow
from hostile import LOCKED, World
from hostile_rows import locked_rows
from sqlalchemy.exc import DBAPIError

from intelligentscan.domain.errors import IntelligentScanError

BACKENDS = ("sqlite", "postgresql")
LATE = 99_999_999_999_999


@dataclass(frozen=True)
class Forgery:
    """A row that no event made.

    Attributes:
        table: the governance table.
        row: columns and values; `event` is the last one unless it is given.
        act: what a plain client can do then.
        found: the codes under which `verify_integrity` reports row and act.
        refused: what a promotion is refused with.
    """

    table: str
    row: dict[str, object]
    act: str
    found: frozenset[str]
    refused: tuple[str, ...] = ("GATES_FAILED",)


FM = {"workspace": "default", "name": "fm"}
FORGERIES = (
    Forgery(
        "ticket",
        {**FM, "ticket_id": "t", "version": 3, "run_id": "{free}", "source": "/evil", "manifest_digest": "x",
         "requester": "y", "expires": LATE},
        "version", frozenset({"RECORD", "TWIN"}),
    ),
    Forgery("stage", {**FM, "version": 2, "stage": "Production"}, "stage", frozenset({"RECORD"})),
    Forgery("alias", {**FM, "alias": "champion", "version": 2}, "alias", frozenset({"RECORD"})),
    Forgery("experiment_unlock", {"lock_event": "{lock}"}, "metric", frozenset({"RECORD"})),
    Forgery(
        "seal",
        {**FM, "version": 3, "run_id": "{free}", "experiment_id": "{fraud}", "source": "/evil", "origin": "o",
         "manifest_digest": "d", "rows_digest": "d"},
        "", frozenset({"RECORD", "ROWS", "BYTES"}),
    ),
    Forgery("legacy_version", {**FM, "version": 3}, "", frozenset({"RECORD", "ROWS"})),
    Forgery("retention", {**FM, "version": 2, "until": 1, "hold": 0}, "", frozenset({"RECORD"})),
    Forgery("quarantine", {**FM, "version": 2}, "", frozenset({"RECORD", "QUARANTINED"})),
    Forgery("signing_key", {"key_id": "a" * 32, "public": "x"}, "", frozenset({"RECORD"}),
            ("TRAIL_BROKEN", "KEY_UNAVAILABLE")),
    Forgery("governed_model", {"workspace": "default", "name": "plain"}, "", frozenset({"RECORD", "TWIN"}),
            ("promoted",)),
    Forgery("ticket_close", {"ticket_id": "zz"}, "", frozenset({"RECORD"}), ("promoted",)),
)  # fmt: skip


def forge(world: World, forgery: Forgery) -> None:
    head, lock = (world.sql(f"SELECT max({c}) FROM {world.gov(t)}", owner=True)[0][0]
                  for c, t in (("seq", "event"), ("event", "experiment_lock")))  # fmt: skip
    known = {"{free}": world.ids.free, "{fraud}": int(world.ids.fraud), "{lock}": lock}
    row = {"event": head, **{name: known.get(str(value), value) for name, value in forgery.row.items()}}
    places = ", ".join("?" for _ in row)
    world.sql(f"INSERT INTO {world.gov(forgery.table)} ({', '.join(row)}) VALUES ({places})", *row.values(), owner=True)


def use(world: World, act: str) -> None:
    """Do with a plain client what the forged row lets pass."""
    client = world.client
    with plain_mlflow(world.plain):
        match act:
            case "version":
                client.create_model_version("fm", "/evil", world.ids.free)
            case "stage":
                client.transition_model_version_stage("fm", 2, "Production")  # type: ignore[arg-type]
            case "alias":
                client.set_registered_model_alias("fm", "champion", "2")
            case "metric":
                client.log_metric(world.ids.run, "accuracy", 0.999, step=9)


@pytest.mark.parametrize(
    ("own", "forgery"),
    [(backend, each) for backend in BACKENDS for each in FORGERIES if backend == "sqlite" or each.act],
    indirect=["own"],
    ids=lambda each: each if isinstance(each, str) else each.table,
)
async def test_a_forged_row_is_reported_and_no_gate_passes_on_it(own: World, forgery: Forgery) -> None:
    await own.services.adoption.retain("fm", 1, hold=True, reason="an event without rows of the forged kind")
    before = locked_rows(own)
    forge(own, forgery)
    use(own, forgery.act)
    changed = {table for table, digest in locked_rows(own).items() if digest != before[table]}
    assert changed == {"version": {"model_versions"}, "metric": {"metrics", "latest_metrics"}}.get(forgery.act, set())
    report = await own.services.integrity.verify()
    assert forgery.found <= {problem.code for problem in report.problems}
    assert report.enforcement == ("detected" if forgery.table == "signing_key" else "advisory")  # it has the other key
    if "fm" in forgery.row.values() or forgery.act:
        assert await own.problems("fm") & {"RECORD", "TWIN"}
    assert (await own.promote()).startswith(forgery.refused)


async def test_a_forged_lock_neither_passes_for_a_real_one_nor_goes_unseen(own: World) -> None:
    ids = own.ids
    forge(
        own,
        Forgery(
            "experiment_lock",
            {
                "experiment_id": int(ids.open),
                "experiment_name": "open",
                "next_experiment": "x",
                "rows_digest": "",
                "files_digest": "",
            },
            "",
            frozenset(),
        ),
    )
    assert "RECORD" in await own.problems()
    assert (await own.register(ids.free, "late")).startswith(("TRAIL_BROKEN", "GUARDS_BROKEN"))


async def test_a_forged_seal_is_not_answered_as_a_registration(own: World) -> None:
    services, ids = own.services, own.ids
    digest = (await services.registry.register("new", run_id=ids.free, dry_run=True)).manifest_digest
    forge(
        own,
        Forgery(
            "seal",
            {
                "workspace": "default",
                "name": "new",
                "version": 7,
                "run_id": ids.free,
                "experiment_id": int(ids.open),
                "source": "/evil",
                "origin": "o",
                "manifest_digest": digest,
                "rows_digest": "d",
            },
            "",
            frozenset(),
        ),
    )
    assert (await own.register(ids.free, "new")).startswith("TRAIL_BROKEN")


async def test_who_hides_a_twin_behind_a_forged_legacy_row_is_found(own: World) -> None:
    forge(own, FORGERIES[0])
    use(own, "version")
    forge(own, FORGERIES[5])
    assert await own.problems("fm") == {"RECORD"}
    assert (await own.promote(version=3)).startswith("GATES_FAILED")
    assert (await own.promote(version=2)).startswith("GATES_FAILED")


# Guards taken away


def without(world: World, guard: str, change: str) -> None:
    """Take a guard away, change a row, put the guard back as it was."""
    if world.sqlite:
        table, operation = guard.rsplit(" ", 1)
        name = f"gov_guard_{table}_{operation.lower()}"
        [(text,)] = world.sql("SELECT sql FROM sqlite_master WHERE name = ?", name)
        world.sql(f"DROP TRIGGER {name}", owner=True)
        world.sql(change, owner=True)
        world.sql(text, owner=True)
        return
    table = guard.rsplit(" ", 1)[0].replace("gov_", "gov.", 1)
    world.sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL", owner=True)
    world.sql(change, owner=True)
    world.sql(f"ALTER TABLE {table} ENABLE TRIGGER ALL", owner=True)
    for name in ("gov_guard", "gov_guard_truncate", "gov_guard_trail"):
        if world.sql("SELECT 1 FROM pg_trigger WHERE tgrelid = ?::regclass AND tgname = ?", table, name, owner=True):
            world.sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}", owner=True)


CHANGES = {
    "a metric": ("metrics UPDATE", "UPDATE metrics SET value = 0.99 WHERE run_uuid = '{run}'", "ROWS"),
    "a param gone": ("params DELETE", "DELETE FROM params WHERE run_uuid = '{run}' AND key = 'C'", "ROWS"),
    "a run moved out": ("runs UPDATE", "UPDATE runs SET experiment_id = {open} WHERE run_uuid = '{second}'", "ROWS"),
    "a run moved in": ("runs UPDATE", "UPDATE runs SET experiment_id = {fraud} WHERE run_uuid = '{free}'", "ROWS"),
    "a tag added": ("tags INSERT", "INSERT INTO tags (key, value, run_uuid) VALUES ('a', 'b', '{run}')", "ROWS"),
    "an experiment renamed": ("experiments UPDATE", "UPDATE experiments SET name = 'x' WHERE experiment_id = {fraud}",
                              "ROWS"),
    "another source": ("model_versions UPDATE", "UPDATE model_versions SET source = '/evil' WHERE version = 2",
                       "SOURCE"),
    "a description": ("model_versions UPDATE", "UPDATE model_versions SET description = 'x' WHERE version = 2", "ROWS"),
    "a version's tag": ("model_version_tags UPDATE", "UPDATE model_version_tags SET value = 'x' WHERE version = 2",
                        "ROWS"),
    "a version gone": ("model_versions DELETE", "DELETE FROM model_versions WHERE name = 'fm' AND version = 1", "ROWS"),
    "an alias moved": ("registered_model_aliases UPDATE",
                       "UPDATE registered_model_aliases SET version = 2 WHERE name = 'fm'", "ALIAS"),
    "a stage moved": ("model_versions UPDATE",
                      "UPDATE model_versions SET current_stage = 'Production' WHERE version = 2", "STAGE"),
    "a record changed": ("gov_seal UPDATE", "UPDATE {gov_seal} SET source = '/evil' WHERE version = 2", "RECORD"),
    "a record gone": ("gov_seal DELETE", "DELETE FROM {gov_seal} WHERE version = 1", "RECORD"),
    "a retention shortened": ("gov_retention UPDATE", "UPDATE {gov_retention} SET until = 1", "RECORD"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("own", "change"),
    [
        *(("sqlite", each) for each in CHANGES),
        *(("postgresql", each) for each in CHANGES if each in ("a metric", "a run moved in", "a record gone")),
    ],
    indirect=["own"],
)
async def test_what_was_changed_while_a_guard_was_away_is_found_and_blocks_promotion(own: World, change: str) -> None:
    guard, statement, code = CHANGES[change]
    ids = own.ids
    names = {"run": ids.run, "second": ids.second, "free": ids.free, "fraud": ids.fraud, "open": ids.open}
    without(own, guard, statement.format(**names, gov_seal=own.gov("seal"), gov_retention=own.gov("retention")))
    found = await own.problems("fm")
    assert (code in found, "GUARD" in found) == (True, False)
    assert (await own.promote()).startswith("GATES_FAILED")


TAMPERED = {
    "sqlite": {
        "dropped": "DROP TRIGGER gov_guard_metrics_update",
        "emptied": "DELETE FROM gov_locked",
        "lock table renamed": "ALTER TABLE gov_experiment_lock RENAME TO gone",
        "unlocked table dropped": "DROP TABLE gov_locked",
        "another trigger": "CREATE TRIGGER mine AFTER INSERT ON runs BEGIN DELETE FROM params; END",
        "a new column": "ALTER TABLE runs ADD COLUMN mine TEXT",
        "a new table": "CREATE TABLE more (run_uuid TEXT, value REAL)",
    },
    "postgresql": {
        "dropped": "DROP TRIGGER gov_guard ON metrics",
        "disabled": "ALTER TABLE metrics DISABLE TRIGGER gov_guard",
        "not always": "ALTER TABLE metrics ENABLE TRIGGER gov_guard",
        "replaced": "CREATE OR REPLACE FUNCTION gov.guard_metrics() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RETURN NEW; END'",
        "as caller": "ALTER FUNCTION gov.guard_metrics() SECURITY INVOKER",
        "search path": "ALTER FUNCTION gov.guard_metrics() SET search_path = pg_temp",
        "a rule": "CREATE RULE mine AS ON DELETE TO params DO INSTEAD NOTHING",
        "another trigger": "CREATE TRIGGER mine BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION "
        "suppress_redundant_updates_trigger()",
        "a new column": "ALTER TABLE runs ADD COLUMN mine text",
        "a new table": "CREATE TABLE more (run_uuid text, value real)",
    },
}


@pytest.mark.parametrize(
    ("own", "how"),
    [(backend, how) for backend, ways in TAMPERED.items() for how in ways],
    indirect=["own"],
)
async def test_guards_that_are_not_as_they_belong_refuse_every_governed_act(own: World, how: str) -> None:
    if how == "emptied":
        own.sql("DROP TRIGGER gov_keep_delete", owner=True)
    own.sql(TAMPERED[own.backend][how], owner=True)
    before = locked_rows(own)
    refused = ("GUARDS_BROKEN", "STORE") if how == "lock table renamed" else ("GUARDS_BROKEN",)
    assert (await own.register(own.ids.free, "late")).startswith(refused)
    for act in (
        own.services.adoption.retain("fm", 1, hold=True, reason="r"),
        own.services.locks.unlock("fraud", "r"),
        own.services.trail.rotate(),
    ):
        with pytest.raises(IntelligentScanError) as caught:
            await act
        assert caught.value.code.startswith(refused)
    assert locked_rows(own) == before
    if how != "lock table renamed":
        assert "GUARD" in await own.problems("fm")
        assert (await own.services.adoption.check()).enforcement == "advisory"


async def test_adoption_puts_guards_back_and_the_trail_shows_it(own: World) -> None:
    administrator = own.services_with(own.owner)
    own.sql("DROP TRIGGER " + ("gov_guard_metrics_update" if own.sqlite else "gov_guard ON metrics"), owner=True)
    assert (await administrator.adoption.adopt()).repaired
    assert await own.problems() == set()
    assert "guards.restored" in [event.action for event in (await own.services.history.get(limit=5)).events]
    with pytest.raises(DBAPIError, match=LOCKED):
        own.sql(f"UPDATE metrics SET value = 0.99 WHERE run_uuid = '{own.ids.run}'")
