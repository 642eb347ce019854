"""Events: their one canonical form, hash and signature; rows, exported lines and checkpoints of them."""

import base64
import hashlib
import io
import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_samples import NOW, PERSON, Trail, following, new_key, rehashed, trail_of

from intelligentscan.domain.errors import IntelligentScanError, InvalidArgument, Refused, TooLarge, TrailBroken
from intelligentscan.stores.governance.canonical import NotCanonical, canonical, parse_canonical
from intelligentscan.stores.governance.chain import (
    GENESIS_PREV,
    EventRecord,
    event_hash,
    record_from_row,
    row_from_record,
    signature_holds,
    signed_event,
    text_digest,
)
from intelligentscan.stores.governance.checkpoint import (
    Checkpoint,
    checkpoint_holds,
    checkpoint_place,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from intelligentscan.stores.governance.export import MAX_LINE_BYTES, export_line, read_export, write_export
from intelligentscan.stores.governance.key_events import BadKeyEvent, rotated_key, rotation_statement
from intelligentscan.stores.governance.report import Unreadable

KEY = new_key()
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(WORDS, JSON, max_size=4)
BODIES = st.fixed_dictionaries({"facts": OBJECTS, "rows": st.just({}), "text": OBJECTS})


def event(body: dict[str, Any] | None = None, **changed: Any) -> EventRecord:
    given: dict[str, Any] = {
        "seq": 7, "prev": "a" * 64, "at": NOW, "actor": PERSON, "action": "version.registered",
        "body": body or {"facts": {"n": 1}}, "workspace": "default", "name": "fraud", "version": 3,
    }  # fmt: skip
    return signed_event(KEY, **{**given, **changed})


@settings(deadline=None)
@given(JSON)
def test_canonical_json_is_that_of_rfc_8785_and_reads_back(value: Any) -> None:
    text = canonical(value).decode()
    assert text == rfc8785.dumps(value).decode()
    assert parse_canonical(text) == value
    assert canonical(parse_canonical(text)).decode() == text


@settings(deadline=None)
@given(JSON, st.sampled_from(["indent", "ascii", "unsorted", "space", "newline"]))
def test_another_way_to_write_the_same_value_is_not_taken(value: Any, way: str) -> None:
    text = canonical(value).decode()
    other = {
        "indent": json.dumps(value, indent=1),
        "ascii": json.dumps(value, sort_keys=True, separators=(",", ":")),
        "unsorted": json.dumps(dict(reversed(value.items())) if isinstance(value, dict) else value),
        "space": f" {text}",
        "newline": f"{text}\n",
    }[way]
    if other == text:
        assert parse_canonical(other) == value
    else:
        with pytest.raises(NotCanonical):
            parse_canonical(other)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "nul", "NaN", "Infinity", "-Infinity", '{"a":1,"a":1}', '{"a":1,"a":2}', "-0", "1.0", "1e0", "1E5",
        "10000000000000000000000", "9007199254740993", "1" * 5000, "1e999", '"\\ud800"', '"\ud800"', '"\\u0041"',
        '"\\/"', '{"b":1,"a":1}', '{"\\uffff":1,"\\ud83d\\ude00":1}', '{"\uffff":1,"\U0001f600":1}', "[" * 100_000,
        '{"a":' * 100_000, "1 2",
    ],
    ids=range(26),
)  # fmt: skip
def test_what_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(NotCanonical):
        parse_canonical(text)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_canonical_or_refused(text: str) -> None:
    try:
        value = parse_canonical(text)
    except NotCanonical:
        return
    assert canonical(value).decode() == text


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (math.nan, "not finite"), (math.inf, "not finite"), (2**53, "2\\*\\*53"), (-(10**400), "2\\*\\*53"),
        (10**6000, "2\\*\\*53"), ("\ud800", "half a character"), ({"\udfff": 1}, "half a character"),
        ({1: 2}, "keys must be strings"), (b"x", "cannot be kept as JSON"), ({"a", "b"}, "cannot be kept"),
        (nested(65), "deeper than 64"),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_value_that_cannot_be_kept_exactly_is_refused_before_it_is_signed(value: Any, fact: str) -> None:
    with pytest.raises(InvalidArgument, match=fact) as refusal:
        event({"facts": {"deep": [value]} if fact != "deeper than 64" else value})
    assert refusal.value.next


