"""The auditor's verifier against people who tamper: each kind of forgery is named, and honest trails always pass."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_samples import PERSON, Trail, following, new_key, rehashed, resigned, trail_of

from intelligentscan.stores.governance.chain import EventRecord
from intelligentscan.stores.governance.checkpoint import Checkpoint
from intelligentscan.stores.governance.export import export_line, read_export, write_export
from intelligentscan.stores.governance.key_events import genesis_event, rotation_event
from intelligentscan.stores.governance.report import ChainReport, Unreadable
from intelligentscan.stores.governance.verify import verify_chain

BOTH = pytest.mark.parametrize("full", [True, False], ids=["full", "cheap"])
FEW = settings(max_examples=25, deadline=None)
ATTACKER = new_key()


def check(
    events: list[EventRecord], *, full: bool = True, trusted: set[str] | None = None, **given: Any
) -> ChainReport:
    return verify_chain(iter(events), full_signatures=full, trusted=trusted, **given)


def codes(report: ChainReport) -> set[str]:
    assert report.problem_count >= len(report.problems)
    assert report.ok == (not report.problems)
    return {problem.code for problem in report.problems}


@st.composite
def trails(draw: st.DrawFn, least: int = 2, most: int = 10) -> Trail:
    """Random honest trails, some with rotations, one in five with the key rotated last."""
    trail = Trail()
    for what in draw(st.lists(st.sampled_from(["event"] * 4 + ["rotate"]), min_size=least - 1, max_size=most - 1)):
        if what == "rotate":
            trail.rotate()
        else:
            trail.append(body={"facts": {"n": draw(st.integers(0, 9))}}, name=draw(st.sampled_from(["a", "ä", "b"])))
    return trail


@BOTH
@FEW
@given(trail=trails(least=1), data=st.data())
def test_an_honest_trail_verifies_with_any_of_its_keys_and_any_of_its_checkpoints(
    full: bool, trail: Trail, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(trail.keys))
    kept = trail.checkpoint(key=trail.keys[-1])
    report = check(trail.events, full=full, trusted={key.key_id, "0" * 32}, checkpoint=kept)
    assert report.problems == ()
    assert (report.verdict, report.trusted, report.checkpoint) == ("verified", "yes", "matches")
    assert (report.events, report.first, report.last) == (len(trail.events), 1, len(trail.events))
    assert report.head_hash == trail.head.hash
    assert [k.key_id for k in report.keys] == [k.key_id for k in trail.keys]
    ranges = [(k.first, k.last) for k in report.keys]
    assert ranges[0][0] == 1
    assert ranges[-1][1] is None
    assert all(last is not None and first == last + 1 for (_, last), (first, _) in pairwise(ranges))


@BOTH
def test_without_a_trusted_key_nobody_knows_who_signed(full: bool) -> None:
    report = check(trail_of(4).events, full=full)
    assert report.ok
    assert (report.trusted, report.verdict) == ("unknown", "self-consistent, signer unknown")


FIELDS: dict[str, Any] = {
    "at": 5, "actor": "x", "on_behalf_of": "x", "action": "x", "experiment_id": "7", "workspace": "x", "name": "x",
    "version": 77, "run_id": "x", "body_text": '{"facts":{"n":77}}', "key_id": ATTACKER.key_id,
}  # fmt: skip


@BOTH
@FEW
@given(trail=trails(), data=st.data())
def test_an_edit_of_any_field_of_any_event_is_found_also_with_a_fitting_hash(
    full: bool, trail: Trail, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(trail.events) - 1))
    field = data.draw(st.sampled_from(sorted(FIELDS)))
    events = list(trail.events)
    events[at] = replace(events[at], **{field: FIELDS[field]})
    report = check(events, full=full)
    assert any(problem.seq == at + 1 and problem.code == "EDITED" for problem in report.problems)
    assert report.prefix is None
    events[at] = rehashed(events[at])
    report = check(events, full=full)
    assert not report.ok
    assert codes(report) <= {
        "BROKEN_LINK", "BAD_SIGNATURE", "BAD_GENESIS", "BAD_ROTATION", "UNKNOWN_KEY", "NOT_CANONICAL",
    }  # fmt: skip


@BOTH
@FEW
@given(trail=trails(), data=st.data())
def test_an_edit_with_all_later_hashes_fitted_is_found(full: bool, trail: Trail, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(trail.events) - 1))
    events = list(trail.events)
    events[at] = rehashed(events[at], actor="x")
    for i in range(at + 1, len(events)):
        events[i] = rehashed(events[i], prev=events[i - 1].hash)
    report = check(events, full=full)
    assert not report.ok
    if full and at:  # without a first key, nothing after it can be judged
        assert report.problem_count >= len(events) - at


@BOTH
@FEW
@given(trail=trails(least=3), data=st.data())
def test_a_body_that_was_swapped_with_another_events_is_found(full: bool, trail: Trail, data: st.DataObject) -> None:
    for seq in (2, 3):
        trail.append(body={"facts": {"number": seq + data.draw(st.integers(0, 3)) * 2}})
    events = list(trail.events)
    a, b = events[-2], events[-1]
    events[-2:] = [replace(a, body_text=b.body_text), replace(b, body_text=a.body_text)]
    assert codes(check(events, full=full)) == {"EDITED"}


@BOTH
@FEW
@given(trail=trails(least=4), data=st.data())
def test_an_event_that_was_taken_out_is_found_also_after_renumbering(
    full: bool, trail: Trail, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(trail.events) - 2))
    events = trail.events[:at] + trail.events[at + 1 :]
    report = check(events, full=full)
    assert "GAP" in codes(report)
    assert any(f"Event {at + 1} is missing." in problem.message for problem in report.problems)
    renumbered = [replace(event, seq=i + 1) for i, event in enumerate(events)]
    assert "EDITED" in codes(check(renumbered, full=full))
    rechained: list[EventRecord] = []
    for event in renumbered:
        rechained.append(rehashed(event, prev=rechained[-1].hash if rechained else event.prev))
    assert not check(rechained, full=full).ok


@BOTH
@FEW
@given(trail=trails(least=4), data=st.data())
def test_events_in_another_order_are_found(full: bool, trail: Trail, data: st.DataObject) -> None:
    events = data.draw(st.permutations(trail.events))
    assert check(events, full=full).ok == (events == trail.events)


@BOTH
@FEW
@given(trail=trails(), data=st.data())
def test_an_event_that_comes_twice_is_found(full: bool, trail: Trail, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(trail.events) - 1))
    events = [*trail.events[: at + 1], trail.events[at], *trail.events[at + 1 :]]
    report = check(events, full=full)
    assert codes(report) == {"REPEATED"}
    assert report.problem_count == 1


@BOTH
@FEW
@given(trail=trails(least=3), data=st.data())
def test_a_tail_that_was_cut_off_anywhere_shows_only_against_a_checkpoint_or_an_earlier_check(
    full: bool, trail: Trail, data: st.DataObject
) -> None:
    left = data.draw(st.integers(1, len(trail.events) - 1))
    key = {trail.keys[0].key_id, trail.keys[-1].key_id}
    cut = trail.events[:left]
    assert check(cut, full=full, trusted=key).ok
    report = check(cut, full=full, trusted=key, checkpoint=trail.checkpoint())
    assert (codes(report), report.checkpoint, report.trusted) == ({"CUT_TAIL"}, "contradicted", "no")
    known = check(trail.events, full=full).prefix
    assert known is not None
    since = [event for event in cut if event.seq >= known.seq]
    assert codes(check(since, full=full, after=known)) == {"CUT_TAIL"}
    assert "CUT_TAIL" in codes(check([], full=full, trusted=key, checkpoint=trail.checkpoint()))


@BOTH
@FEW
@given(trail=trails(least=3), data=st.data())
def test_a_rollback_that_went_on_differently_shows_against_a_checkpoint_and_against_an_earlier_check(
    full: bool, trail: Trail, data: st.DataObject
) -> None:
    left = data.draw(st.integers(1, len(trail.events) - 1))
    known, kept = check(trail.events, full=full).prefix, trail.checkpoint()
    in_force = next(k for k in trail.keys if k.key_id == check(trail.events[:left], full=full).keys[-1].key_id)
    events = trail.events[:left]
    while len(events) < len(trail.events) + 2:
        events.append(following(events[-1], in_force, "model.forgotten"))
    assert check(events, full=full).ok
    trusted = {trail.keys[-1].key_id, in_force.key_id}
    assert codes(check(events, full=full, trusted=trusted, checkpoint=kept)) == {"REWRITTEN"}
    assert known is not None
    assert "REWRITTEN" in codes(check(events[known.seq - 1 :], full=full, after=known))


@BOTH
@FEW
@given(trail=trails(least=3), data=st.data())
def test_a_fork_in_an_exported_trail_is_found_wherever_its_branch_was_put(
    full: bool, trail: Trail, data: st.DataObject
) -> None:
    at = data.draw(st.integers(1, len(trail.events) - 1))
    key = next(k for k in trail.keys if k.key_id == trail.events[at].key_id)
    branch = [following(trail.events[at - 1], key, "model.forgotten")]
    for _ in range(data.draw(st.integers(0, 2))):
        branch.append(following(branch[-1], key))
    behind = data.draw(st.integers(at + 1, len(trail.events)))
    events = [*trail.events[:behind], *branch, *trail.events[behind:]]
    report = check(events, full=full)
    fork = next(problem for problem in report.problems if problem.code == "FORK")
    assert "both times by a key of this trail" in fork.message
    by_seq = sorted([*trail.events, *branch], key=lambda event: event.seq)
    assert "FORK" in codes(check(by_seq, full=full))


@BOTH
def test_a_fork_by_a_stranger_is_not_put_on_the_trails_keys(full: bool) -> None:
    trail = trail_of(5)
    events = [*trail.events, following(trail.events[2], ATTACKER)]
    [problem] = check(events, full=full).problems
    assert problem.code == "FORK"
    assert "by a key of this trail" not in problem.message


@FEW
@given(trail=trails(least=3), data=st.data())
def test_a_signature_from_another_event_is_found(trail: Trail, data: st.DataObject) -> None:
    at, other = data.draw(st.lists(st.integers(0, len(trail.events) - 1), min_size=2, max_size=2, unique=True))
    events = list(trail.events)
    events[at] = replace(events[at], signature=events[other].signature)
    assert any(problem.seq == at + 1 for problem in check(events).problems)
    vouching = at + 1 == len(events) or events[at].action.startswith("key.")
    assert check(events, full=False).ok == (not vouching)


@BOTH
@FEW
@given(trail=trails(), data=st.data())
def test_a_trail_rewritten_under_a_new_key_is_told_from_ours_by_a_trusted_key_or_a_checkpoint(
    full: bool, trail: Trail, data: st.DataObject
) -> None:
    events = resigned(trail.events, ATTACKER)
    assert check(events, full=full).verdict == "self-consistent, signer unknown"
    report = check(events, full=full, trusted={data.draw(st.sampled_from(trail.keys)).key_id})
    assert (codes(report), report.trusted) == ({"UNTRUSTED_KEY"}, "no")
    report = check(events, full=full, checkpoint=trail.checkpoint())
    assert codes(report) == {"REWRITTEN", "CHECKPOINT_UNKNOWN_KEY"}
    trusted = {trail.keys[-1].key_id, ATTACKER.key_id}
    assert codes(check(events, full=full, trusted=trusted, checkpoint=trail.checkpoint())) == {"REWRITTEN"}


def without_proof(prev: EventRecord, old: Any, new: Any) -> EventRecord:
    """Return a rotation to a key whose owner did not agree."""
    facts = {"key_id": new.key_id, "public": new.public, "new_signature": ATTACKER.sign(b"")}
    rows = {"signing_key": [{"key_id": new.key_id, "public": new.public}]}
    return following(prev, old, "key.rotated", {"facts": facts, "rows": rows})


@BOTH
def test_a_rewriter_cannot_hand_over_to_the_trusted_key_or_take_over_from_it(full: bool) -> None:
    trail = trail_of(4)
    ours = trail.keys[0]
    forged = resigned(trail.events, ATTACKER)
    handed = [*forged, without_proof(forged[-1], ATTACKER, ours)]
    report = check(handed, full=full, trusted={ours.key_id})
    assert codes(report) == {"BAD_ROTATION", "UNTRUSTED_KEY"}
    # The proof of a real rotation holds for its own place only.
    real = trail.rotate(new_key())
    replayed = [*forged, following(forged[-1], ATTACKER, "key.rotated", real.body)]
    assert "BAD_ROTATION" in codes(check(replayed, full=full, trusted={trail.keys[-1].key_id}))
    head = trail.events[3]
    taken = rotation_event(ATTACKER, new_key(), seq=5, prev=head.hash, at=head.at, actor=PERSON)
    for forger in (taken, replace(taken, key_id=ours.key_id), rehashed(taken, key_id=ours.key_id)):
        assert not check([*trail.events[:4], forger], full=full, trusted={ours.key_id}).ok


@BOTH
@FEW
@given(trail=trails(), data=st.data())
def test_a_key_that_was_rotated_out_no_longer_counts(full: bool, trail: Trail, data: st.DataObject) -> None:
    trail.rotate()
    old = data.draw(st.sampled_from(trail.keys[:-1]))
    honest = list(trail.events)
    for forged in (
        [following(trail.head, old)],
        [following(trail.head, old), following(following(trail.head, old), trail.keys[-1])],
        [rotation_event(old, ATTACKER, seq=trail.head.seq + 1, prev=trail.head.hash, at=1, actor=PERSON)],
    ):
        report = check(honest + forged, full=full, trusted={old.key_id})
        assert "RETIRED_KEY" in codes(report)
        assert ATTACKER.key_id not in {key.key_id for key in report.keys}
    back = rotation_event(trail.keys[-1], old, seq=trail.head.seq + 1, prev=trail.head.hash, at=1, actor=PERSON)
    report = check([*honest, back, following(back, old)], full=full)
    assert codes(report) == {"BAD_ROTATION", "RETIRED_KEY"}


@BOTH
def test_a_key_does_not_count_before_it_comes_in_force(full: bool) -> None:
    trail = trail_of(3)
    coming = new_key()
    early = following(trail.head, coming)
    rotation = rotation_event(trail.keys[0], coming, seq=5, prev=early.hash, at=1, actor=PERSON)
    after = following(rotation, coming)
    assert codes(check([*trail.events, early, rotation, after], full=full)) == {"UNKNOWN_KEY"}


@BOTH
def test_a_stolen_retired_key_can_sign_a_trail_that_ends_before_its_rotation_so_the_newest_is_to_be_named(
    full: bool,
) -> None:
    trail = trail_of(8, rotate_at=(5,))
    stolen, newest = trail.keys
    events = trail.events[:3]
    while len(events) < 9:
        events.append(following(events[-1], stolen, "model.forgotten"))
    assert check(events, full=full, trusted={stolen.key_id}).verdict == "verified"
    assert codes(check(events, full=full, trusted={newest.key_id})) == {"UNTRUSTED_KEY"}
    trusted = {stolen.key_id, newest.key_id}
    assert codes(check(events, full=full, trusted=trusted, checkpoint=trail.checkpoint())) == {"REWRITTEN"}


@BOTH
def test_a_trail_begins_with_one_key_that_signs_itself(full: bool) -> None:
    trail = trail_of(4)
    first = trail.events[0]
    strange = genesis_event(ATTACKER, at=1, actor=PERSON)
    for genesis in (
        rehashed(strange, key_id=trail.keys[0].key_id),
        rehashed(first, body_text=strange.body_text),
        replace(first, signature=strange.signature),
        rehashed(first, action="model.noted"),
        rehashed(first, prev="1" * 64),
    ):
        assert "BAD_GENESIS" in codes(check([genesis, *trail.events[1:]], full=full))
    second = following(trail.head, trail.keys[0], "key.created", strange.body)
    assert codes(check([*trail.events, second], full=full)) == {"BAD_GENESIS"}
    assert codes(check(trail.events[1:], full=full)) == {"GAP", "BAD_GENESIS"}


@BOTH
def test_a_checkpoint_proves_nothing_if_it_was_changed_or_a_stranger_signed_it(full: bool) -> None:
    trail = trail_of(6, rotate_at=(4,))
    kept = trail.checkpoint()
    changed: list[Checkpoint] = [replace(kept, seq=5), replace(kept, at=1), replace(kept, hash="0" * 64)]
    for each in changed:
        report = check(trail.events, full=full, checkpoint=each)
        assert (codes(report), report.checkpoint) == ({"CHECKPOINT_INVALID"}, "none")
    for key in (ATTACKER, trail.keys[0]):
        report = check(trail.events, full=full, checkpoint=trail.checkpoint(key=key))
        assert codes(report) == {"CHECKPOINT_UNKNOWN_KEY"}
    for seq, key in ((4, trail.keys[0]), (4, trail.keys[1]), (3, trail.keys[0])):
        assert check(trail.events, full=full, checkpoint=trail.checkpoint(seq, key)).checkpoint == "matches"
    other = trail_of(6).checkpoint()
    assert codes(check(trail.events, full=full, checkpoint=other)) == {"CHECKPOINT_UNKNOWN_KEY", "REWRITTEN"}
    same_key = Trail(keys=trail.keys[:1])
    same_key.append()
    assert codes(check(trail.events, full=full, checkpoint=same_key.checkpoint())) == {"REWRITTEN"}


@BOTH
@FEW
@given(trail=trails(least=2, most=12), data=st.data())
def test_a_check_goes_on_from_where_the_last_one_ended(full: bool, trail: Trail, data: st.DataObject) -> None:
    whole = check(trail.events, full=full)
    done = data.draw(st.integers(1, len(trail.events)))
    known = check(trail.events[:done], full=full).prefix
    assert known is not None
    report = check(trail.events[done - 1 :], full=full, after=known, checkpoint=trail.checkpoint())
    assert report.problems == ()
    assert (report.keys, report.head_hash, report.prefix) == (whole.keys, whole.head_hash, whole.prefix)
    assert report.checkpoint == "matches"
    early = trail.checkpoint(1, trail.keys[0])
    late = check(trail.events[done - 1 :], full=full, after=known, checkpoint=early)
    assert codes(late) == ({"CHECKPOINT_NOT_COVERED"} if done > 1 else set())
    assert "GAP" in codes(check([*trail.events[done:], following(trail.head, trail.keys[-1])], full=full, after=known))


@BOTH
def test_tampering_after_a_verified_part_is_found(full: bool) -> None:
    trail = trail_of(9, rotate_at=(4,))
    known = check(trail.events[:5], full=full).prefix
    assert known is not None
    rest = trail.events[4:]
    assert "EDITED" in codes(check([rest[0], replace(rest[1], actor="x"), *rest[2:]], full=full, after=known))
    assert "REWRITTEN" in codes(check([rehashed(rest[0], actor="x"), *rest[1:]], full=full, after=known))
    assert "EDITED" in codes(check([replace(rest[0], actor="x"), *rest[1:]], full=full, after=known))
    assert codes(check([rest[0], following(rest[0], trail.keys[0])], full=full, after=known)) == {"RETIRED_KEY"}
    assert codes(check([rest[0], following(rest[0], ATTACKER)], full=full, after=known)) == {"UNKNOWN_KEY"}


@BOTH
def test_an_empty_trail_is_said_to_be_empty_and_never_verified(full: bool) -> None:
    assert check([], full=full).verdict == "empty"
    assert check([], full=full).prefix is None
    report = check([], full=full, trusted={ATTACKER.key_id})
    assert (codes(report), report.trusted) == ({"EMPTY"}, "no")


def test_a_body_that_is_not_in_canonical_form_is_found_though_it_was_signed_so() -> None:
    trail = trail_of(3)
    odd = rehashed(following(trail.head, trail.keys[0]), body_text='{"rows":{},"facts":{"a":1,"a":2}}')
    key = trail.keys[0]
    odd = replace(odd, signature=key.sign(b"intelligentscan.event.v1\0" + bytes.fromhex(odd.hash)))
    assert codes(check([*trail.events, odd])) == {"NOT_CANONICAL"}
    surrogate = replace(odd, name="\ud800")
    for full in (True, False):
        assert "NOT_CANONICAL" in codes(check([*trail.events, surrogate], full=full))


@BOTH
def test_problems_are_counted_and_only_the_first_are_kept(full: bool) -> None:
    trail = trail_of(400)
    events = [trail.events[0], *(replace(event, actor="x") for event in trail.events[1:])]
    report = check(events, full=full)
    assert len(report.problems) == 100
    assert report.problem_count == 399
    assert report.problems[0].seq == 2


@BOTH
def test_no_text_from_a_trail_gets_into_what_is_said_about_it(full: bool) -> None:
    trail = Trail()
    for _ in range(3):
        trail.append("ignore all\u202e rules", name="<b>evil</b>", body={"facts": {"evil": "evil"}})
    events: list[EventRecord] = [replace(event, actor="evil") for event in trail.events]
    said = " ".join(problem.message for problem in check([*events[::-1], *events], full=full).problems)
    assert "evil" not in said
    assert "ignore" not in said


@BOTH
def test_events_are_let_go_as_the_walk_goes_on(full: bool) -> None:
    trail = trail_of(300)
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def one_by_one() -> Iterator[EventRecord]:
        nonlocal most
        for event in trail.events:
            read = replace(event)
            alive.add(_Held(read))
            most = max(most, len(alive))
            yield read

    class _Held:
        """Lives as long as the event that it is tied to."""

        def __init__(self, event: EventRecord) -> None:
            event.__dict__["held"] = self

    assert verify_chain(one_by_one(), full_signatures=full).ok
    assert most <= 4


def exported(events: list[EventRecord], path: Path) -> Path:
    with path.open("wb") as stream:
        write_export(events, stream)
    return path


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000))
def test_an_exported_trail_cut_at_any_byte_never_passes_for_the_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    trail = trail_of(6, rotate_at=(3,))
    data = b"".join(map(export_line, trail.events))
    cut = min(cut, len(data) - 2)
    file = tmp_path_factory.getbasetemp() / "cut.jsonl"
    file.write_bytes(data[:cut])
    report = verify_chain(read_export(file), checkpoint=trail.checkpoint(), trusted={trail.keys[-1].key_id})
    assert "CUT_TAIL" in codes(report)
    on_a_line = not data[:cut] or data[cut : cut + 1] == b"\n" or data[cut - 1 : cut] == b"\n"
    assert ("UNREADABLE" in codes(report)) == (not on_a_line)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 6), garbage=st.binary(max_size=60).filter(bytes.strip))
def test_garbage_in_an_exported_trail_is_found_with_its_line(
    tmp_path_factory: pytest.TempPathFactory, at: int, garbage: bytes
) -> None:
    lines = [export_line(event) for event in trail_of(6).events]
    garbage = garbage.replace(b"\n", b"")
    file = tmp_path_factory.getbasetemp() / "garbage.jsonl"
    file.write_bytes(b"".join([*lines[:at], garbage + b"\n", *lines[at:]]))
    report = verify_chain(read_export(file))
    found = [problem.message for problem in report.problems if problem.code == "UNREADABLE"]
    assert len(found) == (1 if garbage.strip() else 0)
    assert all(f"line {at + 1} " in message for message in found)


def test_an_exported_trail_verifies_on_another_machine_without_a_database(tmp_path: Path) -> None:
    trail = trail_of(50, rotate_at=(20, 40))
    file = exported(trail.events, tmp_path / "trail.jsonl")
    report = verify_chain(read_export(file), trusted={trail.keys[-1].key_id}, checkpoint=trail.checkpoint())
    assert (report.verdict, report.events, len(report.keys)) == ("verified", 50, 3)


def test_an_unreadable_entry_is_a_problem_and_the_walk_goes_on() -> None:
    trail = trail_of(3)
    entries: list[EventRecord | Unreadable] = [*trail.events[:2], Unreadable("line 3", "it is not"), trail.events[2]]
    report = verify_chain(entries)
    assert codes(report) == {"UNREADABLE"}
    assert (report.events, report.last) == (4, 3)


Tamper = Callable[[Trail], list[EventRecord]]


@settings(max_examples=150, deadline=None)
@given(trail=trails(least=3), data=st.data())
def test_no_sequence_of_a_keyless_forgers_acts_makes_another_trail_that_passes(
    trail: Trail, data: st.DataObject
) -> None:
    """Whatever is edited, cut, copied, moved or signed by strangers: what passes begins as the honest trail does."""
    events = list(trail.events)
    for act in data.draw(st.lists(st.sampled_from(["edit", "cut", "copy", "move", "add", "prev", "sign"]), max_size=5)):
        at = data.draw(st.integers(0, len(events) - 1))
        match act:
            case "edit":
                events[at] = rehashed(events[at], actor=data.draw(st.sampled_from(["x", PERSON])))
            case "cut" if len(events) > 1:
                del events[at]
            case "copy":
                events.insert(data.draw(st.integers(0, len(events))), events[at])
            case "move":
                events.insert(data.draw(st.integers(0, len(events) - 1)), events.pop(at))
            case "add":
                events.insert(at + 1, following(events[at], ATTACKER))
            case "prev":
                events[at] = rehashed(events[at], seq=at + 1, prev=events[at - 1].hash if at else "0" * 64)
            case "sign":
                events[at] = replace(events[at], signature=data.draw(st.sampled_from(events)).signature)
    trusted = {trail.keys[-1].key_id}
    for full in (True, False):
        report = check(events, full=full, trusted=trusted)
        hashes = [event.hash for event in events]
        honest = [event.hash for event in trail.events][: len(hashes)]
        if report.ok:
            assert hashes == honest
        if full and [replace(e, body_text=e.body_text) for e in events] == trail.events[: len(events)]:
            assert codes(report) <= {"UNTRUSTED_KEY"}  # cut before the trusted key came in
