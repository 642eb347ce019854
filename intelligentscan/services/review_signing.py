"""A reviewer's signature: made with their key, or brought along, and whose it says that it is."""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from intelligentscan._ssh_signature import PrivateKey, fingerprint, public_of, sign_sshsig
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.services.review_state import NAMESPACE

_MAGIC = b"SSHSIG"
_HEAD = len(_MAGIC) + 4
_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Signing:
    """How a statement gets its signature: from a key at hand, or from a file that `ssh-keygen -Y sign` wrote."""

    key: PrivateKey | None = None
    armored: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is one at all."""
        return self.key is not None or self.armored is not None

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the key that signs; None if the text is no signature."""
        if self.key is not None:
            return fingerprint(public_of(self.key))
        return _signer(self.armored or "")

    def of(self, message: bytes) -> str:
        """Return the signature of a statement, or the one that was brought along, which may be of another."""
        return sign_sshsig(self.key, NAMESPACE, message) if self.key is not None else self.armored or ""


def signing(key: PrivateKey | None, signature: str | None) -> Signing:
    """Return how to sign.

    Raises:
        InvalidArgument: both were given.
    """
    if key is not None and signature is not None:
        raise InvalidArgument("Give either a key or a signature.", next="call again with one of them.")
    return Signing(key, signature)


def _signer(armored: str) -> str | None:
    """Return the fingerprint of the key that a signature names; whether it made it is another question."""
    lines = [line.strip() for line in armored[:_MAX].strip().splitlines()]
    try:
        data = base64.b64decode("".join(lines[1:-1]), validate=True)
        (length,) = struct.unpack_from(">I", data, _HEAD)
    except (binascii.Error, ValueError, struct.error):
        return None
    blob = data[_HEAD + 4 : _HEAD + 4 + length]
    return hashlib.sha256(blob).hexdigest() if data.startswith(_MAGIC) and len(blob) == length else None
