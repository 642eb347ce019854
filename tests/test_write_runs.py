"""A run is written as one transaction: whole or not at all, once per idempotency key, in any number of processes."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from child_work import draft, write_and_die, write_once, write_runs
from conftest import Look, look_at

from intelligentscan.domain.errors import (
    IdempotencyConflict,
    IntelligentScanError,
    StoreError,
    StoreUnavailable,
    ValueConflict,
)
from intelligentscan.settings import Settings
from intelligentscan.stores.interface import IDEMPOTENCY_TAG, MetricValue, RunDraft, WrittenRun
from intelligentscan.stores.mlflow_open import MlflowStores, open_stores


@pytest.fixture
def experiment(stores: MlflowStores) -> str:
    return stores.tracking.create_experiment("runs", {})[0].experiment_id


def write(stores: MlflowStores, wanted: RunDraft) -> WrittenRun:
    return stores.call(lambda s: s.tracking.write_run(wanted))


@pytest.fixture
def statements(stores: MlflowStores) -> list[str]:
    """Every SQL statement that is sent from now on, also BEGIN, COMMIT and ROLLBACK."""
    seen: list[str] = []
    engine = stores.tracking._store.engine  # type: ignore[attr-defined]

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        seen.append(sql)

    @sqlalchemy.event.listens_for(engine, "commit")
    def note_commit(_connection: Any) -> None:
        seen.append("COMMIT")

    return seen


def test_a_new_run_holds_everything_that_was_sent(stores: MlflowStores, experiment: str, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text("a")
    many = tuple(MetricValue(f"x{i}", i / 2, 1_700_000_000_000, step=3) for i in range(950))
    wanted = draft(
        experiment,
        metrics=many,
        params={f"p{i}": "v" for i in range(250)},
        tags={f"t{i}": "v" for i in range(150)},
        artifacts=folder,
        start_time=1_600_000_000_000,
    )
    written = write(stores, wanted)
    assert written.created
    run = stores.tracking.get_run(written.run.run_id)
    assert run is not None
    assert run == replace(written.run, tags=run.tags)
    assert (len(run.metrics), len(run.params), run.status) == (950, 250, "FINISHED")
    assert (run.start_time, run.end_time) == (1_600_000_000_000, wanted.time)
    assert set(wanted.tags.items()) < set(run.tags.items())
    assert stores.tracking.read_artifact(run, "sub/a.txt", 10) == b"a"


def test_one_run_is_one_transaction_of_few_statements(
    stores: MlflowStores, experiment: str, statements: list[str]
) -> None:
    write(stores, draft(experiment, 0, "warm"))
    statements.clear()
    write(stores, draft(experiment, 1, "key"))
    begun = [s for s in statements if s.startswith("BEGIN")]
    writing = [s for s in statements if s.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert begun == ["BEGIN IMMEDIATE"]
    assert statements.index("BEGIN IMMEDIATE") < statements.index(writing[0])
    assert statements.index("COMMIT") > max(i for i, s in enumerate(statements) if s in writing)
    assert len(statements) <= 45


def refuse_metric(home: Path, key: str) -> None:
    """Make the database refuse a metric, as a guard or a constraint does."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute(
            f"CREATE TRIGGER refuse BEFORE INSERT ON metrics WHEN NEW.key = '{key}' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )


FAILURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "artifacts that are not there": lambda tmp: {"artifacts": tmp / "missing"},
    "artifacts that are a dangling link": lambda tmp: {"artifacts": dangling(tmp)},
    "a param key that MLflow refuses": lambda tmp: {"params": {"good": "1", "bad\nkey": "1"}},
    "a metric key that MLflow refuses": lambda tmp: {"metrics": (MetricValue("m", 1.0, 1), MetricValue("?", 1.0, 1))},
    "a metric of the last batch": lambda tmp: {
        "metrics": tuple(MetricValue(f"m{i}" if i < 1999 else "refused", 1.0, 1) for i in range(2000))
    },
    "an experiment that is not there": lambda tmp: {"experiment_id": "4711"},
}


