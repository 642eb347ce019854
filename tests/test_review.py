"""Reviews: requested with a dossier, decided and revoked by people with their keys, and by nobody else."""

import json
import os
import re
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from command_line import CommandLine
from committee import ME, Committee, committee, enrol, policy_text
from conftest import Trained
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hostile import World
from mcp_client import answered, connected, refused

from intelligentscan._ssh_signature import sign_sshsig
from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    IntelligentScanError,
    InvalidArgument,
    InvalidCursor,
    ModelNotFound,
    NotGoverned,
    NotPermitted,
    Refused,
    ReviewClosed,
    ReviewIncomplete,
    ReviewNotFound,
    SignatureInvalid,
    TooLarge,
    VersionNotFound,
)
from intelligentscan.services.review_state import NAMESPACE

DAY_MS = 86_400_000


@pytest.fixture
def services(registered: Trained) -> Services:
    return registered.services


async def events(services: Services, *actions: str) -> list[Any]:
    """Return the events of these actions, the oldest first."""
    found = (await services.history.get(limit=100)).events
    return [e for e in reversed(found) if not actions or e.action in actions]


# The life of a review


async def test_one_person_requests_attests_approves_and_revokes_and_the_gates_follow(own: World) -> None:
    one = await committee(own.services)
    before = {e.seq for e in await events(own.services)}
    asked = await one.reviews.request("fm", 2)
    assert (asked.status, asked.created, asked.policy, asked.quorum) == ("open", True, "solo", 1)
    assert asked.next.startswith("a person decides with 'intelligentscan review approve ")
    again = await one.reviews.request("fm", 2)
    assert again == asked.model_copy(update={"created": False, "notes": []})
    assert (await one.reviews.ensure("fm", 2)).review_id == asked.review_id
    assert not [m for m in asked.missing if m.startswith("accuracy")]
    assert [m for m in asked.missing if m.startswith("bias")]
    attested = await one.reviews.attest(asked.review_id[:8], "Bias", text="groups do as well as others")
    assert not [m for m in attested.missing if m.startswith("bias")]
    said = attested.evidence[-1]
    assert (said.criterion, said.value, said.origin) == ("bias", "groups do as well as others", "self-reported")
    promoted = await own.services.registry.promote("fm", 2, "Production", reason="better")
    assert (promoted.status, promoted.review_id) == ("pending_review", asked.review_id)
    made = await one.decide(None, asked.review_id)
    assert (made.person, made.proof, made.review_status, made.four_eyes) == (ME, "self-asserted", "approved", False)
    assert any("four_eyes: false" in note for note in made.notes)
    facts = await one.facts(2)
    assert facts is not None
    assert (facts.status, facts.same_bytes, facts.same_policy) == ("approved", True, True)
    assert [(a.name, a.proof) for a in facts.approvals] == [(ME, "self-asserted")]
    assert (await own.services.registry.promote("fm", 2, "Production", reason="ok", dry_run=True)).status == (
        "would_promote"
    )
    taken = await one.reviews.revoke(made.decision_id, "the data was wrong")
    assert taken.review_status == "revoked"
    facts = await one.facts(2)
    assert facts is not None
    assert (facts.status, facts.withdrawn, facts.approvals) == ("revoked", True, ())
    shown = await one.shown(asked.review_id)
    assert [(d.verdict, d.counts, d.reason) for d in shown.decisions] == [
        ("approve", False, "approve by None"), ("revoke", True, "the data was wrong"),
    ]  # fmt: skip
    told = [e for e in await events(own.services) if e.seq not in before and e.action.startswith("review.")]
    assert [e.action.removeprefix("review.") for e in told] == ["requested", "attested", "decided", "decided"]
    assert {"statement", "signature", "rules"}.isdisjoint(k for e in told for k in e.facts)
    assert (await own.services.integrity.verify("fm")).ok


async def test_other_evidence_takes_the_place_of_an_open_review_and_keeps_what_was_given(services: Services) -> None:
    one = await committee(services)
    first = await one.request(accuracy="checked on last month's data")
    second = await one.reviews.request("fm", 1, {"bias": {"gap": 0.01, "groups": "age"}})
    assert second.created
    assert second.notes == [f"It takes the place of the review {first}."]
    given = {i.criterion: i.value for i in (await one.shown(second.review_id)).evidence if i.what.startswith("given")}
    assert given == {"accuracy": "checked on last month's data", "bias": {"gap": 0.01, "groups": "age"}}
    assert (await one.shown(first)).status == "superseded"
    assert (await one.outcome(None, first)).startswith("REVIEW_CLOSED")
    third = await one.reviews.request("fm", 1, {"accuracy": ""})
    assert [i.criterion for i in (await one.shown(third.review_id)).evidence if i.what.startswith("given")] == ["bias"]
    await one.decide(None, third.review_id, "reject")
    assert (await one.reviews.request("fm", 1)).status == "rejected"
    fresh = await one.reviews.request("fm", 1, {"accuracy": "measured again"})
    assert (fresh.status, fresh.created) == ("open", True)
    rows = await one.reviews.list(name="fm")
    assert [r.status for r in rows.reviews] == ["open", "rejected", "superseded", "superseded"]


