"""Signing keys: kept where only their owner reads them, and what is taken as a signature or a trusted key."""

import base64
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_samples import new_key

from intelligentscan._public_keys import public_document, public_pem, read_trusted, trusted_keys
from intelligentscan._signing import KeyFolder, fingerprint, key_id_of, verify
from intelligentscan.domain.errors import InvalidArgument, KeyUnavailable

KEY = new_key()
SIGNATURE = KEY.sign(b"message")


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "home" / "keys")


def file_of(folder: KeyFolder, key_id: str) -> Path:
    return folder.path / f"{key_id}.pem"


def made_in_a_child(path: str) -> tuple[str, tuple[str, ...]]:
    """Make a key and look at all keys, in a process of its own."""
    folder = KeyFolder(Path(path))
    return folder.create().key_id, folder.key_ids()


def test_a_key_that_was_made_is_found_again_and_signs_the_same(folder: KeyFolder) -> None:
    made = folder.create()
    found = folder.get(made.key_id)
    assert found is not None
    assert (found.key_id, found.public) == (made.key_id, made.public)
    assert found.sign(b"message") == made.sign(b"message")
    assert verify(made.public, found.sign(b"message"), b"message")
    assert folder.key_ids() == (made.key_id,)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_enter_the_folder_and_read_the_key(folder: KeyFolder, umask: int) -> None:
    before = os.umask(umask)
    try:
        made = folder.create()
    finally:
        os.umask(before)
    assert stat.S_IMODE(file_of(folder, made.key_id).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert [p.name for p in folder.path.iterdir()] == [f"{made.key_id}.pem"]


def test_a_folder_that_is_not_there_holds_no_key_and_is_not_made_by_looking(folder: KeyFolder) -> None:
    assert folder.key_ids() == ()
    assert folder.get(KEY.key_id) is None
    assert not folder.can_read(KEY.key_id)
    assert not folder.path.exists()


@pytest.mark.parametrize("key_id", ["", "../secret", "0" * 31, "A" * 32, "0" * 32 + "\n", "0" * 32])
def test_an_id_of_no_key_finds_nothing(folder: KeyFolder, key_id: str) -> None:
    folder.create()
    (folder.path.parent / "secret.pem").write_text("x")
    assert folder.get(key_id) is None
    assert not folder.can_read(key_id)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused_with_the_cure(folder: KeyFolder, mode: int) -> None:
    made = folder.create()
    file_of(folder, made.key_id).chmod(mode)
    with pytest.raises(KeyUnavailable, match=f"open to other accounts \\(mode {mode:04o}\\)") as refusal:
        folder.get(made.key_id)
    cure = refusal.value.next.split(",")[0]
    assert cure.startswith("chmod 600 ")
    subprocess.run(cure, shell=True, check=True)
    assert folder.get(made.key_id) is not None


@pytest.mark.parametrize("act", [KeyFolder.create, KeyFolder.key_ids, lambda folder: folder.get(KEY.key_id)])
def test_a_folder_that_others_can_enter_is_refused_with_the_cure(
    folder: KeyFolder, act: Callable[[KeyFolder], object]
) -> None:
    folder.create()
    folder.path.chmod(0o750)
    with pytest.raises(KeyUnavailable, match="mode 0750") as refusal:
        act(folder)
    assert refusal.value.next.startswith("chmod 700 ")
    assert len(list(folder.path.iterdir())) == 1


def test_keys_of_another_account_are_refused(folder: KeyFolder) -> None:
    foreign = KeyFolder(Path("/usr"))
    if os.geteuid() == 0:
        folder.create()
        os.chown(folder.path, 65534, 65534)
        foreign = folder
    with pytest.raises(KeyUnavailable, match="belongs to another account"):
        foreign.key_ids()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_another_account_is_refused(folder: KeyFolder) -> None:
    made = folder.create()
    os.chown(file_of(folder, made.key_id), 65534, 65534)
    with pytest.raises(KeyUnavailable, match="belongs to another account"):
        folder.get(made.key_id)


def test_links_are_not_followed(folder: KeyFolder, tmp_path: Path) -> None:
    made = folder.create()
    file_of(folder, made.key_id).rename(tmp_path / "moved.pem")
    file_of(folder, made.key_id).symlink_to(tmp_path / "moved.pem")
    with pytest.raises(KeyUnavailable, match="cannot be read"):
        folder.get(made.key_id)
    (tmp_path / "link").symlink_to(folder.path)
    with pytest.raises(KeyUnavailable, match="is not a folder, or a link"):
        KeyFolder(tmp_path / "link").key_ids()


def encrypted(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


DAMAGED = {
    "empty": b"",
    "no PEM": b"\x00\xff" * 20,
    "encrypted": encrypted(Ed25519PrivateKey.generate()),
    "another kind": generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "another key": Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "too long": b"x" * 5000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_file_that_does_not_hold_its_key_is_refused(folder: KeyFolder, content: bytes) -> None:
    made = folder.create()
    file_of(folder, made.key_id).write_bytes(content)
    with pytest.raises(KeyUnavailable) as refusal:
        folder.get(made.key_id)
    assert "restore the file" in refusal.value.next


def test_a_pipe_in_the_place_of_a_key_is_refused_and_not_waited_for(folder: KeyFolder) -> None:
    made = folder.create()
    file_of(folder, made.key_id).unlink()
    os.mkfifo(file_of(folder, made.key_id), 0o600)
    with pytest.raises(KeyUnavailable, match="is not a key file"):
        folder.get(made.key_id)


def test_processes_that_make_keys_at_the_same_time_lose_none(folder: KeyFolder, children: ForkServerContext) -> None:
    with ProcessPoolExecutor(4, mp_context=children) as pool:
        answers = list(pool.map(made_in_a_child, [str(folder.path)] * 8))
    ids = {key_id for key_id, _ in answers}
    assert len(ids) == 8
    assert set(folder.key_ids()) == ids
    assert all(key_id in seen for key_id, seen in answers)
    assert all(folder.get(key_id) is not None for key_id in ids)
    assert {p.suffix for p in folder.path.iterdir()} == {".pem"}


def test_what_a_killed_process_left_is_no_key_and_goes_away_later(folder: KeyFolder) -> None:
    made = folder.create()
    left, young = folder.path / ".unfinished-0", folder.path / ".unfinished-1"
    for path in (left, young):
        path.write_bytes(b"half a key")
    os.utime(left, (0, 0))
    other = folder.create()
    assert set(folder.key_ids()) == {made.key_id, other.key_id}
    assert (left.exists(), young.exists()) == (False, True)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyUnavailable) as refusal:
        KeyFolder(tmp_path / "file" / "keys").create()
    assert "INTELLIGENTSCAN_HOME" in refusal.value.next


def test_a_key_is_within_reach_also_when_only_its_permissions_bar_the_owner(folder: KeyFolder) -> None:
    made = folder.create()
    file_of(folder, made.key_id).chmod(0)
    folder.path.chmod(0)
    try:
        assert folder.can_read(made.key_id)
    finally:
        folder.path.chmod(0o700)


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from intelligentscan._signing import KeyFolder
from intelligentscan.domain.errors import KeyUnavailable
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
folder = KeyFolder(Path(sys.argv[1]) / "keys")
made = folder.create()
print(folder.can_read(made.key_id), folder.can_read("0" * 32))
file = folder.path / f"{made.key_id}.pem"
for path, mode in ((file, 0), (folder.path, 0)):
    path.chmod(mode)
    print(folder.can_read(made.key_id))
    try:
        folder.get(made.key_id)
    except KeyUnavailable as exc:
        print(exc.message.rsplit("/", 1)[1].replace(made.key_id, "ID"))
try:
    folder.key_ids()
except KeyUnavailable as exc:
    print(exc.message.rsplit("/", 1)[1])
folder.path.chmod(0o500)
try:
    folder.create()
except KeyUnavailable as exc:
    print(exc.message.rsplit("/", 1)[1])
folder.path.chmod(0o700)
print(KeyFolder(Path("/root/keys")).can_read(made.key_id))
"""


def test_an_ordinary_account_is_told_what_bars_the_way_and_what_is_within_its_reach() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o777)
        ended = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, made], capture_output=True, text=True, check=True, timeout=60
        )
    assert ended.stdout.splitlines() == [
        "True False",
        "True",
        "ID.pem cannot be read (Permission denied).",
        "True",
        "keys cannot be read by this account.",
        "keys cannot be read by this account.",
        "keys cannot be written (Permission denied).",
        "False",
    ]


def test_a_key_shows_only_its_id(folder: KeyFolder) -> None:
    made = folder.create()
    assert repr(made) == f"SigningKey({made.key_id})"
    assert fingerprint(made.key_id).replace(" ", "") == made.key_id
    assert key_id_of(made.public) == made.key_id


GARBAGE: list[Any] = [
    None, 7, b"", [], "", "x", "=" * 88, "é" * 88, "\ud800", SIGNATURE[:-1], SIGNATURE + "\n", SIGNATURE * 2,
]  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_signature_and_no_public_key(garbage: Any) -> None:
    assert not verify(KEY.public, garbage, b"message")
    assert not verify(garbage, SIGNATURE, b"message")
    assert not verify(KEY.public, SIGNATURE, None)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.binary(max_size=200), st.text(max_size=100), st.text(max_size=100))
def test_only_what_the_key_signed_verifies(message: bytes, public: str, signature: str) -> None:
    assert verify(KEY.public, KEY.sign(message), message)
    assert not verify(KEY.public, signature, message)
    assert not verify(public, KEY.sign(message), message)
    assert verify(KEY.public, SIGNATURE, message) == (message == b"message")


def test_a_signature_has_one_form_only() -> None:
    # The last digit of the base64 carries four unused bits: other texts decode to the same bytes.
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = SIGNATURE[:-3] + digits[digits.index(SIGNATURE[-3]) ^ 1] + "=="
    assert base64.b64decode(other) == base64.b64decode(SIGNATURE)
    assert not verify(KEY.public, other, b"message")


OTHER = new_key()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (public_document([KEY.public]), {KEY.key_id}),
        (public_document([KEY.public, OTHER.public]), {KEY.key_id, OTHER.key_id}),
        (public_pem(KEY.public), {KEY.key_id}),
        (public_pem(KEY.public) + "\n" + public_pem(OTHER.public), {KEY.key_id, OTHER.key_id}),
        (KEY.public, {KEY.key_id}),
        (f"# the auditor's list\r\n{KEY.key_id}\r\n\r\n{OTHER.public}\r\n", {KEY.key_id, OTHER.key_id}),
        (fingerprint(KEY.key_id).upper(), {KEY.key_id}),
        (fingerprint(KEY.key_id).replace(" ", ":"), {KEY.key_id}),
    ],
    ids=("document", "document of two", "PEM", "PEM of two", "public half", "list", "fingerprint", "with colons"),
)
def test_trusted_keys_are_read_in_every_form_that_people_hand_on(text: str, ids: set[str], tmp_path: Path) -> None:
    assert trusted_keys(text) == ids
    file = tmp_path / "trusted"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_trusted(file) == ids


def private_pem() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def wrong_id() -> str:
    document = json.loads(public_document([KEY.public]))
    document["keys"][0]["key_id"] = OTHER.key_id
    return json.dumps(document)


@pytest.mark.parametrize(
    "text",
    [
        "", "# nothing\n", "{}", "{", '{"format":"intelligentscan public keys","v":1,"keys":[]}',
        '{"format":"intelligentscan public keys","v":1,"keys":[7]}', "[" * 100_000, "{" * 100_000, KEY.key_id[:8],
        KEY.public[:-2], f"{KEY.key_id} and more", wrong_id(), private_pem(), SIGNATURE,
        "-----BEGIN PUBLIC KEY-----\nxxxx\n-----END PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----",
        generate_private_key(SECP256R1()).public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        ).decode(),
    ],
    ids=range(17),
)  # fmt: skip
def test_what_names_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        trusted_keys(text)
    assert "intelligentscan keys export" in refusal.value.next


@settings(deadline=None)
@given(st.text())
def test_any_text_names_keys_or_is_refused(text: str) -> None:
    with suppress(InvalidArgument):
        assert trusted_keys(text)


def test_a_file_of_trusted_keys_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("#" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "long", "binary", "."):
        with pytest.raises(InvalidArgument):
            read_trusted(tmp_path / name)
