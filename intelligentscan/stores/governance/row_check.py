"""Whether the rows that govern are those that the trail's events made: none forged, changed or taken away.

Whether the events themselves hold is for `verify_chain` to say; both together make a row count.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from sqlalchemy import Connection, Row, Table, exists, select
from sqlalchemy.exc import DBAPIError

from intelligentscan.domain.errors import TrailBroken
from intelligentscan.stores.governance.chain import ID_LENGTH, MAX_INTEGER, EventRecord
from intelligentscan.stores.governance.export import BATCH, is_undecodable, stored_events
from intelligentscan.stores.governance.reads import name_is_bound, text_holds
from intelligentscan.stores.governance.report import Problems, RowReport
from intelligentscan.stores.governance.signed_rows import Comparison, Values, forged, shapes_of, signed_rows
from intelligentscan.stores.governance.tables import GovernanceTables


def verify_rows(connection: Connection, tables: GovernanceTables) -> RowReport:
    """Compare every row of every governing table with the events, in one ordered pass over all of them.

    Free text and names are compared with their digests as far as they were not erased. Memory stays
    bounded; the number of statements does not grow with the trail.

    Args:
        connection: open on the governance database, in a transaction.
        tables: its tables.
    """
    return _Pass(connection, tables).run()


class _Pass:
    """One ordered walk over the trail and all governing tables side by side."""

    def __init__(self, connection: Connection, tables: GovernanceTables) -> None:
        self._connection = connection
        self._tables = tables
        self._shapes = shapes_of(tables)
        self._problems = Problems()
        self._rows = 0
        self._events = 0

    def run(self) -> RowReport:
        event = self._tables.event
        # Events are only ever added: bounded by the last one that is seen now, all statements see the same trail.
        last = select(event.c.seq).where(event.c.seq <= MAX_INTEGER).order_by(event.c.seq.desc()).limit(1)
        try:
            head = self._connection.execute(last).scalar() or 0
            self._walk(head)
            self._beyond(head)
            self._names()
        except (DBAPIError, UnicodeDecodeError) as exc:
            if not is_undecodable(exc):
                raise
            self._problems.add(None, "UNREADABLE", "The database does not give out all rows as text.")
        return RowReport(self._events, self._rows, tuple(self._problems.first), self._problems.total)

    def _walk(self, head: int) -> None:
        with ExitStack() as stack:
            streams = {name: _Stream(self._ordered(s.table, head, stack)) for name, s in self._shapes.items()}
            texts = _Stream(self._ordered(self._tables.free_text, head, stack))
            for record in stored_events(self._connection, self._tables):
                if not isinstance(record, EventRecord):
                    message = f"{record.place} cannot be read as an event: what it made counts for nothing."
                    self._problems.add(None, "UNREADABLE", message)
                    continue
                if record.seq > head:
                    break
                self._events += 1
                signed = signed_rows(record, self._shapes, self._problems)
                for name, stream in streams.items():
                    self._unclaimed(name, stream.before(record.seq))
                    self._compare(record.seq, name, signed.get(name, ()), stream)
                self._texts(record, texts)
            for name, stream in streams.items():
                self._unclaimed(name, stream.before(None))

    def _ordered(self, table: Table, head: int, stack: ExitStack) -> Iterator[Row[Any]]:
        query = select(table).where(table.c.event <= head).order_by(table.c.event)
        found = self._connection.execute(query.execution_options(yield_per=BATCH))
        stack.callback(found.close)
        return iter(found)

    def _compare(self, seq: int, name: str, signed: Sequence[Values], stream: "_Stream") -> None:
        if not signed and stream.event != seq:
            return
        shape = self._shapes[name]
        comparison = Comparison(seq, shape, signed)
        for row in stream.of(seq):
            self._rows += 1
            comparison.stored(shape.stored(row))
        comparison.report(self._problems)

    def _unclaimed(self, name: str, rows: Iterable[Row[Any]]) -> None:
        for row in rows:
            self._rows += 1
            forged(self._problems, row._mapping["event"], name)

    def _texts(self, event: EventRecord, texts: "_Stream") -> None:
        for _ in texts.before(event.seq):
            pass  # the text of an event that is not there governs nothing
        digests = _digests(event)
        for row in texts.of(event.seq):
            if not text_holds(digests, row):
                message = f"A free text of event {event.seq} is not the one that was signed."
                self._problems.add(event.seq, "CHANGED_TEXT", message)

    def _names(self) -> None:
        names = self._tables.principal_name
        for row in self._connection.execute(select(names).execution_options(yield_per=BATCH)):
            if len(row.principal_id) == ID_LENGTH and not name_is_bound(row):
                message = f"The name of {row.principal_id} is not the one that its id was made for."
                self._problems.add(None, "CHANGED_NAME", message)

    def _beyond(self, head: int) -> None:
        event = self._tables.event
        for name, shape in self._shapes.items():
            table = shape.table
            made = exists().where(event.c.seq == table.c.event)
            query = select(table.c.event).where(table.c.event > head, ~made)
            for row in self._connection.execute(query.execution_options(yield_per=BATCH)):
                self._rows += 1
                forged(self._problems, row[0], name)


class _Stream:
    """Rows in the order of their events, looked at one ahead."""

    def __init__(self, rows: Iterator[Row[Any]]) -> None:
        self._rows = rows
        self._next: Row[Any] | None = None
        self.event: int | None = None
        self._advance()

    def before(self, seq: int | None) -> Iterator[Row[Any]]:
        """Take the rows of earlier events; all that are left, if no event is named."""
        while self._next is not None and (seq is None or self.event is None or self.event < seq):
            yield self._next
            self._advance()

    def of(self, seq: int) -> Iterator[Row[Any]]:
        """Take the rows of this event."""
        while self._next is not None and self.event == seq:
            yield self._next
            self._advance()

    def _advance(self) -> None:
        self._next = next(self._rows, None)
        self.event = self._next._mapping["event"] if self._next is not None else None


def _digests(event: EventRecord) -> dict[str, str]:
    try:
        return event.body["text"] or {}
    except (TrailBroken, KeyError, TypeError):
        return {}
