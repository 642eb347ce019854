"""What a plan is bound to, and what became of it: read from signed events, used up in the act's own transaction.

A plan holds for one person, one tool, the arguments of one call, and the state that the call would change.
Whatever happens to the model meanwhile makes a yes to it stale, so an old yes cannot be used after a rollback.
Rows that no signed event has made, and events that somebody removed the rows of, are seen through.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import func, select

from intelligentscan._digest import sha256_hex
from intelligentscan.domain import names
from intelligentscan.domain.errors import PlanInvalid, TrailBroken
from intelligentscan.domain.plan import Consent, How, PlannedTool, PlanStatus
from intelligentscan.domain.registry import stage_from
from intelligentscan.domain.text import untrusted
from intelligentscan.services.denials import DENIED, Denials
from intelligentscan.services.policies import policy_in_force
from intelligentscan.services.principal import person
from intelligentscan.services.seals import VERIFIED
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.canonical import canonical
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, Act, Subject
from intelligentscan.stores.governance.store import GovernedUnit
from intelligentscan.stores.governance.vouched import VouchedRow, vouched
from intelligentscan.stores.interface import Stores

MADE, APPROVED, DECLINED, USED = "plan.made", "plan.approved", "plan.declined", "plan.used"
UNANSWERED = "plan.unanswered"
_PLAN_ID = re.compile(r"[0-9a-f]{32}")
_STEPS = {"approved": APPROVED, "declined": DECLINED, "used": USED}
_SILENT = (MADE, *_STEPS.values(), UNANSWERED, DENIED, VERIFIED)
"""Events about a model that leave it as it is; every other one makes a yes stale."""


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A plan as signed events made it; times in ms since the epoch.

    Attributes:
        about: what its act would change.
        steps: the steps that were taken, by name.
        forged: somebody wrote a row of it past the trail.
    """

    row: VouchedRow
    steps: Mapping[str, VouchedRow] = field(default_factory=dict)
    forged: bool = False

    @property
    def plan_id(self) -> str:
        """Its id."""
        return str(self.row["plan_id"])

    @property
    def tool(self) -> PlannedTool:
        """The tool that it is for."""
        return cast("PlannedTool", self.row["tool"])

    @property
    def about(self) -> Mapping[str, Any]:
        """What its act would change: ids and validated names."""
        return self.row.facts

    @property
    def how(self) -> How | None:
        """How it was answered, None as long as it was not."""
        step = self.steps.get("declined") or self.steps.get("approved")
        return cast("How", step["how"]) if step else None

    @property
    def last_event(self) -> int:
        """The event of its last step."""
        return max(self.row.event, *(step.event for step in self.steps.values())) if self.steps else self.row.event

    def status(self, read: GovernanceReads, stores: Stores) -> PlanStatus:
        """Return where it stands now."""
        if "used" in self.steps:
            return "used"
        if "declined" in self.steps:
            return "declined"
        if self.row["expires"] <= now_ms():
            return "expired"
        if self.forged or self.row["state_digest"] != state_digest(read, stores, self.about):
            return "stale"
        return "approved" if "approved" in self.steps else "open"


