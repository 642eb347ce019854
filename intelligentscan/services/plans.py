"""Plans: what an agent asks for waits until a person has said yes, wherever that person is asked.

A plan prevents accidents; it is no evidence of a person. A yes at the command line was given by the account
whose plan it is, a yes through the client by somebody whom we cannot verify, and neither is a review.
"""

import re
import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select

from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import InvalidArgument, PlanInvalid, Refused
from intelligentscan.domain.plan import How, Plan, PlanList, PlannedTool
from intelligentscan.domain.policy import Confirmation
from intelligentscan.domain.registry import PromotionDecision, RegisteredVersion
from intelligentscan.domain.text import untrusted
from intelligentscan.services.plan_record import (
    MADE,
    UNANSWERED,
    PlanRecord,
    arguments_digest,
    no_plan,
    now_ms,
    plan_of,
    plan_use,
    plans_of,
    refuse_unless,
    state_digest,
    subject_of,
    take_step,
)
from intelligentscan.services.policies import policy_in_force
from intelligentscan.services.principal import person
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import Act
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.interface import Stores

VALID_MS = 15 * 60 * 1000
MAX_OPEN = 50
MAX_UNANSWERED = 20
_SHOWN = 100
_SHORTEST = 6
_PREFIX = re.compile(r"[0-9a-f]+")
_MODEL = re.compile(r"models:/m-[0-9a-f]{32}")


class PlanService:
    """One use case per method."""

    def __init__(self, store: StoreAccess) -> None:
        self._store = store

    async def confirmation(self) -> Confirmation:
        """Return when an agent's act waits for a person, by the policy in force."""

        def look(stores: Stores) -> Confirmation:
            if not stores.governance.installed():
                return policy_in_force(None).policy.confirmation
            with stores.governance.reading() as read:
                return policy_in_force(read).policy.confirmation

        return await self._store.read(look)

    async def propose(
        self, tool: PlannedTool, arguments: Mapping[str, object], preview: RegisteredVersion | PromotionDecision
    ) -> Plan:
        """Return the plan for a call: the one that waits already if the same person asks for the same again.

        Args:
            tool: the tool.
            arguments: as they were given to it.
            preview: what its dry run has answered.

        Raises:
            Refused: too many plans of this person wait already.
            GovernanceUnready: the guards, the trail or the key are not in order.
        """
        digest = arguments_digest(tool, arguments)

        def make(stores: Stores) -> Plan:
            about = _about(stores, tool, preview)
            with stores.governance.unit() as unit:
                mine = unit.principal(person())
                waiting = _waiting(unit.read, mine)
                for record in plans_of(unit.read, [p for p, of in waiting.items() if of == digest]):
                    if record.about == about and record.status(unit.read, stores) in ("open", "approved"):
                        return _shown(unit.read, stores, record)
                if len(waiting) >= MAX_OPEN:
                    raise Refused(
                        f"{len(waiting)} plans wait for an answer already.",
                        next="a person looks at them with 'intelligentscan plan list'; each expires by itself.",
                    )
                row = {
                    "plan_id": secrets.token_hex(16),
                    "tool": tool,
                    "person": mine,
                    "arguments_digest": digest,
                    "state_digest": state_digest(unit.read, stores, about),
                    "expires": now_ms() + VALID_MS,
                }
                unit.append(Act(MADE, person(), subject_of(about), facts=about, rows={"plan": [row]}))
                return _shown(unit.read, stores, plan_of(unit.read, str(row["plan_id"])))

        return await self._store.write(make)

    async def waiting(self, confirm: str, tool: PlannedTool, arguments: Mapping[str, object]) -> Plan | None:
        """Return the plan that a call names if it waits for an answer; the act itself refuses or takes any other."""
        use = plan_use(confirm, tool, arguments)

        def look(stores: Stores) -> Plan | None:
            if use is None or not stores.governance.installed():
                return None
            with stores.governance.reading() as read:
                try:
                    found = _shown(read, stores, use.fitting(read))
                except PlanInvalid:
                    return None
                return found if found.status == "open" else None

        return await self._store.read(look)

    async def list(self) -> PlanList:
        """Return the last plans of everybody on this store."""

        def look(stores: Stores) -> PlanList:
            if not stores.governance.installed():
                return PlanList(plans=[])
            with stores.governance.reading() as read:
                table = read.tables.plan
                ids = read.connection.execute(select(table.c.plan_id).order_by(table.c.event.desc()).limit(_SHOWN))
                return PlanList(plans=[_shown(read, stores, record) for record in plans_of(read, [*ids.scalars()])])

        return await self._store.read(look)

    async def show(self, plan_id: str) -> Plan:
        """Return a plan by its id or a prefix of at least six characters.

        Raises:
            PlanInvalid: none or several begin like this.
        """

        def look(stores: Stores) -> Plan:
            if not stores.governance.installed():
                raise no_plan(plan_id)
            with stores.governance.reading() as read:
                return _shown(read, stores, _found(read, plan_id))

        return await self._store.read(look)

    async def approve(self, plan_id: str) -> Plan:
        """Say yes to a plan at the command line; the act itself still waits for the call.

        Raises:
            PlanInvalid: it is another person's, or does not wait any more.
        """

        def act(stores: Stores) -> Plan:
            with stores.governance.unit() as unit:
                record = _own(unit, plan_id)
                status = record.status(unit.read, stores)
                refuse_unless(record, status, ("open", "approved"))
                if status == "open":
                    take_step(unit, record, "approved", "command line")
                return _shown(unit.read, stores, plan_of(unit.read, record.plan_id))

        return await self._store.write(act)

    async def decline(self, plan_id: str, how: How = "command line") -> Plan:
        """Say no to a plan, also to one that was approved and not used yet.

        Raises:
            PlanInvalid: it is another person's, or does not wait any more.
        """

        def act(stores: Stores) -> Plan:
            with stores.governance.unit() as unit:
                record = _own(unit, plan_id)
                status = record.status(unit.read, stores)
                refuse_unless(record, status, ("open", "approved", "declined", "stale"))
                if status != "declined":
                    take_step(unit, record, "declined", how)
                return _shown(unit.read, stores, plan_of(unit.read, record.plan_id))

        return await self._store.write(act)

    async def unanswered(self, plan_id: str) -> Plan:
        """Note that somebody was asked through the client and gave no answer; the plan goes on waiting.

        Raises:
            PlanInvalid: it does not wait any more.
        """

        def act(stores: Stores) -> Plan:
            with stores.governance.unit() as unit:
                record = _own(unit, plan_id)
                refuse_unless(record, record.status(unit.read, stores), ("open", "approved"))
                since = record.row.at
                if unit.read.count_since(UNANSWERED, record.row["person"], since, MAX_UNANSWERED) < MAX_UNANSWERED:
                    facts = {"plan": record.plan_id, "tool": record.tool, "how": "client"}
                    unit.append(Act(UNANSWERED, person(), subject_of(record.about), facts=facts))
                return _shown(unit.read, stores, record)

        return await self._store.write(act)


