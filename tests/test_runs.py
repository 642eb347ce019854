"""Runs: logged whole, found, read, refused with a next step; ordinary to plain MLflow and the other way round."""

import asyncio
import json
import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import sqlalchemy
from conftest import Look, look_at, run_plain

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    AmbiguousRun,
    ArtifactNotFound,
    IdempotencyConflict,
    IntelligentScanError,
    InvalidArgument,
    InvalidCursor,
    InvalidFilter,
    InvalidName,
    PathRefused,
    RunNotFound,
    TooLarge,
    ValueConflict,
)
from intelligentscan.domain.run import LoggedRun
from intelligentscan.services.idempotency import idempotency
from intelligentscan.services.principal import real_user
from intelligentscan.settings import Settings
from intelligentscan.stores.mlflow_open import MlflowStores

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIVE_MB = "x" * 5_000_000
UNKNOWN = "f" * 32


@pytest.fixture
async def exp(services: Services) -> str:
    return (await services.experiments.create("exp")).name


async def test_a_logged_run_is_read_back_whole(services: Services, exp: str, project: Path) -> None:
    (project / "plot.txt").write_text("plot")
    logged = await services.runs.log(
        exp,
        run_name="first",
        params={"n": 3, "rate": 0.1, "flag": True, "text": "a b"},
        metrics={"accuracy": 0.9, "count": 12},
        metric_history={
            "loss": [{"value": 3, "step": 0}, {"value": 2.5, "step": 1, "time_ms": 1_700_000_000_000}, 1.5]
        },
        tags={"team": "a"},
        artifacts={"plots/plot.txt": "plot.txt"},
    )
    assert (logged.created, logged.status) == (True, "FINISHED")
    run = await services.runs.get(logged.run_id, metric_history=["loss"])
    assert run.params == {"n": "3", "rate": "0.1", "flag": "True", "text": "a b"}
    assert run.metrics == {"accuracy": 0.9, "count": 12.0, "loss": 1.5}
    assert [(p.value, p.step) for p in run.metric_history["loss"]] == [(3.0, 0), (2.5, 1), (1.5, 2)]
    assert run.metric_history["loss"][1].time == "2023-11-14T22:13:20Z"
    assert (run.run_name, run.tags["team"], run.user) == ("first", "a", real_user())
    assert [(a.path, a.folder) for a in run.artifacts] == [("plots", True)]
    assert await services.runs.artifact_text(logged.run_id, "plots/plot.txt") == "plot"
    assert run.start_time is not None
    assert run.end_time is not None


async def test_our_runs_are_ordinary_to_plain_mlflow(
    services: Services, client: "MlflowClient", exp: str, project: Path
) -> None:
    (project / "a.txt").write_text("a")
    logged = await services.runs.log(
        exp, run_name="ours", params={"p": 1}, metrics={"m": 0.5}, tags={"t": "v"}, artifacts={"sub/a.txt": "a.txt"}
    )
    run = client.get_run(logged.run_id)
    assert (run.data.params, run.data.metrics, run.data.tags["t"]) == ({"p": "1"}, {"m": 0.5}, "v")
    assert (run.info.status, run.info.run_name, run.info.user_id) == ("FINISHED", "ours", real_user())
    assert run.info.end_time >= run.info.start_time > 0
    assert [f.path for f in client.list_artifacts(logged.run_id, "sub")] == ["sub/a.txt"]
    found = client.search_runs([logged.experiment_id], "params.p = '1' and metrics.m > 0.4", order_by=["metrics.m"])
    assert [r.info.run_id for r in found] == [logged.run_id]
    client.log_metric(logged.run_id, "later", 1.0)
    client.set_tag(logged.run_id, "mlflow.note.content", "seen")
    assert (await services.runs.get(logged.run_id)).metrics["later"] == 1.0


