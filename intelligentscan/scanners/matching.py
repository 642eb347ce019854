"""Findings of two scans, matched one to one: what is new, fixed, moved, back, set aside, or cannot be told.

Absence proves nothing by itself. A finding that is gone counts as fixed only if its engine and rule
ran again, in the same version, and its file (or the one it was renamed to) was analysed or is no
longer there; never in a partial scan, for the code may have moved to where nobody looked. A finding
that appears counts as new only if the first scan would have seen it. All else is not comparable,
with the reason. How pairs are found: `passes`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from intelligentscan.domain.scan import Finding, FindingState
from intelligentscan.scanners.findings_file import findings_digest
from intelligentscan.scanners.fixed_before import MAX_FIXED_BEFORE, FixedFinding, come_back, renamed
from intelligentscan.scanners.looks import Look
from intelligentscan.scanners.passes import Passes
from intelligentscan.scanners.renames import MAX_COMPARED, Renames, renames
from intelligentscan.scanners.scan_record import ScanRecord

__all__ = ["FindingChange", "Matching", "match"]

_MANY_FILES = 5
_PARTIAL = "the second scan is partial, and nothing counts as fixed in a partial scan"


@dataclass(frozen=True, slots=True)
class FindingChange:
    """What became of one finding.

    Attributes:
        state: new, persisting, moved, fixed, reopened, suppressed or not_comparable.
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
        renamed: new names of files by old ones.
        fixed_before: what is fixed now or was before and is not back, the latest first: for the scan after this one.
        limits: what was left out to bound the work.
    """

    current: tuple[FindingChange, ...]
    gone: tuple[FindingChange, ...]
    note: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    fixed_before: tuple[FixedFinding, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def new(self) -> int:
        """How many open findings were not there before, reopened ones included."""
        return self.count("new", "reopened")

    @property
    def persisting(self) -> int:
        """How many open findings were there before, moved ones included."""
        return self.count("persisting", "moved")

    @property
    def moved(self) -> int:
        """How many open findings were there before, in another file."""
        return self.count("moved")

    @property
    def reopened(self) -> int:
        """How many open findings were fixed or suppressed before."""
        return self.count("reopened")

    @property
    def fixed(self) -> int:
        """How many are gone although rule and file were looked at again."""
        return self.count("fixed")

    @property
    def not_comparable(self) -> int:
        """How many cannot be called new or fixed, because one of the scans did not look."""
        return self.count("not_comparable")

    @property
    def silenced(self) -> int:
        """How many were open before and are suppressed now."""
        return sum(c.state == "suppressed" and c.previous is not None and c.previous.counts for c in self.current)

    def count(self, *states: FindingState) -> int:
        """Return how many findings are in one of the states."""
        return sum(change.state in states for change in (*self.current, *self.gone))

    def reasons(self) -> dict[str, int]:
        """Return how often each reason for not comparing applies, the most frequent first."""
        changes = (*self.current, *self.gone)
        return dict(Counter(c.reason for c in changes if c.state == "not_comparable" and c.reason).most_common())


def match(
    before: ScanRecord,
    after: ScanRecord,
    *,
    renamed_in_git: Mapping[str, str] | None = None,
    fixed_before: Sequence[FixedFinding] = (),
) -> Matching:
    """Match the findings of a scan with those of an earlier one.

    Args:
        before: the earlier scan.
        after: the scan.
        renamed_in_git: new names of files by old ones, as git knows them.
        fixed_before: what was fixed by the time of the earlier scan, as its own matching left it.
    """
    names, pairs, limits = _pairs(before, after, renamed_in_git)
    note = _nothing_comparable(before, after, names)
    old_names = {new: old for old, new in names.items()}
    first, second = Look(before, after, "first"), Look(after, before, "second")
    partners = {right: (before.findings[left], method) for left, right, method in pairs}
    current = []
    for index, finding in enumerate(after.findings):
        previous, method = partners.get(index, (None, None))
        missed = note or first.missed(finding, old_names.get(finding.path or "", finding.path))
        current.append(_current(finding, previous, method, missed))
    matched = {left for left, _, _ in pairs}
    gone = [
        _gone(finding, note or second.missed(finding, names.get(finding.path or "", finding.path)), after.partial)
        for index, finding in enumerate(before.findings)
        if index not in matched and finding.counts
    ]
    still_fixed = _reopen(current, fixed_before, names)
    now_fixed = (FixedFinding.of(change.finding, before.run_id) for change in gone if change.state == "fixed")
    carried = (*now_fixed, *(renamed(item, names) for item in still_fixed))
    return Matching(tuple(current), tuple(gone), note, names, carried[:MAX_FIXED_BEFORE], limits)


def _pairs(
    before: ScanRecord, after: ScanRecord, git: Mapping[str, str] | None
) -> tuple[dict[str, str], list[tuple[int, int, str]], tuple[str, ...]]:
    """Return new names by old ones, pairs as index before, index after and method, and what was not tried.

    The comparison itself always takes the two scans in the same order, whichever came first: so what
    is new from one to the other is what is fixed on the way back.
    """
    swapped = _signature(before) > _signature(after)
    left, right = (after, before) if swapped else (before, after)
    if swapped and git:
        git = {new: old for old, new in git.items()}
    found = renames(left, right, git)
    old_names = {new: old for old, new in found.names.items()}
    in_left, in_right = Look(left, right, "left"), Look(right, left, "right")
    passes = Passes(
        left,
        right,
        found.names,
        gone=lambda f: in_right.missed(f, found.names.get(f.path or "", f.path)) is None,
        added=lambda f: in_left.missed(f, old_names.get(f.path or "", f.path)) is None,
    )
    pairs = [(p.right, p.left, p.method) if swapped else (p.left, p.right, p.method) for p in passes.run()]
    return old_names if swapped else found.names, pairs, _limits(found, passes.skipped)


def _signature(record: ScanRecord) -> tuple[str, list[tuple[str, str]]]:
    return findings_digest(record.findings), sorted((path, sketch.digest) for path, sketch in record.sketches.items())


def _limits(found: Renames, skipped: int) -> tuple[str, ...]:
    said = []
    if found.skipped:
        said.append(f"{MAX_COMPARED:,} pairs of files were compared to find renamed ones, {found.skipped:,} were not.")
    if skipped:
        said.append(f"For {skipped:,} findings no similar text was looked for, because too many changed at once.")
    return tuple(said)


def _current(finding: Finding, previous: Finding | None, method: str | None, missed: str | None) -> FindingChange:
    if finding.kind != "fail" or finding.baseline_state == "absent":
        return FindingChange("unmatched", finding, reason="the scanner reports it as absent or as no failure")
    if finding.suppressed:
        return FindingChange("suppressed", finding, previous, method)
    if previous is not None:
        if previous.suppressed:
            return FindingChange("reopened", finding, previous, method, "it was suppressed in the first scan")
        return FindingChange("persisting" if finding.path == previous.path else "moved", finding, previous, method)
    return FindingChange("not_comparable" if missed else "new", finding, reason=missed)


def _gone(finding: Finding, missed: str | None, partial: bool) -> FindingChange:
    reason = missed or (_PARTIAL if partial else None)
    return FindingChange("not_comparable" if reason else "fixed", finding, reason=reason)


def _reopen(
    current: list[FindingChange], fixed: Sequence[FixedFinding], names: Mapping[str, str]
) -> list[FixedFinding]:
    """Mark the new findings that were fixed before, and return what is still fixed."""
    new = [(number, change.finding) for number, change in enumerate(current) if change.state == "new"]
    new.sort(key=lambda item: (item[1].path or "", item[1].line or 0, item[1].column or 0, item[1].fingerprint))
    back = come_back(new, fixed, names) if fixed else {}
    for number, known in back.items():
        seen = f"; run {known.run_id} had it last" if known.run_id else ""
        current[number] = FindingChange(
            "reopened", current[number].finding, reason=f"it was fixed in an earlier scan{seen}"
        )
    used = set(map(id, back.values()))
    return [item for item in fixed if id(item) not in used]


def _nothing_comparable(before: ScanRecord, after: ScanRecord, names: Mapping[str, str]) -> str | None:
    if before.scope != after.scope:
        return "the two scans cover different folders of the repository"
    # A handful of files may all have been replaced; many files without one in common are another project.
    many = min(len(before.files), len(after.files)) >= _MANY_FILES
    strangers = many and not names and before.files.isdisjoint(after.files)
    return "the two scans have no file in common" if strangers else None
