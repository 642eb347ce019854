"""Schema upgrades: nothing locked changes, the guards hold again, and whatever goes wrong takes all of it back."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from old_stores import DATASETS, LOGGED_MODELS, SPAN_COSTS, OldStores, engine_of
from postgres_server import Postgres
from sqlalchemy import Connection
from upgrade_work import holding, record, upgraded

from intelligentscan.domain.errors import GuardsBroken, NotPermitted, Refused, StoreBroken, StoreUnavailable
from intelligentscan.stores import mlflow_upgrade
from intelligentscan.stores.governance.tables import governance_tables
from intelligentscan.stores.guards import install as guards
from intelligentscan.stores.guards.inventory import inspect
from intelligentscan.stores.mlflow_schema import schema_facts
from intelligentscan.stores.mlflow_upgrade import GovernanceSteps, UpgradeFacts, upgrade
from intelligentscan.stores.row_digests import experiment_digest, version_digest

pytest_plugins = ("upgrade_fixtures",)


def rows(connection: Connection, statement: str) -> list[Any]:
    return [tuple(row) for row in connection.exec_driver_sql(statement)]


KEPT = (
    "SELECT key, value, timestamp, step, run_uuid FROM metrics ORDER BY run_uuid, key, step",
    "SELECT key, value, run_uuid FROM params ORDER BY run_uuid, key",
    "SELECT key, value, run_uuid FROM tags ORDER BY run_uuid, key",
    "SELECT run_uuid, status, name, artifact_uri, experiment_id FROM runs ORDER BY run_uuid",
    "SELECT input_uuid, source_id, destination_id FROM inputs ORDER BY input_uuid",
    "SELECT name, version, source, run_id, current_stage FROM model_versions ORDER BY name",
)
ATTACKS = (
    "UPDATE metrics SET value = 77 WHERE run_uuid = 'r1-0'",
    "DELETE FROM params WHERE run_uuid = 'r1-1'",
    "INSERT INTO tags (key, value, run_uuid) VALUES ('late', 'x', 'r1-0')",
    "UPDATE runs SET experiment_id = 2 WHERE run_uuid = 'r1-0'",
    "UPDATE runs SET experiment_id = 1 WHERE run_uuid = 'r2-0'",
    "INSERT INTO runs (run_uuid, experiment_id, lifecycle_stage) VALUES ('new', 1, 'active')",
    "DELETE FROM input_tags WHERE input_uuid = 'ir1-0'",
    "UPDATE experiments SET name = 'free' WHERE experiment_id = 1",
    "UPDATE model_versions SET source = '/mine' WHERE name = 'fraud'",
    "INSERT INTO model_versions (name, version, workspace) VALUES ('fraud', 2, 'default')",
    "DELETE FROM model_version_tags WHERE name = 'fraud'",
)


@pytest.mark.parametrize("revision", [DATASETS, LOGGED_MODELS, SPAN_COSTS])
def test_a_locked_experiment_is_the_same_and_as_guarded_after_an_upgrade(old: OldStores, revision: str) -> None:
    uri = old.store(revision)
    engine = engine_of(uri)
    with engine.connect() as connection:
        before = [rows(connection, query) for query in KEPT]
        facts = schema_facts(connection)
        assert (facts.current, facts.known, facts.at_head) == (revision, True, False)
        assert (facts.would_migrate, "job_locks" in facts.missing_tables) == (True, True)
    report = upgraded(uri)
    assert (report.changed, report.facts.revision_before, report.facts.adopted) == (True, revision, False)
    with engine.connect() as connection:
        assert [rows(connection, query) for query in KEPT] == before
        facts = schema_facts(connection)
        assert facts.at_head
        assert (facts.current, facts.would_migrate) == (report.facts.revision_after, False)
        assert inspect(connection).ok
        experiment, version = report.facts.kept
        assert experiment.after == experiment_digest(connection, "1")
        assert version.after == version_digest(connection, "default", "fraud", 1)
        event = governance_tables(connection.dialect.name).event
        body = json.loads(connection.execute(sqlalchemy.select(event.c.body).where(event.c.seq == 2)).scalar_one())
        assert body == report.facts.document
        assert [each["rows_digest"] for each in body["kept"]] == [experiment.after.digest, version.after.digest]
    for attack in ATTACKS:
        with engine.connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            connection.exec_driver_sql(attack)
        assert any(code in str(caught.value) for code in ("EXPERIMENT_LOCKED", "VERSION_SEALED", "TICKET_REQUIRED"))


def test_plain_mlflow_works_on_an_upgraded_store_and_is_refused_in_the_locked_experiment(old: OldStores) -> None:
    from mlflow import MlflowClient, MlflowException

    uri = old.store()
    upgraded(uri)
    client = MlflowClient(tracking_uri=uri)
    run = client.create_run("2")
    client.log_metric(run.info.run_id, "loss", 0.5)
    client.log_param("r2-0", "width", 3)
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.5}
    assert client.get_run("r1-0").data.metrics["loss"] == 1.9
    for refused in (lambda: client.create_run("1"), lambda: client.log_metric("r1-0", "loss", 0.0)):
        with pytest.raises(MlflowException, match="continue in 'risk-1-v2'"):
            refused()


def test_what_mlflow_moves_within_traces_is_no_difference_but_anything_else_is(
    old: OldStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = old.store(SPAN_COSTS)
    migrate = mlflow_upgrade.migrate

    def meddling(connection: Connection) -> None:
        migrate(connection)
        connection.exec_driver_sql("DELETE FROM trace_request_metadata WHERE request_id = 'tr1' AND key = 'note'")

    monkeypatch.setattr(mlflow_upgrade, "migrate", meddling)
    with pytest.raises(StoreBroken, match=r"trace_request_metadata \(rows removed\)"):
        upgraded(uri)
    monkeypatch.undo()
    report = upgraded(uri)
    assert {"spans", "trace_tags"} <= set(report.facts.moved)
    with engine_of(uri).connect() as connection:
        found = rows(connection, "SELECT trace_name, session_id, input_tokens FROM trace_info WHERE request_id = 'tr1'")
        assert found == [("answer", "s-1", 12)]
        assert rows(connection, "SELECT value FROM trace_request_metadata WHERE request_id = 'tr1'") == [("n",)]


@pytest.mark.parametrize(
    ("meddle", "named"),
    [
        ("UPDATE metrics SET value = value * 2 WHERE run_uuid = 'r1-0'", r"experiment 1: metrics \(changed\)"),
        ("DELETE FROM params WHERE run_uuid = 'r1-0'", r"params \(rows removed\)"),
        ("UPDATE model_versions SET run_link = 'x' WHERE name = 'fraud'", r"version 1 of 'fraud': model_versions"),
    ],
)
def test_an_upgrade_that_would_change_what_is_kept_changes_nothing(
    old: OldStores, monkeypatch: pytest.MonkeyPatch, meddle: str, named: str
) -> None:
    uri = old.store()
    before = holding(uri)
    migrate = mlflow_upgrade.migrate

    def meddling(connection: Connection) -> None:
        migrate(connection)
        connection.exec_driver_sql(meddle)

    monkeypatch.setattr(mlflow_upgrade, "migrate", meddling)
    with pytest.raises(StoreBroken, match=named) as caught:
        upgraded(uri)
    assert "Nothing was changed" in caught.value.message
    assert holding(uri) == before


def test_the_rest_of_the_store_may_change(old_files: OldStores, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = old_files.store()
    migrate = mlflow_upgrade.migrate

    def changing(connection: Connection) -> None:
        migrate(connection)
        connection.exec_driver_sql("UPDATE metrics SET value = 5 WHERE run_uuid = 'r2-0'")

    monkeypatch.setattr(mlflow_upgrade, "migrate", changing)
    assert upgraded(uri).changed


def test_a_second_upgrade_finds_nothing_to_do(old: OldStores) -> None:
    uri = old.store()
    upgraded(uri)
    before = holding(uri)
    report = upgraded(uri)
    assert (report.changed, report.backup) == (False, None)
    assert holding(uri) == before


def test_missing_guards_are_put_back_and_the_record_says_so(old: OldStores) -> None:
    uri = old.store()
    upgraded(uri)
    with engine_of(uri).begin() as connection:
        guards.drop(connection)
    report = upgraded(uri)
    assert report.changed
    assert report.facts.guards_before["missing"]
    assert report.facts.document["guards_before"]["missing"]
    with engine_of(uri).connect() as connection:
        assert inspect(connection).ok


def test_a_store_without_governance_stays_without_unless_it_is_adopted(old: OldStores) -> None:
    uri = old.store(governed=False)
    report = upgraded(uri)
    assert (report.changed, report.facts.governance_after, report.facts.kept) == (True, None, ())
    with engine_of(uri).connect() as connection:
        assert not [name for name in sqlalchemy.inspect(connection).get_table_names() if name.startswith("gov")]
        assert schema_facts(connection).at_head
    report = upgraded(uri, adopt=True)
    assert (report.changed, report.facts.adopted, report.facts.governance_before) == (True, True, None)
    with engine_of(uri).connect() as connection:
        assert inspect(connection).ok
    assert not upgraded(uri, adopt=True).changed


def test_a_check_that_fails_stops_the_upgrade_before_anything_happens(old_files: OldStores) -> None:
    uri = old_files.store()
    before = holding(uri)

    def check(connection: Connection) -> None:
        assert inspect(connection).ok
        raise GuardsBroken("The trail does not verify.", next="look at it.")

    with pytest.raises(GuardsBroken):
        upgraded(uri, check=check)
    assert holding(uri) == before


def test_a_record_that_fails_takes_the_upgrade_back(old: OldStores) -> None:
    uri = old.store()
    before = holding(uri)

    def failing(connection: Connection, facts: UpgradeFacts) -> None:
        record(connection, facts)
        raise OSError("the key cannot be read")

    with pytest.raises(OSError, match="key"):
        upgrade(uri, GovernanceSteps(lambda _: None, failing))
    assert holding(uri) == before


def test_a_schema_that_a_newer_mlflow_made_is_left_alone(old_files: OldStores) -> None:
    uri = old_files.store()
    with engine_of(uri).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        assert not schema_facts(connection).known
    before = holding(uri)
    with pytest.raises(StoreBroken, match="newer MLflow"):
        upgraded(uri)
    assert holding(uri) == before


def test_a_migration_that_fails_says_why_and_changes_nothing(old: OldStores) -> None:
    uri = old.store()
    with engine_of(uri).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE spans (id INTEGER)")  # which a migration wants to make
    before = holding(uri)
    with pytest.raises(StoreBroken, match=r"spans.*already exists.*Nothing was changed"):
        upgraded(uri)
    assert holding(uri) == before


def test_a_connection_that_is_cut_takes_the_upgrade_back(
    old_databases: OldStores, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = old_databases.store()
    before = holding(uri)
    migrate = mlflow_upgrade.migrate

    def cut(connection: Connection) -> None:
        migrate(connection)
        process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        postgres.sql(f"SELECT pg_terminate_backend({process})")

    monkeypatch.setattr(mlflow_upgrade, "migrate", cut)
    with pytest.raises(StoreUnavailable, match="as a whole or not"):
        upgraded(uri)
    monkeypatch.undo()
    assert holding(uri) == before
    assert upgraded(uri).changed


def test_tables_that_somebody_removed_are_not_made_up_for(old_files: OldStores) -> None:
    uri = old_files.store()
    upgraded(uri)
    with engine_of(uri).begin() as connection:
        connection.exec_driver_sql("DROP TABLE webhook_events")
        assert schema_facts(connection).would_migrate
    with pytest.raises(StoreBroken, match="webhook_events"):
        upgraded(uri)


def test_stores_elsewhere_and_places_without_a_store_are_refused(tmp_path: Path, postgres: Postgres) -> None:
    with pytest.raises(Refused, match="SQLite and PostgreSQL"):
        upgraded("mysql://u@h/d")
    with pytest.raises(StoreBroken, match="no store at"):
        upgraded(f"sqlite:///{tmp_path / 'none.db'}")
    sqlite3.connect(tmp_path / "empty.db").close()
    for uri in (f"sqlite:///{tmp_path / 'empty.db'}", postgres.uri(postgres.database())):
        with pytest.raises(StoreBroken, match="no MLflow schema"):
            upgraded(uri)
    with pytest.raises(StoreUnavailable):
        upgraded("postgresql+psycopg://nobody@127.0.0.1:1/x")
    (tmp_path / "text.db").write_text("not a database, but long enough to be taken for one " * 20)
    with pytest.raises(StoreBroken):
        upgraded(f"sqlite:///{tmp_path / 'text.db'}")
    assert not list(tmp_path.glob(".*"))


def test_on_postgresql_only_the_owner_of_the_tables_upgrades(old_databases: OldStores, postgres: Postgres) -> None:
    uri = old_databases.store()
    name = sqlalchemy.make_url(uri).database
    assert name is not None
    for role in ("up_owner", "up_clerk", "up_admin"):
        postgres.sql(f"CREATE ROLE {role} LOGIN")
    try:
        postgres.sql("GRANT up_owner TO up_admin")
        postgres.sql(f"GRANT CREATE ON DATABASE {name} TO up_owner")
        for schema in ("public", "gov"):
            postgres.sql(f"ALTER SCHEMA {schema} OWNER TO up_owner", name)
            tables = f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'"  # noqa: S608
            for (table,) in postgres.sql(tables, name):
                postgres.sql(f"ALTER TABLE {schema}.{table} OWNER TO up_owner", name)
        functions = "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'gov'::regnamespace"
        for (function,) in postgres.sql(functions, name):
            postgres.sql(f"ALTER FUNCTION {function} OWNER TO up_owner", name)
        postgres.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO up_clerk", name)
        before = holding(uri)
        with pytest.raises(NotPermitted, match="up_owner"):
            upgraded(postgres.uri(name, "up_clerk"))
        assert holding(uri) == before
        assert upgraded(postgres.uri(name, "up_admin")).changed
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'gov')"
        assert postgres.sql(owners, name) == [("up_owner",)]
        with engine_of(uri).connect() as connection:
            assert inspect(connection).ok
    finally:
        postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")
        for role in ("up_admin", "up_clerk", "up_owner"):
            postgres.sql(f"DROP ROLE {role}")


def test_on_postgresql_an_open_transaction_of_somebody_else_refuses_the_upgrade(
    old_databases: OldStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = old_databases.store()
    before = holding(uri)
    monkeypatch.setattr(mlflow_upgrade, "_LOCK_PATIENCE", "200ms")
    with engine_of(uri).connect() as writer:
        writer.exec_driver_sql("INSERT INTO params (key, value, run_uuid) VALUES ('open', '1', 'r2-0')")
        with pytest.raises(Refused, match="in use") as caught:
            upgraded(uri)
        assert "repeat" in caught.value.next
        writer.rollback()
    assert holding(uri) == before
    assert upgraded(uri).changed
