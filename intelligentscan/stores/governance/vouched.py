"""Rows that signed events vouch for: what else stands in a table of the record counts for nothing.

The truth is in the events. A row that somebody wrote past the trail is ignored and reported; a row that
somebody removed is there all the same, as long as the event that made it is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, select

from intelligentscan.domain.errors import TrailBroken
from intelligentscan.stores.governance.chain import EventRecord, event_hash, record_from_row, verify_signature
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.report import KeyValidity, Problems
from intelligentscan.stores.governance.signed_rows import forged, shapes_of, signed_rows
from intelligentscan.stores.governance.verify import key_at

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class VouchedRow:
    """A row of the record, and the event that made it; time in ms since the epoch, of texts the salted digests."""

    event: int
    at: int
    actor: str
    values: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, column: str) -> Any:
        return self.values[column]


@dataclass(frozen=True, slots=True)
class Vouched:
    """Rows in the order of their making, and what was found that counts for nothing."""

    rows: tuple[VouchedRow, ...]
    problems: tuple[str, ...]


def vouched(
    read: GovernanceReads,
    table: str,
    match: Mapping[str, object],
    actions: Collection[str] = (),
    among: ColumnElement[bool] | None = None,
) -> Vouched:
    """Return the rows of one table of the record that signed events have made.

    Args:
        read: open on the governance database.
        table: plain name of the table.
        match: columns and the values that they must have; a list means one of them.
        actions: actions of the events that make such rows; with them, rows that were removed are found too.
        among: which events of these actions to look at, by a condition on an index; all if None.
    """
    shapes = shapes_of(read.tables)
    shape = shapes[table]
    where = [
        shape.table.c[column].in_(value) if isinstance(value, list) else shape.table.c[column] == value
        for column, value in match.items()
    ]
    stored = {(row.event, shape.stored(row)) for row in read.connection.execute(select(shape.table).where(*where))}
    problems = Problems()
    found: list[VouchedRow] = []
    for event in _events(read, {seq for seq, _ in stored if isinstance(seq, int)}, actions, among):
        for values in signed_rows(event, shapes, problems).get(table, ()):
            row = dict(zip(shape.columns, values, strict=True))
            if _matches(row, match):
                stored.discard((event.seq, values))
                facts, texts = event.body.get("facts", {}), event.body.get("text", {})
                found.append(VouchedRow(event.seq, event.at, event.actor, row, facts, texts))
    for seq, _ in stored:
        forged(problems, seq, table)
    return Vouched(tuple(found), tuple(p.message for p in problems.first))


def _matches(row: Mapping[str, Any], match: Mapping[str, object]) -> bool:
    return all(row[c] in value if isinstance(value, list) else row[c] == value for c, value in match.items())


def _events(
    read: GovernanceReads, numbers: set[int], actions: Collection[str], among: ColumnElement[bool] | None
) -> list[EventRecord]:
    """Return the events of these numbers and actions that were signed by the key in force then, in order."""
    event = read.tables.event
    rows: dict[int, Any] = {}
    wanted = sorted(numbers)
    queries: list[ColumnElement[bool]] = [
        event.c.seq.in_(wanted[i : i + _AT_ONCE]) for i in range(0, len(wanted), _AT_ONCE)
    ]
    if actions:
        made = event.c.action.in_(list(actions))
        queries.append(made if among is None else and_(made, among))
    for where in queries:
        rows |= {row["seq"]: row for row in read.connection.execute(select(event).where(where)).mappings()}
    keys = read.key_validities()
    found = []
    for seq in sorted(rows):
        try:
            record = record_from_row(rows[seq])
            if _signed(record, keys):
                found.append(record)
        except TrailBroken:
            continue  # the check of the trail reports it; here it vouches for nothing
    return found


def _signed(event: EventRecord, keys: Sequence[KeyValidity]) -> bool:
    key = key_at(keys, event.seq)
    return (
        key is not None
        and key.key_id == event.key_id
        and event_hash(event) == event.hash
        and verify_signature(event, key.public)
    )