async def test_reviews_are_listed_newest_first_in_pages_and_by_state(services: Services) -> None:
    one = await committee(services)
    made = [await one.request(version, risks=str(n)) for n in range(3) for version in (1, 2)]
    assert [r.review_id for r in (await one.reviews.list()).reviews] == made[::-1]
    page = await one.reviews.list(limit=4)
    rest = await one.reviews.list(limit=4, cursor=page.next_cursor)
    assert [r.review_id for r in (*page.reviews, *rest.reviews)] == made[::-1]
    assert rest.next_cursor is None
    opened = await one.reviews.list("open", limit=1)
    assert [r.review_id for r in opened.reviews] == made[-1:]
    assert [r.review_id for r in (await one.reviews.list("open", limit=1, cursor=opened.next_cursor)).reviews] == (
        made[-2:-1]
    )
    assert (await one.reviews.list("approved")).reviews == []
    with pytest.raises(InvalidCursor):
        await one.reviews.list("approved", cursor=page.next_cursor)


# Two people


async def test_under_four_eyes_only_somebody_else_with_an_enrolled_key_decides(own: World) -> None:
    two = await committee(own.services, "ann", four_eyes=True, authenticated=True)
    await enrol(two, ME)
    asked = await two.request(2)
    for who in (None, ME):
        assert (await two.outcome(who, asked)).startswith("NOT_PERMITTED")  # who builds a product does not review it
    made = await two.decide("ann", asked)
    assert (made.person, made.proof, made.review_status, made.four_eyes) == ("ann", "authenticated", "approved", True)
    shown = await two.shown(asked)
    assert (shown.four_eyes, shown.approvals, shown.requester) == (True, 1, ME)
    assert shown.decisions[0].fingerprint is not None
    weighed = await own.services.registry.promote("fm", 2, "Production", reason="ok", dry_run=True)
    assert {g.gate: g.outcome for g in weighed.gates}["segregation_of_duties"] == "pass"
    assert (weighed.status, weighed.four_eyes) == ("would_promote", True)
    event = (await events(own.services, "review.decided"))[-1]
    assert (event.actor, event.on_behalf_of) == (ME, "ann")
    assert (await own.services.integrity.verify("fm")).ok


async def test_who_asked_cannot_decide_whatever_proof_they_have(services: Services) -> None:
    one = await committee(services, "ann", four_eyes=True)
    await enrol(one, ME)
    asked = await one.request()
    await services.people.revoke("owner", ME)
    await services.people.grant("reviewer", ME)  # so that nothing but the segregation of duties stands in the way
    for who in (None, ME):
        assert f"REFUSED {ME} asked for the review or the registration" in await one.outcome(who, asked)
    assert (await one.facts()).status == "open"  # type: ignore[union-attr]


async def test_a_key_holder_of_the_requesters_name_is_no_second_person(services: Services) -> None:
    two = await committee(services, "ann", four_eyes=True, authenticated=True)
    asked = await two.request()
    await enrol(two, ME.upper())
    with pytest.raises(Refused, match="cannot be its reviewer"):
        await services.people.grant("reviewer", ME.upper(), known_as="key holder")
    await services.people.revoke("owner", ME)
    await services.people.grant("reviewer", ME.upper(), known_as="key holder")
    assert f"REFUSED {ME.upper()} asked for" in await two.outcome(ME.upper(), asked)
    assert await two.outcome("ann", asked) == "approved"


async def test_whom_the_run_names_as_its_author_does_not_decide(trained: Trained) -> None:
    trained.client.set_tag(trained.with_model, "mlflow.user", "Ann")
    await trained.services.registry.register("fm", run_id=trained.with_model)
    two = await committee(trained.services, "ann", "bob", four_eyes=True, authenticated=True)
    asked = await two.request()
    assert "REFUSED The run names ann as its author" in await two.outcome("ann", asked)
    assert (await two.shown(asked)).run_author == "Ann"
    assert await two.outcome("bob", asked) == "approved"


