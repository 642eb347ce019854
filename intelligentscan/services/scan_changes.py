"""The artifact `compare/diff.json`: what became of each finding since the baseline, how that was seen, and why."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from intelligentscan.domain.errors import StoreBroken
from intelligentscan.domain.scan import Finding, FindingState
from intelligentscan.scanners.fixed_before import FixedFinding
from intelligentscan.scanners.matching import FindingChange, Matching

FORMAT = 2
"""Format 1 has the states only: no methods, reasons, earlier places, renamed files, and nothing about earlier fixes."""
MAX_RENAMED = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """What is kept of one finding's change.

    Attributes:
        state: what became of it.
        method: the pass that matched it.
        reason: why the state is not the plain one.
        previous: where the baseline had it, if it was elsewhere.
    """

    state: FindingState
    method: str | None = None
    reason: str | None = None
    previous: str | None = None

    @staticmethod
    def of(change: FindingChange) -> "Change":
        """Return what is kept of a change."""
        before = change.previous.location if change.previous is not None else None
        return Change(change.state, change.method, change.reason, before if before != change.finding.location else None)


@dataclass(frozen=True, slots=True)
class StoredChanges:
    """A scan's findings against its baseline.

    Attributes:
        baseline: the run it was compared with.
        current: one entry per finding of the scan, in its order.
        gone: findings that only the baseline had.
        renamed: new names of files by old ones.
        fixed_before: what is fixed now or was before and is not back.
    """

    baseline: str
    current: Sequence[Change]
    gone: Sequence[tuple[Change, Finding]]
    renamed: Mapping[str, str] = field(default_factory=dict)
    fixed_before: Sequence[FixedFinding] = ()

    @staticmethod
    def of(matching: Matching, baseline: str) -> "StoredChanges":
        """Return what is kept of a matching."""
        return StoredChanges(
            baseline,
            [Change.of(change) for change in matching.current],
            [(Change.of(change), change.finding) for change in matching.gone],
            dict(sorted(matching.renamed.items())[:MAX_RENAMED]),
            matching.fixed_before,
        )

    def to_json(self) -> str:
        """Return the text of the artifact: states in the order of the findings; what few have by their number."""
        gone = [
            {"state": change.state, "reason": change.reason, "finding": finding.model_dump(mode="json")}
            for change, finding in self.gone
        ]
        data = {
            "format": FORMAT,
            "baseline": self.baseline,
            "states": [change.state for change in self.current],
            "methods": [change.method for change in self.current],
            "reasons": {i: change.reason for i, change in enumerate(self.current) if change.reason},
            "previous": {i: change.previous for i, change in enumerate(self.current) if change.previous},
            "renamed": dict(self.renamed),
            "gone": gone,
            "fixed_before": [item.to_dict() for item in self.fixed_before],
        }
        return json.dumps(data, ensure_ascii=False)

    @staticmethod
    def from_json(data: bytes) -> "StoredChanges":
        """Read the artifact, of this format or the one before.

        Raises:
            StoreBroken: it is not what `to_json` writes.
        """
        try:
            parsed = json.loads(data)
            states = [_state(state) for state in parsed["states"]]
            methods = parsed.get("methods") or [None] * len(states)
            reasons, previous = parsed.get("reasons", {}), parsed.get("previous", {})
            return StoredChanges(
                baseline=str(parsed["baseline"]),
                current=[
                    Change(state, _text(method), _text(reasons.get(str(i))), _text(previous.get(str(i))))
                    for i, (state, method) in enumerate(zip(states, methods, strict=True))
                ],
                gone=[
                    (Change(_state(g["state"]), reason=_text(g.get("reason"))), Finding.model_validate(g["finding"]))
                    for g in parsed["gone"]
                ],
                renamed={str(old): str(new) for old, new in parsed.get("renamed", {}).items()},
                fixed_before=[FixedFinding.from_dict(item) for item in parsed.get("fixed_before", [])],
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise StoreBroken(
                "The scan's comparison with its baseline cannot be read.", next="scan again with scan_vulnerabilities."
            ) from exc


def _state(value: Any) -> FindingState:
    return cast("FindingState", str(value))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
