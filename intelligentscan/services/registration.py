"""Registering as the service identity: ticket, copy, lock, sealed version and trail, as a whole or not at all.

The bytes are copied first, outside any transaction. Then one transaction takes the exclusive hold on the
experiment, looks at everything again, and makes the version, the lock and the seal together with the
entries of the trail. The ticket that lets the version past the guards is opened and closed in it, so
nobody else ever sees it open. Killed before the commit, nothing but unused bytes is left, and the same
call uses them again; killed after it, the sealed copy is hashed again before anybody relies on it.
Where the registry lies in another system, intent, act and outcome are three steps instead of one, and the
same call completes them.
"""

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan._private_folder import private_folder
from intelligentscan.domain.errors import (
    BytesChanged,
    RunNotFound,
)
from intelligentscan.domain.people import Tier
from intelligentscan.domain.registry import RESERVED_ALIASES
from intelligentscan.services.artifact_folders import list_folders
from intelligentscan.services.drift import all_versions, refuse_forged
from intelligentscan.services.lineage import Lineage, lineage_of
from intelligentscan.services.locks import locks_of
from intelligentscan.services.plan_record import PlanUse
from intelligentscan.services.registration_checks import (
    end_others,
    experiment_of,
    next_free_name,
    others_left,
    product_for,
)
from intelligentscan.services.seals import ARCHIVE, SealChecks, api_document, manifest_statement
from intelligentscan.settings import artifact_uri
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.archive_manifest import Manifest
from intelligentscan.stores.archive_view import model_meta
from intelligentscan.stores.governance.records import (
    DEFAULT_WORKSPACE,
    NPTA,
    Act,
    LockRecord,
    Principal,
    SealRecord,
    Subject,
)
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import (
    ExperimentRecord,
    ModelSource,
    RunFolder,
    RunRecord,
    Stores,
    VersionDraft,
)
from intelligentscan.stores.mlflow_unit import UnitBroken
from intelligentscan.stores.row_digests import experiment_digest, version_digest

MAX_BYTES = 20 * 2**30
MAX_FILES = 20_000
TICKET_MS = 15 * 60 * 1000
RETENTION_MS = 10 * 366 * 86_400_000
_LEFTOVER_S = 86_400.0


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