async def test_runs_of_plain_mlflow_are_ordinary_to_us(services: Services, client: "MlflowClient", exp: str) -> None:
    experiment_id = (await services.experiments.create(exp)).experiment_id
    plain = client.create_run(experiment_id, run_name="theirs", tags={"mlflow.source.git.commit": "abc123"})
    for step in range(3):
        client.log_metric(plain.info.run_id, "loss", 3 - step, step=step)
    client.log_metric(plain.info.run_id, "broken", math.nan)
    client.log_param(plain.info.run_id, "p", "v")
    client.log_text(plain.info.run_id, "text", "note.txt")
    running = await services.runs.get(plain.info.run_id[:8], metric_history=["loss"])
    assert (running.status, running.end_time, running.git_commit) == ("RUNNING", None, "abc123")
    assert [p.value for p in running.metric_history["loss"]] == [3.0, 2.0, 1.0]
    assert json.loads(running.model_dump_json())["params"] == {"p": "v"}
    await services.runs.log(exp, run_id=plain.info.run_id, metrics={"added": 1}, status="FINISHED")
    assert client.get_run(plain.info.run_id).info.status == "FINISHED"
    assert [r.run_id for r in (await services.runs.search(exp)).runs] == [plain.info.run_id]


AUTOLOG = """
import mlflow, sys
from sklearn.linear_model import LogisticRegression
mlflow.sklearn.autolog()
mlflow.set_experiment("exp")
with mlflow.start_run(run_name="auto") as run:
    LogisticRegression(C=2.0).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
print(run.info.run_id)
"""


