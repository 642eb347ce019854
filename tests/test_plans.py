"""Plans: bound to person, call and state, approved by a person elsewhere, used once, and only as events say."""

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, child
from conftest import Look, Trained, plain_mlflow
from plan_work import (
    MOVE,
    ask,
    last_event,
    planned,
    promote,
    promote_and_die,
    stages,
    told,
    use_up,
)
from postgres_server import Postgres

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import IntelligentScanError, PlanInvalid, Refused, TrailBroken
from intelligentscan.domain.plan import Plan
from intelligentscan.services import plans
from intelligentscan.settings import Settings

UNKNOWN = "0" * 32


@pytest.fixture
async def services(registered: Trained) -> Services:
    """Services on a store with versions 1 and 2 of `fm`, under a policy by which agents wait for a person."""
    services = registered.services
    await ask(services, "required")
    return services


async def refused(services: Services, plan_id: str, **changed: Any) -> IntelligentScanError:
    """Return the refusal of a move with a plan; it says what to do next, and the plan was not used."""
    before = await told(services)
    with pytest.raises(PlanInvalid) as caught:
        await services.registry.promote(**{**MOVE, **changed}, confirm=plan_id)
    assert caught.value.next
    assert "plan.used" not in (await told(services))[len(before) :]
    return caught.value


# What a plan is


async def test_the_same_call_meets_the_same_plan_and_any_other_call_another_one(services: Services) -> None:
    first = await planned(services)
    assert (first.status, first.tool, first.how) == ("open", "promote", None)
    assert first.will == ["Version 1 of the model 'fm' goes to Production."]
    assert await planned(services) == first
    assert await planned(services, to="champion") == first
    others = [await planned(services, reason="another"), await planned(services, version=2)]
    assert len({first.plan_id, *(p.plan_id for p in others)}) == 3
    listed = (await services.plans.list()).plans
    assert [p.plan_id for p in listed] == [others[1].plan_id, others[0].plan_id, first.plan_id]


async def test_arguments_that_are_not_given_and_tags_in_another_order_make_no_other_plan(
    services: Services, registered: Trained
) -> None:
    preview = await services.registry.register("other", run_id=registered.with_two, model_path="left", dry_run=True)
    given: dict[str, Any] = {"name": "other", "run_id": registered.with_two, "model_path": "left"}
    written = [
        {**given, "tags": {"a": "1", "b": "true"}},
        {**given, "tags": {"b": "true", "a": 1}, "description": None, "abandon_running": False, "product": ""},
    ]
    made = {(await services.plans.propose("register_model", each, preview)).plan_id for each in written}
    assert len(made) == 1
    other = await services.plans.propose("register_model", {**given, "tags": {"a": "2", "b": "true"}}, preview)
    assert other.plan_id not in made
    assert other.will[0].startswith("Version 1 of the model 'other' is made from models:/m-")
    assert registered.with_two in other.will[0]


async def test_a_plan_says_what_leaves_production_and_which_experiment_is_locked(
    services: Services, registered: Trained
) -> None:
    await services.registry.promote("fm", 2, "Production", reason="first")
    assert (await planned(services)).will[1] == (
        "Version 2, which is there now, is archived and gets the alias 'previous'."
    )
    experiment = registered.client.get_run(registered.legacy).info.experiment_id
    preview = await services.registry.register("other", run_id=registered.legacy, dry_run=True)
    plan = await services.plans.propose("register_model", {"name": "other", "run_id": registered.legacy}, preview)
    assert preview.experiment_locked == (len(plan.will) == 1)
    assert all(experiment in line for line in plan.will[1:])


