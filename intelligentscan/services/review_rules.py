"""Who may decide a review, and when: every refusal of a decision, with what to do instead."""

from dataclasses import dataclass

from intelligentscan._ssh_signature import as_openssh_shows
from intelligentscan.domain.errors import Refused, ReviewClosed, ReviewIncomplete, SignatureInvalid
from intelligentscan.domain.policy import PolicyInForce, ReviewRules
from intelligentscan.domain.review import Proof, ReviewStatus, Verdict
from intelligentscan.domain.text import folded, untrusted
from intelligentscan.services.dossier import lacking
from intelligentscan.services.review_state import Decision, Review
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import Principal, SealRecord

"""The text of a request's event that names who asked."""

_CLOSED: dict[ReviewStatus, str] = {
    "approved": "is approved already",
    "rejected": "was rejected",
    "revoked": "was revoked",
    "expired": "has expired",
    "superseded": "was replaced by a newer one",
}


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Who decides, and how we know.

    Attributes:
        principal: the person: the owner of the key that signed, else the account.
        account: the account at which it is done.
        proof: whether an enrolled key signed.
        fingerprint: of that key.
        signature: what it made.
    """

    principal: Principal
    account: Principal
    proof: Proof = "self-asserted"
    fingerprint: str | None = None
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """Who had a part in what is reviewed, by names in the form in which spellings are equal.

    Attributes:
        ids: principal ids of who asked for the review and for the registration.
        names: their names, as far as they are known.
        author: the author that the run names; unverified.
        known: whether all of it is still known: names and author may have been erased.
    """

    ids: frozenset[str]
    names: frozenset[str]
    author: str | None
    known: bool

    def has(self, read: GovernanceReads, principal: Principal) -> bool:
        """Tell whether somebody is among those who asked: by id, or by a name that is known otherwise too."""
        return read.find_principal(principal) in self.ids or folded(principal.name) in self.names


def asked_for(read: GovernanceReads, review: Review, seal: SealRecord) -> Asked:
    """Return who asked for a review and for the registration of its version, and who made its run."""
    registrant = read.on_behalf_of(seal.event)
    ids = {str(review.row["requester"])} | ({registrant} if registrant else set())
    known = [read.principal_of(each) for each in ids]
    said = read.texts_of(seal.event)
    author = said.get("run_author")
    return Asked(
        frozenset(ids),
        frozenset(folded(p.name) for p in known if p is not None),
        folded(author) if author and author.strip() else None,
        registrant is not None and None not in known and said.get("run_author", "") is not None,
    )


def independent(read: GovernanceReads, who: Reviewer, asked: Asked) -> bool:
    """Tell whether somebody else than who asked, or made the run, decides."""
    return asked.known and not asked.has(read, who.principal) and folded(who.principal.name) != asked.author


def require_independence(
    read: GovernanceReads, review: Review, who: Reviewer, asked: Asked, rules: ReviewRules
) -> None:
    """Refuse who had a part in what they would decide, where the policy asks for four eyes.

    Raises:
        Refused: they asked, or are named as the run's author; or nobody can tell any more.
    """
    other = f"somebody else decides: intelligentscan review approve {review.id} --reason …, signed with their own key."
    name = untrusted(who.principal.name, 80)
    if rules.separate_accounts and asked.has(read, who.account):
        raise Refused(
            f"The account {untrusted(who.account.name, 80)} asked for the review or the registration; the policy in "
            "force wants decisions from another account.",
            next=other,
        )
    if not rules.four_eyes:
        return
    if not asked.known:
        raise Refused(
            "It is no longer known who asked for the review or the registration: a name was erased or exchanged.",
            next=f"ask for a new one: request_review name='{untrusted(review.row['name'], 80)}' "
            f"version={review.row['version']} with other evidence; if that changes nothing, register_model its run "
            "under another name.",
        )
    if asked.has(read, who.principal):
        raise Refused(
            f"{name} asked for the review or the registration; the policy in force wants somebody else to decide.",
            next=other,
        )
    if folded(who.principal.name) == asked.author:
        raise Refused(
            f"The run names {name} as its author; the policy in force wants somebody else to decide.", next=other
        )


def require_open(review: Review) -> None:
    """Refuse a decision on a review that takes none any more.

    Raises:
        ReviewClosed: it was decided, replaced or has expired.
    """
    if review.status == "open":
        return
    mine = f"intelligentscan review revoke {review.id} --reason …"
    again = f"request_review name='{untrusted(review.row['name'], 80)}' version={review.row['version']}"
    raise ReviewClosed(
        f"The review {review.id} {_CLOSED[review.status]}; it takes no more decisions.",
        next=f"{mine} takes the approval back." if review.status == "approved" else f"ask for a new one: {again}.",
        details={"status": review.status},
    )


def require_same_policy(review: Review, policy: PolicyInForce) -> None:
    """Refuse a decision under another policy than the one that the review was requested under.

    Raises:
        Refused: the policy was changed since.
    """
    if review.row["policy_digest"] != policy.digest:
        raise Refused(
            f"The policy was changed since the review was requested; '{policy.policy.policy}' is in force now.",
            next=f"ask for a new review: request_review name='{untrusted(review.row['name'], 80)}' "
            f"version={review.row['version']}.",
        )


def require_proof(review_id: str, verdict: Verdict, who: Reviewer, *, authenticated: bool) -> None:
    """Refuse an unsigned decision where the policy wants signed ones.

    Raises:
        Refused: names the command that signs it.
    """
    if authenticated and who.proof != "authenticated":
        raise Refused(
            "The policy in force counts only decisions that an enrolled key has signed.",
            next=f"intelligentscan review {verdict} {review_id} --reason … --key ~/.ssh/id_ed25519; "
            "'intelligentscan review keys' lists the enrolled keys.",
        )


def require_first(review: Review, who: Reviewer) -> None:
    """Refuse a second decision by the same person.

    Raises:
        Refused: names the decision to revoke before.
    """
    name = folded(who.principal.name)
    mine = next((d for d in review.decisions if _stands(d) and folded(d.name) == name), None)
    if mine is not None:
        raise Refused(
            f"{untrusted(who.principal.name, 80)} has decided already: {mine.verdict} ({mine.id[:12]}).",
            next=f"to change it, first run 'intelligentscan review revoke {mine.id} --reason …'.",
            details={"decision_id": mine.id},
        )


def require_complete(review: Review, rules: ReviewRules) -> None:
    """Refuse to approve while a criterion lacks evidence, where the policy wants all five.

    Raises:
        ReviewIncomplete: names what is missing.
    """
    if rules.complete and review.missing:
        raise ReviewIncomplete(
            f"The review lacks evidence for {', '.join(review.missing)}; the policy in force wants all five criteria.",
            next="; ".join(
                lacking(criterion, review.id, review.row["name"], review.row["version"]) for criterion in review.missing
            )
            + ".",
            details={"missing": list(review.missing)},
        )


def not_enrolled(fingerprint: str | None) -> SignatureInvalid:
    """Return the refusal of a signature whose key nobody has enrolled."""
    shown = as_openssh_shows(fingerprint) if fingerprint else "that made this signature"
    return SignatureInvalid(
        f"The key {shown} is not enrolled, or was retired.",
        next="enrol it with 'intelligentscan review enrol'; 'intelligentscan review keys' lists those that are.",
    )


def does_not_fit(review_id: str, verdict: Verdict) -> SignatureInvalid:
    """Return the refusal of a signature that is not of the statement as it is now."""
    return SignatureInvalid(
        "The signature is not of this statement, or the review has moved on since it was made.",
        next=f"sign again: intelligentscan review show {review_id} --statement {verdict} > statement; "
        "ssh-keygen -Y sign -n intelligentscan.review -f ~/.ssh/id_ed25519 statement; then --signature statement.sig.",
    )


def _stands(decision: Decision) -> bool:
    return decision.holds and not decision.revoked and decision.verdict != "revoke"
