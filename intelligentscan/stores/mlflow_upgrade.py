"""Brings a store to the schema of the installed MLflow without a moment in which a lock does not hold.

MLflow's own `mlflow db upgrade` breaks on our guards or silently drops them, and is not atomic. Here its
migrations run inside one transaction of ours on PostgreSQL, and on a private copy of the file on SQLite
(`sqlite_maintenance`). Within it the rows of every locked experiment and governed version are digested
before and after, over the columns that both schemas have: if anything differs, nothing is changed.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from intelligentscan.domain.errors import GuardsBroken, NotPermitted, Refused, StoreBroken, StoreUnavailable
from intelligentscan.settings import sqlite_path, sqlite_uri
from intelligentscan.stores.governance.migrations import version_schema, version_table
from intelligentscan.stores.governance.tables import table_name
from intelligentscan.stores.guards import install as guards
from intelligentscan.stores.guards.inventory import GuardReport
from intelligentscan.stores.guards.inventory import inspect as inspect_guards
from intelligentscan.stores.guards.schema import quoted, read_schema
from intelligentscan.stores.mlflow_schema import MIGRATION_LEASE, migrate, mlflow_tables, moved_between, schema_facts
from intelligentscan.stores.row_digests import (
    LeftOut,
    RowsDigest,
    differences,
    experiment_digest,
    recompute,
    version_digest,
)
from intelligentscan.stores.row_selection import ExperimentRows, VersionRows
from intelligentscan.stores.sqlite_maintenance import alone

logger = logging.getLogger(__name__)
_LOCK_PATIENCE = "20s"


@dataclass(frozen=True, slots=True)
class KeptRows:
    """The rows of one locked experiment or governed version, found equal before and after.

    Attributes:
        before: what was compared: the columns that both schemas have, without what MLflow moved.
        after: everything, in the new schema: what later checks compare with.
    """

    before: RowsDigest
    after: RowsDigest


@dataclass(frozen=True, slots=True)
class UpgradeFacts:
    """What an upgrade does, as it is recorded in the audit trail within the same transaction."""

    revision_before: str
    revision_after: str
    governance_before: str | None
    governance_after: str | None
    adopted: bool
    guards_before: dict[str, list[str]]
    moved: tuple[str, ...]
    kept: tuple[KeptRows, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        revisions = (self.revision_before, self.governance_before) != (self.revision_after, self.governance_after)
        return revisions or self.adopted or bool(self.guards_before)

    @property
    def document(self) -> dict[str, Any]:
        """The facts as JSON values, with one digest for each experiment and version."""
        return {
            "revision_before": self.revision_before,
            "revision_after": self.revision_after,
            "governance_before": self.governance_before,
            "governance_after": self.governance_after,
            "adopted": self.adopted,
            "guards_before": {kind: found[:20] for kind, found in self.guards_before.items()},
            "moved_by_mlflow": list(self.moved),
            "kept": [
                {**each.after.document["of"], "rows_digest": each.after.digest, "compared": each.before.digest}
                for each in self.kept
            ],
        }


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """How an upgrade ended.

    Attributes:
        backup: the file as it was before; None on PostgreSQL, or if there was nothing to do.
    """

    facts: UpgradeFacts
    backup: Path | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was changed."""
        return self.facts.changed


@dataclass(frozen=True, slots=True)
class GovernanceSteps:
    """What the governance layer does within an upgrade, each on the upgrade's connection.

    Attributes:
        migrate: brings the governance tables up to date.
        record: appends the facts to the audit trail; called only if something changes.
        check: refuses by an error if the trail or the rows do not verify; called before anything else. What it
            lets pass is what `KeptRows.after` takes for good from then on.
        adopt: whether a store without governance tables gets them.
    """

    migrate: Callable[[Connection], None]
    record: Callable[[Connection, UpgradeFacts], None]
    check: Callable[[Connection], None] = field(default=lambda _: None)
    adopt: bool = False


def upgrade(uri: str, governance: GovernanceSteps) -> UpgradeReport:
    """Upgrade a store's schema, its governance tables and its guards, or change nothing at all.

    A store at the newest schema gets its guards put right, if they are not. Call it again after a kill.

    Args:
        uri: the tracking URI of a SQLite file or a PostgreSQL database.
        governance: the steps of the governance layer.

    Raises:
        Refused: others are using the store.
        NotPermitted: the account does not own the tables.
        StoreBroken: it is no MLflow database, was made by a newer MLflow, or the migrations would change
            rows of a locked experiment or a governed version.
        StoreUnavailable: the database cannot be reached.
    """
    if (path := sqlite_path(uri)) is not None:
        return _upgrade_file(path, governance)
    if uri.startswith("postgresql"):
        return _upgrade_postgres(uri, governance)
    raise Refused(
        "Only SQLite and PostgreSQL stores can be upgraded here.",
        next="run 'mlflow db upgrade' where the store's server runs.",
    )