@pytest.mark.parametrize("instead", [None, ("ab" * 16, "nobody"), ("no hex", "nobody"), (None, "nobody")])
async def test_if_the_name_of_who_asked_was_erased_or_exchanged_nobody_decides_by_that(
    services: Services, registered: Trained, instead: tuple[str | None, str] | None
) -> None:
    two = await committee(services, "ann", four_eyes=True, authenticated=True)
    asked = await two.request()
    with closing(sqlite3.connect(registered.home / "mlflow.db")) as connection, connection:
        (me,) = connection.execute("SELECT principal_id FROM gov_principal_name WHERE name = ?", (ME,)).fetchone()
        connection.execute("DELETE FROM gov_principal_name WHERE name = ?", (ME,))
        if instead:
            row = "INSERT INTO gov_principal_name (principal_id, kind, salt, name) VALUES (?, 'os-user', ?, ?)"
            connection.execute(row, (me, *instead))
    refused = "REFUSED It is no longer known who asked for the review or the registration"
    assert (await two.outcome("ann", asked)).startswith(refused)
    problems = [p.code for p in (await services.trail.verify()).problems]
    assert problems == (["CHANGED_NAME"] if instead else [])


async def test_an_author_that_was_erased_from_the_trail_lets_nobody_decide(trained: Trained) -> None:
    trained.client.set_tag(trained.with_model, "mlflow.user", "Ann")
    await trained.services.registry.register("fm", run_id=trained.with_model)
    two = await committee(trained.services, "ann", "bob", four_eyes=True, authenticated=True)
    asked = await two.request()
    with closing(sqlite3.connect(trained.home / "mlflow.db")) as connection, connection:
        connection.execute("DELETE FROM gov_free_text WHERE field = 'run_author'")
    for who in ("ann", "bob"):
        assert "no longer known" in await two.outcome(who, asked)


async def test_separate_accounts_wants_another_account_whatever_key_signs(services: Services) -> None:
    two = await committee(services, "ann", four_eyes=True, authenticated=True, separate_accounts=True)
    asked = await two.request()
    assert "wants decisions from another account" in await two.outcome("ann", asked)


async def test_a_role_that_does_not_allow_it_is_refused_and_a_person_decides_by_the_keys_owner(
    services: Services,
) -> None:
    two = await committee(services, "ann")
    asked = await two.request()
    for call in (
        two.decide(None, asked),
        two.reviews.revoke(asked, "no"),
    ):
        with pytest.raises(NotPermitted):
            await call
    assert await two.outcome("ann", asked) == "approved"
    await services.people.revoke("owner", ME)
    for call in (two.reviews.request("fm", 2), two.reviews.attest(asked, "bias", text="fair")):
        with pytest.raises((NotPermitted, ReviewClosed)):
            await call


async def test_a_quorum_counts_people_and_closes_the_review_when_it_is_reached(services: Services) -> None:
    three = await committee(services, "ann", "bob", "cid", quorum=2, authenticated=True)
    asked = await three.request()
    assert await three.outcome("ann", asked) == "open"
    again = await three.outcome("ann", asked, "reject")
    assert again.startswith("REFUSED ann has decided already: approve")
    first = (await three.shown(asked)).decisions[0].decision_id
    assert first in again
    assert (await three.reviews.revoke(first[:10], "too soon", key=three.keys["ann"])).review_status == "open"
    assert (await three.facts()).withdrawn is False  # type: ignore[union-attr]
    assert await three.outcome("ann", asked) == "open"
    assert await three.outcome("bob", asked) == "approved"
    assert (await three.outcome("cid", asked)).startswith("REVIEW_CLOSED")
    shown = await three.shown(asked)
    assert (shown.approvals, shown.quorum) == (2, 2)
    assert (await three.reviews.revoke(asked, "withdrawn", key=three.keys["cid"])).review_status == "revoked"
    assert (await three.reviews.request("fm", 1)).created


async def test_a_rejection_closes_a_review_and_only_who_rejected_takes_it_back(services: Services) -> None:
    two = await committee(services, "ann", "bob", authenticated=True)
    asked = await two.request()
    made = await two.decide("ann", asked, "reject")
    assert made.review_status == "rejected"
    assert (await two.outcome("bob", asked)).startswith("REVIEW_CLOSED")
    with pytest.raises(Refused, match="Only ann, who rejected"):
        await two.reviews.revoke(made.decision_id, "I disagree", key=two.keys["bob"])
    with pytest.raises(Refused, match="no approval to take back"):
        await two.reviews.revoke(asked, "I disagree", key=two.keys["bob"])
    assert (await two.reviews.revoke(made.decision_id, "my mistake", key=two.keys["ann"])).review_status == "open"
    assert await two.outcome("bob", asked) == "approved"


# Refusals


