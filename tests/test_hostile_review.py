"""Ways to Production without evidence and a second person, on both databases: each is refused, and nothing moves."""

import pytest
from committee import ME, Committee, committee, enrol
from hostile import World
from mcp import Client
from mcp_client import EVERYTHING, answered
from mlflow.exceptions import MlflowException
from plan_work import MOVE, ask, decisions, planned, stages
from test_elicitation import Host

from intelligentscan.app import build
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.gates.policy import built_in
from intelligentscan.services.policies import policy_in_force
from intelligentscan.settings import Settings
from intelligentscan.toolsets.mcp_server import IntelligentScanServer

EMPTY = {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "bandit"}}, "results": []}]}
INVENTED = {"accuracy": 1.0, "open_findings": 0.0}
BOTH = {1: "Production", 2: "None"}


async def four_eyes(own: World, *people: str) -> Committee:
    return await committee(own.services, *people, four_eyes=True, authenticated=True)


async def test_who_asked_approves_with_no_key_and_no_second_account(own: World) -> None:
    two = await four_eyes(own, "ann")
    asked = await two.request(2)
    assert "NOT_PERMITTED" in await two.outcome(None, asked)
    await enrol(two, ME)
    for verdict in ("approve", "reject"):
        assert "NOT_PERMITTED" in await two.outcome(ME, asked, verdict)
    with pytest.raises(IntelligentScanError, match="cannot be its reviewer"):
        await own.services.people.grant("reviewer", ME)
    with pytest.raises(IntelligentScanError, match="cannot be its reviewer"):
        await own.services.people.grant("reviewer", ME.upper(), known_as="account")
    assert await own.promote() != "promoted"
    assert (await two.shown(asked)).status == "open"
    assert await stages(own.services) == BOTH


async def test_an_approval_counts_for_no_other_version_review_or_policy(own: World) -> None:
    two = await four_eyes(own, "ann")
    first, second = await two.request(1), await two.request(2)
    signature = await two.signed("ann", first)
    with pytest.raises(IntelligentScanError) as caught:
        await two.reviews.decide(second, "approve", "replayed", signature=signature)
    assert caught.value.code == "SIGNATURE_INVALID"
    assert await two.outcome("ann", second) == "approved"
    await own.services.policies.activate(built_in("team").model_dump_json(), "stricter now")
    assert await own.promote() != "promoted"
    assert await stages(own.services) == BOTH


async def test_the_account_is_that_of_the_process_whatever_it_is_called(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = await four_eyes(own, "ann")
    for variable in ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.setenv(variable, "ann")
    asked = await two.request(2)
    assert (await two.shown(asked)).requester == ME
    assert f"NOT_PERMITTED {ME} is not reviewer" in await two.outcome(None, asked)
    with pytest.raises(MlflowException, match="EXPERIMENT_LOCKED"):
        own.client.set_tag(own.ids.second, "mlflow.user", "somebody else")
    assert await stages(own.services) == BOTH


async def test_an_empty_report_and_invented_numbers_pass_no_gate(own: World) -> None:
    services = own.services
    await four_eyes(own, "ann")
    await services.policies.activate(built_in("team").model_dump_json(), "as a team")
    policy = await services.store.read(lambda s: policy_of(s))
    assert policy == "team"
    await services.scans.log(
        "imports", sarif=EMPTY, scanner="bandit", metrics=INVENTED, tags={"git.commit": "c" * 40}, create_missing=True
    )
    shown = await services.registry.promote("fm", 2, "Production", reason="r", dry_run=True)
    failed = {g.gate for g in shown.gates if g.outcome == "fail"}
    assert {"reviewed", "no_open_findings", "fresh", "lineage"} <= failed
    assert await own.promote() != "promoted"
    assert await stages(services) == BOTH


async def test_a_yes_is_used_once_by_one_person_for_one_state_on_whichever_worker(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = own.services
    await ask(services, "required")
    plan = await planned(services, version=2)
    await services.plans.approve(plan.plan_id)
    worker = build(Settings(home=own.home, tracking_uri=own.uri))
    move = {**MOVE, "version": 2}
    assert (await worker.registry.promote(**move, confirm=plan.plan_id)).changed
    await services.registry.promote("fm", 1, "Production", reason="back")
    for each in (services, worker):
        with pytest.raises(IntelligentScanError) as caught:
            await each.registry.promote(**move, confirm=plan.plan_id)
        assert caught.value.details["status"] == "used"
    unused = await planned(services, version=2)
    await services.plans.approve(unused.plan_id)
    with monkeypatch.context() as patch:
        patch.setattr("os.getuid", lambda: 65_534)
        with pytest.raises(IntelligentScanError, match="another person"):
            await services.registry.promote(**move, confirm=unused.plan_id)
    await services.registry.promote("fm", 2, "Staging")
    with pytest.raises(IntelligentScanError) as caught:
        await services.registry.promote(**move, confirm=unused.plan_id)
    assert caught.value.details["status"] == "stale"
    assert await stages(services) == {1: "Production", 2: "Staging"}


async def test_a_client_that_says_yes_to_everything_is_no_reviewer(own: World) -> None:
    services = own.services
    await (await four_eyes(own, "ann")).request(2)
    before = await services.store.read(decisions)
    host = Host({"approve": True})
    async with Client(
        IntelligentScanServer(services, EVERYTHING), mode="auto", elicitation_callback=host.answer
    ) as agent:
        await agent.list_tools()
        moved = await answered(agent, "promote", **{**MOVE, "version": 2})
    assert moved["status"] == "pending_review"
    assert await services.store.read(decisions) == before
    assert await stages(services) == BOTH


def policy_of(stores: object) -> str:
    with stores.governance.reading() as read:  # type: ignore[attr-defined]
        return policy_in_force(read).policy.policy