def _upgrade_file(path: Path, governance: GovernanceSteps) -> UpgradeReport:
    with alone(path) as file, file.copy() as copy:
        engine = sqlalchemy.create_engine(sqlite_uri(copy), poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection, _explained():
            for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "foreign_keys = OFF"):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
            facts = _upgrade_within(connection, governance)
            connection.commit()
            if connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").first():
                connection.exec_driver_sql("ANALYZE")  # rebuilt tables have lost their planner statistics
                connection.commit()
        if not facts.changed:
            return UpgradeReport(facts)
        backup = file.keep(f"{file.path.name}.before-upgrade-{facts.revision_before}")
        file.publish(copy)
        return UpgradeReport(facts, backup)


def _upgrade_postgres(uri: str, governance: GovernanceSteps) -> UpgradeReport:
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with _explained(), engine.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_PATIENCE}'")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_catalog.pg_advisory_xact_lock({MIGRATION_LEASE})")
        _become_owner(connection)
        # Everything at once and in advance: a lock raised in the middle may meet a writer that waits for us.
        if tables := _all_tables(connection):
            connection.exec_driver_sql(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
        facts = _upgrade_within(connection, governance)
        if facts.changed:
            connection.commit()
        return UpgradeReport(facts)


def _upgrade_within(connection: Connection, governance: GovernanceSteps) -> UpgradeFacts:
    before = schema_facts(connection)
    if before.current is None:
        raise StoreBroken(
            "The store has no MLflow schema.", next="check MLFLOW_TRACKING_URI; a new store is made when it is opened."
        )
    if not before.known:
        raise StoreBroken(
            f"The store's schema {before.current} was made by a newer MLflow than the installed one.",
            next="install the MLflow that made it, and the intelligentscan release for it.",
        )
    schema = read_schema(connection)
    governed = bool(schema.governance)
    kept: list[RowsDigest] = []
    broken: dict[str, list[str]] = {}
    governance_before = _governance_revision(connection) if governed else None
    left_out = moved_between(before.current, before.head)
    moved = tuple(sorted({name for name, *_ in (*left_out.rows, *left_out.columns)} & set(schema.tables)))
    if governed:
        governance.check(connection)
        broken = _shown(inspect_guards(connection))
        kept = list(_digests(connection, left_out))
        guards.drop(connection)
    if not before.at_head:
        try:
            migrate(connection)
        except RuntimeError as exc:  # how a migration refuses data that it cannot carry over
            raise _failed(exc) from exc
    after = schema_facts(connection)
    if not after.at_head:
        raise StoreBroken(
            f"The store's schema {before.current} lacks the tables {', '.join(after.missing_tables)}.",
            next="restore the store from a backup; its tables were removed by hand.",
        )
    if not (governed or governance.adopt):
        return UpgradeFacts(before.current, str(after.current), None, None, False, {}, ())
    governance.migrate(connection)
    guards.install(connection)
    if not (report := inspect_guards(connection)).ok:
        raise GuardsBroken(
            "The guards do not fit the upgraded schema; nothing was changed.",
            next="install the intelligentscan release for this MLflow, then try again.",
            details=dict(_shown(report)),
        )
    facts = UpgradeFacts(
        before.current,
        str(after.current),
        governance_before,
        _governance_revision(connection),
        not governed,
        broken,
        moved,
        tuple(_compared(connection, each, left_out) for each in kept),
    )
    if facts.changed:
        governance.record(connection, facts)
    return facts


def _digests(connection: Connection, left_out: LeftOut) -> Iterator[RowsDigest]:
    """Digest what must not change: the experiments with a lock in force, the versions of governed names."""
    dialect = connection.dialect.name
    lock, unlock = table_name("experiment_lock", dialect), table_name("experiment_unlock", dialect)
    locked = connection.exec_driver_sql(
        f"SELECT DISTINCT experiment_id FROM {lock} AS l WHERE NOT EXISTS"  # noqa: S608
        f" (SELECT 1 FROM {unlock} AS u WHERE u.lock_event = l.event) ORDER BY experiment_id"
    ).fetchall()
    for (experiment_id,) in locked:
        yield experiment_digest(connection, str(experiment_id), left_out)
    schema = read_schema(connection)
    columns = schema.tables.get("model_versions", ())
    if not columns:
        return
    workspace = "v.workspace" if "workspace" in columns else "'default'"
    versions = connection.exec_driver_sql(
        f"SELECT g.workspace, g.name, v.version FROM {table_name('governed_model', dialect)} AS g"  # noqa: S608
        f" JOIN {schema.of_mlflow('model_versions')} AS v ON v.name = g.name AND {workspace} = g.workspace"
        " ORDER BY g.workspace, g.name, v.version"
    ).fetchall()
    for where, name, version in versions:
        yield version_digest(connection, where, name, version, left_out)


def _compared(connection: Connection, before: RowsDigest, left_out: LeftOut) -> KeptRows:
    found = [
        each for each in differences(before, recompute(connection, before, left_out)) if each.kind != "not covered"
    ]
    match before.of:
        case ExperimentRows(experiment_id):
            subject, after = f"experiment {experiment_id}", experiment_digest(connection, experiment_id)
        case VersionRows(workspace, name, version):
            subject, after = f"version {version} of {name!r}", version_digest(connection, workspace, name, version)
    if found:
        raise StoreBroken(
            f"The upgrade would change rows of {subject}: {', '.join(f'{e.table} ({e.kind})' for e in found)}. "
            "Nothing was changed.",
            next="report it to the makers of intelligentscan with the two schema revisions; use the store as it is.",
            details={"tables": {each.table: each.kind for each in found}},
        )
    return KeptRows(before, after)


def _governance_revision(connection: Connection) -> str | None:
    dialect = connection.dialect.name
    options = {"version_table": version_table(dialect), "version_table_schema": version_schema(dialect)}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _shown(report: GuardReport) -> dict[str, list[str]]:
    kinds = ("missing", "changed", "foreign", "unmapped")
    return {kind: list(found) for kind in kinds if (found := getattr(report, kind))}


def _all_tables(connection: Connection) -> list[str]:
    schema = read_schema(connection)
    own = [f"{quoted(schema.home)}.{quoted(name)}" for name in schema.tables if name in mlflow_tables()]
    return own + [table_name(name, "postgresql") for name in schema.governance]


def _become_owner(connection: Connection) -> None:
    """Act as the role that owns MLflow's tables, so that it owns what the migrations make."""
    found = connection.execute(
        text(
            "SELECT pg_catalog.pg_get_userbyid(c.relowner), current_user,"
            " pg_catalog.pg_has_role(current_user, c.relowner, 'MEMBER') FROM pg_catalog.pg_class c"
            " WHERE c.oid = pg_catalog.to_regclass('experiments')"
        )
    ).first()
    if found is None or found[0] == found[1]:
        return
    if not found[2]:
        raise NotPermitted(
            f"The database's account {found[1]!r} does not own MLflow's tables; {found[0]!r} does.",
            next="run the upgrade with a tracking URI of the owner's role.",
        )
    connection.exec_driver_sql(f"SET LOCAL ROLE {quoted(found[0])}")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the database refuses into our errors."""
    try:
        yield
    except SQLAlchemyError as exc:
        state = getattr(getattr(exc, "orig", None), "sqlstate", None)
        if state in {"55P03", "40P01"}:
            raise Refused(
                "The store is in use: its tables could not be locked.",
                next="end what uses the store (assistants, notebooks, the MLflow server), then repeat the command.",
            ) from exc
        if state == "42501":
            raise NotPermitted(
                f"The database's account may not change the schema: {_reason(exc)}.",
                next="run the upgrade with a tracking URI of the owner's role.",
            ) from exc
        if isinstance(exc, OperationalError) and not isinstance(exc.orig, sqlite3.Error):
            raise StoreUnavailable(
                "The database cannot be reached, or the connection was lost; the upgrade was done as a whole or not.",
                next="see that MLFLOW_TRACKING_URI is right and the database runs, then repeat the command.",
            ) from exc
        raise _failed(exc) from exc


def _failed(exc: Exception) -> StoreBroken:
    return StoreBroken(
        f"MLflow's schema migration failed: {_reason(exc)}. Nothing was changed.",
        next="use the store as it is with the release that made it, and report the reason to the makers.",
    )


def _reason(exc: Exception) -> str:
    said = str(getattr(exc, "orig", None) or exc).strip() or type(exc).__name__
    return said.splitlines()[0].rstrip(".")[:300]