async def test_what_was_switched_or_ran_out_between_request_and_decision_is_refused(services: Services) -> None:
    one = await committee(services, "ann", open_days=1, valid_days=2)
    asked = await one.request()
    began = one.clock.now
    assert (await one.shown(asked)).status == "open"
    one.clock.now = began + DAY_MS
    assert (await one.outcome("ann", asked)).startswith("REVIEW_CLOSED The review")
    assert (await one.facts()).status == "expired"  # type: ignore[union-attr]
    one.clock.now -= 1
    assert await one.outcome("ann", asked) == "approved"
    one.clock.now += 2 * DAY_MS - 1
    assert (await one.facts()).status == "approved"  # type: ignore[union-attr]
    one.clock.now += 1
    facts = await one.facts()
    assert facts is not None
    assert (facts.status, len(facts.approvals), facts.withdrawn) == ("expired", 1, False)
    fresh = await one.reviews.request("fm", 1)
    assert fresh.created
    await services.policies.activate(policy_text(valid_days=3), "another one")
    said = await one.outcome("ann", fresh.review_id)
    assert "REFUSED The policy was changed since the review was requested" in said
    assert "request_review name='fm' version=1" in said
    assert (await one.facts()).same_policy is False  # type: ignore[union-attr]
    assert (await one.reviews.ensure("fm", 1)).created
    assert (await one.facts()).same_policy  # type: ignore[union-attr]


async def test_a_complete_policy_names_the_criteria_that_are_missing(services: Services) -> None:
    one = await committee(services, "ann", complete=True)
    asked = await one.request(bias="b", risks="r", documentation="d")
    with pytest.raises(ReviewIncomplete) as caught:
        await one.decide("ann", asked)
    assert caught.value.details == {"missing": ["safety"]}
    assert f"intelligentscan review attest {asked[:12]} safety" in caught.value.next
    await one.reviews.attest(asked, "safety", file=b"%PDF a report", key=one.keys["ann"])
    assert await one.outcome("ann", asked) == "approved"
    assert (await one.shown(asked)).evidence[-1].digest is not None


Act = Callable[[Committee, str], Any]


async def _other_version(c: Committee, asked: str) -> Any:
    return await c.reviews.decide(asked, "approve", "x", signature=await c.signed("ann", await c.request(2)))


async def _other_verdict(c: Committee, asked: str) -> Any:
    return await c.reviews.decide(asked, "approve", "x", signature=await c.signed("ann", asked, "reject"))


async def _before_attestation(c: Committee, asked: str) -> Any:
    signature = await c.signed("ann", asked)
    await c.reviews.attest(asked, "bias", text="fair", key=c.keys["ann"])
    return await c.reviews.decide(asked, "approve", "x", signature=signature)


async def _after_revocation(c: Committee, asked: str) -> Any:
    signature = await c.signed("ann", asked, "reject")
    made = await c.reviews.decide(asked, "reject", "x", signature=signature)
    await c.reviews.revoke(made.decision_id, "x", key=c.keys["ann"])
    return await c.reviews.decide(asked, "reject", "again", signature=signature)


async def _other_purpose(c: Committee, asked: str) -> Any:
    signature = sign_sshsig(c.keys["ann"], "file", await c.reviews.statement(asked, "approve"))
    return await c.reviews.decide(asked, "approve", "x", signature=signature)


async def _retired(c: Committee, asked: str) -> Any:
    key = next(k for k in await c.services.people.keys() if k.person == "ann")
    await c.services.people.retire(key.fingerprint, "lost")
    return await c.decide("ann", asked)


async def _unknown_key(c: Committee, asked: str) -> Any:
    return await c.reviews.decide(asked, "approve", "x", key=Ed25519PrivateKey.generate())


async def _both(c: Committee, asked: str) -> Any:
    return await c.reviews.decide(asked, "approve", "x", key=c.keys["ann"], signature="x")


async def _twice(c: Committee, asked: str) -> Any:
    await c.decide("ann", asked)
    return await c.decide("ann", asked)


async def _attest_closed(c: Committee, asked: str) -> Any:
    await c.decide("ann", asked)
    return await c.reviews.attest(asked, "bias", text="late")


async def _revoked_twice(c: Committee, asked: str) -> Any:
    made = await c.decide("ann", asked)
    await c.reviews.revoke(made.decision_id, "x", key=c.keys["ann"])
    return await c.reviews.revoke(made.decision_id, "x", key=c.keys["ann"])


