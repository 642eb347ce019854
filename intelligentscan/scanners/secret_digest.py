"""Keyed digests of reported secrets: the same value is known again, and without the key nobody can confirm a guess.

A digest is HMAC-SHA-256 (RFC 2104) over the value, 128 bits of it, with a key that only this installation has; before
it, and a colon, stands which key that was, because digests of two keys say nothing about each other.
"""

import hashlib
import hmac
from pathlib import Path

from intelligentscan._local_key import local_key

_PURPOSE = "secret-digest/1"
_KEY_ID_DIGITS = 8
_DIGITS = 32


class SecretDigests:
    """Makes digests with one key, which it never shows."""

    __slots__ = ("_key", "key_id")

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 bytes."""
        self._key = key
        self.key_id = hmac.digest(key, b"key id", hashlib.sha256).hex()[:_KEY_ID_DIGITS]

    @staticmethod
    def of_home(home: Path) -> "SecretDigests":
        """Return the digests of an installation; blocks.

        Raises:
            KeyUnavailable: its local key cannot be used.
        """
        return SecretDigests(local_key(home, _PURPOSE))

    def digest(self, value: str) -> str:
        """Return the digest of a value, preceded by the id of the key."""
        data = b"value\0" + value.encode("utf-8", "surrogatepass")
        return f"{self.key_id}:{hmac.digest(self._key, data, hashlib.sha256).hex()[:_DIGITS]}"

    def __repr__(self) -> str:
        return f"SecretDigests({self.key_id})"
