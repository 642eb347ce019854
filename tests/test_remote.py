"""A real tracking server over HTTP: the same answers, one run per key, and clear errors while it is down or slow."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import anyio
import pytest
from child_work import draft, promote_and_die, register_and_die, remote_write_and_die, write_once
from conftest import Server, Trained, run_plain, train
from reviewed import approve, release

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    ExperimentLocked,
    ExperimentNotFound,
    GatesFailed,
    IdempotencyConflict,
    IntelligentScanError,
    NoModel,
    NotGoverned,
    RunNotFinished,
    RunNotFound,
    StillRunning,
    StoreUnavailable,
    ValueConflict,
)
from intelligentscan.domain.registry import RegisteredVersion
from intelligentscan.domain.run import LoggedRun
from intelligentscan.settings import Settings
from intelligentscan.store_environment import exports
from intelligentscan.stores import mlflow_write
from intelligentscan.stores.interface import RunDraft
from intelligentscan.stores.mlflow_open import MlflowStores, open_stores
from intelligentscan.stores.mlflow_write import StepWriter


class Line:
    """The line to a server: forwards, or refuses, or stays silent, or loses an answer, as it is told."""

    def __init__(self, upstream: int) -> None:
        self.silent = False
        self.lose_answer_to: bytes | None = None
        self._upstream = upstream
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.connect()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> None:
        """Listen; the first time on any port, later on the same."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def disconnect(self) -> None:
        """Refuse new connections and end those that are open."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        while self._open:
            end(self._open.pop())

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._open.append(client)
            if not self.silent:
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._open.append(server)
                lost = threading.Event()
                threading.Thread(target=self._pump, args=(client, server, lost, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, lost, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, lost: threading.Event, request: bool) -> None:
        try:
            while data := source.recv(65536):
                if request and self.lose_answer_to is not None and self.lose_answer_to in data:
                    self.lose_answer_to = None
                    lost.set()
                if not request and lost.is_set():
                    break
                target.sendall(data)
        except OSError:
            pass
        end(source)
        end(target)


def end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow's HTTP client give up early, as it does in processes of ours."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")


@pytest.fixture
def line(server: Server) -> Iterator[Line]:
    line = Line(server.port)
    yield line
    line.disconnect()


@pytest.fixture
def settings(server: Server, tmp_path: Path, project: Path) -> Settings:
    return Settings(home=tmp_path / "home", tracking_uri=server.uri, allowed_roots=(project,))


@pytest.fixture
def stores(settings: Settings) -> MlflowStores:
    return open_stores(settings)


@pytest.fixture
async def exp(services: Services, request: pytest.FixtureRequest) -> str:
    return (await services.experiments.create(request.node.name)).name


async def runs_of(services: Services, experiment: str) -> list[tuple[str, str]]:
    """Return id and status of every active run."""
    return [(r.run_id, r.status) for r in (await services.runs.search(experiment, limit=100)).runs]


async def test_runs_are_logged_found_and_compared_as_on_the_embedded_store(
    services: Services, exp: str, project: Path
) -> None:
    (project / "a.txt").write_text("kept")
    first = await services.runs.log(
        exp,
        params={f"p{i}": i for i in range(150)},
        metrics={"m": 1},
        artifacts={"sub/a.txt": "a.txt"},
        tags={"t": "v"},
    )
    second = await services.runs.log(exp, metrics={"m": 2}, status="RUNNING")
    await services.runs.log(exp, run_id=second.run_id, params={"late": 1}, status="FINISHED")
    run = await services.runs.get(first.run_id, metric_history=["m"])
    assert (run.status, len(run.params), run.tags["t"]) == ("FINISHED", 150, "v")
    assert await services.runs.artifact_text(first.run_id, "sub/a.txt") == "kept"
    assert [a.path for a in run.artifacts] == ["sub"]
    compared = await services.comparisons.compare(run_ids=[first.run_id[:12], second.run_id])
    assert compared.metrics[0].best_run_id == second.run_id
    assert (await services.runs.get("latest", experiment=exp)).status == "FINISHED"
    assert [e.name for e in (await services.experiments.search(query=exp)).experiments] == [exp]


async def test_what_is_missing_or_refused_is_named_and_leaves_no_run(services: Services, exp: str) -> None:
    with pytest.raises(ExperimentNotFound):
        await services.runs.log("nowhere at all")
    for name in ("9" * 10, "9" * 18, "9" * 30):
        with pytest.raises(ExperimentNotFound):
            await services.runs.search(name)
    with pytest.raises(RunNotFound):
        await services.runs.get("0" * 32)
    running = await services.runs.log(exp, params={"a": 1}, status="RUNNING")
    for key in (None, "k"):
        with pytest.raises(ValueConflict):
            await services.runs.log(
                exp,
                run_id=running.run_id,
                params={f"b{i}": 1 for i in range(150)} | {"a": 2},
                idempotency_key=key,
            )
    assert (await services.runs.get(running.run_id)).params == {"a": "1"}
    assert len(await runs_of(services, exp)) == 1


@pytest.mark.parametrize("key", [None, "key"])
async def test_a_write_that_the_server_refuses_in_the_middle_leaves_no_active_run(
    services: Services, stores: MlflowStores, exp: str, key: str | None
) -> None:
    experiment_id = (await services.experiments.create(exp)).experiment_id
    with pytest.raises(IntelligentScanError):
        stores.call(lambda s: s.tracking.write_run(draft(experiment_id, 1, key, params={"bad\nkey": "1"})))
    assert await runs_of(services, exp) == []
    assert stores.call(lambda s: s.tracking.write_run(draft(experiment_id, 1, key))).created


# Idempotency


async def test_a_key_gives_one_run_in_sequence_at_once_and_from_several_processes(
    services: Services, settings: Settings, exp: str, children: ForkServerContext, tmp_path: Path
) -> None:
    answers: list[LoggedRun] = []

    async def log(through: Services) -> None:
        answers.append(await through.runs.log(exp, params={"a": 1}, metrics={"m": 1}, idempotency_key="k"))

    async with anyio.create_task_group() as group:
        for through in (services, build(settings)):
            for _ in range(4):
                group.start_soon(log, through)
    await log(build(settings))
    assert len({a.run_id for a in answers}) == 1
    assert [a.created for a in answers].count(True) == 1
    assert {a.status for a in answers} == {"FINISHED"}
    run = await services.runs.get(answers[0].run_id)
    assert (run.params, run.metrics) == ({"a": "1"}, {"m": 1.0})
    with pytest.raises(IdempotencyConflict):
        await services.runs.log(exp, params={"a": 2}, idempotency_key="k")

    experiment_id = answers[0].experiment_id
    arguments = (str(tmp_path), experiment_id, "processes", "same", settings.store_uri)
    with ProcessPoolExecutor(3, mp_context=children) as pool:
        others = [f.result() for f in [pool.submit(write_once, *arguments) for _ in range(6)]]
    assert len({answer[0] for answer in others}) == 1
    assert [answer[1] for answer in others].count(True) == 1
    assert len(await runs_of(services, exp)) == 2


class Slow(StepWriter):
    """A writer that waits between its first look for others and the creation of its run."""

    def __init__(self, store: Any, uri: str) -> None:
        super().__init__(store, uri)
        self.looked, self.go = threading.Event(), threading.Event()

    def begin(self, draft: RunDraft) -> Any:
        self.looked.set()
        assert self.go.wait(20)
        return super().begin(draft)


async def test_a_slow_writer_with_the_earlier_start_does_not_make_a_second_run(
    services: Services, settings: Settings, stores: MlflowStores, exp: str
) -> None:
    experiment_id = (await services.experiments.create(exp)).experiment_id
    slow = Slow(stores.tracking._store, settings.store_uri)  # type: ignore[attr-defined]
    slow_write = asyncio.create_task(asyncio.to_thread(slow.write, draft(experiment_id, 0, "k")))
    await asyncio.to_thread(slow.looked.wait, 20)
    fast = await asyncio.to_thread(stores.tracking.write_run, draft(experiment_id, 5, "k"))
    slow.go.set()
    late = await slow_write
    assert (fast.created, late.created) == (True, False)
    assert fast.run.run_id == late.run.run_id
    assert len(await runs_of(services, exp)) == 1


async def test_a_run_whose_writer_was_killed_is_completed_by_the_repeated_call(
    services: Services,
    stores: MlflowStores,
    settings: Settings,
    exp: str,
    children: ForkServerContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment_id = (await services.experiments.create(exp)).experiment_id
    child = children.Process(target=remote_write_and_die, args=(settings.store_uri, experiment_id, "k"))
    child.start()
    await asyncio.to_thread(child.join)
    assert child.exitcode == -9
    [(run_id, status)] = await runs_of(services, exp)
    assert status == "RUNNING"
    monkeypatch.setattr(mlflow_write, "_WINNER_PATIENCE_S", 0.3)
    again = await asyncio.to_thread(stores.tracking.write_run, draft(experiment_id, 9, "k"))
    assert (again.run.run_id, again.created, again.run.status) == (run_id, False, "FINISHED")
    assert (len(again.run.params), len(again.run.metrics)) == (10, 10)
    with pytest.raises(IdempotencyConflict):
        stores.call(lambda s: s.tracking.write_run(draft(experiment_id, 9, "k", "other")))


@pytest.mark.parametrize("lost", [b"/runs/create", b"/runs/log-batch", b"/runs/update"])
async def test_an_answer_that_is_lost_makes_no_second_run(
    line: Line, tmp_path: Path, exp: str, lost: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_write, "_WINNER_PATIENCE_S", 0.3)
    services = build(Settings(home=tmp_path, tracking_uri=line.uri))
    await services.runs.log(exp, tags={"warm": "1"}, idempotency_key="warm")
    line.lose_answer_to = lost
    try:
        await services.runs.log(exp, params={"a": 1}, metrics={"m": 1}, idempotency_key="k")
    except StoreUnavailable as error:
        assert error.next
    assert line.lose_answer_to is None
    again = await services.runs.log(exp, params={"a": 1}, metrics={"m": 1}, idempotency_key="k")
    run = await services.runs.get(again.run_id)
    assert (run.status, run.params, run.metrics) == ("FINISHED", {"a": "1"}, {"m": 1.0})
    assert len(await runs_of(services, exp)) == 2


# Down and slow


async def test_a_server_that_is_down_is_an_error_and_the_next_call_works_once_it_is_back(
    line: Line, tmp_path: Path, exp: str
) -> None:
    services = build(Settings(home=tmp_path, tracking_uri=line.uri, deadline_s=5))
    line.disconnect()
    for call in (
        lambda: services.runs.search(exp),
        lambda: services.runs.get("0" * 32),
        lambda: services.runs.log(exp, params={"a": 1}),
        lambda: services.experiments.create("never"),
        lambda: services.comparisons.compare(experiment=exp),
        lambda: services.registry.get("model"),
        lambda: services.registry.register("model", run_id="0" * 32),
        lambda: services.registry.register("model", model_uri="models:/m-00000000000000000000000000000000"),
        lambda: services.registry.promote("model", 1, "Staging"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await call()
        assert "MLFLOW_TRACKING_URI" in caught.value.next
        assert "within" not in caught.value.message  # refused, and not only late
        assert len(str(caught.value)) < 600
    line.connect()
    assert (await services.runs.log(exp, params={"a": 1})).created
    assert len(await runs_of(services, exp)) == 1


def workers() -> set[threading.Thread]:
    """Return the worker threads on which calls to stores run."""
    found = {thread for thread in threading.enumerate() if thread.name == "AnyIO worker thread"}
    assert found
    return found


async def test_a_server_that_never_answers_is_an_error_within_the_deadline_and_threads_do_not_pile_up(
    line: Line, tmp_path: Path, exp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    services = build(Settings(home=tmp_path, tracking_uri=line.uri, deadline_s=1.5))
    assert await runs_of(services, exp) == []
    line.disconnect()
    line.silent = True
    line.connect()
    before = workers()
    refused: list[IntelligentScanError] = []

    async def ask(number: int) -> None:
        with pytest.raises(StoreUnavailable) as caught:
            if number % 2:
                await services.experiments.create(f"silent {number}")
            else:
                await services.runs.search(exp)
        refused.append(caught.value)

    for _ in range(2):
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(ask, number)
    assert len(refused) == 24
    assert len(workers() - before) <= 12  # eight at work, and those that are just going
    line.disconnect()
    line.silent = False
    line.connect()
    with anyio.fail_after(30):
        while True:
            try:
                assert await runs_of(services, exp) == []
                assert (await services.runs.log(exp)).created
                break
            except StoreUnavailable:  # until the requests to the silent server have timed out
                await anyio.sleep(0.2)


@pytest.mark.parametrize("port", [9, 1])
async def test_nobody_listening_is_an_error_with_a_next_step(tmp_path: Path, port: int) -> None:
    services = build(Settings(home=tmp_path, tracking_uri=f"http://127.0.0.1:{port}", deadline_s=10))
    with pytest.raises(StoreUnavailable) as caught:
        await services.experiments.search()
    assert caught.value.next
    assert "within" not in caught.value.message  # refused, and not only late


@pytest.mark.parametrize("uri", ["http://", "http://[::1", "nonsense://x", "http://user:secret@127.0.0.1:9/x"])
async def test_a_uri_that_leads_nowhere_is_one_of_our_errors_and_shows_no_secret(tmp_path: Path, uri: str) -> None:
    services = build(Settings(home=tmp_path, tracking_uri=uri, deadline_s=10))
    with pytest.raises(IntelligentScanError) as caught:
        await services.experiments.search()
    assert caught.value.next
    assert "within" not in caught.value.message
    assert "secret" not in str(caught.value)


# Registry


@pytest.fixture(scope="session")
def trained_there(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("remote")
    return train(home, Settings(home=home, tracking_uri=server.uri), server.uri)


@pytest.fixture
def remote_trained(trained_there: Trained, settings: Settings) -> Trained:
    """The same server with a governance database of the test's own; registered names are shared by all tests."""
    return replace(trained_there, settings=settings)


