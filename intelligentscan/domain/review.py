"""The committee's review: five criteria with their evidence, and signed decisions."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from intelligentscan.domain.noun import Noun

Criterion = Literal["accuracy", "safety", "bias", "risks", "documentation"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
Origin = Literal["measured by us", "imported", "self-reported"]
STRENGTH: dict[Origin, int] = {"measured by us": 3, "imported": 2, "self-reported": 1}
Verdict = Literal["approve", "reject", "revoke"]
Proof = Literal["authenticated", "self-asserted"]
ReviewStatus = Literal["open", "approved", "rejected", "revoked", "expired", "superseded"]


class EvidenceItem(Noun):
    """One fact that speaks to a criterion."""

    criterion: Criterion
    what: str
    value: Annotated[Any, Field(description="JSON value; texts untrusted.")]
    origin: Origin
    digest: Annotated[str | None, Field(description="sha256 of the bytes that it was taken from.")] = None


class DecisionRow(Noun):
    """One decision of a review."""

    decision_id: str
    verdict: Verdict
    person: Annotated[str, Field(description="Untrusted text.")]
    proof: Proof
    at: str
    valid_until: str
    reason: Annotated[str | None, Field(description="Untrusted text.")]
    fingerprint: str | None
    counts: Annotated[bool, Field(description="False if it was revoked, has expired, or does not count here.")]
    event: int


class ReviewRequest(Noun):
    """What became of a request for review, as `request_review` answers."""

    review_id: str
    status: ReviewStatus
    name: str
    version: int
    created: bool
    missing: Annotated[list[str], Field(description="What the criteria lack, and what would give it.")]
    evidence: Annotated[dict[str, int], Field(description="Count by criterion.")]
    dossier_digest: str
    policy: str
    quorum: int
    valid_until: str
    next: str
    notes: list[str] = []


class ReviewDetails(Noun):
    """A review in full."""

    review_id: str
    status: ReviewStatus
    name: str
    version: int
    manifest_digest: str
    policy: str
    policy_digest: str
    dossier_digest: str
    requester: str
    run_author: str | None
    at: str
    valid_until: str
    quorum: int
    approvals: int
    four_eyes: Annotated[bool | None, Field(description="None as long as nobody has approved.")]
    evidence: list[EvidenceItem]
    missing: list[str]
    decisions: list[DecisionRow]
    event: int
    notes: list[str] = []


class ReviewRow(Noun):
    """A review in a list."""

    review_id: str
    status: ReviewStatus
    name: str
    version: int
    requester: str
    at: str
    approvals: int
    quorum: int


class ReviewList(Noun):
    """Reviews, the newest first."""

    reviews: list[ReviewRow]
    next_cursor: str | None = None


class DecisionMade(Noun):
    """A decision that was just made."""

    decision_id: str
    review_id: str
    verdict: Verdict
    name: str
    version: int
    person: str
    proof: Proof
    review_status: ReviewStatus
    four_eyes: bool
    event: int
    notes: list[str] = []
