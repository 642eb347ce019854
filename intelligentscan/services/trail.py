"""The audit trail: verified, exported, checkpointed, and the keys that sign it."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import anyio.to_thread

from intelligentscan._public_keys import public_document, read_trusted, trusted_keys
from intelligentscan._signing import fingerprint
from intelligentscan.domain.audit import CheckpointResult, KeyList, KeyRotation, TrailKey, TrailProblem, TrailReport
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import IntelligentScanError, InvalidArgument, NotFound
from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.text import untrusted
from intelligentscan.services.principal import person
from intelligentscan.services.rights import require
from intelligentscan.settings import Settings
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.chain import EventRecord
from intelligentscan.stores.governance.checkpoint import (
    Checkpoint,
    checkpoint_place,
    latest_checkpoint,
    read_checkpoint,
    signed_checkpoint,
    write_checkpoint,
)
from intelligentscan.stores.governance.export import read_export, stored_events, write_export
from intelligentscan.stores.governance.key_events import KEY_ROTATED, rotation_body
from intelligentscan.stores.governance.records import Act
from intelligentscan.stores.governance.report import ChainReport, KeyValidity, RowReport, Unreadable, VerifiedPrefix
from intelligentscan.stores.governance.row_check import verify_rows
from intelligentscan.stores.governance.verify import verify_chain
from intelligentscan.stores.interface import Stores

EventsSince = Callable[[int], Iterable[EventRecord | Unreadable]]
NO_CHECKPOINT = "advisory: no external checkpoint; a cut or rolled back trail shows only against one (audit checkpoint)"
_OWN_CHECKPOINT = "the folder of checkpoints can be altered by this account: advisory"


class TrailService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._prefix: VerifiedPrefix | None = None
        self._matched: Checkpoint | None = None

    async def verify(
        self,
        *,
        log: Path | None = None,
        checkpoint: Path | None = None,
        trust: Iterable[str] = (),
        full: bool = True,
    ) -> TrailReport:
        """Check the whole trail, that of the store or an exported one.

        Args:
            log: an exported trail to check instead of the store's; needs no store.
            checkpoint: a signed state that was kept elsewhere; the newest of INTELLIGENTSCAN_CHECKPOINT_DIR if None.
            trust: keys that the auditor knows: ids, or files that hold public keys.
            full: check each signature, not only those that vouch for the rest.

        Raises:
            InvalidArgument: a file is not what it should be.
        """
        named = frozenset(key for each in trust for key in _trusted(each))
        known = self._checkpoint(checkpoint)
        trusted = named or None
        if log is not None:
            report = await anyio.to_thread.run_sync(
                lambda: verify_chain(read_export(log), trusted=trusted, checkpoint=known, full_signatures=full)
            )
            return _report(report, None, known, self._place_notes(known, checkpoint))

        def check(stores: Stores) -> tuple[ChainReport, RowReport]:
            if not stores.governance.installed():
                raise NotFound("This store has no audit trail.", next="'intelligentscan adopt' begins one.")
            with stores.governance.reading() as read:
                events = stored_events(read.connection, read.tables)
                report = verify_chain(events, trusted=trusted, checkpoint=known, full_signatures=full)
                return report, verify_rows(read.connection, read.tables)

        report, rows = await anyio.to_thread.run_sync(lambda: self._store.call_blocking(check))
        return _report(report, rows, known, self._place_notes(known, checkpoint))

    async def problems(self, *, whole: bool) -> list[Problem]:
        """Return what is wrong with the trail.

        Args:
            whole: read all of it, and compare every row of the record with it; else only what is new since the last
                look.
        """
        known = self._checkpoint(None)

        def check(stores: Stores) -> list[Problem]:
            if whole:
                self._prefix = None  # an earlier entry may have been changed since
            with stores.governance.reading() as read:
                report = self._checked(lambda since: stored_events(read.connection, read.tables, since=since), known)
                rows = verify_rows(read.connection, read.tables).problems if whole else ()
                return [
                    Problem(
                        code=code,
                        what=f"{p.code}: {p.message}",
                        where=f"event {p.seq}" if p.seq is not None else None,
                        next="run 'intelligentscan audit verify'; restore the store from a backup.",
                    )
                    for code, found in (("CHAIN", report.problems), ("RECORD", rows))
                    for p in found
                ]

        return await self._store.read(check)

    def _checked(self, events: EventsSince, known: Checkpoint | None) -> ChainReport:
        """Verify from where the last check ended; all over again if that does not hold."""
        if self._prefix is not None and known == self._matched:
            report = verify_chain(events(self._prefix.seq), after=self._prefix, full_signatures=False)
            if report.ok:
                self._prefix = report.prefix or self._prefix
                return report
        report = verify_chain(events(1), checkpoint=known, full_signatures=False)
        self._prefix, self._matched = report.prefix, known
        return report

    async def export(self, path: Path) -> int:
        """Write the whole trail to a file of JSON Lines, which `audit verify --log` checks anywhere; return its length.

        Raises:
            InvalidArgument: the file cannot be written, or is there.
        """

        def write(stores: Stores, stream: IO[bytes]) -> int:
            with stores.governance.reading() as read:
                return write_export(stored_events(read.connection, read.tables), stream)

        def export() -> int:
            with _new_file(path) as stream:
                return self._store.call_blocking(lambda stores: write(stores, stream))

        try:
            return await anyio.to_thread.run_sync(export)
        except OSError as exc:
            raise InvalidArgument(
                f"The trail cannot be written to {untrusted(str(path), 200)}: {exc.strerror}.",
                next="name a new file in a folder of yours.",
            ) from exc

    async def checkpoint(self, folder: Path | None = None) -> CheckpointResult:
        """Sign the present state of the trail and keep it in a folder, best one that another account owns.

        Raises:
            InvalidArgument: no folder is set, or it cannot be written.
        """
        place = folder or self._settings.checkpoint_dir
        if place is None:
            raise InvalidArgument(
                "There is no folder for checkpoints.",
                next="name one with --output, or set INTELLIGENTSCAN_CHECKPOINT_DIR to one that another account owns.",
            )

        def sign(stores: Stores) -> Checkpoint:
            with stores.governance.unit() as unit:
                key, head = unit.key_in_force(), unit.head()
                return signed_checkpoint(key, seq=head.seq, hash=head.hash, at=int(time.time() * 1000))

        made = await self._store.write(sign)
        path = await anyio.to_thread.run_sync(write_checkpoint, place, made)
        notes = [f"{_OWN_CHECKPOINT}."] if checkpoint_place(place).alterable else []
        return CheckpointResult(
            path=str(path), seq=made.seq, hash=made.hash, at=rfc3339(made.at) or "", key_id=made.key_id, notes=notes
        )

    async def checkpoint_if_set(self) -> str | None:
        """Keep a checkpoint where INTELLIGENTSCAN_CHECKPOINT_DIR says; return what went wrong, if something did.

        An act that was done is not undone because its checkpoint could not be written.
        """
        if self._settings.checkpoint_dir is None:
            return None
        try:
            await self.checkpoint()
        except IntelligentScanError as error:
            return f"No checkpoint was written: {error.message}"
        return None

    async def keys(self) -> KeyList:
        """Return the keys that signed the trail, and whether this account has the one in force."""

        def look(stores: Stores) -> tuple[ChainReport, str | None, bool]:
            governance = stores.governance
            if not governance.installed():
                return verify_chain([]), None, False
            with governance.reading() as read:
                report = verify_chain(stored_events(read.connection, read.tables), full_signatures=False)
                key_id = read.key_in_force()
            return report, key_id, key_id is not None and governance.keys.can_read(key_id)

        report, key_id, readable = await self._store.read(look)
        return KeyList(
            keys=[_key(k) for k in report.keys],
            in_force=key_id,
            readable=readable,
            folder=str(self._settings.keys_folder),
        )

    async def public_keys(self) -> str:
        """Return the public keys of the trail as the document that `--trust` reads."""
        return public_document(key.public for key in (await self.keys()).keys)

    async def rotate(self) -> KeyRotation:
        """Bring a new key into force; the old one signs that, and the new one countersigns."""

        def act(stores: Stores) -> KeyRotation:
            with stores.governance.unit() as unit:
                require(unit.read, "administer", None)
                old, head = unit.key_in_force(), unit.head()
                new = stores.governance.keys.create()
                body = rotation_body(old, new, head.hash)
                event = unit.append(Act(KEY_ROTATED, person(), facts=body["facts"], rows=body["rows"]))
                unit.rotated(new)
                return KeyRotation(old=old.key_id, new=new.key_id, event=event.seq, at=rfc3339(event.at) or "")

        return await self._store.write(act)

    def _checkpoint(self, path: Path | None) -> Checkpoint | None:
        if path is not None:
            return read_checkpoint(path)
        folder = self._settings.checkpoint_dir
        return latest_checkpoint(folder) if folder is not None else None

    def _place_notes(self, known: Checkpoint | None, given: Path | None) -> list[str]:
        if known is None:
            return [f"{NO_CHECKPOINT}."]
        folder = self._settings.checkpoint_dir
        if given is None and folder is not None and checkpoint_place(folder).alterable:
            return [f"{_OWN_CHECKPOINT}."]
        return []


def _trusted(text: str) -> frozenset[str]:
    """Return the ids that an argument of `--trust` names: a file of public keys, or a key itself."""
    path = Path(text).expanduser()
    return read_trusted(path) if path.is_file() else trusted_keys(text)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that is not there yet, and remove it if writing fails: half a trail would not verify."""
    with path.open("xb") as stream:
        try:
            yield stream
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _report(report: ChainReport, rows: RowReport | None, known: Checkpoint | None, notes: list[str]) -> TrailReport:
    found = [*report.problems, *(rows.problems if rows else ())]
    count = report.problem_count + (rows.problem_count if rows else 0)
    if report.trusted == "unknown" and not count:
        notes = [*notes, "nobody vouches for the signer: name a key that you know with --trust."]
    return TrailReport(
        verdict=report.verdict if not count else "does not verify",
        ok=not count,
        trusted=report.trusted,
        events=report.events,
        last=report.last,
        head_hash=report.head_hash,
        checkpoint=report.checkpoint,
        keys=[_key(k) for k in report.keys],
        problems=[TrailProblem(seq=p.seq, code=p.code, message=p.message) for p in found],
        problems_total=count,
        notes=notes,
    )


def _key(key: KeyValidity) -> TrailKey:
    return TrailKey(
        key_id=key.key_id, fingerprint=fingerprint(key.key_id), public=key.public, first=key.first, last=key.last
    )
