"""The check of rows against events for one model, version or experiment, cheap enough for every governed act."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, or_, select
from sqlalchemy.exc import DBAPIError

from intelligentscan.domain.errors import TrailBroken
from intelligentscan.stores.governance.chain import EventRecord, event_hash, record_from_row, verify_signature
from intelligentscan.stores.governance.export import is_undecodable
from intelligentscan.stores.governance.records import Subject
from intelligentscan.stores.governance.report import KeyValidity, Problems, RowReport
from intelligentscan.stores.governance.signed_rows import Comparison, Shape, Values, forged, shapes_of, signed_rows
from intelligentscan.stores.governance.tables import GovernanceTables
from intelligentscan.stores.governance.verify import key_at

_AT_ONCE = 500
SignedRows = dict[str, list[Values]]
Place = tuple[str, object]
"""A table and the event that a stored row names."""


def verify_subject(
    connection: Connection,
    tables: GovernanceTables,
    subject: Subject,
    keys: Sequence[KeyValidity] | None = None,
) -> RowReport:
    """Compare the rows about one model, one version or one experiment with the events about it, in a few statements.

    An event is found if it names the subject in its columns or if one of the rows names the event. With a version,
    aliases count as far as they point at it or at nothing; to judge where an alias points, leave the version out.

    Args:
        connection: open on the governance database, in a transaction.
        tables: its tables.
        subject: workspace and name, perhaps version; or an experiment.
        keys: the keys of the verified trail; with them each event's signature is checked too.
    """
    return _Look(connection, tables, subject, keys).run()


@dataclass(frozen=True, slots=True)
class _Scope:
    """The rows of one table that are about the subject, for SQL and for a row of an event's body."""

    shape: Shape
    where: ColumnElement[bool]
    concerns: Callable[[dict[str, Any]], bool]

    def about(self, row: Values) -> bool:
        return self.concerns(dict(zip(self.shape.columns, row, strict=True)))


@dataclass(frozen=True, slots=True)
class _Counts:
    events: int
    rows: int


