"""Rows as an event's signed body holds them, and their comparison with the rows that are stored."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Table

from intelligentscan.domain.errors import TrailBroken
from intelligentscan.stores.governance.chain import EventRecord
from intelligentscan.stores.governance.key_events import KEY_CREATED, KEY_ROTATED
from intelligentscan.stores.governance.report import MAX_PROBLEMS, Problems
from intelligentscan.stores.governance.tables import GOVERNING, GovernanceTables

Values = tuple[Any, ...]


@dataclass(slots=True)
class Shape:
    """How a row of one table is compared: its values but for the event, and which of them tell two rows apart."""

    name: str
    table: Table
    columns: tuple[str, ...]
    key: tuple[int, ...]

    def stored(self, row: Row[Any]) -> Values:
        """Return a row of the database."""
        values = row._mapping
        return tuple(values[column] for column in self.columns)

    def signed(self, row: object) -> Values:
        """Return a row of an event's body; what the body leaves out is null, as columns added later are.

        Raises:
            ValueError: it is no row of this table.
        """
        if not isinstance(row, dict) or not set(row).issubset(self.columns):
            raise ValueError(self.name)
        if any(isinstance(value, dict | list) for value in row.values()):
            raise ValueError(self.name)
        return tuple(row.get(column) for column in self.columns)


def shapes_of(tables: GovernanceTables) -> dict[str, Shape]:
    """Return the shape of every governing table, by its plain name."""
    made = {}
    for name in GOVERNING:
        table = tables.projection(name)
        columns = tuple(c.name for c in table.columns if c.name != "event")
        primary = {c.name for c in table.primary_key}
        key = tuple(i for i, column in enumerate(columns) if column in primary)
        made[name] = Shape(name, table, columns, key)
    return made


def signed_rows(event: EventRecord, shapes: Mapping[str, Shape], problems: Problems) -> dict[str, list[Values]]:
    """Return the rows in an event's body by table; what is no row is a problem."""
    try:
        rows = event.body.get("rows", {})
        if not isinstance(rows, dict) or not set(rows).issubset(shapes):
            raise ValueError("rows")
        if "signing_key" in rows and event.action not in (KEY_CREATED, KEY_ROTATED):
            raise ValueError("signing_key")
        return {name: [shapes[name].signed(row) for row in listed] for name, listed in rows.items()}
    except (TrailBroken, ValueError, KeyError, TypeError):
        problems.add(event.seq, "BAD_ROWS", f"Event {event.seq} holds rows that no table of this release has.")
        return {}


class Comparison:
    """The rows of one event and one table: those that were signed are crossed out by those that are stored."""

    __slots__ = ("_extra", "_more", "_seq", "_shape", "_wanted")

    def __init__(self, seq: int, shape: Shape, signed: Iterable[Values]) -> None:
        self._seq = seq
        self._shape = shape
        self._wanted = Counter(signed)
        self._extra: list[Values] = []
        self._more = 0

    def stored(self, row: Values) -> None:
        """Cross out a stored row, or keep it as one too many."""
        if self._wanted[row] > 0:
            self._wanted[row] -= 1
        elif len(self._extra) < MAX_PROBLEMS:
            self._extra.append(row)
        else:
            self._more += 1

    def report(self, problems: Problems) -> None:
        """Report what is left on either side."""
        lost = list(self._wanted.elements())
        if not lost and not self._extra:
            return
        place = f"table '{self._shape.name}'"
        by_key = Counter(self._key(row) for row in self._extra)
        for row in lost:
            if by_key[self._key(row)] > 0:
                by_key[self._key(row)] -= 1
                message = f"A row of {place} was changed after event {self._seq} made it."
                problems.add(self._seq, "CHANGED_ROW", message)
            else:
                problems.add(self._seq, "MISSING_ROW", f"A row of {place} that event {self._seq} made is gone.")
        for _ in range(sum(by_key.values())):
            forged(problems, self._seq, self._shape.name)
        problems.total += self._more

    def _key(self, row: Values) -> Values:
        return tuple(row[i] for i in self._shape.key)


def forged(problems: Problems, seq: object, table: str) -> None:
    """Report a row that no event made."""
    if isinstance(seq, int):
        problems.add(seq, "FORGED_ROW", f"A row of table '{table}' names event {seq}, which did not make it.")
    else:
        problems.add(None, "FORGED_ROW", f"A row of table '{table}' names no event.")
