"""Moving a governed version: evidence, gates, then record, stage, aliases and trail in one transaction."""

from dataclasses import dataclass
from typing import Any

from intelligentscan.domain.errors import GatesFailed, NotGoverned
from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.policy import GateSettings, ModelRules, ReviewRules
from intelligentscan.domain.registry import ALIAS_OF_STAGE, PREVIOUS, RESERVED_ALIASES, GateResult, Stage
from intelligentscan.domain.text import untrusted
from intelligentscan.gates import BUILT_IN
from intelligentscan.gates.integrity import NotDrifted
from intelligentscan.gates.interface import Evidence, Rules
from intelligentscan.services.drift import all_versions, drift_of
from intelligentscan.services.locks import locks_of
from intelligentscan.services.principal import person
from intelligentscan.services.seals import QUARANTINED, UNCHECKED, VERIFIED, SealChecks
from intelligentscan.services.trail import TrailService
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, SealRecord, Subject
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import StageMove, StageMoved, Stores, VersionRecord

PROMOTED = "version.promoted"
_RULES = Rules(GateSettings(), ReviewRules(), ModelRules())


@dataclass(frozen=True, slots=True)
class Move:
    """A move that somebody asks for."""

    name: str
    version: int
    stage: Stage
    reason: str | None


class Promoter:
    """Weighs and makes moves."""

    def __init__(self, store: StoreAccess, checks: SealChecks, trail: TrailService) -> None:
        self._store = store
        self._trail = trail
        self._checks = checks

    async def weigh(self, move: Move, before: VersionRecord, *, record: bool) -> list[GateResult]:
        """Return the outcome of every gate for a move; a demotion to Archived asks none.

        Args:
            move: the move.
            before: the version as the registry has it.
            record: put damage into the trail, which keeps the version in quarantine; a dry run writes nothing.

        Raises:
            NotGoverned: the model was registered by plain MLflow and never adopted.
        """
        await self._store.read(lambda s: _governed(s, move.name))
        if move.stage == "Archived":
            return []
        evidence = await self._evidence(move, before, record)
        return [gate.check(evidence, _RULES) for gate in BUILT_IN]

    async def move(self, move: Move, gates: list[GateResult]) -> StageMoved:
        """Make the move.

        Raises:
            GatesFailed: a gate does not pass.
            GovernanceUnready: guards, trail or key are not in order.
        """
        if failed := [g for g in gates if g.outcome == "fail"]:
            raise gates_failed(move, gates, failed)
        return await self._store.write(lambda s: _make(s, move, gates))

    async def _evidence(self, move: Move, before: VersionRecord, record: bool) -> Evidence:
        def facts(stores: Stores) -> tuple[SealRecord | None, bool, list[str]]:
            with stores.governance.reading() as read:
                seal = read.seals(DEFAULT_WORKSPACE, move.name, move.version).get(move.version)
                legacy = move.version in read.legacy(DEFAULT_WORKSPACE, move.name)
            return seal, legacy, [p.what for p in drift_of(stores, move.name)]

        seal, legacy, drift = await self._store.read(facts)
        found: list[Problem] = []
        damaged: list[Problem] = []
        if seal is not None:
            found = await self._checks.bytes_of(seal)
            damaged = [p for p in found if p.code != UNCHECKED]
            drift += [p.what for p in found if p.code == UNCHECKED]
            if record and damaged:
                await self._checks.quarantine(seal, damaged)
            elif record and not found:
                await self._checks.ensure_verified(seal)
            drift += [p.what for p in await self._checks.rows_of(seal, before)]
            lock = await self._store.read(lambda s, e=seal.experiment_id: locks_of(s, [e]).get(e))  # type: ignore[misc]
            if lock is not None:
                drift += [f"{p.where}: {p.what}" for p in await self._checks.experiment(lock)]
        drift += [p.what for p in await self._trail.problems(whole=False)]
        verified, quarantined = await self._store.read(lambda s: _checked(s, move))
        return Evidence(
            name=move.name,
            version=move.version,
            stage=move.stage,
            sealed=seal is not None,
            legacy=legacy,
            verified=verified or (seal is not None and not found),
            quarantined=quarantined or bool(damaged),
            drift=tuple(drift),
        )


def gates_failed(move: Move, gates: list[GateResult], failed: list[GateResult]) -> GatesFailed:
    """Return the refusal that names every failed gate."""
    named = "; ".join(f"{g.gate}: {g.detail}" for g in failed)
    return GatesFailed(
        f"{len(failed)} of {len(gates)} gates failed for {untrusted(move.name, 80)} version {move.version} to "
        f"{move.stage}.",
        next=f"{named}.",
        details={"gates": [g.model_dump() for g in gates]},
    )


