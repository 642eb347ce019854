"""The audit trail rewritten by who owns the database: acts 26, 27, 36 and 44 of the notes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hostile import World, copied

from intelligentscan._signing import KeyFolder, SigningKey
from intelligentscan.stores.governance.chain import EventRecord, event_hash, row_from_record, signed_event
from intelligentscan.stores.governance.export import export_line, read_export

KEPT = ("seq", "at", "actor", "action", "on_behalf_of", "experiment_id", "workspace", "name", "version", "run_id")


def rewrite(world: World, *statements: tuple[str, tuple[object, ...]]) -> None:
    """Change governance tables as their owner, and leave the guards as they were."""
    if world.sqlite:
        guards = world.sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'gov_%'")
        statements = (
            *((f"DROP TRIGGER {name}", ()) for name, _ in guards), *statements, *((text, ()) for _, text in guards),
        )  # fmt: skip
    else:
        tables = [name for (name,) in world.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'gov'", owner=True)]
        guards = world.sql(
            "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE 'gov_%' "
            "AND tgrelid::regclass::text LIKE 'gov.%'", owner=True,
        )  # fmt: skip
        statements = (
            *((f"ALTER TABLE gov.{name} DISABLE TRIGGER ALL", ()) for name in tables),
            *statements,
            *((f"ALTER TABLE gov.{name} ENABLE TRIGGER ALL", ()) for name in tables),
            *((f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}", ()) for table, name in guards),
        )
    for statement, values in statements:
        world.sql(statement, *values, owner=True)


async def events(world: World, folder: Path) -> list[EventRecord]:
    """Return the stored trail."""
    path = folder / f"{len(list(folder.iterdir()))}.jsonl"
    await world.services.trail.export(path)
    found = [each for each in read_export(path) if isinstance(each, EventRecord)]
    assert len(found) >= 8
    return found


def stored(world: World, changed: list[EventRecord]) -> list[tuple[str, tuple[object, ...]]]:
    """Return the statements that put these events in the place of those with the same numbers."""
    rows = [row_from_record(each) for each in changed]
    columns = ", ".join(rows[0])
    places = ", ".join("?" for _ in rows[0])
    event = world.gov("event")
    return [
        *((f"DELETE FROM {event} WHERE seq = ?", (row["seq"],)) for row in rows),
        *((f"INSERT INTO {event} ({columns}) VALUES ({places})", tuple(row.values())) for row in rows),
    ]


def relinked(trail: list[EventRecord]) -> list[EventRecord]:
    """Return the trail with hashes that fit its content, and the signatures that it has."""
    done: list[EventRecord] = []
    for each in trail:
        linked = replace(each, prev=done[-1].hash if done else each.prev)
        done.append(replace(linked, hash=event_hash(linked)))
    return done


def resigned(trail: list[EventRecord], key: SigningKey) -> list[EventRecord]:
    """Return the trail as a forger with a key of their own would have written it."""
    done: list[EventRecord] = []
    for each in trail:
        body = each.body
        if "signing_key" in body.get("rows", {}):
            body["rows"]["signing_key"] = [{"key_id": key.key_id, "public": key.public}]
        kept = {name: getattr(each, name) for name in KEPT}
        done.append(signed_event(key, **kept, body=body, prev=done[-1].hash if done else each.prev))
    return done


EDITS: dict[str, Callable[[list[EventRecord]], list[EventRecord]]] = {
    "EDITED": lambda t: [replace(t[1], actor="somebody else")],
    "BROKEN_LINK": lambda t: [replace(e, hash=event_hash(e)) for e in [replace(t[2], actor="somebody else")]],
    "BAD_SIGNATURE": lambda t: relinked([t[0], replace(t[1], actor="somebody else"), *t[2:]]),
}


@pytest.mark.parametrize(
    ("own", "code"), [*(("sqlite", code) for code in EDITS), ("postgresql", "BAD_SIGNATURE")], indirect=["own"]
)
async def test_an_edited_trail_is_found_whatever_the_editor_mends(own: World, tmp_path: Path, code: str) -> None:
    (tmp_path / "out").mkdir()
    trail = await events(own, tmp_path / "out")
    assert await own.problems() == set()
    rewrite(own, *stored(own, EDITS[code](trail)))
    assert "CHAIN" in await own.problems()  # the same process, which had found all well before
    audit = await own.services.trail.verify()
    assert (code in {p.code for p in audit.problems}, audit.exit_code) == (True, 1)
    refusal = await own.services_with().registry.promote("fm", 2, "Production", reason="r", dry_run=True)
    assert refusal.status == "would_refuse"


async def test_an_event_taken_out_is_found_together_with_its_rows(own: World) -> None:
    rewrite(own, (f"DELETE FROM {own.gov('event')} WHERE seq = 4", ()))
    assert {"CHAIN", "RECORD"} <= await own.problems()
    assert {"GAP"} <= {p.code for p in (await own.services.trail.verify()).problems}
    assert (await own.promote()).startswith(("GATES_FAILED", "TRAIL_BROKEN"))


async def test_a_cut_tail_and_an_old_state_put_back_show_against_a_checkpoint_only(own: World, tmp_path: Path) -> None:
    """The state before the last promotion is consistent in itself: that it is old is known outside only."""
    backup = copied(own, tmp_path / "backup")
    outside = tmp_path / "outside"
    outside.mkdir()
    assert await own.promote() == "promoted"
    await own.services.adoption.retain("fm", 1, hold=True, reason="lawsuit")
    checkpoint = Path((await own.services.trail.checkpoint(outside)).path)
    [(last,)] = own.sql(f"SELECT max(seq) FROM {own.gov('event')}", owner=True)
    rewrite(
        own,
        *((f"DELETE FROM {own.gov(table)} WHERE event >= ?", (last,)) for table in ("retention", "free_text")),
        (f"DELETE FROM {own.gov('event')} WHERE seq >= ?", (last,)),
    )
    for cut in (own, backup):
        services = cut.services_with()
        alone = await services.trail.verify()
        assert (alone.ok, alone.checkpoint) == (True, "none")
        assert alone.notes[0].startswith("advisory: no external checkpoint")
        against = await services.trail.verify(checkpoint=checkpoint)
        assert ([p.code for p in against.problems], against.checkpoint) == (["CUT_TAIL"], "contradicted")
        aware = cut.services_with(checkpoint_dir=outside)
        assert "CHAIN" in await cut.problems(services=aware)
        move = await aware.registry.promote("fm", 1, "Staging", dry_run=True)
        assert move.status == "would_refuse"
    backup.close()


async def test_history_written_again_after_a_rollback_contradicts_the_checkpoint(own: World, tmp_path: Path) -> None:
    backup = copied(own, tmp_path / "backup")
    assert await own.promote() == "promoted"
    checkpoint = Path((await own.services.trail.checkpoint(tmp_path)).path)
    for _ in range(3):
        await backup.services.adoption.retain("fm", 1, hold=True, reason="another story")
    report = await backup.services.trail.verify(checkpoint=checkpoint)
    assert ([p.code for p in report.problems], report.exit_code) == (["REWRITTEN"], 1)
    backup.close()


async def test_a_trail_rewritten_under_another_key_needs_a_trusted_key_to_be_seen(own: World, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    trail = await events(own, tmp_path / "out")
    known = trail[0].key_id
    assert (await own.services.trail.verify(trust=[known])).exit_code == 0
    forger = KeyFolder(tmp_path / "forger").create()
    forged = resigned(trail, forger)
    log = tmp_path / "forged.jsonl"
    log.write_bytes(b"".join(export_line(each) for each in forged))
    rewrite(
        own,
        *stored(own, forged),
        (f"UPDATE {own.gov('signing_key')} SET key_id = ?, public = ?", (forger.key_id, forger.public)),
    )
    for where in ({}, {"log": log}):
        open_question = await own.services_with().trail.verify(**where)  # type: ignore[arg-type]
        assert (open_question.ok, open_question.trusted, open_question.exit_code) == (True, "unknown", 3)
        assert any("--trust" in note for note in open_question.notes)
        asked = await own.services_with().trail.verify(**where, trust=[known])  # type: ignore[arg-type]
        assert ([p.code for p in asked.problems], asked.trusted, asked.exit_code) == (["UNTRUSTED_KEY"], "no", 1)
    assert (await own.promote()).startswith(("KEY_UNAVAILABLE", "GATES_FAILED"))
    assert (await own.register(own.ids.free, "late")).startswith(("KEY_UNAVAILABLE", "TRAIL_BROKEN"))


LOGS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "GAP": lambda lines: [*lines[:3], *lines[4:]],
    "REPEATED": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "OUT_OF_ORDER": lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
    "EDITED": lambda lines: [line.replace(b'"seq":5', b'"seq":6') for line in lines],
    "UNREADABLE": lambda lines: [*lines[:2], b"{}\n", *lines[2:]],
    "BAD_GENESIS": lambda lines: lines[1:],
}


@pytest.mark.parametrize("code", LOGS)
async def test_an_exported_trail_that_was_tampered_with_is_found(
    hostile_sqlite: World, tmp_path: Path, code: str
) -> None:
    """Renumbered, cut, doubled, shuffled: what a file allows and a table with its keys does not."""
    path = tmp_path / "log.jsonl"
    await hostile_sqlite.services_with().trail.export(path)
    path.write_bytes(b"".join(LOGS[code](path.read_bytes().splitlines(keepends=True))))
    report = await hostile_sqlite.services_with().trail.verify(log=path)
    assert (code in {p.code for p in report.problems}, report.exit_code) == (True, 1)


async def test_a_fork_signed_by_the_true_key_is_found(hostile_sqlite: World, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    await hostile_sqlite.services_with().trail.export(path)
    lines = path.read_bytes().splitlines(keepends=True)
    fifth = next(e for e in read_export(path) if isinstance(e, EventRecord) and e.seq == 5)
    key = KeyFolder(hostile_sqlite.home / "keys").get(fifth.key_id)
    assert key is not None
    other = signed_event(key, seq=5, prev=fifth.prev, at=fifth.at, actor="x", action="version.promoted",
                         body={"facts": {}, "rows": {}, "text": {}})  # fmt: skip
    path.write_bytes(b"".join([*lines[:5], export_line(other), *lines[5:]]))
    report = await hostile_sqlite.services_with().trail.verify(log=path)
    assert "FORK" in {p.code for p in report.problems}


async def test_names_and_free_text_can_be_erased_and_the_trail_stays_readable(own: World) -> None:
    before = await own.services.history.get(name="fm")
    account = copied_as_service(own)
    for table in ("principal_name", "free_text"):
        account.sql(f"DELETE FROM {own.gov(table)}")
    after = await own.services.history.get(name="fm")
    assert [(e.seq, e.action, e.at) for e in after.events] == [(e.seq, e.action, e.at) for e in before.events]
    assert after.live == before.live
    assert {e.reason for e in after.events} == {None}
    assert all(len(e.actor) == 40 for e in after.events)  # the salted digest that stands for the name
    assert (await own.services.trail.verify()).ok
    assert await own.problems() == set()
    assert await own.promote() == "promoted"


def copied_as_service(world: World) -> World:
    """Return the same store, reached by raw SQL with the account of the service."""
    return replace(world, plain=world.uri)


async def test_a_text_put_in_the_place_of_an_erased_one_is_found(own: World) -> None:
    said = "field = 'reason' AND text = 'better'"
    assert len(own.sql(f"SELECT text FROM {own.gov('free_text')} WHERE {said}", owner=True)) == 1
    rewrite(own, (f"UPDATE {own.gov('free_text')} SET text = 'nobody said this' WHERE {said}", ()))
    report = await own.services.trail.verify()
    assert [p.code for p in report.problems] == ["CHANGED_TEXT"]
    assert "RECORD" in await own.problems()


async def test_what_a_lost_key_signed_before_its_rotation_counts_and_nothing_after(own: World, tmp_path: Path) -> None:
    """Whoever finds the old key cannot continue the trail with it."""
    (tmp_path / "out").mkdir()
    old = (await own.services.trail.rotate()).old
    trail = await events(own, tmp_path / "out")
    stolen = KeyFolder(own.home / "keys").get(old)
    assert stolen is not None
    last = trail[-1]
    stage = {"workspace": "default", "name": "fm", "version": 2, "stage": "Production"}
    body = {"facts": {}, "rows": {"stage": [stage]}, "text": {}}
    act = signed_event(stolen, seq=last.seq + 1, prev=last.hash, at=last.at, actor=last.actor, workspace="default",
                       action="version.promoted", name="fm", version=2, body=body)  # fmt: skip
    row = row_from_record(act)
    own.sql(f"INSERT INTO {own.gov('event')} ({', '.join(row)}) VALUES ({', '.join('?' for _ in row)})",
            *row.values(), owner=True)  # fmt: skip
    values = "(event, workspace, name, version, stage) VALUES (?, 'default', 'fm', 2, 'Production')"
    own.sql(f"INSERT INTO {own.gov('stage')} {values}", act.seq, owner=True)
    assert {"CHAIN", "RECORD"} & await own.problems()
    assert "RETIRED_KEY" in {p.code for p in (await own.services.trail.verify()).problems}
    assert (await own.promote()).startswith(("TRAIL_BROKEN", "GATES_FAILED"))
