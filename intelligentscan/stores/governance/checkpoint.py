"""Checkpoints: the signed state of the trail at one event, kept where the trail's own account cannot alter it.

A trail whose end was cut off, or that was put back to an older state, is consistent in itself; only a later state that
was kept elsewhere shows it. A checkpoint in a folder that this account can write proves nothing against this account,
so whether it can is told as a fact.
"""

import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from intelligentscan._signing import KEY_ID, SigningKey, key_id_of, verify
from intelligentscan.domain.errors import InvalidArgument, Refused
from intelligentscan.domain.text import visible
from intelligentscan.stores.governance.canonical import NotCanonical, canonical, canonical_object

FORMAT = "intelligentscan checkpoint"
_DOMAIN = b"intelligentscan.checkpoint.v1\0"
_NAME = re.compile(r"checkpoint-(\d{12,16})\.json")
_HASH = re.compile("[0-9a-f]{64}")
_MAX_BYTES = 4096
_FIELDS = {"seq": int, "hash": str, "at": int, "key_id": str, "public": str, "signature": str}
_SETTING = "set INTELLIGENTSCAN_CHECKPOINT_DIR to a folder that this account may add files to."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a trail: its event `seq` has this hash, says the owner of the key.

    Attributes:
        at: when it was signed, in ms since the epoch.
    """

    seq: int
    hash: str
    at: int
    key_id: str
    public: str
    signature: str


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """What can be said of a folder for checkpoints.

    Attributes:
        exists: it is there.
        addable: this account can put checkpoints there.
        alterable: this account can also remove or replace what is there, so it is no place outside its reach.
    """

    exists: bool
    addable: bool
    alterable: bool


def signed_checkpoint(key: SigningKey, *, seq: int, hash: str, at: int) -> Checkpoint:
    """Return a checkpoint of the event with this number and hash, signed by the key in force."""
    unsigned = Checkpoint(seq, hash, at, key.key_id, key.public, "")
    return replace(unsigned, signature=key.sign(_statement(unsigned)))


def checkpoint_holds(checkpoint: Checkpoint) -> bool:
    """Tell whether the checkpoint was signed by the key that it names; not whether to trust that key."""
    try:
        if key_id_of(checkpoint.public) != checkpoint.key_id:
            return False
    except ValueError:
        return False
    return verify(checkpoint.public, checkpoint.signature, _statement(checkpoint))


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Keep a checkpoint in a folder, under a name that is given once.

    Returns:
        The file; the earlier one if the same state was kept before.

    Raises:
        InvalidArgument: the folder cannot be written.
        Refused: the folder holds a checkpoint of another state with the same number.
    """
    path = folder / f"checkpoint-{checkpoint.seq:012d}.json"
    try:
        return _publish(path, _document(checkpoint))
    except FileExistsError as exc:
        earlier = read_checkpoint(path)
        if earlier.hash == checkpoint.hash:
            return path
        raise Refused(
            f"There is a checkpoint of event {checkpoint.seq} that saw another state: the trail was rewritten since, "
            "or two trails use one folder.",
            next=f"run 'intelligentscan audit verify --checkpoint {path.name}'; give each trail a folder of its own.",
        ) from exc
    except OSError as exc:
        raise InvalidArgument(
            f"The checkpoint cannot be written to {visible(str(folder))}: {exc.strerror}.", next=_SETTING
        ) from exc


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file; whether it holds is for `checkpoint_holds` and `verify_chain` to say.

    Raises:
        InvalidArgument: the file cannot be read or is no checkpoint.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise InvalidArgument(
            f"The checkpoint {visible(str(path))} cannot be read: {exc.strerror}.", next="name a checkpoint file."
        ) from exc
    try:
        if len(data) > _MAX_BYTES:
            raise NotCanonical("it is too long")
        return _checked(canonical_object(data.decode().rstrip("\r\n")))
    except ValueError as exc:
        raise InvalidArgument(
            f"The file {visible(path.name)} is not a checkpoint.",
            next="name a file that 'intelligentscan audit checkpoint' wrote.",
        ) from exc


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint with the highest event number in a folder, None if it holds none.

    Raises:
        InvalidArgument: the folder or the file cannot be read, or the file is no checkpoint.
    """
    try:
        named = [(int(found[1]), path) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise InvalidArgument(
            f"The folder of checkpoints {visible(str(folder))} cannot be read: {exc.strerror}.", next=_SETTING
        ) from exc
    return read_checkpoint(max(named)[1]) if named else None


def checkpoint_place(folder: Path) -> CheckpointPlace:
    """Return what this account can do in a folder for checkpoints, now or after changing permissions of its own."""
    try:
        status = folder.stat()
    except OSError:
        return CheckpointPlace(exists=False, addable=False, alterable=False)
    if not stat.S_ISDIR(status.st_mode):
        return CheckpointPlace(exists=False, addable=False, alterable=False)
    # Whoever can rename a folder above can put another in its place.
    real = folder.resolve()
    alterable = _can_write(real) or any(_can_rename_in(above) for above in real.parents)
    return CheckpointPlace(exists=True, addable=_can_write(real), alterable=alterable)


def _document(checkpoint: Checkpoint) -> bytes:
    return canonical({**_unsigned(checkpoint), "signature": checkpoint.signature}) + b"\n"


def _statement(checkpoint: Checkpoint) -> bytes:
    return _DOMAIN + canonical(_unsigned(checkpoint))


def _unsigned(checkpoint: Checkpoint) -> dict[str, Any]:
    values = asdict(checkpoint)
    del values["signature"]
    return {"format": FORMAT, "v": 1, **values}


def _checked(document: dict[str, Any]) -> Checkpoint:
    if set(document) != {"format", "v", *_FIELDS}:
        raise ValueError("other fields")
    if any(type(document[name]) is not kind for name, kind in {"v": int, **_FIELDS}.items()):
        raise ValueError("a field of another type")
    if document["format"] != FORMAT or document["v"] != 1:
        raise ValueError("another format or version")
    found = Checkpoint(**{name: document[name] for name in _FIELDS})
    if found.seq < 1 or not _HASH.fullmatch(found.hash) or not KEY_ID.fullmatch(found.key_id):
        raise ValueError("a value out of bounds")
    return found


def _publish(path: Path, data: bytes) -> Path:
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with unfinished.open("xb") as stream:
            os.fchmod(stream.fileno(), 0o444)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def _can_write(folder: Path) -> bool:
    owned = folder.stat().st_uid == os.geteuid()
    return owned or os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _can_rename_in(folder: Path) -> bool:
    status = folder.stat()
    if os.geteuid() in (0, status.st_uid):
        return True
    # In a folder with the sticky bit (as /tmp), only the owner of an entry renames it.
    return not status.st_mode & stat.S_ISVTX and _can_write(folder)