IMPOSSIBLE: dict[str, tuple[Act, type[IntelligentScanError], str]] = {
    "no such model": (lambda c, _: c.reviews.request("none", 1), ModelNotFound, "no registered model"),
    "no such version": (lambda c, _: c.reviews.request("fm", 9), VersionNotFound, "version 9"),
    "a version that is no number": (lambda c, _: c.reviews.request("fm", True), InvalidArgument, "number"),
    "no such criterion": (lambda c, _: c.reviews.request("fm", 1, {"beauty": "x"}), InvalidArgument, "'beauty'"),
    "evidence that is a list": (lambda c, _: c.reviews.request("fm", 1, {"bias": ["x"]}), InvalidArgument, "bias"),
    "nested evidence": (lambda c, _: c.reviews.request("fm", 1, {"bias": {"a": {"b": 1}}}), InvalidArgument, "nested"),
    "a long text": (lambda c, _: c.reviews.request("fm", 1, {"bias": "x" * 4_001}), TooLarge, "4,001"),
    "many values": (lambda c, _: c.reviews.request("fm", 1, {"bias": {str(n): n for n in range(21)}}), TooLarge, "21"),
    "an id that cannot be": (lambda c, _: c.reviews.show("latest"), InvalidArgument, "cannot be the id"),
    "a short id": (lambda c, r: c.reviews.show(r[:5]), InvalidArgument, "cannot be the id"),
    "an unknown id": (lambda c, _: c.reviews.show("0" * 32), ReviewNotFound, "There is no review"),
    "an unknown decision": (lambda c, _: c.reviews.revoke("0" * 8, "x"), ReviewNotFound, "There is no review"),
    "no reason": (lambda c, r: c.reviews.decide(r, "approve", " ", key=c.keys["ann"]), InvalidArgument, "reason"),
    "no verdict": (lambda c, r: c.reviews.decide(r, "revoke", "x"), InvalidArgument, "approved or rejected"),
    "unsigned": (lambda c, r: c.decide(None, r), NotPermitted, "decid"),
    "somebody's unknown key": (_unknown_key, SignatureInvalid, "is not enrolled"),
    "no signature at all": (
        lambda c, r: c.reviews.decide(r, "approve", "x", signature="hello"), SignatureInvalid, "is not enrolled",
    ),
    "a signature for another verdict": (_other_verdict, SignatureInvalid, "not of this statement"),
    "a signature for another purpose": (_other_purpose, SignatureInvalid, "not of this statement"),
    "a key and a signature": (_both, InvalidArgument, "either a key or a signature"),
    "an attestation of nothing": (lambda c, r: c.reviews.attest(r, "bias"), InvalidArgument, "a text or a file"),
    "an attestation of two things": (
        lambda c, r: c.reviews.attest(r, "bias", text="x", file=b"y"), InvalidArgument, "a text or a file",
    ),
    "a blank attestation": (lambda c, r: c.reviews.attest(r, "bias", text=" "), InvalidArgument, "a text or a file"),
    "an attestation of another criterion": (
        lambda c, r: c.reviews.attest(r, "speed", text="x"), InvalidArgument, "'speed'",
    ),
    "revoking what was never approved": (
        lambda c, r: c.reviews.revoke(r, "x", key=c.keys["ann"]), Refused, "no approval to take back",
    ),
}  # fmt: skip
TOO_LATE: dict[str, tuple[Act, type[IntelligentScanError], str]] = {
    "a retired key": (_retired, SignatureInvalid, "was retired"),
    "a signature for another version": (_other_version, SignatureInvalid, "not of this statement"),
    "a signature from before an attestation": (_before_attestation, SignatureInvalid, "moved on"),
    "a signature used before and taken back": (_after_revocation, SignatureInvalid, "moved on"),
    "a decision on what is decided": (_twice, ReviewClosed, "is approved already"),
    "an attestation of what is decided": (_attest_closed, ReviewClosed, "is approved already"),
    "revoking twice": (_revoked_twice, Refused, "taken back already"),
}  # fmt: skip


async def test_what_cannot_be_is_refused_with_what_to_do(services: Services) -> None:
    one = await committee(services, "ann", authenticated=True)
    asked = await one.request()
    before = await one.shown(asked)
    for case, (act, error, fragment) in IMPOSSIBLE.items():
        with pytest.raises(error, match=fragment) as caught:
            await act(one, asked)
        assert caught.value.next, case
    assert await one.shown(asked) == before
    assert (await services.integrity.verify("fm")).ok


@pytest.mark.parametrize("case", TOO_LATE)
async def test_what_came_in_between_is_looked_at_again_when_it_is_decided(services: Services, case: str) -> None:
    act, error, fragment = TOO_LATE[case]
    one = await committee(services, "ann", authenticated=True)
    with pytest.raises(error, match=fragment) as caught:
        await act(one, await one.request())
    assert caught.value.next


async def test_an_authenticated_policy_names_the_command_that_signs(services: Services) -> None:
    one = await committee(services)
    await services.people.grant("administrator", ME)
    await services.people.grant("owner", ME)
    await services.policies.activate(policy_text(authenticated=True), "for a test")
    asked = await one.request()
    await services.people.revoke("owner", ME)
    await services.people.grant("reviewer", ME)
    with pytest.raises(Refused) as caught:
        await one.decide(None, asked)
    assert f"intelligentscan review approve {asked}" in caught.value.next
    assert "--key" in caught.value.next


