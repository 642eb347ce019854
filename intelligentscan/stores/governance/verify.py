"""The auditor's check of a trail: walks it once, in bounded memory, and names everything that does not hold.

What it can know depends on what it is given. The trail alone shows that nothing was edited, inserted or taken out by
somebody without the signing key; that its end is still there, and that the whole was not put back to an earlier state,
shows only against a checkpoint kept elsewhere; who signed shows only against keys that the auditor trusts.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from intelligentscan.domain.errors import TrailBroken
from intelligentscan.stores.governance.chain import EventRecord, event_hash, verify_signature
from intelligentscan.stores.governance.checkpoint import Checkpoint, checkpoint_holds
from intelligentscan.stores.governance.key_events import (
    KEY_CREATED,
    KEY_ROTATED,
    BadKeyEvent,
    NewKey,
    genesis_key,
    rotated_key,
)
from intelligentscan.stores.governance.report import ChainReport, KeyValidity, Problems, Unreadable, VerifiedPrefix

_REMEMBERED = 10_000
"""How many events back a fork is still told from an event out of order; either is a problem."""


def verify_chain(
    events: Iterable[EventRecord | Unreadable],
    *,
    trusted: Collection[str] | None = None,
    checkpoint: Checkpoint | None = None,
    full_signatures: bool = True,
    after: VerifiedPrefix | None = None,
) -> ChainReport:
    """Check a trail from its first event, or from where an earlier check ended.

    Args:
        events: the trail in order; with `after`, beginning with the last event that was verified before, so that a
            trail cut shorter than that is seen.
        trusted: ids of keys that the auditor knows from elsewhere. One of them must be among the keys that were in
            force: each key of the trail vouches for those before it by the hash it signed, and for the next one by the
            rotation. None leaves open who signed. Name the newest key that you know: a key that was stolen before it
            was rotated out can still sign a trail that ends before the rotation.
        checkpoint: a signed state of the trail that was kept elsewhere.
        full_signatures: check each signature; otherwise those of the last event and of the keys, which vouch for all
            hashes before them. What is left out is only damage to a signature itself.
        after: where an earlier check ended.
    """
    walk = _Walk(full_signatures, checkpoint, after)
    for entry in events:
        walk.take(entry)
    return walk.report(trusted)


class _Walk:
    def __init__(self, full: bool, checkpoint: Checkpoint | None, after: VerifiedPrefix | None) -> None:
        self._full = full
        self._checkpoint = checkpoint
        self._after = after
        self._problems = Problems()
        self._keys = list(after.keys) if after else []
        self._ids = {key.key_id for key in self._keys}
        self._seen: OrderedDict[str, str] = OrderedDict()  # prev -> hash of the event that follows it
        self._first: int | None = None
        self._last: EventRecord | None = None
        self._last_signed = False
        self._read = 0
        self._at_checkpoint: str | None = None

    def take(self, entry: EventRecord | Unreadable) -> None:
        self._read += 1
        if isinstance(entry, Unreadable):
            self._problems.add(None, "UNREADABLE", f"{entry.place} cannot be read as an event: {entry.why}.")
            return
        if self._first is None:
            self._first = entry.seq
        self._check_content(entry)
        if self._in_order(entry):
            self._check_key(entry)
            self._remember(entry)

    def report(self, trusted: Collection[str] | None) -> ChainReport:
        if self._last is not None and not self._last_signed:
            self._check_signature(self._last)
        self._check_end(trusted)
        compared = self._compare_checkpoint(trusted)
        if trusted is not None and self._keys and self._ids.isdisjoint(trusted):
            message = "None of the trusted keys was ever in force in this trail: somebody else signed or rewrote it."
            self._problems.add(None, "UNTRUSTED_KEY", message)
        vouched: Literal["yes", "no", "unknown"] = "no" if self._problems.total else "yes"
        return ChainReport(
            trusted="unknown" if trusted is None else vouched,
            events=self._read,
            first=self._first,
            last=self._last.seq if self._last else None,
            head_hash=self._last.hash if self._last else None,
            keys=tuple(self._keys),
            checkpoint=compared,
            problems=tuple(self._problems.first),
            problem_count=self._problems.total,
        )

    def _check_content(self, event: EventRecord) -> None:
        try:
            if event_hash(event) != event.hash:
                message = f"Event {event.seq} was changed after it was signed: its content does not give its hash."
                self._problems.add(event.seq, "EDITED", message)
            elif self._full:
                _ = event.body
        except TrailBroken:
            message = f"The content of event {event.seq} is not in the one form that is signed."
            self._problems.add(event.seq, "NOT_CANONICAL", message)

    def _in_order(self, event: EventRecord) -> bool:
        """Tell whether the event continues the trail, and report if it does not join on."""
        if self._last is None:
            self._begins(event)
            return True
        wanted = self._last.seq + 1
        if event.seq == wanted and event.prev == self._last.hash:
            return True
        fork = self._seen.get(event.prev)
        if fork == event.hash:
            self._problems.add(event.seq, "REPEATED", f"Event {event.seq} is there twice.")
        elif fork is not None:
            self._problems.add(
                event.seq,
                "FORK",
                f"Event {event.seq} follows the same event as another one does: the trail was continued twice"
                f"{', both times by a key of this trail' if self._signed_by_ours(event) else ''}.",
            )
        elif event.seq < wanted:
            message = f"Event {event.seq} comes after event {self._last.seq}: out of order, or of another branch."
            self._problems.add(event.seq, "OUT_OF_ORDER", message)
        elif event.seq > wanted:
            self._problems.add(event.seq, "GAP", f"{_events(wanted, event.seq - 1)} missing.")
        else:
            message = f"Event {event.seq} does not follow event {self._last.seq}: it names another one before it."
            self._problems.add(event.seq, "BROKEN_LINK", message)
        return event.seq >= wanted

    def _begins(self, event: EventRecord) -> None:
        wanted = self._after.seq if self._after else 1
        if event.seq > wanted:
            self._problems.add(event.seq, "GAP", f"{_events(wanted, event.seq - 1)} missing.")

    def _check_key(self, event: EventRecord) -> None:
        self._last_signed = False
        if self._after is not None and event.seq <= self._after.seq:
            if event.seq == self._after.seq and event.hash != self._after.hash:
                message = f"Event {event.seq} is not the one that was verified before: the trail was rewritten."
                self._problems.add(event.seq, "REWRITTEN", message)
            return
        if event.action == KEY_CREATED or (self._last is None and self._after is None):
            self._begin_keys(event)
            return
        if not self._keys:
            return  # reported when the trail began without a key
        key = self._in_force(event)
        if key is not None and event.action == KEY_ROTATED:
            self._rotate(event, key)
        elif key is not None and self._full:
            self._check_signature(event)

    def _begin_keys(self, event: EventRecord) -> None:
        self._last_signed = True
        try:
            if self._keys:
                raise BadKeyEvent("a first key is made though there is one")
            self._bring_in(genesis_key(event), 1)
        except BadKeyEvent as exc:
            self._problems.add(event.seq, "BAD_GENESIS", f"Event {event.seq} brings no key into force: {exc}.")

    def _rotate(self, event: EventRecord, old: KeyValidity) -> None:
        self._last_signed = True
        try:
            key = rotated_key(event, old.public)
            if key.key_id in self._ids:
                raise BadKeyEvent("the key was in force before")
        except BadKeyEvent as exc:
            self._problems.add(event.seq, "BAD_ROTATION", f"Event {event.seq} brings no key into force: {exc}.")
            return
        self._keys[-1] = KeyValidity(old.key_id, old.public, old.first, event.seq)
        self._bring_in(key, event.seq + 1)

    def _bring_in(self, key: NewKey, first: int) -> None:
        self._keys.append(KeyValidity(key.key_id, key.public, first))
        self._ids.add(key.key_id)

    def _check_signature(self, event: EventRecord) -> None:
        self._last_signed = True
        key = key_at(self._keys, event.seq)
        if key is not None and key.key_id == event.key_id and not verify_signature(event, key.public):
            message = f"The signature of event {event.seq} was not made by the key in force over its hash."
            self._problems.add(event.seq, "BAD_SIGNATURE", message)

    def _in_force(self, event: EventRecord) -> KeyValidity | None:
        """Return the key that counts for the event; report if the event names another one."""
        key = key_at(self._keys, event.seq)
        if key is None or key.key_id == event.key_id:
            return key
        if event.key_id in self._ids:
            message = f"Event {event.seq} is signed by a key that was not in force then, {event.key_id}."
            self._problems.add(event.seq, "RETIRED_KEY", message)
        else:
            message = f"Event {event.seq} is signed by a key that the trail does not know, {event.key_id}."
            self._problems.add(event.seq, "UNKNOWN_KEY", message)
        return None

    def _signed_by_ours(self, event: EventRecord) -> bool:
        return any(k.key_id == event.key_id and verify_signature(event, k.public) for k in self._keys)

    def _remember(self, event: EventRecord) -> None:
        self._last = event
        self._seen[event.prev] = event.hash
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        if self._checkpoint is not None and event.seq == self._checkpoint.seq:
            self._at_checkpoint = event.hash

    def _check_end(self, trusted: Collection[str] | None) -> None:
        reached = self._last.seq if self._last else 0
        if self._after is not None and reached < self._after.seq:
            message = f"The trail ends at event {reached}, but event {self._after.seq} was verified before."
            self._problems.add(reached or None, "CUT_TAIL", message)
        elif self._last is None and trusted is not None and self._checkpoint is None:
            self._problems.add(None, "EMPTY", "The trail holds no event.")

    def _compare_checkpoint(self, trusted: Collection[str] | None) -> Literal["matches", "contradicted", "none"]:
        kept = self._checkpoint
        if kept is None:
            return "none"
        if not checkpoint_holds(kept):
            message = "The checkpoint's own signature does not hold: it was changed after it was signed."
            self._problems.add(None, "CHECKPOINT_INVALID", message)
            return "none"
        # After a rotation, its checkpoint may be signed by the key that it ends or by the one that it begins.
        signers = {key.key_id for at in (kept.seq, kept.seq + 1) if (key := key_at(self._keys, at))}
        if kept.key_id not in signers.union(trusted or ()):
            message = f"The checkpoint is signed by a key that this trail does not know for that time, {kept.key_id}."
            self._problems.add(None, "CHECKPOINT_UNKNOWN_KEY", message)
        reached = self._last.seq if self._last else 0
        if reached < kept.seq:
            self._problems.add(
                reached or None,
                "CUT_TAIL",
                f"The trail ends at event {reached}, but the checkpoint saw event {kept.seq}: its end was cut off, or "
                "an older state was put back.",
            )
            return "contradicted"
        if self._at_checkpoint is None and self._after is not None and kept.seq < self._after.seq:
            message = f"The checkpoint of event {kept.seq} lies before what was read; verify from the first event."
            self._problems.add(None, "CHECKPOINT_NOT_COVERED", message)
            return "none"
        if self._at_checkpoint != kept.hash:
            message = (
                f"Event {kept.seq} is not the one that the checkpoint saw: the trail was rewritten, or is another."
            )
            self._problems.add(kept.seq, "REWRITTEN", message)
            return "contradicted"
        return "matches"


def key_at(keys: Sequence[KeyValidity], seq: int) -> KeyValidity | None:
    """Return the key that was in force for an event number."""
    return next((key for key in reversed(keys) if key.first <= seq), None)


def _events(first: int, last: int) -> str:
    return f"Event {first} is" if first == last else f"Events {first} to {last} are"
