"""Decisions of a review: made and taken back by people, each in one transaction that looks at everything again.

A decision's event holds the statement and the signature, so that anybody can check them later.
"""

import secrets
from collections.abc import Callable

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import BytesChanged, InvalidArgument, Refused
from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.review import DecisionMade, Verdict
from intelligentscan.domain.text import folded, untrusted
from intelligentscan.services import review_answers as answers
from intelligentscan.services import review_rules as rules
from intelligentscan.services.denials import Denials
from intelligentscan.services.locks import checked_reason
from intelligentscan.services.review_acts import (
    DAY_MS,
    Open,
    act_of,
    look,
    named,
    require_unchanged,
    review_of,
    reviewer,
    subject_of,
)
from intelligentscan.services.review_find import Found, find
from intelligentscan.services.review_rules import Reviewer
from intelligentscan.services.review_signing import Signing
from intelligentscan.services.review_state import (
    DECIDED,
    Decision,
    Review,
    statement,
)
from intelligentscan.services.rights import require
from intelligentscan.services.seals import UNCHECKED, SealChecks
from intelligentscan.services.trail import TrailService
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, SealRecord
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import Stores


class Decisions:
    """One use case per method."""

    def __init__(
        self,
        store: StoreAccess,
        checks: SealChecks,
        trail: TrailService,
        denials: Denials,
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._checks = checks
        self._trail = trail
        self._denials = denials
        self._clock = clock

    async def require_intact(self, seal: SealRecord) -> None:
        """Hash the sealed copy; put it into quarantine and refuse if it is not what was sealed.

        Raises:
            BytesChanged: it was changed.
            Refused: it could not be read.
        """
        found = await self._checks.bytes_of(seal)
        if damaged := [p for p in found if p.code != UNCHECKED]:
            await self._checks.quarantine(seal, damaged)
            raise _changed(seal, damaged)
        if found:
            raise Refused(f"Version {seal.version}: {found[0].what}.", next=found[0].next or "call verify_integrity.")

    async def statement(self, text: str, verdict: Verdict) -> bytes:
        """Return the bytes that are signed for a decision now."""

        def sign(stores: Stores) -> bytes:
            with stores.governance.reading() as read:
                found = find(read, text, decisions=verdict == "revoke")
                return statement(review_of(read, found, self._clock()), verdict, found.decision_id)

        return await self._store.read(sign)

    async def decide(self, text: str, verdict: Verdict, reason: str, signing: Signing) -> DecisionMade:
        """Approve or reject."""
        if verdict not in ("approve", "reject"):
            raise InvalidArgument("A review is approved or rejected.", next="give approve or reject, or call revoke.")
        because = checked_reason(reason, f"review {verdict}")
        found = await self._store.read(lambda s: named(s, text, decisions=False))
        async with self._denials.noting(f"review {verdict}", subject_of(found)):
            if verdict == "approve" and (seal := await self._store.read(lambda s: _seal(s, found))) is not None:
                await self.require_intact(seal)
            made = await self._store.write(lambda s: self._decided(s, found, verdict, because, signing))
        return await self._with_checkpoint(made)

    async def revoke(self, text: str, reason: str, signing: Signing) -> DecisionMade:
        """Take back a decision, or every approval of a review."""
        because = checked_reason(reason, "review revoke")
        found = await self._store.read(lambda s: named(s, text, decisions=True))
        async with self._denials.noting("review revoke", subject_of(found)):
            made = await self._store.write(lambda s: self._revoked(s, found, because, signing))
        return await self._with_checkpoint(made)

    async def _with_checkpoint(self, made: DecisionMade) -> DecisionMade:
        missed = await self._trail.checkpoint_if_set()
        return made.model_copy(update={"notes": [*made.notes, missed]}) if missed else made

    def _decided(self, stores: Stores, found: Found, verdict: Verdict, reason: str, signing: Signing) -> DecisionMade:
        with stores.governance.unit() as unit:
            unit.hold_name(DEFAULT_WORKSPACE, found.name)
            here = look(unit.read, found, self._clock())
            review, demands = here.review, here.policy.policy.review
            rules.require_open(review)
            rules.require_same_policy(review, here.policy)
            if here.seal is None or here.asked is None or here.seal.manifest_digest != review.row["manifest_digest"]:
                raise Refused(
                    "The review is of other bytes than those that are sealed now.",
                    next=f"ask for a new one: request_review name='{untrusted(found.name, 80)}' "
                    f"version={found.version}.",
                )
            if verdict == "approve":
                require_unchanged(stores, unit.read, here.seal)
            message = statement(review, verdict)
            who = reviewer(unit.read, message, signing, review.id, verdict)
            require(unit.read, "decide", unit.read.product_of(DEFAULT_WORKSPACE, found.name), who.principal)
            rules.require_proof(review.id, verdict, who, authenticated=demands.authenticated)
            rules.require_independence(unit.read, review, who, here.asked, demands)
            rules.require_first(review, who)
            if verdict == "approve":
                rules.require_complete(review, demands)
            other = rules.independent(unit.read, who, here.asked)
            return self._append(unit, here, verdict, reason, who, message, four_eyes=other)

    def _revoked(self, stores: Stores, found: Found, reason: str, signing: Signing) -> DecisionMade:
        with stores.governance.unit() as unit:
            unit.hold_name(DEFAULT_WORKSPACE, found.name)
            here = look(unit.read, found, self._clock())
            review = here.review
            message = statement(review, "revoke", found.decision_id)
            who = reviewer(unit.read, message, signing, found.decision_id or review.id, "revoke")
            require(unit.read, "revoke", unit.read.product_of(DEFAULT_WORKSPACE, found.name), who.principal)
            signed = review.rules.authenticated or here.policy.policy.review.authenticated
            rules.require_proof(found.decision_id or review.id, "revoke", who, authenticated=signed)
            _require_revocable(review, found.decision_id, who)
            other = here.asked is not None and rules.independent(unit.read, who, here.asked)
            return self._append(unit, here, "revoke", reason, who, message, four_eyes=other, revokes=found.decision_id)

    def _append(
        self,
        unit: GovernedUnit,
        here: Open,
        verdict: Verdict,
        reason: str,
        who: Reviewer,
        message: bytes,
        *,
        four_eyes: bool,
        revokes: str | None = None,
    ) -> DecisionMade:
        review, demands = here.review, here.policy.policy.review
        name, version = review.row["name"], review.row["version"]
        same_account = here.asked is not None and here.asked.has(unit.read, who.account)
        row = {
            "decision_id": secrets.token_hex(16),
            "review_id": review.id,
            "workspace": DEFAULT_WORKSPACE,
            "name": name,
            "version": version,
            "verdict": verdict,
            "person": unit.principal(who.principal),
            "proof": who.proof,
            "statement_digest": sha256_hex(message),
            "fingerprint": who.fingerprint,
            "expires": here.now + demands.valid_days * DAY_MS,
        }
        facts = {
            "review": review.id,
            "decision": row["decision_id"],
            "verdict": verdict,
            "revokes": revokes,
            "proof": who.proof,
            "four_eyes": four_eyes,
            "account": unit.principal(who.account),
            "same_account": same_account,
            "statement": message.decode(),
            "signature": who.signature,
            "policy": review.row["policy_digest"],
            "dossier": review.row["dossier_digest"],
            "manifest": review.row["manifest_digest"],
        }
        event = unit.append(act_of(DECIDED, here, who, facts, {"decision": [row]}, {"reason": reason}))
        after = review_of(unit.read, Found(name, version, review.id), here.now)
        return DecisionMade(
            decision_id=str(row["decision_id"]),
            review_id=review.id,
            verdict=verdict,
            name=untrusted(name, 250),
            version=version,
            person=untrusted(who.principal.name, 100),
            proof=who.proof,
            review_status=after.status,
            four_eyes=four_eyes,
            event=event.seq,
            notes=_notes(after, verdict, who, four_eyes=four_eyes, same_account=same_account),
        )


def _require_revocable(review: Review, decision_id: str | None, who: Reviewer) -> None:
    """Refuse to take back what is not there, or somebody else's rejection.

    Raises:
        Refused: says which.
    """
    if decision_id is None:
        if not review.approvals:
            rejections = [d.id for d in review.decisions if d.verdict == "reject" and d.holds and not d.revoked]
            raise Refused(
                "The review has no approval to take back.",
                next=f"who rejected it takes that back: intelligentscan review revoke {rejections[0]} --reason …"
                if rejections
                else f"'intelligentscan review show {review.id}' shows its decisions.",
            )
        return
    decision = next((d for d in review.decisions if d.id == decision_id), None)
    if decision is None or not _revocable(decision):
        raise Refused(
            f"The decision {decision_id[:12]} was taken back already, or never counted.",
            next=f"'intelligentscan review show {review.id}' shows what counts.",
        )
    if decision.verdict == "reject" and folded(decision.name) != folded(who.principal.name):
        raise Refused(
            f"Only {untrusted(decision.name, 80)}, who rejected, can take that back.",
            next="ask them; or request a review with other evidence.",
        )


def _revocable(decision: Decision) -> bool:
    return decision.holds and not decision.revoked and decision.verdict != "revoke"


def _notes(review: Review, verdict: Verdict, who: Reviewer, *, four_eyes: bool, same_account: bool) -> list[str]:
    notes = []
    if not four_eyes and verdict == "approve":
        notes.append("four_eyes: false; who asked for the registration or the review, or made the run, approved it.")
    if four_eyes and same_account:
        notes.append("It was decided at the account that asked: only the key tells the two people apart.")
    if who.proof == "self-asserted":
        notes.append("self-asserted: no enrolled key signed this; it rests on the account alone.")
    if verdict == "approve" and review.missing:
        notes.append(f"approved without evidence for {', '.join(review.missing)}.")
    if verdict == "approve" and review.status == "open":
        notes.append(f"{answers.asks_for(review.rules)} must approve; more approvals are needed.")
    return notes


def _seal(stores: Stores, found: Found) -> SealRecord | None:
    with stores.governance.reading() as read:
        return read.seals(DEFAULT_WORKSPACE, found.name, found.version).get(found.version)


def _changed(seal: SealRecord, damaged: list[Problem]) -> BytesChanged:
    shown = untrusted(seal.name, 80)
    return BytesChanged(
        f"The sealed copy of '{shown}' version {seal.version} is not what was sealed: "
        f"{untrusted(damaged[0].what, 200)}; it is in quarantine now.",
        next=f"call verify_integrity name='{shown}'; register its run again for a new version.",
    )
