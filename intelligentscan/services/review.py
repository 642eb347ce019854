"""The committee's review as people and agents meet it: asked for with a dossier, shown, listed, decided by people."""

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio.to_thread
from sqlalchemy import select

from intelligentscan._ssh_signature import PrivateKey
from intelligentscan.domain import names
from intelligentscan.domain.errors import InvalidArgument, StoreBroken, TooLarge
from intelligentscan.domain.review import (
    Criterion,
    DecisionMade,
    EvidenceItem,
    ReviewDetails,
    ReviewList,
    ReviewRequest,
    ReviewStatus,
    Verdict,
)
from intelligentscan.domain.text import untrusted
from intelligentscan.services import cursor as cursors
from intelligentscan.services import review_answers as answers
from intelligentscan.services.denials import Denials
from intelligentscan.services.dossier import MAX_DOCUMENT, Dossier, assemble, given_in, items_of
from intelligentscan.services.dossier_material import material_of
from intelligentscan.services.policies import policy_in_force
from intelligentscan.services.principal import person
from intelligentscan.services.review_acts import DAY_MS, require_unchanged
from intelligentscan.services.review_attestations import Attestations
from intelligentscan.services.review_decisions import Decisions
from intelligentscan.services.review_evidence import checked_evidence
from intelligentscan.services.review_find import Found, Sealed, find, sealed
from intelligentscan.services.review_pages import pages
from intelligentscan.services.review_rules import asked_for
from intelligentscan.services.review_signing import signing
from intelligentscan.services.review_state import REQUESTED, Review, reviews_of
from intelligentscan.services.rights import require
from intelligentscan.services.sealed_model import SealedModel, sealed_model
from intelligentscan.services.seals import ARCHIVE, SealChecks
from intelligentscan.services.trail import TrailService
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, Subject
from intelligentscan.stores.interface import Stores


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return int(time.time() * 1000)


