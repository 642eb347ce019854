"""PostgreSQL roles: MLflow works with the app role, the guards hold against it, each role reaches what it should."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from child_work import as_nobody
from conftest import plain_mlflow
from old_stores import engine_of, event, fill, lock, register
from postgres_server import Postgres
from sqlalchemy import Connection
from upgrade_work import holding, reach_of_file, upgraded

from intelligentscan.domain.errors import InvalidArgument, NotAdopted, NotPermitted, Refused
from intelligentscan.stores.governance.migrations import migrate
from intelligentscan.stores.governance.reach import reach
from intelligentscan.stores.governance.roles import RoleNames, for_administrator, init_roles
from intelligentscan.stores.governance.tables import governance_tables
from intelligentscan.stores.guards import install as guards
from intelligentscan.stores.guards.inventory import inspect

ROLES = ("owner", "app", "npta", "auditor")


def names(prefix: str) -> RoleNames:
    return RoleNames(*(f"{prefix}_{role}" for role in ROLES))


@dataclass(frozen=True)
class Split:
    """A governed store on PostgreSQL, experiment 1 locked, with the four roles."""

    server: Postgres
    database: str
    names: RoleNames

    def uri(self, role: str) -> str:
        return self.server.uri(self.database, getattr(self.names, role))

    @contextmanager
    def connected(self, role: str) -> Iterator[Connection]:
        """Connect as a role, in a transaction that is taken back."""
        with engine_of(self.uri(role)).connect() as connection:
            yield connection

    def sql(self, statement: str) -> list[Any]:
        return self.server.sql(statement, self.database)

    def holding(self) -> str:
        return holding(self.server.uri(self.database))


def govern(uri: str) -> None:
    """Add governance tables, a lock of experiment 1, the governed model `fraud`, and the guards."""
    with engine_of(uri).begin() as connection:
        migrate(connection)
        guards.drop(connection)
        for experiment in (1, 2):
            fill(connection, experiment)
        connection.exec_driver_sql("SELECT setval('experiments_experiment_id_seq', 2)")
        register(connection, "fraud", 1, "r1-0")
        lock(connection)
        guards.install(connection)


def split_store(server: Postgres, database: str, prefix: str) -> Split:
    uri = server.uri(database)
    govern(uri)
    made = names(prefix)
    with engine_of(uri).begin() as connection:
        init_roles(connection, made)
    for role in made.every:
        server.sql(f"ALTER ROLE {role} LOGIN")
    return Split(server, database, made)


@pytest.fixture(scope="module")
def split(postgres: Postgres, migrated: str) -> Split:
    return split_store(postgres, postgres.database(migrated), "kept")


def test_mlflow_works_in_full_with_the_app_role(split: Split) -> None:
    from mlflow import MlflowClient
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, Metric, Param, RunTag

    client = MlflowClient(tracking_uri=split.uri("app"))
    experiment = client.create_experiment("by the app role", artifact_location="/a/app")
    client.set_experiment_tag(experiment, "k", "v")
    run = client.create_run(experiment, tags={"a": "b"}).info.run_id
    client.log_batch(run, [Metric("m", 1.0, 1, 0)], [Param("p", "1")], [RunTag("t", "1")])
    client.log_metric(run, "m", 2.0, step=1)
    client.delete_tag(run, "t")
    data = MetaDataset(HTTPDatasetSource("http://localhost/d"), name="claims")._to_mlflow_entity()
    client.log_inputs(run, datasets=[DatasetInput(data)])
    model = client.create_logged_model(experiment, name="m", source_run_id=run)
    client.set_logged_model_tags(model.model_id, {"k": "v"})
    client.finalize_logged_model(model.model_id, "READY")
    client.set_terminated(run)
    client.create_registered_model("plain", tags={"k": "v"})
    with plain_mlflow(split.uri("app")):
        version = client.create_model_version("plain", f"models:/{model.model_id}", run).version
    client.set_registered_model_alias("plain", "mine", version)
    client.set_model_version_tag("plain", version, "k", "v")
    client.transition_model_version_stage("plain", version, "Production")
    found = client.search_runs([experiment], order_by=["metrics.m DESC"])
    assert [(each.info.run_id, each.data.metrics["m"]) for each in found] == [(run, 2.0)]
    assert client.get_model_version_by_alias("plain", "mine").current_stage == "Production"
    client.delete_model_version("plain", version)
    client.rename_registered_model("plain", "renamed")
    client.delete_registered_model("renamed")
    client.delete_run(run)
    client.restore_run(run)
    client.rename_experiment(experiment, "other name")
    client.delete_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"


GUARDED = {
    "update": "UPDATE metrics SET value = 77 WHERE run_uuid = 'r1-0'",
    "delete": "DELETE FROM params WHERE run_uuid = 'r1-0'",
    "insert": "INSERT INTO tags (key, value, run_uuid) VALUES ('x', 'y', 'r1-0')",
    "upsert": "INSERT INTO params (key, value, run_uuid) VALUES ('depth', '9', 'r1-0')"
    " ON CONFLICT (key, run_uuid) DO UPDATE SET value = '9'",
    "merge": "MERGE INTO params p USING (SELECT 'r1-0' r) s ON p.run_uuid = s.r WHEN MATCHED THEN DELETE",
    "move a run out": "UPDATE runs SET experiment_id = 2 WHERE run_uuid = 'r1-0'",
    "move a run in": "UPDATE runs SET experiment_id = 1 WHERE run_uuid = 'r2-0'",
    "through a CTE": "WITH d AS (DELETE FROM metrics WHERE run_uuid = 'r1-0' RETURNING 1) SELECT count(*) FROM d",
    "copy": "DO $$ BEGIN UPDATE metrics SET value = 1 WHERE run_uuid = 'r1-1'; END $$",
    "version": "UPDATE model_versions SET source = '/mine' WHERE name = 'fraud'",
    "twin": "INSERT INTO model_versions (name, version, workspace) VALUES ('fraud', 2, 'default')",
    "production": "UPDATE model_versions SET current_stage = 'Production' WHERE name = 'fraud'",
}
FORBIDDEN = {
    "disable a trigger": "ALTER TABLE metrics DISABLE TRIGGER gov_guard",
    "disable all triggers": "ALTER TABLE metrics DISABLE TRIGGER ALL",
    "drop a trigger": "DROP TRIGGER gov_guard ON metrics",
    "add a trigger": "CREATE TRIGGER zzz BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION"
    " suppress_redundant_updates_trigger()",
    "add a rule": "CREATE RULE aside AS ON DELETE TO metrics DO INSTEAD NOTHING",
    "replication role": "SET session_replication_role = 'replica'",
    "truncate": "TRUNCATE metrics",
    "truncate experiments": "TRUNCATE experiments CASCADE",
    "drop a table": "DROP TABLE metrics",
    "rename a table": "ALTER TABLE metrics RENAME TO other",
    "drop the schema": "DROP SCHEMA public CASCADE",
    "drop the guards' schema": "DROP SCHEMA gov CASCADE",
    "delete a lock": "DELETE FROM gov.experiment_lock",
    "insert a lock": "INSERT INTO gov.experiment_unlock (event, lock_event) VALUES (1, 1)",
    "insert an event": "INSERT INTO gov.event SELECT * FROM gov.event",
    "replace a function": "CREATE OR REPLACE FUNCTION gov.guard_metrics() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RETURN NEW; END $$",
    "alter a function": "ALTER FUNCTION gov.guard_metrics() SECURITY INVOKER",
    "drop a function": "DROP FUNCTION gov.guard_metrics() CASCADE",
    "make a table": "CREATE TABLE public.mine (id integer)",
    "make a schema": "CREATE SCHEMA mine",
    "become the owner": "SET ROLE kept_owner",
    "become the NPTA": "SET ROLE kept_npta",
    "become the administrator": "SET SESSION AUTHORIZATION postgres",
    "grant itself": "GRANT kept_owner TO kept_app",
    "hand a table over": "ALTER TABLE metrics OWNER TO kept_app",
    "change its role": "ALTER ROLE kept_app SUPERUSER",
    "run a program": "COPY metrics FROM PROGRAM 'true'",
    "write a file": "COPY metrics TO '/tmp/out'",
    "write the catalogue": "UPDATE pg_catalog.pg_trigger SET tgenabled = 'D'",
    "fake the revision": "UPDATE alembic_version SET version_num = 'x'",
    "set a sequence": "SELECT setval('experiments_experiment_id_seq', 1)",
}


@pytest.mark.parametrize("attack", GUARDED)
@pytest.mark.parametrize("role", ["app", "npta"])
def test_the_guards_refuse_every_write_to_what_is_locked(split: Split, role: str, attack: str) -> None:
    before = split.holding()
    with split.connected(role) as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        connection.exec_driver_sql(GUARDED[attack])
    refusal = caught.value.orig
    assert getattr(refusal, "sqlstate", None) == "P0001"
    assert str(refusal).startswith(("EXPERIMENT_LOCKED", "VERSION_SEALED", "TICKET_REQUIRED", "PROMOTION_REQUIRED"))
    assert split.holding() == before


@pytest.mark.parametrize("attack", FORBIDDEN)
def test_the_app_role_may_not_touch_the_guards_or_the_tables_themselves(split: Split, attack: str) -> None:
    before = split.holding()
    with split.connected("app") as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
        connection.exec_driver_sql(FORBIDDEN[attack])
    assert getattr(caught.value.orig, "sqlstate", None) == "42501"  # insufficient privilege
    assert split.holding() == before


def test_the_app_role_sees_what_is_locked_and_cannot_pass_its_rights_on(split: Split) -> None:
    privileges = "SELECT relname, relacl FROM pg_class WHERE relname IN ('metrics', 'experiment_lock') ORDER BY 1"
    before = split.sql(privileges)
    with engine_of(split.uri("app")).begin() as connection:
        found = connection.exec_driver_sql("SELECT next_experiment FROM gov.experiment_lock").scalar_one()
        assert found == "risk-1-v2"
        connection.exec_driver_sql("GRANT ALL ON metrics TO PUBLIC")  # PostgreSQL only warns
    assert split.sql(privileges) == before


def test_tables_of_the_session_do_not_stand_in_for_the_guards_own(split: Split) -> None:
    with split.connected("app") as connection:
        for table in ("runs", "experiments", "experiment_lock", "experiment_unlock", "event"):
            connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {table} (run_uuid text, experiment_id integer)")
        connection.exec_driver_sql("CREATE FUNCTION pg_temp.hashtextextended(text, bigint) RETURNS bigint"
                                   " LANGUAGE sql AS 'SELECT 1::bigint'")  # fmt: skip
        connection.exec_driver_sql("SET LOCAL search_path = pg_temp, public, gov")
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="EXPERIMENT_LOCKED"):
            connection.exec_driver_sql(GUARDED["update"])


def test_the_npta_adds_governance_rows_and_changes_none(split: Split) -> None:
    tables = governance_tables("postgresql")
    with split.connected("npta") as connection:
        event(connection, 2)
        connection.execute(tables.principal_name.insert().values(principal_id="a", kind="os-user", name="ann"))
        connection.execute(tables.free_text.insert().values(event=2, field="reason", salt="s", text="t"))
        connection.execute(tables.free_text.delete())
        connection.execute(tables.principal_name.delete())
    for statement in (
        "UPDATE gov.event SET actor = 'b'", "DELETE FROM gov.event", "TRUNCATE gov.free_text",
        "UPDATE gov.free_text SET text = 'u'", "DROP TABLE gov.event", "ALTER TABLE gov.event DISABLE TRIGGER ALL",
        "DROP TRIGGER gov_guard ON metrics", "CREATE TABLE gov.mine (id integer)", "TRUNCATE metrics",
        "INSERT INTO gov.alembic_version VALUES ('x')",
    ):  # fmt: skip
        with split.connected("npta") as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            connection.exec_driver_sql(statement)
        assert getattr(caught.value.orig, "sqlstate", None) == "42501"


def test_the_npta_registers_in_one_transaction_with_its_ticket(split: Split) -> None:
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    from intelligentscan.stores.mlflow_unit import Units

    store = SqlAlchemyStore(split.uri("npta"))
    units = Units(store)
    tables = governance_tables("postgresql")
    ticket = {
        "event": 2, "ticket_id": "t", "workspace": "default", "name": "fraud", "version": 2, "run_id": "r1-1",
        "source": "/archive/fraud-2", "manifest_digest": "d", "requester": "r", "expires": 2**40,
    }  # fmt: skip

    def register_version(fail: bool) -> None:
        with units.unit() as session:
            connection = session.connection()
            event(connection, 2)
            connection.execute(tables.ticket.insert().values(**ticket))
            store.create_model_version("fraud", "/archive/fraud-2", "r1-1")
            connection.execute(tables.ticket_close.insert().values(event=2, ticket_id="t"))
            if fail:
                raise OSError("after everything")

    versions = "SELECT version FROM model_versions WHERE name = 'fraud' ORDER BY version"
    with pytest.raises(OSError, match="after"):
        register_version(fail=True)
    assert (split.sql(versions), split.sql("SELECT count(*) FROM gov.ticket")) == ([(1,)], [(0,)])
    register_version(fail=False)
    assert (split.sql(versions), split.sql("SELECT count(*) FROM gov.ticket_close")) == ([(1,), (2,)], [(1,)])
    with pytest.raises(Exception, match="TICKET_REQUIRED"):
        store.create_model_version("fraud", "/archive/fraud-3", "r1-1")
    store.engine.dispose()


def test_the_auditor_reads_everything_and_writes_nothing(split: Split) -> None:
    with split.connected("auditor") as connection:
        for table in ("gov.event", "gov.experiment_lock", "gov.alembic_version", "runs", "metrics", "alembic_version"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() > 0  # noqa: S608
        assert inspect(connection).ok
    for statement in ("INSERT INTO params VALUES ('k', 'v', 'r2-0')", "DELETE FROM gov.free_text", "DELETE FROM runs",
                      "SELECT nextval('experiments_experiment_id_seq')"):  # fmt: skip
        with split.connected("auditor") as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            connection.exec_driver_sql(statement)
        assert getattr(caught.value.orig, "sqlstate", None) == "42501"


def test_what_each_account_can_reach(split: Split) -> None:
    found = {}
    for role in ROLES:
        with split.connected(role) as connection:
            known = reach(connection)
            found[role] = (known.superuser, known.alters_guards, known.writes_governance)
            assert known.account == getattr(split.names, role)
            assert bool(known.reasons) is known.alters_guards
    assert found == {
        "owner": (False, True, True),
        "app": (False, False, False),
        "npta": (False, False, True),
        "auditor": (False, False, False),
    }
    with engine_of(split.server.uri(split.database)).connect() as connection:
        assert reach(connection).superuser
        connection.exec_driver_sql(f"SET ROLE {split.names.app}")
        known = reach(connection)  # it can go back to what it was
        assert (known.account, known.superuser, known.alters_guards) == (split.names.app, True, True)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("GRANT {owner} TO {app}", "owns MLflow's tables"),
        ("GRANT TRIGGER ON metrics TO {app}", "may add triggers"),
        ("ALTER DATABASE {database} OWNER TO {app}", "owns the database"),
        ("ALTER SCHEMA gov OWNER TO {app}", "owns MLflow's tables"),
        ("ALTER FUNCTION gov.guard_truncate() OWNER TO {app}", "owns MLflow's tables"),
        ("GRANT pg_execute_server_program TO {app}", "run programs"),
        ("ALTER ROLE {app} SUPERUSER", "superuser"),
    ],
)
def test_a_power_given_to_the_app_role_is_seen(
    postgres: Postgres, migrated: str, request: pytest.FixtureRequest, statement: str, reason: str
) -> None:
    prefix = f"given{abs(hash(statement)) % 10**6}"
    split = split_store(postgres, postgres.database(migrated), prefix)
    with split.connected("app") as connection:
        assert not reach(connection).alters_guards
    split.sql(statement.format(owner=split.names.owner, app=split.names.app, database=split.database))
    with split.connected("app") as connection:
        assert reason in " ".join(reach(connection).reasons)


# Making the roles


def test_a_dry_run_only_says_what_a_run_then_does_and_a_second_run_repeats_it(
    postgres: Postgres, migrated: str
) -> None:
    uri = postgres.uri(postgres.database(migrated))
    govern(uri)
    wanted = names("again")
    with engine_of(uri).begin() as connection:
        said = init_roles(connection, wanted, dry_run=True)
        assert not connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname ~ '^again_'").first()
        left = for_administrator(connection, wanted)
    assert left == [f'ALTER ROLE "again_{role}" LOGIN' for role in ROLES]
    with engine_of(uri).begin() as connection:
        assert init_roles(connection, wanted) == said
    with engine_of(uri).begin() as connection:
        again = init_roles(connection, wanted)
        assert set(again) <= {*said, *(each for each in again if each.startswith("REVOKE"))}
        assert not [each for each in again if each.startswith("CREATE ROLE")]
        assert inspect(connection).ok
    logins = postgres.sql("SELECT bool_or(rolcanlogin OR rolsuper) FROM pg_roles WHERE rolname ~ '^again_'")
    assert logins == [(False,)]


def test_tables_that_later_migrations_make_are_shared_out_alike(split: Split) -> None:
    with engine_of(split.uri("owner")).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE public.later (id serial PRIMARY KEY, v text)")
        connection.exec_driver_sql("CREATE TABLE gov.later (id integer)")
    try:
        with split.connected("app") as connection:
            connection.exec_driver_sql("INSERT INTO later (v) VALUES ('x')")
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                connection.exec_driver_sql("INSERT INTO gov.later VALUES (1)")
        with split.connected("npta") as connection:
            connection.exec_driver_sql("INSERT INTO gov.later VALUES (1)")
            with pytest.raises(sqlalchemy.exc.DBAPIError):
                connection.exec_driver_sql("DELETE FROM gov.later")
        with split.connected("auditor") as connection:
            connection.exec_driver_sql("SELECT * FROM gov.later, public.later")
    finally:
        split.sql("DROP TABLE public.later, gov.later")


def test_an_upgrade_runs_with_the_owner_role_and_keeps_the_roles_apart(split: Split) -> None:
    with pytest.raises(NotPermitted, match="kept_owner"):
        upgraded(split.uri("npta"))
    with engine_of(split.server.uri(split.database)).begin() as connection:
        guards.drop(connection)
    report = upgraded(split.uri("owner"))
    assert report.facts.guards_before["missing"]
    with split.connected("app") as connection:
        assert not reach(connection).alters_guards
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="EXPERIMENT_LOCKED"):
            connection.exec_driver_sql(GUARDED["update"])
    split.sql("DELETE FROM pg_catalog.pg_class WHERE false")
    with engine_of(split.server.uri(split.database)).connect() as connection:
        assert inspect(connection).ok


def test_privileges_that_others_had_to_go_around_the_guards_are_taken(postgres: Postgres, migrated: str) -> None:
    database = postgres.database(migrated)
    govern(postgres.uri(database))
    postgres.sql("CREATE ROLE stray_clerk LOGIN")
    for statement in (
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO stray_clerk",
        "GRANT ALL ON SCHEMA gov TO PUBLIC",
        "GRANT ALL ON ALL TABLES IN SCHEMA gov TO PUBLIC, stray_clerk",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
    ):
        postgres.sql(statement, database)
    with engine_of(postgres.uri(database)).begin() as connection:
        init_roles(connection, names("stray"))
    with engine_of(postgres.uri(database, "stray_clerk")).connect() as connection:
        assert not reach(connection).alters_guards
        assert not reach(connection).writes_governance
        connection.exec_driver_sql("INSERT INTO params (key, value, run_uuid) VALUES ('k', 'v', 'r2-0')")
    for statement in ("SELECT * FROM gov.event", "TRUNCATE metrics", "CREATE TABLE public.mine (id integer)"):
        clerk = engine_of(postgres.uri(database, "stray_clerk"))
        with clerk.connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError):
            connection.exec_driver_sql(statement)


def test_an_administrator_without_superuser_splits_a_database_of_its_own(postgres: Postgres) -> None:
    from old_stores import SPAN_COSTS, make_old_store

    postgres.sql("CREATE ROLE adm_admin LOGIN CREATEROLE")
    database = postgres.database()
    postgres.sql(f"ALTER DATABASE {database} OWNER TO adm_admin")
    uri = postgres.uri(database, "adm_admin")
    make_old_store(uri, SPAN_COSTS)
    wanted = names("adm")
    with engine_of(uri).begin() as connection:
        left = for_administrator(connection, wanted)
        init_roles(connection, wanted)
    assert left[-1] == 'GRANT "adm_app" TO "adm_admin"'
    with engine_of(uri).begin() as connection:
        init_roles(connection, wanted)
    assert upgraded(uri).changed
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'gov')"
    assert postgres.sql(owners, database) == [("adm_owner",)]
    postgres.sql("ALTER ROLE adm_app LOGIN")
    with engine_of(postgres.uri(database, "adm_app")).connect() as connection:
        assert not reach(connection).alters_guards
        connection.exec_driver_sql("INSERT INTO scheduler_leases VALUES ('k', 1, 1)")  # a table of the newest schema
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="EXPERIMENT_LOCKED"):
            connection.exec_driver_sql(GUARDED["update"])


def test_only_named_tables_change_hands_if_names_are_given(postgres: Postgres, migrated: str) -> None:
    from intelligentscan.stores.mlflow_schema import mlflow_tables

    database = postgres.database(migrated)
    govern(postgres.uri(database))
    postgres.sql("CREATE TABLE public.somebody_elses (id integer)", database)
    with engine_of(postgres.uri(database)).begin() as connection:
        init_roles(connection, names("named"), mlflow_tables())
    others = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tableowner <> 'named_owner'"
    assert postgres.sql(others, database) == [("somebody_elses",)]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("CREATE ROLE strong{n}_app SUPERUSER", "administers the cluster"),
        ("CREATE ROLE strong{n}_npta CREATEROLE", "administers the cluster"),
        ("CREATE ROLE strong{n}_app IN ROLE pg_write_all_data", "member of pg_write_all_data"),
        ("CREATE ROLE strong{n}_owner; CREATE ROLE strong{n}_app IN ROLE strong{n}_owner", "member of strong{n}_owner"),
        ("CREATE ROLE strong{n}_npta; CREATE ROLE strong{n}_app IN ROLE strong{n}_npta", "member of strong{n}_npta"),
    ],
)  # fmt: skip
def test_a_role_that_is_there_and_can_do_more_is_refused(
    split: Split, request: pytest.FixtureRequest, statement: str, why: str
) -> None:
    number = str(abs(hash(request.node.name)) % 10**6)
    for each in statement.format(n=number).split("; "):
        split.sql(each)
    with engine_of(split.server.uri(split.database)).connect() as connection:
        with pytest.raises(Refused, match=why.format(n=number)) as caught:
            init_roles(connection, names(f"strong{number}"))
        assert "another name" in caught.value.next


@pytest.mark.parametrize(
    "name", ["", "Big", "a-b", 'a"b', "a b", "pg_app", "public", "postgres", "ä", "1a", "a" * 64, "a;b"]
)
def test_a_name_that_is_no_plain_identifier_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        RoleNames(app=name)


def test_two_roles_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="same name"):
        RoleNames(app="one", npta="one")


def test_who_may_not_make_roles_is_told_so(split: Split) -> None:
    with split.connected("app") as connection, pytest.raises(NotPermitted, match="may not make the roles"):
        init_roles(connection, names("clerks"))


def test_a_store_without_governance_and_a_file_get_no_roles(postgres: Postgres, migrated: str, template: Path) -> None:
    plain = postgres.database(migrated)
    postgres.sql("DROP SCHEMA IF EXISTS gov CASCADE", plain)
    with engine_of(postgres.uri(plain)).connect() as connection, pytest.raises(NotAdopted):
        init_roles(connection, names("never"))
    with engine_of(f"sqlite:///{template}").connect() as connection, pytest.raises(Refused, match="PostgreSQL alone"):
        init_roles(connection, names("never"))


# Files


def test_who_may_write_a_file_or_its_folder_can_alter_the_guards(template: Path, children: ForkServerContext) -> None:
    folder = Path(tempfile.mkdtemp(prefix="reach-"))  # not below a folder that only its owner may enter
    try:
        path = folder / "mlflow.db"
        path.write_bytes(template.read_bytes())
        assert reach_of_file(str(path))[0]
        with ProcessPoolExecutor(1, mp_context=children) as pool:
            found = {}
            for mode, folder_mode in ((0o444, 0o755), (0o446, 0o755), (0o444, 0o777)):
                path.chmod(mode)
                folder.chmod(folder_mode)
                found[mode, folder_mode] = pool.submit(as_nobody, reach_of_file, str(path)).result()
    finally:
        shutil.rmtree(folder)
    if os.getuid() == 0:  # otherwise the file is this account's own, which is enough
        assert found[0o444, 0o755] == (False, ())
    assert found[0o446, 0o755][1][0] in {"may write the store's file", "owns the store's file"}
    assert "may put another file in its place" in found[0o444, 0o777][1]