def _governed(stores: Stores, name: str) -> None:
    if stores.governance.installed():
        with stores.governance.reading() as read:
            if read.is_governed(DEFAULT_WORKSPACE, name):
                return
    raise NotGoverned(
        f"The model '{untrusted(name, 80)}' was registered by plain MLflow and is not governed.",
        next=f"an administrator adopts it with 'intelligentscan adopt {untrusted(name, 80)}'; or register a run with "
        f"register_model name='{untrusted(name, 80)}'.",
    )


def _checked(stores: Stores, move: Move) -> tuple[bool, bool]:
    with stores.governance.reading() as read:
        verified = read.has_event(VERIFIED, DEFAULT_WORKSPACE, move.name, move.version)
        quarantined = move.version in read.quarantined(DEFAULT_WORKSPACE, move.name)
    return verified, quarantined


def _make(stores: Stores, move: Move, gates: list[GateResult]) -> StageMoved:
    governance = stores.governance
    if governance.joint:
        with governance.unit() as unit:
            unit.hold_name(DEFAULT_WORKSPACE, move.name)
            _still_pass(stores, unit, move, gates)
            _record(unit, move, _outgoing(stores, move), gates)
            return stores.registry.move_stage(StageMove(move.name, move.version, move.stage))
    with governance.unit() as unit:
        unit.append(_act("promotion.intended", move, {}, gates))
    outgoing = _outgoing(stores, move)
    moved = stores.registry.move_stage(StageMove(move.name, move.version, move.stage))
    with governance.unit() as unit:
        _record(unit, move, outgoing, gates)
    return moved


def _still_pass(stores: Stores, unit: GovernedUnit, move: Move, gates: list[GateResult]) -> None:
    """Refuse what was found changed since the gates were weighed; nobody else can write any more.

    Raises:
        GatesFailed: the version is in quarantine, or the registry does not match the record.
    """
    if move.stage == "Archived":
        return
    changed = [p.what for p in drift_of(stores, move.name) if p.code != "GUARD"]
    if move.version in unit.read.quarantined(DEFAULT_WORKSPACE, move.name):
        changed.append("the version was put into quarantine meanwhile")
    if changed:
        failed = [NotDrifted.failed(move.name, tuple(changed))]
        raise gates_failed(move, [g for g in gates if g.gate != failed[0].gate] + failed, failed)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What leaves a stage when another version comes: the one that is replaced, and every one that is archived."""

    replaced: int | None
    archived: tuple[int, ...]


def _outgoing(stores: Stores, move: Move) -> Outgoing:
    """Return what will leave the stage; plain MLflow may have put several versions there."""
    if move.stage not in ALIAS_OF_STAGE:
        return Outgoing(None, ())
    holder = stores.registry.in_stage(move.name, move.stage)
    there = {v.version for v in all_versions(stores, move.name) if v.stage == move.stage}
    leaving = (there | {holder} if holder is not None else there) - {move.version}
    return Outgoing(holder if holder in leaving else None, tuple(sorted(leaving)))


def _record(unit: GovernedUnit, move: Move, outgoing: Outgoing, gates: list[GateResult]) -> None:
    """Write where every version and alias of the name is after the move."""
    seal = unit.read.seals(DEFAULT_WORKSPACE, move.name, move.version).get(move.version)
    evidence = {"manifest_digest": seal.manifest_digest, "sealed_by_event": seal.event} if seal else {}
    unit.append(_act(PROMOTED, move, _rows(unit, move, outgoing), gates, **evidence))


def _rows(unit: GovernedUnit, move: Move, outgoing: Outgoing) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the stage and alias record that a move makes."""
    key = {"workspace": DEFAULT_WORKSPACE, "name": move.name}
    aliases = unit.read.aliases(DEFAULT_WORKSPACE, move.name)
    own = ALIAS_OF_STAGE.get(move.stage)
    wanted = dict(aliases)
    for alias in RESERVED_ALIASES:
        if wanted.get(alias) == move.version:
            wanted[alias] = None
    if own is not None:
        wanted[own] = move.version
    if move.stage == "Production" and outgoing.replaced is not None:
        wanted[PREVIOUS] = outgoing.replaced
    stages = [{**key, "version": move.version, "stage": move.stage}]
    stages += [{**key, "version": version, "stage": "Archived"} for version in outgoing.archived]
    changed = [{**key, "alias": a, "version": v} for a, v in wanted.items() if aliases.get(a) != v or a not in aliases]
    return {"stage": stages, "alias": changed}


def _act(
    action: str, move: Move, rows: dict[str, list[dict[str, Any]]], gates: list[GateResult], **evidence: object
) -> Act:
    return Act(
        action,
        person(),
        Subject(workspace=DEFAULT_WORKSPACE, name=move.name, version=move.version),
        facts={
            "to": move.stage,
            "gates": [{"gate": g.gate, "outcome": g.outcome, "origin": g.origin} for g in gates],
            **evidence,
        },
        rows=rows,
        text={"reason": move.reason} if move.reason else {},
    )


__all__ = ["PROMOTED", "QUARANTINED", "Move", "Promoter", "gates_failed"]
