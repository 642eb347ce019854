"""Rows that govern against the events that made them, on SQLite and on PostgreSQL: forged, changed, missing."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from postgres_server import Postgres
from sqlalchemy import Connection, Engine, event, insert, text
from trail_samples import Trail, new_key

from intelligentscan.stores.governance.chain import row_from_record, text_digest
from intelligentscan.stores.governance.export import stored_events
from intelligentscan.stores.governance.records import Subject
from intelligentscan.stores.governance.report import RowReport, Unreadable
from intelligentscan.stores.governance.row_check import verify_rows
from intelligentscan.stores.governance.subject_check import verify_subject
from intelligentscan.stores.governance.tables import GovernanceTables, governance_tables, table_name
from intelligentscan.stores.governance.verify import verify_chain

MODEL = Subject(workspace="default", name="fraud")
FIRST = Subject(workspace="default", name="fraud", version=1)
EXPERIMENT = Subject(experiment_id="17")
SALT = b"0123456789abcdef"


class Governed:
    """A governance database without guards, holding a trail."""

    def __init__(self, engine: Engine, trail: Trail) -> None:
        self.engine = engine
        self.trail = trail
        self.tables: GovernanceTables = governance_tables(engine.dialect.name)
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("CREATE SCHEMA gov"))
            self.tables.metadata.create_all(connection)
            insert_events(connection, self.tables, trail, since=1)

    def sql(self, statement: str) -> None:
        """Run a statement in which {seal} stands for the table's name, as the owner of the file or table can."""
        names = {name: table_name(name, self.engine.dialect.name) for name in ("event", *NAMES)}
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL session_replication_role = replica"))  # as without foreign keys
            connection.execute(text(statement.format(**names)))

    def rows(self) -> RowReport:
        with self.engine.begin() as connection:
            return verify_rows(connection, self.tables)

    def about(self, subject: Subject) -> RowReport:
        keys = verify_chain(self.trail.events).keys
        with self.engine.begin() as connection:
            return verify_subject(connection, self.tables, subject, keys)

    def statements(self, act: Any) -> int:
        """Return how many statements a check takes."""
        seen: list[str] = []

        def count(_: Any, __: Any, statement: str, *___: Any) -> None:
            seen.append(statement)

        event.listen(self.engine, "before_cursor_execute", count)
        try:
            assert act().ok
        finally:
            event.remove(self.engine, "before_cursor_execute", count)
        return len(seen)


NAMES = (
    "signing_key", "ticket", "ticket_close", "experiment_lock", "experiment_unlock", "governed_model", "seal",
    "legacy_version", "stage", "alias", "quarantine", "retention", "principal_name", "free_text",
)  # fmt: skip


def insert_events(connection: Connection, tables: GovernanceTables, trail: Trail, since: int) -> None:
    for made in trail.events[since - 1 :]:
        connection.execute(insert(tables.event).values(**row_from_record(made)))
        for name, rows in made.body["rows"].items():
            for row in rows:
                connection.execute(insert(tables.projection(name)).values(event=made.seq, **row))
        for field in made.body["text"]:
            row = {"event": made.seq, "field": field, "salt": SALT.hex(), "text": "because"}
            connection.execute(insert(tables.free_text).values(**row))


