"""Trails for tests: built event by event like the store does, and ways to forge one."""

from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from intelligentscan._signing import SigningKey
from intelligentscan.stores.governance.chain import EventRecord, event_hash, signed_event
from intelligentscan.stores.governance.checkpoint import Checkpoint, signed_checkpoint
from intelligentscan.stores.governance.key_events import genesis_event, rotation_event

NOW = 1_700_000_000_000
PERSON, SERVICE = "1" * 32, "2" * 32


def new_key() -> SigningKey:
    """Return a key pair that no folder holds."""
    return SigningKey(Ed25519PrivateKey.generate())


@dataclass
class Trail:
    """A trail that grows; its last key signs."""

    keys: list[SigningKey] = field(default_factory=lambda: [new_key()])
    events: list[EventRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.events:
            self.events.append(genesis_event(self.keys[0], at=NOW, actor=SERVICE))

    @property
    def head(self) -> EventRecord:
        return self.events[-1]

    def append(self, action: str = "model.noted", body: dict[str, Any] | None = None, **subject: Any) -> EventRecord:
        """Add an event, signed by the key in force."""
        self.events.append(following(self.head, self.keys[-1], action, body, **subject))
        return self.head

    def rotate(self, new: SigningKey | None = None) -> EventRecord:
        """Bring a new key into force."""
        new, old = new or new_key(), self.keys[-1]
        prev = self.head
        self.events.append(rotation_event(old, new, seq=prev.seq + 1, prev=prev.hash, at=prev.at + 1, actor=PERSON))
        self.keys.append(new)
        return self.head

    def checkpoint(self, seq: int | None = None, key: SigningKey | None = None) -> Checkpoint:
        """Return a checkpoint of an event, the last one if none is named."""
        event = self.events[(seq or self.head.seq) - 1]
        return signed_checkpoint(key or self.keys[-1], seq=event.seq, hash=event.hash, at=NOW)


def following(
    prev: EventRecord, key: SigningKey, action: str = "model.noted", body: dict[str, Any] | None = None, **subject: Any
) -> EventRecord:
    """Return an event that follows another one, signed by whatever key."""
    whole = {"facts": {}, "rows": {}, "text": {}, **(body or {})}
    return signed_event(
        key, seq=prev.seq + 1, prev=prev.hash, at=prev.at + 1, actor=PERSON, action=action, body=whole, **subject
    )


def trail_of(events: int, rotate_at: tuple[int, ...] = ()) -> Trail:
    """Return a trail of so many events, some of which are rotations."""
    trail = Trail()
    for seq in range(2, events + 1):
        if seq in rotate_at:
            trail.rotate()
        else:
            trail.append(body={"facts": {"number": seq}}, workspace="default", name="fraud", version=seq)
    return trail


def rehashed(event: EventRecord, **changes: Any) -> EventRecord:
    """Return a changed event with a hash that fits, as somebody without the key can make it."""
    changed = replace(event, **changes)
    return replace(changed, hash=event_hash(changed))


def resigned(events: list[EventRecord], key: SigningKey) -> list[EventRecord]:
    """Return what somebody makes who signs the whole trail again with a key of their own."""
    made = [genesis_event(key, at=events[0].at, actor=events[0].actor)]
    for event in events[1:]:
        subject = {n: getattr(event, n) for n in ("experiment_id", "workspace", "name", "version", "run_id")}
        action = "model.noted" if event.action.startswith("key.") else event.action
        made.append(following(made[-1], key, action, event.body, **subject))
    return made