@dataclass(frozen=True, slots=True)
class PlanUse:
    """A plan with which somebody calls a tool, to be used up by the act."""

    consent: Consent
    tool: PlannedTool
    arguments: str

    @property
    def facts(self) -> dict[str, str]:
        """What the event of the act says about its confirmation."""
        return {"plan": self.consent.plan_id, "confirmed_by": self.consent.how}

    @property
    def _allowed(self) -> tuple[PlanStatus, ...]:
        return ("open", "approved") if self.consent.how == "client" else ("approved",)

    def known(self, stores: Stores) -> None:
        """Refuse an id that is no plan's.

        Raises:
            PlanInvalid: it is none.
        """
        if not stores.governance.installed():
            raise no_plan(self.consent.plan_id)
        with stores.governance.reading() as read:
            plan_of(read, self.consent.plan_id)

    def check(self, stores: Stores) -> None:
        """Refuse a plan that does not allow the call, before any work is done for it.

        One that was used passes: the act may be done already, and is then not done again.

        Raises:
            PlanInvalid: it does not allow the call.
        """
        with stores.governance.reading() as read:
            record = self.fitting(read)
            status = record.status(read, stores)
        refuse_unless(record, status, ("used", *self._allowed))

    def consume(self, unit: GovernedUnit, stores: Stores, manifest_digest: str | None = None) -> None:
        """Use the plan up, in the transaction of the act that it allows and before it changes anything.

        Args:
            unit: the act's transaction; nobody else can write any more.
            stores: where the state is looked at again.
            manifest_digest: of the model that is about to be registered.

        Raises:
            PlanInvalid: it does not allow the act, or not any more.
        """
        record = self.fitting(unit.read)
        status = record.status(unit.read, stores)
        planned = record.about.get("manifest_digest")
        if status in ("open", "approved") and manifest_digest is not None and planned not in (None, manifest_digest):
            status = "stale"
        refuse_unless(record, status, self._allowed)
        if status == "open":
            take_step(unit, record, "approved", self.consent.how)
        take_step(unit, record, "used", self.consent.how)

    def fitting(self, read: GovernanceReads) -> PlanRecord:
        """Return the plan, if it is this person's and for this call.

        Raises:
            PlanInvalid: it is not.
        """
        record = plan_of(read, self.consent.plan_id)
        plan_id = record.plan_id
        if record.row["person"] != read.find_principal(person()):
            raise PlanInvalid(
                f"The plan {plan_id} was made for another person.", next=f"call {self.tool} again without confirm."
            )
        if record.tool != self.tool or record.row["arguments_digest"] != self.arguments:
            raise PlanInvalid(
                f"The plan {plan_id} is for another call.",
                next=f"repeat the planned call with exactly its arguments, or call {self.tool} again without confirm.",
            )
        return record


async def refuse_early(store: StoreAccess, denials: Denials, plan: PlanUse, subject: Subject) -> None:
    """Refuse a plan that does not allow a call; what somebody tried with a plan that there is goes into the trail.

    Raises:
        PlanInvalid: there is no such plan, or it does not allow the call.
    """
    await store.read(plan.known)
    async with denials.noting(plan.tool, subject):
        await store.read(plan.check)


def plan_use(confirm: str | Consent | None, tool: PlannedTool, arguments: Mapping[str, object]) -> PlanUse | None:
    """Return the plan with which a tool is called, None if it is called without one.

    Args:
        confirm: id of a plan that a person approved at the command line, or a yes that came with the call.
        tool: the tool.
        arguments: as they were given; those that are not given may be left out.
    """
    if confirm is None:
        return None
    consent = confirm if isinstance(confirm, Consent) else Consent(confirm, "command line")
    return PlanUse(consent, tool, arguments_digest(tool, arguments))


def arguments_digest(tool: PlannedTool, arguments: Mapping[str, object]) -> str:
    """Return the digest of a call: the same for every way to write the same call.

    Raises:
        InvalidArgument: an argument has no canonical form, or is none that the tool takes.
    """
    given = {k: v for k, v in arguments.items() if v is not None and v is not False and v not in ("", {})}
    if "to" in given:
        given["to"] = stage_from(str(given["to"]))
    if "tags" in given:
        given["tags"] = names.tags(cast("dict[str, object]", given["tags"]))
    return sha256_hex(canonical([tool, given]))


def state_digest(read: GovernanceReads, stores: Stores, about: Mapping[str, Any]) -> str:
    """Return the digest of the state that an act would change.

    Of a promotion: the last event that touched the model in any way, and the policy that decides. Of a
    registration: the same event, the run, the lock of its experiment, and the versions that the name has.
    """
    event = read.tables.event
    touched = select(func.max(event.c.seq)).where(
        event.c.workspace == DEFAULT_WORKSPACE, event.c.name == about["name"], event.c.action.not_in(_SILENT)
    )
    state: list[Any] = [about["tool"], about["name"], read.connection.execute(touched).scalar()]
    if about["tool"] == "promote":
        state += [about["version"], about["to"], policy_in_force(read).digest]
    else:
        run, lock = stores.tracking.get_run(about["run_id"]), read.lock(about["experiment_id"])
        state += [
            about["run_id"],
            [run.status, run.deleted, run.experiment_id, run.end_time] if run else None,
            lock.event if lock else None,
            stores.registry.highest_version(about["name"]),
        ]
    return sha256_hex(canonical(state))