def register(trail: Trail, name: str, version: int, experiment: int) -> None:
    """Add the events of one registration."""
    place = {"workspace": "default", "name": name, "version": version}
    ticket = {
        **place, "ticket_id": f"{name}-{version}", "run_id": "r" * 32, "source": "archive:/x",
        "manifest_digest": "d" * 64, "requester": "p", "expires": 9,
    }  # fmt: skip
    seal = {
        **place, "run_id": "r" * 32, "experiment_id": experiment, "source": "archive:/x", "origin": "runs:/y",
        "manifest_digest": "d" * 64, "rows_digest": "e" * 64,
    }  # fmt: skip
    lock = {
        "experiment_id": experiment, "experiment_name": f"e{experiment}", "next_experiment": f"e{experiment}-v2",
        "rows_digest": "f" * 64, "files_digest": "f" * 64,
    }  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {"ticket": [ticket]}
    if version == 1:
        rows["governed_model"] = [{"workspace": "default", "name": name}]
    trail.append("ticket.opened", {"rows": rows}, **place)
    rows = {
        "ticket_close": [{"ticket_id": ticket["ticket_id"]}],
        "seal": [seal],
        "experiment_lock": [lock],
        "retention": [{**place, "until": 10**13, "hold": 0}],
    }
    reason = {"text": {"reason": text_digest(SALT, "because")}}
    trail.append("version.registered", {"rows": rows, **reason}, experiment_id=str(experiment), **place)
    rows = {
        "stage": [{**place, "stage": "Production"}],
        "alias": [
            {"workspace": "default", "name": name, "alias": "champion", "version": version},
            {"workspace": "default", "name": name, "alias": "previous", "version": None},
        ],
    }
    trail.append("version.promoted", {"rows": rows}, **place)


def a_trail() -> Trail:
    trail = Trail()
    register(trail, "fraud", 1, 17)
    locked = trail.events[2].seq
    trail.append("experiment.unlocked", {"rows": {"experiment_unlock": [{"lock_event": locked}]}}, experiment_id="17")
    trail.rotate()
    place = {"workspace": "default", "name": "fraud"}
    legacy = [{**place, "version": n} for n in (7, 8, 9)]
    trail.append("model.adopted", {"rows": {"legacy_version": legacy}}, **place)
    trail.append("version.quarantined", {"rows": {"quarantine": [{**place, "version": 1}]}}, **place, version=1)
    register(trail, "fraud", 2, 18)
    register(trail, "other", 1, 19)
    return trail


@pytest.fixture(params=["sqlite", "postgresql"])
def governed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Governed]:
    if request.param == "sqlite":
        engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path_factory.mktemp('rows')}/gov.db")
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        engine = sqlalchemy.create_engine(postgres.uri(postgres.database()))
    yield Governed(engine, a_trail())
    engine.dispose()


def codes(report: RowReport) -> list[str]:
    assert report.problem_count >= len(report.problems)
    assert report.ok == (not report.problems)
    return sorted(problem.code for problem in report.problems)


def test_rows_that_the_events_made_are_found_to_agree(governed: Governed) -> None:
    report = governed.rows()
    assert report.problems == ()
    assert (report.events, report.rows) == (len(governed.trail.events), 33)
    for subject, rows in ((MODEL, 19), (FIRST, 10), (EXPERIMENT, 2), (Subject(experiment_id="18"), 1)):
        found = governed.about(subject)
        assert found.problems == ()
        assert found.rows == rows
    for nothing in (Subject(workspace="x", name="fraud"), Subject(experiment_id="x"), Subject(experiment_id="9" * 30)):
        assert (governed.about(nothing).ok, governed.about(nothing).rows) == (True, 0)


def test_stored_events_come_out_as_they_were_signed(governed: Governed) -> None:
    with governed.engine.begin() as connection:
        assert list(stored_events(connection, governed.tables)) == governed.trail.events
        assert list(stored_events(connection, governed.tables, since=5)) == governed.trail.events[4:]
        assert verify_chain(stored_events(connection, governed.tables)).ok


