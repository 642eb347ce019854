"""Promotion: evidence, gates, then record, stage, aliases and trail in one transaction.

The gates are weighed before anything is written. Inside the transaction, when nobody else can write any
more, what can have changed meanwhile is looked at again: rights, quarantine, drift, policy and review.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from intelligentscan._credential_forms import without_credentials
from intelligentscan.domain import names
from intelligentscan.domain.errors import GatesFailed, InvalidArgument, ModelNotFound, NotGoverned
from intelligentscan.domain.people import Right
from intelligentscan.domain.plan import Consent
from intelligentscan.domain.policy import PolicyInForce
from intelligentscan.domain.registry import (
    ALIAS_OF_STAGE,
    Enforcement,
    GateResult,
    PromotionDecision,
    Stage,
    stage_from,
)
from intelligentscan.domain.review import ReviewRequest
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.integrity import NotDrifted
from intelligentscan.gates.interface import Evidence
from intelligentscan.gates.policy import weigh
from intelligentscan.services.denials import Denials
from intelligentscan.services.drift import drift_of
from intelligentscan.services.enforcement import claim
from intelligentscan.services.evidence import EvidenceGatherer, committee_facts
from intelligentscan.services.locks import MAX_REASON
from intelligentscan.services.plan_record import plan_use, refuse_early
from intelligentscan.services.policies import policy_in_force
from intelligentscan.services.principal import person
from intelligentscan.services.rights import require
from intelligentscan.services.stage_moves import Move, outgoing_of, rows_of_move
from intelligentscan.services.trail import TrailService
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, Subject
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import ModelRecord, StageMove, StageMoved, Stores, VersionRecord

PROMOTED = "version.promoted"
REVIEWED = ("reviewed", "segregation_of_duties")
"""The gates that a decision of the committee can still pass."""

RequestReview = Callable[[str, int], Awaitable[ReviewRequest]]
Status = Literal["promoted", "pending_review", "would_promote", "would_refuse"]


@dataclass(frozen=True, slots=True)
class Weighed:
    """A move, the facts for and against it, and what the gates say."""

    move: Move
    evidence: Evidence | None
    policy: PolicyInForce
    gates: tuple[GateResult, ...]

    @property
    def failed(self) -> list[GateResult]:
        """The gates that refuse it."""
        return [gate for gate in self.gates if gate.outcome == "fail"]

    @property
    def four_eyes(self) -> bool:
        """Whether the policy asked for, and found, somebody else's authenticated approval."""
        return any(g.gate == "segregation_of_duties" and g.outcome == "pass" for g in self.gates)

    @property
    def waits_for_review(self) -> bool:
        """Whether nothing but a decision of the committee is missing, and none was taken against it."""
        if not self.failed or any(g.gate not in REVIEWED for g in self.failed):
            return False
        review = self.evidence.review if self.evidence else None
        return review is None or review.status in ("open", "expired")


