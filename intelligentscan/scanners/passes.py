"""The passes that recognise a finding of one scan in another, each on what the passes before it left over.

The order follows what is known to survive edits (compare SonarQube's issue tracking): a fingerprint that the scanner
itself vouches for, the same text on the line where a diff leads, the same text elsewhere in the file, similar text
where a diff leads, the same code in another file. Pairs are one to one and always of the same engine and rule. Nothing
here prefers one of the two scans, and every choice has a fixed order: scans given in another order, or findings
shuffled, lead to the same pairs.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.fingerprint import FINGERPRINT_VERSION
from intelligentscan.scanners.line_map import LineMap
from intelligentscan.scanners.nearest import nearest
from intelligentscan.scanners.rule_aliases import matching_rule
from intelligentscan.scanners.scan_record import ScanRecord
from intelligentscan.scanners.similarity import LEAST_SIMILARITY, MAX_COMPARED, NEIGHBOURS, Text

PRODUCER = "fingerprint of the scanner"
SAME_LINE = "same text on the same line"
SAME_TEXT = "same text in the same file"
FINGERPRINT = f"fingerprint/{FINGERPRINT_VERSION}"
SIMILAR = "similar text on the same line"
SAME_CONTEXT = "same lines around it in another place"
SAME_SYMBOL = "same text in the same function elsewhere"

MIN_PRODUCER_PRINT = 8
_PLACEHOLDERS = frozenset({"requires login", "not available", "undefined", "placeholder"})


@dataclass(frozen=True, slots=True)
class Pair:
    """One finding of each scan, by index, and the pass that matched them."""

    left: int
    right: int
    method: str


@dataclass(slots=True)
class _Side:
    """One scan as the passes see it; `free` are the indexes of findings without a partner, in a fixed order."""

    record: ScanRecord
    free: list[int]
    vanished: Callable[[Finding], bool]
    keys: dict[int, tuple[str, ...]] = field(default_factory=dict)
    texts: dict[int, Text] = field(default_factory=dict)

    def finding(self, index: int) -> Finding:
        return self.record.findings[index]

    def text(self, index: int) -> Text:
        if index not in self.texts:
            self.texts[index] = Text.of(self.finding(index))
        return self.texts[index]


class Passes:
    """One comparison of two scans."""

    def __init__(
        self,
        left: ScanRecord,
        right: ScanRecord,
        names: Mapping[str, str],
        gone: Callable[[Finding], bool],
        added: Callable[[Finding], bool],
    ) -> None:
        """Prepare a comparison.

        Args:
            left: a scan.
            right: another scan.
            names: names of files in the right scan by those in the left one, where they differ.
            gone: tells whether the right scan would have seen a finding of the left one, were it still there.
            added: tells whether the left scan would have seen a finding of the right one, had it been there.
        """
        self._left = _Side(left, in_order(left.findings), gone)
        self._right = _Side(right, in_order(right.findings), added)
        self._names = names
        self._old = {name: old for old, name in names.items()}
        self._maps: dict[tuple[str, str], LineMap | None] = {}
        self._pairs: list[Pair] = []
        self._digested = _rules_with_digests(left, right)
        self.skipped = 0
        """Findings for which no similar text was looked for, because there were too many candidates."""

    def run(self) -> list[Pair]:
        """Return the pairs."""
        self._equal(PRODUCER, *self._producer_keys())
        self._equal(SAME_LINE, self._left_line, self._right_line)
        self._nearest_text()
        if self._left.record.fingerprint_version == self._right.record.fingerprint_version:
            self._equal(FINGERPRINT, self._print_of(self._left), self._print_of(self._right))
        self._similar()
        for method, key in ((SAME_CONTEXT, self._context), (SAME_SYMBOL, self._symbol)):
            self._equal(method, *(self._elsewhere(side, key) for side in (self._left, self._right)))
        return self._pairs

    # Keys: findings with equal keys may be the same one; None takes no part.

    def _rule(self, side: _Side, index: int) -> tuple[str, ...]:
        """Return what has to be equal in every pass: engine, rule, and the secret if both scans know it."""
        if index not in side.keys:
            finding = side.finding(index)
            rule = matching_rule(finding.engine, finding.rule)
            known = (finding.engine, rule) in self._digested
            side.keys[index] = (finding.engine, rule, (finding.secret_digest or "") if known else "")
        return side.keys[index]

    def _path(self, side: _Side, index: int) -> str | None:
        """Return the path under its name in the right scan."""
        path = side.finding(index).path
        return self._names.get(path, path) if side is self._left and path is not None else path

    def _producer_keys(self) -> tuple[Callable[[int], Hashable], Callable[[int], Hashable]]:
        trusted = _trusted_prints(self._left.record.findings, self._right.record.findings)

        def keyed(side: _Side) -> Callable[[int], Hashable]:
            def key(index: int) -> Hashable:
                finding = side.finding(index)
                for name, value in sorted(finding.producer_fingerprints.items()):
                    if (finding.engine, name, value) in trusted:
                        return self._rule(side, index), name, value
                return None

            return key

        return keyed(self._left), keyed(self._right)

    def _left_line(self, index: int) -> Hashable:
        finding = self._left.finding(index)
        lines = self._map_of(finding.path)
        line = lines.right_of(finding.line) if lines and finding.line is not None else None
        if line is None:
            return None
        return self._rule(self._left, index), self._path(self._left, index), line, self._left.text(index).whole

    def _right_line(self, index: int) -> Hashable:
        finding = self._right.finding(index)
        return self._rule(self._right, index), finding.path, finding.line, self._right.text(index).whole

    def _print_of(self, side: _Side) -> Callable[[int], Hashable]:
        return lambda index: (self._rule(side, index), side.finding(index).path, side.finding(index).fingerprint)

    def _elsewhere(self, side: _Side, key: Callable[[_Side, int], Hashable]) -> Callable[[int], Hashable]:
        """Return the key for code that moved: only findings whose line really left, or came to, its place."""

        def chosen(index: int) -> Hashable:
            found = key(side, index)
            moved = found is not None and not self._stayed(side, index) and side.vanished(side.finding(index))
            return (self._rule(side, index), found) if moved else None

        return chosen

    def _context(self, side: _Side, index: int) -> Hashable:
        return side.finding(index).context

    def _symbol(self, side: _Side, index: int) -> Hashable:
        symbol = side.finding(index).symbol
        return (symbol, side.text(index).whole) if symbol else None

    def _stayed(self, side: _Side, index: int) -> bool:
        """Tell whether the finding's line is in the other scan's version of the file too, where a diff leads."""
        finding = side.finding(index)
        if finding.path is None or finding.line is None:
            return True
        if side is self._left:
            lines = self._map_of(finding.path)
            return lines is not None and lines.right_of(finding.line) is not None
        lines = self._map_of(self._old.get(finding.path, finding.path))
        return lines is not None and lines.left_of(finding.line) is not None

    def _map_of(self, path: str | None) -> LineMap | None:
        """Return the line map of a file, by its name in the left scan, or None if it cannot be made."""
        if path is None:
            return None
        name = self._names.get(path, path)
        if (path, name) not in self._maps:
            one, other = self._left.record.sketches.get(path), self._right.record.sketches.get(name)
            known = one is not None and other is not None and one.lines and other.lines
            self._maps[path, name] = LineMap(one.lines, other.lines) if known and one and other else None
        return self._maps[path, name]

    # Passes.

    def _equal(self, method: str, left: Callable[[int], Hashable], right: Callable[[int], Hashable]) -> None:
        """Pair findings with equal keys in the order of their places."""
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for index in reversed(self._left.free):
            if (key := left(index)) is not None:
                waiting[key].append(index)
        wanted = [(waiting.get(right(index)), index) for index in self._right.free]
        self._keep(method, [(partners.pop(), index) for partners, index in wanted if partners])

    def _nearest_text(self) -> None:
        """Pair findings of equal text in one file, those nearest to where a diff leads first."""
        left, right = (
            _buckets(side.free, lambda i, s=side: (self._rule(s, i), self._path(s, i), s.text(i).whole))  # type: ignore[misc]
            for side in (self._left, self._right)
        )
        pairs = []
        for key in left.keys() & right.keys():
            ours, theirs = sorted(left[key], key=self._expected), right[key]
            there = [(self._right.finding(index).line or 0, self._right.finding(index).column or 0) for index in theirs]
            pairs += [(ours[a], theirs[b]) for a, b in nearest([self._expected(index) for index in ours], there)]
        self._keep(SAME_TEXT, pairs)

    def _expected(self, index: int) -> tuple[int, int]:
        finding = self._left.finding(index)
        line = finding.line or 0
        lines = self._map_of(finding.path)
        return lines.expected(line) if lines and line else line, finding.column or 0

    def _similar(self) -> None:
        """Pair findings of similar text where a diff leads; without a diff, on lines of the same number."""
        left, right = _buckets(self._left.free, self._left_region), _buckets(self._right.free, self._right_region)
        left.pop(None, None)
        left_over = MAX_COMPARED
        pairs = []
        shared = [(left[key], right[key]) for key in left.keys() & right.keys()]
        shared.sort(key=lambda both: (min(map(len, both)), _place(self._left.finding(both[0][0]))))
        for ours, theirs in shared:
            candidates = list(_neighbours(len(ours), len(theirs)))
            if len(candidates) > left_over:
                self.skipped += min(len(ours), len(theirs))
                continue
            left_over -= len(candidates)
            scored = [(-self._left.text(ours[a]).similarity(self._right.text(theirs[b])), a, b) for a, b in candidates]
            free_ours, free_theirs = set(range(len(ours))), set(range(len(theirs)))
            for score, a, b in sorted(scored, key=lambda item: (item[0], abs(item[1] - item[2]), item[1])):
                if -score >= LEAST_SIMILARITY and a in free_ours and b in free_theirs:
                    free_ours.discard(a)
                    free_theirs.discard(b)
                    pairs.append((ours[a], theirs[b]))
        self._keep(SIMILAR, pairs)

    def _left_region(self, index: int) -> Hashable:
        finding = self._left.finding(index)
        if finding.line is None or finding.snippet is None:
            return None
        lines = self._map_of(finding.path)
        region = lines.left_region(finding.line) if lines else finding.line
        return (self._rule(self._left, index), self._path(self._left, index), region) if region is not None else None

    def _right_region(self, index: int) -> Hashable:
        finding = self._right.finding(index)
        if finding.line is None or finding.snippet is None or finding.path is None:
            return None
        lines = self._map_of(self._old.get(finding.path, finding.path))
        region = lines.right_region(finding.line) if lines else finding.line
        return self._rule(self._right, index), finding.path, region

    def _keep(self, method: str, pairs: Sequence[tuple[int, int]]) -> None:
        self._pairs += [Pair(a, b, method) for a, b in pairs]
        used_left, used_right = {a for a, _ in pairs}, {b for _, b in pairs}
        self._left.free = [index for index in self._left.free if index not in used_left]
        self._right.free = [index for index in self._right.free if index not in used_right]


def in_order(findings: Sequence[Finding]) -> list[int]:
    """Return the indexes of the findings that are there, by place, then by everything else that can differ."""
    there = [i for i, finding in enumerate(findings) if finding.kind == "fail" and finding.baseline_state != "absent"]
    return sorted(there, key=lambda i: _place(findings[i]))


def _place(f: Finding) -> tuple[str, int, int, str, str, int, bool, str, str, str]:
    return (
        *(f.path or "", f.line or 0, f.column or 0, f.engine, f.rule),
        *(f.end_line or 0, f.suppressed, f.fingerprint, f.message, f.snippet or ""),
    )


def _buckets(indexes: Sequence[int], key: Callable[[int], Hashable]) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index in indexes:
        found[key(index)].append(index)
    return found


def _neighbours(left: int, right: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of two short lists; of long ones only those of about the same rank."""
    for a in range(left):
        middle = a * right // left if left * right > NEIGHBOURS**2 else 0
        reach = NEIGHBOURS if left * right > NEIGHBOURS**2 else right
        for b in range(max(0, middle - reach), min(right, middle + reach + 1)):
            yield a, b