def test_the_hash_is_of_the_agreed_document() -> None:
    made = event({"facts": {"é": [1.5, 1e20, None, True]}, "rows": {}, "text": {}}, on_behalf_of="p", run_id="r")
    document = {
        "v": 1, "seq": 7, "at": NOW, "actor": PERSON, "on_behalf_of": "p", "action": "version.registered",
        "experiment_id": None, "workspace": "default", "name": "fraud", "version": 3, "run_id": "r",
        "body": {"facts": {"é": [1.5, 1e20, None, True]}, "rows": {}, "text": {}}, "prev": "a" * 64,
        "key_id": KEY.key_id,
    }  # fmt: skip
    assert made.hash == hashlib.sha256(rfc8785.dumps(document)).hexdigest()  # type: ignore[arg-type]
    signed = b"intelligentscan.event.v1\0" + bytes.fromhex(made.hash)
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(KEY.public))
    public.verify(base64.b64decode(made.signature), signed)
    assert KEY.key_id == hashlib.sha256(base64.b64decode(KEY.public)).hexdigest()[:32]


@settings(deadline=None)
@given(BODIES, WORDS.filter(lambda w: w and "\0" not in w), st.none() | st.integers(0, 2**31 - 1))
def test_every_event_hashes_as_the_library_says_and_survives_row_and_line(
    body: dict[str, Any], name: str, version: int | None
) -> None:
    made = event(body, name=name, action=name, version=version)
    fields = {**row_from_record(made), "v": 1, "body": body}
    line = rfc8785.dumps(fields)
    del fields["hash"], fields["signature"]
    assert made.hash == hashlib.sha256(rfc8785.dumps(fields)).hexdigest()
    assert made.body == body
    assert record_from_row(row_from_record(made)) == made
    assert export_line(made) == line + b"\n"
    assert signature_holds(made, KEY.public)


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 8}, {"at": NOW + 1}, {"actor": "x"}, {"on_behalf_of": "x"}, {"action": "x"}, {"experiment_id": "1"},
        {"workspace": "x"}, {"name": "x"}, {"name": None}, {"version": 4}, {"version": None}, {"run_id": "x"},
        {"body_text": "{}"}, {"prev": "b" * 64}, {"hash": "b" * 64}, {"key_id": "0" * 32},
        {"signature": KEY.sign(b"other")}, {"name": "\ud800"},
    ],
)  # fmt: skip
def test_no_field_can_change_under_the_signature(changes: dict[str, Any]) -> None:
    made = event()
    assert signature_holds(made, KEY.public)
    assert not signature_holds(replace(made, **changes), KEY.public)
    if "name" not in changes or changes["name"] != "\ud800":
        assert not signature_holds(rehashed(made, **changes), KEY.public) or "hash" in changes
    assert not signature_holds(made, new_key().public)
    assert not signature_holds(made, "garbage")


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": ""}, {"actor": "x" * 65}, {"actor": None}, {"action": "x" * 65}, {"name": "x" * 257}, {"name": 7},
        {"name": "a\0b"}, {"name": "\ud800"}, {"workspace": "x" * 64}, {"experiment_id": ""}, {"run_id": "x" * 65},
        {"seq": 0}, {"seq": True}, {"seq": 2**53}, {"at": -1}, {"at": 1.5}, {"version": -1}, {"version": 2**31},
        {"prev": ""}, {"prev": "A" * 64}, {"body": {"more": {}}}, {"body": {"facts": []}},
    ],
)  # fmt: skip
def test_what_a_column_cannot_hold_is_refused_before_it_is_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        event(**changes)


def test_a_body_that_no_reader_would_take_is_refused() -> None:
    with pytest.raises(TooLarge):
        event({"facts": {"x": "y" * 4 * 1024 * 1024}})


ROW = row_from_record(event())


@pytest.mark.parametrize("field", ROW)
@pytest.mark.parametrize(
    "value",
    ["", "x", -1, 2**60, 1.5, True, b"x", None, [], "é" * 64, pytest.param(KEY.key_id + "\n", id="a key")],
)
def test_a_row_of_other_types_is_no_event_or_does_not_verify(field: str, value: Any) -> None:
    try:
        made = record_from_row({**ROW, field: value})
    except TrailBroken as exc:
        assert field in exc.message
        return
    assert not signature_holds(made, KEY.public) or value == ROW[field]


