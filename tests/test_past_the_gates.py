"""Ways round the gates: what was rejected, tampered with, rewritten or signed by a lost key gets nowhere by them."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from committee import ME, committee
from conftest import Trained
from people_world import OTHER
from reviewed import approve, release
from test_sealed_versions import as_owner

from intelligentscan.domain.errors import IntelligentScanError, NotPermitted

INTO_PRODUCTION = (
    "UPDATE model_versions SET current_stage = 'Archived' WHERE version = 1",
    "UPDATE model_versions SET current_stage = 'Production' WHERE version = 2",
    "UPDATE registered_model_aliases SET version = 2 WHERE alias = 'champion'",
)


async def refused(call: Any) -> IntelligentScanError:
    with pytest.raises(IntelligentScanError) as caught:
        await call
    assert caught.value.next
    return caught.value


@pytest.mark.parametrize("said", ["reject", "revoke"])
async def test_what_the_committee_does_not_want_needs_a_new_approval_and_not_only_a_new_request(
    registered: Trained, said: str
) -> None:
    services = registered.services
    for version in (1, 2):
        await release(services, "fm", version, reason="r")
    asked = await services.reviews.request("fm", 1, {"safety": "a"})
    if said == "reject":
        await services.reviews.decide(asked.review_id, "reject", "unsafe")
    else:
        await services.reviews.decide(asked.review_id, "approve", "fine")
        await services.reviews.revoke(asked.review_id, "unsafe")
    back = services.registry.promote
    assert "needs a new approval" in (await refused(back("fm", 1, "Production", reason="back"))).next
    again = await services.reviews.request("fm", 1, {"safety": "b"})
    assert again.created
    waits = await back("fm", 1, "Production", reason="back")
    assert (waits.status, waits.changed, waits.review_id) == ("pending_review", False, again.review_id)
    await services.reviews.decide(again.review_id, "approve", "safe now")
    assert (await back("fm", 1, "Production", reason="back")).status == "promoted"


async def test_a_new_request_says_that_it_takes_the_place_of_an_approval(registered: Trained) -> None:
    services = registered.services
    await release(services, "fm", 1, reason="r")
    asked = await services.reviews.request("fm", 1, {"safety": "more"})
    (note,) = asked.notes
    assert "whose approval counts for no further promotion" in note
    newest = (await services.history.get(name="fm")).events[0]
    assert newest.facts["replaces"] in note


async def test_a_version_that_stands_in_production_past_the_record_is_not_called_promoted(registered: Trained) -> None:
    services = registered.services
    await release(services, "fm", 1, reason="r")
    as_owner(registered.home, *INTO_PRODUCTION)
    error = await refused(services.registry.promote("fm", 2, "Production", reason="it is there"))
    assert "not_drifted" in error.next
    shown = await services.registry.promote("fm", 2, "Production", reason="it is there", dry_run=True)
    assert (shown.status, shown.changed) == ("would_refuse", True)


async def test_accepting_what_came_to_production_asks_the_gates_of_a_promotion(registered: Trained) -> None:
    services = registered.services
    await release(services, "fm", 1, reason="r")
    as_owner(registered.home, *INTO_PRODUCTION)
    reconcile = services.adoption.reconcile
    error = await refused(reconcile("fm", accept=True, reason="an emergency at night"))
    assert (error.code, "reviewed" in error.next) == ("GATES_FAILED", True)
    assert (await reconcile("fm", accept=False, reason="nobody decided that")).how == "restored"
    await approve(services, "fm", 2)
    as_owner(registered.home, *INTO_PRODUCTION)
    accepted = await reconcile("fm", accept=True, reason="an emergency at night")
    assert (accepted.how, accepted.left) == ("accepted", [])
    told = [(e.action, e.reason) for e in (await services.history.get(name="fm", version=2)).events]
    assert ("version.accepted", "an emergency at night") in told


async def test_an_alias_for_a_version_that_was_never_live_is_not_accepted_either(registered: Trained) -> None:
    services = registered.services
    await release(services, "fm", 1, reason="r")
    as_owner(
        registered.home,
        "INSERT INTO registered_model_aliases (name, alias, version, workspace) "
        "VALUES ('fm', 'previous', 2, 'default')",
    )
    assert (await refused(services.adoption.reconcile("fm", accept=True, reason="r"))).code == "GATES_FAILED"


async def test_only_an_administrator_puts_guards_back_and_the_trail_says_who(registered: Trained) -> None:
    services = registered.services
    people = services.people
    await people.grant("administrator", ME)
    await people.grant("administrator", OTHER, known_as="account")
    await people.revoke("administrator", ME)
    with closing(sqlite3.connect(registered.home / "mlflow.db")) as connection, connection:
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'runs'"
        for (name,) in connection.execute(triggers).fetchall():
            connection.execute(f'DROP TRIGGER "{name}"')
    missing = (await services.adoption.check()).guards["missing"]
    with pytest.raises(NotPermitted):
        await services.adoption.adopt()
    assert (await services.adoption.check()).guards["missing"] == missing


async def test_a_run_that_was_rewritten_after_an_unlock_proves_nothing(registered: Trained) -> None:
    services = registered.services
    await release(services, "fm", 1, reason="r")
    await approve(services, "fm", 2)
    experiment = registered.client.get_run(registered.better).info.experiment_id
    await services.locks.unlock(experiment, "wrong data")
    shown = await services.registry.promote("fm", 2, "Production", reason="r", dry_run=True)
    assert shown.status == "would_promote"  # nothing was changed yet
    registered.client.log_metric(registered.better, "accuracy", 0.999)
    error = await refused(services.registry.promote("fm", 2, "Production", reason="r"))
    assert "was unlocked and has changed since" in error.next
    assert (await services.registry.promote("fm", 2, "Staging")).status == "promoted"


async def test_what_was_live_last_is_the_yardstick_also_after_it_was_archived(registered: Trained) -> None:
    services = registered.services
    await release(services, "fm", 1, reason="r")
    await services.registry.promote("fm", 1, "Archived")
    before = await services.store.read(lambda s: s.registry.get_versions("fm", 2, 1, None).rows[0])
    found = await services._gatherer.gather(before, "Production", 0, record=False)
    assert found.evidence.champion is not None
    assert (found.evidence.champion.version, found.evidence.champion.live) == (1, False)
    await services.reviews.revoke((await services.reviews.list()).reviews[0].review_id, "its numbers were wrong")
    found = await services._gatherer.gather(before, "Production", 0, record=False)
    assert found.evidence.champion is None


async def test_approvals_by_a_lost_key_count_no_more_and_by_one_that_was_merely_changed_they_do(
    registered: Trained,
) -> None:
    services = registered.services
    two = await committee(services, "ann", "bob", four_eyes=True, authenticated=True)
    keys = {k.person: k.fingerprint for k in await services.people.keys()}
    for who, version in (("ann", 1), ("bob", 2)):
        assert await two.outcome(who, await two.request(version)) == "approved"
        retired = await services.people.retire(keys[who], "a new laptop")
        assert (retired.active, retired.compromised) == (False, False)
    promote = services.registry.promote
    assert (await promote("fm", 1, "Production", reason="r")).four_eyes
    lost = await services.people.retire(keys["bob"], "it was stolen", compromised=True)
    assert lost.compromised
    assert (await promote("fm", 2, "Production", reason="r")).status == "pending_review"
    assert (await promote("fm", 1, "Production", reason="r")).changed is False


async def test_a_version_approved_by_a_lost_key_is_no_rollback(registered: Trained) -> None:
    services = registered.services
    two = await committee(services, "ann", four_eyes=True, authenticated=True)
    for version in (1, 2):
        assert await two.outcome("ann", await two.request(version)) == "approved"
        await services.registry.promote("fm", version, "Production", reason="r")
    (key,) = await services.people.keys()
    await services.people.retire(key.fingerprint, "it was stolen", compromised=True)
    back = await services.registry.promote("fm", 1, "Production", reason="back", dry_run=True)
    assert [g.gate for g in back.gates if g.outcome == "fail"] == ["reviewed"]


async def test_an_approval_at_the_account_that_asked_says_what_alone_tells_the_people_apart(
    registered: Trained,
) -> None:
    services = registered.services
    two = await committee(services, "ann", four_eyes=True, authenticated=True)
    made = await two.decide("ann", await two.request())
    assert made.four_eyes
    assert any("only the key tells the two people apart" in note for note in made.notes)
    done = await services.registry.promote("fm", 1, "Production", reason="r")
    (gate,) = [g for g in done.gates if g.gate == "segregation_of_duties"]
    assert (gate.outcome, "only the key tells them apart" in gate.detail) == ("pass", True)
    decided = next(e for e in (await services.history.get(name="fm")).events if e.action == "review.decided")
    assert decided.facts["same_account"] is True
