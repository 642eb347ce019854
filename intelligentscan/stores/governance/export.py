"""A trail as a stream of events: out of its database, into a file of JSON Lines, and out of that file elsewhere.

One event per line, in canonical JSON, so that an auditor's machine needs neither database nor account. An entry that
cannot be read becomes an `Unreadable`, which the verifier counts as a problem, and reading goes on.
"""

import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, RowMapping, Table, select
from sqlalchemy.exc import DBAPIError

from intelligentscan.domain.errors import InvalidArgument, TrailBroken
from intelligentscan.domain.text import visible
from intelligentscan.stores.governance.canonical import NotCanonical, canonical_object, quoted
from intelligentscan.stores.governance.chain import MAX_BODY_BYTES, MAX_INTEGER, EventRecord, record_from_row
from intelligentscan.stores.governance.report import Unreadable
from intelligentscan.stores.governance.tables import GovernanceTables

MAX_LINE_BYTES = MAX_BODY_BYTES + 64 * 1024
_EXPORTED = "name a file that 'intelligentscan audit log' exported."
_VERSION = 1
BATCH = 1000
"""How many rows of a database are in memory at a time."""
_BEFORE_BODY, _AFTER_BODY = ',"body":', ',"experiment_id":'
_COLUMNS = frozenset({
    "seq", "at", "actor", "on_behalf_of", "action", "experiment_id", "workspace", "name", "version", "run_id", "body",
    "prev", "hash", "key_id", "signature",
})  # fmt: skip


def stored_events(
    connection: Connection, tables: GovernanceTables, *, since: int = 1
) -> Iterator[EventRecord | Unreadable]:
    """Return the events of a database in order, read in batches.

    Args:
        connection: open on the governance database.
        tables: its tables.
        since: the first event's number; to go on from a verified prefix, the number of its last event.
    """
    reader = _Reader(connection, tables.event)
    while True:
        try:
            yield from reader.batches(since)
        except (DBAPIError, UnicodeDecodeError) as exc:
            if not is_undecodable(exc):
                raise
        else:
            return
        # The batch with the text that is none is read again, one by one, so that only that one is lost.
        since = max(since, reader.reached + 1)
        numbers = reader.numbers(since)
        for seq in numbers:
            yield reader.single(seq)
        if not numbers:
            yield reader.unreadable()
            return
        since = numbers[-1] + 1


def is_undecodable(exc: DBAPIError | UnicodeDecodeError) -> bool:
    """Tell whether a database refused to read because a text in it is none; only its files' owner can put it there."""
    return isinstance(exc, UnicodeDecodeError) or "Could not decode" in str(exc.orig)


def write_export(events: Iterable[EventRecord | Unreadable], stream: IO[bytes]) -> int:
    """Write events as JSON Lines.

    Returns:
        How many were written.

    Raises:
        TrailBroken: an entry cannot be read as an event.
    """
    written = 0
    for entry in events:
        if isinstance(entry, Unreadable):
            raise TrailBroken(
                f"The trail cannot be exported as a whole: {entry.place} cannot be read as an event.",
                next="run 'intelligentscan audit verify'; restore the store from a backup.",
            )
        stream.write(export_line(entry))
        written += 1
    return written