async def test_a_run_of_autolog_in_another_process_is_an_ordinary_run_with_a_model(
    services: Services, settings: Settings, exp: str, tmp_path: Path
) -> None:
    from intelligentscan.store_environment import exports

    environment = {**exports(settings), "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1"}
    ended = await asyncio.to_thread(run_plain, AUTOLOG, env=environment, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    run_id = ended.stdout.strip().splitlines()[-1]
    run = await services.runs.get(run_id)
    assert (run.run_name, run.status, run.params["C"]) == ("auto", "FINISHED", "2.0")
    assert "training_accuracy_score" in run.metrics
    assert len(run.models) == 1
    registered = await services.registry.register("auto-model", run_id=run_id)
    assert (registered.version, registered.model_uri) == (1, run.models[0])
    assert not (tmp_path / "mlruns").exists()


async def test_a_run_is_continued_and_ended_by_further_calls(services: Services, exp: str) -> None:
    started = await services.runs.log(exp, params={"a": 1}, status="running")
    assert started.status == "RUNNING"
    more = await services.runs.log(exp, run_id=started.run_id[:10], metrics={"m": 1}, params={"a": 1, "b": 2})
    assert (more.run_id, more.created, more.status) == (started.run_id, False, "RUNNING")
    ended = await services.runs.log(exp, run_id="latest", status="KILLED")
    assert ended.status == "KILLED"
    run = await services.runs.get(started.run_id)
    assert (run.params, run.metrics) == ({"a": "1", "b": "2"}, {"m": 1.0})
    assert run.end_time is not None


async def test_a_nested_run_knows_its_parent(services: Services, client: "MlflowClient", exp: str) -> None:
    parent = await services.runs.log(exp)
    child = await services.runs.log(exp, parent_run_id=parent.run_id)
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


BAD: dict[str, tuple[dict[str, Any], type[IntelligentScanError]]] = {
    "10,000 params": ({"params": {f"p{i}": i for i in range(10_000)}}, TooLarge),
    "1,001 metrics": ({"metrics": {f"m{i}": 1.0 for i in range(1_001)}}, TooLarge),
    "101 tags": ({"tags": {f"t{i}": 1 for i in range(101)}}, TooLarge),
    "100,001 points": ({"metric_history": {"m": [1.0] * 100_001}}, TooLarge),
    "a 5 MB param": ({"params": {"p": FIVE_MB}}, TooLarge),
    "a 5 MB param key": ({"params": {FIVE_MB: 1}}, InvalidName),
    "a 5 MB tag": ({"tags": {"t": FIVE_MB}}, TooLarge),
    "a 5 MB metric key": ({"metrics": {FIVE_MB: 1.0}}, InvalidName),
    "a 5 MB history key": ({"metric_history": {FIVE_MB: [1.0]}}, InvalidName),
    "a 5 MB run name": ({"run_name": FIVE_MB}, InvalidName),
    "a 5 MB status": ({"status": FIVE_MB}, InvalidArgument),
    "a 5 MB run id": ({"run_id": FIVE_MB}, InvalidArgument),
    "a 5 MB parent": ({"parent_run_id": FIVE_MB}, InvalidArgument),
    "a 5 MB key": ({"idempotency_key": FIVE_MB}, InvalidArgument),
    "an empty key": ({"idempotency_key": " "}, InvalidArgument),
    "a 5 MB artifact name": ({"artifacts": {FIVE_MB: "a"}}, InvalidArgument),
    "a 5 MB source path": ({"artifacts": {"a": FIVE_MB}}, IntelligentScanError),
    "a huge integer": ({"params": {"p": 10**5000}}, TooLarge),
    "not a number": ({"metrics": {"m": math.nan}}, InvalidArgument),
    "infinity": ({"metrics": {"m": math.inf}}, InvalidArgument),
    "minus infinity": ({"metrics": {"m": -math.inf}}, InvalidArgument),
    "a number beyond floats": ({"metrics": {"m": 10**400}}, InvalidArgument),
    "a metric that is text": ({"metrics": {"m": "0.9"}}, InvalidArgument),
    "a metric that is true": ({"metrics": {"m": True}}, InvalidArgument),
    "not a number in a history": ({"metric_history": {"m": [{"value": math.nan}]}}, InvalidArgument),
    "a history point without a value": ({"metric_history": {"m": [{"step": 1}]}}, InvalidArgument),
    "a step that is text": ({"metric_history": {"m": [{"value": 1, "step": "1"}]}}, InvalidArgument),
    "a step beyond 64 bits": ({"metric_history": {"m": [{"value": 1, "step": 2**63}]}}, InvalidArgument),
    "a time before all time": ({"metric_history": {"m": [{"value": 1, "time_ms": -1}]}}, InvalidArgument),
    "a run name with a line break": ({"run_name": "a\nb"}, InvalidName),
    "a run name with an escape": ({"run_name": "a\x1b[31m"}, InvalidName),
    "a param key with a control character": ({"params": {"a\x00": 1}}, InvalidName),
    "a param key that climbs": ({"params": {"../x": 1}}, InvalidName),
    "a metric key with a zero-width space": ({"metrics": {"a\u200b": 1.0}}, InvalidName),
    "a reserved tag": ({"tags": {"mlflow.user": "somebody"}}, InvalidName),
    "our own tag": ({"tags": {"intelligentscan.idempotency": "x"}}, InvalidName),
    "a nested param": ({"params": {"p": {"a": 1}}}, InvalidArgument),
    "no such status": ({"status": "DONE"}, InvalidArgument),
    "no such run": ({"run_id": UNKNOWN}, RunNotFound),
    "no such parent": ({"parent_run_id": UNKNOWN}, RunNotFound),
    "a run id that is none": ({"run_id": "../../etc"}, InvalidArgument),
    "an artifact that climbs": ({"artifacts": {"../x": "a.txt"}}, InvalidArgument),
    "an absolute artifact": ({"artifacts": {"/x": "a.txt"}}, InvalidArgument),
    "two artifacts in one place": ({"artifacts": {"x": "a.txt", "x/y": "a.txt"}}, InvalidArgument),
    "a source that is missing": ({"artifacts": {"x": "missing.txt"}}, PathRefused),
    "a source outside the roots": ({"artifacts": {"x": "/etc/hostname"}}, PathRefused),
    "a source that is a folder": ({"artifacts": {"x": "."}}, PathRefused),
    "101 artifacts": ({"artifacts": {f"x{i}": "a.txt" for i in range(101)}}, TooLarge),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_refused_with_a_next_step_and_without_a_trace(
    services: Services, exp: str, project: Path, look: Callable[[], Look], case: str
) -> None:
    (project / "a.txt").write_text("a")
    given, error = BAD[case]
    before = look()
    with pytest.raises(error) as caught:
        await services.runs.log(exp, **{"params": {"good": 1}, **given})
    assert caught.value.next
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).isprintable()
    assert look() == before


async def test_1000_params_and_metrics_are_taken(services: Services, exp: str) -> None:
    logged = await services.runs.log(
        exp, params={f"p{i}": i for i in range(1000)}, metrics={f"m{i}": float(i) for i in range(1000)}
    )
    run = await services.runs.get(logged.run_id)
    assert (len(run.params), len(run.metrics)) == (1000, 1000)


async def test_a_param_that_changes_is_a_conflict_and_nothing_is_added(
    services: Services, exp: str, look: Callable[[], Look]
) -> None:
    logged = await services.runs.log(exp, params={"a": 1}, status="RUNNING")
    before = look()
    with pytest.raises(ValueConflict) as caught:
        await services.runs.log(exp, run_id=logged.run_id, params={"b": 1, "a": 2}, metrics={"m": 1}, status="FINISHED")
    assert caught.value.next
    assert look() == before


# Idempotency


async def test_the_same_key_gives_the_same_run_in_sequence_and_at_once(
    services: Services, settings: Settings, exp: str, look: Callable[[], Look]
) -> None:
    answers: list[LoggedRun] = []

    async def log(through: Services) -> None:
        answers.append(await through.runs.log(exp, params={"a": 1}, idempotency_key="k"))

    async with anyio.create_task_group() as group:
        for through in (services, build(settings)):
            for _ in range(4):
                group.start_soon(log, through)
    await log(build(settings))
    assert len({a.run_id for a in answers}) == 1
    assert [a.created for a in answers].count(True) == 1
    assert look().rows["runs"] == 1


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"a": 2}},
        {"metrics": {"m": 2}},
        {"metric_history": {"h": [1.0]}},
        {"tags": {"t": "2"}},
        {"run_name": "other"},
        {"status": "FAILED"},
        {"artifacts": {"y": "a.txt"}},
    ],
)
async def test_the_same_key_with_other_arguments_is_a_conflict(
    services: Services, exp: str, project: Path, look: Callable[[], Look], other: dict[str, Any]
) -> None:
    (project / "a.txt").write_text("a")
    given: dict[str, Any] = {"params": {"a": 1}, "metrics": {"m": 1}, "artifacts": {"x": "a.txt"}}
    first = await services.runs.log(exp, idempotency_key="k", **given)
    before = look()
    with pytest.raises(IdempotencyConflict) as caught:
        await services.runs.log(exp, idempotency_key="k", **{**given, **other})
    assert caught.value.details == {"run_id": first.run_id}
    assert caught.value.code == "IDEMPOTENCY_CONFLICT"
    assert look() == before
    assert not (await services.runs.log(exp, idempotency_key="k", **given)).created


