"""Sealed versions against what is there now: bytes, rows, files around them."""

import json
from pathlib import Path
from typing import Any

import anyio.to_thread
import rfc8785

from intelligentscan._signing import SigningKey, verify
from intelligentscan.domain.errors import InvalidArgument, StoreBroken, TooLarge
from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.text import untrusted
from intelligentscan.services.artifact_folders import compare_folders, list_folders
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.archive_manifest import Manifest
from intelligentscan.stores.archive_view import model_meta
from intelligentscan.stores.governance.records import NPTA, Act, LockRecord, SealRecord, Subject
from intelligentscan.stores.interface import Stores, VersionRecord
from intelligentscan.stores.row_digests import compare, experiment_digest

VERIFIED = "seal.verified"
QUARANTINED = "version.quarantined"
REBASED = "rows.recorded"
"""What rows and files are compared with from then on: after a schema upgrade, or accepted by an administrator."""
MAX_DOCUMENT = 512 * 2**20
_DOMAIN = b"intelligentscan.manifest.v1\0"
_RESTORE = "restore the archive from a backup, or register the run again under the same name."


def manifest_statement(key: SigningKey, digest: str) -> bytes:
    """Return the signed statement that belongs to a manifest in the archive."""
    return rfc8785.dumps(
        {
            "format": "intelligentscan.manifest.v1",
            "manifest_digest": digest,
            "key_id": key.key_id,
            "public": key.public,
            "signature": key.sign(_DOMAIN + bytes.fromhex(digest)),
        }
    )