class _Look:
    """The rows and events about one subject."""

    def __init__(
        self,
        connection: Connection,
        tables: GovernanceTables,
        subject: Subject,
        keys: Sequence[KeyValidity] | None,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._subject = subject
        self._keys = keys
        self._problems = Problems()
        self._parents: set[object] = set()
        self._shapes = shapes_of(tables)
        self._scopes = self._scopes_of_name() if subject.name is not None else self._scopes_of_experiment()

    def run(self) -> RowReport:
        try:
            found = self._compare()
        except (DBAPIError, UnicodeDecodeError) as exc:
            if not is_undecodable(exc):
                raise
            self._problems.add(None, "UNREADABLE", "The database does not give out all rows as text.")
            found = _Counts(0, 0)
        return RowReport(found.events, found.rows, tuple(self._problems.first), self._problems.total)

    def _compare(self) -> _Counts:
        stored: dict[Place, list[Row[Any]]] = {}
        for scope in self._scopes:
            for row in self._connection.execute(select(scope.shape.table).where(scope.where)):
                stored.setdefault((scope.shape.name, row._mapping["event"]), []).append(row)
        rows = sum(map(len, stored.values()))
        signed = {event.seq: self._signed(event) for event in self._events(stored)}
        self._find_parents(signed, stored)
        for seq, by_table in signed.items():
            for scope in self._scopes:
                name, shape = scope.shape.name, scope.shape
                comparison = Comparison(seq, shape, filter(scope.about, by_table.get(name, ())))
                for row in stored.pop((name, seq), ()):
                    comparison.stored(shape.stored(row))
                comparison.report(self._problems)
        for (name, said), left in stored.items():
            for _ in left:
                forged(self._problems, said, name)
        return _Counts(len(signed), rows)

    def _scopes_of_experiment(self) -> list[_Scope]:
        text = self._subject.experiment_id or ""
        experiment = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1
        lock, unlock = self._tables.experiment_lock, self._tables.experiment_unlock
        locked = lock.c.experiment_id == experiment
        locks = select(lock.c.event).where(locked)
        return [
            _Scope(self._shapes["experiment_lock"], locked, lambda row: bool(row["experiment_id"] == experiment)),
            _Scope(
                self._shapes["experiment_unlock"],
                unlock.c.lock_event.in_(locks),
                lambda row: row["lock_event"] in self._parents,
            ),
        ]

    def _scopes_of_name(self) -> list[_Scope]:
        workspace, name, version = self._subject.workspace, self._subject.name, self._subject.version
        shapes = self._shapes

        def named(row: dict[str, Any]) -> bool:
            return bool(row["workspace"] == workspace and row["name"] == name)

        def of_version(row: dict[str, Any]) -> bool:
            return named(row) and (version is None or row["version"] == version)

        def of_version_or_none(row: dict[str, Any]) -> bool:
            return named(row) and (version is None or row["version"] in (version, None))

        def where(table: Table, *, or_none: bool = False) -> ColumnElement[bool]:
            parts = [table.c.workspace == workspace, table.c.name == name]
            if version is not None and "version" in table.c:
                same = table.c.version == version
                parts.append(or_(same, table.c.version.is_(None)) if or_none else same)
            return and_(*parts)

        record = ("ticket", "seal", "legacy_version", "stage", "quarantine", "retention")
        committee = ("review", "attestation", "decision")
        ticket, close = self._tables.ticket, self._tables.ticket_close
        tickets = select(ticket.c.ticket_id).where(where(ticket))
        return [
            *(_Scope(shapes[n], where(shapes[n].table), of_version) for n in record + committee),
            _Scope(shapes["governed_model"], where(self._tables.governed_model), named),
            _Scope(shapes["alias"], where(self._tables.alias, or_none=True), of_version_or_none),
            _Scope(
                shapes["ticket_close"], close.c.ticket_id.in_(tickets), lambda row: row["ticket_id"] in self._parents
            ),
        ]

    def _events(self, stored: Mapping[Place, list[Row[Any]]]) -> list[EventRecord]:
        event = self._tables.event
        found = self._read(self._about())
        named = {seq for _, seq in stored if isinstance(seq, int)}
        missing = sorted(named - {record.seq for record in found})
        for i in range(0, len(missing), _AT_ONCE):
            found += self._read(event.c.seq.in_(missing[i : i + _AT_ONCE]))
        return found

    def _about(self) -> ColumnElement[bool]:
        event = self._tables.event
        if self._subject.name is None:
            return event.c.experiment_id == self._subject.experiment_id
        parts = [event.c.workspace == self._subject.workspace, event.c.name == self._subject.name]
        if self._subject.version is not None:
            parts.append(or_(event.c.version == self._subject.version, event.c.version.is_(None)))
        return and_(*parts)

    def _read(self, where: ColumnElement[bool]) -> list[EventRecord]:
        found = []
        for row in self._connection.execute(select(self._tables.event).where(where)).mappings():
            try:
                found.append(record_from_row(row))
            except TrailBroken:
                self._problems.add(None, "UNREADABLE", "An entry about it cannot be read as an event.")
        return found

    def _signed(self, event: EventRecord) -> SignedRows:
        try:
            if event_hash(event) != event.hash:
                message = f"Event {event.seq} was changed after it was signed: its content does not give its hash."
                self._problems.add(event.seq, "EDITED", message)
        except TrailBroken:
            self._problems.add(event.seq, "NOT_CANONICAL", f"Event {event.seq} is not in the form that is signed.")
        if self._keys is not None:
            key = key_at(self._keys, event.seq)
            if key is None or key.key_id != event.key_id or not verify_signature(event, key.public):
                message = f"The signature of event {event.seq} was not made by the key in force over its hash."
                self._problems.add(event.seq, "BAD_SIGNATURE", message)
        return signed_rows(event, self._shapes, self._problems)

    def _find_parents(self, signed: Mapping[int, SignedRows], stored: Mapping[Place, list[Row[Any]]]) -> None:
        """Find what closings and unlockings name: the subject's tickets, or the events that locked it."""
        for scope in self._scopes:
            name, shape = scope.shape.name, scope.shape
            if name == "experiment_lock":
                self._parents.update(seq for table, seq in stored if table == name)
                self._parents.update(s for s, rows in signed.items() if any(map(scope.about, rows.get(name, ()))))
            elif name == "ticket":
                at = shape.columns.index("ticket_id")
                self._parents.update(
                    r._mapping["ticket_id"] for (t, _), rows in stored.items() if t == name for r in rows
                )
                self._parents.update(v[at] for rows in signed.values() for v in rows.get(name, ()) if scope.about(v))