SEAL = (
    "INSERT INTO {{seal}} (event, workspace, name, version, run_id, experiment_id, source, origin, manifest_digest, "
    "rows_digest) VALUES ({event}, 'default', 'fraud', 5, 'r', 17, 's', 'o', 'm', 'd')"
)
TAMPERING = {
    "a seal that no event made": (SEAL.format(event=3), ["FORGED_ROW"]),
    "a seal of an event that made nothing": (SEAL.format(event=6), ["FORGED_ROW"]),
    "a seal of an event to come": (SEAL.format(event=4000), ["FORGED_ROW"]),
    "a seal of no event": (SEAL.format(event=0), ["FORGED_ROW"]),
    "a seal of an event before the first": (SEAL.format(event=-3), ["FORGED_ROW"]),
    "a stage forged beside the real one": (
        "INSERT INTO {stage} (event, workspace, name, version, stage) VALUES (3, 'default', 'fraud', 1, 'Production')",
        ["FORGED_ROW"],
    ),
    "a changed digest": (
        "UPDATE {seal} SET manifest_digest = 'x' WHERE name = 'fraud' AND version = 1", ["CHANGED_ROW"],
    ),
    "a changed stage": ("UPDATE {stage} SET stage = 'Staging' WHERE name = 'fraud' AND version = 1", ["CHANGED_ROW"]),
    "an alias moved to nothing": (
        "UPDATE {alias} SET version = NULL WHERE name = 'fraud' AND version = 1", ["CHANGED_ROW"],
    ),
    "an alias given to a version": (
        "UPDATE {alias} SET version = 1 WHERE name = 'fraud' AND event = 4 AND version IS NULL", ["CHANGED_ROW"],
    ),
    "a renamed row": (
        "UPDATE {retention} SET version = 3 WHERE name = 'fraud' AND version = 1", ["FORGED_ROW", "MISSING_ROW"],
    ),
    "a row moved to another event": (
        "UPDATE {quarantine} SET event = 6 WHERE name = 'fraud'", ["FORGED_ROW", "MISSING_ROW"],
    ),
    "a quarantine taken away": ("DELETE FROM {quarantine}", ["MISSING_ROW"]),
    "a ticket opened again": ("DELETE FROM {ticket_close} WHERE ticket_id = 'fraud-1'", ["MISSING_ROW"]),
    "a hold lifted": ("UPDATE {retention} SET hold = 7 WHERE name = 'fraud' AND version = 1", ["CHANGED_ROW"]),
    "a governed model set free": ("DELETE FROM {governed_model} WHERE name = 'fraud'", ["MISSING_ROW"]),
    "legacy versions taken away": ("DELETE FROM {legacy_version} WHERE version > 7", ["MISSING_ROW", "MISSING_ROW"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_with_the_rows_of_a_model_is_found(governed: Governed, kind: str) -> None:
    statement, expected = TAMPERING[kind]
    governed.sql(statement)
    assert codes(governed.rows()) == expected
    assert not governed.about(MODEL).ok
    if kind == "a row moved to another event" or "version = 1" in statement:
        assert not governed.about(FIRST).ok
    assert governed.about(Subject(workspace="default", name="other")).ok
    assert governed.about(EXPERIMENT).ok


LOCKS = {
    "a lock taken away": ("DELETE FROM {experiment_lock} WHERE experiment_id = 17", ["MISSING_ROW"]),
    "a lock of another experiment": (
        "UPDATE {experiment_lock} SET experiment_id = 99 WHERE experiment_id = 17", ["CHANGED_ROW"],
    ),
    "a lock that leads elsewhere": (
        "UPDATE {experiment_lock} SET next_experiment = 'x' WHERE experiment_id = 17", ["CHANGED_ROW"],
    ),
    "an unlock taken away": ("DELETE FROM {experiment_unlock}", ["MISSING_ROW"]),
    "an unlock turned to another lock": (
        "UPDATE {experiment_unlock} SET lock_event = 2", ["FORGED_ROW", "MISSING_ROW"],
    ),
    "a forged unlock": ("INSERT INTO {experiment_unlock} (event, lock_event) VALUES (9, 11)", ["FORGED_ROW"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOCKS)
def test_tampering_with_locks_is_found(governed: Governed, kind: str) -> None:
    statement, expected = LOCKS[kind]
    if kind == "a forged unlock":
        locked = next(e.seq for e in governed.trail.events if e.experiment_id == "18")
        statement = statement.replace("11", str(locked))
    governed.sql(statement)
    assert codes(governed.rows()) == expected
    assert not governed.about(Subject(experiment_id="18") if kind == "a forged unlock" else EXPERIMENT).ok
    assert governed.about(Subject(experiment_id="19")).ok


def test_an_event_that_was_edited_no_longer_vouches_for_its_rows(governed: Governed) -> None:
    governed.sql("UPDATE {event} SET body = replace(body, 'Production', 'Archived__') WHERE seq = 4")
    assert codes(governed.rows()) == ["CHANGED_ROW"]
    governed.sql("UPDATE {stage} SET stage = 'Archived__' WHERE event = 4")
    assert governed.rows().ok
    assert "EDITED" in codes(governed.about(FIRST))
    with governed.engine.begin() as connection:
        assert not verify_chain(stored_events(connection, governed.tables)).ok


def test_an_event_forged_by_a_stranger_does_not_vouch_for_its_rows(governed: Governed) -> None:
    forged = Trail(keys=[new_key()], events=[governed.trail.head])
    place = {"workspace": "default", "name": "fraud", "version": 1}
    forged.append("version.promoted", {"rows": {"stage": [{**place, "stage": "Production"}]}}, **place)
    with governed.engine.begin() as connection:
        insert_events(connection, governed.tables, forged, since=2)
    assert governed.rows().ok
    assert codes(governed.about(FIRST)) == ["BAD_SIGNATURE"]
    with governed.engine.begin() as connection:
        report = verify_chain(stored_events(connection, governed.tables))
    assert [problem.code for problem in report.problems] == ["UNKNOWN_KEY"]


@pytest.mark.parametrize("body", ["x", "[]", '{"rows":7}', '{"rows":{"nothing":[]}}', '{"rows":{"seal":[7]}}',
    '{"rows":{"seal":[{"more":1}]}}', '{"rows":{"seal":[{"name":{}}]}}', '{"rows":{"seal":7}}',
    '{"rows":{"signing_key":[]}}', '{"b":1,"a":1}'])  # fmt: skip
def test_a_body_without_proper_rows_vouches_for_none(governed: Governed, body: str) -> None:
    event = governed.tables.event
    with governed.engine.begin() as connection:
        connection.execute(event.update().where(event.c.seq == 4).values(body=body))
    assert codes(governed.rows()) == ["BAD_ROWS", "FORGED_ROW", "FORGED_ROW", "FORGED_ROW"]
    assert "FORGED_ROW" in codes(governed.about(FIRST))


def test_a_removed_event_leaves_its_rows_without_a_maker(governed: Governed) -> None:
    governed.sql("DELETE FROM {event} WHERE seq = 4")
    assert codes(governed.rows()) == ["FORGED_ROW"] * 3
    assert codes(governed.about(FIRST)) == ["FORGED_ROW"] * 3
    last = len(governed.trail.events)
    governed.sql(f"DELETE FROM {{event}} WHERE seq = {last}")  # noqa: S608
    assert codes(governed.rows()) == ["FORGED_ROW"] * 6


def test_erased_text_is_no_problem_and_changed_text_is(governed: Governed) -> None:
    governed.sql("DELETE FROM {free_text} WHERE event = 3")
    assert governed.rows().ok
    last = len(governed.trail.events) - 1
    for change in ("text = 'something else'", "salt = '00'", "salt = 'no digits'", "field = 'other'"):
        governed.sql(f"UPDATE {{free_text}} SET {change} WHERE event = {last}")  # noqa: S608
        assert codes(governed.rows()) == ["CHANGED_TEXT"]


def test_forged_rows_are_counted_and_only_the_first_are_kept(governed: Governed) -> None:
    dialect = governed.engine.dialect.name
    numbers = (
        "SELECT n FROM generate_series(100, 1099) AS n" if dialect == "postgresql" else
        "WITH RECURSIVE c(n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM c WHERE n < 1099) SELECT n FROM c"
    )  # fmt: skip
    for seq in (6, 7000):
        values = f"SELECT {seq}, 'default', 'fraud', n, 'Production' FROM ({numbers}) AS numbers"  # noqa: S608
        governed.sql("INSERT INTO {stage} (event, workspace, name, version, stage) " + values)
    report = governed.rows()
    assert (report.problem_count, len(report.problems)) == (2000, 100)


def test_the_number_of_statements_does_not_grow_with_the_trail(governed: Governed) -> None:
    few = governed.statements(governed.rows)
    few_about = [governed.statements(lambda s=s: governed.about(s)) for s in (FIRST, MODEL, EXPERIMENT)]
    since = len(governed.trail.events) + 1
    for number in range(20, 60):
        register(governed.trail, "more", number, number)
        register(governed.trail, "fraud", number, 100 + number)
    with governed.engine.begin() as connection:
        insert_events(connection, governed.tables, governed.trail, since)
    assert governed.statements(governed.rows) == few
    assert [governed.statements(lambda s=s: governed.about(s)) for s in (FIRST, MODEL, EXPERIMENT)] == few_about
    assert few <= 50
    assert max(few_about) <= 16


def test_events_appended_while_the_rows_are_read_are_no_problem(governed: Governed) -> None:
    if governed.engine.dialect.name == "sqlite":
        with governed.engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    since = len(governed.trail.events) + 1
    appended: list[str] = []

    def append(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "SELECT" in statement and not appended:
            appended.append(statement)
            register(governed.trail, "late", 1, 50)
            with governed.engine.begin() as other:
                insert_events(other, governed.tables, governed.trail, since)

    event.listen(governed.engine, "after_cursor_execute", append)
    try:
        report = governed.rows()
    finally:
        event.remove(governed.engine, "after_cursor_execute", append)
    assert (report.problems, report.events) == ((), since - 1)
    assert governed.rows().events == since + 2


def test_values_that_only_sqlite_lets_in_are_found(tmp_path: Any) -> None:
    for change, expected in (
        ("UPDATE {event} SET body = CAST(x'ff' AS TEXT) WHERE seq = 4", "UNREADABLE"),
        ("UPDATE {event} SET body = CAST(x'ff' AS TEXT), seq = 'four' WHERE seq = 4", "FORGED_ROW"),
        ("UPDATE {event} SET at = 'soon' WHERE seq = 4", "UNREADABLE"),
        ("UPDATE {event} SET seq = 'four' WHERE seq = 4", "FORGED_ROW"),
        ("UPDATE {stage} SET event = 'four' WHERE event = 4", "FORGED_ROW"),
        ("UPDATE {stage} SET stage = x'00ff' WHERE event = 4", "CHANGED_ROW"),
        ("UPDATE {stage} SET stage = CAST(x'ff' AS TEXT) WHERE event = 4", "UNREADABLE"),
        ("UPDATE {stage} SET version = 'one' WHERE event = 4", "FORGED_ROW"),
    ):
        file = tmp_path / "odd.db"
        file.unlink(missing_ok=True)
        engine = sqlalchemy.create_engine(f"sqlite:///{file}")
        governed = Governed(engine, a_trail())
        governed.sql(change)
        assert expected in codes(governed.rows())
        assert not governed.about(MODEL).ok
        if "{event}" in change:
            with engine.begin() as connection:
                found = list(stored_events(connection, governed.tables))
                assert not verify_chain(found).ok
                assert [entry.place for entry in found if isinstance(entry, Unreadable)] in (
                    ["the entry after event 3"],
                    [f"the entry after event {len(governed.trail.events)}"],
                )
                assert len(found) == len(governed.trail.events)
        engine.dispose()


def test_a_database_that_cannot_be_read_is_an_error_and_not_a_finding(tmp_path: Any) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/empty.db")
    tables = governance_tables("sqlite")
    with engine.begin() as connection:
        for act in (
            lambda: verify_rows(connection, tables), lambda: verify_subject(connection, tables, MODEL),
            lambda: list(stored_events(connection, tables)),
        ):  # fmt: skip
            with pytest.raises(sqlalchemy.exc.OperationalError):
                act()
    engine.dispose()
