"""Findings that earlier scans of the chain saw fixed: carried from scan to scan, so that one that is back is told."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.finding_context import content_fingerprint
from intelligentscan.scanners.rule_aliases import matching_rule

MAX_FIXED_BEFORE = 1_000
"""The latest are kept; what was fixed longer ago counts as new when it is back."""


@dataclass(frozen=True, slots=True)
class FixedFinding:
    """What is remembered of a finding that was fixed.

    Attributes:
        run_id: the last run that had it.
    """

    engine: str
    rule: str
    path: str | None
    fingerprint: str
    content: str
    context: str | None
    symbol: str | None
    secret: str | None
    run_id: str

    @staticmethod
    def of(finding: Finding, run_id: str) -> "FixedFinding":
        """Return what to remember of a finding that the run of this id was the last to have."""
        return FixedFinding(
            engine=finding.engine,
            rule=matching_rule(finding.engine, finding.rule),
            path=finding.path,
            fingerprint=finding.fingerprint,
            content=content_fingerprint(finding),
            context=finding.context,
            symbol=finding.symbol,
            secret=finding.secret_digest,
            run_id=run_id,
        )

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON has it, without what is not known."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "FixedFinding":
        """Read it back.

        Raises:
            TypeError: a value is no text, or one is missing or unknown.
        """
        if not all(isinstance(value, str) for value in data.values()):
            raise TypeError("texts are due")
        names = {field.name for field in fields(FixedFinding)}
        return FixedFinding(**{**dict.fromkeys(names & {"path", "context", "symbol", "secret"}), **data})


_KEYS: tuple[Callable[[FixedFinding], Hashable], ...] = (
    lambda f: (f.engine, f.rule, f.secret, f.path, f.fingerprint),
    lambda f: (f.engine, f.rule, f.secret, f.path, f.content),
    lambda f: (f.engine, f.rule, f.secret, f.content, f.symbol) if f.symbol else None,
    lambda f: (f.engine, f.rule, f.secret, f.content, f.context) if f.context else None,
)


def come_back(
    new: Iterable[tuple[int, Finding]], fixed: Sequence[FixedFinding], names: Mapping[str, str]
) -> dict[int, FixedFinding]:
    """Return which of the new findings were fixed before, one to one: by place and text, then by what surrounds them.

    Args:
        new: findings that the scan before did not have, each with a number.
        fixed: what was fixed before, the latest first.
        names: new names of files by old ones.
    """
    wanted = {number: FixedFinding.of(finding, "") for number, finding in new}
    left = dict(enumerate(fixed))
    found: dict[int, FixedFinding] = {}
    for key in _KEYS:
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for at in reversed(left):
            waiting[key(renamed(left[at], names))].append(at)
        for number, sought in wanted.items():
            value = key(sought)
            if number not in found and value is not None and (candidates := waiting.get(value)):
                found[number] = left.pop(candidates.pop())
    return found


def renamed(fixed: FixedFinding, names: Mapping[str, str]) -> FixedFinding:
    """Return the finding under the new name of its file."""
    name = names.get(fixed.path) if fixed.path is not None else None
    return fixed if name is None else replace(fixed, path=name)
