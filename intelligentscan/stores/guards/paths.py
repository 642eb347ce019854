"""The ways of the map, written as SQL for the tables and columns that are really there."""

# ruff: noqa: S608  the names in these statements come from the map, never from a caller

import re
from collections.abc import Iterator
from dataclasses import dataclass

from intelligentscan.stores.guards.map import GUARDED, Guarded, Reach
from intelligentscan.stores.guards.schema import Schema

BY_NAME = {table.name: table for table in GUARDED}
_USED = re.compile(r"\{row\}\.(\w+)")


@dataclass(frozen=True, slots=True)
class Way:
    """One way from a row to an experiment.

    Attributes:
        leaves: the row's columns that it depends on.
        sources: the tables on the way, each with an alias.
        conditions: what joins them.
        experiment: the expression that holds the experiment's id.
        unique: whether it leads to one experiment at most.
    """

    leaves: frozenset[str]
    sources: tuple[str, ...]
    conditions: tuple[str, ...]
    experiment: str
    unique: bool


def guarded_tables(schema: Schema) -> list[Guarded]:
    """Return the tables of the map that are there and lead to an experiment."""
    tables = schema.tables
    return [table for table in GUARDED if table.name in tables and _passable(table, schema)]


def ways(table: Guarded, row: str, schema: Schema, depth: int = 1) -> Iterator[Way]:
    """Return every way from a row of the table to an experiment, the direct ones first."""
    for reach in _passable(table, schema, depth):
        conditions = [reach.when.format(row=row)] if reach.when else []
        if table.exempt:
            conditions.append(f"NOT ({table.exempt.format(row=row)})")
        leaves = frozenset({reach.column, *_USED.findall(reach.when + table.exempt)})
        if not reach.via:
            yield Way(leaves, (), tuple(conditions), _id(f"{row}.{reach.column}", reach, schema), True)
            continue
        via, alias = BY_NAME[reach.via], f"v{depth}"
        joined = f"{alias}.{reach.key} = {row}.{reach.column}"
        for further in ways(via, alias, schema, depth + 1):
            yield Way(
                leaves,
                (f"{schema.of_mlflow(via.name)} AS {alias}", *further.sources),
                (*conditions, joined, *further.conditions),
                further.experiment,
                further.unique and via.key == (reach.key,),
            )


def belongs(table: Guarded, row: str, experiment: str, schema: Schema, depth: int = 1) -> str:
    """Return the condition under which a row, called so, belongs to the experiment whose id the expression gives."""
    found = []
    for reach in _passable(table, schema, depth):
        column = f"{row}.{reach.column}"
        if reach.via:
            via, alias = BY_NAME[reach.via], f"b{depth}"
            inner = belongs(via, alias, experiment, schema, depth + 1)
            one = f"{column} IN (SELECT {alias}.{reach.key} FROM {schema.of_mlflow(via.name)} AS {alias} WHERE {inner})"
        else:
            one = f"{_id(column, reach, schema)} = {experiment}"
        found.append(f"({reach.when.format(row=row)} AND {one})" if reach.when else one)
    either = " OR ".join(found)
    return f"NOT ({table.exempt.format(row=row)}) AND ({either})" if table.exempt else f"({either})"


def _passable(table: Guarded, schema: Schema, depth: int = 1) -> list[Reach]:
    tables = schema.tables
    there = tables.get(table.name, ())
    found = [
        reach
        for reach in table.reaches
        if reach.column in there and (not reach.via or reach.key in tables.get(reach.via, ()))
    ]
    # a row belongs where its parent does: to the experiment that the parent names itself, if it names one
    direct = [reach for reach in found if not reach.via] if depth > 1 else []
    return direct or found


def _id(column: str, reach: Reach, schema: Schema) -> str:
    if not reach.text:
        return column
    if schema.dialect == "postgresql":
        return f"CASE WHEN {column} ~ '^[0-9]{{1,18}}$' THEN {column}::bigint END"
    return f"CAST({column} AS INTEGER)"