@dataclass(frozen=True, slots=True)
class Inventory:
    """What lay in the artifact folders of an experiment, and the folders with the state of their runs and models."""

    folders: tuple[RunFolder, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of a registration."""

    seal: SealRecord
    lock: LockRecord | None
    created: bool
    verified: bool


class Registrar:
    """Registers for people."""

    def __init__(self, store: StoreAccess, archive: Archive, checks: SealChecks) -> None:
        self._store = store
        self._archive = archive
        self._checks = checks

    async def preview(self, wanted: RunRecord, *, abandon: bool) -> tuple[LockRecord | None, str]:
        """Return the lock that is there already, and the name of the experiment that would follow.

        Raises:
            DefaultExperiment, StillRunning: as `register` would.
        """

        def look(stores: Stores) -> tuple[LockRecord | None, str]:
            experiment = experiment_of(stores, wanted.experiment_id)
            lock = None
            if stores.governance.joint or stores.governance.installed():
                with stores.governance.reading() as read:
                    lock = read.lock(experiment.experiment_id)
            others_left(stores, wanted, abandon=abandon) if lock is None else None
            return lock, lock.next_experiment if lock else next_free_name(stores, experiment.name, set())

        return await self._store.read(look)

    async def register(self, wanted: Wanted) -> Registered:
        """Register, lock and seal; the same request again returns the same version.

        Raises:
            GovernanceUnready: the guards, the trail or the key are not in order.
            DefaultExperiment: the run belongs to MLflow's default experiment.
            StillRunning: another run of the experiment has not ended.
            BytesChanged: the model's files changed meanwhile.
        """
        experiment_id = wanted.run.experiment_id
        experiment = await self._store.read(lambda s: experiment_of(s, experiment_id))
        async with private_folder() as private:
            folder = await self._store.read(lambda s: s.registry.fetch(wanted.source, private / "model"))
            manifest = await anyio.to_thread.run_sync(self._take, folder, experiment, abandon_on_cancel=True)
        files = await self._inventory(experiment_id) if not await self._locked(experiment_id) else None
        lineage = await self._store.read(lambda s: lineage_of(s, wanted.run))
        await self._sweep()
        done = await self._store.write(lambda s: self._act(s, wanted, manifest, files, lineage))
        verified = await self._checks.ensure_verified(done.seal)
        return Registered(done.seal, done.lock, done.created, verified)

    def _take(self, folder: Path, experiment: ExperimentRecord) -> Manifest:
        """Copy the model; links are followed up to where the experiment keeps its artifacts, none after it."""
        kept = Path(experiment.artifact_location.removeprefix("file://"))
        below = kept if folder.is_relative_to(kept) else folder.parent
        return self._archive.take(folder, max_bytes=MAX_BYTES, max_files=MAX_FILES, below=below)

    async def _locked(self, experiment_id: str) -> bool:
        return bool(await self._store.read(lambda s: locks_of(s, [experiment_id])))

    async def _sweep(self) -> None:
        """Remove what registrations that were killed long ago left in the archive."""

        def sealed(stores: Stores) -> set[str]:
            if not stores.governance.installed():
                return set()
            with stores.governance.reading() as read:
                return {seal.source for seal in read.all_seals()}

        kept = await self._store.read(sealed)
        await anyio.to_thread.run_sync(self._archive.sweep, kept.__contains__, _LEFTOVER_S)

    async def _inventory(self, experiment_id: str) -> Inventory:
        """List everything that lies in the experiment's artifact folders."""
        folders = await self._store.read(lambda s: s.tracking.folders(experiment_id))
        return await anyio.to_thread.run_sync(self._listed, folders)

    def _listed(self, folders: tuple[RunFolder, ...]) -> Inventory:
        local = {f.label: f.folder for f in folders if f.folder is not None}
        return Inventory(folders, self._archive.put_document(list_folders(self._archive, local)))

    def _act(
        self, stores: Stores, wanted: Wanted, manifest: Manifest, files: Inventory | None, lineage: Lineage
    ) -> Registered:
        if not stores.governance.joint:
            return self._in_steps(stores, wanted, manifest, files, lineage)
        try:
            return self._as_one(stores, wanted, manifest, files, lineage)
        except UnitBroken:  # a plain client made the registered model at the same moment
            return self._as_one(stores, wanted, manifest, files, lineage)

    def _as_one(
        self, stores: Stores, wanted: Wanted, manifest: Manifest, files: Inventory | None, lineage: Lineage
    ) -> Registered:
        """Make ticket, version, lock and seal in one transaction."""
        with stores.governance.unit() as unit:
            unit.hold_experiment(wanted.run.experiment_id)
            unit.hold_name(DEFAULT_WORKSPACE, wanted.name)
            refuse_forged(unit.read, *_subjects(wanted))
            product = product_for(unit.read, wanted.name, wanted.product, lineage.product)
            if (there := self._made_before(unit, wanted, manifest)) is not None:
                return there
            if wanted.plan is not None:
                wanted.plan.consume(unit, stores, manifest.digest)
            experiment = self._look_again(stores, unit, wanted, manifest)
            stores.registry.ensure_model(wanted.name)
            version = stores.registry.highest_version(wanted.name) + 1
            view = self._archive.view(
                wanted.view_id(manifest.digest, version), manifest, model_meta(wanted.name, version), sealed=False
            )
            location = artifact_uri(view)
            ticket_id = self._open_ticket(unit, wanted, manifest, version, location)
            self._govern_name(stores, unit, wanted, version)
            stores.registry.create_sealed(_draft(wanted, location))
            rows = version_digest(unit.connection, DEFAULT_WORKSPACE, wanted.name, version)
            rows_digest = self._archive.put_document(rfc8785.dumps(rows.document))
            lock = self._lock(stores, unit, wanted, experiment, files)
            known = lineage.of_product(product)
            seal = self._seal(unit, wanted, manifest, known, version, view.name, rows_digest, ticket_id)
            return Registered(seal, lock, created=True, verified=False)

    def _in_steps(
        self, stores: Stores, wanted: Wanted, manifest: Manifest, files: Inventory | None, lineage: Lineage
    ) -> Registered:
        """Say what is meant, do it in the other system, and record the outcome; a repeated call completes it."""
        governance = stores.governance
        with governance.unit() as unit:
            refuse_forged(unit.read, *_subjects(wanted))
            product = product_for(unit.read, wanted.name, wanted.product, lineage.product)
            if (there := self._made_before(unit, wanted, manifest)) is not None:
                return there
            if wanted.plan is not None:
                wanted.plan.consume(unit, stores, manifest.digest)
            experiment = self._look_again(stores, unit, wanted, None)
            facts = {"manifest_digest": manifest.digest, "model": wanted.source.uri}
            unit.append(_act("registration.intended", wanted, None, facts=facts))
        record, _ = stores.registry.create_version(_draft(wanted, wanted.source.location))
        with governance.unit() as unit:
            if (there := self._made_before(unit, wanted, manifest)) is not None:
                return there
            view_id = wanted.view_id(manifest.digest, record.version)
            view = self._archive.view(view_id, manifest, model_meta(wanted.name, record.version), sealed=False)
            self._govern_name(stores, unit, wanted, record.version)
            rows_digest = self._archive.put_document(api_document(stores, wanted.run.run_id, record))
            lock = self._lock(stores, unit, wanted, experiment, files)
            known = lineage.of_product(product)
            seal = self._seal(unit, wanted, manifest, known, record.version, view.name, rows_digest, None)
            return Registered(seal, lock, created=True, verified=False)

    def _made_before(self, unit: GovernedUnit, wanted: Wanted, manifest: Manifest) -> Registered | None:
        seal = unit.read.seal_of(DEFAULT_WORKSPACE, wanted.name, wanted.run.run_id, manifest.digest)
        if seal is None:
            return None
        return Registered(seal, unit.read.lock(seal.experiment_id), created=False, verified=False)

    def _look_again(
        self, stores: Stores, unit: GovernedUnit, wanted: Wanted, manifest: Manifest | None
    ) -> ExperimentRecord:
        """Check, now that nobody else can write, what was checked before the copy."""
        experiment = experiment_of(stores, wanted.run.experiment_id)
        run = stores.tracking.get_run(wanted.run.run_id)
        if run is None or run.deleted or run.status != "FINISHED" or run.experiment_id != experiment.experiment_id:
            raise RunNotFound(
                f"The run {wanted.run.run_id} was deleted, reopened or moved meanwhile.",
                next="end or restore it, then call register_model again.",
            )
        if unit.read.lock(experiment.experiment_id) is None:
            ended = end_others(stores, wanted.run, abandon=wanted.abandon_running)
            for run_id in ended:
                act = _act("run.abandoned", wanted, None)
                unit.append(Act(act.action, NPTA, Subject(experiment.experiment_id, run_id=run_id), act.on_behalf_of))
        if manifest is not None and wanted.source.location and _digest_now(stores, wanted) != manifest.digest:
            raise BytesChanged(
                "The model's files changed while they were copied.",
                next="wait until nothing writes to the run's artifacts, then call register_model again.",
            )
        return experiment

    def _open_ticket(self, unit: GovernedUnit, wanted: Wanted, manifest: Manifest, version: int, location: str) -> str:
        ticket_id = secrets.token_hex(16)
        row = {
            "ticket_id": ticket_id,
            "workspace": DEFAULT_WORKSPACE,
            "name": wanted.name,
            "version": version,
            "run_id": wanted.run.run_id,
            "source": location.rsplit("/", 1)[-1],
            "manifest_digest": manifest.digest,
            "requester": unit.principal(wanted.requester),
            "expires": int(time.time() * 1000) + TICKET_MS,
        }
        unit.append(_act("ticket.opened", wanted, version, rows={"ticket": [row]}))
        return ticket_id

    def _govern_name(self, stores: Stores, unit: GovernedUnit, wanted: Wanted, version: int) -> None:
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

    def _lock(
        self, stores: Stores, unit: GovernedUnit, wanted: Wanted, experiment: ExperimentRecord, files: Inventory | None
    ) -> LockRecord:
        there = unit.read.lock(experiment.experiment_id)
        if there is not None:
            return there
        folders = stores.tracking.folders(experiment.experiment_id)
        if files is None or files.folders != folders:  # unlocked a moment ago, or a run has ended since
            files = self._listed(folders)
        following = next_free_name(stores, experiment.name, unit.read.locked_names())
        rows_digest = ""
        if unit.joint:
            rows = experiment_digest(unit.connection, experiment.experiment_id)
            rows_digest = self._archive.put_document(rfc8785.dumps(rows.document))
        row = {
            "experiment_id": int(experiment.experiment_id),
            "experiment_name": experiment.name,
            "next_experiment": following,
            "rows_digest": rows_digest,
            "files_digest": files.digest,
        }
        text = {ARCHIVE: str(self._archive.root)}
        event = unit.append(_act("experiment.locked", wanted, None, rows={"experiment_lock": [row]}, text=text))
        unit.announce_lock(experiment.experiment_id)
        return LockRecord(event.seq, experiment.experiment_id, experiment.name, following, rows_digest, files.digest)

    def _seal(
        self,
        unit: GovernedUnit,
        wanted: Wanted,
        manifest: Manifest,
        lineage: Lineage,
        version: int,
        view_id: str,
        rows_digest: str,
        ticket_id: str | None,
    ) -> SealRecord:
        key = {"workspace": DEFAULT_WORKSPACE, "name": wanted.name, "version": version}
        self._archive.put_document(manifest.document)
        self._archive.put_signature(manifest.digest, manifest_statement(unit.key_in_force(), manifest.digest))
        row = {
            **key,
            "run_id": wanted.run.run_id,
            "experiment_id": int(wanted.run.experiment_id),
            "source": view_id,
            "origin": wanted.source.uri,
            "manifest_digest": manifest.digest,
            "rows_digest": rows_digest,
        }
        rows: dict[str, list[dict[str, Any]]] = {
            "seal": [row],
            "retention": [{**key, "until": int(time.time() * 1000) + RETENTION_MS, "hold": 0}],
        }
        if ticket_id is not None:
            rows["ticket_close"] = [{"ticket_id": ticket_id}]
        event = unit.append(
            _act(
                "version.registered",
                wanted,
                version,
                rows=rows,
                facts=lineage.facts
                | {"product": lineage.product, "tier": wanted.tier}
                | (wanted.plan.facts if wanted.plan else {}),
                text=lineage.text
                | {ARCHIVE: str(self._archive.root)}
                | ({"use_case": wanted.use_case} if wanted.use_case else {}),
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
            manifest_digest=manifest.digest,
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


def _draft(wanted: Wanted, location: str) -> VersionDraft:
    return VersionDraft(wanted.name, wanted.source, wanted.run.run_id, location, wanted.description, dict(wanted.tags))


def _subjects(wanted: Wanted) -> tuple[Subject, Subject]:
    return Subject(wanted.run.experiment_id), Subject(workspace=DEFAULT_WORKSPACE, name=wanted.name)


def _act(action: str, wanted: Wanted, version: int | None, **more: Any) -> Act:
    subject = Subject(
        experiment_id=wanted.run.experiment_id,
        workspace=DEFAULT_WORKSPACE,
        name=wanted.name,
        version=version,
        run_id=wanted.run.run_id,
    )
    return Act(action, NPTA, subject, wanted.requester, **more)


def _digest_now(stores: Stores, wanted: Wanted) -> str:
    manifest: Any = stores.registry.manifest(wanted.source)
    return sha256_hex(rfc8785.dumps(manifest))
