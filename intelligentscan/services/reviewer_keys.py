"""Keys of reviewers: enrolled with proof that their owner has them, retired for good, one person's each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import rfc8785

from intelligentscan._ssh_signature import as_openssh_shows, fingerprint, fingerprint_from, public_key, verify_sshsig
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import InvalidArgument, NotFound, NotPermitted, Refused, SignatureInvalid
from intelligentscan.domain.people import KnownAs, ReviewerKey
from intelligentscan.domain.text import untrusted
from intelligentscan.services import identities, rights
from intelligentscan.services.locks import checked_reason
from intelligentscan.services.principal import person
from intelligentscan.services.rights import grant_command
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, Principal, Subject
from intelligentscan.stores.governance.vouched import VouchedRow, vouched
from intelligentscan.stores.interface import Stores

ENROLLED = "reviewer_key.enrolled"
RETIRED = "reviewer_key.retired"
NAMESPACE = "intelligentscan.enrol"
"""What a signature is for that proves the possession of a key."""


class ActiveKey(NamedTuple):
    """Whose signatures an enrolled key makes."""

    person: str
    public: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A key whose owner has proved to have it."""

    who: str
    known_as: KnownAs | None
    public: str
    fingerprint: str


def statement(who: str, digest: str) -> bytes:
    """Return what the owner of a key signs to enrol it: canonical JSON, without a line end."""
    return rfc8785.dumps({"enrol": who, "fingerprint": digest})


def active_key(read: GovernanceReads, digest: str) -> ActiveKey | None:
    """Return whose signatures a key makes now; None if it was never enrolled, was retired, or names nobody any more.

    Args:
        read: open on the governance database.
        digest: fingerprint of the key, as `fingerprint` returns it.
    """
    rows = _rows(read, {"fingerprint": digest})
    if not rows or not rows[-1]["active"]:
        return None
    row = rows[-1]
    if read.principal_of(row["person"]) is None:
        return None
    return ActiveKey(row["person"], row["public"])


def offer(who: str, public_key_text: str, proof: str | None, known_as: KnownAs | None) -> Offer:
    """Return a key with its proof checked.

    Raises:
        InvalidArgument: the name or the key cannot be.
        SignatureInvalid: there is no proof, or it does not fit.
    """
    name, public = identities.person_name(who), public_key(public_key_text)
    digest = fingerprint(public)
    if proof is None or not verify_sshsig(public, NAMESPACE, statement(name, digest), proof):
        said = "There is no proof" if proof is None else "The signature does not prove"
        raise SignatureInvalid(
            f"{said} that the owner of the key {as_openssh_shows(digest)} agrees to be known as "
            f"'{untrusted(name, 80)}'.",
            next="call 'intelligentscan review enrol' with --key and the private key's file; or with --public alone, "
            "which prints what to sign.",
        )
    return Offer(name, known_as, public, digest)


def enrol(stores: Stores, offered: Offer) -> ReviewerKey:
    """Enrol a key.

    Raises:
        NotPermitted: who asks may not enrol it.
        Refused: the key is another person's, or was retired.
    """
    with stores.governance.unit() as unit:
        who = identities.whose_key(unit.read, offered.who, offered.known_as)
        _refuse_unless_own(unit.read, who, own_too=False)
        principal_id = unit.principal(who)
        before = _rows(unit.read, {"fingerprint": offered.fingerprint})
        if before:
            _refuse_used(before[-1], principal_id)
            return _key(before, unit.read)
        row = {"fingerprint": offered.fingerprint, "person": principal_id, "public": offered.public, "active": 1}
        event = unit.append(_act(ENROLLED, row, None))
        return ReviewerKey(
            fingerprint=offered.fingerprint,
            person=untrusted(who.name, 100),
            known_as=identities.known_as(who),
            public=offered.public,
            active=True,
            since=rfc3339(event.at) or "",
            event=event.seq,
        )


