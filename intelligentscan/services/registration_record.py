"""What a registration writes into the record: ticket, name, seal, and who asked for it."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.people import Tier
from intelligentscan.domain.registry import RESERVED_ALIASES
from intelligentscan.services.drift import all_versions
from intelligentscan.services.lineage import Lineage
from intelligentscan.services.plan_record import PlanUse
from intelligentscan.services.seals import ARCHIVE
from intelligentscan.stores.governance.records import (
    DEFAULT_WORKSPACE,
    NPTA,
    Act,
    Principal,
    SealRecord,
    Subject,
)
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import ModelSource, RunRecord, Stores, VersionDraft

TICKET_MS = 15 * 60 * 1000
RETENTION_MS = 10 * 366 * 86_400_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks the service to register."""

    name: str
    source: ModelSource
    run: RunRecord
    requester: Principal
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    product: str | None = None
    use_case: str | None = None
    tier: Tier = "standard"
    abandon_running: bool = False
    plan: PlanUse | None = None

    def view_id(self, manifest_digest: str, version: int) -> str:
        """Return the name of the sealed folder: the same for the same version."""
        text = rfc8785.dumps([DEFAULT_WORKSPACE, self.name, self.run.run_id, manifest_digest, version])
        return sha256_hex(text)[:32]


def open_ticket(unit: GovernedUnit, wanted: Wanted, manifest_digest: str, version: int, location: str) -> str:
    """Let the version past the guards, in this transaction alone; return the ticket's id."""
    ticket_id = secrets.token_hex(16)
    row = {
        "ticket_id": ticket_id,
        "workspace": DEFAULT_WORKSPACE,
        "name": wanted.name,
        "version": version,
        "run_id": wanted.run.run_id,
        "source": location.rsplit("/", 1)[-1],
        "manifest_digest": manifest_digest,
        "requester": unit.principal(wanted.requester),
        "expires": int(time.time() * 1000) + TICKET_MS,
    }
    unit.append(act_of("ticket.opened", wanted, version, rows={"ticket": [row]}))
    return ticket_id


def govern_name(stores: Stores, unit: GovernedUnit, wanted: Wanted, version: int) -> None:
    """Put the name under governance with its first sealed version; what is there already is legacy."""
    if unit.read.is_governed(DEFAULT_WORKSPACE, wanted.name):
        return
    unit.append(
        Act(
            "model.governed",
            NPTA,
            Subject(workspace=DEFAULT_WORKSPACE, name=wanted.name),
            wanted.requester,
            rows=legacy_rows(stores, wanted.name, below=version),
        )
    )


def seal_version(
    unit: GovernedUnit,
    wanted: Wanted,
    manifest_digest: str,
    archive: str,
    lineage: Lineage,
    version: int,
    view_id: str,
    rows_digest: str,
    ticket_id: str | None,
) -> SealRecord:
    """Seal the version, and close its ticket."""
    key = {"workspace": DEFAULT_WORKSPACE, "name": wanted.name, "version": version}
    row = {
        **key,
        "run_id": wanted.run.run_id,
        "experiment_id": int(wanted.run.experiment_id),
        "source": view_id,
        "origin": wanted.source.uri,
        "manifest_digest": manifest_digest,
        "rows_digest": rows_digest,
    }
    rows: dict[str, list[dict[str, Any]]] = {
        "seal": [row],
        "retention": [{**key, "until": int(time.time() * 1000) + RETENTION_MS, "hold": 0}],
    }
    if ticket_id is not None:
        rows["ticket_close"] = [{"ticket_id": ticket_id}]
    event = unit.append(
        act_of(
            "version.registered",
            wanted,
            version,
            rows=rows,
            facts=lineage.facts
            | {"product": lineage.product, "tier": wanted.tier}
            | (wanted.plan.facts if wanted.plan else {}),
            text=lineage.text | {ARCHIVE: archive} | ({"use_case": wanted.use_case} if wanted.use_case else {}),
        )
    )
    return SealRecord(
        event=event.seq,
        workspace=DEFAULT_WORKSPACE,
        name=wanted.name,
        version=version,
        run_id=wanted.run.run_id,
        experiment_id=wanted.run.experiment_id,
        source=view_id,
        origin=wanted.source.uri,
        manifest_digest=manifest_digest,
        rows_digest=rows_digest,
    )


def legacy_rows(stores: Stores, name: str, below: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that put a name under governance with what it has: legacy, unreviewed."""
    key = {"workspace": DEFAULT_WORKSPACE, "name": name}
    old = [v for v in all_versions(stores, name) if below is None or v.version < below]
    return {
        "governed_model": [key],
        "legacy_version": [{**key, "version": v.version} for v in old],
        "stage": [{**key, "version": v.version, "stage": v.stage} for v in old if v.stage != "None"],
        "alias": [
            {**key, "alias": alias, "version": v.version}
            for v in old
            for alias in v.aliases
            if alias in RESERVED_ALIASES
        ],
    }


def draft_of(wanted: Wanted, location: str) -> VersionDraft:
    """Return the version that the registry is to make."""
    return VersionDraft(wanted.name, wanted.source, wanted.run.run_id, location, wanted.description, dict(wanted.tags))


def subjects_of(wanted: Wanted) -> tuple[Subject, Subject]:
    """Return what the registration is about: the experiment, and the name."""
    return Subject(wanted.run.experiment_id), Subject(workspace=DEFAULT_WORKSPACE, name=wanted.name)


def act_of(action: str, wanted: Wanted, version: int | None, **more: Any) -> Act:
    """Return an act of the service for whoever asks for the registration."""
    subject = Subject(
        experiment_id=wanted.run.experiment_id,
        workspace=DEFAULT_WORKSPACE,
        name=wanted.name,
        version=version,
        run_id=wanted.run.run_id,
    )
    return Act(action, NPTA, subject, wanted.requester, **more)
