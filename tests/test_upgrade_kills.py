"""Upgrades that are killed, or meet others at the store: it is old or new, never between, and one file throughout."""

import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from old_stores import DATASETS, SPAN_COSTS, OldStores, copied, engine_of
from sqlalchemy import Connection
from upgrade_work import (
    hold_open,
    holding,
    publish_and_die,
    publish_page_by_page_and_die,
    record,
    upgrade_and_die,
    upgraded,
)

from intelligentscan.domain.errors import Refused
from intelligentscan.stores import mlflow_upgrade
from intelligentscan.stores.guards.inventory import inspect
from intelligentscan.stores.mlflow_schema import schema_facts
from intelligentscan.stores.mlflow_upgrade import GovernanceSteps, UpgradeFacts, upgrade

pytest_plugins = ("upgrade_fixtures",)


def killed(children: ForkServerContext, work: Callable[..., None], *arguments: Any) -> int:
    """Run something in a process of its own and return how it ended."""
    process = children.Process(target=work, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def test_an_upgrade_killed_at_a_statement_has_changed_nothing_and_completes_when_repeated(
    old: OldStores, children: ForkServerContext
) -> None:
    uri = old.store(SPAN_COSTS)
    before = holding(uri)
    seen = 0

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1

    try:
        with pytest.raises(ZeroDivisionError):
            upgraded(uri, check=lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
        first = seen
        other = old.store(SPAN_COSTS) if old.kind == "postgresql" else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mlflow_upgrade, "_compared", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                upgraded(other or uri)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count)
    whole = seen - first
    for point in (1, whole // 3, whole // 2, whole * 9 // 10, whole):
        assert killed(children, upgrade_and_die, uri, point) == -signal.SIGKILL
        assert holding(uri) == before
    assert upgraded(uri).changed
    with engine_of(uri).connect() as connection:
        assert schema_facts(connection).at_head
        assert inspect(connection).ok
    if old.kind == "sqlite":
        path = Path(uri.removeprefix("sqlite:///"))
        assert {each.name for each in path.parent.iterdir()} == {
            "mlflow.db", f"mlflow.db.before-upgrade-{SPAN_COSTS}",
        }  # fmt: skip


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_file_is_old_or_new_wherever_its_publication_is_killed(
    file: tuple[str, Path], children: ForkServerContext, tmp_path: Path, mode: str
) -> None:
    uri, path = file
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    before, size = path.read_bytes(), len(path.read_bytes())
    new = tmp_path / "new.db"
    upgraded(copied(path, new))
    grown = new.stat().st_size
    # The journal or WAL is written first, then the file; each of these is the first byte that cannot be written.
    places = [0, 4000, size // 2, size - 4096, size + 4096, grown - 20 * 4096, grown - 4096, grown - 1]
    places += [grown * 4120 // 4096 - 4096, grown * 4120 // 4096] if mode == "WAL" else []
    for place in places:
        assert killed(children, publish_and_die, str(path), str(new), place, True) == -signal.SIGXFSZ
        assert content(path) == content_of(before, tmp_path)
    for pages in (1, 40, 200):
        assert killed(children, publish_page_by_page_and_die, str(path), str(new), pages) == -signal.SIGKILL
        assert content(path) == content_of(before, tmp_path)
    assert killed(children, publish_and_die, str(path), str(new), 2**30, True) == 0
    assert content(path) == content(new)
    assert upgraded(uri).changed is False
    assert not list(path.parent.glob(".*"))


def content(path: Path) -> list[str]:
    """Return everything in a file, after whatever recovery it needs, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return list(connection.iterdump())


def content_of(saved: bytes, folder: Path) -> list[str]:
    (folder / "saved.db").write_bytes(saved)
    return content(folder / "saved.db")


def test_a_disk_that_is_full_leaves_the_store_as_it_was(
    file: tuple[str, Path], children: ForkServerContext, tmp_path: Path
) -> None:
    uri, path = file
    new = tmp_path / "new.db"
    upgraded(copied(path, new))
    before = content(path)
    assert killed(children, publish_and_die, str(path), str(new), path.stat().st_size // 2, False) == 1
    assert content(path) == before
    assert upgraded(uri).changed


def test_an_upgrade_killed_at_any_moment_completes_when_repeated(old: OldStores, children: ForkServerContext) -> None:
    uri = old.store()
    before = holding(uri)
    moments = random.Random(7)
    seen = set()
    for _ in range(6):
        process = children.Process(target=upgrade_and_die, args=(uri, 10**9))
        process.start()
        time.sleep(moments.uniform(0.05, 1.2))
        process.kill()
        process.join()
        now = holding(uri)
        if now != before:  # it was done: nothing is left that could be killed
            break
        seen.add(now)
    assert seen <= {before}
    upgraded(uri)
    assert not upgraded(uri).changed
    with engine_of(uri).connect() as connection:
        assert inspect(connection).ok


def test_a_file_stays_the_same_one_and_a_private_backup_of_the_old_content_is_kept(file: tuple[str, Path]) -> None:
    uri, path = file
    path.chmod(0o640)
    before, inode = holding(uri), path.stat().st_ino
    report = upgraded(uri)
    assert (path.stat().st_ino, path.stat().st_mode & 0o777) == (inode, 0o640)
    assert report.backup == path.with_name(f"mlflow.db.before-upgrade-{DATASETS}")
    assert report.backup.stat().st_mode & 0o777 == 0o600
    assert holding(f"sqlite:///{report.backup}") == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_planner_statistics_and_our_index_are_there_after_an_upgrade(file: tuple[str, Path]) -> None:
    uri, path = file
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE UNIQUE INDEX intelligentscan_idempotency ON tags (value) WHERE key = 'k'")
        connection.execute("ANALYZE")
    upgraded(uri)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT 1 FROM sqlite_stat1 WHERE tbl = 'runs'").fetchone()
        index = "SELECT sql FROM sqlite_master WHERE name = 'intelligentscan_idempotency'"
        assert "WHERE" in connection.execute(index).fetchone()[0]


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_file_that_another_process_has_open_is_not_upgraded(
    file: tuple[str, Path], children: ForkServerContext, mode: str
) -> None:
    uri, path = file
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    before = holding(uri)
    ready, done = children.Event(), children.Event()
    process = children.Process(target=hold_open, args=(str(path), ready, done))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(Refused, match="in use") as caught:
            upgraded(uri)
        assert "end what uses the store" in caught.value.next
        if Path("/proc").is_dir():
            assert caught.value.details == {"processes": [process.pid]}
    finally:
        done.set()
        process.join()
    assert holding(uri) == before
    assert upgraded(uri).changed


def test_a_file_that_this_process_has_open_is_not_upgraded(
    file: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intelligentscan.stores.sqlite_maintenance._WAIT_S", 0.1)
    uri, path = file
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT 1 FROM runs").fetchall()
        with pytest.raises(Refused, match="in use"):
            upgraded(uri)
    assert upgraded(uri).changed


def test_nobody_reads_or_writes_a_file_while_it_is_upgraded(file: tuple[str, Path]) -> None:
    uri, path = file
    refused = []

    def intrude(connection: Connection, facts: UpgradeFacts) -> None:
        for statement in ("SELECT * FROM runs", "UPDATE metrics SET value = 1 WHERE run_uuid = 'r2-0'"):
            with closing(sqlite3.connect(path, timeout=0)) as other:
                try:
                    other.execute(statement)
                except sqlite3.OperationalError as error:
                    refused.append(str(error))
        record(connection, facts)

    upgrade(uri, GovernanceSteps(lambda _: None, intrude))
    assert refused == ["database is locked"] * 2
