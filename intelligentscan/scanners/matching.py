"""Findings of two scans, matched one to one: what is new, fixed, still there, set aside, or cannot be told.

Absence proves nothing by itself. A finding that is gone counts as fixed only if its engine and rule
ran again, in the same version, and its file was analysed or is no longer there; a finding that
appears counts as new only under the same conditions in the first scan. All else is not comparable,
with the reason. Matching runs in ordered passes, each on what the passes before it left over; a
pass is one function in `PASSES`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from intelligentscan.domain.scan import Finding, FindingState
from intelligentscan.scanners.fingerprint import FINGERPRINT_VERSION
from intelligentscan.scanners.scan_record import ScanRecord
from intelligentscan.scanners.severity_map import canonical_rule

_MANY_FILES = 5


@dataclass(frozen=True, slots=True)
class FindingChange:
    """What became of one finding.

    Attributes:
        state: new, persisting, fixed, reopened, suppressed or not_comparable.
        finding: in the second scan, or in the first if it is gone.
        previous: the finding of the first scan it was matched with.
        method: the pass that matched the pair; None if it has no partner.
        reason: why the state is not the plain one.
    """

    state: FindingState
    finding: Finding
    previous: Finding | None = None
    method: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Matching:
    """The change of a whole scan.

    Attributes:
        current: one entry per finding of the second scan, in its order.
        gone: one entry per open finding of the first scan that the second does not have.
        note: why nothing at all can be compared, if that is so.
    """

    current: tuple[FindingChange, ...]
    gone: tuple[FindingChange, ...]
    note: str | None = None

    @property
    def new(self) -> int:
        """How many open findings were not there before, reopened ones included."""
        return self.count("new", "reopened")

    @property
    def persisting(self) -> int:
        """How many open findings were there before, moved ones included."""
        return self.count("persisting", "moved")

    @property
    def fixed(self) -> int:
        """How many are gone although rule and file were looked at again."""
        return self.count("fixed")

    @property
    def not_comparable(self) -> int:
        """How many cannot be called new or fixed, because one of the scans did not look."""
        return self.count("not_comparable")

    def count(self, *states: FindingState) -> int:
        """Return how many findings are in one of the states."""
        return sum(change.state in states for change in (*self.current, *self.gone))

    def reasons(self) -> dict[str, int]:
        """Return how often each reason for not comparing applies, the most frequent first."""
        changes = (*self.current, *self.gone)
        return dict(Counter(c.reason for c in changes if c.state == "not_comparable" and c.reason).most_common())


@dataclass(frozen=True, slots=True)
class Pass:
    """One way to recognise a finding: those with equal keys are the same one."""

    method: str
    key: Callable[[Finding], Hashable]


def _by_fingerprint(finding: Finding) -> Hashable:
    return finding.engine, canonical_rule(finding.engine, finding.rule), finding.path, finding.fingerprint


PASSES: tuple[Pass, ...] = (Pass(f"fingerprint/{FINGERPRINT_VERSION}", _by_fingerprint),)


def match(before: ScanRecord, after: ScanRecord) -> Matching:
    """Match the findings of a scan with those of an earlier one."""
    pairs, methods = _pairs(before.findings, after.findings)
    note = _nothing_comparable(before, after)
    first, second = _Look(before, after, "first"), _Look(after, before, "second")
    current = []
    for index, finding in enumerate(after.findings):
        previous = before.findings[pairs[index]] if index in pairs else None
        current.append(_current(finding, previous, methods.get(index), note, first))
    matched = set(pairs.values())
    gone = [
        _gone(finding, note, second)
        for index, finding in enumerate(before.findings)
        if index not in matched and finding.counts
    ]
    return Matching(tuple(current), tuple(gone), note)


def _pairs(before: Sequence[Finding], after: Sequence[Finding]) -> tuple[dict[int, int], dict[int, str]]:
    """Return, by index in `after`, the index of its partner in `before` and the pass that found it."""
    pairs: dict[int, int] = {}
    methods: dict[int, str] = {}
    free_before = [index for index in _in_order(before) if _is_there(before[index])]
    free_after = [index for index in _in_order(after) if _is_there(after[index])]
    for step in PASSES:
        candidates: dict[Hashable, list[int]] = defaultdict(list)
        for index in reversed(free_before):
            candidates[step.key(before[index])].append(index)
        for index in free_after:
            if partners := candidates.get(step.key(after[index])):
                pairs[index] = partners.pop()
                methods[index] = step.method
        taken = set(pairs.values())
        free_before = [index for index in free_before if index not in taken]
        free_after = [index for index in free_after if index not in pairs]
    return pairs, methods


def _in_order(findings: Sequence[Finding]) -> list[int]:
    return sorted(range(len(findings)), key=lambda i: (findings[i].line or 0, findings[i].column or 0))


def _is_there(finding: Finding) -> bool:
    return finding.kind == "fail" and finding.baseline_state != "absent"


def _current(
    finding: Finding, previous: Finding | None, method: str | None, note: str | None, first: "_Look"
) -> FindingChange:
    if not _is_there(finding):
        return FindingChange("unmatched", finding, reason="the scanner reports it as absent or as no failure")
    if finding.suppressed:
        return FindingChange("suppressed", finding, previous, method)
    if previous is not None:
        if previous.suppressed:
            return FindingChange("reopened", finding, previous, method, "it was suppressed in the first scan")
        return FindingChange("persisting", finding, previous, method)
    reason = note or first.missed(finding)
    return FindingChange("not_comparable" if reason else "new", finding, reason=reason)


def _gone(finding: Finding, note: str | None, second: "_Look") -> FindingChange:
    reason = note or second.missed(finding)
    return FindingChange("not_comparable" if reason else "fixed", finding, reason=reason)


def _nothing_comparable(before: ScanRecord, after: ScanRecord) -> str | None:
    if before.fingerprint_version != after.fingerprint_version:
        return "the fingerprints of the two scans were made in different ways"
    if before.scope != after.scope:
        return "the two scans cover different folders of the repository"
    # A handful of files may all have been replaced; many files without one in common are another project.
    many = min(len(before.files), len(after.files)) >= _MANY_FILES
    return "the two scans have no file in common" if many and before.files.isdisjoint(after.files) else None


class _Look:
    """Where one scan looked: tells why it could not have seen a finding that the other scan has."""

    def __init__(self, record: ScanRecord, other: ScanRecord, name: str) -> None:
        self._record = record
        self._other = other
        self._name = name
        self._rules = {
            engine: frozenset(canonical_rule(engine, rule) for rule in rules)
            for engine, rules in record.rules_run.items()
        }
        self._folders = {
            engine: tuple(path for path in paths if path.endswith("/")) for engine, paths in record.failed_files.items()
        }

    def missed(self, finding: Finding) -> str | None:
        """Return why the scan could not have seen the finding, or None if it would have."""
        engine, path = finding.engine, finding.path
        failed = path is not None and (
            path in self._record.failed_files.get(engine, ()) or path.startswith(self._folders.get(engine, ()))
        )
        if self._record.files and path is not None and path not in self._record.files and not failed:
            return None  # the file was not there, and nothing in it
        if engine not in self._record.engines:
            return f"{engine} did not run in the {self._name} scan"
        if failed:
            return f"the file could not be analysed by {engine} in the {self._name} scan"
        if engine in self._record.uncertain:
            return f"{engine} failed in part in the {self._name} scan, without saying on which files"
        rule = canonical_rule(engine, finding.rule)
        rules = self._rules.get(engine)
        if rules and rule not in rules and rule.partition("/")[0] not in rules:
            return f"the rule did not run in the {self._name} scan"
        return self._other_version(engine)

    def _other_version(self, engine: str) -> str | None:
        here, there = self._record.engines.get(engine), self._other.engines.get(engine)
        if here and there and here != there:
            return f"{engine} has another version in the {self._name} scan"
        return None
