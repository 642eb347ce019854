"""Moving a governed version: what leaves a stage, and the rows of the record that a move makes."""

from dataclasses import dataclass
from typing import Any

from intelligentscan.domain.registry import ALIAS_OF_STAGE, PREVIOUS, RESERVED_ALIASES, Stage
from intelligentscan.services.drift import all_versions
from intelligentscan.services.plan_record import PlanUse
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import Stores


@dataclass(frozen=True, slots=True)
class Move:
    """A move that somebody asks for."""

    name: str
    version: int
    stage: Stage
    reason: str | None
    plan: PlanUse | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What leaves a stage when another version comes: the one that is replaced, and every one that is archived."""

    replaced: int | None
    archived: tuple[int, ...]


def outgoing_of(stores: Stores, move: Move) -> Outgoing:
    """Return what will leave the stage; plain MLflow may have put several versions there."""
    if move.stage not in ALIAS_OF_STAGE:
        return Outgoing(None, ())
    holder = stores.registry.in_stage(move.name, move.stage)
    there = {v.version for v in all_versions(stores, move.name) if v.stage == move.stage}
    leaving = (there | {holder} if holder is not None else there) - {move.version}
    return Outgoing(holder if holder in leaving else None, tuple(sorted(leaving)))


def rows_of_move(unit: GovernedUnit, move: Move, outgoing: Outgoing) -> dict[str, list[dict[str, Any]]]:
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