def dangling(tmp: Path) -> Path:
    folder = tmp / "links"
    folder.mkdir()
    (folder / "good.txt").write_text("x")
    (folder / "link").symlink_to(folder / "nothing")
    return folder


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("key", [None, "key"])
def test_a_failure_inside_a_write_leaves_no_trace(
    stores: MlflowStores,
    experiment: str,
    home: Path,
    tmp_path: Path,
    look: Callable[[], Look],
    failure: str,
    key: str | None,
) -> None:
    refuse_metric(home, "refused")
    write(stores, draft(experiment, 0))
    before = look()
    (tmp_path / "given").mkdir()
    changed = {"artifacts": tmp_path / "given", **FAILURES[failure](tmp_path)}
    (tmp_path / "given" / "file.txt").write_text("x")
    with pytest.raises(IntelligentScanError) as caught:
        write(stores, draft(**{"experiment_id": experiment, "number": 1, "key": key, **changed}))
    assert caught.value.next
    assert look() == before
    assert write(stores, draft(experiment, 2, key)).created


def test_an_interrupt_inside_a_write_leaves_no_trace(
    stores: MlflowStores, experiment: str, look: Callable[[], Look], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look()
    log_batch = stores.tracking._store.log_batch  # type: ignore[attr-defined]

    def interrupted(*args: Any, **kwargs: Any) -> None:
        log_batch(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stores.tracking._store, "log_batch", interrupted)  # type: ignore[attr-defined]
        write(stores, draft(experiment, 1))
    assert look() == before
    assert write(stores, draft(experiment, 1)).created


@pytest.mark.parametrize(("statement", "number"), [("INSERT INTO metrics", 1), ("UPDATE", 1)])
def test_a_writer_that_is_killed_leaves_no_half_run(
    experiment: str, home: Path, children: ForkServerContext, statement: str, number: int
) -> None:
    before = look_at(home)
    child = children.Process(target=write_and_die, args=(str(home), experiment, statement, number))
    child.start()
    child.join()
    assert child.exitcode == -9
    assert look_at(home).rows == before.rows
    first = write_once(str(home), experiment, "killed")
    assert isinstance(first, tuple)
    assert first[1]


def test_two_processes_writing_at_once_lose_nothing(
    stores: MlflowStores, experiment: str, home: Path, children: ForkServerContext
) -> None:
    before = look_at(home).rows
    with ProcessPoolExecutor(2, mp_context=children) as pool:
        parts = [pool.submit(write_runs, str(home), experiment, first, 100) for first in (0, 100)]
        written = [run_id for part in parts for run_id in part.result()]
    after = look_at(home).rows
    assert len(set(written)) == 200
    assert {name: after[name] - before[name] for name in ("runs", "params", "latest_metrics", "metrics")} == {
        "runs": 200,
        "params": 2000,
        "latest_metrics": 2000,
        "metrics": 2000,
    }
    assert {run.status for run in stores.tracking.runs_by_ids(written[:50] + written[-50:])} == {"FINISHED"}


def test_the_same_point_sent_twice_in_one_call_is_one_point(stores: MlflowStores, experiment: str) -> None:
    point = MetricValue("m", 0.5, 1_700_000_000_000)
    others = tuple(MetricValue(f"x{i}", 1.0, 1_700_000_000_000) for i in range(1500))
    written = write(stores, draft(experiment, metrics=(point, *others, point)))
    assert stores.tracking.metric_history(written.run.run_id, "m", 10) == (point,)
    assert len(written.run.metrics) == 1501


def test_adding_a_point_that_the_run_has_already_changes_nothing_else(stores: MlflowStores, experiment: str) -> None:
    point = MetricValue("m", 0.5, 1_700_000_000_000)
    first = write(stores, draft(experiment, params={}, metrics=(point,), status="RUNNING"))
    more = RunDraft(experiment, "tester", 1_700_000_000_001, run_id=first.run.run_id)
    again = write(stores, replace(more, metrics=(point, MetricValue("n", 1.0, 1)), params={"p": "1"}))
    assert not again.created
    assert (again.run.metrics, again.run.params) == ({"m": 0.5, "n": 1.0}, {"p": "1"})


def test_a_changed_param_refuses_the_whole_addition(
    stores: MlflowStores, experiment: str, look: Callable[[], Look]
) -> None:
    first = write(stores, draft(experiment, params={"p0": "old"}))
    before = look()
    more = RunDraft(
        experiment,
        "tester",
        1_700_000_000_001,
        run_id=first.run.run_id,
        params={f"a{i}": "1" for i in range(150)} | {"p0": "new"},
        metrics=(MetricValue("extra", 1.0, 1),),
        tags={"extra": "1"},
        status="FAILED",
    )
    for wanted in (more, replace(more, idempotency=draft(experiment, 0, "key").idempotency)):
        with pytest.raises(ValueConflict) as caught:
            write(stores, wanted)
        assert caught.value.next
        assert look().digest == before.digest


def test_an_addition_with_a_known_point_and_a_changed_param_is_refused_whole(
    stores: MlflowStores, experiment: str, look: Callable[[], Look]
) -> None:
    point = MetricValue("m", 0.5, 1_700_000_000_000)
    first = write(stores, draft(experiment, metrics=(point,), params={"last": "old"}))
    before = look()
    params = {f"a{i}": "1" for i in range(150)} | {"last": "new"}
    more = RunDraft(experiment, "tester", 1_700_000_000_001, run_id=first.run.run_id, params=params, metrics=(point,))
    with pytest.raises(ValueConflict):
        write(stores, more)
    assert look().digest == before.digest


def test_a_given_run_gets_its_status_and_the_end_time_that_goes_with_it(stores: MlflowStores, experiment: str) -> None:
    started = write(stores, draft(experiment, status="RUNNING")).run
    assert (started.status, started.end_time) == ("RUNNING", None)
    later = RunDraft(experiment, "tester", started.start_time or 0, run_id=started.run_id)
    assert write(stores, replace(later, tags={"late": "1"})).run.status == "RUNNING"
    ended = write(stores, replace(later, time=later.time + 5, status="FAILED")).run
    assert (ended.status, ended.end_time) == ("FAILED", later.time + 5)
    assert write(stores, replace(later, status="RUNNING")).run.status == "RUNNING"


def test_a_run_of_another_experiment_is_not_written_to(
    stores: MlflowStores, experiment: str, look: Callable[[], Look]
) -> None:
    other = stores.tracking.create_experiment("other", {})[0].experiment_id
    run = write(stores, draft(other)).run
    before = look()
    with pytest.raises(IntelligentScanError) as caught:
        write(stores, RunDraft(experiment, "tester", 1, run_id=run.run_id, params={"late": "1"}))
    assert other in caught.value.next
    assert look() == before


# Idempotency


def test_the_same_key_gives_the_same_run_and_other_arguments_are_a_conflict(
    stores: MlflowStores, experiment: str, look: Callable[[], Look]
) -> None:
    first = write(stores, draft(experiment, 1, "key"))
    before = look()
    again = write(stores, draft(experiment, 2, "key"))
    assert (first.created, again.created, again.run.run_id) == (True, False, first.run.run_id)
    assert again.run.metrics == first.run.metrics
    with pytest.raises(IdempotencyConflict) as caught:
        write(stores, draft(experiment, 1, "key", "other"))
    assert caught.value.details == {"run_id": first.run.run_id}
    assert look() == before


def test_eight_threads_with_one_key_make_one_run(
    stores: MlflowStores, experiment: str, look: Callable[[], Look]
) -> None:
    before = look().rows["runs"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: write(stores, draft(experiment, n, "key")), range(8)))
    assert len({answer.run.run_id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
    assert look().rows["runs"] == before + 1


def test_four_processes_with_one_key_make_one_run_and_a_later_process_meets_it(
    home: Path, experiment: str, children: ForkServerContext
) -> None:
    with ProcessPoolExecutor(4, mp_context=children) as pool:
        waiting = [pool.submit(write_once, str(home), experiment, "key") for _ in range(8)]
        answers = [future.result() for future in waiting]
    assert len({answer[0] for answer in answers}) == 1
    assert [answer[1] for answer in answers].count(True) == 1
    assert write_once(str(home), experiment, "key") == (answers[0][0], False)
    assert write_once(str(home), experiment, "key", "other") == "IDEMPOTENCY_CONFLICT"
    assert look_at(home).rows["runs"] == 1


def test_a_key_on_a_given_run_applies_once(stores: MlflowStores, experiment: str, look: Callable[[], Look]) -> None:
    run = write(stores, draft(experiment, status="RUNNING")).run
    given = draft(experiment, 1, "more", run_id=run.run_id, params={"late": "1"}, run_name=None)
    first = write(stores, given)
    before = look()
    again = write(stores, replace(given, time=given.time + 1))
    assert (first.created, again.created, again.run.run_id) == (False, False, run.run_id)
    assert look() == before
    with pytest.raises(IdempotencyConflict):
        write(stores, replace(given, idempotency=draft(experiment, 0, "more", "other").idempotency))
    assert look() == before


def test_a_key_on_a_given_run_applies_once_among_threads(stores: MlflowStores, experiment: str) -> None:
    run = write(stores, draft(experiment, status="RUNNING", metrics=())).run
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: write(
                    stores, draft(experiment, n, "more", run_id=run.run_id, metrics=(MetricValue("m", float(n), n),))
                ),
                range(8),
            )
        )
    assert len(stores.tracking.metric_history(run.run_id, "m", 10)) == 1