async def test_a_key_belongs_to_one_experiment(services: Services, exp: str) -> None:
    await services.experiments.create("other")
    first = await services.runs.log(exp, idempotency_key="k")
    second = await services.runs.log("other", idempotency_key="k")
    assert (first.created, second.created) == (True, True)
    assert first.run_id != second.run_id


def test_a_key_belongs_to_one_person_and_tool() -> None:
    same: dict[str, Any] = {"person": "a", "tool": "log_run", "experiment_id": "1", "arguments": {}}
    keys = {
        idempotency("k", **{**same, **change}).key  # type: ignore[union-attr]
        for change in ({}, {"person": "b"}, {"tool": "log_scan_run"}, {"experiment_id": "2"}, {"person": "alog_run"})
    }
    assert len(keys) == 5
    assert idempotency(None, **same) is None


async def test_a_key_on_a_given_run_applies_once(services: Services, exp: str, look: Callable[[], Look]) -> None:
    run = await services.runs.log(exp, status="RUNNING")
    for _ in range(2):
        await services.runs.log(exp, run_id=run.run_id, metrics={"m": 1}, idempotency_key="k")
    assert len((await services.runs.get(run.run_id, metric_history=["m"])).metric_history["m"]) == 1
    before = look()
    with pytest.raises(IdempotencyConflict):
        await services.runs.log(exp, run_id=run.run_id, metrics={"m": 2}, idempotency_key="k")
    assert look() == before


async def test_a_call_that_is_cancelled_and_repeated_with_its_key_makes_one_run(
    services: Services, exp: str, look: Callable[[], Look]
) -> None:
    for delay in (0.0, 0.001, 0.003, 0.006, 0.01):
        with anyio.move_on_after(delay):
            await services.runs.log(exp, params={"a": 1}, idempotency_key="k")
    again = await services.runs.log(exp, params={"a": 1}, idempotency_key="k")
    assert look().rows["runs"] == 1
    assert (await services.runs.get(again.run_id)).params == {"a": "1"}


# Finding