def retire(stores: Stores, text: str, reason: str | None, *, compromised: bool = False) -> ReviewerKey:
    """Retire a key; if somebody else may have had it, what it approved counts no more either.

    Raises:
        NotPermitted: who asks may not retire it.
        NotFound: no such key is enrolled.
    """
    because = checked_reason(reason, "retire a key")
    digest = fingerprint_from(text)
    if digest is None:
        raise InvalidArgument(
            f"'{untrusted(text, 80)}' is no fingerprint of a key.",
            next="give the one that 'intelligentscan review keys' shows.",
        )
    with stores.governance.unit() as unit:
        rows = _rows(unit.read, {"fingerprint": digest})
        if not rows:
            raise NotFound(
                f"No key {as_openssh_shows(digest)} is enrolled.", next="'intelligentscan review keys' shows which are."
            )
        last = rows[-1]
        who = unit.read.principal_of(last["person"]) or Principal("person", last["person"])
        _refuse_unless_own(unit.read, who, own_too=True)
        if last["active"] or (compromised and not is_compromised(rows)):
            row = {column: last[column] for column in ("fingerprint", "person", "public")} | {"active": 0}
            unit.append(_act(RETIRED, row, because, {"compromised": True} if compromised else {}))
        return _key(_rows(unit.read, {"fingerprint": digest}), unit.read)


def is_compromised(rows: Iterable[VouchedRow]) -> bool:
    """Tell whether a key was retired because somebody else may have had it."""
    return any(row.facts.get("compromised") is True for row in rows)


def keys(stores: Stores) -> list[ReviewerKey]:
    """Return every key that was ever enrolled, in that order."""
    if not stores.governance.installed():
        return []
    with stores.governance.reading() as read:
        by_key: dict[str, list[VouchedRow]] = {}
        for row in _rows(read, {}):
            by_key.setdefault(row["fingerprint"], []).append(row)
        return [_key(rows, read) for rows in by_key.values()]


def _rows(read: GovernanceReads, match: dict[str, object]) -> tuple[VouchedRow, ...]:
    return vouched(read, "reviewer_key", match, actions=(ENROLLED, RETIRED)).rows


def _refuse_unless_own(read: GovernanceReads, who: Principal, *, own_too: bool) -> None:
    """Let administrators go on; and, as long as there is none or if `own_too`, everybody with their own key.

    Raises:
        NotPermitted: it is somebody else's key.
    """
    me = person()
    if rights.enforced(read):
        if not (own_too and who == me):
            rights.require(read, "administer", None)
    elif who != me:
        raise NotPermitted(
            "As long as nobody is administrator, everybody can only enrol and retire keys of their own account.",
            next=f"become the first administrator: '{grant_command('administrator', me, None)}'; or enrol the key for "
            f"{untrusted(me.name, 80)}.",
        )


def _refuse_used(before: VouchedRow, principal_id: str) -> None:
    """Refuse a key that is somebody else's, or was retired.

    Raises:
        Refused: says which of the two.
    """
    if before["person"] != principal_id:
        raise Refused(
            f"This key is enrolled for somebody else (event {before.event}); a key is one person's, whatever accounts "
            "they have.",
            next="give the roles to the person who has it ('intelligentscan review keys' shows them); or make another "
            "key for another person: ssh-keygen -t ed25519.",
            details={"event": before.event},
        )
    if not before["active"]:
        raise Refused(
            f"This key was retired (event {before.event}) and cannot come back.",
            next="make a new one: ssh-keygen -t ed25519.",
            details={"event": before.event},
        )


def _act(
    action: str, row: dict[str, Any], reason: str | None, facts: Mapping[str, object] = MappingProxyType({})
) -> Act:
    return Act(
        action,
        person(),
        Subject(workspace=DEFAULT_WORKSPACE),
        facts={"fingerprint": row["fingerprint"], "person": row["person"], **facts},
        rows={"reviewer_key": [row]},
        text={"reason": reason} if reason else {},
    )


def _key(rows: Sequence[VouchedRow], read: GovernanceReads) -> ReviewerKey:
    first, last = rows[0], rows[-1]
    who = _named(read, (first, last))
    return ReviewerKey(
        fingerprint=last["fingerprint"],
        person=untrusted(who.name, 100) if who else last["person"],
        known_as=identities.known_as(who) if who else None,
        public=last["public"],
        active=bool(last["active"]),
        compromised=is_compromised(rows),
        since=rfc3339(first.at) or "",
        event=last.event,
    )


def _named(read: GovernanceReads, rows: Iterable[VouchedRow]) -> Principal | None:
    return next(iter(read.principals(row["person"] for row in rows).values()), None)