def read_export(path: Path) -> Iterator[EventRecord | Unreadable]:
    """Return the events of an exported trail, one line in memory at a time.

    Raises:
        InvalidArgument: the file cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):  # a device may never end
            raise InvalidArgument(f"The exported trail {visible(str(path))} is no file.", next=_EXPORTED)
        with path.open("rb") as stream:
            yield from _lines(stream)
    except OSError as exc:
        raise InvalidArgument(
            f"The exported trail {visible(str(path))} cannot be read: {exc.strerror}.", next=_EXPORTED
        ) from exc


def export_line(event: EventRecord) -> bytes:
    """Return an event as one line of canonical JSON.

    Raises:
        TrailBroken: a text of the event holds half a character.
    """

    def text(value: str | None) -> str:
        return "null" if value is None else quoted(value)

    version = "null" if event.version is None else event.version
    line = (
        f'{{"action":{text(event.action)},"actor":{text(event.actor)},"at":{event.at},"body":{event.body_text},'
        f'"experiment_id":{text(event.experiment_id)},"hash":{text(event.hash)},"key_id":{text(event.key_id)},'
        f'"name":{text(event.name)},"on_behalf_of":{text(event.on_behalf_of)},"prev":{text(event.prev)},'
        f'"run_id":{text(event.run_id)},"seq":{event.seq},"signature":{text(event.signature)},"v":{_VERSION},'
        f'"version":{version},"workspace":{text(event.workspace)}}}\n'
    )
    try:
        return line.encode()
    except UnicodeEncodeError as exc:
        raise TrailBroken(
            f"Event {event.seq} holds half a character.", next="run 'intelligentscan audit verify'."
        ) from exc


class _Reader:
    """Rows of the table of events, and how far they were read."""

    def __init__(self, connection: Connection, event: Table) -> None:
        self._connection = connection
        self._event = event
        self.reached = 0

    def batches(self, since: int) -> Iterator[EventRecord | Unreadable]:
        seq = self._event.c.seq
        query = select(self._event).where(seq >= since).order_by(seq).execution_options(yield_per=BATCH)
        for row in self._connection.execute(query).mappings():
            yield self._record(row)

    def single(self, seq: int) -> EventRecord | Unreadable:
        try:
            return self._record(
                self._connection.execute(select(self._event).where(self._event.c.seq == seq)).mappings().one()
            )
        except (DBAPIError, UnicodeDecodeError) as exc:
            if not is_undecodable(exc):
                raise
            return self.unreadable()

    def numbers(self, since: int) -> Sequence[int]:
        """Return the numbers of one batch of events, without their texts."""
        seq = self._event.c.seq
        query = select(seq).where(seq.between(since, MAX_INTEGER)).order_by(seq).limit(BATCH)
        return self._connection.execute(query).scalars().all()

    def unreadable(self) -> Unreadable:
        return Unreadable(self._place(), "the database does not give it out as text")

    def _record(self, row: RowMapping) -> EventRecord | Unreadable:
        try:
            record = record_from_row(row)
        except TrailBroken as exc:
            return Unreadable(self._place(), _why(exc))
        self.reached = record.seq
        return record

    def _place(self) -> str:
        return f"the entry after event {self.reached}" if self.reached else "the first entry"


def _lines(stream: IO[bytes]) -> Iterator[EventRecord | Unreadable]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            _skip_rest(stream)
            yield Unreadable(f"line {number}", "it is longer than any event")
        elif line.strip():
            yield _entry(number, line)


def _skip_rest(stream: IO[bytes]) -> None:
    while (piece := stream.readline(1024 * 1024)) and not piece.endswith(b"\n"):
        pass


def _entry(number: int, line: bytes) -> EventRecord | Unreadable:
    place = f"line {number}"
    try:
        text = line.rstrip(b"\r\n").decode()
        document = canonical_object(text)
        if set(document) != _COLUMNS | {"v"} or type(document["v"]) is not int or document["v"] != _VERSION:
            return Unreadable(place, "it does not have the fields of an exported event")
        if not isinstance(document["body"], dict):
            return Unreadable(place, "its body is not a JSON object")
        # In canonical form the fields have their places, and no text before or after the body holds bare quotes.
        body = text[text.index(_BEFORE_BODY) + len(_BEFORE_BODY) : text.rindex(_AFTER_BODY)]
        return record_from_row({**document, "body": body})
    except UnicodeDecodeError:
        return Unreadable(place, "it is not UTF-8")
    except NotCanonical as exc:
        return Unreadable(place, str(exc))
    except TrailBroken as exc:
        return Unreadable(place, _why(exc))


def _why(exc: TrailBroken) -> str:
    cause = exc.__cause__
    said = cause.message if isinstance(cause, InvalidArgument) else exc.message
    return said.rstrip(".")
