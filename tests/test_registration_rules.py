"""The rules of a registration: what keeps an experiment from being locked, how often it happens, what comes next."""

import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import child_work
import pytest
from conftest import Look, Trained, look_at, plain_mlflow
from reviewed import release

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    DefaultExperiment,
    ExperimentDeleted,
    GatesFailed,
    InvalidName,
    NotGoverned,
    NotPermitted,
    RunNotFound,
    StillRunning,
)
from intelligentscan.domain.names import MAX_NAME, next_experiment_name
from intelligentscan.domain.registry import RegisteredVersion
from intelligentscan.services.principal import real_user
from intelligentscan.services.registration import Registrar
from intelligentscan.services.registration_checks import ABANDONED_AFTER_MS

if TYPE_CHECKING:
    from mlflow import MlflowClient

DAY_AGO = ABANDONED_AFTER_MS + 60_000


@pytest.fixture
def services(trained: Trained) -> Services:
    return trained.services


@pytest.fixture
def look(trained: Trained) -> Callable[[], Look]:
    return lambda: look_at(trained.home)


# What keeps an experiment from being locked


@dataclass(frozen=True)
class Small:
    """An empty store, and runs with a model that is made of one file, in experiments of any name."""

    services: Services
    client: "MlflowClient"
    home: Path

    def run(self, experiment: str, content: str = "flavors: {}\n") -> str:
        """Log a finished run with a model, as older clients do; make the experiment if it is missing."""
        found = self.client.get_experiment_by_name(experiment)
        location = str(self.home / "artifacts" / str(abs(hash(experiment))))
        experiment_id = found.experiment_id if found else self.client.create_experiment(experiment, location)
        run_id = str(self.client.create_run(experiment_id).info.run_id)
        self.client.log_text(run_id, content, "model/MLmodel")
        self.client.set_terminated(run_id)
        return run_id

    async def register(self, experiment: str, name: str = "fm", **more: Any) -> RegisteredVersion:
        """Register a new run of an experiment."""
        return await self.services.registry.register(name, run_id=self.run(experiment), **more)

    async def following(self, experiment: str) -> str | None:
        """Return the name of the experiment that follows a locked one."""
        return (await self.register(experiment)).next_experiment

    def running(self, experiment: str, last_write: int, *, status: str = "RUNNING") -> str:
        """Begin a run that last wrote this many milliseconds ago."""
        now = int(time.time() * 1000)
        experiment_id = self.client.get_experiment_by_name(experiment).experiment_id
        run_id = str(self.client.create_run(experiment_id, start_time=now - last_write - 5_000).info.run_id)
        self.client.log_metric(run_id, "loss", 1.0, timestamp=now - last_write)
        if status != "RUNNING":
            self.client.update_run(run_id, status)
        return run_id


@pytest.fixture
def small(settings: Any, client: "MlflowClient", home: Path) -> Small:
    return Small(build(settings), client, home)


async def refused(error: type[Exception], call: Callable[[], Awaitable[object]], look: Callable[[], Look]) -> Any:
    """Check that a call is refused and leaves nothing but a note in the trail; return the error."""
    before = look()
    with pytest.raises(error) as caught:
        await call()
    assert caught.value.next  # type: ignore[attr-defined]
    assert look().beside_trail == before.beside_trail
    return caught.value


@pytest.mark.parametrize("dry_run", [True, False])
async def test_the_default_experiment_is_never_locked(small: Small, look: Callable[[], Look], dry_run: bool) -> None:
    run_id = small.run("Default")
    error = await refused(
        DefaultExperiment, lambda: small.services.registry.register("fm", run_id=run_id, dry_run=dry_run), look
    )
    assert "create_experiment" in error.next


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED"])
async def test_another_run_that_goes_on_refuses_the_lock_and_the_call_that_ends_it_is_named(
    small: Small, look: Callable[[], Look], status: str, dry_run: bool
) -> None:
    run_id = small.run("exp")
    other = small.running("exp", 0, status=status)
    error = await refused(
        StillRunning, lambda: small.services.registry.register("fm", run_id=run_id, dry_run=dry_run), look
    )
    assert f"log_run run_id='{other}' status='FINISHED'" in error.next
    assert "abandon" not in error.next
    assert error.details == {"running": [other]}
    await small.services.runs.log("exp", run_id=other, status="FINISHED")
    assert (await small.services.registry.register("fm", run_id=run_id)).experiment_locked


