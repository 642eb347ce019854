"""SSH signatures: the same as OpenSSH's, and nothing else passes for one."""

import base64
import hashlib
import importlib.util
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from intelligentscan._ssh_signature import (
    MAX_ARMOURED,
    PassphraseNeeded,
    PrivateKey,
    as_openssh_shows,
    fingerprint,
    fingerprint_from,
    load_private_key,
    public_key,
    public_of,
    sign_sshsig,
    verify_sshsig,
)
from intelligentscan.domain.errors import InvalidArgument

NAMESPACE = "intelligentscan.review"
MESSAGE = b'{"review":"1"}'
KINDS = ("ed25519", "nistp256", "nistp384", "nistp521", "rsa")
SSH_KEYGEN = shutil.which("ssh-keygen")
needs_ssh_keygen = pytest.mark.skipif(SSH_KEYGEN is None, reason="ssh-keygen is not installed")


@cache
def private(kind: str) -> PrivateKey:
    match kind:
        case "ed25519" | "another":
            return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(kind.encode()).digest())
        case "rsa":
            return rsa.generate_private_key(65_537, 3072)
    curve = {"nistp256": ec.SECP256R1(), "nistp384": ec.SECP384R1(), "nistp521": ec.SECP521R1()}[kind]
    return ec.generate_private_key(curve)


