"""Work goes on beside a locked experiment: what is refused, where scans go by themselves, and how a lock is lifted."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import child_work
import pytest
from conftest import Look, plain_mlflow
from reviewed import release

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    ExperimentLocked,
    IdempotencyConflict,
    InvalidArgument,
    Refused,
    RunNotFound,
)
from intelligentscan.domain.registry import RegisteredVersion
from intelligentscan.domain.scan import ScanRun
from intelligentscan.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

WEAK = "import subprocess\n\n\ndef run(command):\n    return subprocess.run(command, shell=True)\n"
FINDINGS = [{"rule": rule, "severity": "high", "path": "a.py", "line": 3, "message": rule} for rule in ("X1", "X2")]


async def lock(services: Services, client: "MlflowClient", experiment: str, name: str = "fm") -> RegisteredVersion:
    """Register a small model from a new run of an experiment, which is made if it is missing."""
    made = await services.experiments.create(experiment)
    run_id = str(client.create_run(made.experiment_id).info.run_id)
    client.log_text(run_id, "flavors: {}\n", "model/MLmodel")
    client.set_terminated(run_id)
    return await services.registry.register(name, run_id=run_id)


@pytest.fixture
def repo(project: Path) -> Path:
    """A small folder with a weakness."""
    folder = project / "repo"
    folder.mkdir()
    (folder / "weak.py").write_text(WEAK)
    return folder


# What is refused


async def test_a_run_for_a_locked_experiment_is_refused_and_the_next_one_is_named(
    services: Services, client: "MlflowClient", look: Callable[[], Look]
) -> None:
    await services.experiments.create("exp")
    first = await services.runs.log("exp", params={"a": 1}, idempotency_key="k")
    await lock(services, client, "exp")
    before = look()
    for given in ({"params": {"a": 1}}, {"run_id": first.run_id, "metrics": {"late": 1}}, {"idempotency_key": "new"}):
        with pytest.raises(ExperimentLocked) as caught:
            await services.runs.log("exp", **given)  # type: ignore[arg-type]
        assert caught.value.details["next_experiment"] == "exp-v2"
        assert "experiment='exp-v2'" in caught.value.next
    assert look().beside_trail == before.beside_trail
    again = await services.runs.log("exp", params={"a": 1}, idempotency_key="k")
    assert (again.run_id, again.created) == (first.run_id, False)
    assert (await services.experiments.create("exp-v2")).created
    assert (await services.runs.log("exp-v2", params={"a": 1})).created


async def test_a_plain_client_is_refused_in_the_locked_experiment_and_goes_on_in_the_next(
    services: Services, client: "MlflowClient", settings: Settings, look: Callable[[], Look]
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    made = await lock(services, client, "exp")
    before = look()
    with plain_mlflow(settings.store_uri):
        mlflow.set_experiment("exp")
        with pytest.raises(MlflowException, match=r"EXPERIMENT_LOCKED: .* continue in 'exp-v2'"):
            mlflow.start_run()
        for act in (
            lambda: client.log_metric(made.source_run_id, "late", 1.0),
            lambda: client.log_param(made.source_run_id, "late", "1"),
            lambda: client.set_tag(made.source_run_id, "late", "1"),
            lambda: client.set_terminated(made.source_run_id, "FAILED"),
            lambda: client.delete_run(made.source_run_id),
            lambda: client.rename_experiment("1", "other"),
            lambda: client.delete_experiment("1"),
        ):
            with pytest.raises(MlflowException):
                act()
        assert look() == before
        mlflow.set_experiment("exp-v2")
        with mlflow.start_run():
            mlflow.log_metric("m", 1.0)


# Scans go on


async def test_an_import_goes_on_in_the_next_experiment_and_says_so(services: Services, client: "MlflowClient") -> None:
    await services.experiments.create("imports")
    first = await services.scans.log("imports", findings=FINDINGS, scanner="mine", idempotency_key="k")
    await lock(services, client, "imports")

    same = await services.scans.log("imports", findings=FINDINGS, scanner="mine", idempotency_key="k")
    assert (same.run_id, same.created) == (first.run_id, False)
    with pytest.raises(IdempotencyConflict):
        await services.scans.log("imports", findings=[], scanner="mine", idempotency_key="k")

    second = await services.scans.log("imports", findings=FINDINGS[:1], scanner="mine", idempotency_key="k2")
    assert (second.experiment, second.created) == ("imports-v2", True)
    assert [w for w in second.warnings if "'imports' is locked" in w]
    assert second.baseline_run_id == first.run_id
    assert (second.new, second.fixed, second.persisting) == (0, 1, 1)
    named = await services.scans.log("imports-v2", findings=FINDINGS[:1], scanner="mine", idempotency_key="k2")
    assert named.run_id == second.run_id


async def test_baselines_and_keys_are_found_along_the_whole_chain(services: Services, client: "MlflowClient") -> None:
    await services.experiments.create("imports")
    first = await services.scans.log("imports", findings=FINDINGS, scanner="mine", idempotency_key="k")
    await lock(services, client, "imports")
    await lock(services, client, "imports-v2", "second")

    third = await services.scans.log("imports", findings=[], scanner="mine", baseline="latest")
    assert (third.experiment, third.baseline_run_id, third.fixed) == ("imports-v3", first.run_id, 2)
    assert [w for w in third.warnings if "locked" in w]
    assert (await services.scans.log("imports", findings=FINDINGS, scanner="mine", idempotency_key="k")).run_id == (
        first.run_id
    )
    newest = await services.scans.log("imports", findings=FINDINGS, scanner="mine")
    assert newest.baseline_run_id == third.run_id
    with pytest.raises(RunNotFound):
        await services.scans.log("imports", findings=[], scanner="another", baseline="latest")
    named = await services.scans.log("imports", findings=[], scanner="mine", baseline=first.run_id)
    assert (named.experiment, named.baseline_run_id) == ("imports-v3", first.run_id)


async def test_a_scan_goes_on_in_the_next_experiment_with_its_baseline(
    services: Services, client: "MlflowClient", repo: Path
) -> None:
    first = await services.scans.scan(str(repo), engines=["ruff"], idempotency_key="k")
    await lock(services, client, "vulnerability_scanning")
    again = await services.scans.scan(str(repo), engines=["ruff"], idempotency_key="k")
    second = await services.scans.scan(str(repo), engines=["ruff"])
    assert (again.run_id, again.created) == (first.run_id, False)
    assert (second.experiment, second.baseline_run_id) == ("vulnerability_scanning-v2", first.run_id)
    assert (second.new, second.fixed, second.persisting) == (0, 0, first.vulnerabilities_found)
    assert [w for w in second.warnings if "'vulnerability_scanning' is locked" in w]
    shown = await services.scans.scan(str(repo), engines=["ruff"], idempotency_key="k2")
    assert (await services.scans.scan(str(repo), engines=["ruff"], idempotency_key="k2")).warnings == shown.warnings
    compared = await services.comparisons.compare(run_ids=[first.run_id, second.run_id])
    assert compared.findings is not None


async def test_a_scan_whose_experiment_is_locked_meanwhile_is_logged_in_the_next(
    services: Services, client: "MlflowClient", repo: Path
) -> None:
    await services.experiments.create("exp")
    locked: list[RegisteredVersion] = []

    async def lock_it(share: float, text: str) -> None:
        if not locked:
            locked.append(await lock(services, client, "exp"))

    scan = await services.scans.scan(
        str(repo), experiment="exp", engines=["ruff"], idempotency_key="k", progress=lock_it
    )
    assert locked[0].next_experiment == "exp-v2"
    assert (scan.experiment, scan.created) == ("exp-v2", True)
    assert [w for w in scan.warnings if "'exp' is locked" in w]
    again = await services.scans.scan(str(repo), experiment="exp", engines=["ruff"], idempotency_key="k")
    assert (again.run_id, again.created) == (scan.run_id, False)


async def test_scans_at_once_into_a_locked_experiment_make_one_next_experiment_and_one_run_per_key(
    services: Services, settings: Settings, client: "MlflowClient"
) -> None:
    await lock(services, client, "imports")
    made: list[ScanRun] = []

    async def log(through: Services, key: str) -> None:
        made.append(await through.scans.log("imports", findings=FINDINGS, scanner="mine", idempotency_key=key))

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(log, (services, build(settings))[number % 2], f"k{number // 2}")
    assert {m.experiment for m in made} == {"imports-v2"}
    assert len({m.run_id for m in made}) == 3
    assert [m.created for m in made].count(True) == 3


async def test_a_baseline_of_no_scan_leaves_no_next_experiment_behind(
    services: Services, client: "MlflowClient", look: Callable[[], Look]
) -> None:
    await lock(services, client, "imports")
    before = look()
    with pytest.raises(RunNotFound):
        await services.scans.log("imports", findings=[], baseline="latest")
    assert look() == before


# Scan configurations


def config(rule: str) -> str:
    """Return a scanning configuration named 'mine' of one engine and rule."""
    return f"name: mine\nschema_version: 1\nengines:\n  ruff:\n    select: [{rule}]\n"


async def scanned_with(services: Services, repo: Path, text: str) -> str:
    """Scan with a configuration, and return the run."""
    (repo.parent / "config.yaml").write_text(text)
    return (await services.scans.scan(str(repo), config=str(repo.parent / "config.yaml"))).run_id


async def test_a_scan_configuration_is_registered_once_and_its_variations_go_on_in_the_next_experiment(
    services: Services, client: "MlflowClient", repo: Path
) -> None:
    wide, narrow = config("S"), config("S602")
    scans = [await scanned_with(services, repo, text) for text in (wide, wide, narrow)]
    first, same, other = [await services.registry.register("scanning", run_id=run_id) for run_id in scans]
    assert (first.version, first.created, same.version, same.created) == (1, True, 1, False)
    assert (first.source_run_id, first.model_uri) == (same.source_run_id, same.model_uri)
    assert (other.version, other.created) == (2, True)
    within = [client.get_experiment(client.get_run(m.source_run_id).info.experiment_id).name for m in (first, other)]
    assert within == ["scan-configs/mine", "scan-configs/mine-v2"]
    assert (first.next_experiment, other.next_experiment) == ("scan-configs/mine-v2", "scan-configs/mine-v3")
    again = [await services.registry.register("scanning", run_id=run_id) for run_id in scans]
    assert [(m.version, m.created) for m in again] == [(1, False), (1, False), (2, False)]
    elsewhere = await services.registry.register("renamed", run_id=scans[0])
    assert (elsewhere.version, elsewhere.source_run_id) == (1, first.source_run_id)
    scan = await services.scans.scan(str(repo), engines=["ruff"])
    assert (scan.experiment, [w for w in scan.warnings if "locked" in w]) == ("vulnerability_scanning", [])
    assert (await services.integrity.verify()).problems == []


async def test_variations_registered_at_once_from_processes_are_all_registered(
    services: Services, home: Path, repo: Path, children: ForkServerContext
) -> None:
    texts = [config(rule) for rule in ("S", "S602", "S6")]
    scans = [await scanned_with(services, repo, text) for text in texts]
    with ProcessPoolExecutor(3, mp_context=children) as pool:
        waiting = [pool.submit(child_work.register, str(home), "scanning", run_id) for run_id in (*scans, *scans)]
        made = [await anyio.to_thread.run_sync(future.result) for future in waiting]
    assert sorted(version for version, created in made if created) == [1, 2, 3]
    assert [made[n][0] for n in range(3)] == [made[n + 3][0] for n in range(3)]
    assert (await services.integrity.verify()).problems == []


# Unlocking


async def test_an_unlocked_experiment_takes_runs_again_and_the_next_registration_locks_it_anew(
    services: Services, client: "MlflowClient", look: Callable[[], Look]
) -> None:
    first = await lock(services, client, "exp")
    await services.experiments.create("exp-v2")
    opened = await services.locks.unlock("exp", "a column was wrong")
    assert (opened.name, opened.experiment_id) == ("exp", (await services.experiments.create("exp")).experiment_id)
    assert opened.event > opened.locked_by_event > 0
    newest, *_ = (await services.history.get()).events
    assert (newest.action, newest.reason, newest.seq) == ("experiment.unlocked", "a column was wrong", opened.event)
    assert not (await services.experiments.create("exp")).locked
    assert (await services.runs.log("exp", params={"late": 1})).created

    again = await services.registry.register("fm", run_id=first.source_run_id)
    assert (again.version, again.created, again.experiment_locked, again.next_experiment) == (1, False, False, None)
    assert [note for note in again.notes if "unlocked" in note]
    assert not (await services.experiments.create("exp")).locked, "a repeated call changes nothing"

    second = await lock(services, client, "exp")
    assert (second.version, second.experiment_locked, second.next_experiment) == (2, True, "exp-v3")
    with pytest.raises(ExperimentLocked):
        await services.runs.log("exp")
    (stale,) = [e for e in (await services.history.get(limit=50)).events if e.action == "experiment.unlocked"]
    assert stale.seq == opened.event


async def test_a_lock_is_lifted_only_with_a_reason_and_only_if_it_is_there(
    services: Services, client: "MlflowClient", look: Callable[[], Look]
) -> None:
    await services.experiments.create("open")
    await lock(services, client, "exp")
    before = look()
    calls: list[tuple[str, Any, type[Exception]]] = [
        ("open", "because", Refused),
        ("exp", "", InvalidArgument),
        ("exp", "  ", InvalidArgument),
        ("exp", None, InvalidArgument),
        ("exp", "x" * 5_000_000, InvalidArgument),
    ]
    for experiment, reason, error in calls:
        with pytest.raises(error) as caught:
            await services.locks.unlock(experiment, reason)
        assert caught.value.next  # type: ignore[attr-defined]
    assert look() == before
    await services.locks.unlock("exp", "once")
    with pytest.raises(Refused):
        await services.locks.unlock("exp", "twice")


async def test_sealed_versions_stay_sealed_when_their_experiment_is_opened(
    services: Services, client: "MlflowClient"
) -> None:
    from mlflow.exceptions import MlflowException

    made = await lock(services, client, "exp")
    await services.locks.unlock("exp", "r")
    with pytest.raises(MlflowException, match="VERSION_SEALED"):
        client.set_model_version_tag("fm", "1", "t", "v")
    (version,) = (await services.registry.get("fm")).versions
    assert (version.sealed, version.state) == (True, "sealed")
    assert (await services.integrity.verify("fm")).problems == []
    assert (await release(services, "fm", 1, reason="r")).aliases == ["champion"]
    assert made.version == 1
