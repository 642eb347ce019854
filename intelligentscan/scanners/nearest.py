"""Pairs of positions on a line, the nearest first: which of several equal findings became which."""

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

Position = tuple[int, int]


def nearest(left: Sequence[Position], right: Sequence[Position]) -> Iterator[tuple[int, int]]:
    """Yield pairs of indexes until one side is used up; in order if both sides have the same number.

    The nearest pair of a left and a right position always are neighbours once all are sorted together. So a heap of
    neighbours is enough, and n positions take n log n steps instead of the square.

    Args:
        left: sorted positions (line, column).
        right: sorted positions.
    """
    if len(left) == len(right):
        yield from zip(range(len(left)), range(len(right)), strict=True)
        return
    points = sorted([(at, 0, i) for i, at in enumerate(left)] + [(at, 1, i) for i, at in enumerate(right)])
    before = list(range(-1, len(points) - 1))
    after = list(range(1, len(points) + 1))
    heap = [(_distance(points[i][0], points[i + 1][0]), i, i + 1) for i in range(len(points) - 1)]
    heapify(heap)
    used = [False] * len(points)
    while heap:
        _, a, b = heappop(heap)
        if used[a] or used[b] or points[a][1] == points[b][1]:
            continue
        used[a] = used[b] = True
        one, other = (a, b) if points[a][1] == 0 else (b, a)
        yield points[one][2], points[other][2]
        low, high = before[a], after[b]
        if low >= 0:
            after[low] = high
        if high < len(points):
            before[high] = low
        if low >= 0 and high < len(points):
            heappush(heap, (_distance(points[low][0], points[high][0]), low, high))


def _distance(one: Position, other: Position) -> Position:
    return abs(one[0] - other[0]), abs(one[1] - other[1])