async def state(services: Services, name: str) -> dict[int, tuple[str, list[str]]]:
    """Return stage and aliases of each version."""
    return {v.version: (v.stage, v.aliases) for v in (await services.registry.get(name)).versions}


async def actions(services: Services, name: str) -> list[str]:
    """Return what happened to a model, the first act first."""
    return [e.action for e in (await services.history.get(name=name, limit=50)).events][::-1]


LOAD = """
import json, sys
import mlflow.sklearn
print(json.dumps([mlflow.sklearn.load_model(uri).C for uri in sys.argv[1:]]))
"""


async def test_models_are_registered_promoted_and_loaded_through_the_server(
    remote_trained: Trained, tmp_path: Path
) -> None:
    trained, services = remote_trained, remote_trained.services
    first = await services.registry.register("served", run_id=trained.with_model, description="why")
    again = await services.registry.register("served", run_id=trained.with_model)
    second = await services.registry.register("served", run_id=trained.better)
    legacy = await services.registry.register("served", run_id=trained.legacy)
    assert [(v.version, v.created) for v in (first, again, second, legacy)] == [
        (1, True), (1, False), (2, True), (3, True),
    ]  # fmt: skip
    assert first.manifest_digest == again.manifest_digest != second.manifest_digest
    await release(services, "served", 1, reason="first")
    moved = await release(services, "served", 2, reason="better")
    assert (moved.previous_version, moved.enforcement) == (1, "advisory")
    await services.registry.promote("served", 3, "Staging")
    assert await state(services, "served") == {
        1: ("Archived", ["previous"]), 2: ("Production", ["champion"]), 3: ("Staging", ["challenger"]),
    }  # fmt: skip
    uris = ["models:/served/Production", "models:/served@champion", "models:/served@previous", "models:/served/3"]
    ended = await asyncio.to_thread(run_plain, LOAD, *uris, env=exports(trained.settings), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [3.0, 3.0, 1.0, 1.0]
    assert (await services.integrity.verify("served")).problems == []


async def test_a_lock_on_a_server_without_us_binds_our_tools_alone_and_says_so(remote_trained: Trained) -> None:
    trained, services = remote_trained, remote_trained.services
    would = await services.registry.register("bound", run_id=trained.with_model, dry_run=True)
    assert (would.version, would.experiment_locked, would.next_experiment) == (1, False, "training-v2")
    made = await services.registry.register("bound", run_id=trained.with_model)
    assert (made.experiment_locked, made.next_experiment, made.enforcement) == (True, "training-v2", "advisory")
    assert (await services.experiments.create("training")).locked
    with pytest.raises(ExperimentLocked) as caught:
        await services.runs.log("training", params={"a": 1})
    assert caught.value.details["next_experiment"] == "training-v2"
    theirs = trained.client.create_run(trained.experiment.experiment_id)
    trained.client.set_terminated(theirs.info.run_id)
    trained.client.set_tag(trained.with_model, "reviewed", "no")
    report = await services.integrity.verify("bound")
    assert [p.code for p in report.problems] == ["ROWS"]
    assert [note for note in report.notes if "advisory" in note]
    trained.client.delete_tag(trained.with_model, "reviewed")
    assert (await services.integrity.verify("bound")).ok
    await services.locks.unlock("training", "r")
    assert (await services.runs.log("training", params={"a": 1})).created


@pytest.mark.parametrize("statement", ["INSERT INTO gov_seal", "INSERT INTO gov_experiment_lock"])
async def test_a_registration_that_was_killed_between_its_steps_is_completed_by_the_same_call(
    remote_trained: Trained, children: ForkServerContext, statement: str
) -> None:
    trained, services, name = remote_trained, remote_trained.services, f"killed-{statement[-4:]}"
    arguments = (str(trained.settings.home), name, trained.with_model, statement, trained.settings.tracking_uri)
    child = children.Process(target=register_and_die, args=arguments)
    child.start()
    await asyncio.to_thread(child.join)
    assert child.exitcode == -9
    assert len(trained.client.search_model_versions(f"name = '{name}'")) == 1
    assert await actions(services, name) == ["registration.intended"]
    assert not (await services.experiments.create("training")).locked
    with pytest.raises(NotGoverned):
        await services.registry.promote(name, 1, "Staging")

    made = await services.registry.register(name, run_id=trained.with_model)
    assert (made.version, made.experiment_locked) == (1, True)
    assert len(trained.client.search_model_versions(f"name = '{name}'")) == 1
    found = await actions(services, name)
    assert found.count("registration.intended") == 2
    assert found[2:].count("version.registered") == 1
    assert (await services.integrity.verify()).problems == []
    assert (await services.registry.register(name, run_id=trained.with_model)).created is False


async def test_a_registration_whose_answer_from_the_server_is_lost_is_completed_by_the_same_call(
    line: Line, remote_trained: Trained
) -> None:
    """MLflow's client sends the request again; a twin that this makes is taken back."""
    trained = remote_trained
    services = build(Settings(home=trained.settings.home, tracking_uri=line.uri))
    await services.registry.register("lost", run_id=trained.better)
    line.lose_answer_to = b"/model-versions/create"
    with suppress(StoreUnavailable):
        await services.registry.register("lost", run_id=trained.with_model)
    assert line.lose_answer_to is None
    made = await services.registry.register("lost", run_id=trained.with_model)
    assert made.version == 2
    assert {v.version: v.state for v in (await services.registry.get("lost")).versions} == {1: "sealed", 2: "sealed"}
    assert (await services.integrity.verify("lost")).problems == []


async def test_a_promotion_that_was_killed_between_its_steps_is_drift_until_it_is_reconciled(
    remote_trained: Trained, children: ForkServerContext
) -> None:
    trained, services = remote_trained, remote_trained.services
    for run_id in (trained.with_model, trained.better):
        await services.registry.register("halfway", run_id=run_id)
    await release(services, "halfway", 1, reason="first")
    await approve(services, "halfway", 2)
    arguments = (str(trained.settings.home), "halfway", 2, "INSERT INTO gov_stage", trained.settings.tracking_uri)
    child = children.Process(target=promote_and_die, args=arguments)
    child.start()
    await asyncio.to_thread(child.join)
    assert child.exitcode == -9
    assert (await actions(services, "halfway"))[-1] == "promotion.intended"
    assert await state(services, "halfway") == {1: ("Archived", ["previous"]), 2: ("Production", ["champion"])}
    assert {p.code for p in (await services.integrity.verify("halfway")).problems} == {"ALIAS", "STAGE"}
    with pytest.raises(GatesFailed) as caught:
        await services.registry.promote("halfway", 2, "Staging")
    assert "reconcile halfway" in caught.value.next
    accepted = await services.adoption.reconcile("halfway", accept=True, reason="it was decided")
    assert (accepted.how, accepted.left) == ("accepted", [])
    assert [v.version for v in (await services.history.get(name="halfway")).live["Production"]] == [2]
    back = await release(services, "halfway", 1, reason="back")
    assert back.previous_version == 2
    assert (await services.integrity.verify("halfway")).problems == []


async def test_what_plain_clients_change_on_the_server_is_found_and_put_back(remote_trained: Trained) -> None:
    trained, services = remote_trained, remote_trained.services
    for run_id in (trained.with_model, trained.better):
        await services.registry.register("moved", run_id=run_id)
    await release(services, "moved", 1, reason="r")
    trained.client.set_registered_model_alias("moved", "champion", "2")
    trained.client.transition_model_version_stage("moved", "2", "Production", archive_existing_versions=True)
    trained.client.set_model_version_tag("moved", "1", "approved", "by nobody")
    assert {p.code for p in (await services.integrity.verify("moved")).problems} == {"ALIAS", "STAGE", "ROWS"}
    with pytest.raises(GatesFailed):
        await services.registry.promote("moved", 1, "Production", reason="again")
    restored = await services.adoption.reconcile("moved", accept=False, reason="nobody decided that")
    assert restored.how == "restored"
    assert await state(services, "moved") == {1: ("Production", ["champion"]), 2: ("Archived", [])}
    trained.client.delete_model_version_tag("moved", "1", "approved")
    assert (await services.integrity.verify("moved")).problems == []


async def test_a_model_of_plain_clients_on_the_server_is_adopted(remote_trained: Trained) -> None:
    trained, services = remote_trained, remote_trained.services
    trained.client.create_registered_model("theirs")
    trained.client.create_model_version("theirs", f"runs:/{trained.legacy}/classifier", trained.legacy)
    with pytest.raises(NotGoverned):
        await services.registry.promote("theirs", 1, "Staging")
    adopted = await services.adoption.adopt("theirs")
    assert (adopted.models, adopted.legacy_versions, adopted.enforcement) == (["theirs"], 1, "advisory")
    assert (await services.registry.promote("theirs", 1, "Staging")).aliases == ["challenger"]
    with pytest.raises(GatesFailed):
        await services.registry.promote("theirs", 1, "Production", reason="r")


async def test_what_cannot_be_registered_is_refused_before_anything_is_created(remote_trained: Trained) -> None:
    trained, services = remote_trained, remote_trained.services
    for run_id, error in (
        (trained.without, NoModel),
        (trained.running, RunNotFinished),
        (trained.failed, RunNotFinished),
        ("0" * 32, RunNotFound),
    ):
        with pytest.raises(error):
            await services.registry.register("refused", run_id=run_id)
    assert [m.name for m in trained.client.search_registered_models("name = 'refused'")] == []


async def test_another_run_that_goes_on_refuses_the_lock(services: Services, server: Server, exp: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    experiment_id = (await services.experiments.create(exp)).experiment_id
    run_id = str(client.create_run(experiment_id).info.run_id)
    client.log_text(run_id, "flavors: {}\n", "model/MLmodel")
    client.set_terminated(run_id)
    now = int(time.time() * 1000)
    old = client.create_run(experiment_id, start_time=now - 90_000_000).info.run_id
    with pytest.raises(StillRunning) as caught:
        await services.registry.register("waits", run_id=run_id)
    assert f"log_run run_id='{old}'" in caught.value.next
    assert "abandon_running=true" in caught.value.next
    assert client.search_registered_models("name = 'waits'") == []
    made = await services.registry.register("waits", run_id=run_id, abandon_running=True)
    assert (made.version, client.get_run(old).info.status) == (1, "KILLED")


async def test_registrations_at_once_under_a_new_name_all_succeed(remote_trained: Trained) -> None:
    trained, services = remote_trained, remote_trained.services
    created: list[bool] = []

    async def register(run_id: str) -> None:
        created.append((await services.registry.register("crowded", run_id=run_id)).created)

    async with anyio.create_task_group() as group:
        for run_id in (trained.with_model, trained.better, trained.legacy):
            group.start_soon(register, run_id)
    assert created == [True] * 3
    assert sorted(v.version for v in (await services.registry.get("crowded")).versions) == [1, 2, 3]


async def test_registrations_of_one_run_at_once_make_one_version(remote_trained: Trained) -> None:
    trained = remote_trained
    made: list[RegisteredVersion] = []

    async def register(through: Services) -> None:
        made.append(await through.registry.register("once", run_id=trained.with_model))

    async with anyio.create_task_group() as group:
        for through in (trained.services, trained.services):
            for _ in range(2):
                group.start_soon(register, through)
    assert ({m.version for m in made}, [m.created for m in made].count(True)) == ({1}, 1)
    (version,) = (await trained.services.registry.get("once")).versions
    assert version.state == "sealed"
    assert (await trained.services.integrity.verify("once")).problems == []
