"""Asking a person before an agent's act, in both protocol eras, and what becomes of the answer.

The question is put by the client. From 2026-07-28 on it goes out as a result that asks for input, and the
same call comes back with the answer; before, it is a request in the middle of the call. Either way it is made
from the plan alone, so it reads the same however often it is put, and the answer counts for that plan only.
The state that the client carries between the rounds is sealed by the SDK with keys of this process.
"""

import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import anyio
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from mcp_types.version import is_version_at_least
from pydantic import ValidationError

from intelligentscan.domain.errors import Declined, IntelligentScanError
from intelligentscan.domain.plan import Consent, Plan, PlannedTool
from intelligentscan.domain.registry import PromotionDecision, RegisteredVersion

if TYPE_CHECKING:
    from intelligentscan.app import Services

Made = TypeVar("Made", RegisteredVersion, PromotionDecision)
_ASKS_IN_RESULTS = "2026-07-28"
_QUESTION = "confirm"
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        # Clients show nothing that could be answered for a form without a field, and some fill in no field at all.
        "approve": {
            "type": "boolean",
            "title": "Approve",
            "description": "Yes, do it.",
            "default": True,
        }
    },
}
_BY_CLIENT = "Confirmed by the client; who said yes is not verified."
Answer = Literal["yes", "no", "none"]


@dataclass(frozen=True)
class Asked(Generic[Made]):
    """An act that an agent asks for.

    Attributes:
        tool: its tool.
        arguments: what the tool was called with.
        preview: says what it would do, and does nothing.
        called_for: tells from that whether there is anything to confirm.
        act: does it, with the id of an approved plan or with a yes.
    """

    tool: PlannedTool
    arguments: dict[str, object]
    preview: Callable[[], Awaitable[Made]]
    called_for: Callable[[Made], bool]
    act: Callable[[str | Consent | None], Awaitable[Made]]


async def confirmed(
    ctx: Context[Any, Any], services: "Services", asked: Asked[Made], confirm: str | None
) -> Made | InputRequiredResult:
    """Do what is asked for if no person needs to say yes, or once one has.

    Args:
        ctx: the call.
        services: what does it.
        asked: the act.
        confirm: id of a plan, as the agent gave it.

    Raises:
        Declined: the person who was asked said no.
        PlanInvalid: the plan does not allow the act.
    """
    rule = await services.plans.confirmation()
    asks = can_ask(ctx)
    if rule == "none" or (rule == "asked" and not asks):
        return await asked.act(confirm)
    if asks and (reply := _reply(ctx)) is not None:
        return await _settled(services, asked, reply.plan_id, reply.answer)
    preview: Made | None = None
    if confirm is not None:
        waiting = await services.plans.waiting(confirm, asked.tool, asked.arguments)
        if waiting is None:
            return await asked.act(confirm)
        plan = waiting
    else:
        preview = await asked.preview()
        if not asked.called_for(preview):
            return await asked.act(None)
        plan = await services.plans.propose(asked.tool, asked.arguments, preview)
        if plan.status == "approved":
            return await asked.act(plan.plan_id)
    if not asks:
        return await _pending(asked, plan, preview)
    if _in_results(ctx):
        return _input_required(plan)
    return await _settled(services, asked, plan.plan_id, await _elicit(ctx, services, plan), preview)


async def _settled(
    services: "Services", asked: Asked[Made], plan_id: str, answer: Answer, preview: Made | None = None
) -> Made:
    """Do what follows from an answer."""
    if answer == "yes":
        made: Made = await asked.act(Consent(plan_id, "client"))
        return made.model_copy(update={"notes": [_BY_CLIENT, *made.notes]})
    if answer == "no":
        await services.plans.decline(plan_id, "client")
        raise Declined(
            "The person who was asked said no; nothing was done.",
            next=f"ask them what they want instead, and do not call {asked.tool} again unless they say so.",
            details={"plan_id": plan_id},
        )
    with anyio.CancelScope(shield=True):  # a client that has left is the reason why some are not answered
        plan = await services.plans.unanswered(plan_id)
    return await _pending(asked, plan, preview)


async def _pending(asked: Asked[Made], plan: Plan, preview: Made | None) -> Made:
    """Return what is planned, and how a person allows it."""
    planned: Made = preview if preview is not None else await asked.preview()
    said = (
        f"Nothing was done: a person approves it with 'intelligentscan plan approve {plan.plan_id}' until "
        f"{plan.valid_until}; then call {plan.tool} again with the same arguments and confirm='{plan.plan_id}'."
    )
    pending: dict[str, Any] = {
        "status": "pending_confirmation",
        "plan_id": plan.plan_id,
        "notes": [said, *planned.notes],
    }
    if isinstance(planned, PromotionDecision):
        pending["changed"] = False
    return planned.model_copy(update=pending)


@dataclass(frozen=True)
class _Reply:
    plan_id: str
    answer: Answer


def can_ask(ctx: Context[Any, Any]) -> bool:
    """Tell whether the client can put a question to a person; an empty capability means forms."""
    capabilities = ctx.client_capabilities
    found = capabilities.elicitation if capabilities is not None else None
    if found is None or (found.form is None and found.url is not None):
        return False
    return _in_results(ctx) or ctx.session.can_send_request


def question(plan: Plan) -> str:
    """Return what a person is asked: ids and validated names only."""
    lines = [*plan.will, f"Plan {plan.plan_id}, valid until {plan.valid_until}."]
    return "An agent asks for this act. Allow it?\n" + "\n".join(f"- {line}" for line in lines)


def _in_results(ctx: Context[Any, Any]) -> bool:
    return ctx.protocol_version is not None and is_version_at_least(ctx.protocol_version, _ASKS_IN_RESULTS)


def _input_required(plan: Plan) -> InputRequiredResult:
    request = ElicitRequest(params=ElicitRequestFormParams(message=question(plan), requested_schema=_FORM))
    return InputRequiredResult(input_requests={_QUESTION: request}, request_state=json.dumps({_QUESTION: plan.plan_id}))


def _reply(ctx: Context[Any, Any]) -> _Reply | None:
    """Return the answer that a call brings, None if it brings none to a question of ours."""
    given = (ctx.input_responses or {}).get(_QUESTION)
    if given is None or ctx.request_state is None:
        return None
    try:
        plan_id = json.loads(ctx.request_state)[_QUESTION]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(plan_id, str):
        return None
    return _Reply(plan_id, _meant(given) if isinstance(given, ElicitResult) else "none")


async def _elicit(ctx: Context[Any, Any], services: "Services", plan: Plan) -> Answer:
    """Ask in the middle of the call; nothing is held meanwhile."""
    answer: Answer = "none"
    try:
        with anyio.move_on_after(services.settings.confirm_deadline_s):
            answer = _meant(await ctx.session.elicit_form(question(plan), _FORM, ctx.request_id))
    except (MCPError, ValidationError):
        pass  # the client cannot ask after all, or answered with something else
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True), contextlib.suppress(IntelligentScanError):
            await services.plans.unanswered(plan.plan_id)
        raise
    return answer


def _meant(result: ElicitResult) -> Answer:
    """Return what an answer means; an unticked box means no, whatever button was pressed."""
    if result.action == "accept":
        return "yes" if (result.content or {}).get("approve", True) is True else "no"
    return "no" if result.action == "decline" else "none"
