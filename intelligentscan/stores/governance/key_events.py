"""How keys come into force: the first event makes the first key; old key and new key both sign a rotation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from intelligentscan._signing import SigningKey, key_id_of, verify
from intelligentscan.domain.errors import TrailBroken
from intelligentscan.stores.governance.chain import GENESIS_PREV, EventRecord, signed_event, verify_signature

KEY_CREATED = "key.created"
KEY_ROTATED = "key.rotated"
_ROTATION_DOMAIN = b"intelligentscan.rotate.v1\0"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that an event brings into force."""

    key_id: str
    public: str


class BadKeyEvent(ValueError):
    """An event does not bring a key into force, though it should."""


def genesis_event(key: SigningKey, *, at: int, actor: str, facts: Mapping[str, Any] | None = None) -> EventRecord:
    """Return the first event of a trail: it makes the first key and is signed by it."""
    rows = {"signing_key": [{"key_id": key.key_id, "public": key.public}]}
    body = {"facts": dict(facts or {}), "rows": rows, "text": {}}
    return signed_event(key, seq=1, prev=GENESIS_PREV, at=at, actor=actor, action=KEY_CREATED, body=body)


def rotation_body(old: SigningKey, new: SigningKey, prev: str) -> dict[str, Any]:
    """Return the body of the event that brings a new key into force; the event itself is signed by the old one.

    Args:
        old: the key in force.
        new: the key that signs from the next event on.
        prev: the hash of the event before the rotation.
    """
    proof = new.sign(rotation_statement(prev, old.key_id, new.public))
    return {
        "facts": {"key_id": new.key_id, "public": new.public, "new_signature": proof},
        "rows": {"signing_key": [{"key_id": new.key_id, "public": new.public}]},
        "text": {},
    }


def rotation_event(
    old: SigningKey, new: SigningKey, *, seq: int, prev: str, at: int, actor: str, on_behalf_of: str | None = None
) -> EventRecord:
    """Return the event that brings a new key into force, signed by the old key and vouched for by the new one."""
    return signed_event(
        old,
        seq=seq,
        prev=prev,
        at=at,
        actor=actor,
        on_behalf_of=on_behalf_of,
        action=KEY_ROTATED,
        body=rotation_body(old, new, prev),
    )


def rotation_statement(prev: str, old_key_id: str, new_public: str) -> bytes:
    """Return what the new key signs: that it follows the old key, at this place of this trail."""
    return _ROTATION_DOMAIN + (prev + old_key_id + new_public).encode()


def genesis_key(event: EventRecord) -> NewKey:
    """Return the first key, from the first event.

    Raises:
        BadKeyEvent: the event is not a first event that its own key signed.
    """
    if event.seq != 1 or event.prev != GENESIS_PREV or event.action != KEY_CREATED:
        raise BadKeyEvent("the trail does not begin with the making of a key")
    key = _key_row(event)
    if key.key_id != event.key_id or not verify_signature(event, key.public):
        raise BadKeyEvent("the first event was not signed by the key that it makes")
    return key


def rotated_key(event: EventRecord, public: str) -> NewKey:
    """Return the key that a rotation brings into force from the next event on.

    Args:
        event: the rotation.
        public: the public key in force, which must have signed it.

    Raises:
        BadKeyEvent: one of the two signatures is wrong, or the event contradicts itself.
    """
    key = _key_row(event)
    facts = event.body.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    if facts.get("key_id") != key.key_id or facts.get("public") != key.public:
        raise BadKeyEvent("the rotation names two different keys")
    if not verify_signature(event, public):
        raise BadKeyEvent("the rotation was not signed by the key in force")
    statement = rotation_statement(event.prev, event.key_id, key.public)
    if not verify(key.public, facts.get("new_signature", ""), statement):
        raise BadKeyEvent("the rotation was not signed by the new key for this place of this trail")
    return key


def _key_row(event: EventRecord) -> NewKey:
    try:
        [row] = event.body["rows"]["signing_key"]
        key = NewKey(row["key_id"], row["public"])
        if key_id_of(key.public) == key.key_id:
            return key
    except (KeyError, TypeError, ValueError, TrailBroken) as exc:
        raise BadKeyEvent("the event does not hold the one key that it brings into force") from exc
    raise BadKeyEvent("the key's id is not that of its public half")