class ReviewService:
    """One use case per method."""

    def __init__(
        self,
        store: StoreAccess,
        archive: Archive,
        checks: SealChecks,
        trail: TrailService,
        denials: Denials,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._store = store
        self._archive = archive
        self._checks = checks
        self._denials = denials
        self._clock = clock
        self._decisions = Decisions(store, checks, trail, denials, clock)
        self._attestations = Attestations(store, archive, denials, clock)

    async def request(self, name: str, version: int, evidence: Mapping[str, object] | None = None) -> ReviewRequest:
        """Ask the committee to review a sealed version.

        Puts together what is known about it. The same evidence again returns the same review; other evidence makes a
        new one, which takes the place of the one before. What was given as evidence before is kept unless it is given
        anew.

        Args:
            name: the registered model.
            version: its version.
            evidence: texts, or named values, by criterion.

        Raises:
            InvalidArgument: the evidence is not what it should be.
            NotGoverned: the model was registered by plain MLflow.
            Refused: the version is not sealed or was found changed, or a role is missing.
        """
        wanted, number, given = names.model_name(name), _number(version), checked_evidence(evidence)
        async with self._denials.noting("request_review", Subject(None, DEFAULT_WORKSPACE, wanted, number)):
            found = await self._store.read(lambda s: self._asked(s, wanted, number))
            await self._decisions.require_intact(found.seal)
            folder = await self._checks.folder_of(found.seal)
            dossier = await self._store.read(lambda s: self._dossier(s, found, folder, given))
            await anyio.to_thread.run_sync(self._archive.put_document, dossier.document)
            return await self._store.write(lambda s: self._record(s, found, dossier))

    async def ensure(self, name: str, version: int) -> ReviewRequest:
        """Return the review of a version that waits for decisions under the policy in force; ask for one if none does.

        Raises:
            Refused: as `request`.
        """
        wanted, number = names.model_name(name), _number(version)

        def look(stores: Stores) -> ReviewRequest | None:
            found = sealed(stores, wanted, number)
            with stores.governance.reading() as read:
                policy = policy_in_force(read)
                last = _newest(read, wanted, number, self._clock())
                if last is None or last.status != "open" or last.row["policy_digest"] != policy.digest:
                    return None
                if last.row["manifest_digest"] != found.seal.manifest_digest:
                    return None
                items = self._kept(read, last) or ()
            return answers.request_of(last, items, policy.policy.policy, created=False)

        return await self._store.read(look) or await self.request(wanted, number)

    async def show(self, review_id: str) -> ReviewDetails:
        """Return a review in full: its evidence, what is missing, and its decisions.

        Args:
            review_id: its id, or at least 6 characters of it.

        Raises:
            ReviewNotFound: there is none.
        """
        return await self._store.read(lambda s: self._shown(s, review_id))

    async def list(
        self, status: ReviewStatus | None = None, name: str | None = None, limit: int = 20, cursor: str | None = None
    ) -> ReviewList:
        """Return reviews, the newest first.

        Args:
            status: only those in this state now.
            name: only those of this registered model.
            limit: how many.
            cursor: where the last answer ended.

        Raises:
            InvalidCursor: the cursor belongs to another call.
        """
        cursors.checked_limit(limit)
        wanted = names.model_name(name) if name is not None else None
        call = ("reviews", status, wanted)
        token = cursors.decode(cursor, *call)
        before = int(token) if token and token.isascii() and token.isdecimal() else None

        def look(stores: Stores) -> tuple[list[Review], int | None]:
            if not stores.governance.installed():
                return [], None
            with stores.governance.reading() as read:
                return pages(read, status, wanted, limit, before, now)

        now = self._clock()
        rows, last = await self._store.read(look)
        return ReviewList(
            reviews=[answers.row_of(review, now) for review in rows],
            next_cursor=cursors.encode(str(last), *call) if last is not None else None,
        )

    async def statement(self, review_id: str, verdict: Verdict) -> bytes:
        """Return the exact bytes that somebody signs who decides now.

        Args:
            review_id: the review; for `revoke` a decision can be named instead.
            verdict: what they want to decide.

        Raises:
            ReviewNotFound: there is none.
        """
        return await self._decisions.statement(review_id, verdict)

    async def decide(
        self,
        review_id: str,
        verdict: Verdict,
        reason: str,
        *,
        key: PrivateKey | None = None,
        signature: str | None = None,
    ) -> DecisionMade:
        """Approve or reject: a person's act, which no agent tool offers.

        Args:
            review_id: the review, or at least 6 characters of its id.
            verdict: `approve` or `reject`.
            reason: why.
            key: the reviewer's key, which signs at once.
            signature: what `ssh-keygen -Y sign` made of `statement`.

        Raises:
            ReviewClosed: the review takes no more decisions.
            ReviewIncomplete: the policy wants evidence for every criterion.
            SignatureInvalid: the signature does not fit, or its key is not enrolled.
            Refused: policy, role, segregation of duties or the state of the version forbids it.
        """
        return await self._decisions.decide(review_id, verdict, reason, signing(key, signature))

    async def revoke(
        self, id: str, reason: str, *, key: PrivateKey | None = None, signature: str | None = None
    ) -> DecisionMade:
        """Take back a decision, or every approval of a review.

        Args:
            id: the review, whose approvals are all taken back, or one decision.
            reason: why.
            key: the reviewer's key, which signs at once.
            signature: what `ssh-keygen -Y sign` made of `statement`.

        Raises:
            ReviewNotFound: there is neither a review nor a decision of this id.
            Refused: there is nothing to take back, or it is somebody else's rejection.
        """
        return await self._decisions.revoke(id, reason, signing(key, signature))

    async def attest(
        self,
        review_id: str,
        criterion: str,
        *,
        text: str | None = None,
        file: bytes | None = None,
        key: PrivateKey | None = None,
    ) -> ReviewDetails:
        """Vouch for a criterion of an open review, by a text or a document.

        Args:
            review_id: the review, or at least 6 characters of its id.
            criterion: one of the five.
            text: what is attested.
            file: bytes of a document, which are kept in the archive.
            key: the person's key, if they sign it.

        Raises:
            ReviewClosed: the review takes no more attestations.
            InvalidArgument: not exactly one of text and file was given.
        """
        attested = await self._attestations.attest(review_id, criterion, text, file, signing(key, None))
        return await self.show(attested)

    def _asked(self, stores: Stores, name: str, version: int) -> Sealed:
        found = sealed(stores, name, version)
        with stores.governance.reading() as read:
            require(read, "request_review", read.product_of(DEFAULT_WORKSPACE, name))
        return found

    def _dossier(
        self, stores: Stores, found: Sealed, folder: Path | None, given: Mapping[Criterion, object]
    ) -> Dossier:
        model = sealed_model(folder) if folder is not None else SealedModel()
        with stores.governance.reading() as read:
            before = _newest(read, found.seal.name, found.seal.version, self._clock())
            same = before is not None and before.row["manifest_digest"] == found.seal.manifest_digest
            carried = given_in(self._kept(read, before) or ()) if before is not None and same else {}
        every = {**carried, **given}
        return assemble(material_of(stores, self._archive, found.seal, found.version, model, every))

    def _record(self, stores: Stores, found: Sealed, dossier: Dossier) -> ReviewRequest:
        seal = found.seal
        with stores.governance.unit() as unit:
            unit.hold_name(DEFAULT_WORKSPACE, seal.name)
            require(unit.read, "request_review", unit.read.product_of(DEFAULT_WORKSPACE, seal.name))
            require_unchanged(stores, unit.read, seal)
            policy, now = policy_in_force(unit.read), self._clock()
            last = _newest(unit.read, seal.name, seal.version, now)
            if last is not None and _is_same(last, dossier.digest, policy.digest):
                return answers.request_of(last, dossier.items, policy.policy.policy, created=False)
            row = {
                "review_id": secrets.token_hex(16),
                "workspace": DEFAULT_WORKSPACE,
                "name": seal.name,
                "version": seal.version,
                "manifest_digest": seal.manifest_digest,
                "policy_digest": policy.digest,
                "dossier_digest": dossier.digest,
                "requester": unit.principal(person()),
                "expires": now + policy.policy.review.open_days * DAY_MS,
            }
            facts: dict[str, Any] = {
                "review": row["review_id"],
                "policy": policy.digest,
                "policy_name": policy.policy.policy,
                "rules": policy.policy.review.model_dump(mode="json"),
                "dossier": dossier.digest,
                "missing": [str(criterion) for criterion in dossier.missing],
            }
            replaced = last if last is not None and last.status in ("open", "approved") else None
            if replaced is not None:
                facts["replaces"] = replaced.id
            unit.append(
                Act(
                    REQUESTED,
                    person(),
                    Subject(seal.experiment_id, DEFAULT_WORKSPACE, seal.name, seal.version, seal.run_id),
                    facts=facts,
                    rows={"review": [row]},
                    text={ARCHIVE: str(self._archive.root)},
                )
            )
            made = reviews_of(unit.read, DEFAULT_WORKSPACE, seal.name, seal.version, now)[-1]
        notes = []
        if replaced is not None:
            approved = ", whose approval counts for no further promotion" if replaced.status == "approved" else ""
            notes = [f"It takes the place of the review {replaced.id}{approved}."]
        return answers.request_of(made, dossier.items, policy.policy.policy, created=True, notes=notes)

    def _shown(self, stores: Stores, review_id: str) -> ReviewDetails:
        now = self._clock()
        with stores.governance.reading() as read:
            found = find(read, review_id)
            review = _one(read, found, now)
            seal = read.seals(DEFAULT_WORKSPACE, found.name, found.version).get(found.version)
            policy = policy_in_force(read)
            events = [review.row.event, *(d.row.event for d in review.decisions)]
            texts = _texts(read, [*events, *(a.event for a in review.attestations)])
            items = self._kept(read, review)
            notes = [] if items is not None else ["The dossier is not in the archive within reach of this account."]
            if review.row["policy_digest"] != policy.digest:
                notes.append(f"Another policy is in force now: '{policy.policy.policy}'; ask for a new review.")
            if seal is None or seal.manifest_digest != review.row["manifest_digest"]:
                notes.append("It is of other bytes than those that are sealed now.")
            return answers.details_of(
                review,
                items or (),
                asked_for(read, review, seal) if seal else None,
                texts,
                policy=untrusted(str(review.row.facts.get("policy_name", "")), 60),
                now=now,
                author=read.text_of(seal.event, "run_author") if seal else None,
                notes=notes,
            )

    def _kept(self, read: GovernanceReads, review: Review) -> tuple[EvidenceItem, ...] | None:
        """Return the evidence of a review's dossier; None if no archive in reach has it."""
        root = read.text_of(review.row.event, ARCHIVE)
        elsewhere = [Archive(Path(root))] if root is not None and root != str(self._archive.root) else []
        for archive in (self._archive, *elsewhere):
            with suppress(StoreBroken, TooLarge):
                return items_of(archive.read_document(review.row["dossier_digest"], MAX_DOCUMENT))
        return None


def _is_same(last: Review, dossier: str, policy: str) -> bool:
    """Tell whether a request asks for nothing that was not asked before; what was rejected once stays rejected."""
    same = last.row["dossier_digest"] == dossier and last.row["policy_digest"] == policy
    return same and last.status in ("open", "approved", "rejected")


def _newest(read: GovernanceReads, name: str, version: int, now: int) -> Review | None:
    reviews = reviews_of(read, DEFAULT_WORKSPACE, name, version, now)
    return reviews[-1] if reviews else None


def _one(read: GovernanceReads, found: Found, now: int) -> Review:
    reviews = reviews_of(read, DEFAULT_WORKSPACE, found.name, found.version, now)
    return next(review for review in reviews if review.id == found.review_id)


def _texts(read: GovernanceReads, events: "list[int]") -> dict[int, dict[str, str]]:
    said = read.tables.free_text
    found: dict[int, dict[str, str]] = {}
    for row in read.connection.execute(select(said).where(said.c.event.in_(events))):
        found.setdefault(row.event, {})[row.field] = row.text
    return found


def _number(version: int) -> int:
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version < 2**31:
        raise InvalidArgument("The version must be a number.", next="call again with version set to its number.")
    return version
