"""The governance database, opened: reads, and units in which governed acts append to the trail.

Where MLflow's registry lies in the same database, a unit is the one transaction that MLflow's own store
methods join (`joint`); otherwise it is a transaction of the governance database alone.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, inspect, select
from sqlalchemy.orm import Session

from intelligentscan._signing import KeyFolder, SigningKey
from intelligentscan.domain.errors import GuardsBroken, KeyUnavailable, NotAdopted, TrailBroken
from intelligentscan.stores.governance.chain import (
    GENESIS_PREV,
    SALT_BYTES,
    EventRecord,
    principal_id,
    record_from_row,
    row_from_record,
    signature_holds,
    signed_event,
    text_digest,
)
from intelligentscan.stores.governance.migrations import migrate
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import NPTA, Act, Principal, Subject
from intelligentscan.stores.governance.tables import GovernanceTables, governance_tables
from intelligentscan.stores.guards import install as guards
from intelligentscan.stores.guards.inventory import GuardReport
from intelligentscan.stores.guards.inventory import inspect as inspect_guards

SessionUnit = Callable[[], AbstractContextManager[Session]]
_PATIENCE_MS = 20_000
_REPAIR = "run 'intelligentscan db check', then 'intelligentscan adopt' to repair them."


class GovernanceStore:
    """One governance database.

    Args:
        engine: the engine of the database.
        keys: where the signing keys are.
        unit: opens a transaction that MLflow's registry store joins; None if the registry lies elsewhere.
    """

    def __init__(self, engine: Engine, keys: KeyFolder, unit: SessionUnit | None) -> None:
        self.engine = engine
        self.keys = keys
        self.joint = unit is not None
        self.tables: GovernanceTables = governance_tables(engine.dialect.name)
        self._unit = unit
        self._installed = False

    def installed(self) -> bool:
        """Tell whether the governance tables are there."""
        if not self._installed:
            with self.engine.connect() as connection:
                self._installed = _has_tables(connection, self.tables)
        return self._installed

    def install(self, connection: Connection) -> None:
        """Make the tables, or bring them up to date, and the guards, in the caller's transaction."""
        guards.drop(connection)
        migrate(connection)
        guards.install(connection)

    def install_now(self, record: "Callable[[GovernedUnit], object] | None" = None) -> None:
        """Make or put back tables and guards, in a transaction of their own.

        Args:
            record: appends what the trail is to say of it, in the same transaction.

        Raises:
            SQLAlchemyError: this account may not alter the database.
        """
        with writing(self.engine) as connection:
            guards.hold_trail(connection)
            self.install(connection)
            if record is not None:
                record(GovernedUnit(connection, self.tables, self.keys, self.joint))

    @contextmanager
    def reading(self) -> Iterator[GovernanceReads]:
        """Open a connection for reading.

        Raises:
            NotAdopted: the governance tables are not there.
        """
        self._ready()
        with self.engine.connect() as connection:
            yield GovernanceReads(connection, self.tables)

    def guard_report(self) -> GuardReport:
        """Compare the guards in the database with those that belong there."""
        with self.engine.connect() as connection:
            return inspect_guards(connection)

    @contextmanager
    def unit(self) -> Iterator["GovernedUnit"]:
        """Open the transaction of a governed act; it is committed at the end, as a whole.

        Raises:
            NotAdopted: the governance tables are not there.
            GuardsBroken: guards are missing, changed or foreign.
            TrailBroken: the last entry of the trail was not signed by the key in force.
            KeyUnavailable: this account cannot read the signing key.
        """
        self._ready()
        with self._transaction() as connection:
            guards.hold_trail(connection)
            if self.joint and not (report := inspect_guards(connection)).ok:
                raise guards_broken(report)
            yield GovernedUnit(connection, self.tables, self.keys, self.joint)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        if self._unit is not None:
            with self._unit() as session:
                connection = session.connection()
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_PATIENCE_MS}")
                yield connection
            return
        with writing(self.engine) as connection:
            yield connection

    def _ready(self) -> None:
        if self.installed():
            return
        if self.joint:
            raise NotAdopted(
                "This store is not governed yet: it has no governance tables and no guards.",
                next="run 'intelligentscan adopt' once; what is there is then recorded as legacy, unreviewed.",
            )
        with writing(self.engine) as connection:
            self.install(connection)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a writing transaction of its own; on SQLite it takes the write lock at once."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.commit()
        except BaseException:
            connection.rollback()
            raise