def plans_of(read: GovernanceReads, plan_ids: list[str]) -> list[PlanRecord]:
    """Return the plans with these ids, as far as signed events have made them, the newest first."""
    if not plan_ids:
        return []
    rows = vouched(read, "plan", {"plan_id": plan_ids}).rows
    if not rows:
        return []
    made = {row["plan_id"]: row for row in rows}
    since = min(row.event for row in rows)
    steps: dict[str, dict[str, VouchedRow]] = {plan_id: {} for plan_id in made}
    taken = vouched(
        read,
        "plan_step",
        {"plan_id": list(made)},
        actions=tuple(_STEPS.values()),
        among=read.tables.event.c.seq > since,
    )
    for step in taken.rows:
        if step["person"] == made[step["plan_id"]]["person"]:
            steps[step["plan_id"]][step["step"]] = step
    table = read.tables.plan_step
    stored = read.connection.execute(select(table.c.plan_id, table.c.step).where(table.c.plan_id.in_(list(made))))
    forged = {plan_id for plan_id, step in stored if step not in steps[plan_id]}
    found = [PlanRecord(row, steps[plan_id], plan_id in forged) for plan_id, row in made.items()]
    return sorted(found, key=lambda record: record.row.event, reverse=True)


def plan_of(read: GovernanceReads, plan_id: str) -> PlanRecord:
    """Return a plan.

    Raises:
        PlanInvalid: there is none with this id.
    """
    found = plans_of(read, [plan_id]) if _PLAN_ID.fullmatch(plan_id) else []
    if not found:
        raise no_plan(plan_id)
    return found[0]


def no_plan(plan_id: str) -> PlanInvalid:
    """Return the refusal of an id that is no plan's."""
    return PlanInvalid(
        f"There is no plan '{untrusted(plan_id, 40)}'.",
        next="call again without confirm; 'intelligentscan plan list' shows the plans that there are.",
    )


def refuse_unless(record: PlanRecord, status: PlanStatus, allowed: tuple[PlanStatus, ...]) -> None:
    """Refuse a plan that is not in one of these states.

    Raises:
        PlanInvalid: it says what became of it, and what to do.
    """
    if status in allowed:
        return
    plan, tool = record.plan_id, record.tool
    anew = f"call {tool} again without confirm, which makes a new plan."
    what = {
        "open": f"Nobody has approved the plan {plan} yet.",
        "approved": f"The plan {plan} is approved already.",
        "declined": f"The plan {plan} was declined.",
        "used": f"The plan {plan} was used already; a plan allows one act.",
        "expired": f"The plan {plan} has expired.",
        "stale": f"The plan {plan} is stale: what it is about has changed since it was made.",
    }
    then = {
        "open": f"a person runs 'intelligentscan plan approve {plan}'; then call {tool} again with confirm='{plan}'.",
        "approved": f"call {tool} again with confirm='{plan}'.",
        "declined": f"ask the person what they want instead; {tool} without confirm makes a new plan.",
    }
    raise PlanInvalid(what[status], next=then.get(status, anew), details={"plan_id": plan, "status": status})


def take_step(unit: GovernedUnit, record: PlanRecord, step: str, how: How) -> int:
    """Record a step of a plan, and return its event.

    Raises:
        TrailBroken: somebody wrote such a row past the trail.
    """
    if record.forged:
        raise TrailBroken(
            f"A row of the plan {record.plan_id} was written past the audit trail.",
            next="run 'intelligentscan audit verify', and call the tool again without confirm for a new plan.",
        )
    row = {"plan_id": record.plan_id, "step": step, "person": unit.principal(person()), "how": how}
    facts = {"plan": record.plan_id, "tool": record.tool, "how": how}
    return unit.append(
        Act(_STEPS[step], person(), subject_of(record.about), facts=facts, rows={"plan_step": [row]})
    ).seq


def subject_of(about: Mapping[str, Any]) -> Subject:
    """Return what the events of a plan are about."""
    return Subject(
        experiment_id=about.get("experiment_id"),
        workspace=DEFAULT_WORKSPACE,
        name=about["name"],
        version=about["version"],
        run_id=about.get("run_id"),
    )


def now_ms() -> int:
    """Return the time in ms since the epoch."""
    return int(time.time() * 1000)