def written(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def ssh_keygen(*arguments: object, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(SSH_KEYGEN), *map(str, arguments)], input=said, capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_counts_for_its_key_namespace_and_message_alone(kind: str) -> None:
    key = private(kind)
    public, signature = public_of(key), sign_sshsig(key, NAMESPACE, MESSAGE)
    assert verify_sshsig(public, NAMESPACE, MESSAGE, signature)
    assert not verify_sshsig(public, NAMESPACE, MESSAGE + b"\n", signature)
    assert not verify_sshsig(public, "intelligentscan.enrol", MESSAGE, signature)
    assert not verify_sshsig(public, "", MESSAGE, signature)
    assert not verify_sshsig(public_of(private("another")), NAMESPACE, MESSAGE, signature)


@needs_ssh_keygen
@pytest.mark.parametrize("kind", KINDS)
def test_openssh_takes_our_signatures_and_we_take_those_of_openssh(kind: str, tmp_path: Path) -> None:
    key, file = private(kind), tmp_path / "key"
    file.write_bytes(written(key))
    file.chmod(0o600)
    public, ours = public_of(key), sign_sshsig(key, NAMESPACE, MESSAGE)
    theirs = ssh_keygen("-Y", "sign", "-f", file, "-n", NAMESPACE, said=MESSAGE).stdout.decode()
    assert verify_sshsig(public, NAMESPACE, MESSAGE, theirs)
    sha256 = ssh_keygen("-Y", "sign", "-f", file, "-n", NAMESPACE, "-O", "hashalg=sha256", said=MESSAGE).stdout.decode()
    assert verify_sshsig(public, NAMESPACE, MESSAGE, sha256)
    assert not verify_sshsig(public, NAMESPACE, b"another", theirs)
    if kind in ("ed25519", "rsa"):  # the others hold a random number
        assert ours == theirs
    (tmp_path / "ours.sig").write_text(ours)
    (tmp_path / "allowed").write_text(f"ann {public}\n")
    options = ("-Y", "verify", "-f", tmp_path / "allowed", "-I", "ann", "-n", NAMESPACE, "-s", tmp_path / "ours.sig")
    assert ssh_keygen(*options, said=MESSAGE).returncode == 0
    assert ssh_keygen(*options, said=b"another").returncode != 0
    (tmp_path / "key.pub").write_text(public)
    assert as_openssh_shows(fingerprint(public)).encode() in ssh_keygen("-l", "-f", tmp_path / "key.pub").stdout


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_keys_that_openssh_makes_are_read_with_their_comments(kind: str, tmp_path: Path) -> None:
    made = ssh_keygen("-q", "-t", kind, "-b", "3072" if kind == "rsa" else "256", "-N", "", "-C", "ann at work",
                      "-f", tmp_path / "key")  # fmt: skip
    assert made.returncode == 0, made.stderr
    public = public_key((tmp_path / "key.pub").read_text())
    assert "ann" not in public
    assert public_of(load_private_key((tmp_path / "key").read_bytes())) == public


# Attacks on a signature


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def armoured(blob: bytes) -> str:
    return f"-----BEGIN SSH SIGNATURE-----\n{base64.b64encode(blob).decode()}\n-----END SSH SIGNATURE-----\n"


def blob_of(public: str) -> bytes:
    return base64.b64decode(public.split()[1])


@dataclass(frozen=True)
class Parts:
    """The parts of a signature by the key `ed25519`, each of which a forger may change."""

    magic: bytes = b"SSHSIG"
    version: int = 1
    public: bytes = field(default_factory=lambda: blob_of(public_of(private("ed25519"))))
    namespace: bytes = NAMESPACE.encode()
    reserved: bytes = b""
    algorithm: bytes = b"sha512"
    signed_algorithm: bytes = b"sha512"
    kind: bytes = b"ssh-ed25519"
    inner_tail: bytes = b""
    tail: bytes = b""
    signer: Callable[[bytes], bytes] = lambda data: private("ed25519").sign(data)  # type: ignore[call-arg, arg-type]

    def text(self) -> str:
        digest = hashlib.new(self.signed_algorithm.decode(), MESSAGE).digest()
        signed = b"SSHSIG" + b"".join(map(string, (self.namespace, self.reserved, self.signed_algorithm, digest)))
        signature = string(self.kind) + string(self.signer(signed)) + self.inner_tail
        parts = (self.public, self.namespace, self.reserved, self.algorithm, signature)
        return armoured(self.magic + struct.pack(">I", self.version) + b"".join(map(string, parts)) + self.tail)


def rsa_signer(algorithm: HashAlgorithm) -> Callable[[bytes], bytes]:
    return lambda data: private("rsa").sign(data, padding.PKCS1v15(), algorithm)  # type: ignore[call-arg, arg-type]


def public_rsa() -> bytes:
    return blob_of(public_of(private("rsa")))


def test_the_forger_of_these_tests_makes_a_good_signature_if_nothing_is_changed() -> None:
    assert verify_sshsig(public_of(private("ed25519")), NAMESPACE, MESSAGE, Parts().text())
    good = Parts(public=public_rsa(), kind=b"rsa-sha2-256", signer=rsa_signer(SHA256()))
    assert verify_sshsig(public_of(private("rsa")), NAMESPACE, MESSAGE, good.text())


@pytest.mark.parametrize(
    "forged",
    [
        Parts(magic=b"SSHSIH"),
        Parts(version=2),
        Parts(version=0),
        Parts(namespace=b"intelligentscan.review\0"),
        Parts(reserved=b"x"),
        Parts(algorithm=b"sha256"),  # swapped after signing
        Parts(algorithm=b"sha1", signed_algorithm=b"sha1"),
        Parts(algorithm=b"md5", signed_algorithm=b"md5"),
        Parts(algorithm=b"SHA512"),
        Parts(kind=b"ssh-ed25519-cert-v01@openssh.com"),
        Parts(kind=b"sk-ssh-ed25519@openssh.com"),
        Parts(kind=b"ssh-rsa"),
        Parts(inner_tail=b"\0"),
        Parts(tail=b"\0"),
        Parts(tail=string(b"more")),
        Parts(signer=lambda _data: b""),
        Parts(signer=lambda _data: b"\0" * 64),
        Parts(signer=lambda data: private("another").sign(data)),  # type: ignore[call-arg, arg-type]
        Parts(public=b""),
        Parts(public=string(b"ssh-ed25519") + string(b"\0" * 32)),
    ],
)
def test_a_signature_with_one_changed_part_does_not_count(forged: Parts) -> None:
    assert not verify_sshsig(public_of(private("ed25519")), NAMESPACE, MESSAGE, forged.text())


def test_rsa_signatures_with_sha1_do_not_count_however_they_are_called() -> None:
    public = public_of(private("rsa"))
    for kind in (b"ssh-rsa", b"rsa-sha2-256", b"rsa-sha2-512", b"rsa-sha1"):
        forged = Parts(public=public_rsa(), kind=kind, signer=rsa_signer(SHA1()))  # noqa: S303
        assert not verify_sshsig(public, NAMESPACE, MESSAGE, forged.text())
    padded = Parts(public=public_rsa(), kind=b"rsa-sha2-256", signer=lambda d: b"\0" + rsa_signer(SHA256())(d))
    assert not verify_sshsig(public, NAMESPACE, MESSAGE, padded.text())


def test_an_ecdsa_signature_has_one_encoding() -> None:
    key = private("nistp256")
    lines = sign_sshsig(key, NAMESPACE, MESSAGE).splitlines()
    blob = base64.b64decode("".join(lines[1:-1]))
    *head, signature = taken(blob[10:])
    kind, raw = taken(signature)
    r, s = taken(raw)

    def text(*numbers: bytes) -> str:
        inner = string(kind) + string(b"".join(map(string, numbers)))
        return armoured(blob[:10] + b"".join(map(string, head)) + string(inner))

    public = public_of(key)
    assert verify_sshsig(public, NAMESPACE, MESSAGE, text(r, s))
    for numbers in ((b"\0" + r, s), (r, b"\0\0" + s), (r,), (r, s, b""), (b"", b""), (s, r), (r, b"\xff" + s)):
        assert not verify_sshsig(public, NAMESPACE, MESSAGE, text(*numbers)), numbers


def taken(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def test_every_cut_and_every_flipped_byte_of_a_signature_is_seen() -> None:
    key = private("ed25519")
    public = public_of(key)
    blob = base64.b64decode("".join(sign_sshsig(key, NAMESPACE, MESSAGE).splitlines()[1:-1]))
    for at in range(len(blob)):
        assert not verify_sshsig(public, NAMESPACE, MESSAGE, armoured(blob[:at])), at
        flipped = blob[:at] + bytes([blob[at] ^ 0x40]) + blob[at + 1 :]
        assert not verify_sshsig(public, NAMESPACE, MESSAGE, armoured(flipped)), at


def texts() -> dict[str, str]:
    good = sign_sshsig(private("ed25519"), NAMESPACE, MESSAGE)
    body = "".join(good.splitlines()[1:-1])
    return {
        "empty": "",
        "no armour": body,
        "no end": good.rsplit("-----END", 1)[0],
        "other armour": good.replace("SSH SIGNATURE", "PGP SIGNATURE"),
        "two signatures": good + good,
        "text before": f"hello\n{good}",
        "not base64": good.replace(body[10:12], "!!"),
        "not ascii": good.replace(body[10:12], "éé"),
        "padding": good.replace("\n-----END", "====\n-----END"),
        "other spelling": good.replace(body[:70], f"{body[:70]}-"),
        "oversized": good.replace("\n-----END", "A" * MAX_ARMOURED + "\n-----END"),
        "huge length": armoured(b"SSHSIG" + struct.pack(">II", 1, 2**32 - 1)),
        "half a character": good.replace(body[10:12], "\ud800"),
    }


@pytest.mark.parametrize("what", texts())
def test_a_text_that_is_no_armoured_signature_does_not_count(what: str) -> None:
    assert not verify_sshsig(public_of(private("ed25519")), NAMESPACE, MESSAGE, texts()[what])


@given(st.text(max_size=300), st.text(max_size=300), st.binary(max_size=300))
def test_garbage_never_counts_and_never_raises(key: str, said: str, blob: bytes) -> None:
    public = public_of(private("ed25519"))
    good = sign_sshsig(private("ed25519"), NAMESPACE, MESSAGE)
    assert not verify_sshsig(public, NAMESPACE, MESSAGE, said)
    assert not verify_sshsig(public, NAMESPACE, MESSAGE, armoured(blob))
    assert not verify_sshsig(public, NAMESPACE, MESSAGE, armoured(b"SSHSIG\0\0\0\1" + blob))
    for shown in (key, f"ssh-ed25519 {key}", f"ssh-rsa {base64.b64encode(blob).decode()}", f"{public} {key}"):
        assert not verify_sshsig(shown, NAMESPACE, MESSAGE, good)
        with pytest.raises(InvalidArgument):
            public_key(shown if shown != f"{public} {key}" else key)


# Keys


def openssh(key: object) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()  # type: ignore[attr-defined]


def rsa_line(exponent: int, modulus: int) -> str:
    def number(value: int) -> bytes:
        return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))

    blob = string(b"ssh-rsa") + number(exponent) + number(modulus)
    return f"ssh-rsa {base64.b64encode(blob).decode()}"