def test_a_key_of_a_deleted_run_is_refused_and_makes_no_second_run(stores: MlflowStores, experiment: str) -> None:
    first = write(stores, draft(experiment, 1, "key"))
    stores.tracking._store.delete_run(first.run.run_id)  # type: ignore[attr-defined]
    with pytest.raises(IdempotencyConflict, match="deleted") as refused:
        write(stores, draft(experiment, 1, "key"))
    assert refused.value.details == {"run_id": first.run.run_id}


def test_an_existing_store_gets_the_index_of_keys_once(home: Path) -> None:
    for _ in range(2):
        open_stores(Settings(home=home))
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        found = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'tags' AND sql IS NOT NULL"
        ).fetchall()
    assert [IDEMPOTENCY_TAG in sql for (sql,) in found].count(True) == 1


def test_a_store_busy_while_it_is_opened_is_never_written_to_in_parts(
    home: Path, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        connection.execute("DROP INDEX intelligentscan_idempotency")
        connection.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("intelligentscan.stores.mlflow_write._INDEX_PATIENCE_MS", 50)
        with pytest.raises(StoreUnavailable):
            open_stores(Settings(home=home))
        connection.rollback()
    refuse_metric(home, "refused")
    before = look_at(home)
    with pytest.raises(StoreError, match="not this one"):
        write(open_stores(Settings(home=home)), draft(experiment, metrics=(MetricValue("refused", 1.0, 1),)))
    assert look_at(home) == before


# Planner statistics


def planned_runs(home: Path) -> int:
    """Return the number of runs that the planner statistics know of."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        found = connection.execute("SELECT max(CAST(stat AS INTEGER)) FROM sqlite_stat1 WHERE tbl = 'runs'").fetchone()
    return int(found[0] or 0)


def test_our_own_writes_keep_the_planner_statistics_fresh(stores: MlflowStores, home: Path, experiment: str) -> None:
    for number in range(200):
        write(stores, RunDraft(experiment, "tester", number, status="FINISHED"))
    assert planned_runs(home) >= 100


def test_runs_written_by_others_are_analysed_before_runs_are_ordered(
    stores: MlflowStores, home: Path, experiment: str, statements: list[str]
) -> None:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        ids = [f"{number:032x}" for number in range(3000)]
        connection.executemany(
            "INSERT INTO runs (run_uuid, name, experiment_id, lifecycle_stage, status, start_time, artifact_uri, "
            "source_type, source_name, entry_point_name, user_id, source_version) "
            "VALUES (?, 'r', ?, 'active', 'FINISHED', 1, '/x', 'UNKNOWN', '', '', 'u', '')",
            [(run_id, int(experiment)) for run_id in ids],
        )
        connection.executemany(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES ('m', ?, 1, 0, 0, ?)",
            [(float(number), run_id) for number, run_id in enumerate(ids)],
        )
    assert planned_runs(home) < 3000
    page = stores.tracking.search_runs(experiment, "", ["metrics.m DESC"], 5, None)
    assert [run.metrics["m"] for run in page.rows] == [2999.0, 2998.0, 2997.0, 2996.0, 2995.0]
    assert planned_runs(home) == 3000
    plan = "\n".join(str(row) for row in explained(home, statements, experiment))
    assert "SCAN latest_metrics" not in plan


def explained(home: Path, statements: list[str], experiment: str) -> list[Any]:
    """Return SQLite's plan of the search that was sent last."""
    search = next(s for s in reversed(statements) if s.startswith("SELECT DISTINCT runs") or "ORDER BY" in s)
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        return connection.execute(f"EXPLAIN QUERY PLAN {search}", [1] * search.count("?")).fetchall()


def test_statistics_are_not_made_again_without_need(stores: MlflowStores, home: Path, experiment: str) -> None:
    for number in range(60):
        write(stores, RunDraft(experiment, "tester", number, status="FINISHED"))
    stores.tracking.search_runs(experiment, "", ["metrics.m DESC"], 5, None)
    assert planned_runs(home) == 60
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE sqlite_stat1 SET stat = '59 59' WHERE tbl = 'runs'")
    stores.tracking.search_runs(experiment, "", ["metrics.m DESC"], 5, None)
    assert planned_runs(home) == 59