async def test_runs_are_listed_newest_first_and_ordered_and_filtered_as_mlflow_does(
    services: Services, exp: str
) -> None:
    ids = [(await services.runs.log(exp, metrics={"m": v}, params={"v": v})).run_id for v in (2, 3, 1)]
    assert {r.run_id for r in (await services.runs.search(exp)).runs} == set(ids)
    ordered = await services.runs.search(exp, order_by=["metrics.m DESC"])
    assert [r.metrics["m"] for r in ordered.runs] == [3.0, 2.0, 1.0]
    found = await services.runs.search(exp, filter="metrics.m >= 2 AND params.v = '2'")
    assert [r.run_id for r in found.runs] == [ids[0]]
    none = await services.runs.search(exp, filter="metrics.m > 99")
    assert none.runs == []
    assert none.notes


async def test_pages_follow_each_other_without_gap_or_repetition(services: Services, exp: str) -> None:
    made = {(await services.runs.log(exp, metrics={"m": i})).run_id for i in range(7)}
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await services.runs.search(exp, order_by=["metrics.m ASC"], limit=3, cursor=cursor)
        seen += [r.run_id for r in page.runs]
        if (cursor := page.next_cursor) is None:
            break
    assert len(seen) == 7
    assert set(seen) == made
    first = await services.runs.search(exp, limit=3)
    with pytest.raises(InvalidCursor):
        await services.runs.search(exp, limit=3, order_by=["metrics.m ASC"], cursor=first.next_cursor)


async def test_columns_pick_params_and_metrics(services: Services, exp: str) -> None:
    await services.runs.log(exp, params={f"p{i}": i for i in range(20)}, metrics={f"m{i}": i for i in range(20)})
    row = (await services.runs.search(exp, columns=["params.p17", "m18", "missing"])).runs[0]
    assert (row.params, row.metrics) == ({"p17": "17"}, {"m18": 18.0})
    assert len((await services.runs.search(exp)).runs[0].params) == 8


@pytest.mark.parametrize(
    "filter",
    ["nonsense", "metrics.m >", "params.p = 1", "'; DROP TABLE runs; --", "((((", "attributes.nope = 'x'",
     "metrics.m > 0 OR metrics.m < 1", "a" * 100_000, FIVE_MB, "\x00"],
)  # fmt: skip
async def test_a_filter_that_mlflow_cannot_read_is_an_error_with_an_example(
    services: Services, exp: str, look: Callable[[], Look], filter: str
) -> None:
    before = look()
    with pytest.raises(InvalidArgument) as caught:
        await services.runs.search(exp, filter=filter)
    assert "metrics.accuracy > 0.9" in caught.value.next
    assert len(str(caught.value)) < 1_000
    assert look() == before


@pytest.mark.parametrize("order", [["nonsense x y"], ["metrics"], [""], [FIVE_MB], ["metrics.m DESC"] * 11])
async def test_an_ordering_that_mlflow_cannot_read_is_an_error(services: Services, exp: str, order: list[str]) -> None:
    with pytest.raises(InvalidFilter) as caught:
        await services.runs.search(exp, order_by=order)
    assert "order_by" in caught.value.next


async def test_a_prefix_finds_its_run_and_an_ambiguous_one_lists_them(
    services: Services, exp: str, home: Path, look: Callable[[], Look]
) -> None:
    first, second = (await services.runs.log(exp)).run_id, (await services.runs.log(exp)).run_id
    twin_a, twin_b = "abcdef" + "0" * 26, "abcdef" + "1" * 26
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        for old, new in ((first, twin_a), (second, twin_b)):
            connection.execute("UPDATE runs SET run_uuid = ? WHERE run_uuid = ?", (new, old))
            connection.execute("UPDATE tags SET run_uuid = ? WHERE run_uuid = ?", (new, old))
    before = look()
    for call in (
        lambda: services.runs.get("abcdef"),
        lambda: services.runs.log(exp, run_id="abcdef", params={"a": 1}),
        lambda: services.comparisons.compare(run_ids=["abcdef", twin_a]),
        lambda: services.runs.artifact_text("abcdef", "x"),
    ):
        with pytest.raises(AmbiguousRun) as caught:
            await call()
        assert sorted(caught.value.details["run_ids"]) == [twin_a, twin_b]  # type: ignore[call-overload]
        assert "run_id='abcdef" in caught.value.next
    assert look() == before
    assert (await services.runs.get("abcdef0")).run_id == twin_a