def ed25519_line(point: bytes, tail: bytes = b"") -> str:
    blob = string(b"ssh-ed25519") + string(point) + tail
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


@cache
def unfit() -> dict[str, str]:
    good = public_of(private("ed25519"))
    point = blob_of(good)[-32:]
    modulus = private("rsa").public_key().public_numbers().n  # type: ignore[union-attr]
    return {
        "nothing": "",
        "words": "this is my key",
        "another kind in front": good.replace("ssh-ed25519 ", "ssh-rsa "),
        "hardware key": f"sk-ssh-ed25519@openssh.com {good.split()[1]}",
        "options in front": f'command="ls" {good}',
        "two keys": f"{good}\n{good}",
        "trailing bytes": ed25519_line(point, b"\0"),
        "short point": ed25519_line(point[:31]),
        "neutral point": ed25519_line(b"\1" + b"\0" * 31),
        "neutral point with a sign": ed25519_line(b"\1" + b"\0" * 30 + b"\x80"),
        "point of order two": ed25519_line(b"\xec" + b"\xff" * 30 + b"\x7f"),
        "RSA of 2048 bits": openssh(rsa.generate_private_key(65_537, 2048).public_key()),
        "RSA with exponent 3": rsa_line(3, modulus),
        "RSA with exponent 1": rsa_line(1, modulus),
        "DSA": openssh_dsa(),
        "too long": f"{good} {'x' * 10_000}",
        "private": written(private("ed25519")).decode(),
        "PEM of another kind": x25519.X25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        "PEM of another curve": ec.generate_private_key(ec.SECP256K1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
    }


def openssh_dsa() -> str:
    numbers = dsa.generate_private_key(1024).public_key().public_numbers()  # noqa: S505
    parts = (numbers.parameter_numbers.p, numbers.parameter_numbers.q, numbers.parameter_numbers.g, numbers.y)
    blob = string(b"ssh-dss") + b"".join(string(n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in parts)
    return f"ssh-dss {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize("what", unfit())
def test_a_key_that_cannot_count_is_refused_without_repeating_it(what: str) -> None:
    text = unfit()[what]
    with pytest.raises(InvalidArgument) as refused:
        public_key(text)
    assert refused.value.next
    assert not text or text[:200] not in str(refused.value)
    assert not verify_sshsig(text, NAMESPACE, MESSAGE, sign_sshsig(private("ed25519"), NAMESPACE, MESSAGE))


def test_a_key_has_one_written_form_and_verifying_asks_for_it() -> None:
    public = public_of(private("ed25519"))
    signature = sign_sshsig(private("ed25519"), NAMESPACE, MESSAGE)
    pem = private("ed25519").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for text in (public, f"{public} ann@work", f"  {public}\t comment \r\n", public.replace(" ", "\t"), pem):
        assert public_key(text) == public
    for text in (f"{public} ann@work", public.replace(" ", "  "), f"{public}\n"):
        assert not verify_sshsig(text, NAMESPACE, MESSAGE, signature)


def test_a_fingerprint_is_the_hash_of_the_blob_and_read_in_both_forms() -> None:
    public = public_of(private("ed25519"))
    digest = fingerprint(public)
    assert digest == hashlib.sha256(blob_of(public)).hexdigest()
    assert {fingerprint_from(text) for text in (digest, digest.upper(), as_openssh_shows(digest))} == {digest}
    assert [fingerprint_from(text) for text in ("", "SHA256:", digest[:-1], "MD5:00")] == [None] * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["OpenSSH", "PKCS8", "PKCS8 under a passphrase"])
def test_private_keys_are_read_in_every_form(kind: str, form: str) -> None:
    key = private(kind)
    if form == "OpenSSH":
        assert public_of(load_private_key(written(key))) == public_of(key)
        assert public_of(load_private_key(written(key), "needless")) == public_of(key)
        return
    hidden = BestAvailableEncryption(b"secret") if "passphrase" in form else NoEncryption()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)
    assert public_of(load_private_key(data, "secret")) == public_of(key)
    if "passphrase" in form:
        with pytest.raises(PassphraseNeeded):
            load_private_key(data)
        with pytest.raises(InvalidArgument, match="passphrase is wrong"):
            load_private_key(data, "wrong")


@needs_ssh_keygen
def test_an_openssh_key_under_a_passphrase_is_opened_or_the_error_says_how_to_sign_with_it(tmp_path: Path) -> None:
    ssh_keygen("-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "key")
    data = (tmp_path / "key").read_bytes()
    with pytest.raises(PassphraseNeeded):
        load_private_key(data)
    if importlib.util.find_spec("bcrypt") is None:
        with pytest.raises(InvalidArgument, match="bcrypt is missing") as refused:
            load_private_key(data, "secret")
        assert "ssh-keygen -Y sign" in refused.value.next
        return
    assert public_of(load_private_key(data, "secret")) == public_key((tmp_path / "key.pub").read_text())
    with pytest.raises(InvalidArgument, match="passphrase is wrong"):
        load_private_key(data, "wrong")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        public_of(private("ed25519")).encode(),
        b"x" * 100_000,
        rsa.generate_private_key(65_537, 2048).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
    ],
)
def test_what_is_no_private_key_that_counts_is_refused(data: bytes) -> None:
    for secret in (None, "secret"):
        with pytest.raises(InvalidArgument) as refused:
            load_private_key(data, secret)
        assert not isinstance(refused.value, PassphraseNeeded)