async def test_only_sealed_versions_of_governed_models_are_reviewed_and_never_from_quarantine(own: World) -> None:
    one = await committee(own.services)
    with pytest.raises(NotGoverned):
        await one.reviews.request("plain", 1)
    await own.services.adoption.adopt("plain")
    with pytest.raises(Refused, match="is not sealed"):
        await one.reviews.request("plain", 1)
    asked = await one.request(2)
    for table in ("alias", "stage"):
        row = {"workspace": "default", "name": "fm", table: "champion" if table == "alias" else "Archived"}
        forge(own, table, {**row, "version": 1})
    assert "is not as it was recorded" in await one.outcome(None, asked)
    with pytest.raises(Refused, match="is not as it was recorded"):
        await one.reviews.request("fm", 2, {"risks": "none"})
    assert await one.outcome(None, asked, "reject") == "rejected"  # which needs nothing to be in order


async def test_a_sealed_copy_that_was_changed_is_neither_reviewed_nor_approved(trained: Trained) -> None:
    made = await trained.services.registry.register("fm", run_id=trained.with_model)
    one = await committee(trained.services)
    asked = await one.request()
    (sealed,) = (trained.home / "archive" / "sealed").iterdir()
    model = sealed / "MLmodel"
    sealed.chmod(0o755)
    model.unlink()
    model.write_text("flavors: {}")
    assert (await one.outcome(None, asked)).startswith("BYTES_CHANGED")
    assert (await trained.services.registry.get("fm")).versions[0].state == "quarantined"
    assert "is in quarantine" in await one.outcome(None, asked) or "BYTES_CHANGED" in await one.outcome(None, asked)
    with pytest.raises(Refused, match="is in quarantine"):
        await one.reviews.request("fm", made.version)
    assert (await one.facts()).approvals == ()  # type: ignore[union-attr]


# Forged, flipped, removed


def forge(world: World, table: str, row: dict[str, object]) -> None:
    """Write a row past the trail; it names the last event."""
    last = world.sql(f"SELECT max(seq) FROM {world.gov('event')}", owner=True)[0][0]  # noqa: S608
    row = {"event": last, **row}
    columns, marks = ", ".join(row), ", ".join("?" for _ in row)
    statement = f"INSERT INTO {world.gov(table)} ({columns}) VALUES ({marks})"  # noqa: S608
    world.sql(statement, *row.values(), owner=True)


def past_guards(world: World, table: str, statement: str) -> None:
    """Run a statement on a table of the record as its owner, whose guards were taken away for a moment."""
    if world.sqlite:
        found = world.sql(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", f"gov_{table}", owner=True
        )
        for name, _ in found:
            world.sql(f'DROP TRIGGER "{name}"', owner=True)
        world.sql(statement, owner=True)
        for _, made in found:
            world.sql(made, owner=True)
    else:
        world.sql(f"ALTER TABLE gov.{table} DISABLE TRIGGER ALL", owner=True)
        world.sql(statement, owner=True)
        world.sql(f"ALTER TABLE gov.{table} ENABLE TRIGGER ALL", owner=True)


async def test_rows_that_no_event_made_count_for_nothing_and_are_reported(own: World) -> None:
    one = await committee(own.services)
    asked = await one.request(2)
    before = await one.facts(2)
    version = {"workspace": "default", "name": "fm", "version": 2}
    forged: dict[str, dict[str, object]] = {
        "decision": {"decision_id": "d" * 32, "review_id": asked, "verdict": "approve", "person": "x",
                     "proof": "authenticated", "statement_digest": "0" * 64, "fingerprint": "0" * 64,
                     "expires": 99_999_999_999_999},
        "attestation": {"review_id": asked, "criterion": "bias", "person": "x", "proof": "authenticated",
                        "digest": "0" * 64},
        "review": {"review_id": "e" * 32, "manifest_digest": "0" * 64, "policy_digest": "0" * 64,
                   "dossier_digest": "0" * 64, "requester": "x", "expires": 99_999_999_999_999},
    }  # fmt: skip
    for table, row in forged.items():
        forge(own, table, {**version, **row})
        assert await one.facts(2) == before
        assert {p.code for p in (await own.services.integrity.verify("fm")).problems} == {"RECORD"}
    assert [r.review_id for r in (await one.reviews.list("open")).reviews] == [asked]
    assert (await one.shown(asked)).decisions == []
    with pytest.raises(ReviewNotFound):
        await one.shown("e" * 32)
    with pytest.raises(ReviewNotFound):
        await one.reviews.revoke("d" * 32, "x")
    assert "is not as it was recorded" in await one.outcome(None, asked)
    assert (await own.promote()).startswith("GATES_FAILED")


