"""What the tests of plans share: a policy to put in force, looks at the trail, and acts in processes of their own."""

from pathlib import Path
from typing import Any

import anyio
from child_work import die_at_statement
from sqlalchemy import select

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import PlanInvalid
from intelligentscan.domain.plan import Plan
from intelligentscan.services.plan_record import plan_use
from intelligentscan.settings import Settings
from intelligentscan.stores.interface import Stores

MOVE: dict[str, Any] = {"name": "fm", "version": 1, "to": "Production", "reason": "best of all"}
_GATES = "{sealed: {}, intact: {}, not_drifted: {}}"
_STAGING = "{intact: {}, not_drifted: {}}"
_POLICY = f"""\
policy: waiting
version: 1
confirmation: CONFIRMATION
tiers:
  standard: {{Staging: {_STAGING}, Production: {_GATES}}}
  scan-config: {{Staging: {_STAGING}, Production: {_GATES}}}
"""


async def ask(services: Services, confirmation: str) -> None:
    """Put a policy in force that asks for no review, and for confirmation like this."""
    await services.policies.activate(_POLICY.replace("CONFIRMATION", confirmation), "a test")


async def planned(services: Services, **changed: Any) -> Plan:
    """Return the plan of a move to Production, as an agent that asks for it gets one."""
    given = {**MOVE, **changed}
    preview = await services.registry.promote(**given, dry_run=True)
    return await services.plans.propose("promote", given, preview)


async def stages(services: Services) -> dict[int, str]:
    """Return the stage of each version of `fm`."""
    return {v.version: v.stage for v in (await services.registry.get("fm")).versions}


async def told(services: Services, since: int = 0) -> list[str]:
    """Return the actions of the events after one, the oldest first."""
    return [e.action for e in reversed((await services.history.get(limit=100)).events) if e.seq > since]


async def last_event(services: Services) -> int:
    """Return the number of the last event."""
    return (await services.history.get(limit=1)).events[0].seq


def decisions(stores: Stores) -> int:
    """Return how many decisions of reviews there are."""
    with stores.governance.reading() as read:
        return len(read.connection.execute(select(read.tables.decision.c.event)).all())


def services_of(home: str, archive: str) -> Services:
    """Return services on a store whose archive lies elsewhere."""
    return build(Settings(home=Path(home), archive=Path(archive)))


def use_up(home: str, archive: str, plan_id: str) -> str:
    """Use a plan in a governed unit of its own; return what became of that."""
    use = plan_use(plan_id, "promote", MOVE)
    assert use is not None

    def consume(stores: Stores) -> None:
        with stores.governance.unit() as unit:
            use.consume(unit, stores)

    try:
        services_of(home, archive).store.call_blocking(consume)
    except PlanInvalid as refusal:
        return str(refusal.details["status"])
    return "done"


def promote(home: str, archive: str, plan_id: str) -> bool:
    """Promote with a plan; return whether that changed anything."""
    decision = anyio.run(lambda: services_of(home, archive).registry.promote(**MOVE, confirm=plan_id))
    assert decision.status == "promoted"
    return decision.changed


def promote_and_die(home: str, archive: str, plan_id: str, statement: str) -> None:
    """Begin to promote with a plan, and be killed before a statement of the act's transaction."""
    services = services_of(home, archive)

    async def work() -> None:
        await services.store.read(lambda s: None)
        die_at_statement(1, statement)
        await services.registry.promote(**MOVE, confirm=plan_id)

    anyio.run(work)
