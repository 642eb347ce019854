"""Decisions of a review: made, taken back and attested to by people, each in one transaction that looks again.

The person is the owner of the key that signed the statement, else the account of this process; it is never an
argument. A decision's event holds the statement and the signature, so that anybody can check them later.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from intelligentscan._digest import sha256_hex
from intelligentscan._ssh_signature import verify_sshsig
from intelligentscan.domain.errors import BytesChanged, InvalidArgument, Refused, TooLarge
from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.policy import PolicyInForce
from intelligentscan.domain.review import DecisionMade, Verdict
from intelligentscan.domain.text import untrusted
from intelligentscan.services import review_answers as answers
from intelligentscan.services import review_rules as rules
from intelligentscan.services.denials import Denials
from intelligentscan.services.drift import drift_of
from intelligentscan.services.locks import checked_reason
from intelligentscan.services.policies import policy_in_force
from intelligentscan.services.principal import person
from intelligentscan.services.review_evidence import MAX_TEXT, checked_criterion
from intelligentscan.services.review_find import Found, find, in_quarantine
from intelligentscan.services.review_rules import Asked, Reviewer
from intelligentscan.services.review_signing import Signing
from intelligentscan.services.review_state import (
    ATTESTED,
    DECIDED,
    NAMESPACE,
    Decision,
    Review,
    folded,
    reviews_of,
    statement,
)
from intelligentscan.services.reviewer_keys import active_key
from intelligentscan.services.rights import require
from intelligentscan.services.seals import UNCHECKED, SealChecks
from intelligentscan.services.trail import TrailService
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.governance.canonical import canonical
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, SealRecord, Subject
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import Stores

DAY_MS = 86_400_000
MAX_FILE = 20 * 2**20
_FORMAT = "intelligentscan.attestation.v1"


@dataclass(frozen=True, slots=True)
class _Open:
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


@dataclass(frozen=True, slots=True)
class _Attestation:
    """What somebody vouches for: the document that is signed, and what of it is told."""

    criterion: str
    document: bytes
    text: str | None
    file: str | None


class Decisions:
    """One use case per method."""

    def __init__(
        self,
        store: StoreAccess,
        archive: Archive,
        checks: SealChecks,
        trail: TrailService,
        denials: Denials,
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._archive = archive
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

        def look(stores: Stores) -> bytes:
            with stores.governance.reading() as read:
                found = find(read, text, decisions=verdict == "revoke")
                return statement(_review(read, found, self._clock()), verdict, found.decision_id)

        return await self._store.read(look)

    async def decide(self, text: str, verdict: Verdict, reason: str, signing: Signing) -> DecisionMade:
        """Approve or reject."""
        if verdict not in ("approve", "reject"):
            raise InvalidArgument("A review is approved or rejected.", next="give approve or reject, or call revoke.")
        because = checked_reason(reason, f"review {verdict}")
        found = await self._store.read(lambda s: _found(s, text, decisions=False))
        async with self._denials.noting(f"review {verdict}", _subject(found)):
            if verdict == "approve" and (seal := await self._store.read(lambda s: _seal(s, found))) is not None:
                await self.require_intact(seal)
            made = await self._store.write(lambda s: self._decided(s, found, verdict, because, signing))
        return await self._with_checkpoint(made)

    async def revoke(self, text: str, reason: str, signing: Signing) -> DecisionMade:
        """Take back a decision, or every approval of a review."""
        because = checked_reason(reason, "review revoke")
        found = await self._store.read(lambda s: _found(s, text, decisions=True))
        async with self._denials.noting("review revoke", _subject(found)):
            made = await self._store.write(lambda s: self._revoked(s, found, because, signing))
        return await self._with_checkpoint(made)

    async def attest(self, text: str, criterion: str, said: str | None, file: bytes | None, signing: Signing) -> str:
        """Vouch for a criterion; return the id of the review."""
        wanted = checked_criterion(criterion)
        found = await self._store.read(lambda s: _found(s, text, decisions=False))
        attested = _attestation(found.review_id, wanted, said, file)
        async with self._denials.noting("review attest", _subject(found)):
            if file is not None:
                await anyio.to_thread.run_sync(self._archive.put_document, file)
            await anyio.to_thread.run_sync(self._archive.put_document, attested.document)
            await self._store.write(lambda s: self._attested(s, found, attested, signing))
        return found.review_id

    async def _with_checkpoint(self, made: DecisionMade) -> DecisionMade:
        missed = await self._trail.checkpoint_if_set()
        return made.model_copy(update={"notes": [*made.notes, missed]}) if missed else made

    def _decided(self, stores: Stores, found: Found, verdict: Verdict, reason: str, signing: Signing) -> DecisionMade:
        with stores.governance.unit() as unit:
            unit.hold_name(DEFAULT_WORKSPACE, found.name)
            here = self._look(unit.read, found)
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
            who = _reviewer(unit.read, message, signing, review.id, verdict)
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
            here = self._look(unit.read, found)
            review = here.review
            message = statement(review, "revoke", found.decision_id)
            who = _reviewer(unit.read, message, signing, found.decision_id or review.id, "revoke")
            require(unit.read, "revoke", unit.read.product_of(DEFAULT_WORKSPACE, found.name), who.principal)
            signed = review.rules.authenticated or here.policy.policy.review.authenticated
            rules.require_proof(found.decision_id or review.id, "revoke", who, authenticated=signed)
            _require_revocable(review, found.decision_id, who)
            other = here.asked is not None and rules.independent(unit.read, who, here.asked)
            return self._append(unit, here, "revoke", reason, who, message, four_eyes=other, revokes=found.decision_id)

    def _attested(self, stores: Stores, found: Found, attested: _Attestation, signing: Signing) -> None:
        with stores.governance.unit() as unit:
            unit.hold_name(DEFAULT_WORKSPACE, found.name)
            here = self._look(unit.read, found)
            rules.require_open(here.review)
            who = _reviewer(unit.read, attested.document, signing, found.review_id, "approve")
            require(unit.read, "attest", unit.read.product_of(DEFAULT_WORKSPACE, found.name), who.principal)
            row = {
                "review_id": found.review_id,
                **_key(found),
                "criterion": attested.criterion,
                "person": unit.principal(who.principal),
                "proof": who.proof,
                "digest": sha256_hex(attested.document),
            }
            facts = {"review": found.review_id, "criterion": attested.criterion, "fingerprint": who.fingerprint}
            facts |= {"file": attested.file, "signature": who.signature}
            text = {"attestation": attested.text} if attested.text is not None else {}
            unit.append(_act(ATTESTED, here, who, facts, {"attestation": [row]}, text))

    def _look(self, read: GovernanceReads, found: Found) -> _Open:
        now = self._clock()
        review = _review(read, found, now)
        seal = read.seals(DEFAULT_WORKSPACE, found.name, found.version).get(found.version)
        return _Open(review, seal, policy_in_force(read), asked_for(read, review, seal), now)

    def _append(
        self,
        unit: GovernedUnit,
        here: _Open,
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
            "statement": message.decode(),
            "signature": who.signature,
            "policy": review.row["policy_digest"],
            "dossier": review.row["dossier_digest"],
            "manifest": review.row["manifest_digest"],
        }
        event = unit.append(_act(DECIDED, here, who, facts, {"decision": [row]}, {"reason": reason}))
        after = _review(unit.read, Found(name, version, review.id), here.now)
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
            notes=_notes(after, verdict, who, four_eyes=four_eyes),
        )


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


def asked_for(read: GovernanceReads, review: Review, seal: SealRecord | None) -> Asked | None:
    """Return who had a part in what is reviewed; None if its seal is gone."""
    return rules.asked_for(read, review, seal) if seal is not None else None


def _reviewer(read: GovernanceReads, message: bytes, signing: Signing, id: str, verdict: Verdict) -> Reviewer:
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


def _notes(review: Review, verdict: Verdict, who: Reviewer, *, four_eyes: bool) -> list[str]:
    notes = []
    if not four_eyes and verdict == "approve":
        notes.append("four_eyes: false; who asked for the registration or the review, or made the run, approved it.")
    if who.proof == "self-asserted":
        notes.append("self-asserted: no enrolled key signed this; it rests on the account alone.")
    if verdict == "approve" and review.missing:
        notes.append(f"approved without evidence for {', '.join(review.missing)}.")
    if verdict == "approve" and review.status == "open":
        notes.append(f"{answers.asks_for(review.rules)} must approve; more approvals are needed.")
    return notes


def _attestation(review_id: str, criterion: str, said: str | None, file: bytes | None) -> _Attestation:
    if (said is None) == (file is None) or (said is not None and not said.strip()):
        raise InvalidArgument("An attestation is a text or a file.", next="give one of --text and --file.")
    if said is not None and len(said) > MAX_TEXT:
        raise TooLarge(f"The text has {len(said):,} characters; the most is {MAX_TEXT:,}.", next="attest it by --file.")
    if file is not None and len(file) > MAX_FILE:
        raise TooLarge(f"The file has more than {MAX_FILE:,} bytes.", next="attest a smaller document that names it.")
    text = untrusted(said.strip(), MAX_TEXT) if said is not None else None
    digest = sha256_hex(file) if file is not None else None
    # Without the nonce, a short text could be guessed from its digest after it was erased.
    document = canonical(
        {
            "format": _FORMAT,
            "review_id": review_id,
            "criterion": criterion,
            "nonce": secrets.token_hex(16),
            "text": text,
            "file": {"sha256": digest, "size": len(file)} if file is not None else None,
        }
    )
    return _Attestation(criterion, document, text, digest)


def _act(
    action: str, here: _Open, who: Reviewer, facts: dict[str, Any], rows: dict[str, Any], text: dict[str, str]
) -> Act:
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


def _found(stores: Stores, text: str, *, decisions: bool) -> Found:
    with stores.governance.reading() as read:
        return find(read, text, decisions=decisions)


def _seal(stores: Stores, found: Found) -> SealRecord | None:
    with stores.governance.reading() as read:
        return read.seals(DEFAULT_WORKSPACE, found.name, found.version).get(found.version)


def _review(read: GovernanceReads, found: Found, now: int) -> Review:
    reviews = reviews_of(read, DEFAULT_WORKSPACE, found.name, found.version, now)
    return next(review for review in reviews if review.id == found.review_id)


def _key(found: Found) -> dict[str, object]:
    return {"workspace": DEFAULT_WORKSPACE, "name": found.name, "version": found.version}


def _subject(found: Found) -> Subject:
    return Subject(None, DEFAULT_WORKSPACE, found.name, found.version)


def _changed(seal: SealRecord, damaged: list[Problem]) -> BytesChanged:
    shown = untrusted(seal.name, 80)
    return BytesChanged(
        f"The sealed copy of '{shown}' version {seal.version} is not what was sealed: "
        f"{untrusted(damaged[0].what, 200)}; it is in quarantine now.",
        next=f"call verify_integrity name='{shown}'; register its run again for a new version.",
    )
