"""Sealed versions against what is there now: bytes, rows, files around them."""

import json
import os
from contextlib import suppress
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
UNCHECKED = "UNCHECKED"
ARCHIVE = "archive"
"""Where the archive lies, beside the event that sealed or locked: a path can name a person, so it stays erasable."""
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
        if all(p.code != UNCHECKED for p in problems):
            await self._store.write(lambda s: self._note(s, seal, problems))
        return not problems

    async def quarantine(self, seal: SealRecord, problems: list[Problem]) -> None:
        """Record that a sealed version is not what was sealed; every gate refuses it from then on."""
        await self._store.write(lambda s: self._note(s, seal, problems))

    async def bytes_of(self, seal: SealRecord) -> list[Problem]:
        """Return what is wrong with the sealed copy, of which every byte is read."""
        root = await self._store.read(lambda s: _archive_root(s, seal.event))
        return await anyio.to_thread.run_sync(self._bytes_of, seal, root)

    async def folder_of(self, seal: SealRecord) -> Path | None:
        """Return the folder of the sealed copy, None if no archive in reach holds it."""
        root = await self._store.read(lambda s: _archive_root(s, seal.event))

        def find() -> Path | None:
            archive = self._holder(seal.manifest_digest, root)
            return archive.view_path(seal.source) if archive is not None else None

        return await anyio.to_thread.run_sync(find)

    async def rows_of(self, seal: SealRecord, version: VersionRecord | None) -> list[Problem]:
        """Return what was changed in the registry's rows of a sealed version."""
        return await self._store.read(lambda s: self._rows_of(s, seal, version))

    async def experiment(self, lock: LockRecord) -> list[Problem]:
        """Return what was changed in a locked experiment: its rows, and the files in its artifact folders."""
        rows = await self._store.read(lambda s: self._experiment_rows(s, lock))
        local = await self._local_folders(lock.experiment_id)
        listed = await self._store.read(lambda s: _rebased(s, Subject(lock.experiment_id), "files_digest"))
        root = await self._store.read(lambda s: _archive_root(s, lock.event))

        def files() -> list[Problem]:
            where = f"experiment {lock.experiment_id}"
            document = self._document(listed or lock.files_digest, root)
            if document is None:
                return [self._gone("RECORD", "the listing of its files is gone from the archive", where, root)]
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

    def _bytes_of(self, seal: SealRecord, root: str | None) -> list[Problem]:
        where = f"{seal.name} version {seal.version}"
        archive = self._holder(seal.manifest_digest, root)
        if archive is None:
            return [self._gone("BYTES", "its manifest is gone or changed", where, root)]
        try:
            manifest = Manifest.from_document(archive.read_document(seal.manifest_digest, MAX_DOCUMENT))
            found = archive.check_view(seal.source, manifest, model_meta(seal.name, seal.version))
        except (StoreBroken, InvalidArgument) as exc:
            return [Problem(code="BYTES", what=exc.message, where=where, next=_RESTORE)]
        problems = [
            Problem(code="BYTES", what=f"{p.code}: {p.message}", where=f"{where}: {p.path}", next=_RESTORE)
            for p in found
        ]
        if not _signed(archive, seal.manifest_digest):
            problems.append(Problem(code="BYTES", what="its manifest is not signed", where=where, next=_RESTORE))
        return problems

    def _holder(self, digest: str, root: str | None) -> Archive | None:
        """Return the archive that holds a document: ours, or the one that it was put into by another account."""
        elsewhere = [Archive(Path(root))] if root is not None and root != str(self._archive.root) else []
        for archive in (self._archive, *elsewhere):
            with suppress(StoreBroken, TooLarge):
                archive.read_document(digest, MAX_DOCUMENT)
                return archive
        return None

    def _document(self, digest: str, root: str | None) -> bytes | None:
        archive = self._holder(digest, root)
        return archive.read_document(digest, MAX_DOCUMENT) if archive is not None else None

    def _gone(self, code: str, what: str, where: str, root: str | None) -> Problem:
        """Return the problem of what the archive does not give: it is gone, or out of this account's reach."""
        if root is not None and root != str(self._archive.root) and not os.access(root, os.R_OK | os.X_OK):
            return Problem(
                code=UNCHECKED,
                what="it could not be checked: this account cannot read the archive that holds it",
                where=where,
                next="check from the account that keeps the archive, or let this one read INTELLIGENTSCAN_ARCHIVE.",
            )
        return Problem(code=code, what=what, where=where, next=_RESTORE)

    def _rows_of(self, stores: Stores, seal: SealRecord, version: VersionRecord | None) -> list[Problem]:
        where = f"{seal.name} version {seal.version}"
        if version is None:
            return [Problem(code="ROWS", what="the version is gone from the registry", where=where, next=_ROWS)]
        subject = Subject(None, seal.workspace, seal.name, seal.version)
        root = _archive_root(stores, seal.event)
        document = self._document(_rebased(stores, subject, "rows_digest") or seal.rows_digest, root)
        if document is None:
            return [self._gone("RECORD", "its row digests are gone from the archive", where, root)]
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
        root = _archive_root(stores, lock.event)
        document = self._document(rebased or lock.rows_digest, root)
        if document is None:
            return [self._gone("RECORD", "its row digests are gone from the archive", where, root)]
        with stores.governance.reading() as read:
            found = compare(read.connection, json.loads(document))
        return [
            Problem(code="ROWS", what=f"{d.table}: {untrusted(d.kind, 200)}", where=where, next=_ROWS) for d in found
        ]


def _signed(archive: Archive, digest: str) -> bool:
    statement = archive.read_signature(digest)
    try:
        said: dict[str, Any] = json.loads(statement or b"{}")
        return said["manifest_digest"] == digest and verify(
            said["public"], said["signature"], _DOMAIN + bytes.fromhex(digest)
        )
    except (ValueError, KeyError, TypeError):
        return False


def _archive_root(stores: Stores, event: int) -> str | None:
    with stores.governance.reading() as read:
        return read.text_of(event, ARCHIVE)


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
