"""Registering as the service identity: ticket, copy, lock, sealed version and trail, as a whole or not at all.

The bytes are copied first, outside any transaction. Then one transaction takes the exclusive hold on the
experiment, looks at everything again, and makes the version, the lock and the seal together with the
entries of the trail. The ticket that lets the version past the guards is opened and closed in it, so
nobody else ever sees it open. Killed before the commit, nothing but unused bytes is left, and the same
call uses them again; killed after it, the sealed copy is hashed again before anybody relies on it.
Where the registry lies in another system, intent, act and outcome are three steps instead of one, and the
same call completes them.
"""

from dataclasses import dataclass
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
from intelligentscan.services.artifact_folders import list_folders
from intelligentscan.services.drift import refuse_forged
from intelligentscan.services.lineage import Lineage, lineage_of
from intelligentscan.services.locks import locks_of
from intelligentscan.services.registration_checks import (
    end_others,
    experiment_of,
    next_free_name,
    others_left,
    product_for,
)
from intelligentscan.services.registration_record import (
    Wanted,
    act_of,
    draft_of,
    govern_name,
    open_ticket,
    seal_version,
    subjects_of,
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
    SealRecord,
    Subject,
)
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import (
    ExperimentRecord,
    RunFolder,
    RunRecord,
    Stores,
)
from intelligentscan.stores.mlflow_unit import UnitBroken
from intelligentscan.stores.row_digests import experiment_digest, version_digest

MAX_BYTES = 20 * 2**30
MAX_FILES = 20_000
_LEFTOVER_S = 86_400.0


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

    async def preview(
        self, name: str, run: RunRecord, product: str | None, *, abandon: bool
    ) -> tuple[LockRecord | None, str, str | None]:
        """Return the lock that is there already, the experiment that would follow, and the product.

        Raises:
            DefaultExperiment, StillRunning, NotPermitted: as `register` would.
        """

        def look(stores: Stores) -> tuple[LockRecord | None, str, str | None]:
            experiment = experiment_of(stores, run.experiment_id)
            lock, owner = None, product
            if stores.governance.joint or stores.governance.installed():
                with stores.governance.reading() as read:
                    lock = read.lock(experiment.experiment_id)
                    owner = product_for(read, name, product, lineage_of(stores, run).product)
            if lock is None:
                others_left(stores, run, abandon=abandon)
            return lock, lock.next_experiment if lock else next_free_name(stores, experiment.name, set()), owner

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
            refuse_forged(unit.read, *subjects_of(wanted))
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
            ticket_id = open_ticket(unit, wanted, manifest.digest, version, location)
            govern_name(stores, unit, wanted, version)
            stores.registry.create_sealed(draft_of(wanted, location))
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
            refuse_forged(unit.read, *subjects_of(wanted))
            product = product_for(unit.read, wanted.name, wanted.product, lineage.product)
            if (there := self._made_before(unit, wanted, manifest)) is not None:
                return there
            if wanted.plan is not None:
                wanted.plan.consume(unit, stores, manifest.digest)
            experiment = self._look_again(stores, unit, wanted, None)
            facts = {"manifest_digest": manifest.digest, "model": wanted.source.uri}
            unit.append(act_of("registration.intended", wanted, None, facts=facts))
        record, _ = stores.registry.create_version(draft_of(wanted, wanted.source.location))
        with governance.unit() as unit:
            if (there := self._made_before(unit, wanted, manifest)) is not None:
                return there
            view_id = wanted.view_id(manifest.digest, record.version)
            view = self._archive.view(view_id, manifest, model_meta(wanted.name, record.version), sealed=False)
            govern_name(stores, unit, wanted, record.version)
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
                act = act_of("run.abandoned", wanted, None)
                unit.append(Act(act.action, NPTA, Subject(experiment.experiment_id, run_id=run_id), act.on_behalf_of))
        if manifest is not None and wanted.source.location and _digest_now(stores, wanted) != manifest.digest:
            raise BytesChanged(
                "The model's files changed while they were copied.",
                next="wait until nothing writes to the run's artifacts, then call register_model again.",
            )
        return experiment

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
        self._archive.put_document(manifest.document)
        self._archive.put_signature(manifest.digest, manifest_statement(unit.key_in_force(), manifest.digest))
        archive = str(self._archive.root)
        return seal_version(unit, wanted, manifest.digest, archive, lineage, version, view_id, rows_digest, ticket_id)

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
        event = unit.append(act_of("experiment.locked", wanted, None, rows={"experiment_lock": [row]}, text=text))
        unit.announce_lock(experiment.experiment_id)
        return LockRecord(event.seq, experiment.experiment_id, experiment.name, following, rows_digest, files.digest)


def _digest_now(stores: Stores, wanted: Wanted) -> str:
    manifest: Any = stores.registry.manifest(wanted.source)
    return sha256_hex(rfc8785.dumps(manifest))