async def test_flipped_and_removed_rows_change_nothing_and_are_reported(own: World) -> None:
    one = await committee(own.services, "ann", quorum=1)
    asked = await one.request(2)
    await one.decide("ann", asked, "reject")
    before = await one.facts(2)
    assert before is not None
    assert before.status == "rejected"
    decision, review = own.gov("decision"), own.gov("review")
    where = f"WHERE review_id = '{asked}'"
    past_guards(own, "decision", f"UPDATE {decision} SET verdict = 'approve' {where}")  # noqa: S608
    assert await one.facts(2) == before
    assert (await own.services.trail.verify()).ok is False
    past_guards(own, "decision", f"DELETE FROM {decision} {where}")  # noqa: S608
    assert await one.facts(2) == before
    assert (await one.shown(asked)).decisions[0].verdict == "reject"
    past_guards(own, "review", f"UPDATE {review} SET expires = expires + 1 {where}")  # noqa: S608
    assert await one.facts(2) == before
    past_guards(own, "review", f"DELETE FROM {review} {where}")  # noqa: S608
    assert await one.facts(2) == before
    assert (await one.shown(asked[:6])).status == "rejected"
    assert "RECORD" in {p.code for p in (await own.services.integrity.verify("fm")).problems}


@pytest.mark.parametrize("to", [1, 2])
async def test_an_approval_copied_to_another_version_or_review_does_not_count(own: World, to: int) -> None:
    """The very row of an approval with its own event, moved to where it would be welcome."""
    one = await committee(own.services, "ann")
    made = await one.decide("ann", await one.request(2))
    second = await one.request(to, risks="others")
    kept = "workspace, verdict, person, proof, statement_digest, fingerprint, expires, event, name"
    table = own.gov("decision")
    own.sql(
        f"INSERT INTO {table} ({kept}, decision_id, review_id, version) "  # noqa: S608
        f"SELECT {kept}, '{'f' * 32}', '{second}', {to} FROM {table} WHERE decision_id = '{made.decision_id}'",
        owner=True,
    )
    facts = await one.facts(to)
    assert facts is not None
    assert (facts.review_id, facts.status, facts.approvals) == (second, "open", ())


# At the same time


async def outcomes(made: Committee, asked: str, deciders: list[str]) -> list[str]:
    """Let everybody decide at once, each through services of their own."""
    found: list[str] = []

    async def decide(who: str, services: Services) -> None:
        try:
            found.append((await services.reviews.decide(asked, "approve", "me too", key=made.keys[who])).review_status)
        except IntelligentScanError as error:
            found.append(error.code)

    async with anyio.create_task_group() as group:
        for who in deciders:
            group.start_soon(decide, who, build(made.services.settings))
    return sorted(found)


async def test_of_people_who_decide_at_once_each_is_heard_once(own: World) -> None:
    one = await committee(own.services, "ann", "bob", "cid", quorum=2, authenticated=True)
    asked = await one.request(2)
    assert await outcomes(one, asked, ["ann", "ann", "ann"]) == ["REFUSED", "REFUSED", "open"]
    assert await outcomes(one, asked, ["bob", "cid", "bob"]) == ["REVIEW_CLOSED", "REVIEW_CLOSED", "approved"]
    shown = await one.shown(asked)
    assert (shown.approvals, len(shown.decisions)) == (2, 2)
    assert (await own.services.integrity.verify("fm")).ok


# Texts


HOSTILE = "fine [x](http://evil) ![i](http://evil) <script>\u202e\x1b[2J\ud800 'intelligentscan review approve'"


async def test_texts_of_people_are_shown_escaped_and_stay_out_of_the_chain(services: Services) -> None:
    one = await committee(services)
    asked = await one.request(bias=HOSTILE, risks={HOSTILE: HOSTILE})
    await one.reviews.attest(asked, "safety", text=HOSTILE)
    await one.reviews.decide(asked, "approve", HOSTILE.replace("\ud800", ""))
    shown = (await one.shown(asked)).model_dump_json()
    for active in ("](", "![", "<script", "\u202e", "\x1b", "\ud800"):
        assert active not in shown

    def bodies(stores: Any) -> str:
        with stores.governance.reading() as read:
            event = read.tables.event
            return " ".join(read.connection.execute(event.select().with_only_columns(event.c.body)).scalars())

    chained = await services.store.read(bodies)
    assert "evil" not in chained
    assert json.dumps(ME) not in chained


# Faces


async def test_an_agent_asks_and_is_told_that_a_person_decides(services: Services) -> None:
    async with connected(services) as client:
        made = await answered(client, "request_review", name="fm", version=1, evidence={"bias": "none found"})
        assert (made["status"], made["evidence"]["bias"]) == ("open", 1)
        assert "an agent cannot" in made["next"]
        assert all("intelligentscan review attest" in missing for missing in made["missing"])
        again = await answered(client, "request_review", name="fm", version=1)
        assert (again["review_id"], again["created"]) == (made["review_id"], False)
        wrong = await refused(client, "request_review", name="fm", version=1, evidence={"beauty": "x"})
        assert (wrong["code"], "accuracy" in wrong["next"]) == ("INVALID_ARGUMENT", True)
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert not [name for name in tools if any(word in name for word in ("approve", "decide", "attest", "reject"))]