def test_a_row_without_a_column_is_no_event() -> None:
    for field in ROW:
        with pytest.raises(TrailBroken):
            record_from_row({k: v for k, v in ROW.items() if k != field})


def test_a_body_that_is_not_canonical_is_not_read() -> None:
    for text in ('{"b":1,"a":1}', "[]", "7", '{"a":NaN}', "{} "):
        with pytest.raises(TrailBroken, match="body of event 7"):
            _ = replace(event(), body_text=text).body


def test_a_free_text_is_bound_by_its_salt() -> None:
    assert text_digest(b"salt", "höhe") == hashlib.sha256("salthöhe".encode()).hexdigest()
    with pytest.raises(InvalidArgument):
        text_digest(b"salt", "\ud800")


def test_a_rotation_is_signed_by_both_keys_for_this_place_of_this_trail() -> None:
    trail = trail_of(3)
    old, new, other = trail.keys[-1], new_key(), new_key()
    rotation = trail.rotate(new)
    assert rotated_key(rotation, old.public).key_id == new.key_id
    facts = rotation.body["facts"]
    statement = b"intelligentscan.rotate.v1\0" + (rotation.prev + old.key_id + new.public).encode()
    assert rotation_statement(rotation.prev, old.key_id, new.public) == statement
    assert facts == {"key_id": new.key_id, "public": new.public, "new_signature": new.sign(statement)}
    assert rotation.body["rows"] == {"signing_key": [{"key_id": new.key_id, "public": new.public}]}
    for wrong in (
        {"new_signature": other.sign(statement)}, {"new_signature": old.sign(statement)}, {"new_signature": None},
        {"new_signature": new.sign(statement + b"x")}, {"public": other.public}, {"key_id": other.key_id},
        {"new_signature": new.sign(rotation_statement(trail.events[0].hash, old.key_id, new.public))},
    ):  # fmt: skip
        body = {"facts": {**facts, **wrong}, "rows": rotation.body["rows"]}
        forged = following(trail.events[-2], old, "key.rotated", body)
        with pytest.raises(BadKeyEvent):
            rotated_key(forged, old.public)
    for signer in (new, other):
        with pytest.raises(BadKeyEvent, match="not signed by the key in force"):
            rotated_key(following(trail.events[-2], signer, "key.rotated", rotation.body), old.public)


BAD_ROWS: list[Any] = [
    {}, {"signing_key": []}, {"signing_key": [7]}, {"signing_key": [{}, {}]}, {"signing_key": 7},
    {"signing_key": [{"key_id": KEY.key_id, "public": "x"}]}, {"signing_key": [{"key_id": "x", "public": KEY.public}]},
    {"signing_key": [{"key_id": KEY.key_id, "public": 7}]},
]  # fmt: skip


