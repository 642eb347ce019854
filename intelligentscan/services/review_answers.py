"""Reviews as the faces publish them: names shown safely, times readable, what is missing and what to do next."""

from collections.abc import Mapping, Sequence

from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.policy import ReviewRules
from intelligentscan.domain.review import (
    CRITERIA,
    DecisionRow,
    EvidenceItem,
    ReviewDetails,
    ReviewRequest,
    ReviewRow,
)
from intelligentscan.domain.text import folded, untrusted
from intelligentscan.services.dossier import SHOWN_ID, lacking
from intelligentscan.services.review_rules import Asked
from intelligentscan.services.review_state import Decision, Review
from intelligentscan.stores.governance.records import Principal
from intelligentscan.stores.governance.vouched import VouchedRow

_PERSON = 100
_REASON = 1_000


def request_of(
    review: Review, items: Sequence[EvidenceItem], policy: str, *, created: bool, notes: Sequence[str] = ()
) -> ReviewRequest:
    """Return the answer of `request_review`."""
    counts = {criterion: sum(item.criterion == criterion for item in items) for criterion in CRITERIA}
    return ReviewRequest(
        review_id=review.id,
        status=review.status,
        name=untrusted(review.row["name"], names.MAX_NAME),
        version=review.row["version"],
        created=created,
        missing=missing_of(review),
        evidence=counts,
        dossier_digest=review.row["dossier_digest"],
        policy=policy,
        quorum=review.rules.quorum,
        valid_until=rfc3339(review.until) or "",
        next=_next(review),
        notes=list(notes),
    )


def details_of(
    review: Review,
    items: Sequence[EvidenceItem],
    asked: Asked | None,
    texts: Mapping[int, Mapping[str, str]],
    *,
    policy: str,
    now: int,
    author: str | None,
    notes: Sequence[str],
) -> ReviewDetails:
    """Return a review in full.

    Args:
        review: the review.
        items: evidence of its dossier.
        asked: who had a part in it; None if the version is gone.
        texts: free texts of its events, by event and field; erased ones are missing.
        policy: name of the policy that it was made under.
        now: the time in ms since the epoch.
        author: the author that the run names.
        notes: what else a reader must know.
    """
    row = review.row
    return ReviewDetails(
        review_id=review.id,
        status=review.status,
        name=untrusted(row["name"], names.MAX_NAME),
        version=row["version"],
        manifest_digest=row["manifest_digest"],
        policy=policy,
        policy_digest=row["policy_digest"],
        dossier_digest=row["dossier_digest"],
        requester=person_of(review, row["requester"]),
        run_author=untrusted(author, _PERSON) if author else None,
        at=rfc3339(row.at) or "",
        valid_until=rfc3339(review.until) or "",
        quorum=review.rules.quorum,
        approvals=review.standing(now),
        four_eyes=four_eyes(review, asked),
        evidence=[*items, *(_attested(review, a, texts.get(a.event, {})) for a in review.attestations)],
        missing=missing_of(review),
        decisions=[_decision(d, texts.get(d.row.event, {}), now) for d in review.decisions],
        event=row.event,
        notes=list(notes),
    )


def row_of(review: Review, now: int) -> ReviewRow:
    """Return a review as a row of a list."""
    return ReviewRow(
        review_id=review.id,
        status=review.status,
        name=untrusted(review.row["name"], names.MAX_NAME),
        version=review.row["version"],
        requester=person_of(review, review.row["requester"]),
        at=rfc3339(review.row.at) or "",
        approvals=review.standing(now),
        quorum=review.rules.quorum,
    )


def missing_of(review: Review) -> list[str]:
    """Return what the criteria still lack, each with what would give it."""
    return [lacking(criterion, review.id, review.row["name"], review.row["version"]) for criterion in review.missing]


def four_eyes(review: Review, asked: Asked | None) -> bool | None:
    """Tell whether everybody who approved is somebody else than who asked; None as long as nobody has approved."""
    approvals = review.approvals
    if not approvals or asked is None:
        return None
    mine = [d for d in approvals if d.row["person"] in asked.ids or folded(d.name) in (*asked.names, asked.author)]
    return not mine


def person_of(review: Review, principal_id: str) -> str:
    """Return somebody's name as it may be shown, their id if it was erased."""
    known: Principal | None = review.names.get(principal_id)
    return untrusted(known.name if known else principal_id, _PERSON)


def asks_for(rules: ReviewRules) -> str:
    """Return in words what a policy asks of those who decide."""
    people = "a person" if rules.quorum == 1 else f"{rules.quorum} people"
    other = " other than who asked" if rules.four_eyes else ""
    return f"{people}{other}{', signed with an enrolled key' if rules.authenticated else ''}"


def _next(review: Review) -> str:
    again = f"request_review name='{untrusted(review.row['name'], 80)}' version={review.row['version']}"
    match review.status:
        case "open":
            return (
                f"{asks_for(review.rules)} decides with "
                f"'intelligentscan review approve {review.id[:SHOWN_ID]} --reason …'; an agent cannot."
            )
        case "approved":
            named = f"name='{untrusted(review.row['name'], names.MAX_NAME)}' version={review.row['version']}"
            return f"promote {named} to='Production' reason=…"
        case "rejected":
            return (
                "the same evidence was rejected ('intelligentscan review show' says why); give other evidence, or a "
                "better version."
            )
        case _:
            return f"call {again} to ask for a new review."


def _attested(review: Review, row: VouchedRow, texts: Mapping[str, str]) -> EvidenceItem:
    said = texts.get("attestation")
    who = person_of(review, row["person"])
    return EvidenceItem(
        criterion=row["criterion"],
        what=f"attested by {who}",
        value=untrusted(said, _REASON) if said else row.facts.get("file") or "erased",
        origin="self-reported",
        digest=row["digest"],
    )


def _decision(decision: Decision, texts: Mapping[str, str], now: int) -> DecisionRow:
    reason = texts.get("reason")
    return DecisionRow(
        decision_id=decision.id,
        verdict=decision.verdict,
        person=untrusted(decision.name, _PERSON),
        proof=decision.row["proof"],
        at=rfc3339(decision.row.at) or "",
        valid_until=(rfc3339(decision.row["expires"]) or "") if decision.verdict == "approve" else "",
        reason=untrusted(reason, _REASON) if reason else None,
        fingerprint=decision.row["fingerprint"],
        counts=decision.counts(now),
        event=decision.row.event,
    )