@pytest.fixture
def command(registered: Trained, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(registered.home))
    monkeypatch.setenv("INTELLIGENTSCAN_ARCHIVE", str(registered.settings.archive))
    return CommandLine(registered.home)


def test_the_commands_lead_from_request_to_approval_and_back(command: CommandLine, tmp_path: Path) -> None:
    made = command.json("review", "request", "fm", "1", "--evidence", "risks=small")
    asked = made["review_id"]
    assert "risks" not in " ".join(made["missing"])
    report = tmp_path / "bias.txt"
    report.write_text("no gap")
    attested = command.json("review", "attest", asked[:8], "bias", "--file", str(report))
    assert attested["evidence"][-1]["criterion"] == "bias"
    listed = command("review", "list", "--status", "open")
    assert asked[:12] in listed.out
    shown = command("review", "show", asked[:6])
    assert shown.code == 0
    for part in ("fm version 1: open", "solo: 0 of 1 approvals", "metrics", "self-reported", "measured by us"):
        assert part in shown.out
    assert "safety" in shown.err
    assert re.search(r"four eyes +not yet decided *\n", shown.out)
    approved = command("review", "approve", asked, "--reason", "looked at it")
    assert (approved.code, "approved fm version 1 (self-asserted" in approved.out) == (0, True)
    assert "four_eyes: false" in approved.out
    closed = command("review", "reject", asked, "--reason", "changed my mind")
    assert (closed.code, "is approved already" in closed.err) == (2, True)
    assert "review revoke" in closed.err
    revoked = command.json("review", "revoke", asked, "--reason", "changed my mind")
    assert revoked["review_status"] == "revoked"
    assert command.json("review", "show", asked)["status"] == "revoked"
    wrong = command.json("review", "list", "--status", "undecided", code=2)
    assert wrong["code"] == "INVALID_ARGUMENT"
    assert command.json("review", "request", "fm", "1", "--evidence", "beauty=1", code=2)["code"] == "INVALID_ARGUMENT"
    twice = command.json("review", "request", "fm", "1", "--evidence", "risks=a", "--evidence", "risks=b", code=2)
    assert "two texts for risks" in twice["message"]


def test_what_a_review_lacks_is_told_as_commands_that_run(command: CommandLine, tmp_path: Path) -> None:
    made = command("review", "request", "fm", "1")
    lacking = next(line for line in made.err.splitlines() if line.strip().startswith("bias:"))
    first, second = re.findall(r"'intelligentscan ([^']+)'", lacking)
    assert command(*shlex.split(second.replace("…", "fair"))).code == 0
    assert "bias" not in command(*shlex.split(first.replace("…", "fair"))).err
    shown = command("promote", "fm", "1", "--to", "Production", "--reason", "go", "--dry-run")
    (approve,) = re.findall(r"'intelligentscan (review approve [^']+)'", shown.out + shown.err)
    assert command(*shlex.split(approve.replace("…", "good"))).code == 0


def test_a_named_pipe_is_no_document_and_no_signature(command: CommandLine, tmp_path: Path) -> None:
    asked = command.json("review", "request", "fm", "1")["review_id"]
    os.mkfifo(tmp_path / "pipe")
    for arguments in (
        ("attest", asked, "bias", "--file"),
        ("approve", asked, "--reason", "fine", "--signature"),
        ("approve", asked, "--reason", "fine", "--key"),
    ):
        refusal = command.json("review", *arguments, str(tmp_path / "pipe"), code=2)
        assert (refusal["code"], "is a named pipe" in refusal["message"]) == ("WRONG_PATH_KIND", True)


async def test_a_signature_by_openssh_over_the_printed_statement_counts(services: Services, tmp_path: Path) -> None:
    if (program := shutil.which("ssh-keygen")) is None:
        pytest.skip("ssh-keygen is not installed")
    one = await committee(services, "ann", authenticated=True)
    asked = await one.request()
    key, said = tmp_path / "key", tmp_path / "statement"
    key.write_bytes(one.keys["ann"].private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    key.chmod(0o600)
    said.write_bytes(await one.reviews.statement(asked[:6], "approve"))
    done = await anyio.run_process([program, "-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(said)])
    assert done.returncode == 0
    signature = Path(f"{said}.sig").read_text()
    made = await one.reviews.decide(asked, "approve", "seen", signature=signature)
    assert (made.person, made.proof, made.review_status) == ("ann", "authenticated", "approved")
