"""Keeps an answer within the size that clients take: what does not fit is counted and named."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from intelligentscan.domain.noun import Noun
from intelligentscan.domain.text import untrusted

T = TypeVar("T")
N = TypeVar("N", bound=Noun)
ANSWER = 36_000
"""Characters of compact JSON that an answer may have; clients cut at about 40,000."""


def entries(values: Mapping[str, T], budget: int, value: Callable[[T], T]) -> tuple[dict[str, T], int]:
    """Return the entries that fit in the budget, keys and values made safe, and the number left out."""
    kept: dict[str, T] = {}
    for key, raw in values.items():
        shown = value(raw)
        budget -= len(key) + len(json.dumps(shown, ensure_ascii=False)) + 6
        if budget < 0:
            break
        kept[untrusted(key, 250)] = shown
    return kept, len(values) - len(kept)


def rows(found: Iterable[N], budget: int) -> tuple[list[N], int]:
    """Return the rows that fit in the budget, and the number left out."""
    kept: list[N] = []
    total = 0
    for row in found:
        total += 1
        budget -= len(row.model_dump_json()) + 1
        if budget >= 0:
            kept.append(row)
    return kept, total - len(kept)