async def test_a_run_that_nobody_wrote_to_for_a_day_is_ended_only_when_that_is_asked_for(
    small: Small, look: Callable[[], Look]
) -> None:
    run_id = small.run("exp")
    old = small.running("exp", DAY_AGO)
    error = await refused(StillRunning, lambda: small.services.registry.register("fm", run_id=run_id), look)
    assert "abandon_running=true" in error.next
    shown = await small.services.registry.register("fm", run_id=run_id, abandon_running=True, dry_run=True)
    assert shown.status == "would_register"
    assert small.client.get_run(old).info.status == "RUNNING"
    made = await small.services.registry.register("fm", run_id=run_id, abandon_running=True)
    assert made.experiment_locked
    assert small.client.get_run(old).info.status == "KILLED"
    events = (await small.services.history.get(limit=50)).events
    assert [(e.run_id, e.on_behalf_of is not None) for e in events if e.action == "run.abandoned"] == [(old, True)]
    assert (await small.services.integrity.verify()).problems == []


async def test_a_run_that_somebody_wrote_to_today_is_never_ended_for_another(
    small: Small, look: Callable[[], Look]
) -> None:
    run_id = small.run("exp")
    old, fresh = small.running("exp", DAY_AGO), small.running("exp", ABANDONED_AFTER_MS - 60_000)
    error = await refused(
        StillRunning, lambda: small.services.registry.register("fm", run_id=run_id, abandon_running=True), look
    )
    assert fresh in error.next
    assert sorted(error.details["running"]) == sorted([old, fresh])
    assert small.client.get_run(old).info.status == "RUNNING"


async def test_more_old_runs_than_one_look_finds_are_all_ended(small: Small) -> None:
    run_id = small.run("exp")
    old = [small.running("exp", DAY_AGO) for _ in range(23)]
    made = await small.services.registry.register("fm", run_id=run_id, abandon_running=True)
    assert made.experiment_locked
    assert {small.client.get_run(each).info.status for each in old} == {"KILLED"}


async def test_runs_of_other_experiments_may_go_on(small: Small) -> None:
    small.run("other")
    small.running("other", 0)
    assert (await small.register("exp")).experiment_locked


async def test_a_run_of_a_deleted_experiment_is_refused(small: Small, look: Callable[[], Look]) -> None:
    run_id = small.run("exp")
    experiment_id = small.client.get_experiment_by_name("exp").experiment_id
    small.client.delete_experiment(experiment_id)
    call = lambda: small.services.registry.register("fm", run_id=run_id)  # noqa: E731
    await refused(RunNotFound, call, look)
    small.client.restore_run(run_id)
    assert "restore" in (await refused(ExperimentDeleted, call, look)).next
    small.client.restore_experiment(experiment_id)
    assert (await call()).version == 1


async def test_a_deleted_run_is_refused(small: Small, look: Callable[[], Look]) -> None:
    run_id = small.run("exp")
    small.client.delete_run(run_id)
    await refused(RunNotFound, lambda: small.services.registry.register("fm", run_id=run_id), look)