def _trusted_prints(*scans: Sequence[Finding]) -> set[tuple[str, str, str]]:
    """Return the producer fingerprints (engine, key, value) that identify one finding in each of the scans.

    A value that several results share identifies none of them, a short one is a counter or a column, and a key that
    has one value in both scans together is a constant.
    """
    counts = [
        Counter((f.engine, key, value) for f in findings for key, value in f.producer_fingerprints.items())
        for findings in scans
    ]
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for engine, key, value in {*counts[0], *counts[1]}:
        values[engine, key].add(value)
    return {
        (engine, key, value)
        for engine, key, value in counts[0].keys() & counts[1].keys()
        if counts[0][engine, key, value] == counts[1][engine, key, value] == 1
        and len(value) >= MIN_PRODUCER_PRINT
        and value.strip().lower() not in _PLACEHOLDERS
        and len(values[engine, key]) > 1
    }


def _rules_with_digests(*scans: ScanRecord) -> set[tuple[str, str]]:
    """Return the rules of which both scans know all secrets by digests of one key, so that these can be compared.

    A digest may name its key, before a colon.
    """
    keys: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    for scan in scans:
        for finding in scan.findings:
            digest = finding.secret_digest
            key = digest.rpartition(":")[0] if digest is not None else None
            keys[finding.engine, matching_rule(finding.engine, finding.rule)].add(key)
    return {rule for rule, found in keys.items() if len(found) == 1 and None not in found}
