"""The audit trail as an auditor meets it: whether it verifies, its checkpoints, its keys."""

from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.noun import Noun


class TrailProblem(Noun):
    """One thing in the trail that does not hold."""

    seq: int | None
    code: str
    message: str


class TrailKey(Noun):
    """A key that signed the trail, and the events that it may sign."""

    key_id: str
    fingerprint: str
    public: str
    first: int
    last: Annotated[int | None, Field(description="None while the key is in force.")]


class TrailReport(Noun):
    """The result of `audit verify`."""

    verdict: str
    ok: Annotated[bool, Field(description="Everything that could be checked holds.")]
    trusted: Literal["yes", "no", "unknown"]
    events: int
    last: int | None
    head_hash: str | None
    checkpoint: Literal["matches", "contradicted", "none"]
    keys: list[TrailKey]
    problems: list[TrailProblem]
    problems_total: int
    notes: list[str] = []

    @property
    def exit_code(self) -> int:
        """0 verified by a trusted key, 1 something does not hold, 3 consistent but nobody vouches for the signer."""
        if not self.ok:
            return 1
        return 0 if self.trusted == "yes" else 3


class CheckpointResult(Noun):
    """A checkpoint that was just written."""

    path: str
    seq: int
    hash: str
    at: str
    key_id: str
    notes: list[str] = []


class KeyList(Noun):
    """The keys of the trail."""

    keys: list[TrailKey]
    in_force: str | None
    readable: Annotated[bool, Field(description="Whether this account has the key in force.")]
    folder: str


class KeyRotation(Noun):
    """A rotation of the signing key."""

    old: str
    new: str
    event: int
    at: str
