"""What the check of a trail or of its rows found, and what it can go on from."""

from dataclasses import dataclass, field
from typing import Literal

MAX_PROBLEMS = 100
ProblemCode = Literal[
    "UNREADABLE", "EMPTY", "BAD_GENESIS", "EDITED", "GAP", "BROKEN_LINK", "FORK", "REPEATED", "OUT_OF_ORDER",
    "NOT_CANONICAL", "BAD_SIGNATURE", "UNKNOWN_KEY", "RETIRED_KEY", "BAD_ROTATION", "UNTRUSTED_KEY", "CUT_TAIL",
    "REWRITTEN", "CHECKPOINT_INVALID", "CHECKPOINT_UNKNOWN_KEY", "CHECKPOINT_NOT_COVERED",
    "BAD_ROWS", "FORGED_ROW", "CHANGED_ROW", "MISSING_ROW", "CHANGED_TEXT", "CHANGED_NAME",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not hold.

    Attributes:
        seq: the event that it was seen at, None if it belongs to none.
        code: stable identifier of the kind.
        message: the fact, for people; holds no text from the trail.
    """

    seq: int | None
    code: ProblemCode
    message: str


@dataclass(slots=True)
class Problems:
    """The first problems found, and how many there were."""

    first: list[Problem] = field(default_factory=list)
    total: int = 0

    def add(self, seq: int | None, code: ProblemCode, message: str) -> None:
        """Count a problem, and keep it while there is room."""
        self.total += 1
        if len(self.first) < MAX_PROBLEMS:
            self.first.append(Problem(seq, code, message))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that cannot be read as an event.

    Attributes:
        place: where it is: `line 17`, `the entry after event 16`.
        why: what is wrong with it; holds no text from the entry.
    """

    place: str
    why: str


@dataclass(frozen=True, slots=True)
class KeyValidity:
    """A key and the events that it may sign: from `first` to `last`, None while it is in force."""

    key_id: str
    public: str
    first: int
    last: int | None = None


@dataclass(frozen=True, slots=True)
class VerifiedPrefix:
    """How far a trail was verified before, to go on from there."""

    seq: int
    hash: str
    keys: tuple[KeyValidity, ...]


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What the check of a trail found.

    Attributes:
        trusted: whether a trusted key vouches for the trail; `unknown` if none was named.
        events: how many entries were read.
        first: number of the first event that was read, None if there was none.
        last: number of the last event in order.
        head_hash: its hash.
        keys: every key that was ever in force, in order.
        checkpoint: `matches`, `contradicted`, or `none` if none was given or it could not be compared.
        problems: the first of them.
        problem_count: how many there were.
    """

    trusted: Literal["yes", "no", "unknown"]
    events: int
    first: int | None
    last: int | None
    head_hash: str | None
    keys: tuple[KeyValidity, ...]
    checkpoint: Literal["matches", "contradicted", "none"]
    problems: tuple[Problem, ...]
    problem_count: int

    @property
    def ok(self) -> bool:
        """Whether everything that could be checked holds; says nothing about the signer if `trusted` is `unknown`."""
        return self.problem_count == 0

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if not self.ok:
            return "does not verify"
        if self.last is None:
            return "empty"
        return "verified" if self.trusted == "yes" else "self-consistent, signer unknown"

    @property
    def prefix(self) -> VerifiedPrefix | None:
        """Where the next check may go on; None if there is a problem or nothing was read."""
        if not self.ok or self.last is None or self.head_hash is None:
            return None
        return VerifiedPrefix(self.last, self.head_hash, self.keys)


@dataclass(frozen=True, slots=True)
class RowReport:
    """What the check of rows against the events that made them found.

    Attributes:
        events: how many events were read.
        rows: how many rows of governing tables were compared.
        problems: the first of them.
        problem_count: how many there were.
    """

    events: int
    rows: int
    problems: tuple[Problem, ...]
    problem_count: int

    @property
    def ok(self) -> bool:
        """Whether rows and events agree, in both directions."""
        return self.problem_count == 0