class SealChecks:
    """Compares sealed versions with the archive and with the registry.

    Args:
        store: the stores.
        archive: where the sealed bytes are.
    """

    def __init__(self, store: StoreAccess, archive: Archive) -> None:
        self._store = store
        self._archive = archive

    async def ensure_verified(self, seal: SealRecord) -> bool:
        """Hash a new sealed copy once after its registration; tell whether it is in order.

        A copy that differs is put into quarantine for good.
        """

        def state(stores: Stores) -> tuple[bool, bool]:
            with stores.governance.reading() as read:
                key = (seal.workspace, seal.name)
                return (
                    read.has_event(VERIFIED, *key, seal.version),
                    seal.version in read.quarantined(*key),
                )

        verified, quarantined = await self._store.read(state)
        if verified or quarantined:
            return not quarantined
        problems = await self.bytes_of(seal)
        await self._store.write(lambda s: self._note(s, seal, problems))
        return not problems

    async def quarantine(self, seal: SealRecord, problems: list[Problem]) -> None:
        """Record that a sealed version is not what was sealed; every gate refuses it from then on."""
        await self._store.write(lambda s: self._note(s, seal, problems))

    async def bytes_of(self, seal: SealRecord) -> list[Problem]:
        """Return what is wrong with the sealed copy, of which every byte is read."""
        return await anyio.to_thread.run_sync(self._bytes_of, seal)

    async def rows_of(self, seal: SealRecord, version: VersionRecord | None) -> list[Problem]:
        """Return what was changed in the registry's rows of a sealed version."""
        return await self._store.read(lambda s: self._rows_of(s, seal, version))

    async def experiment(self, lock: LockRecord) -> list[Problem]:
        """Return what was changed in a locked experiment: its rows, and the files in its artifact folders."""
        rows = await self._store.read(lambda s: self._experiment_rows(s, lock))
        local = await self._local_folders(lock.experiment_id)
        listed = await self._store.read(lambda s: _rebased(s, Subject(lock.experiment_id), "files_digest"))

        def files() -> list[Problem]:
            where = f"experiment {lock.experiment_id}"
            document = self._document(listed or lock.files_digest)
            if document is None:
                return [Problem(code="RECORD", what="the listing of its files is gone from the archive", where=where)]
            return compare_folders(self._archive, document, local, where)

        return rows + await anyio.to_thread.run_sync(files)

    async def as_it_is(self, experiment_id: str) -> dict[str, str]:
        """Put what an experiment holds now into the archive; return the digests, to be recorded by an administrator."""
        local = await self._local_folders(experiment_id)
        files = await anyio.to_thread.run_sync(lambda: self._archive.put_document(list_folders(self._archive, local)))

        def rows(stores: Stores) -> str:
            with stores.governance.reading() as read:
                document = experiment_digest(read.connection, experiment_id).document
            return self._archive.put_document(rfc8785.dumps(document))

        joint = await self._store.read(lambda s: s.governance.joint)
        return {"files_digest": files} | ({"rows_digest": await self._store.read(rows)} if joint else {})

    async def _local_folders(self, experiment_id: str) -> dict[str, Path]:
        folders = await self._store.read(lambda s: s.tracking.folders(experiment_id))
        return {f.label: f.folder for f in folders if f.folder is not None}

    def _note(self, stores: Stores, seal: SealRecord, problems: list[Problem]) -> None:
        key = {"workspace": seal.workspace, "name": seal.name, "version": seal.version}
        subject = Subject(seal.experiment_id, **key, run_id=seal.run_id)  # type: ignore[arg-type]
        with stores.governance.unit() as unit:
            if seal.version in unit.read.quarantined(seal.workspace, seal.name):
                return
            if problems:
                found = [{"code": p.code, "where": p.where, "what": p.what} for p in problems[:20]]
                unit.append(Act(QUARANTINED, NPTA, subject, facts={"problems": found}, rows={"quarantine": [key]}))
            elif not unit.read.has_event(VERIFIED, seal.workspace, seal.name, seal.version):
                unit.append(Act(VERIFIED, NPTA, subject, facts={"manifest_digest": seal.manifest_digest}))

    def _bytes_of(self, seal: SealRecord) -> list[Problem]:
        where = f"{seal.name} version {seal.version}"
        document = self._document(seal.manifest_digest)
        if document is None:
            return [Problem(code="BYTES", what="its manifest is gone or changed", where=where, next=_RESTORE)]
        try:
            manifest, view_id = Manifest.from_document(document), seal.source.rsplit("/", 1)[-1]
            found = self._archive.check_view(view_id, manifest, model_meta(seal.name, seal.version))
        except (StoreBroken, InvalidArgument) as exc:
            return [Problem(code="BYTES", what=exc.message, where=where, next=_RESTORE)]
        problems = [
            Problem(code="BYTES", what=f"{p.code}: {p.message}", where=f"{where}: {p.path}", next=_RESTORE)
            for p in found
        ]
        if not self._signed(seal.manifest_digest):
            problems.append(Problem(code="BYTES", what="its manifest is not signed", where=where, next=_RESTORE))
        return problems

    def _document(self, digest: str) -> bytes | None:
        try:
            return self._archive.read_document(digest, MAX_DOCUMENT)
        except (StoreBroken, TooLarge):
            return None

    def _signed(self, digest: str) -> bool:
        statement = self._archive.read_signature(digest)
        try:
            said: dict[str, Any] = json.loads(statement or b"{}")
            return said["manifest_digest"] == digest and verify(
                said["public"], said["signature"], _DOMAIN + bytes.fromhex(digest)
            )
        except (ValueError, KeyError, TypeError):
            return False

    def _rows_of(self, stores: Stores, seal: SealRecord, version: VersionRecord | None) -> list[Problem]:
        where = f"{seal.name} version {seal.version}"
        if version is None:
            return [Problem(code="ROWS", what="the version is gone from the registry", where=where, next=_ROWS)]
        subject = Subject(None, seal.workspace, seal.name, seal.version)
        document = self._document(_rebased(stores, subject, "rows_digest") or seal.rows_digest)
        if document is None:
            return [Problem(code="RECORD", what="its row digests are gone from the archive", where=where)]
        said = json.loads(document)
        if said.get("kind") == "api":
            same = api_document(stores, seal.run_id, version) == document
            return [] if same else [Problem(code="ROWS", what="run or version changed", where=where, next=_ROWS)]
        with stores.governance.reading() as read:
            found = compare(read.connection, said)
        return [
            Problem(code="ROWS", what=f"{d.table}: {untrusted(d.kind, 200)}", where=where, next=_ROWS) for d in found
        ]

    def _experiment_rows(self, stores: Stores, lock: LockRecord) -> list[Problem]:
        if not lock.rows_digest:
            return []
        where = f"experiment {lock.experiment_id}"
        rebased = _rebased(stores, Subject(lock.experiment_id), "rows_digest")
        document = self._document(rebased or lock.rows_digest)
        if document is None:
            return [Problem(code="RECORD", what="its row digests are gone from the archive", where=where)]
        with stores.governance.reading() as read:
            found = compare(read.connection, json.loads(document))
        return [
            Problem(code="ROWS", what=f"{d.table}: {untrusted(d.kind, 200)}", where=where, next=_ROWS) for d in found
        ]


def _rebased(stores: Stores, subject: Subject, fact: str) -> str | None:
    with stores.governance.reading() as read:
        return read.last_fact(REBASED, fact, subject)


def api_document(stores: Stores, run_id: str, version: VersionRecord) -> bytes:
    """Return what a server says about a sealed version and its run, to compare with what it says later."""
    run = stores.tracking.get_run(run_id)
    tags = {k: v for k, v in run.tags.items() if not k.startswith("mlflow.modelVersions")} if run else {}
    return rfc8785.dumps(
        {
            "kind": "api",
            "run": {
                "params": run.params,
                "metrics": {k: repr(v) for k, v in run.metrics.items()},
                "tags": tags,
                "status": run.status,
            }
            if run
            else None,
            "version": {
                "source": version.source,
                "run_id": version.run_id,
                "description": version.description,
                "tags": version.tags,
            },
        }
    )


_ROWS = "find out who has direct access to the database; restore it from a backup if the change matters."