@pytest.mark.parametrize(
    ("run_id", "error"),
    [
        (UNKNOWN, RunNotFound),
        ("ffffff", RunNotFound),
        ("fffff", InvalidArgument),
        ("ABCDEF12", InvalidArgument),
        ("' OR 1=1", InvalidArgument),
        ("%%%%%%", InvalidArgument),
        ("", InvalidArgument),
        ("latest", InvalidArgument),
        ("\x00" * 32, InvalidArgument),
        (FIVE_MB, InvalidArgument),
    ],
)
async def test_a_run_that_is_not_there_is_an_error_with_a_next_step(
    services: Services, exp: str, run_id: str, error: type[IntelligentScanError]
) -> None:
    with pytest.raises(error) as caught:
        await services.runs.get(run_id)
    assert caught.value.next
    assert len(str(caught.value)) < 500


async def test_latest_is_the_newest_run_of_its_experiment(services: Services, exp: str) -> None:
    with pytest.raises(RunNotFound) as caught:
        await services.runs.get("latest", experiment=exp)
    assert "log_run" in caught.value.next
    await services.runs.log(exp)
    time.sleep(0.002)  # noqa: ASYNC251  start times are in milliseconds
    newest = await services.runs.log(exp)
    assert (await services.runs.get("latest", experiment=exp)).run_id == newest.run_id


async def test_a_deleted_run_and_a_run_of_another_experiment_are_not_found(
    services: Services, client: "MlflowClient", exp: str, look: Callable[[], Look]
) -> None:
    await services.experiments.create("other")
    elsewhere = await services.runs.log("other")
    gone = await services.runs.log(exp)
    client.delete_run(gone.run_id)
    before = look()
    for call in (
        lambda: services.runs.get(gone.run_id),
        lambda: services.runs.get(gone.run_id[:12]),
        lambda: services.runs.log(exp, run_id=gone.run_id, params={"a": 1}),
        lambda: services.runs.get(elsewhere.run_id, experiment=exp),
        lambda: services.runs.log(exp, run_id=elsewhere.run_id, params={"a": 1}),
    ):
        with pytest.raises(RunNotFound):
            await call()
    assert look() == before


# Reading


@pytest.mark.parametrize("path", ["../../mlflow.db", "/etc/passwd", "missing.txt", "sub", "", ".", "a\x00b", FIVE_MB])
async def test_an_artifact_that_is_not_the_runs_is_not_read(
    services: Services, exp: str, project: Path, path: str
) -> None:
    (project / "a.txt").write_text("a")
    logged = await services.runs.log(exp, artifacts={"sub/a.txt": "a.txt"})
    with pytest.raises((ArtifactNotFound, InvalidArgument)) as caught:
        await services.runs.artifact_text(logged.run_id, path)
    assert caught.value.next
    assert len(str(caught.value)) < 500


async def test_an_artifact_that_is_no_text_or_too_large_is_named(services: Services, exp: str, project: Path) -> None:
    (project / "b.bin").write_bytes(b"\xff\xfe\x00")
    (project / "big.txt").write_text("x" * 4_000_001)
    logged = await services.runs.log(exp, artifacts={"b.bin": "b.bin", "big.txt": "big.txt"})
    with pytest.raises(ArtifactNotFound, match="no text"):
        await services.runs.artifact_text(logged.run_id, "b.bin")
    with pytest.raises(TooLarge):
        await services.runs.artifact_text(logged.run_id, "big.txt")


async def test_hostile_text_of_a_run_is_shown_escaped_and_bounded(
    services: Services, client: "MlflowClient", exp: str
) -> None:
    experiment_id = (await services.experiments.create(exp)).experiment_id
    evil = "![x](http://evil) <script>\u202e\u200b\x1b[31m " + "y" * 3000
    run = client.create_run(experiment_id, run_name="<b>" + evil[:100], tags={"t": evil, "mlflow.user": evil[:200]})
    client.log_param(run.info.run_id, "p", evil)
    client.log_text(run.info.run_id, "x", "<img src=x>.txt")
    whole = await services.runs.get(run.info.run_id)
    listed = await services.runs.search(exp)
    for answer in (whole.model_dump_json(), listed.model_dump_json()):
        for bad in ("](", "<script", "<b>", "<img", "\u202e", "\\u202e", "\u200b", "\x1b", "\\u001b"):
            assert bad not in answer.replace("\\\\u", "(escaped)"), bad
        assert len(answer) < 5_000


