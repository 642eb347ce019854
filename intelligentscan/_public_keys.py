"""Public keys as people hand them on: what `keys export` writes, and what an auditor may name as trusted."""

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from intelligentscan._signing import KEY_ID, PUBLIC_BYTES, fingerprint, from_base64, key_id_of
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.text import visible

FORMAT = "intelligentscan public keys"
_MAX_BYTES = 64 * 1024
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_NEXT = "name the file that 'intelligentscan keys export' wrote, a PEM public key, or a key's id of 32 digits."


def public_document(publics: Iterable[str]) -> str:
    """Return public keys as the JSON document that `--trust` takes."""
    keys = [{"key_id": key_id_of(p), "public": p, "fingerprint": fingerprint(key_id_of(p))} for p in publics]
    return json.dumps({"format": FORMAT, "v": 1, "keys": keys}, indent=2) + "\n"


def public_pem(public: str) -> str:
    """Return a public key as PEM."""
    key = Ed25519PublicKey.from_public_bytes(from_base64(public, PUBLIC_BYTES))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read_trusted(path: Path) -> frozenset[str]:
    """Return the ids of the keys that a file names.

    Raises:
        InvalidArgument: the file cannot be read, or does not name public keys.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InvalidArgument(f"The file {visible(path.name)} is too long for public keys.", next=_NEXT)
        return trusted_keys(data.decode("utf-8-sig"))
    except OSError as exc:
        raise InvalidArgument(
            f"The file of trusted keys {visible(str(path))} cannot be read: {exc.strerror}.", next=_NEXT
        ) from exc
    except UnicodeDecodeError as exc:
        raise InvalidArgument(f"The file {visible(path.name)} is not text.", next=_NEXT) from exc


def trusted_keys(text: str) -> frozenset[str]:
    """Return the ids of the keys that a text names.

    Args:
        text: our JSON document, PEM public keys, or lines with a key id (32 hexadecimal digits, in groups if you like)
            or a public key in base64; lines that begin with # are left out.

    Raises:
        InvalidArgument: the text names no key, something else beside keys, or holds a private key.
    """
    if "PRIVATE KEY-----" in text:
        raise InvalidArgument(
            "That is a private key; it belongs to the account that signs and to nobody else.", next=_NEXT
        )
    if text.lstrip().startswith("{"):
        found = _from_document(text)
    elif "-----BEGIN" in text:
        found = [_from_pem(block) for block in _PEM.findall(text)]
    else:
        lines = (line.strip() for line in text.splitlines())
        found = [_from_line(line) for line in lines if line and not line.startswith("#")]
    if not found:
        raise InvalidArgument("No key is named as trusted.", next=_NEXT)
    return frozenset(found)


def _from_document(text: str) -> list[str]:
    try:
        document = json.loads(text)
        if document["format"] != FORMAT or document["v"] != 1:
            raise ValueError("another format")
        found = [(row["key_id"], key_id_of(row["public"])) for row in document["keys"]]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise InvalidArgument("The document does not hold public keys of this project.", next=_NEXT) from exc
    if any(stated != real for stated, real in found):
        raise InvalidArgument("The document gives a key an id that is not its own.", next=_NEXT)
    return [real for _, real in found]


def _from_pem(block: str) -> str:
    try:
        key = load_pem_public_key(block.encode())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise InvalidArgument("The PEM text is not a public key.", next=_NEXT) from exc
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidArgument("The PEM text is a key of another kind than Ed25519.", next=_NEXT)
    return key_id_of(base64.b64encode(key.public_bytes_raw()).decode())


def _from_line(line: str) -> str:
    key_id = re.sub("[ :-]", "", line).lower()
    if KEY_ID.fullmatch(key_id):
        return key_id
    try:
        return key_id_of(line)
    except ValueError as exc:
        raise InvalidArgument("A trusted key is neither a key id of 32 digits nor a public key.", next=_NEXT) from exc