async def test_what_a_run_leaves_that_ends_while_another_is_registered_is_no_drift(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, other = small.run("exp"), small.running("exp", 0)
    sweep = Registrar._sweep

    async def meanwhile(registrar: Registrar) -> None:
        small.client.log_text(other, "late", "late.txt")
        small.client.set_terminated(other)
        await sweep(registrar)

    monkeypatch.setattr(Registrar, "_sweep", meanwhile)
    assert (await small.services.registry.register("fm", run_id=run_id)).experiment_locked
    assert (await small.services.integrity.verify()).problems == []
    small.client.log_text(other, "later", "late.txt")
    found = (await small.services.integrity.verify()).problems
    assert [(p.code, "late.txt" in (p.where or "")) for p in found] == [("FILES", True)]


async def test_an_experiment_that_is_unlocked_while_a_run_of_it_is_registered_is_locked_again(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = small.run("exp"), small.run("exp", "flavors: {a: 1}\n")
    await small.services.registry.register("fm", run_id=first)
    locked = Registrar._locked

    async def meanwhile(registrar: Registrar, experiment_id: str) -> bool:
        before = await locked(registrar, experiment_id)
        await small.services.locks.unlock("exp", "r")
        return before

    monkeypatch.setattr(Registrar, "_locked", meanwhile)
    made = await small.services.registry.register("fm", run_id=second)
    assert (made.version, made.experiment_locked) == (2, True)
    assert (await small.services.integrity.verify()).problems == []


# How often


async def test_a_repeated_registration_answers_alike_and_changes_nothing(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    first = await services.registry.register("fm", run_id=trained.with_model, description="why", product="p")
    before = look()
    again = await services.registry.register("fm", run_id=trained.with_model, description="other", tags={"t": "v"})
    would = await services.registry.register("fm", run_id=trained.with_model, dry_run=True)
    assert again == first.model_copy(update={"created": False, "product": again.product})
    assert (would.version, would.experiment_locked, would.next_experiment) == (1, True, "training-v2")
    assert look() == before


async def test_other_runs_other_models_and_other_names_of_a_locked_experiment_are_registered_under_one_lock(
    services: Services, trained: Trained
) -> None:
    made = [
        await services.registry.register("fm", run_id=trained.with_model),
        await services.registry.register("fm", run_id=trained.better),
        await services.registry.register("fm", run_id=trained.with_two, model_path="left"),
        await services.registry.register("fm", run_id=trained.with_two, model_path="right"),
        await services.registry.register("second", run_id=trained.with_model),
        await services.registry.register("second", run_id=trained.legacy),
    ]
    assert [(m.name, m.version, m.created) for m in made] == [
        ("fm", 1, True), ("fm", 2, True), ("fm", 3, True), ("fm", 4, True), ("second", 1, True), ("second", 2, True),
    ]  # fmt: skip
    assert {m.next_experiment for m in made} == {"training-v2"}
    events = (await services.history.get(limit=50)).events
    assert [e.action for e in events].count("experiment.locked") == 1
    assert (await services.integrity.verify()).problems == []
    assert (await services.registry.register("second", run_id=trained.with_model)).version == 1


def test_registrations_of_one_run_at_once_from_threads_make_one_version(trained: Trained) -> None:
    made: list[RegisteredVersion] = []
    failed: list[Exception] = []
    ready = threading.Barrier(4)

    def register() -> None:
        services = trained.services
        ready.wait()
        try:
            made.append(anyio.run(lambda: services.registry.register("fm", run_id=trained.with_model)))
        except Exception as exc:
            failed.append(exc)

    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert ({m.version for m in made}, [m.created for m in made].count(True)) == ({1}, 1)
    check_one_version(trained)


def test_registrations_of_one_run_at_once_from_processes_make_one_version(
    trained: Trained, children: ForkServerContext
) -> None:
    with ProcessPoolExecutor(2, mp_context=children) as pool:
        arguments = (str(trained.home), "fm", trained.with_model)
        made = [f.result() for f in [pool.submit(child_work.register, *arguments) for _ in range(4)]]
    assert sorted(made) == [(1, False), (1, False), (1, False), (1, True)]
    check_one_version(trained)


def check_one_version(trained: Trained) -> None:
    """Check that one run was registered once, and that everything is in order."""
    rows = look_at(trained.home).rows
    once = ("model_versions", "gov_seal", "gov_experiment_lock", "gov_ticket", "gov_ticket_close", "gov_governed_model")
    assert {table: rows[table] for table in once} == dict.fromkeys(once, 1)
    report = anyio.run(trained.services.integrity.verify)
    assert report.problems == []


def test_two_runs_of_one_experiment_registered_at_once_from_processes_make_two_versions(
    trained: Trained, children: ForkServerContext
) -> None:
    with ProcessPoolExecutor(2, mp_context=children) as pool:
        runs = (trained.with_model, trained.better)
        made = [f.result() for f in [pool.submit(child_work.register, str(trained.home), "fm", run) for run in runs]]
    assert sorted(made) == [(1, True), (2, True)]
    assert look_at(trained.home).rows["gov_experiment_lock"] == 1


# Names under which something is already


async def test_a_plain_version_of_the_same_run_stays_a_legacy_one_and_a_sealed_one_is_made(
    services: Services, trained: Trained
) -> None:
    import mlflow

    client = trained.client
    (model,) = (m for m in models_of(trained) if m.source_run_id == trained.with_model)
    with plain_mlflow(trained.settings.store_uri):
        mlflow.register_model(model.model_uri, "fm")
        mlflow.register_model(f"runs:/{trained.legacy}/classifier", "fm")
    client.transition_model_version_stage("fm", "1", "Production")
    client.set_registered_model_alias("fm", "champion", "1")
    client.set_registered_model_alias("fm", "mine", "2")
    with pytest.raises(NotGoverned) as plain:
        await services.registry.promote("fm", 2, "Staging")
    assert "intelligentscan adopt fm" in plain.value.next
    assert "register_model" in plain.value.next
    made = await services.registry.register("fm", run_id=trained.with_model)
    assert (made.version, made.created) == (3, True)
    found = (await services.registry.get("fm")).versions
    assert [(v.version, v.state, v.review, v.stage, v.aliases) for v in found] == [
        (3, "sealed", None, "None", []),
        (2, "legacy", "legacy, unreviewed", "None", ["mine"]),
        (1, "legacy", "legacy, unreviewed", "Production", ["champion"]),
    ]
    live = (await services.history.get(name="fm")).live["Production"]
    assert [(v.name, v.version) for v in live] == [("fm", 1)]
    done = await release(services, "fm", 3, reason="sealed")
    assert done.previous_version == 1
    with pytest.raises(GatesFailed) as back:
        await services.registry.promote("fm", 1, "Production", reason="back")
    assert "legacy, unreviewed" in back.value.next
    assert "register_model name='fm'" in back.value.next
    would = await services.registry.promote("fm", 2, "Production", reason="r", dry_run=True)
    assert (would.status, [g.gate for g in would.gates if g.outcome == "fail"]) == (
        "would_refuse",
        ["sealed", "reviewed"],
    )
    assert (await services.registry.promote("fm", 2, "Staging")).aliases == ["challenger", "mine"]
    assert {p.code for p in (await services.integrity.verify("fm")).problems} <= {"LEGACY"}


def models_of(trained: Trained) -> list[Any]:
    """Return the models that were logged in the experiment."""
    return list(trained.client.search_logged_models([trained.experiment.experiment_id]))


async def test_a_number_that_plain_mlflow_has_given_is_not_given_again(services: Services, trained: Trained) -> None:
    import mlflow

    with plain_mlflow(trained.settings.store_uri):
        for _ in range(3):
            mlflow.register_model(f"runs:/{trained.legacy}/classifier", "fm")
    for version in ("2", "3"):
        trained.client.delete_model_version("fm", version)
    would = await services.registry.register("fm", run_id=trained.with_model, dry_run=True)
    made = await services.registry.register("fm", run_id=trained.with_model)
    assert (would.version, made.version, made.created) == (4, 4, True)
    assert [v.version for v in (await services.registry.get("fm")).versions] == [4, 1]
    assert (await services.integrity.verify("fm")).problems == []


async def test_the_name_of_a_prompt_is_refused(services: Services, trained: Trained, look: Callable[[], Look]) -> None:
    from mlflow.entities.model_registry import RegisteredModelTag

    registry = trained.client._get_registry_client().store
    registry.create_registered_model("fm", [RegisteredModelTag("mlflow.prompt.is_prompt", "true")])
    for dry_run in (True, False):
        error = await refused(
            InvalidName, lambda d=dry_run: services.registry.register("fm", run_id=trained.with_model, dry_run=d), look
        )
        assert "prompt" in error.message
    assert (await services.registry.register("other", run_id=trained.with_model)).version == 1


async def test_a_plain_registration_under_a_governed_name_is_refused(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    await services.registry.register("fm", run_id=trained.with_model)
    before = look()
    # MLflow tries again after any error of SQLite's that reads like a race, and then says so in words of its own.
    with plain_mlflow(trained.settings.store_uri), pytest.raises(MlflowException, match=r"name=fm.*Giving up"):
        mlflow.register_model(f"runs:/{trained.legacy}/classifier", "fm")
    assert look() == before


# What comes next


@pytest.mark.parametrize(
    ("name", "following"),
    [
        ("fraud", "fraud-v2"),
        ("fraud-v2", "fraud-v3"),
        ("fraud-v9", "fraud-v10"),
        ("fraud-v0", "fraud-v0-v2"),
        ("fraud-v02", "fraud-v02-v2"),
        ("fraud-V2", "fraud-V2-v2"),
        ("v2", "v2-v2"),
        ("-v2", "-v2-v2"),
        ("fraud-v999999", "fraud-v1000000"),
        ("fraud-v1000000", "fraud-v1000000-v2"),
        ("x" * 247, "x" * 247 + "-v2"),
        ("x" * 248, "x" * 247 + "-v2"),
        ("x" * 250, "x" * 247 + "-v2"),
        ("x" * 247 + "-v9", "x" * 246 + "-v10"),
        ("x" * 400, "x" * 247 + "-v2"),
    ],
)
def test_the_name_of_the_next_experiment_counts_up_and_stays_a_name(name: str, following: str) -> None:
    assert next_experiment_name(name) == following
    assert len(following) <= MAX_NAME


async def test_names_that_are_taken_deleted_or_locked_are_passed_over(small: Small) -> None:
    small.run("taken-v2")
    assert await small.following("taken") == "taken-v3"
    small.run("gone-v2")
    small.client.delete_experiment(small.client.get_experiment_by_name("gone-v2").experiment_id)
    assert await small.following("gone") == "gone-v3"
    assert await small.following("chain-v2") == "chain-v3"
    assert await small.following("chain") == "chain-v3"
    small.run("o'b%_-v2")
    assert await small.following("o'b%_") == "o'b%_-v3"


async def test_a_chain_goes_on_and_an_earlier_experiment_names_where_it_stands_now(small: Small) -> None:
    assert await small.following("fraud") == "fraud-v2"
    assert await small.following("fraud-v2") == "fraud-v3"
    assert await small.following("fraud-v3") == "fraud-v4"
    first = await small.services.experiments.create("fraud")
    assert (first.locked, first.next_experiment, first.created) == (True, "fraud-v4", False)
    found = (await small.services.experiments.search(query="fraud")).experiments
    assert {e.name: (e.locked, e.next_experiment) for e in found} == {
        f"fraud{suffix}": (True, "fraud-v4") for suffix in ("", "-v2", "-v3")
    }
    assert (await small.services.experiments.create("fraud-v4")).locked is False


@pytest.mark.parametrize("length", [247, 250, 400])
async def test_long_names_have_a_next_experiment_that_can_be_made_and_used(small: Small, length: int) -> None:
    name = "x" * length
    following = await small.following(name)
    assert following == "x" * 247 + "-v2"
    made = await small.services.experiments.create(following)
    assert (made.created, made.locked) == (True, False)
    assert await small.following(following) == "x" * 247 + "-v3"
    (again,) = (await small.services.experiments.search(query="x" * 248)).experiments if length > 247 else (None,)
    assert again is None or again.next_experiment == "x" * 247 + "-v3"


async def test_a_dry_run_is_refused_to_whom_the_registration_would_be_and_says_the_product(small: Small) -> None:
    run_id = small.run("exp")
    people, registry = small.services.people, small.services.registry
    assert (await registry.register("fm", run_id=run_id, product="cards", dry_run=True)).product == "cards"
    await people.grant("administrator", real_user())
    for dry_run in (True, False):
        with pytest.raises(NotPermitted, match="is not owner or developer of the product 'cards'"):
            await registry.register("fm", run_id=run_id, product="cards", dry_run=dry_run)
