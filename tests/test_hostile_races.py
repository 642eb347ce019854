"""Writers that race the lock, plain registrations that race a ticket, cancelled calls: acts 9, 39, 51 and 55."""

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import rfc8785
import sqlalchemy
from conftest import plain_mlflow
from governed_work import MODEL, register
from hostile import World, engine, experiment, log
from hostile_rows import locked_rows
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError

from intelligentscan.stores.archive import Archive

PATIENCE = 20.0


@contextmanager
def at(world: World, moment: str, fragment: str, do: Callable[[], None]) -> Iterator[None]:
    """Do something once in the service's own thread, before a statement or at its commit."""
    here, done = sqlalchemy.make_url(world.uri), threading.Event()

    def statement(connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if connection.engine.url == here and fragment in sql and not done.is_set():
            done.set()
            do()

    def commit(connection: Any) -> None:
        if connection.engine.url == here and not done.is_set() and threading.current_thread() in writers:
            done.set()
            do()

    def seen(connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if connection.engine.url == here and fragment in sql:
            writers.add(threading.current_thread())

    writers: set[threading.Thread] = set()
    listeners: tuple[tuple[str, Any], ...] = (("before_cursor_execute", statement),)
    if moment == "commit":
        listeners = (("before_cursor_execute", seen), ("commit", commit))
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)
    assert done.is_set()


def waiting(world: World) -> int:
    """Return how many connections wait for a lock of PostgreSQL."""
    return int(world.sql("SELECT count(*) FROM pg_locks WHERE NOT granted", owner=True)[0][0])


async def until(condition: Callable[[], bool]) -> None:
    patience = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < patience
        await anyio.sleep(0.01)


ADD = "INSERT INTO params (key, value, run_uuid) VALUES ('late', '1', '{}')"


async def test_a_writer_before_the_lock_is_waited_for_and_becomes_part_of_what_is_locked(own: World) -> None:
    logged = log(own, experiment(own, "raced"))
    answers: list[str] = []

    async def go() -> None:
        answers.append(await own.register(logged.run, "raced"))

    with engine(own.plain, isolation_level=None if own.sqlite else "READ COMMITTED").connect() as writer:
        writer.exec_driver_sql(ADD.format(logged.run))
        async with anyio.create_task_group() as group:
            group.start_soon(go)
            if own.sqlite:
                await anyio.sleep(0.3)
            else:
                await until(lambda: waiting(own) > 0)
            assert answers == []
            writer.commit()
    assert answers == ["version 1, next raced-v2"]
    assert own.client.get_run(logged.run).data.params == {"late": "1"}
    assert await own.problems("raced") == set()


async def test_a_writer_that_comes_while_the_lock_is_taken_waits_and_is_refused(own: World) -> None:
    logged = log(own, experiment(own, "raced"))
    arrived, refusals = threading.Event(), []

    def write() -> None:
        with engine(own.plain, connect_args={"timeout": PATIENCE} if own.sqlite else {}).connect() as writer:
            arrived.set()
            try:
                writer.exec_driver_sql(ADD.format(logged.run))
            except DBAPIError as exc:
                refusals.append(str(exc.orig))

    late = threading.Thread(target=write)

    def meanwhile() -> None:
        late.start()
        assert arrived.wait(PATIENCE)
        patience = time.monotonic() + PATIENCE
        while not own.sqlite and not waiting(own) and time.monotonic() < patience:
            time.sleep(0.01)
        time.sleep(0.1 if own.sqlite else 0)
        assert refusals == []

    with at(own, "statement", f"INSERT INTO {own.gov('seal')}", meanwhile):
        assert await own.register(logged.run, "raced") == "version 1, next raced-v2"
    await anyio.to_thread.run_sync(late.join)
    assert len(refusals) == 1
    assert refusals[0].startswith("EXPERIMENT_LOCKED: experiment 'raced' was locked by a registration; ")
    assert await own.problems("raced") == set()


async def test_of_writers_that_hammer_a_run_each_is_kept_or_refused(own: World) -> None:
    """What was confirmed to a writer before the lock is in the locked experiment, and nothing else is."""
    logged = log(own, experiment(own, "hammered"))
    end, kept, refused = threading.Event(), [], []

    def hammer(name: str) -> None:
        for step in range(100_000):
            if end.is_set():
                return
            try:
                own.client.log_metric(logged.run, name, 1.0, step=step, timestamp=1)
                kept.append((name, step))
            except MlflowException as exc:
                assert "EXPERIMENT_LOCKED: " in str(exc)
                refused.append(name)
                if refused.count(name) > 3:
                    return

    threads = [threading.Thread(target=hammer, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    await until(lambda: len(kept) > 3)
    answer = await own.register(logged.run, "hammered")
    await until(lambda: not any(thread.is_alive() for thread in threads) or len(refused) > 6)
    end.set()
    assert answer == "version 1, next hammered-v2"
    stored = own.sql("SELECT key, step FROM metrics WHERE run_uuid = ?", logged.run)
    assert sorted(stored) == sorted(kept)
    assert await own.problems("hammered") == set()


async def test_runs_that_begin_while_the_experiment_is_locked_are_in_it_as_a_whole_or_not_at_all(own: World) -> None:
    import mlflow

    logged = log(own, experiment(own, "begun"))
    ended, refused, end = [], [], threading.Event()

    def begin() -> None:
        while not end.is_set() and len(refused) < 3:
            try:
                mlflow.set_experiment("begun")
                with mlflow.start_run() as run:
                    mlflow.log_param("a", 1)
                ended.append(run.info.run_id)
            except MlflowException as exc:
                assert "EXPERIMENT_LOCKED: " in str(exc)
                refused.append(exc.error_code)

    with plain_mlflow(own.plain):
        thread = threading.Thread(target=begin)
        thread.start()
        answer = ""
        for _ in range(200):
            answer = await own.register(logged.run, "begun")
            if not answer.startswith("STILL_RUNNING"):
                break
        await until(lambda: len(refused) >= 3)
        end.set()
        thread.join()
    assert answer == "version 1, next begun-v2"
    assert set(refused) == {"BAD_REQUEST"}
    found = own.sql("SELECT status, lifecycle_stage FROM runs WHERE run_uuid <> ? AND experiment_id = ?", logged.run,
                    int(own.client.get_experiment_by_name("begun").experiment_id))  # fmt: skip
    assert found == [("FINISHED", "active")] * len(ended)
    assert await own.problems("begun") == set()


async def test_a_plain_registration_that_hammers_an_open_ticket_never_gets_past(own: World) -> None:
    """The attacker knows name, run and even the folder of the sealed copy; what was there before is legacy."""
    logged = [log(own, experiment(own, f"contested {number}")) for number in range(3)]
    end, tried = threading.Event(), []

    def sealed_at(number: int, version: int) -> str:
        text = rfc8785.dumps(["default", f"contested-{number}", logged[number].run, digests[number], version])
        return str((own.home / "archive").resolve() / "sealed" / hashlib.sha256(text).hexdigest()[:32])

    def hammer(number: int) -> None:
        name, run, client = f"contested-{number}", logged[number].run, own.client
        made = [0]

        def next_version() -> None:
            client.create_model_version(name, sealed_at(number, made[0] + 1), run)
            made[0] += 1

        acts = (
            lambda: client.create_registered_model(name),
            next_version,
            lambda: client.set_registered_model_alias(name, "champion", "1"),
            lambda: client.set_model_version_tag(name, "1", "a", "b"),
        )
        while not end.is_set():
            for act in acts:
                try:
                    act()
                except MlflowException as exc:
                    tried.append(str(exc))

    dry = [await own.services.registry.register("x", run_id=each.run, dry_run=True) for each in logged]
    digests = [each.manifest_digest for each in dry]
    before = locked_rows(own)
    with plain_mlflow(own.plain), ThreadPoolExecutor(3) as pool:
        hammers = [pool.submit(hammer, number) for number in range(3)]
        try:
            answers = [await own.register(each.run, f"contested-{number}") for number, each in enumerate(logged)]
            refused = len(tried)
            await until(lambda: len(tried) > refused + 20)
        finally:
            end.set()
        for each in hammers:
            each.result()
    for number, answer in enumerate(answers):
        name = f"contested-{number}"
        states = {v.version: v.state for v in (await own.services.registry.get(name, limit=100)).versions}
        [sealed] = [version for version, state in states.items() if state == "sealed"]
        assert (answer, max(states)) == (f"version {sealed}, next contested {number}-v2", sealed)
        assert own.client.get_model_version(name, str(sealed)).source == sealed_at(number, sealed)
        assert {state for version, state in states.items() if version != sealed} <= {"legacy"}
        assert await own.problems(name) == set()
    assert locked_rows(own) == before


@pytest.mark.parametrize("moment", ["commit", "statement"])
async def test_a_registration_cancelled_in_the_middle_is_completed_by_the_same_call(own: World, moment: str) -> None:
    logged = log(own, experiment(own, "cancelled"))
    reached, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        reached.set()
        assert go_on.wait(PATIENCE)

    with at(own, moment, f"INSERT INTO {own.gov('seal')}", pause):
        async with anyio.create_task_group() as group:
            group.start_soon(own.register, logged.run, "cancelled")
            await anyio.to_thread.run_sync(reached.wait)
            group.cancel_scope.cancel()
            go_on.set()
    assert await own.register(logged.run, "cancelled") == "version 1, next cancelled-v2"
    assert own.sql("SELECT count(*) FROM model_versions WHERE name = 'cancelled'") == [(1,)]
    assert await own.problems() == set()


def test_registrations_of_one_run_from_processes_and_threads_make_one_version(
    own: World, children: ForkServerContext
) -> None:
    logged = log(own, experiment(own, "crowd"))
    arguments = (str(own.home), own.uri, logged.run)
    with ProcessPoolExecutor(2, mp_context=children) as processes, ThreadPoolExecutor(3) as threads:
        waiting_for = [processes.submit(register, *arguments) for _ in range(3)]
        waiting_for += [threads.submit(register, *arguments) for _ in range(3)]
        answers = [each.result() for each in waiting_for]
    assert {version for version, _ in answers} == {1}
    assert [created for _, created in answers].count(True) == 1
    assert own.sql("SELECT version FROM model_versions WHERE name = ?", MODEL) == [(1,)]
    assert anyio.run(own.problems) == set()


async def test_a_folder_swapped_for_a_link_while_it_is_copied_gives_no_secret_away(
    hostile_sqlite: World, tmp_path: Path
) -> None:
    world = hostile_sqlite
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("MLmodel", "weights"):
        (secret / name).write_text(f"the secret of {tmp_path}")
    logged = log(world, experiment(world, f"swapped {tmp_path}"))
    (logged.folder / "weights").write_text("honest")
    aside, end = logged.folder.with_name("aside"), threading.Event()

    def swap() -> None:
        while not end.is_set():
            logged.folder.rename(aside)
            logged.folder.symlink_to(secret)
            logged.folder.unlink()
            aside.rename(logged.folder)

    archive = Archive(tmp_path / "archive")
    thread = threading.Thread(target=swap)
    thread.start()
    taken = 0
    for _ in range(300):
        try:
            archive.take(logged.folder, max_bytes=10_000, max_files=10, below=logged.folder.parent)
            taken += 1
        except Exception as exc:
            assert hasattr(exc, "code"), exc
    end.set()
    thread.join()
    digest = hashlib.sha256((secret / "weights").read_bytes()).hexdigest()
    assert not (tmp_path / "archive" / "sha256" / digest[:2] / digest).exists()
    assert taken < 300
    shutil.rmtree(secret)
