"""Events of the audit trail: how one is hashed, chained to the one before, signed, and kept as a row.

An event's hash is the SHA-256 of its canonical JSON, which holds the hash of the event before; the signature is over
the hash.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from intelligentscan._signing import KEY_ID, SIGNATURE_BYTES, SigningKey, from_base64, verify
from intelligentscan.domain.errors import InvalidArgument, TooLarge, TrailBroken
from intelligentscan.stores.governance.canonical import NotCanonical, canonical, canonical_object, quoted

GENESIS_PREV = "0" * 64
ID_LENGTH = 40
"""Characters of the id that stands for somebody: 160 bits."""
SALT_BYTES = 16
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_INTEGER = 2**53 - 1
_MAX_VERSION = 2**31 - 1
_EVENT_DOMAIN = b"intelligentscan.event.v1\0"
_BODY_PARTS = frozenset({"facts", "rows", "text"})
_HASH = re.compile("[0-9a-f]{64}")
_LONGEST = {
    "actor": 64, "on_behalf_of": 64, "action": 64, "experiment_id": 64, "workspace": 63, "name": 256, "run_id": 64,
}  # fmt: skip
"""How long the columns of the table `event` are."""


@dataclass(frozen=True)
class EventRecord:
    """One event, well typed but not yet believed: whether it verifies is for `verify_chain` to say.

    Attributes:
        body_text: the body as canonical JSON, the text that is hashed.
    """

    seq: int
    at: int
    actor: str
    on_behalf_of: str | None
    action: str
    experiment_id: str | None
    workspace: str | None
    name: str | None
    version: int | None
    run_id: str | None
    body_text: str
    prev: str
    hash: str
    key_id: str
    signature: str

    @cached_property
    def body(self) -> dict[str, Any]:
        """The body: `facts`, `rows` by table, and digests of `text` by field.

        Raises:
            TrailBroken: the text is not canonical JSON of an object.
        """
        try:
            return canonical_object(self.body_text)
        except NotCanonical as exc:
            raise TrailBroken(f"The body of event {self.seq} cannot be used: {exc}.", next=_AUDIT) from exc


def event_hash(event: EventRecord) -> str:
    """Return the hash of what an event says.

    Raises:
        TrailBroken: a text of the event holds half a character, which no event that was signed does.
    """
    # The fields are in canonical order; that the body is canonical too is for `EventRecord.body` to judge.
    said = (
        f'{{"action":{quoted(event.action)},"actor":{quoted(event.actor)},"at":{event.at},"body":{event.body_text},'
        f'"experiment_id":{_optional(event.experiment_id)},"key_id":{quoted(event.key_id)},'
        f'"name":{_optional(event.name)},"on_behalf_of":{_optional(event.on_behalf_of)},"prev":{quoted(event.prev)},'
        f'"run_id":{_optional(event.run_id)},"seq":{event.seq},"v":1,'
        f'"version":{"null" if event.version is None else event.version},"workspace":{_optional(event.workspace)}}}'
    )
    try:
        return hashlib.sha256(said.encode()).hexdigest()
    except UnicodeEncodeError as exc:
        raise TrailBroken(f"Event {event.seq} holds half a character.", next=_AUDIT) from exc


def signature_holds(event: EventRecord, public: str) -> bool:
    """Tell whether the event's hash is of what it says and its signature was made by the owner of this public key."""
    try:
        return event_hash(event) == event.hash and verify_signature(event, public)
    except TrailBroken:
        return False


def verify_signature(event: EventRecord, public: str) -> bool:
    """Tell whether the signature was made over the event's stated hash by the owner of this public key."""
    return verify(public, event.signature, _EVENT_DOMAIN + bytes.fromhex(event.hash))


def signed_event(
    key: SigningKey,
    *,
    seq: int,
    prev: str,
    at: int,
    actor: str,
    action: str,
    body: Mapping[str, Any],
    on_behalf_of: str | None = None,
    experiment_id: str | None = None,
    workspace: str | None = None,
    name: str | None = None,
    version: int | None = None,
    run_id: str | None = None,
) -> EventRecord:
    """Return the event with its hash and signature.

    Args:
        key: the key in force.
        seq: the number after the last event's.
        prev: the hash of the last event, GENESIS_PREV for the first.
        at: milliseconds since the epoch.
        actor: the principal id of who acts.
        action: what is done, as `noun.verb`.
        body: `facts`, `rows` and `text`, nothing else.
        on_behalf_of: the principal id of the person for whom a service acts.
        experiment_id: the experiment it is about.
        workspace: the workspace of the model it is about.
        name: the registered model it is about.
        version: the version it is about.
        run_id: the run it is about.

    Raises:
        InvalidArgument: a value cannot be kept exactly, or is longer than its column.
        TooLarge: the body is over 4 MiB.
    """
    texts = {
        "actor": actor, "on_behalf_of": on_behalf_of, "action": action, "experiment_id": experiment_id,
        "workspace": workspace, "name": name, "run_id": run_id,
    }  # fmt: skip
    for field, text in texts.items():
        _check_text(field, text)
    if not _BODY_PARTS.issuperset(body) or not all(isinstance(part, dict) for part in body.values()):
        raise InvalidArgument(
            "The body of an event holds the objects facts, rows and text, nothing else.", next="put it into facts."
        )
    unsigned = EventRecord(
        seq=_number("seq", seq, 1), at=_number("at", at), actor=actor, on_behalf_of=on_behalf_of, action=action,
        experiment_id=experiment_id, workspace=workspace, name=name,
        version=None if version is None else _number("version", version, 0, _MAX_VERSION), run_id=run_id,
        body_text=body_text(body), prev=_matching("prev", prev, _HASH), hash="", key_id=key.key_id, signature="",
    )  # fmt: skip
    digest = event_hash(unsigned)
    return replace(unsigned, hash=digest, signature=key.sign(_EVENT_DOMAIN + bytes.fromhex(digest)))