@pytest.mark.parametrize("rows", BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_a_rotation_without_its_key_is_refused(rows: Any) -> None:
    trail = trail_of(2)
    facts = {"key_id": KEY.key_id, "public": KEY.public, "new_signature": ""}
    forged = following(trail.head, trail.keys[0], "key.rotated", {"facts": facts, "rows": rows})
    with pytest.raises(BadKeyEvent):
        rotated_key(forged, trail.keys[0].public)


def exported(trail: Trail, path: Path) -> Path:
    with path.open("wb") as stream:
        assert write_export(trail.events, stream) == len(trail.events)
    return path


def test_an_exported_trail_reads_back(tmp_path: Path) -> None:
    trail = trail_of(20, rotate_at=(7,))
    file = exported(trail, tmp_path / "trail.jsonl")
    assert list(read_export(file)) == trail.events
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert list(read_export(file)) == trail.events


LINE = export_line(event())


def with_changed(old: bytes, new: bytes) -> bytes:
    """Return the line with one place changed."""
    assert LINE.count(old) == 1
    return LINE.replace(old, new)


@pytest.mark.parametrize(
    "line",
    [
        b"x", b"{}", b"[]", b"7", b"null", b"\xff\xfe", b"\x00", b"[" * 50_000, b'{"a":' + b"9" * 5000 + b"}",
        LINE[:-2], LINE[:100], b" " + LINE, b"\xef\xbb\xbf" + LINE, LINE.replace(b"==", b""),
        with_changed(b'"seq":7', b'"seq":"7"'), with_changed(b'"seq":7', b'"seq":7.5'),
        with_changed(b'"seq":7', b'"seq":true'), with_changed(b'"seq":7', b'"seq":-7'),
        with_changed(b'"seq":7', b'"seq":7,"seq":7'), with_changed(b'"v":1', b'"v":2'),
        with_changed(b'"v":1', b'"v":true'), with_changed(b'{"facts":{"n":1}}', b"[]"),
        with_changed(b'{"facts":{"n":1}}', b'"{}"'), with_changed(b'{"facts"', b'{ "facts"'),
        with_changed(b'"fraud"', b'["fraud"]'), with_changed(b'"fraud"', b'"\\ud800"'),
        with_changed(b'"name":"fraud",', b""), with_changed(b'"name":"fraud"', b'"more":1,"name":"fraud"'),
    ],
    ids=range(28),
)  # fmt: skip
def test_a_line_that_is_no_event_is_said_with_its_number_and_reading_goes_on(line: bytes, tmp_path: Path) -> None:
    file = tmp_path / "trail.jsonl"
    file.write_bytes(LINE + line.rstrip(b"\n") + b"\n" + LINE)
    first, found, last = read_export(file)
    assert first == last == event()
    assert isinstance(found, Unreadable)
    assert found.place == "line 2"
    assert found.why


def test_a_line_without_end_is_not_taken_into_memory(tmp_path: Path) -> None:
    file = tmp_path / "trail.jsonl"
    file.write_bytes(LINE + b"{" * (3 * MAX_LINE_BYTES) + b"\n" + LINE + b"[" * (MAX_LINE_BYTES + 1))
    found = list(read_export(file))
    assert [f.place if isinstance(f, Unreadable) else f.seq for f in found] == [7, "line 2", 7, "line 4"]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(LINE) - 2), st.integers(0, 255))
def test_no_byte_of_a_line_can_change_unseen(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    changed = LINE[:at] + bytes([byte]) + LINE[at + 1 :]
    file = tmp_path_factory.getbasetemp() / "changed.jsonl"
    file.write_bytes(changed)
    for found in read_export(file):
        holds = isinstance(found, EventRecord) and signature_holds(found, KEY.public)
        assert holds == (changed == LINE)


def test_the_largest_body_survives_its_line(tmp_path: Path) -> None:
    made = event({"facts": {"x": "\0" * 699_000}}, name="\1" * 256, action="\1" * 64)
    file = tmp_path / "trail.jsonl"
    file.write_bytes(export_line(made))
    assert list(read_export(file)) == [made]


def test_a_trail_with_an_unreadable_entry_is_not_exported() -> None:
    with pytest.raises(TrailBroken, match="cannot be exported as a whole"):
        write_export([event(), Unreadable("the entry after event 7", "it is not")], io.BytesIO())


def test_an_export_that_is_not_there_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, Path("/dev/zero")):
        with pytest.raises(InvalidArgument):
            list(read_export(path))


def test_a_checkpoint_is_kept_once_and_reads_back(tmp_path: Path) -> None:
    trail = trail_of(5)
    kept = trail.checkpoint()
    path = write_checkpoint(tmp_path, kept)
    assert path.name == "checkpoint-000000000005.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert read_checkpoint(path) == kept
    assert checkpoint_holds(kept)
    again = replace(trail.checkpoint(), at=NOW + 1)
    assert write_checkpoint(tmp_path, again) == path
    assert read_checkpoint(path) == kept
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_of_another_state_with_the_same_number_is_refused(tmp_path: Path) -> None:
    kept = trail_of(5).checkpoint()
    path = write_checkpoint(tmp_path, kept)
    with pytest.raises(Refused, match="saw another state"):
        write_checkpoint(tmp_path, trail_of(5).checkpoint())
    assert read_checkpoint(path) == kept
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_signature_of_a_checkpoint_is_over_the_rest_of_its_document(tmp_path: Path) -> None:
    kept = trail_of(2).checkpoint()
    document = json.loads(write_checkpoint(tmp_path, kept).read_text())
    signature = base64.b64decode(document.pop("signature"))
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(document["public"]))
    public.verify(signature, b"intelligentscan.checkpoint.v1\0" + rfc8785.dumps(document))


