"""The life of a review: asked for, decided by people, bound to bytes and policy, and what counts for nothing."""

import json
from pathlib import Path

import pytest
from command_line import CommandLine
from conftest import Trained
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from people_world import ME, PeopleWorld
from reviewed import approve

from intelligentscan._ssh_signature import load_private_key, sign_sshsig
from intelligentscan.app import Services
from intelligentscan.domain.errors import (
    GatesFailed,
    IntelligentScanError,
    Refused,
    ReviewClosed,
    ReviewNotFound,
    SignatureInvalid,
)
from intelligentscan.domain.review import CRITERIA, ReviewDetails
from intelligentscan.services.review_state import NAMESPACE

NAME = "fm"


@pytest.fixture
async def trained_store(trained: Trained) -> Trained:
    """A store with two sealed versions of a model."""
    services = trained.services
    for run_id in (trained.with_model, trained.better):
        await services.registry.register(NAME, run_id=run_id, use_case="who leaves", description="a classifier")
    return trained


@pytest.fixture
def services(trained_store: Trained) -> Services:
    return trained_store.services


def raw(trained: Trained) -> PeopleWorld:
    """Return a way around us, for the owner of the tables."""
    return PeopleWorld(trained.services, trained.home, trained.settings.store_uri)


def new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


async def status_of(services: Services, review_id: str) -> str:
    return (await services.reviews.show(review_id)).status


async def test_a_review_is_asked_for_once_decided_and_revoked(services: Services) -> None:
    asked = await services.reviews.request(NAME, 1)
    again = await services.reviews.request(NAME, 1)
    assert (asked.status, asked.created, again.created) == ("open", True, False)
    assert asked.review_id == again.review_id
    assert asked.evidence.keys() <= set(CRITERIA)
    assert any(missing.startswith("bias:") for missing in asked.missing)

    made = await services.reviews.decide(asked.review_id, "approve", "looked at it")
    assert (made.proof, made.review_status, made.four_eyes) == ("self-asserted", "approved", False)
    with pytest.raises(ReviewClosed):
        await services.reviews.decide(asked.review_id, "approve", "once more")
    assert (await services.registry.promote(NAME, 1, "Production", reason="r")).status == "promoted"

    taken = await services.reviews.revoke(asked.review_id, "the data was wrong")
    assert taken.review_status == "revoked"
    with pytest.raises(GatesFailed, match="revoked"):
        await services.registry.promote(NAME, 1, "Staging")
        await services.registry.promote(NAME, 1, "Production", reason="r")
    assert [e.action for e in (await services.history.get(name=NAME, version=1)).events].count("review.decided") == 2


async def test_an_approval_is_for_one_version_and_other_evidence_needs_another(services: Services) -> None:
    await approve(services, NAME, 1)
    other = await services.registry.promote(NAME, 2, "Production", reason="r")
    assert other.status == "pending_review"
    more = await services.reviews.request(NAME, 2, {"bias": "parity measured: 0.98"})
    assert more.created
    assert await status_of(services, str(other.review_id)) == "superseded"
    shown = await services.reviews.show(more.review_id)
    assert {item.criterion for item in shown.evidence} >= {"accuracy", "bias", "documentation"}
    assert "parity measured: 0.98" in json.dumps([item.value for item in shown.evidence])


async def test_a_rejected_version_is_refused_until_it_is_reviewed_again(services: Services) -> None:
    asked = await services.reviews.request(NAME, 1)
    made = await services.reviews.decide(asked.review_id, "reject", "worse on new customers")
    assert made.review_status == "rejected"
    with pytest.raises(GatesFailed, match="rejected"):
        await services.registry.promote(NAME, 1, "Production", reason="r")


FORGERIES = {
    "decision": (
        "(event, decision_id, review_id, workspace, name, version, verdict, person, proof, statement_digest, expires)"
        " VALUES (1, 'x', ?, 'default', 'fm', 1, 'approve', 'me', 'authenticated', 'd', 99999999999999)"
    ),
    "attestation": (
        "(event, review_id, workspace, name, version, criterion, person, proof, digest)"
        " VALUES (1, ?, 'default', 'fm', 1, 'bias', 'me', 'authenticated', 'd')"
    ),
}