def _about(
    stores: Stores, tool: PlannedTool, preview: RegisteredVersion | PromotionDecision
) -> dict[str, str | int | bool | None]:
    """Return what a call would change, in ids and validated names."""
    about: dict[str, str | int | bool | None] = {"tool": tool, "name": preview.name, "version": preview.version}
    if isinstance(preview, PromotionDecision):
        return about | {"to": preview.stage, "replaces": preview.previous_version}
    run = stores.tracking.get_run(preview.source_run_id)
    if run is None:
        raise InvalidArgument("The run is gone.", next="find another one with search_runs.")
    model = preview.model_uri if preview.model_uri and _MODEL.fullmatch(preview.model_uri) else None
    return about | {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "model": model,
        "manifest_digest": preview.manifest_digest,
        "locks": preview.manifest_digest is not None and not preview.experiment_locked,
    }


def _will(about: Any) -> list[str]:
    """Return what a plan's act would do, one fact per line."""
    name, version = untrusted(about["name"], names.MAX_NAME), about["version"]
    if about["tool"] == "promote":
        will = [f"Version {version} of the model '{name}' goes to {about['to']}."]
        if (replaced := about["replaces"]) is not None:
            will.append(f"Version {replaced}, which is there now, is archived and gets the alias 'previous'.")
        return will
    what = about["model"] or ("the model" if about["manifest_digest"] else "the scanning configuration")
    will = [f"Version {version} of the model '{name}' is made from {what} of the run {about['run_id']} and sealed."]
    if about["locks"]:
        will.append(f"The experiment {about['experiment_id']} is locked: nobody can write to it any more.")
    return will


def _waiting(read: GovernanceReads, person_id: str) -> dict[str, str]:
    """Return the plans of somebody that have neither expired nor been answered, and the digests of their calls."""
    plan, step = read.tables.plan, read.tables.plan_step
    done = select(step.c.plan_id).where(step.c.plan_id == plan.c.plan_id, step.c.step.in_(("declined", "used")))
    query = select(plan.c.plan_id, plan.c.arguments_digest).where(
        plan.c.person == person_id, plan.c.expires > now_ms(), ~done.exists()
    )
    return {row.plan_id: row.arguments_digest for row in read.connection.execute(query)}


def _found(read: GovernanceReads, plan_id: str) -> PlanRecord:
    wanted = plan_id.strip().lower()
    if not _SHORTEST <= len(wanted) <= 32 or not _PREFIX.fullmatch(wanted):
        raise no_plan(plan_id)
    table = read.tables.plan
    like = select(table.c.plan_id).where(func.substr(table.c.plan_id, 1, len(wanted)) == wanted)
    found = plans_of(read, [*read.connection.execute(like.limit(2)).scalars()])
    if len(found) > 1:
        raise PlanInvalid(
            f"Several plans begin with '{wanted}'.", next="call again with the whole id; 'plan list' shows it."
        )
    if not found:
        raise no_plan(plan_id)
    return found[0]


def _own(unit: GovernedUnit, plan_id: str) -> PlanRecord:
    record = _found(unit.read, plan_id)
    if record.row["person"] != unit.read.find_principal(person()):
        raise PlanInvalid(
            f"The plan {record.plan_id} was made for another person, who alone can answer it.",
            next=f"that person runs 'intelligentscan plan approve {record.plan_id}'.",
        )
    return record


def _shown(read: GovernanceReads, stores: Stores, record: PlanRecord) -> Plan:
    row = record.row
    owner = read.principal_of(row["person"])
    return Plan(
        plan_id=record.plan_id,
        status=record.status(read, stores),
        tool=record.tool,
        will=_will(record.about),
        person=untrusted(owner.name, 100) if owner else "erased",
        at=rfc3339(row.at) or "",
        valid_until=rfc3339(row["expires"]) or "",
        how=record.how,
        event=record.last_event,
    )