@pytest.mark.parametrize("field", ["seq", "hash", "at", "key_id", "public", "signature"])
def test_no_field_of_a_checkpoint_can_change_under_its_signature(field: str) -> None:
    kept, other = trail_of(4).checkpoint(), replace(trail_of(5).checkpoint(), at=NOW + 9)
    assert not checkpoint_holds(replace(kept, **{field: getattr(other, field)}))
    assert not checkpoint_holds(replace(kept, public="x"))


GOOD = asdict(trail_of(2).checkpoint())


@pytest.mark.parametrize(
    "document",
    [
        b"", b"x", b"[]", b"{}", b"x" * 10_000, b"\xff", canonical({**GOOD, "v": 1}),
        canonical({**GOOD, "v": 1, "format": "x"}), canonical({**GOOD, "v": 2, "format": "intelligentscan checkpoint"}),
        *(
            canonical({**GOOD, "v": 1, "format": "intelligentscan checkpoint", **wrong})
            for wrong in (
                {"more": 1}, {"seq": "2"}, {"seq": 0}, {"seq": True}, {"seq": 1.5}, {"hash": "x"}, {"at": None},
                {"key_id": "../x"}, {"v": True}, {"signature": ["x"]},
            )
        ),
    ],
    ids=range(19),
)  # fmt: skip
def test_a_file_that_is_no_checkpoint_is_refused(document: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000000000002.json").write_bytes(document)
    with pytest.raises(InvalidArgument, match="is not a checkpoint"):
        latest_checkpoint(tmp_path)


def test_the_latest_checkpoint_of_a_folder_is_found(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "missing") is None
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-x.json").write_text("other")
    trail = trail_of(11)
    for seq in (9, 11, 2):
        write_checkpoint(tmp_path, trail.checkpoint(seq))
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.seq == 11


def test_a_folder_for_checkpoints_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(InvalidArgument, match="cannot be written") as refusal:
            write_checkpoint(folder, trail_of(2).checkpoint())
        assert "INTELLIGENTSCAN_CHECKPOINT_DIR" in refusal.value.next


def test_a_folder_of_our_own_is_within_our_reach_whatever_its_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert checkpoint_place(folder).exists is False
    folder.mkdir(mode=0o500)
    place = checkpoint_place(folder)
    assert (place.exists, place.alterable) == (True, True)
    (tmp_path / "file").write_text("")
    assert checkpoint_place(tmp_path / "file").exists is False


PLACES = """
import os, sys
from pathlib import Path
from intelligentscan.stores.governance.checkpoint import checkpoint_place
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
for path in sys.argv[1:]:
    place = checkpoint_place(Path(path))
    print(place.exists, place.addable, place.alterable)
"""


def test_only_a_folder_that_another_account_holds_all_the_way_is_out_of_our_reach() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PLACES, "/usr/share", "/tmp"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.splitlines() == ["True False False", "True True True"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_foreign_folder_below_one_of_our_own_can_be_replaced_by_us(tmp_path: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        ours, foreign = Path(made) / "ours", Path(made) / "ours" / "foreign"
        foreign.mkdir(parents=True)
        Path(made).chmod(0o755)
        os.chown(ours, 65534, 65534)
        ended = subprocess.run(
            [sys.executable, "-c", PLACES, str(foreign)], capture_output=True, text=True, check=True, timeout=60
        )
    assert ended.stdout.split() == ["True", "False", "True"]


def test_signed_things_of_one_kind_are_not_taken_for_another() -> None:
    trail = trail_of(3)
    kept = trail.checkpoint()
    as_event = replace(trail.head, signature=kept.signature)
    assert not signature_holds(as_event, trail.keys[0].public)
    assert not checkpoint_holds(Checkpoint(3, trail.head.hash, NOW, kept.key_id, kept.public, trail.head.signature))


def test_every_refusal_says_what_to_do_next() -> None:
    for act in (
        lambda: event(actor=""), lambda: record_from_row({}), lambda: event({"facts": {"x": math.nan}}),
        lambda: read_checkpoint(Path("/nowhere")), lambda: event_hash(replace(event(), name="\ud800")),
        lambda: export_line(replace(event(), name="\ud800")),
    ):  # fmt: skip
        with pytest.raises(IntelligentScanError) as refusal:
            act()
        assert refusal.value.next


def test_the_first_event_follows_nothing() -> None:
    assert GENESIS_PREV == "0" * 64
    assert Trail().head.prev == GENESIS_PREV
