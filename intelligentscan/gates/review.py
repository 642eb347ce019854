"""Gates on the committee's review: was the version approved, and by somebody who had no part in it?

Both gates look at the same approvals. An approval counts until it expires; where the policy says so, only if
an enrolled key of the reviewer signed it. Whoever approves twice counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from intelligentscan.domain.policy import GateName, ReviewRules
from intelligentscan.domain.registry import GateResult
from intelligentscan.domain.review import ReviewStatus
from intelligentscan.domain.text import folded, untrusted
from intelligentscan.gates.interface import Approval, Evidence, ReviewFacts, Rules
from intelligentscan.gates.outcome import does_not_apply, failed, missing, passed, shortened, version_of

_OVER: dict[ReviewStatus, str] = {
    "rejected": "was rejected; mend what its reason says, then",
    "revoked": "was approved, and that was revoked;",
    "expired": "has expired;",
    "superseded": "was replaced by a newer one;",
}
_MAX_ID = 64
_MAX_PERSON = 60


@dataclass(frozen=True, slots=True)
class Counted:
    """The approvals of a review that count now.

    Attributes:
        approvals: each of them; somebody may have given several.
        people: how many people they are by.
        left_out: why others do not count, in short texts.
    """

    approvals: tuple[Approval, ...]
    people: int
    left_out: tuple[str, ...]


def counted(review: ReviewFacts, now: int, rules: ReviewRules) -> Counted:
    """Return which approvals of a review count at a time."""
    valid = [a for a in review.approvals if now < a.until]
    signed = [a for a in valid if a.proof == "authenticated" or not rules.authenticated]
    left_out = []
    if expired := len(review.approvals) - len(valid):
        left_out.append(f"{expired} expired")
    if unsigned := len(valid) - len(signed):
        left_out.append(f"{unsigned} without the signature of an enrolled key")
    return Counted(tuple(signed), _people(signed), tuple(left_out))


def _people(approvals: Sequence[Approval]) -> int:
    """Return how many people approved: an account and a key that go by one name are one person."""
    ids = {a.person for a in approvals}
    names = {folded(a.name) or a.person for a in approvals}
    return min(len(ids), len(names))


class Reviewed:
    """Have enough reviewers approved exactly these bytes, under the policy that decides now?"""

    name: GateName = "reviewed"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Pass an approved review whose approvals still reach the quorum."""
        review = evidence.review
        again = f"call request_review {version_of(evidence)}"
        if review is None:
            return missing(self.name, f"nobody has asked for a review; {again}")
        its = f"review {untrusted(review.review_id, _MAX_ID)}"
        if (over := _OVER.get(review.status)) is not None:
            return failed(self.name, f"{its} {over} {again}")
        if not review.same_bytes:
            return failed(self.name, f"{its} is of other bytes than those that are sealed now; {again}")
        if not review.same_policy:
            return failed(self.name, f"{its} was made under another policy than the one in force; {again}")
        if rules.review.complete and review.missing:
            return failed(self.name, _incomplete(review, its, again, signed=rules.review.authenticated))
        found = counted(review, evidence.now, rules.review)
        score = f"{its}: {found.people} of {rules.review.quorum} approvals by different people count"
        score += f" ({', '.join(found.left_out)})" if found.left_out else ""
        if review.status == "approved" and found.people >= rules.review.quorum:
            proofs = sorted({a.proof for a in found.approvals})
            return passed(self.name, f"{score}, {' and '.join(proofs)}")
        if review.status != "open":
            return failed(self.name, f"{score}; {again}")
        signed = rules.review.authenticated
        return failed(self.name, f"{score}; a reviewer runs {_command('approve', review, signed=signed)}")


class SegregationOfDuties:
    """Is everybody who approved independent of who asked and who made the run?"""

    name: GateName = "segregation_of_duties"

    def check(self, evidence: Evidence, rules: Rules) -> GateResult:
        """Fail if anybody who asked for the version or its review, or made its run, is among those who approved."""
        if not rules.review.four_eyes:
            return does_not_apply(self.name, "policy does not ask for four eyes")
        review = evidence.review
        again = f"request_review {version_of(evidence)}"
        if review is None:
            return missing(self.name, f"nobody has approved the version; call {again}")
        asked = {*evidence.requesters, review.requester} - {""}
        if not evidence.requesters or not review.requester:
            what = "the registration" if not evidence.requesters else "the review"
            return missing(self.name, f"it is not known who asked for {what}; register_model its run again")
        approvals = counted(review, evidence.now, rules.review).approvals
        if not approvals:
            independent = f"a reviewer who neither asked for it nor made its run runs {_command('approve', review)}"
            return missing(
                self.name, f"no approval counts; {independent if review.status == 'open' else f'call {again}'}"
            )
        if partial := _not_independent(evidence, rules, approvals, asked):
            return failed(self.name, f"{shortened(partial)}; call {again} and let somebody else decide")
        told = f"approved by {_people(approvals)} who neither asked for it nor made its run"
        if any(approval.account in asked for approval in approvals):
            told += ", at the account that asked: only the key tells them apart"
        return passed(self.name, told)


def _not_independent(evidence: Evidence, rules: Rules, approvals: Sequence[Approval], asked: set[str]) -> list[str]:
    """Return who approved without being independent, each once and with the reason."""
    found: dict[str, None] = {}
    author = folded(evidence.run_author or "")
    for approval in approvals:
        who = untrusted(approval.name or approval.person, _MAX_PERSON)
        if approval.person in asked:
            found[f"{who} approved and had asked for it"] = None
        elif author and folded(approval.name) == author:
            found[f"{who} approved and is named as author of the run"] = None
        elif rules.review.separate_accounts and approval.account in asked:
            found[f"{who} approved at an account that had asked for it"] = None
    return list(found)


def _incomplete(review: ReviewFacts, its: str, again: str, *, signed: bool) -> str:
    lacking = f"{its} has no evidence for {', '.join(review.missing)}"
    if review.status != "open":
        given = ", ".join(f"'{criterion}': …" for criterion in review.missing)
        return f"{lacking}; {again} evidence={{{given}}}"
    attest = [_command(f"attest {criterion}", review) for criterion in review.missing]
    return f"{lacking}; a reviewer runs {', '.join(attest)}, then {_command('approve', review, signed=signed)}"


def _command(act: str, review: ReviewFacts, *, signed: bool = False) -> str:
    """Return the command of a reviewer's act: `approve`, or `attest` and a criterion; … is for their own words."""
    verb, _, criterion = act.partition(" ")
    own = f" {criterion} --text …" if criterion else " --reason …"
    key = " --key …" if signed else ""
    return f"'intelligentscan review {verb} {untrusted(review.review_id, _MAX_ID)}{own}{key}'"
