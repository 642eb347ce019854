"""Where the lines of one version of a file are in another: a line diff on hashes, without either text.

The algorithm is patience diff (Bram Cohen, 2006): equal lines at both ends are aligned, then those that occur once on
each side, in their longest common order; the gaps between them are treated the same way. A gap without such lines is
left to a plain diff if it is small, and stays unaligned if it is not, so that the work stays near linear.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher

MAX_GAP = 40_000
"""A gap without unique lines is compared line by line up to this many pairs of lines."""
MAX_ROUNDS = 30


class LineMap:
    """The aligned lines of two versions of a file; lines count from 1."""

    def __init__(self, left: Sequence[int], right: Sequence[int]) -> None:
        """Args: left and right are the hashes of the lines of each version."""
        pairs = _aligned(left, right)
        self._left = [a for a, _ in pairs]
        self._right = [b for _, b in pairs]
        self._sizes = len(left), len(right)

    def right_of(self, line: int) -> int | None:
        """Return the line of the right version that this one of the left is, or None if it was changed or removed."""
        at = bisect_left(self._left, line - 1)
        found = at < len(self._left) and self._left[at] == line - 1
        return self._right[at] + 1 if found else None

    def left_of(self, line: int) -> int | None:
        """Return the line of the left version that this one of the right was, or None if it is changed or added."""
        at = bisect_left(self._right, line - 1)
        found = at < len(self._right) and self._right[at] == line - 1
        return self._left[at] + 1 if found else None

    def expected(self, line: int) -> int:
        """Return where in the right version to look for a line of the left, aligned or not."""
        at = bisect_right(self._left, line - 1) - 1
        if at < 0:
            return line
        return self._right[at] + 1 + (line - 1 - self._left[at])

    def left_region(self, line: int) -> Hashable:
        """Return what a line of the left version and those it may have become have in common; None beyond the end."""
        return self._region(self._left, line, self._sizes[0])

    def right_region(self, line: int) -> Hashable:
        """Return what a line of the right version and those it may have been have in common; None beyond the end."""
        return self._region(self._right, line, self._sizes[1])

    def _region(self, aligned: Sequence[int], line: int, size: int) -> Hashable:
        if not 1 <= line <= size:
            return None
        at = bisect_left(aligned, line - 1)
        return ("line" if at < len(aligned) and aligned[at] == line - 1 else "gap", at)


def _aligned(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    gaps = [(0, len(left), 0, len(right), 0)]
    while gaps:
        a, a_end, b, b_end, rounds = gaps.pop()
        while a < a_end and b < b_end and left[a] == right[b]:
            pairs.append((a, b))
            a, b = a + 1, b + 1
        while a < a_end and b < b_end and left[a_end - 1] == right[b_end - 1]:
            a_end, b_end = a_end - 1, b_end - 1
            pairs.append((a_end, b_end))
        if a == a_end or b == b_end:
            continue
        anchors = _anchors(left, right, (a, a_end, b, b_end)) if rounds < MAX_ROUNDS else []
        if not anchors:
            pairs += _small(left, right, (a, a_end, b, b_end))
            continue
        for x, y in anchors:
            gaps.append((a, x, b, y, rounds + 1))
            pairs.append((x, y))
            a, b = x + 1, y + 1
        gaps.append((a, a_end, b, b_end, rounds + 1))
    return sorted(pairs)


def _anchors(left: Sequence[int], right: Sequence[int], gap: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """Return the longest run, in order on both sides, of lines that occur once on each side of the gap."""
    a, a_end, b, b_end = gap
    in_left, in_right = Counter(left[a:a_end]), Counter(right[b:b_end])
    where = {right[y]: y for y in range(b, b_end) if in_right[right[y]] == 1}
    unique = [(x, where[left[x]]) for x in range(a, a_end) if in_left[left[x]] == 1 and left[x] in where]
    # Longest increasing subsequence of the right line numbers, by patience sorting.
    tops: list[int] = []
    piles: list[int] = []
    before: list[int] = []
    for number, (_, y) in enumerate(unique):
        pile = bisect_left(tops, y)
        before.append(piles[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(y)
            piles.append(number)
        else:
            tops[pile], piles[pile] = y, number
    chain: list[tuple[int, int]] = []
    number = piles[-1] if piles else -1
    while number >= 0:
        chain.append(unique[number])
        number = before[number]
    return chain[::-1]


def _small(left: Sequence[int], right: Sequence[int], gap: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    a, a_end, b, b_end = gap
    if (a_end - a) * (b_end - b) > MAX_GAP:
        return []
    matcher = SequenceMatcher(None, left[a:a_end], right[b:b_end], autojunk=False)
    blocks = matcher.get_matching_blocks()
    return [(a + block.a + i, b + block.b + i) for block in blocks for i in range(block.size)]