@pytest.mark.parametrize("table", FORGERIES)
async def test_a_row_that_nobody_signed_decides_nothing_and_is_reported(trained_store: Trained, table: str) -> None:
    services, world = trained_store.services, raw(trained_store)
    asked = await services.reviews.request(NAME, 1)
    world.sql(f"INSERT INTO {world.table(table)} {FORGERIES[table]}", asked.review_id)
    shown = await services.reviews.show(asked.review_id)
    assert (shown.status, shown.approvals) == ("open", 0)
    assert any(missing.startswith("bias:") for missing in shown.missing)
    assert "RECORD" in {p.code for p in (await services.integrity.verify(NAME)).problems}
    with pytest.raises(IntelligentScanError):
        await services.reviews.decide(asked.review_id, "approve", "on a record that was forged")
    with pytest.raises(GatesFailed):
        await services.registry.promote(NAME, 1, "Production", reason="r")


async def test_a_decision_that_was_removed_counts_all_the_same(trained_store: Trained) -> None:
    services, world = trained_store.services, raw(trained_store)
    await approve(services, NAME, 1)
    review_id = (await services.reviews.list()).reviews[0].review_id
    await services.reviews.revoke(review_id, "no")
    world.sql(f"DELETE FROM {world.unguarded('decision')} WHERE verdict = 'revoke'")  # noqa: S608
    assert await status_of(services, review_id) == "revoked"


async def test_an_enrolled_key_makes_a_decision_authenticated_and_no_other_signature_does(
    trained_store: Trained,
) -> None:
    services, key, stranger = trained_store.services, new_key(), new_key()
    await raw(trained_store).enrol(ME, key)
    first, second = [await services.reviews.request(NAME, version) for version in (1, 2)]
    with pytest.raises(SignatureInvalid):
        await services.reviews.decide(first.review_id, "approve", "r", key=load_private_key(stranger))
    statement = await services.reviews.statement(second.review_id, "approve")
    brought = sign_sshsig(load_private_key(stranger), NAMESPACE, statement)
    with pytest.raises(SignatureInvalid):
        await services.reviews.decide(first.review_id, "approve", "r", signature=brought)
    assert await status_of(services, first.review_id) == "open"
    made = await services.reviews.decide(first.review_id, "approve", "r", key=load_private_key(key))
    assert (made.person, made.proof, made.review_status) == (ME, "authenticated", "approved")


async def test_what_is_not_there_or_makes_no_sense_is_refused(services: Services) -> None:
    asked = await services.reviews.request(NAME, 1)
    with pytest.raises(ReviewNotFound):
        await services.reviews.show("0" * 32)
    with pytest.raises(IntelligentScanError):
        await services.reviews.decide(asked.review_id, "approve", "  ")
    with pytest.raises(IntelligentScanError):
        await services.reviews.request(NAME, 9)
    with pytest.raises(IntelligentScanError):
        await services.reviews.request(NAME, 1, {"beauty": "very"})
    with pytest.raises(Refused):
        await services.reviews.revoke(asked.review_id, "there is nothing to take back")


async def test_an_attestation_fills_a_gap(services: Services) -> None:
    asked = await services.reviews.request(NAME, 1)
    shown = await services.reviews.attest(asked.review_id, "bias", text="checked by hand on 200 customers")
    assert not any(missing.startswith("bias:") for missing in shown.missing)


def test_the_committee_works_at_the_command_line(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(trained.home))
    monkeypatch.chdir(trained.home.parent)
    command = CommandLine(trained.home)
    command.json("register", trained.with_model, "--name", NAME)
    waits = command.json("promote", NAME, "1", "--to", "Production", "--reason", "r", code=1)
    listed = command("review", "list")
    shown = command("review", "show", waits["review_id"][:8])
    note = Path(command.home.parent / "bias.md")
    note.write_text("parity 0.98")
    attested = command("review", "attest", waits["review_id"], "bias", "--file", str(note))
    statement = command("review", "show", waits["review_id"], "--statement", "approve")
    approved = command("review", "approve", waits["review_id"], "--reason", "looked at it")
    closed = command.json("review", "reject", waits["review_id"], "--reason", "no", code=2)
    details = ReviewDetails.model_validate(command.json("review", "show", waits["review_id"]))
    promoted = command("promote", NAME, "1", "--to", "Production", "--reason", "r")

    assert (waits["status"], waits["four_eyes"]) == ("pending_review", False)
    assert waits["review_id"][:12] in listed.out
    for word in (*CRITERIA, "solo: 0 of 1 approvals", "measured by us"):
        assert word in shown.out
    assert "review attest" in shown.err
    assert "✓ attested bias" in attested.out
    assert json.loads(statement.out)["verdict"] == "approve"
    assert "self-asserted" in approved.out
    assert closed["code"] == "REVIEW_CLOSED"
    assert (details.status, details.approvals, details.four_eyes) == ("approved", 1, False)
    assert "✓ reviewed" in promoted.out
