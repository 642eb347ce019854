"""Plans: acts that an agent asks for and a person allows."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.noun import Noun

PlanStatus = Literal["open", "approved", "declined", "used", "expired", "stale"]
PlannedTool = Literal["register_model", "promote"]
How = Literal["command line", "client"]
"""Who said yes: a person at the command line, or the client for somebody whom we cannot verify."""


@dataclass(frozen=True, slots=True)
class Consent:
    """A yes to a plan, given together with the act that it allows."""

    plan_id: str
    how: How


class Plan(Noun):
    """An act that waits for a person; its id is no secret."""

    plan_id: str
    status: PlanStatus
    tool: PlannedTool
    will: Annotated[list[str], Field(description="What it would do, one fact per line; ids and validated names only.")]
    person: Annotated[str, Field(description="Untrusted text.")]
    at: str
    valid_until: str
    how: Annotated[How | None, Field(description="Who answered.")] = None
    event: Annotated[int, Field(description="Audit event of its last step.")]


class PlanList(Noun):
    """Plans, the newest first."""

    plans: list[Plan]
