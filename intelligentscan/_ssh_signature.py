"""SSH signatures: public keys as OpenSSH writes them, and the signatures of `ssh-keygen -Y sign` (PROTOCOL.sshsig).

A signature counts only in its one exact form. What OpenSSH would tolerate, but nobody writes, is refused, because
a signature is evidence: certificates, hardware keys, RSA below 3072 bits or with SHA-1, other hashes than SHA-256
and SHA-512, keys to which everybody has the secret, other encodings of the same bytes.
"""

import base64
import binascii
import hashlib
import re
import struct
import textwrap
from collections.abc import Callable
from typing import cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from intelligentscan.domain.errors import InvalidArgument

PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

MAX_PUBLIC = 8 * 1024
MAX_PRIVATE = 64 * 1024
MAX_ARMOURED = 16 * 1024
_MIN_RSA_BITS, _MAX_RSA_BITS = 3072, 16_384
_MIN_RSA_EXPONENT = 65_537
_MAGIC = b"SSHSIG"
_VERSION = 1
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_LINE = 70
_HASHES: dict[bytes, Callable[[bytes], "hashlib._Hash"]] = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_CURVES: dict[str, tuple[str, HashAlgorithm]] = {
    "secp256r1": ("ecdsa-sha2-nistp256", SHA256()),
    "secp384r1": ("ecdsa-sha2-nistp384", SHA384()),
    "secp521r1": ("ecdsa-sha2-nistp521", SHA512()),
}
_RSA_HASHES: dict[bytes, HashAlgorithm] = {b"rsa-sha2-256": SHA256(), b"rsa-sha2-512": SHA512()}
_TYPES = ("ssh-ed25519", "ssh-rsa", *(kind for kind, _ in _CURVES.values()))
_KEY_LINE = re.compile(rf"({'|'.join(_TYPES)})[ \t]+([A-Za-z0-9+/]+={{0,2}})(?:[ \t]+[^\r\n]*)?")
_SMALL_ORDER = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Ed25519 points for which anybody can make signatures; their highest bit does not count."""
_KINDS = "use a key of type ssh-ed25519, ecdsa-sha2-nistp256/384/521, or ssh-rsa of at least 3072 bits"
_NEXT_PUBLIC = f"name the file that ends in .pub; {_KINDS}: ssh-keygen -t ed25519."
_NEXT_PRIVATE = f"name the private key's file, without .pub; {_KINDS}: ssh-keygen -t ed25519."
NO_BCRYPT = (
    "sign with 'ssh-keygen -Y sign' instead, which asks for the passphrase itself; "
    "'intelligentscan review enrol --help' shows how."
)


class PassphraseNeeded(InvalidArgument):
    """The private key is kept under a passphrase, and none was given."""


class _Unfit(ValueError):
    """A key that cannot count; its text may be shown, unlike that of a library, which may quote what it read."""


def public_key(text: str) -> str:
    """Return a public key as `type base64`, without the comment.

    Args:
        text: a line as in `id_ed25519.pub`, or a public key in PEM.

    Raises:
        InvalidArgument: it is no public key, or one of a kind that does not count.
    """
    said = text.strip()
    if len(said) > MAX_PUBLIC:
        raise InvalidArgument("The public key is too long.", next=_NEXT_PUBLIC)
    if "PRIVATE KEY" in said:
        raise InvalidArgument("This is a private key; nobody else may ever see it.", next=_NEXT_PUBLIC)
    try:
        if said.startswith("-----BEGIN PUBLIC KEY-----"):
            return _written(_counting(load_pem_public_key(said.encode())))
        match = _KEY_LINE.fullmatch(said)
        if match is None:
            raise _Unfit("it is of another kind, or none at all")
        key = f"{match[1]} {match[2]}"
        _parsed(key)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        why = exc if isinstance(exc, _Unfit) else "it cannot be read"
        raise InvalidArgument(f"This public key cannot count: {why}.", next=_NEXT_PUBLIC) from exc
    return key


def public_of(private: PrivateKey) -> str:
    """Return the public half of a private key, as `type base64`."""
    return _written(private.public_key())


def fingerprint(public: str) -> str:
    """Return the SHA-256 of a public key's blob, in hex.

    Raises:
        ValueError: the text is no key as `public_key` returns it.
    """
    return hashlib.sha256(_blob(public)).hexdigest()


def as_openssh_shows(digest: str) -> str:
    """Return a fingerprint in the form of `ssh-keygen -l`."""
    return f"SHA256:{base64.b64encode(bytes.fromhex(digest)).decode().rstrip('=')}"


def fingerprint_from(text: str) -> str | None:
    """Return a fingerprint in hex from either form, None if it is none."""
    said = text.strip()
    if re.fullmatch(r"[0-9a-fA-F]{64}", said):
        return said.lower()
    if re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}=?", said):
        return base64.b64decode(f"{said.removeprefix('SHA256:').rstrip('=')}=").hex()
    return None


def load_private_key(data: bytes, passphrase: str | None = None) -> PrivateKey:
    """Return a private key from the content of its file, in OpenSSH's form or PEM.

    Raises:
        PassphraseNeeded: it is kept under a passphrase and none was given.
        InvalidArgument: it is no private key, of a kind that does not count, or the passphrase is wrong.
    """
    if len(data) > MAX_PRIVATE:
        raise InvalidArgument("The file is too long for a private key.", next=_NEXT_PRIVATE)
    secret = passphrase.encode() if passphrase else None
    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        key = load(data, secret)
        _counting(key.public_key())
    except UnsupportedAlgorithm as exc:
        if "bcrypt" in str(exc):
            raise InvalidArgument(
                "A key under a passphrase in OpenSSH's form cannot be opened here: Python's bcrypt is missing.",
                next=NO_BCRYPT,
            ) from exc
        raise InvalidArgument("This private key is of a kind that cannot be read.", next=_NEXT_PRIVATE) from exc
    except TypeError as exc:
        if secret is not None:  # a passphrase for a key that needs none
            return load_private_key(data)
        raise PassphraseNeeded(
            "The private key is kept under a passphrase.", next="run the command at a terminal, which asks for it."
        ) from exc
    except ValueError as exc:
        unread = "the passphrase is wrong, or the file is damaged" if secret else "it cannot be read"
        wrong = exc if isinstance(exc, _Unfit) else unread
        raise InvalidArgument(f"The private key cannot be used: {wrong}.", next=_NEXT_PRIVATE) from exc
    return cast("PrivateKey", key)


def sign_sshsig(private_key: PrivateKey, namespace: str, message: bytes) -> str:
    """Return the armoured signature of a message, as `ssh-keygen -Y sign -n NAMESPACE` makes it.

    Args:
        private_key: who signs.
        namespace: what the signature is for; it does not count for anything else.
        message: what is signed.
    """
    public = public_of(private_key)
    signed = _signed_data(namespace, b"sha512", message)
    match private_key:
        case Ed25519PrivateKey():
            kind, raw = b"ssh-ed25519", private_key.sign(signed)
        case ec.EllipticCurvePrivateKey():
            name, algorithm = _CURVES[private_key.curve.name]
            r, s = decode_dss_signature(private_key.sign(signed, ec.ECDSA(algorithm)))
            kind, raw = name.encode(), _string(_mpint(r)) + _string(_mpint(s))
        case rsa.RSAPrivateKey():
            kind, raw = b"rsa-sha2-512", private_key.sign(signed, padding.PKCS1v15(), SHA512())
    parts = (_blob(public), namespace.encode(), b"", b"sha512", _string(kind) + _string(raw))
    blob = _MAGIC + struct.pack(">I", _VERSION) + b"".join(map(_string, parts))
    lines = textwrap.wrap(base64.b64encode(blob).decode(), _LINE)
    return "\n".join([_BEGIN, *lines, _END, ""])


def verify_sshsig(public: str, namespace: str, message: bytes, armored: str) -> bool:
    """Tell whether a message was signed by the owner of a public key for a namespace; False for any garbage.

    Args:
        public: the key, as `public_key` returns it.
        namespace: what the signature must be for.
        message: what must have been signed.
        armored: the signature's text.
    """
    try:
        key = _parsed(public)
        kind, raw, algorithm = _opened(armored, _blob(public), namespace)
        _verify(key, kind, raw, _signed_data(namespace, algorithm, message))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, AttributeError, struct.error):
        return False
    return True


def _opened(armored: str, key: bytes, namespace: str) -> tuple[bytes, bytes, bytes]:
    """Return the kind and the bytes of a signature, and the hash of what it signs."""
    if len(armored) > MAX_ARMOURED:
        raise ValueError("too long")
    lines = [line.rstrip("\r") for line in armored.strip().split("\n")]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise ValueError("no signature")
    rest = _decoded("".join(lines[1:-1]))
    head = _MAGIC + struct.pack(">I", _VERSION) + _string(key) + _string(namespace.encode()) + _string(b"")
    if not rest.startswith(head):
        raise ValueError("another key, namespace or version")
    algorithm, rest = _take(rest[len(head) :])
    if algorithm not in _HASHES:
        raise ValueError("another hash")
    signature, rest = _take(rest)
    kind, inner = _take(signature)
    raw, inner = _take(inner)
    if rest or inner:
        raise ValueError("trailing bytes")
    return kind, raw, algorithm


def _verify(key: PublicKey, kind: bytes, raw: bytes, signed: bytes) -> None:
    match key:
        case Ed25519PublicKey():
            _same(kind, b"ssh-ed25519")
            key.verify(raw, signed)
        case ec.EllipticCurvePublicKey():
            name, algorithm = _CURVES[key.curve.name]
            _same(kind, name.encode())
            first, rest = _take(raw)
            second, rest = _take(rest)
            _same(rest, b"")
            key.verify(encode_dss_signature(_natural(first), _natural(second)), signed, ec.ECDSA(algorithm))
        case rsa.RSAPublicKey():
            _same(len(raw), (key.key_size + 7) // 8)
            key.verify(raw, signed, padding.PKCS1v15(), _RSA_HASHES[_known(kind)])


def _signed_data(namespace: str, algorithm: bytes, message: bytes) -> bytes:
    if not namespace:
        raise ValueError("no namespace")
    digest = _HASHES[algorithm](message).digest()
    return _MAGIC + b"".join(map(_string, (namespace.encode(), b"", algorithm, digest)))


def _parsed(public: str) -> PublicKey:
    """Return the key of a text in its one form; raises ValueError for every other text."""
    if len(public) > MAX_PUBLIC or not _KEY_LINE.fullmatch(public):
        raise ValueError("no public key")
    key = _counting(load_ssh_public_key(public.encode()))
    _same(_written(key), public)
    return key


def _counting(key: object) -> PublicKey:
    """Return a public key if its signatures can count."""
    match key:
        case Ed25519PublicKey():
            point = bytearray(key.public_bytes_raw())
            point[31] &= 0x7F
            if bytes(point) in _SMALL_ORDER:
                raise _Unfit("everybody could sign for it")
        case ec.EllipticCurvePublicKey():
            if key.curve.name not in _CURVES:
                raise _Unfit(f"its curve is {key.curve.name}")
        case rsa.RSAPublicKey():
            if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
                raise _Unfit(f"it is an RSA key of {key.key_size} bits")
            if key.public_numbers().e < _MIN_RSA_EXPONENT:
                raise _Unfit("it is an RSA key with a small exponent")
        case _:
            raise _Unfit("it is of another kind")
    return key


def _written(key: PublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _blob(public: str) -> bytes:
    return _decoded(public.split(" ")[1]) if " " in public else _decoded("")


def _decoded(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc
    # Other texts decode to the same bytes; taking them would let a signature be altered unseen.
    if not data or base64.b64encode(data).decode() != text:
        raise ValueError("not base64")
    return data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """Return the first string of SSH's wire format, and what follows it."""
    size = struct.unpack_from(">I", data)[0]
    if size > len(data) - 4:
        raise ValueError("truncated")
    return data[4 : 4 + size], data[4 + size :]


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _natural(data: bytes) -> int:
    number = int.from_bytes(data, "big")
    _same(data, _mpint(number))  # neither negative nor padded
    return number


def _known(kind: bytes) -> bytes:
    if kind not in _RSA_HASHES:
        raise ValueError("another algorithm; SHA-1 does not count")
    return kind


def _same(one: object, other: object) -> None:
    if one != other:
        raise ValueError("not in its one form")