def body_text(body: Mapping[str, Any]) -> str:
    """Return a body as the canonical text that the column `body` holds.

    Raises:
        InvalidArgument: a value cannot be kept exactly.
        TooLarge: the body is over 4 MiB.
    """
    data = canonical(dict(body))
    if len(data) > MAX_BODY_BYTES:
        raise TooLarge("The body of an event is over 4 MiB.", next="keep a digest of the large part instead.")
    return data.decode()


def text_digest(salt: bytes, text: str) -> str:
    """Return the digest that binds a free text, kept outside the trail, to its event.

    Raises:
        InvalidArgument: the text holds half a character.
    """
    try:
        return hashlib.sha256(salt + text.encode()).hexdigest()
    except UnicodeEncodeError as exc:
        raise InvalidArgument("A text holds half a character (a lone surrogate).", next="write it anew.") from exc


def principal_id(salt: bytes, kind: str, name: str) -> str:
    """Return the id that stands for somebody in the trail: a salted digest of who they are.

    So a name, which lies outside the trail and may be erased, cannot be exchanged for another one: the id would
    no longer fit. Without the salt, which is erased with the name, the id says nothing.

    Raises:
        InvalidArgument: the name holds half a character.
    """
    return text_digest(salt, f"{kind}\n{name}")[:ID_LENGTH]


def row_from_record(event: EventRecord) -> dict[str, Any]:
    """Return the event as a row of the table `event`."""
    row = {field: getattr(event, field) for field in _FIELDS}
    row["body"] = row.pop("body_text")
    return row


def record_from_row(row: Mapping[Any, Any]) -> EventRecord:
    """Return a row of the table `event` as a record.

    Raises:
        TrailBroken: a value of the row is of a kind that no event has.
    """
    try:
        return EventRecord(
            seq=_number("seq", row["seq"], 1),
            at=_number("at", row["at"]),
            actor=_text("actor", row["actor"]),
            on_behalf_of=_text_or_none("on_behalf_of", row["on_behalf_of"]),
            action=_text("action", row["action"]),
            experiment_id=_text_or_none("experiment_id", row["experiment_id"]),
            workspace=_text_or_none("workspace", row["workspace"]),
            name=_text_or_none("name", row["name"]),
            version=None if row["version"] is None else _number("version", row["version"]),
            run_id=_text_or_none("run_id", row["run_id"]),
            body_text=_text("body", row["body"]),
            prev=_matching("prev", row["prev"], _HASH),
            hash=_matching("hash", row["hash"], _HASH),
            key_id=_matching("key_id", row["key_id"], KEY_ID),
            signature=_signature(row["signature"]),
        )
    except (InvalidArgument, KeyError) as exc:
        what = f"has no {exc}" if isinstance(exc, KeyError) else f"is no event: {exc.args[0]}"
        raise TrailBroken(f"A row of the audit trail {what}", next=_AUDIT) from exc


_FIELDS = tuple(field.name for field in fields(EventRecord))
_AUDIT = "run 'intelligentscan audit verify'; restore the store from a backup if it says so."


def _optional(text: str | None) -> str:
    return "null" if text is None else quoted(text)


def _check_text(field: str, text: object) -> None:
    if text is None and field not in {"actor", "action"}:
        return
    longest = _LONGEST[field]
    if not isinstance(text, str) or not text or len(text) > longest or "\0" in text:
        raise InvalidArgument(f"{field} of an event is a text of 1 to {longest} characters.", next=f"check {field}.")
    canonical(text)


def _number(field: str, value: object, lowest: int = 0, highest: int = MAX_INTEGER) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
        return value
    raise InvalidArgument(f"{field} is not a number from {lowest} to {highest}.", next=f"check {field}.")


def _text(field: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise InvalidArgument(f"{field} is not a text.", next=f"check {field}.")


def _text_or_none(field: str, value: object) -> str | None:
    return None if value is None else _text(field, value)


def _matching(field: str, value: object, pattern: re.Pattern[str]) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise InvalidArgument(f"{field} is not as many lower-case hexadecimal digits as it has.", next=f"check {field}.")


def _signature(value: object) -> str:
    text = _text("signature", value)
    try:
        from_base64(text, SIGNATURE_BYTES)
    except ValueError as exc:
        raise InvalidArgument("signature is not 64 bytes in base64.", next="check signature.") from exc
    return text
