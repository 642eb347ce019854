"""Signing keys: Ed25519 key pairs in a folder that only their owner can enter.

A key is known by its id, the beginning of its public half's SHA-256. Which of the keys in the folder is in force is
not decided here: the audit trail says so. Two processes that both make a key on first use leave two of them.
"""

import base64
import binascii
import hashlib
import os
import re
import secrets
import shlex
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from intelligentscan.domain.errors import KeyUnavailable
from intelligentscan.domain.text import visible

KEY_ID = re.compile("[0-9a-f]{32}")
PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
_SUFFIX = ".pem"
_UNFINISHED = ".unfinished-"
_MAX_FILE_BYTES = 4096
_ABANDONED_S = 60.0
"""An unfinished file older than this was left by a process that was killed."""
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SigningKey:
    """A key pair that can sign; it never shows its private half.

    Attributes:
        key_id: the first 32 hexadecimal digits of the SHA-256 of the public half.
        public: the public half, 32 bytes in base64.
    """

    __slots__ = ("_private", "key_id", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        raw = private.public_key().public_bytes_raw()
        self._private = private
        self.public = base64.b64encode(raw).decode()
        self.key_id = _key_id(raw)

    def sign(self, message: bytes) -> str:
        """Return the signature of a message, in base64."""
        return base64.b64encode(self._private.sign(message)).decode()

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"


def verify(public: str, signature: str, message: bytes) -> bool:
    """Tell whether the signature of the message was made by the owner of a public key; False for any garbage."""
    try:
        _public_key(public).verify(from_base64(signature, SIGNATURE_BYTES), message)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def key_id_of(public: str) -> str:
    """Return the id of a public key.

    Raises:
        ValueError: the text is not a public key in base64.
    """
    return _key_id(from_base64(public, PUBLIC_BYTES))


def fingerprint(key_id: str) -> str:
    """Return a key id in groups of four, as people compare it."""
    return " ".join(key_id[i : i + 4] for i in range(0, len(key_id), 4))


def from_base64(text: str, size: int) -> bytes:
    """Return so many bytes from their one base64 form.

    Raises:
        ValueError: the text is anything else.
    """
    if not isinstance(text, str):
        raise ValueError("not a text")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc
    # Other texts decode to the same bytes; taking them would let a signature be altered unseen.
    if len(data) != size or base64.b64encode(data).decode() != text:
        raise ValueError(f"not {size} bytes in base64")
    return data


class KeyFolder:
    """The folder of private keys: one PEM file per key, named by its id.

    Args:
        path: the folder; it is made, with mode 0700, together with the first key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> SigningKey:
        """Make a new key and keep it.

        Raises:
            KeyUnavailable: the folder is open to others, belongs to somebody else, or cannot be written.
        """
        private = Ed25519PrivateKey.generate()
        key = SigningKey(private)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
            with self._opened() as folder:
                _sweep(folder)
                _publish(folder, f"{key.key_id}{_SUFFIX}", pem)
        except OSError as exc:
            raise self._unusable(f"cannot be written ({exc.strerror})") from exc
        return key

    def get(self, key_id: str) -> SigningKey | None:
        """Return a key, or None if it is not here.

        Raises:
            KeyUnavailable: the key is here but open to others, somebody else's, unreadable or damaged.
        """
        if not KEY_ID.fullmatch(key_id):
            return None
        name = f"{key_id}{_SUFFIX}"
        try:
            with self._opened() as folder:
                data = self._read(folder, name)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._unusable(f"cannot be read ({exc.strerror})", name) from exc
        try:
            private = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise self._damaged(name, "does not hold a private key that can be read") from exc
        if not isinstance(private, Ed25519PrivateKey):
            raise self._damaged(name, "holds a key of another kind than Ed25519")
        key = SigningKey(private)
        if key.key_id != key_id:
            raise self._damaged(name, f"holds another key, {key.key_id}")
        return key

    def key_ids(self) -> tuple[str, ...]:
        """Return the ids of the keys that are here, in order; none if there is no folder.

        Raises:
            KeyUnavailable: the folder is open to others, belongs to somebody else, or cannot be read.
        """
        try:
            with self._opened() as folder:
                names = os.listdir(folder)  # noqa: PTH208 - pathlib does not list a descriptor
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise self._unusable(f"cannot be read ({exc.strerror})") from exc
        ids = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return tuple(sorted(key_id for key_id in ids if KEY_ID.fullmatch(key_id)))

    def can_read(self, key_id: str) -> bool:
        """Tell whether this account can get at a private key, if need be by changing the file's permissions.

        This is a fact for judging how strong a claim is, so it does not refuse loose permissions.
        """
        if not KEY_ID.fullmatch(key_id):
            return False
        path = self.path / f"{key_id}{_SUFFIX}"
        try:
            owned = path.stat().st_uid == os.geteuid()
            return owned or os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)
        except PermissionError:
            return self._owned_above()
        except OSError:
            return False

    def _owned_above(self) -> bool:
        # A folder of ours that bars the way is one chmod from letting us in.
        for folder in (self.path, *self.path.parents):
            with suppress(PermissionError, FileNotFoundError):
                return folder.stat().st_uid == os.geteuid()
        return False

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            folder = os.open(self.path, _FOLDER_FLAGS)
        except NotADirectoryError as exc:
            raise self._unusable("is not a folder, or a link to one") from exc
        except PermissionError as exc:
            self._check(self.path.lstat(), 0o700)
            raise self._unusable("cannot be read by this account") from exc
        try:
            self._check(os.fstat(folder), 0o700)
            yield folder
        finally:
            os.close(folder)

    def _read(self, folder: int, name: str) -> bytes:
        try:
            file = os.open(name, _READ_FLAGS, dir_fd=folder)
        except PermissionError:
            self._check(os.stat(name, dir_fd=folder, follow_symlinks=False), 0o600, name)
            raise
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
                raise self._damaged(name, "is not a key file")
            self._check(status, 0o600, name)
            return os.read(file, _MAX_FILE_BYTES)
        finally:
            os.close(file)

    def _check(self, status: os.stat_result, mode: int, name: str = "") -> None:
        shown, quoted = self._shown(name)
        if status.st_uid != os.geteuid():
            raise KeyUnavailable(
                f"{shown} belongs to another account of this machine.",
                next="act from the account that owns the keys, or name a home of your own in INTELLIGENTSCAN_HOME.",
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise KeyUnavailable(
                f"{shown} is open to other accounts (mode {stat.S_IMODE(status.st_mode):04o}); whoever can read a "
                "signing key can forge the audit trail.",
                next=f"chmod {mode:o} {quoted}, and if others may have read it: intelligentscan keys rotate.",
            )

    def _unusable(self, what: str, name: str = "") -> KeyUnavailable:
        shown, _ = self._shown(name)
        return KeyUnavailable(
            f"{shown} {what}.", next="give this account the folder 'keys' of INTELLIGENTSCAN_HOME, mode 0700."
        )

    def _damaged(self, name: str, what: str) -> KeyUnavailable:
        shown, _ = self._shown(name)
        return KeyUnavailable(f"{shown} {what}.", next="restore the file from a backup.")

    def _shown(self, name: str) -> tuple[str, str]:
        path = visible(str(self.path / name))
        return f"The {'signing key' if name else 'folder of signing keys'} {path}", shlex.quote(path)


@lru_cache(maxsize=64)
def _public_key(public: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(from_base64(public, PUBLIC_BYTES))


def _key_id(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]


def _publish(folder: int, name: str, data: bytes) -> None:
    """Give a complete file its name in one step, so that nobody reads half a key."""
    unfinished = f"{_UNFINISHED}{secrets.token_hex(8)}"
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(file, "wb") as stream:
            os.fchmod(file, 0o600)
            stream.write(data)
            stream.flush()
            os.fsync(file)
        os.link(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.unlink(unfinished, dir_fd=folder)
    os.fsync(folder)


def _sweep(folder: int) -> None:
    for name in os.listdir(folder):
        if name.startswith(_UNFINISHED):
            with suppress(OSError):
                if time.time() - os.stat(name, dir_fd=folder).st_mtime > _ABANDONED_S:
                    os.unlink(name, dir_fd=folder)
