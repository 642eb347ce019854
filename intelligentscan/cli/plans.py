"""`plan`: what agents have asked for and a person allows or refuses."""

from typing import Annotated

import typer
from rich.text import Text

from intelligentscan.cli.confirmation import Yes, asks, confirm
from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import (
    Json,
    answer,
    clock,
    facts_table,
    plain_table,
    print_json,
    print_next,
)
from intelligentscan.domain.plan import Plan, PlanStatus

plan = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="Id of the plan, or its first characters (6 or more).")]
_DIGITS = 8
_STYLE: dict[PlanStatus, str] = {"open": "bold yellow", "approved": "green", "declined": "red"}


@plan.command("list")
@reported
def plan_list(json: Json = False) -> None:
    """List plans, the newest first."""
    found = on_services(lambda services: services.plans.list(), doing="Looking")
    if json:
        print_json(found)
        return
    console = answer()
    if not found.plans:
        console.print("no agent has asked for anything yet", style="dim")
        return
    table = plain_table("plan", "", "what", "asked (UTC)", "valid until", "person")
    for row in found.plans:
        status = Text(row.status, style=_STYLE.get(row.status, "dim"))
        first = Text(row.will[0])
        table.add_row(row.plan_id[:_DIGITS], status, first, clock(row.at), clock(row.valid_until), row.person)
    console.print(table)


@plan.command("show")
@reported
def plan_show(plan_id: PlanId, json: Json = False) -> None:
    """Show what a plan would do, and where it stands."""
    found = on_services(lambda services: services.plans.show(plan_id), doing="Looking")
    if json:
        print_json(found)
    else:
        _print_plan(found)


@plan.command("approve")
@reported
def plan_approve(plan_id: PlanId, yes: Yes = False, json: Json = False) -> None:
    """Allow a plan: the agent's next call with it does the act, once."""
    if asks(yes=yes):
        planned = on_services(lambda services: services.plans.show(plan_id), doing="Looking")
        confirm(planned.will, yes=yes)
    done = on_services(lambda services: services.plans.approve(plan_id), doing="Recording")
    if json:
        print_json(done)
        return
    _print_plan(done)
    print_next(f"the agent calls {done.tool} again with the same arguments and confirm='{done.plan_id}'")


@plan.command("decline")
@reported
def plan_decline(plan_id: PlanId, json: Json = False) -> None:
    """Refuse a plan, also one that was approved and not used yet."""
    done = on_services(lambda services: services.plans.decline(plan_id), doing="Recording")
    if json:
        print_json(done)
    else:
        _print_plan(done)


def _print_plan(found: Plan) -> None:
    console = answer()
    console.print(
        Text(f"plan {found.plan_id} ").append(found.status, style=_STYLE.get(found.status, "bold")), soft_wrap=True
    )
    for line in found.will:
        console.print(Text(f"  {line}"), soft_wrap=True)
    told = [("asked by", f"an agent of {found.person}"), ("asked", clock(found.at))]
    if found.how is not None:
        told.append(("answered", "at the command line" if found.how == "command line" else "by the client, unverified"))
    told += [("valid until", clock(found.valid_until)), ("event", str(found.event))]
    console.print(facts_table(told))