async def test_no_more_than_fifty_plans_of_somebody_wait(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plans.MAX_OPEN == 50
    monkeypatch.setattr(plans, "MAX_OPEN", 3)
    waiting = [await planned(services, reason=f"reason {i}") for i in range(3)]
    with pytest.raises(Refused, match="3 plans wait"):
        await planned(services, reason="one more")
    assert await planned(services, reason="reason 1") == waiting[1]
    await services.plans.decline(waiting[0].plan_id)
    assert (await planned(services, reason="one more")).status == "open"


# Approved, declined, used


async def test_an_approved_plan_is_used_once_in_the_act_itself(services: Services) -> None:
    before = await last_event(services)
    plan = await planned(services)
    assert (await refused(services, plan.plan_id)).details["status"] == "open"
    approved = await services.plans.approve(plan.plan_id[:6])
    assert (approved.status, approved.how) == ("approved", "command line")
    assert await services.plans.approve(plan.plan_id) == approved
    moved = await services.registry.promote(**MOVE, confirm=plan.plan_id)
    assert (moved.status, moved.changed) == ("promoted", True)
    assert await told(services, before) == [
        "plan.made", "act.denied", "plan.approved", "plan.used", "version.promoted",
    ]  # fmt: skip
    event = (await services.history.get(name="fm", version=1)).events[0]
    assert (event.facts["plan"], event.facts["confirmed_by"]) == (plan.plan_id, "command line")
    used = await services.plans.show(plan.plan_id)
    assert (used.status, used.how) == ("used", "command line")
    again = await services.registry.promote(**MOVE, confirm=plan.plan_id)
    assert (again.status, again.changed) == ("promoted", False)
    assert (await services.integrity.verify()).ok


async def test_a_yes_does_not_outlive_a_rollback(services: Services) -> None:
    plan = await planned(services)
    await services.plans.approve(plan.plan_id)
    await services.registry.promote(**MOVE, confirm=plan.plan_id)
    unused = await planned(services, version=2)
    await services.plans.approve(unused.plan_id)
    await services.registry.promote("fm", 2, "Production", reason="a person's own act")
    await services.registry.promote("fm", 1, "Production", reason="back")
    assert (await refused(services, unused.plan_id, version=2)).details["status"] == "stale"
    await services.registry.promote("fm", 1, "Archived")
    assert (await refused(services, plan.plan_id)).details["status"] == "used"
    assert await stages(services) == {1: "Archived", 2: "Archived"}
    fresh = await planned(services)
    assert fresh.plan_id != plan.plan_id
    assert fresh.status == "open"


async def moved_and_back(services: Services) -> None:
    await services.registry.promote("fm", 2, "Staging")
    await services.registry.promote("fm", 2, "Archived")


async def other_policy(services: Services) -> None:
    await ask(services, "asked")


STALE: dict[str, Callable[[Services], Any]] = {
    "another version was moved, there and away": moved_and_back,
    "another policy decides": other_policy,
}


async def test_a_yes_is_stale_once_anything_about_the_model_has_moved(services: Services) -> None:
    for case, happens in STALE.items():
        plan = await planned(services)
        await services.plans.approve(plan.plan_id)
        await happens(services)
        assert (await refused(services, plan.plan_id)).details["status"] == "stale", case
        with pytest.raises(PlanInvalid):
            await services.plans.approve(plan.plan_id)
        assert (await planned(services)).plan_id != plan.plan_id, case
    assert await stages(services) == {1: "None", 2: "Archived"}


async def test_a_plan_for_other_arguments_is_refused(services: Services) -> None:
    plan = await planned(services)
    await services.plans.approve(plan.plan_id)
    for changed in ({"version": 2}, {"reason": "another reason"}, {"to": "Staging"}):
        assert "for another call" in (await refused(services, plan.plan_id, **changed)).message, changed
    with pytest.raises(PlanInvalid):
        await services.registry.register("fm", run_id=UNKNOWN, confirm=plan.plan_id)
    assert (await services.plans.show(plan.plan_id)).status == "approved"


async def test_a_declined_plan_allows_nothing_not_even_one_that_was_approved_before(services: Services) -> None:
    plan = await planned(services)
    await services.plans.approve(plan.plan_id)
    declined = await services.plans.decline(plan.plan_id)
    assert declined.status == "declined"
    assert await services.plans.decline(plan.plan_id) == declined
    assert (await refused(services, plan.plan_id)).details["status"] == "declined"
    with pytest.raises(PlanInvalid):
        await services.plans.approve(plan.plan_id)


async def test_an_expired_plan_allows_nothing(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "VALID_MS", -1)
    plan = await planned(services)
    assert plan.status == "expired"
    with pytest.raises(PlanInvalid, match="expired"):
        await services.plans.approve(plan.plan_id)
    assert (await refused(services, plan.plan_id)).details["status"] == "expired"


async def test_a_plan_is_its_own_persons_alone(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = await planned(services)
    await services.plans.approve(plan.plan_id)
    monkeypatch.setattr(os, "getuid", lambda: 65_534)
    for answer in (services.plans.approve, services.plans.decline, services.plans.unanswered):
        with pytest.raises(PlanInvalid, match="another person"):
            await answer(plan.plan_id)
    assert "another person" in (await refused(services, plan.plan_id)).message
    assert (await services.plans.show(plan.plan_id)).status == "approved"
    assert (await planned(services)).plan_id != plan.plan_id


async def test_an_id_that_is_no_plans_is_refused_without_a_trace(
    services: Services, registered: Trained, look: Callable[[], Look]
) -> None:
    await planned(services)
    before = look()
    ids = (
        "",
        "x",
        "abc",
        UNKNOWN,
        UNKNOWN.upper(),
        "' OR 1=1 --",
        "\x00",
        "\ud800",
        "%" * 32,
        "../plan",
        "9" * 5_000_000,
    )
    for plan_id in ids:
        for call in (
            services.registry.promote(**MOVE, confirm=plan_id),
            services.registry.register("fm", run_id=registered.with_two, confirm=plan_id),
            services.plans.show(plan_id),
            services.plans.approve(plan_id),
            services.plans.decline(plan_id),
        ):
            with pytest.raises(PlanInvalid) as caught:
                await call
            assert len(str(caught.value)) < 300
    assert look() == before


# Rows past the trail


def raw(home: Path, statement: str, *values: object) -> None:
    """Write past the trail and the guards, as the owner of the file can."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger' AND name LIKE 'gov%'"):
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute(statement, values)


STEP = """INSERT INTO gov_plan_step
SELECT event, plan_id, 'approved', person, 'command line' FROM gov_plan WHERE plan_id = ?"""


async def test_an_approval_that_somebody_wrote_into_the_table_counts_for_nothing(
    services: Services, registered: Trained
) -> None:
    plan = await planned(services)
    raw(registered.home, STEP, plan.plan_id)
    await services.adoption.adopt()
    assert (await services.plans.show(plan.plan_id)).status == "stale"
    assert (await refused(services, plan.plan_id)).details["status"] == "stale"
    with pytest.raises((PlanInvalid, TrailBroken)):
        await services.plans.approve(plan.plan_id)
    assert not (await services.integrity.verify()).ok
    assert await stages(services) == {1: "None", 2: "None"}


async def test_a_plan_whose_use_was_wiped_from_the_table_is_used_all_the_same(
    services: Services, registered: Trained
) -> None:
    plan = await planned(services)
    await services.plans.approve(plan.plan_id)
    archive = str(registered.settings.archive_folder)
    assert use_up(str(registered.home), archive, plan.plan_id) == "done"
    raw(registered.home, "DELETE FROM gov_plan_step WHERE plan_id = ? AND step = 'used'", plan.plan_id)
    await services.adoption.adopt()
    assert (await services.plans.show(plan.plan_id)).status == "used"
    assert use_up(str(registered.home), archive, plan.plan_id) == "used"


# Several processes


async def test_of_two_processes_with_one_plan_one_does_the_act(
    services: Services, registered: Trained, children: ForkServerContext
) -> None:
    before = await last_event(services)
    place = (str(registered.home), str(registered.settings.archive_folder))
    with ProcessPoolExecutor(2, mp_context=children) as pool:
        plan = await planned(services, reason=MOVE["reason"])
        await services.plans.approve(plan.plan_id)
        used = [f.result(60) for f in [pool.submit(use_up, *place, plan.plan_id) for _ in range(2)]]
        assert sorted(used) == ["done", "used"]
        again = await planned(services)
        await services.plans.approve(again.plan_id)
        asked = [pool.submit(promote, *place, again.plan_id) for _ in range(2)]
        outcomes = [_outcome(future.result, 60) for future in asked]
    assert outcomes.count(True) == 1
    assert {o for o in outcomes if o is not True} <= {False, "PLAN_INVALID"}
    assert (await told(services, before)).count("version.promoted") == 1


def _outcome(call: Callable[[float], bool], patience: float) -> bool | str:
    try:
        return call(patience)
    except IntelligentScanError as refusal:
        return refusal.code


async def test_a_process_killed_between_approval_and_use_leaves_the_plan_for_the_next_one(
    services: Services, registered: Trained, children: ForkServerContext
) -> None:
    plan = await planned(services)
    approved = child(["plan", "approve", plan.plan_id, "--json"], home=registered.home)
    assert (approved.code, approved.json["status"], approved.json["how"]) == (0, "approved", "command line")
    place = (str(registered.home), str(registered.settings.archive_folder))
    with ProcessPoolExecutor(1, mp_context=children) as pool, pytest.raises(BrokenProcessPool):
        pool.submit(promote_and_die, *place, plan.plan_id, "INSERT INTO gov_stage").result(60)
    assert (await services.plans.show(plan.plan_id)).status == "approved"
    assert await stages(services) == {1: "None", 2: "None"}
    assert (await services.registry.promote(**MOVE, confirm=plan.plan_id)).changed
    assert (await services.plans.show(plan.plan_id)).status == "used"


async def test_on_postgresql_a_registration_waits_for_its_plan_too(
    postgres: Postgres, database: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient, sklearn
    from sklearn.linear_model import LogisticRegression

    settings = Settings(home=tmp_path / "home", tracking_uri=postgres.uri(database))
    settings.home.mkdir()
    services = build(settings)
    await services.adoption.adopt()
    await ask(services, "required")
    client = MlflowClient(tracking_uri=settings.store_uri)
    experiment = client.create_experiment("waiting", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    with plain_mlflow(settings.store_uri):
        import mlflow

        with mlflow.start_run(run_id=run_id):
            sklearn.log_model(
                LogisticRegression().fit([[0.0], [1.0]], [0, 1]), name="model", pip_requirements=["scikit-learn"]
            )
    given = {"name": "fm", "run_id": run_id}
    preview = await services.registry.register("fm", run_id=run_id, dry_run=True)
    plan = await services.plans.propose("register_model", given, preview)
    assert plan.will[1] == f"The experiment {experiment} is locked: nobody can write to it any more."
    with pytest.raises(PlanInvalid):
        await services.registry.register("fm", run_id=run_id, confirm=plan.plan_id)
    await services.plans.approve(plan.plan_id)
    with pytest.raises(PlanInvalid):
        await services.registry.register("fm", run_id=run_id, description="other", confirm=plan.plan_id)
    made = await services.registry.register("fm", run_id=run_id, confirm=plan.plan_id)
    assert (made.version, made.created) == (1, True)
    assert (await services.plans.show(plan.plan_id)).status == "used"
    again = await services.registry.register("fm", run_id=run_id, confirm=plan.plan_id)
    assert (again.version, again.created) == (1, False)


async def test_a_plan_to_register_is_stale_once_run_experiment_or_name_have_moved(
    services: Services, registered: Trained
) -> None:
    given = {"name": "other", "run_id": registered.legacy}
    preview = await services.registry.register("other", run_id=registered.legacy, dry_run=True)
    plan = await services.plans.propose("register_model", given, preview)
    await services.plans.approve(plan.plan_id)
    registered.client.create_registered_model("other")
    registered.client.create_model_version("other", "/somewhere", run_id=registered.legacy)
    with pytest.raises(PlanInvalid, match="stale"):
        await services.registry.register("other", run_id=registered.legacy, confirm=plan.plan_id)


# The command line


@pytest.fixture
def command(registered: Trained, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(registered.home))
    monkeypatch.setenv("INTELLIGENTSCAN_ARCHIVE", str(registered.settings.archive_folder))
    monkeypatch.chdir(registered.home.parent)
    return CommandLine(registered.home)


def test_a_person_lists_shows_approves_and_declines_at_the_command_line(
    registered: Trained, command: CommandLine
) -> None:
    import anyio

    assert "no agent has asked" in command("plan", "list").out
    services = registered.services
    anyio.run(ask, services, "required")
    first: Plan = anyio.run(planned, services)
    other: Plan = anyio.run(lambda: planned(services, reason="another"))
    listed = command.json("plan", "list")["plans"]
    assert [p["plan_id"] for p in listed] == [other.plan_id, first.plan_id]
    assert Plan.model_validate(command.json("plan", "show", first.plan_id[:8])) == first
    table = command("plan", "list")
    assert (table.code, "Version 1 of the model 'fm' goes to Production." in table.out) == (0, True)
    approved = command("plan", "approve", first.plan_id)
    assert f"plan {first.plan_id} approved" in approved.out
    assert f"confirm='{first.plan_id}'" in approved.err
    assert "declined" in command("plan", "decline", other.plan_id).out
    assert "the agent calls promote again with the same arguments" in approved.err
    declined = command("plan", "approve", other.plan_id)
    assert "the agent's call of promote without confirm makes a new plan" in declined.err
    assert command.json("plan", "approve", other.plan_id, code=2)["code"] == "PLAN_INVALID"
    assert command.json("plan", "show", "abc", code=2)["code"] == "PLAN_INVALID"
    shown = command("plan", "show", other.plan_id).out
    assert "at the command line" in shown
    assert "another" not in shown