class GovernedUnit:
    """One governed act: its transaction, what it may read, and the trail that it appends to."""

    def __init__(self, connection: Connection, tables: GovernanceTables, keys: KeyFolder, joint: bool) -> None:
        self.connection = connection
        self.joint = joint
        self.read = GovernanceReads(connection, tables)
        self._tables = tables
        self._keys = keys
        self._key: SigningKey | None = None
        self._head: EventRecord | None = None

    def hold_experiment(self, experiment_id: str) -> None:
        """Wait until nobody else is writing to the experiment, and keep others from beginning."""
        if self.joint:
            guards.hold_experiment(self.connection, int(experiment_id))

    def hold_name(self, workspace: str, name: str) -> None:
        """Wait until nobody else is making a version under the name, and keep others from beginning."""
        if self.joint:
            guards.hold_name(self.connection, workspace, name)

    def announce_lock(self, experiment_id: str) -> None:
        """Let the guards name the next experiment when they refuse; call it after the lock's row is there."""
        if self.joint:
            guards.announce_lock(self.connection, int(experiment_id))

    def retract_lock(self, experiment_id: str) -> None:
        """Take that back; call it after the unlock's row is there."""
        if self.joint:
            guards.retract_lock(self.connection, int(experiment_id))

    def append(self, act: Act) -> EventRecord:
        """Append an entry to the trail, with the rows that it makes.

        Raises:
            TrailBroken: the last entry was not signed by the key in force.
            KeyUnavailable: this account cannot read the signing key.
        """
        if self._head is None:
            self._open_trail()
        event = self._signed(act)
        self._insert(event, act)
        return event

    def principal(self, principal: Principal) -> str:
        """Return the id of somebody; one is made for who acts for the first time."""
        known = self.read.find_principal(principal)
        if known is not None:
            return known
        salt = secrets.token_bytes(SALT_BYTES)
        made = principal_id(salt, principal.kind, principal.name)
        row = {"principal_id": made, "kind": principal.kind, "name": principal.name, "salt": salt.hex()}
        self.connection.execute(insert(self._tables.principal_name).values(**row))
        return made

    def key_in_force(self) -> SigningKey:
        """Return the key that signs now.

        Raises:
            KeyUnavailable: this account cannot read it.
        """
        if self._head is None:
            self._open_trail()
        if self._key is None:
            raise KeyUnavailable("There is no signing key.", next="run 'intelligentscan doctor'.")
        return self._key

    def head(self) -> EventRecord:
        """Return the last entry of the trail; begins the trail if there is none."""
        if self._head is None:
            self._open_trail()
        if self._head is None:
            raise TrailBroken("The trail has no entry.", next="run 'intelligentscan doctor'.")
        return self._head

    def rotated(self, key: SigningKey) -> None:
        """Sign with another key from here on."""
        self._key = key

    def _open_trail(self) -> None:
        event, keys = self._tables.event, self._tables.signing_key
        last = self.connection.execute(select(event).order_by(event.c.seq.desc()).limit(1)).mappings().first()
        if last is None:
            self._begin_trail()
            return
        rows = self.connection.execute(select(keys).order_by(keys.c.event.desc()).limit(2)).all()
        head = record_from_row(last)
        # A rotation, which brings a key into force, is itself signed by the one before.
        signer = next((row for row in rows if row.event < head.seq or head.seq == 1), None)
        if signer is None or not _signed_by(head, signer.key_id, signer.public):
            raise TrailBroken(
                f"The audit trail's last entry ({head.seq}) was not signed by the key in force.",
                next="run 'intelligentscan audit verify'; restore the store from a backup if it says so.",
            )
        key = self._keys.get(rows[0].key_id)
        if key is None:
            raise KeyUnavailable(
                f"The trail is signed by the key {rows[0].key_id}, which this account does not have.",
                next="act from the account that has it, or restore the folder 'keys' of INTELLIGENTSCAN_HOME.",
            )
        self._head, self._key = head, key

    def _begin_trail(self) -> None:
        known = self._keys.key_ids()
        key = (self._keys.get(known[0]) if known else None) or self._keys.create()
        self._key = key
        act = Act(
            "key.created",
            NPTA,
            facts={"guards": "installed"},
            rows={"signing_key": [{"key_id": key.key_id, "public": key.public}]},
        )
        self._insert(self._signed(act), act)

    def _signed(self, act: Act) -> EventRecord:
        if self._key is None:
            raise KeyUnavailable("There is no signing key.", next="run 'intelligentscan doctor'.")
        head = self._head
        salts = {name: secrets.token_bytes(SALT_BYTES) for name in act.text}
        self._salts = salts
        body: dict[str, Any] = {
            "facts": act.facts,
            "rows": act.rows,
            "text": {name: text_digest(salts[name], said) for name, said in act.text.items()},
        }
        return signed_event(
            self._key,
            seq=head.seq + 1 if head else 1,
            prev=head.hash if head else GENESIS_PREV,
            at=max(int(time.time() * 1000), head.at if head else 0),  # a clock set back must not reorder the trail
            actor=self.principal(act.actor),
            on_behalf_of=self.principal(act.on_behalf_of) if act.on_behalf_of else None,
            action=act.action,
            experiment_id=act.subject.experiment_id,
            workspace=act.subject.workspace,
            name=act.subject.name,
            version=act.subject.version,
            run_id=act.subject.run_id,
            body=body,
        )

    def _insert(self, event: EventRecord, act: Act) -> None:
        self.connection.execute(insert(self._tables.event).values(**row_from_record(event)))
        for name, rows in act.rows.items():
            if rows:
                made = [{"event": event.seq, **row} for row in rows]
                self.connection.execute(insert(self._tables.projection(name)), made)
        for name, said in act.text.items():
            row = {"event": event.seq, "field": name, "salt": self._salts[name].hex(), "text": said}
            self.connection.execute(insert(self._tables.free_text).values(**row))
        self._head = event


def guards_broken(report: GuardReport) -> GuardsBroken:
    """Return the refusal for guards that are not as they belong."""
    facts = {k: list(getattr(report, k)) for k in ("missing", "changed", "foreign", "unmapped") if getattr(report, k)}
    counted = ", ".join(f"{len(found)} {kind}" for kind, found in facts.items())
    return GuardsBroken(
        f"The guards of this store are not as they belong: {counted}; governed acts are refused until they are.",
        next=_REPAIR,
        details={kind: found[:20] for kind, found in facts.items()},
    )


def _has_tables(connection: Connection, tables: GovernanceTables) -> bool:
    return inspect(connection).has_table(tables.event.name, schema=tables.event.schema)


def _signed_by(head: EventRecord, key_id: str, public: str) -> bool:
    return head.key_id == key_id and signature_holds(head, public)


def event_count(connection: Connection, tables: GovernanceTables) -> int:
    """Return how many entries the trail has."""
    found: int = connection.execute(select(func.coalesce(func.max(tables.event.c.seq), 0))).scalar_one()
    return found


__all__ = ["GovernanceStore", "GovernedUnit", "Subject", "event_count", "guards_broken", "writing"]
