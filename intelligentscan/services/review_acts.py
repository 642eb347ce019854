"""What every act of the committee shares: the state of the review inside the transaction, and who acts.

The person is the owner of the key that signed, else the account of this process; it is never an argument.
"""

from dataclasses import dataclass
from typing import Any

from intelligentscan._ssh_signature import verify_sshsig
from intelligentscan.domain.errors import Refused
from intelligentscan.domain.policy import PolicyInForce
from intelligentscan.domain.review import Verdict
from intelligentscan.domain.text import untrusted
from intelligentscan.services import review_rules as rules
from intelligentscan.services.drift import drift_of
from intelligentscan.services.policies import policy_in_force
from intelligentscan.services.principal import person
from intelligentscan.services.review_find import Found, find, in_quarantine
from intelligentscan.services.review_rules import Asked, Reviewer
from intelligentscan.services.review_signing import Signing
from intelligentscan.services.review_state import NAMESPACE, Review, reviews_of
from intelligentscan.services.reviewer_keys import active_key
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, SealRecord, Subject
from intelligentscan.stores.interface import Stores

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Open:
    """What a decision is about, as it is inside the transaction.

    Attributes:
        review: the review.
        seal: the version as it was sealed; None if that is gone.
        policy: the policy in force.
        asked: who had a part in it.
        now: the time in ms since the epoch.
    """

    review: Review
    seal: SealRecord | None
    policy: PolicyInForce
    asked: Asked | None
    now: int


def look(read: GovernanceReads, found: Found, now: int) -> Open:
    """Return what an act is about, as it is inside its transaction."""
    review = review_of(read, found, now)
    seal = read.seals(DEFAULT_WORKSPACE, found.name, found.version).get(found.version)
    asked = rules.asked_for(read, review, seal) if seal is not None else None
    return Open(review, seal, policy_in_force(read), asked, now)


def require_unchanged(stores: Stores, read: GovernanceReads, seal: SealRecord) -> None:
    """Refuse while a version is in quarantine, or the registry does not match the record.

    Raises:
        Refused: says what is not as it was recorded.
    """
    shown = untrusted(seal.name, 80)
    if seal.version in read.quarantined(seal.workspace, seal.name):
        raise in_quarantine(shown, seal.version)
    if changed := [p for p in drift_of(stores, seal.name) if p.code != "GUARD"]:
        raise Refused(
            f"The model '{shown}' is not as it was recorded: {untrusted(changed[0].what, 300)}.",
            next=changed[0].next or f"call verify_integrity name='{shown}' to see everything that differs.",
            details={"problems": [p.what for p in changed[:20]]},
        )


def reviewer(read: GovernanceReads, message: bytes, signing: Signing, id: str, verdict: Verdict) -> Reviewer:
    """Return who decides: the owner of the enrolled key that signed the statement, else the account.

    Raises:
        SignatureInvalid: the key is not enrolled, or the signature is of something else.
    """
    account = person()
    if not signing.wanted:
        return Reviewer(account, account)
    digest = signing.fingerprint
    owner = active_key(read, digest) if digest is not None else None
    who = read.principal_of(owner.person) if owner is not None else None
    if owner is None or who is None:
        raise rules.not_enrolled(digest)
    armored = signing.of(message)
    if not verify_sshsig(owner.public, NAMESPACE, message, armored):
        raise rules.does_not_fit(id, verdict)
    return Reviewer(who, account, "authenticated", digest, armored)


def act_of(
    action: str, here: Open, who: Reviewer, facts: dict[str, Any], rows: dict[str, Any], text: dict[str, str]
) -> Act:
    """Return the entry of the trail for an act of the committee."""
    row, seal = here.review.row, here.seal
    subject = Subject(
        seal.experiment_id if seal else None,
        DEFAULT_WORKSPACE,
        row["name"],
        row["version"],
        seal.run_id if seal else None,
    )
    for_whom = who.principal if who.principal != who.account else None
    return Act(action, who.account, subject, for_whom, facts, rows, text)


def review_of(read: GovernanceReads, found: Found, now: int) -> Review:
    """Return a review that was found."""
    reviews = reviews_of(read, DEFAULT_WORKSPACE, found.name, found.version, now)
    return next(review for review in reviews if review.id == found.review_id)


def named(stores: Stores, text: str, *, decisions: bool) -> Found:
    """Return the review, or the decision, that somebody names."""
    with stores.governance.reading() as read:
        return find(read, text, decisions=decisions)


def subject_of(found: Found) -> Subject:
    """Return what an act on a review is about."""
    return Subject(None, DEFAULT_WORKSPACE, found.name, found.version)