async def test_the_history_of_too_many_or_too_long_metrics_is_refused(services: Services, exp: str) -> None:
    logged = await services.runs.log(exp, metric_history={"long": [float(i) for i in range(1001)]})
    with pytest.raises(TooLarge):
        await services.runs.get(logged.run_id, metric_history=["long"])
    with pytest.raises(TooLarge):
        await services.runs.get(logged.run_id, metric_history=[f"m{i}" for i in range(11)])
    assert (await services.runs.get(logged.run_id, metric_history=["none"])).metric_history == {"none": []}


async def test_reading_a_run_takes_few_statements(services: Services, exp: str, stores: MlflowStores) -> None:
    logged = await services.runs.log(exp, params={"a": 1}, metrics={"m": 1})
    await services.runs.get(logged.run_id)
    seen: list[str] = []
    engine = stores.tracking._store.engine  # type: ignore[attr-defined]
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda c, cursor, sql, *rest: seen.append(sql))
    await services.runs.get(logged.run_id)
    selects = [s for s in seen if s.lstrip().startswith("SELECT")]
    assert len(selects) <= 12, selects
    assert not [s for s in seen if s.startswith(("INSERT", "UPDATE", "DELETE"))]


async def test_fifty_mixed_calls_at_once_get_the_answers_to_their_questions(
    services: Services, exp: str, home: Path
) -> None:
    ids = [(await services.runs.log(exp, params={"n": n}, metrics={"m": n})).run_id for n in range(10)]
    right: list[bool] = []

    async def ask(n: int) -> None:
        kind = n % 4
        if kind == 0:
            right.append((await services.runs.get(ids[n % 10])).params == {"n": str(n % 10)})
        elif kind == 1:
            found = await services.runs.search(exp, filter=f"metrics.m = {n % 10}")
            right.append([r.run_id for r in found.runs] == [ids[n % 10]])
        elif kind == 2:
            logged = await services.runs.log(exp, run_name=f"extra {n}", tags={"extra": "1"})
            right.append((await services.runs.get(logged.run_id)).run_name == f"extra {n}")
        else:
            right.append((await services.experiments.create(f"e{n}")).name == f"e{n}")

    for _ in range(2):
        async with anyio.create_task_group() as group:
            for n in range(50):
                group.start_soon(ask, n)
    assert right == [True] * 100
    assert look_at(home).rows["runs"] == 10 + 2 * 12


async def test_a_repeated_call_no_longer_needs_its_files(services: Services, project: Path) -> None:
    await services.experiments.create("files")
    plot = project / "plot.txt"
    plot.write_text("first")
    first = await services.runs.log("files", artifacts={"plot.txt": str(plot)}, idempotency_key="k")
    plot.unlink()
    again = await services.runs.log("files", artifacts={"plot.txt": str(plot)}, idempotency_key="k")
    assert (again.run_id, again.created) == (first.run_id, False)
    assert await services.runs.artifact_text(first.run_id, "plot.txt") == "first"


async def test_a_history_can_be_copied_from_one_run_to_another(services: Services) -> None:
    await services.experiments.create("copies")
    points = [{"value": 1.0, "step": 3, "time": "2020-01-01T00:00:00Z"}]
    first = await services.runs.log("copies", metric_history={"m": points})
    read = (await services.runs.get(first.run_id, metric_history=["m"])).metric_history["m"]
    second = await services.runs.log("copies", metric_history={"m": [p.model_dump() for p in read]})
    assert (await services.runs.get(second.run_id, metric_history=["m"])).metric_history["m"] == read
    assert read[0].time == "2020-01-01T00:00:00Z"
    for wrong in ({"value": 1, "when": 1}, {"value": 1, "time": "yesterday"}):
        with pytest.raises(InvalidArgument):
            await services.runs.log("copies", metric_history={"m": [wrong]})
