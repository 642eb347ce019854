"""Attestations: somebody vouches for a criterion of an open review, by a text or a document."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import anyio.to_thread

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import InvalidArgument, TooLarge
from intelligentscan.domain.text import untrusted
from intelligentscan.services import review_rules as rules
from intelligentscan.services.denials import Denials
from intelligentscan.services.review_acts import act_of, look, named, reviewer, subject_of
from intelligentscan.services.review_evidence import MAX_TEXT, checked_criterion
from intelligentscan.services.review_find import Found
from intelligentscan.services.review_signing import Signing
from intelligentscan.services.review_state import ATTESTED
from intelligentscan.services.rights import require
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.governance.canonical import canonical
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE
from intelligentscan.stores.interface import Stores

MAX_FILE = 20 * 2**20
_FORMAT = "intelligentscan.attestation.v1"


@dataclass(frozen=True, slots=True)
class _Attestation:
    """What somebody vouches for: the document that is signed, and what of it is told."""

    criterion: str
    document: bytes
    text: str | None
    file: str | None


class Attestations:
    """Attests on one store."""

    def __init__(self, store: StoreAccess, archive: Archive, denials: Denials, clock: Callable[[], int]) -> None:
        self._store = store
        self._archive = archive
        self._denials = denials
        self._clock = clock

    async def attest(self, text: str, criterion: str, said: str | None, file: bytes | None, signing: Signing) -> str:
        """Vouch for a criterion; return the id of the review."""
        wanted = checked_criterion(criterion)
        found = await self._store.read(lambda s: named(s, text, decisions=False))
        attested = _attestation(found.review_id, wanted, said, file)
        async with self._denials.noting("review attest", subject_of(found)):
            if file is not None:
                await anyio.to_thread.run_sync(self._archive.put_document, file)
            await anyio.to_thread.run_sync(self._archive.put_document, attested.document)
            await self._store.write(lambda s: self._attested(s, found, attested, signing))
        return found.review_id

    def _attested(self, stores: Stores, found: Found, attested: _Attestation, signing: Signing) -> None:
        with stores.governance.unit() as unit:
            unit.hold_name(DEFAULT_WORKSPACE, found.name)
            here = look(unit.read, found, self._clock())
            rules.require_open(here.review)
            who = reviewer(unit.read, attested.document, signing, found.review_id, "approve")
            require(unit.read, "attest", unit.read.product_of(DEFAULT_WORKSPACE, found.name), who.principal)
            row = {
                "review_id": found.review_id,
                "workspace": DEFAULT_WORKSPACE,
                "name": found.name,
                "version": found.version,
                "criterion": attested.criterion,
                "person": unit.principal(who.principal),
                "proof": who.proof,
                "digest": sha256_hex(attested.document),
            }
            facts = {"review": found.review_id, "criterion": attested.criterion, "fingerprint": who.fingerprint}
            facts |= {"file": attested.file, "signature": who.signature}
            text = {"attestation": attested.text} if attested.text is not None else {}
            unit.append(act_of(ATTESTED, here, who, facts, {"attestation": [row]}, text))


def _attestation(review_id: str, criterion: str, said: str | None, file: bytes | None) -> _Attestation:
    if (said is None) == (file is None) or (said is not None and not said.strip()):
        raise InvalidArgument("An attestation is a text or a file.", next="give one of --text and --file.")
    if said is not None and len(said) > MAX_TEXT:
        raise TooLarge(f"The text has {len(said):,} characters; the most is {MAX_TEXT:,}.", next="attest it by --file.")
    if file is not None and len(file) > MAX_FILE:
        raise TooLarge(f"The file has more than {MAX_FILE:,} bytes.", next="attest a smaller document that names it.")
    text = untrusted(said.strip(), MAX_TEXT) if said is not None else None
    digest = sha256_hex(file) if file is not None else None
    # Without the nonce, a short text could be guessed from its digest after it was erased.
    document = canonical(
        {
            "format": _FORMAT,
            "review_id": review_id,
            "criterion": criterion,
            "nonce": secrets.token_hex(16),
            "text": text,
            "file": {"sha256": digest, "size": len(file)} if file is not None else None,
        }
    )
    return _Attestation(criterion, document, text, digest)