class PromotionService:
    """Weighs and makes moves."""

    def __init__(
        self,
        store: StoreAccess,
        gatherer: EvidenceGatherer,
        trail: TrailService,
        denials: Denials,
        request_review: RequestReview,
    ) -> None:
        self._store = store
        self._gatherer = gatherer
        self._trail = trail
        self._denials = denials
        self._request_review = request_review

    async def promote(
        self,
        name: str,
        version: int,
        to: str,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        confirm: str | Consent | None = None,
    ) -> PromotionDecision:
        """Move a version to Staging, Production or Archived; stage and alias move together.

        The version that leaves Production is archived and gets the alias 'previous'; promoting that one again is a
        rollback, for which the policy asks less. A version that is there already stays, and nothing is changed. If
        nothing but a review is missing, it is requested.

        Raises:
            InvalidArgument: no such stage, or no reason for Production.
            ModelNotFound: no model has this name.
            VersionNotFound: the model has no such version.
            NotGoverned: the model was registered by plain MLflow and never adopted.
            NotPermitted: the role of whoever asks does not allow it.
            GatesFailed: gates fail, and not the review alone.
        """
        if isinstance(version, bool):
            raise InvalidArgument("The version must be a number.", next="call again with version set to its number.")
        plan = plan_use(confirm, "promote", {"name": name, "version": version, "to": to, "reason": reason})
        wanted, stage = names.model_name(name), stage_from(to)
        move = Move(wanted, version, stage, _reason(reason, stage), plan)
        if plan is not None and not dry_run:
            await refuse_early(self._store, self._denials, plan, Subject(None, DEFAULT_WORKSPACE, wanted, version))
        asked = await self._store.read(lambda s: _asked(s, move))
        weighed = await self.weigh(move, asked.before, record=not dry_run)
        if dry_run:
            status: Status = "would_refuse" if weighed.failed else "would_promote"
            return _decision(asked, weighed, status, changed=not asked.there)
        if asked.there:
            return _decision(asked, weighed, "promoted", changed=False)
        async with self._denials.noting("promote", Subject(None, DEFAULT_WORKSPACE, wanted, version)):
            if weighed.waits_for_review:
                review = await self._request_review(wanted, version)
                return _decision(asked, weighed, "pending_review", changed=False, review=review)
            if weighed.failed:
                raise gates_failed(weighed)
            moved = await self._store.write(lambda s: _make(s, weighed))
        missed = await self._trail.checkpoint_if_set()
        made = _decision(
            replace(asked, before=moved.version, previous=moved.replaced), weighed, "promoted", changed=True
        )
        return made.model_copy(update={"notes": [missed]}) if missed else made

    async def weigh(self, move: Move, before: VersionRecord, *, record: bool) -> Weighed:
        """Return the outcome of every gate for a move; a demotion to Archived asks none.

        Args:
            move: the move.
            before: the version as the registry has it.
            record: put damage into the trail, which keeps the version in quarantine; a dry run writes nothing.
        """
        if move.stage == "Archived":
            return Weighed(move, None, await self._store.read(_policy), ())
        gathered = await self._gatherer.gather(before, move.stage, _now(), record=record)
        gates = weigh(gathered.policy.policy, gathered.evidence)
        return Weighed(move, gathered.evidence, gathered.policy, tuple(gates))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for, as the registry has it now."""

    before: VersionRecord
    there: bool
    previous: int | None
    enforcement: Enforcement


def _asked(stores: Stores, move: Move) -> _Asked:
    model = stores.registry.get_model(move.name)
    if model is None:
        raise no_model(move.name)
    before = stores.registry.get_versions(move.name, move.version, 1, None).rows[0]
    if not stores.governance.installed():
        raise _not_governed(move.name)
    with stores.governance.reading() as read:
        if not read.is_governed(DEFAULT_WORKSPACE, move.name):
            raise _not_governed(move.name)
        require(read, right_for(move.stage, before.stage), read.product_of(DEFAULT_WORKSPACE, move.name))
        recorded = read.stages(DEFAULT_WORKSPACE, move.name).get(move.version)
    there = _is_there(model, before, move.stage) and (move.stage != "Production" or recorded == move.stage)
    holder = stores.registry.in_stage(move.name, move.stage)
    previous = holder if holder != move.version else None
    return _Asked(before, there, previous, claim(stores))


def _is_there(model: ModelRecord, before: VersionRecord, stage: Stage) -> bool:
    alias = ALIAS_OF_STAGE.get(stage)
    return before.stage == stage and (alias is None or model.aliases.get(alias) == before.version)


def right_for(to: Stage, source: Stage) -> Right:
    """Return the right that a move asks for."""
    if to == "Production":
        return "release"
    return "withdraw" if source == "Production" else "stage"


def gates_failed(weighed: Weighed) -> GatesFailed:
    """Return the refusal that names every failed gate."""
    move, failed = weighed.move, weighed.failed
    named = "; ".join(f"{g.gate}: {g.detail}" for g in failed)
    return GatesFailed(
        f"{len(failed)} of {len(weighed.gates)} gates failed for {untrusted(move.name, 80)} version {move.version} to "
        f"{move.stage}.",
        next=f"{named}.",
        details={"gates": [g.model_dump() for g in weighed.gates], "policy": weighed.policy.policy.policy},
    )


def no_model(name: str) -> ModelNotFound:
    """Return the error for a name that no registered model has."""
    return ModelNotFound(
        f"There is no registered model '{untrusted(name, 80)}'.",
        next="register one with register_model, or check the name in MLflow's UI.",
    )


def _not_governed(name: str) -> NotGoverned:
    shown = untrusted(name, 80)
    return NotGoverned(
        f"The model '{shown}' was registered by plain MLflow and is not governed.",
        next=f"an administrator adopts it with 'intelligentscan adopt {shown}'; or register a run with "
        f"register_model name='{shown}'.",
    )


def _reason(reason: str | None, stage: Stage) -> str | None:
    if stage == "Production" and not (reason and reason.strip()):
        raise InvalidArgument(
            "A promotion to Production needs a reason.", next="call promote again with reason: why this version, now."
        )
    if reason is not None and len(reason) > MAX_REASON:
        raise InvalidArgument(
            f"The reason has {len(reason):,} characters; the most is {MAX_REASON:,}.", next="give a shorter reason."
        )
    return None if reason is None else without_credentials(reason)


def _policy(stores: Stores) -> PolicyInForce:
    with stores.governance.reading() as read:
        return policy_in_force(read)


def _now() -> int:
    return int(time.time() * 1000)


def _make(stores: Stores, weighed: Weighed) -> StageMoved:
    governance, move = stores.governance, weighed.move
    if governance.joint:
        with governance.unit() as unit:
            unit.hold_name(DEFAULT_WORKSPACE, move.name)
            weighed = _still(stores, unit, weighed)
            if move.plan is not None:
                move.plan.consume(unit, stores)
            _record(stores, unit, weighed)
            return stores.registry.move_stage(StageMove(move.name, move.version, move.stage))
    with governance.unit() as unit:
        weighed = _still(stores, unit, weighed)
        if move.plan is not None:
            move.plan.consume(unit, stores)
        unit.append(_act("promotion.intended", weighed, {}))
    outgoing = outgoing_of(stores, move)
    moved = stores.registry.move_stage(StageMove(move.name, move.version, move.stage))
    with governance.unit() as unit:
        unit.append(_act(PROMOTED, weighed, rows_of_move(unit, move, outgoing), **_sealed(unit.read, move)))
    return moved


def _still(stores: Stores, unit: GovernedUnit, weighed: Weighed) -> Weighed:
    """Weigh again what can have changed since; nobody else can write any more.

    Raises:
        NotPermitted: a role was taken away meanwhile.
        GatesFailed: the version is in quarantine, registry and record differ, or a review or the policy has changed.
    """
    move, evidence = weighed.move, weighed.evidence
    before = stores.registry.get_versions(move.name, move.version, 1, None).rows[0]
    right = right_for(move.stage, before.stage)
    require(unit.read, right, unit.read.product_of(DEFAULT_WORKSPACE, move.name))
    if evidence is None:
        return weighed
    changed = [p.what for p in drift_of(stores, move.name) if p.code != "GUARD"]
    if move.version in unit.read.quarantined(DEFAULT_WORKSPACE, move.name):
        changed.append("the version was put into quarantine meanwhile")
    policy = policy_in_force(unit.read)
    seal = unit.read.seals(DEFAULT_WORKSPACE, move.name, move.version).get(move.version)
    now = _now()
    review = committee_facts(unit.read, seal, policy, now) if seal else None
    drift = (*evidence.drift, *changed)
    gates = weigh(policy.policy, replace(evidence, review=review, drift=drift, now=now))
    if changed:  # whatever the policy asks for
        gates = [g for g in gates if g.gate != NotDrifted.name] + [NotDrifted.failed(move.name, drift)]
    again = Weighed(move, evidence, policy, tuple(gates))
    if again.failed:
        raise gates_failed(again)
    return again


def _record(stores: Stores, unit: GovernedUnit, weighed: Weighed) -> None:
    """Write where every version and alias of the name is after the move."""
    move = weighed.move
    rows = rows_of_move(unit, move, outgoing_of(stores, move))
    unit.append(_act(PROMOTED, weighed, rows, **_sealed(unit.read, move)))


def _sealed(read: GovernanceReads, move: Move) -> dict[str, object]:
    seal = read.seals(DEFAULT_WORKSPACE, move.name, move.version).get(move.version)
    return {"manifest_digest": seal.manifest_digest, "sealed_by_event": seal.event} if seal else {}


def _act(action: str, weighed: Weighed, rows: dict[str, list[dict[str, Any]]], **sealed: object) -> Act:
    move, evidence = weighed.move, weighed.evidence
    review = evidence.review if evidence else None
    facts: dict[str, Any] = {
        "to": move.stage,
        "gates": [{"gate": g.gate, "outcome": g.outcome, "origin": g.origin} for g in weighed.gates],
        "policy": weighed.policy.digest,
        "four_eyes": weighed.four_eyes,
        **sealed,
        **(move.plan.facts if move.plan else {}),
    }
    if evidence and evidence.rollback:
        facts["rollback"] = True
    if review is not None and review.approvals:
        facts |= {"review": review.review_id, "approved_by": [a.person for a in review.approvals]}
    return Act(
        action,
        person(),
        Subject(workspace=DEFAULT_WORKSPACE, name=move.name, version=move.version),
        facts=facts,
        rows=rows,
        text={"reason": move.reason} if move.reason else {},
    )


def _decision(
    asked: _Asked, weighed: Weighed, status: Status, *, changed: bool, review: ReviewRequest | None = None
) -> PromotionDecision:
    notes = []
    if review is not None:
        notes.append(f"Waits for a person: {review.next}")
    return PromotionDecision(
        status=status,
        name=asked.before.name,
        version=asked.before.version,
        stage=weighed.move.stage,
        aliases=list(asked.before.aliases),
        previous_version=asked.previous,
        gates=list(weighed.gates),
        changed=changed,
        policy=weighed.policy.policy.policy,
        four_eyes=weighed.four_eyes,
        enforcement=asked.enforcement,
        review_id=review.review_id if review else None,
        notes=notes,
    )
