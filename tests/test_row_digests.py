"""Row digests: they find every change, and nothing else, on both databases and over schema upgrades."""

import json
import random
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import old_stores
import pytest
from conftest import copy_store
from old_stores import engine_of, fill, put, register
from postgres_server import Postgres
from sqlalchemy import Connection, text

from intelligentscan.domain.errors import StoreBroken
from intelligentscan.stores.row_digests import (
    Difference,
    LeftOut,
    RowsDigest,
    compare,
    experiment_digest,
    recompute,
    version_digest,
)


@pytest.fixture(scope="module")
def filled_file(template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{copy_store(template, tmp_path_factory.mktemp('filled') / 'home') / 'mlflow.db'}"
    fill_store(uri)
    return uri


@pytest.fixture(scope="module")
def filled_database(postgres: Postgres, migrated: str) -> str:
    uri = postgres.uri(postgres.database(migrated))
    fill_store(uri)
    return uri


def fill_store(uri: str) -> None:
    """Write two experiments and a model version."""
    with engine_of(uri).begin() as connection:
        for experiment in (1, 2):
            fill(connection, experiment)
        register(connection, "fraud", 1, "r1-0")


@contextmanager
def changing(uri: str) -> Iterator[Connection]:
    """Open a transaction that is taken back."""
    with engine_of(uri).connect() as connection:
        if uri.startswith("sqlite"):
            connection.exec_driver_sql("BEGIN")
        yield connection
        connection.rollback()


@pytest.fixture(params=["filled_file", "filled_database"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A filled store, in a transaction that is taken back after the test."""
    with changing(request.getfixturevalue(request.param)) as opened:
        yield opened


@pytest.fixture
def on_sqlite(filled_file: str) -> Iterator[Connection]:
    with changing(filled_file) as opened:
        yield opened


@pytest.fixture
def on_postgres(filled_database: str) -> Iterator[Connection]:
    with changing(filled_database) as opened:
        yield opened


def of_one(connection: Connection) -> str:
    return experiment_digest(connection, "1").digest


CHANGES = {
    "experiments": "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE experiment_id = 1",
    "experiment_tags": "UPDATE experiment_tags SET value = 'bob' WHERE experiment_id = 1",
    "runs": "UPDATE runs SET end_time = NULL WHERE run_uuid = 'r1-1'",
    "metrics": "UPDATE metrics SET value = value + 1e-16 WHERE run_uuid = 'r1-0' AND step = 3",
    "latest_metrics": "UPDATE latest_metrics SET step = 18 WHERE run_uuid = 'r1-0' AND key = 'loss'",
    "params": "DELETE FROM params WHERE run_uuid = 'r1-1'",
    "tags": "INSERT INTO tags (key, value, run_uuid) VALUES ('x', '', 'r1-0')",
    "datasets": "UPDATE datasets SET dataset_profile = NULL WHERE experiment_id = 1",
    "inputs": "UPDATE inputs SET step = 5 WHERE destination_id = 'r1-0'",
    "input_tags": "UPDATE input_tags SET value = 'test' WHERE input_uuid = 'ir1-0'",
    "logged_models": "UPDATE logged_models SET status = 3 WHERE model_id = 'm1'",
    "logged_model_tags": "UPDATE logged_model_tags SET tag_value = 'w' WHERE model_id = 'm1' AND tag_key = 't'",
    "logged_model_metrics": "UPDATE logged_model_metrics SET metric_value = 0.91 WHERE model_id = 'm1'",
    "trace_info": "UPDATE trace_info SET status = 'ERROR' WHERE request_id = 'tr1'",
    "trace_tags": "DELETE FROM trace_tags WHERE request_id = 'tr1' AND key = 'kind'",
    "spans": "UPDATE spans SET content = '{ }' WHERE trace_id = 'tr1'",
    "assessments": "UPDATE assessments SET valid = NOT valid WHERE trace_id = 'tr1'",
    "scorer_versions": "UPDATE scorer_versions SET serialized_scorer = '[]' WHERE scorer_id = 's1'",
}


@pytest.mark.parametrize("table", CHANGES)
def test_a_change_is_found_in_its_table_and_nowhere_else(connection: Connection, table: str) -> None:
    document = experiment_digest(connection, "1").document
    assert compare(connection, document) == ()
    connection.exec_driver_sql(CHANGES[table])
    assert [found.table for found in compare(connection, document)] == [table]
    assert of_one(connection) != RowsDigest.from_document(document).digest


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE metrics SET value = 7 WHERE run_uuid = 'r2-0'",
        "UPDATE logged_model_tags SET tag_value = '[1]' WHERE model_id = 'm1' AND tag_key = 'mlflow.modelVersions'",
        "DELETE FROM logged_model_tags WHERE model_id = 'm1' AND tag_key = 'mlflow.modelVersions'",
        "INSERT INTO inputs VALUES ('u', 'RUN_INPUT', 'r2-0', 'MODEL_INPUT', 'm1', 0)",
        "UPDATE model_versions SET description = 'd'",
    ],
)
def test_what_belongs_to_others_or_stays_free_does_not_count(connection: Connection, statement: str) -> None:
    before = of_one(connection)
    connection.exec_driver_sql(statement)
    assert of_one(connection) == before


def test_added_and_removed_rows_are_told_apart(connection: Connection) -> None:
    document = experiment_digest(connection, "1").document
    connection.exec_driver_sql(CHANGES["params"])
    connection.exec_driver_sql(CHANGES["tags"])
    found = compare(connection, document)
    assert found == (Difference("params", "rows removed"), Difference("tags", "rows added"))


def test_a_row_moved_to_another_experiment_is_missed_in_the_one_and_found_in_the_other(connection: Connection) -> None:
    documents = [experiment_digest(connection, number).document for number in ("1", "2")]
    connection.exec_driver_sql("UPDATE runs SET experiment_id = 2 WHERE run_uuid = 'r1-1'")
    assert Difference("runs", "rows removed") in compare(connection, documents[0])
    assert Difference("metrics", "rows added") in compare(connection, documents[1])


def test_the_order_in_which_rows_were_written_does_not_count(connection: Connection) -> None:
    rows = [(f"k{n:03d} {'é' * (n % 3)}", n % 7, n * 0.1) for n in range(300)]
    digests = set()
    for seed in (1, 2):
        connection.exec_driver_sql("DELETE FROM metrics WHERE run_uuid = 'r1-0'")
        random.Random(seed).shuffle(rows)
        for key, step, value in rows:
            put(connection, "metrics", key=key, value=value, timestamp=1, step=step, is_nan=False, run_uuid="r1-0")
        digests.add(of_one(connection))
    assert len(digests) == 1


def test_a_document_survives_its_way_through_json(connection: Connection) -> None:
    made = experiment_digest(connection, "1")
    again = RowsDigest.from_document(json.loads(json.dumps(made.document)))
    assert (again, again.digest) == (made, made.digest)
    assert made.rows == sum(table.rows for table in made.tables) > 60
    version = version_digest(connection, "default", "fraud", 1)
    assert RowsDigest.from_document(version.document) == version
    assert compare(connection, version.document) == ()


@pytest.mark.parametrize(
    "document",
    [{}, {"format": 2, "of": {"experiment_id": "1"}, "tables": {}}, {"format": 1, "of": {}, "tables": {}},
     {"format": 1, "of": {"experiment_id": "1"}, "tables": {"runs": {"columns": []}}}, []],
)  # fmt: skip
def test_a_document_of_another_kind_is_refused(document: object) -> None:
    with pytest.raises(StoreBroken) as caught:
        RowsDigest.from_document(document)  # type: ignore[arg-type]
    assert caught.value.next


def test_the_stage_of_a_version_is_free_and_the_rest_of_it_is_not(connection: Connection) -> None:
    document = version_digest(connection, "default", "fraud", 1).document
    connection.exec_driver_sql("UPDATE model_versions SET current_stage = 'Production', last_updated_time = 9")
    assert compare(connection, document) == ()
    connection.exec_driver_sql("UPDATE model_versions SET source = '/elsewhere'")
    connection.exec_driver_sql("UPDATE model_version_tags SET value = '2'")
    assert [found.table for found in compare(connection, document)] == ["model_version_tags", "model_versions"]


def test_columns_that_a_later_schema_adds_do_not_count_and_lost_ones_do(connection: Connection) -> None:
    document = experiment_digest(connection, "1").document
    connection.exec_driver_sql("ALTER TABLE runs ADD COLUMN later VARCHAR(10) DEFAULT 'x'")
    assert compare(connection, document) == ()
    assert of_one(connection) != RowsDigest.from_document(document).digest
    connection.exec_driver_sql("ALTER TABLE runs DROP COLUMN entry_point_name")
    connection.exec_driver_sql("DROP TABLE input_tags")
    found = compare(connection, document)
    assert found == (Difference("input_tags", "table missing"), Difference("runs", "column missing"))


def test_rows_of_a_table_that_was_not_there_then_are_named(connection: Connection) -> None:
    document = experiment_digest(connection, "1").document
    del document["tables"]["tags"], document["tables"]["issues"]
    assert compare(connection, document) == (Difference("tags", "not covered"),)


def test_what_mlflow_moves_can_be_left_out(connection: Connection) -> None:
    out = LeftOut(frozenset({("trace_tags", "key", "kind")}), frozenset({("spans", "content")}))
    before = experiment_digest(connection, "1", out)
    connection.exec_driver_sql(CHANGES["trace_tags"])
    connection.exec_driver_sql(CHANGES["spans"])
    assert recompute(connection, before, out) == before
    connection.exec_driver_sql("UPDATE trace_tags SET value = 'x' WHERE request_id = 'tr1'")
    assert recompute(connection, before, out) != before


def test_values_of_different_kinds_never_give_the_same_digest(on_sqlite: Connection) -> None:
    values = ["1", b"1", None, "", b"", "é", "e\u0301", "1.5", '{"bytes":"31"}', "a\x00b", "a", "null", "-0.0"]
    digests = set()
    for value in values:
        on_sqlite.exec_driver_sql("UPDATE datasets SET dataset_profile = ? WHERE experiment_id = 1", (value,))
        digests.add(of_one(on_sqlite))
    for number in (3, 1.5, -1.5, b"1", "x", 2**60, 1e300):
        on_sqlite.exec_driver_sql("UPDATE experiments SET creation_time = ? WHERE experiment_id = 1", (number,))
        digests.add(of_one(on_sqlite))
    assert len(digests) == len(values) + 7


def test_text_that_moves_between_columns_is_a_change(connection: Connection) -> None:
    digests = set()
    for key, value in (("ab", "c"), ("a", "bc"), ('a","b', "c"), ("a", '","bc')):
        connection.exec_driver_sql("DELETE FROM params WHERE run_uuid = 'r1-0'")
        put(connection, "params", key=key, value=value, run_uuid="r1-0")
        digests.add(of_one(connection))
    assert len(digests) == 4


def test_bytes_that_are_no_text_give_a_digest_too(on_sqlite: Connection) -> None:
    document = experiment_digest(on_sqlite, "1").document
    digests = set()
    for damaged in (b"\xffA", b"\xfeA"):
        change = "UPDATE params SET value = CAST(? AS TEXT) WHERE run_uuid = 'r1-0'"
        on_sqlite.exec_driver_sql(change, (damaged,))
        assert compare(on_sqlite, document) == (Difference("params", "changed"),)
        digests.add(of_one(on_sqlite))
    assert len(digests) == 2
    assert on_sqlite.exec_driver_sql("SELECT value FROM params WHERE run_uuid = 'r1-1'").scalar() == "3"


def test_numbers_that_are_none_and_endless_ones_are_told_apart(on_postgres: Connection) -> None:
    digests = set()
    for value in ("NaN", "Infinity", "-Infinity", "0", "-0", "5e-324"):
        on_postgres.exec_driver_sql("UPDATE metrics SET value = %s::float8 WHERE key = 'bad'", (value,))
        digests.add(of_one(on_postgres))
    assert len(digests) == 6


def test_a_later_schema_may_hold_the_same_values_in_wider_types(on_postgres: Connection) -> None:
    document = experiment_digest(on_postgres, "1").document
    for change in (
        "ALTER TABLE params ALTER COLUMN value TYPE text",
        "ALTER TABLE assessments ALTER COLUMN valid TYPE bigint USING valid::integer",
        "ALTER TABLE runs ALTER COLUMN end_time TYPE numeric(20)",
    ):
        on_postgres.exec_driver_sql(change)
    assert compare(on_postgres, document) == ()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_json_documents_count_by_their_content(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    if kind == "sqlite":
        uri = f"sqlite:///{tmp_path / 'old.db'}"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        uri = server.uri(server.database())
    old_stores.make_old_store(uri, old_stores.SPAN_COSTS, governed=False)
    with engine_of(uri).connect() as connection:
        digests = []
        for value in ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}', '{"a": 1, "b": [3]}'):
            change = text("UPDATE spans SET dimension_attributes = CAST(:value AS JSON) WHERE trace_id = 'tr1'")
            connection.execute(
                change if kind != "sqlite" else text(change.text.replace("AS JSON", "AS TEXT")), {"value": value}
            )
            digests.append(of_one(connection))
        assert digests[0] == digests[1] != digests[2]


def test_a_table_that_only_this_session_sees_is_not_read(on_postgres: Connection) -> None:
    before = of_one(on_postgres)
    for table in ("params", "runs"):
        on_postgres.exec_driver_sql(f"CREATE TEMPORARY TABLE {table} (LIKE public.{table})")
    assert of_one(on_postgres) == before


def test_many_rows_are_digested_in_little_memory(template: Path, tmp_path: Path) -> None:
    home = copy_store(template, tmp_path / "home")
    with closing(sqlite3.connect(home / "mlflow.db")) as raw, raw:
        raw.execute("INSERT INTO experiments (experiment_id, name, workspace) VALUES (1, 'big', 'default')")
        raw.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', 1)")
        raw.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) INSERT INTO metrics"
            " (key, value, timestamp, step, is_nan, run_uuid) SELECT 'loss', i * 0.1, i, i, 0, 'r' FROM n"
        )
    with engine_of(f"sqlite:///{home / 'mlflow.db'}").connect() as connection:
        experiment_digest(connection, "0")
        tracemalloc.start()
        try:
            assert experiment_digest(connection, "1").rows == 100_002
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()
