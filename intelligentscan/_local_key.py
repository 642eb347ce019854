"""The local key: one secret of INTELLIGENTSCAN_HOME, from which each purpose gets a key of its own.

Whatever has to be recognised here and must tell nobody else anything (digests of redacted secrets, entries of the
cache) is keyed with it. It signs nothing and proves nothing to others; without it, what was keyed is no longer
recognised, and that is all that is lost. Keys of purposes are derived as in the expand step of HKDF (RFC 5869,
section 2.3) with SHA-256, so that none of them tells anything about another one.
"""

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from intelligentscan.domain.errors import KeyUnavailable

LOCAL_KEY = "local.key"
KEY_BYTES = 32
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def local_key(home: Path, purpose: str) -> bytes:
    """Return the key of 32 bytes for one purpose; the local key is made on first use; blocks.

    Args:
        home: INTELLIGENTSCAN_HOME; made, for this account alone, if it is missing.
        purpose: what the key is for, such as 'secret-digest/1'.

    Raises:
        KeyUnavailable: the file is open to others, belongs to somebody else, is damaged, or cannot be written.
    """
    path = home / LOCAL_KEY
    try:
        key = _read(path)
        if key is None:
            _publish(path)
            key = _read(path)
    except OSError as exc:
        raise _unusable(f"cannot be used ({os.strerror(exc.errno or 0)})") from exc
    if key is None:
        raise _unusable("went away while it was read")
    return hmac.digest(key, purpose.encode() + b"\x01", hashlib.sha256)


def _read(path: Path) -> bytes | None:
    try:
        file = os.open(path, _READ)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size != KEY_BYTES:
            raise _unusable("is damaged")
        if status.st_uid != os.geteuid():
            raise _unusable("belongs to another account")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise _unusable("is open to other accounts")
        return os.read(file, KEY_BYTES)
    finally:
        os.close(file)


def _publish(path: Path) -> None:
    """Give a new, complete file its name in one step; of several processes at once, the first one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{LOCAL_KEY}.{secrets.token_hex(8)}")
    file = os.open(unfinished, _WRITE, 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            os.fchmod(file, 0o600)
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(file)
        with suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        unfinished.unlink()


def _unusable(what: str) -> KeyUnavailable:
    return KeyUnavailable(
        f"The local key of INTELLIGENTSCAN_HOME ({LOCAL_KEY}) {what}.",
        next=f"give this account the file with mode 0600, or remove {LOCAL_KEY}: a new one is made at the next scan, "
        "and earlier secrets are then told apart by their place alone.",
    )
