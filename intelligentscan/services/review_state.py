"""The state of a review, worked out from what signed events say about it.

Nothing here is stored: a review is open, approved or revoked because of its decisions and the time. A decision
counts only if a signed event made it, its statement is about this very review, and, where a key is said to have
signed the statement, that signature holds.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import rfc8785
from pydantic import ValidationError
from sqlalchemy import and_

from intelligentscan._digest import sha256_hex
from intelligentscan._ssh_signature import verify_sshsig
from intelligentscan.domain.policy import ReviewRules
from intelligentscan.domain.review import ReviewStatus, Verdict
from intelligentscan.domain.text import folded
from intelligentscan.services.reviewer_keys import ENROLLED, RETIRED, is_compromised
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import Principal
from intelligentscan.stores.governance.vouched import VouchedRow, vouched

REQUESTED = "review.requested"
ATTESTED = "review.attested"
DECIDED = "review.decided"
NAMESPACE = "intelligentscan.review"
"""What a reviewer's signature is for; a signature for anything else does not verify."""

FORMAT = "intelligentscan.review.v1"
_BOUND = ("review_id", "workspace", "name", "version", "manifest_digest", "policy_digest", "dossier_digest")
_STRICTEST = ReviewRules(quorum=9, authenticated=True, four_eyes=True, separate_accounts=True, complete=True)


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of a review.

    Attributes:
        row: as it was recorded.
        name: who decided; their id if the name was erased.
        holds: whether its statement is about this review, and its signature, if it has one, verifies and counts.
        revoked: whether a later decision took it back.
        lost: whether it is an approval by a key that somebody else may have had.
    """

    row: VouchedRow
    name: str
    holds: bool
    revoked: bool = False
    lost: bool = False

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["decision_id"])

    @property
    def verdict(self) -> Verdict:
        """What was decided."""
        verdict: Verdict = self.row["verdict"]
        return verdict

    @property
    def revokes(self) -> str | None:
        """Id of the decision that it takes back; None if it takes back all of them."""
        return self.row.facts.get("revokes")

    def counts(self, now: int) -> bool:
        """Tell whether it has an effect at a time."""
        return self.holds and not self.revoked and (self.verdict != "approve" or now < self.row["expires"])


@dataclass(frozen=True, slots=True)
class Review:
    """A review and everything that was decided in it, in the order of events.

    Attributes:
        row: the request as it was recorded.
        rules: what the policy that it was made under says about reviews.
        decisions: all of them, those that were revoked or never counted too.
        attestations: what people have attested.
        status: its state now.
        revoked: whether an approved review lost its approval by revocation; later requests do not change that.
        names: names of its people by principal id.
    """

    row: VouchedRow
    rules: ReviewRules
    decisions: tuple[Decision, ...]
    attestations: tuple[VouchedRow, ...]
    status: ReviewStatus
    revoked: bool = False
    names: Mapping[str, Principal] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["review_id"])

    @property
    def approvals(self) -> tuple[Decision, ...]:
        """Approvals that were not revoked, expired ones too."""
        return tuple(d for d in self.decisions if d.verdict == "approve" and d.holds and not d.revoked)

    @property
    def lost(self) -> bool:
        """Whether an approval of it was signed by a key that somebody else may have had."""
        return any(d.lost for d in self.decisions)

    @property
    def reached(self) -> bool:
        """Whether as many people as the policy asks for have approved, be it that their approvals have expired."""
        return people(self.approvals) >= self.rules.quorum

    @property
    def missing(self) -> tuple[str, ...]:
        """Criteria for which there is neither evidence nor an attestation."""
        attested = {a["criterion"] for a in self.attestations}
        return tuple(c for c in _texts(self.row.facts.get("missing")) if c not in attested)

    def standing(self, now: int) -> int:
        """Return how many different people approve of it at a time."""
        return people(d for d in self.approvals if d.counts(now))

    @property
    def until(self) -> int:
        """Return when it expires: the request, or once approved the approval."""
        if not self.reached:
            return int(self.row["expires"])
        ends = sorted(d.row["expires"] for d in self.approvals)
        return int(ends[-self.rules.quorum])


def people(decisions: Iterable[Decision]) -> int:
    """Return how many different people made these decisions; one name at two accounts is one person."""
    made = list(decisions)
    return min(len({d.row["person"] for d in made}), len({folded(d.name) for d in made}))


def statement(review: Review, verdict: Verdict, revokes: str | None = None) -> bytes:
    """Return the bytes that somebody signs who decides now: what is decided, on what, and what was said before.

    A signature cannot be used again: a decision that was taken back, or something attested since, changes them.
    """
    return rfc8785.dumps(
        {
            "format": FORMAT,
            "verdict": verdict,
            "revokes": revokes,
            **{column: review.row[column] for column in _BOUND},
            "attestations": sorted(a["digest"] for a in review.attestations),
            "revoked": sorted(d.id for d in review.decisions if d.revoked),
        }
    )


def reviews_of(read: GovernanceReads, workspace: str, name: str, version: int, now: int) -> list[Review]:
    """Return the reviews of a version, the oldest first."""
    event = read.tables.event
    about = and_(event.c.workspace == workspace, event.c.name == name, event.c.version == version)
    match = {"workspace": workspace, "name": name, "version": version}
    return load(read, match, about, now)


def load(read: GovernanceReads, match: Mapping[str, object], about: Any, now: int) -> list[Review]:
    """Return the reviews of some versions, the oldest first.

    Args:
        read: open on the governance database.
        match: columns of a version and the values that they must have.
        about: the same as a condition on events, so that rows that were removed are found too.
        now: the time in ms since the epoch.
    """
    requests = vouched(read, "review", match, (REQUESTED,), about).rows
    if not requests:
        return []
    attested = vouched(read, "attestation", match, (ATTESTED,), about).rows
    decided = vouched(read, "decision", match, (DECIDED,), about).rows
    names = read.principals({i for r in decided for i in (r["person"], r.actor)} | {r["requester"] for r in requests})
    keys = _keys(read, {r["fingerprint"] for r in decided if r["fingerprint"]})
    newest = {_version(r): r["review_id"] for r in requests}
    found = []
    for request in requests:
        theirs = [
            Decision(r, _name(names, r["person"]), _holds(request, r, keys) and not _lost(r, keys), lost=_lost(r, keys))
            for r in decided
            if r["review_id"] == request["review_id"] and _version(r) == _version(request)
        ]
        attests = tuple(r for r in attested if r["review_id"] == request["review_id"])
        review = Review(request, _rules(request), tuple(theirs), attests, "open", names=names)
        found.append(_judged(review, now, newest=newest[_version(request)] == request["review_id"]))
    return found


def _judged(review: Review, now: int, *, newest: bool) -> Review:
    """Return the review with what its decisions, one after the other, have made of it."""
    decisions = list(review.decisions)
    approved = closed = False
    for at, decision in enumerate(decisions):
        if not decision.holds:
            continue
        if decision.verdict == "revoke":
            closed = closed or decision.revokes is None
            taken = [i for i in range(at) if _takes(decision, decisions[i])]
            for i in taken:
                decisions[i] = replace(decisions[i], revoked=True)
        elif not any(d.verdict == "reject" and not d.revoked and d.holds for d in decisions[: at + 1]):
            approved = approved or people(_standing(decisions[: at + 1])) >= review.rules.quorum
    judged = replace(review, decisions=tuple(decisions))
    judged = replace(judged, revoked=closed or (approved and not judged.reached))
    return replace(judged, status=_status(judged, now, newest=newest))


def _status(review: Review, now: int, *, newest: bool) -> ReviewStatus:
    if any(d.verdict == "reject" and d.counts(now) for d in review.decisions):
        return "rejected"
    if review.revoked:
        return "revoked"
    if not newest:
        return "superseded"
    if review.reached:
        return "approved" if review.standing(now) >= review.rules.quorum else "expired"
    return "open" if now < review.row["expires"] else "expired"


def _standing(decisions: Iterable[Decision]) -> list[Decision]:
    return [d for d in decisions if d.verdict == "approve" and d.holds and not d.revoked]


def _takes(revocation: Decision, other: Decision) -> bool:
    """Tell whether a revocation takes a decision back; one of the whole review leaves rejections alone."""
    if revocation.revokes is None:
        return other.verdict == "approve"
    return other.id == revocation.revokes and other.verdict != "revoke"


def _lost(row: VouchedRow, keys: Mapping[str, list[VouchedRow]]) -> bool:
    return row["verdict"] == "approve" and is_compromised(keys.get(row["fingerprint"], []))


def _holds(request: VouchedRow, row: VouchedRow, keys: Mapping[str, list[VouchedRow]]) -> bool:
    text = row.facts.get("statement")
    if not isinstance(text, str) or sha256_hex(text.encode("utf-8", "replace")) != row["statement_digest"]:
        return False
    try:
        said = json.loads(text)
    except ValueError:
        return False
    if not isinstance(said, dict) or any(said.get(column) != request[column] for column in _BOUND):
        return False
    if said.get("verdict") != row["verdict"] or said.get("revokes") != row.facts.get("revokes"):
        return False
    return row["proof"] == "self-asserted" or _signed(text.encode(), row, keys.get(row["fingerprint"], []))


def _signed(message: bytes, row: VouchedRow, keys: Iterable[VouchedRow]) -> bool:
    """Tell whether a key that was enrolled for the person before has signed the statement."""
    armored = row.facts.get("signature")
    own = next((k for k in keys if k["active"] and k["person"] == row["person"] and k.event < row.event), None)
    if own is None or not isinstance(armored, str):
        return False
    return verify_sshsig(own["public"], NAMESPACE, message, armored)


def _keys(read: GovernanceReads, fingerprints: set[str]) -> dict[str, list[VouchedRow]]:
    found: dict[str, list[VouchedRow]] = {}
    if fingerprints:
        for row in vouched(read, "reviewer_key", {"fingerprint": sorted(fingerprints)}, (ENROLLED, RETIRED)).rows:
            found.setdefault(row["fingerprint"], []).append(row)
    return found


def _rules(request: VouchedRow) -> ReviewRules:
    try:
        return ReviewRules.model_validate(request.facts.get("rules"))
    except ValidationError:
        return _STRICTEST


def _version(row: VouchedRow) -> tuple[object, ...]:
    return row["workspace"], row["name"], row["version"]


def _name(names: Mapping[str, Principal], principal_id: str) -> str:
    known = names.get(principal_id)
    return known.name if known else principal_id


def _texts(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
