"""A promotion policy: which gates apply to a tier and stage, what each asks for, and how reviews are decided."""

from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.noun import Noun
from intelligentscan.domain.people import Tier
from intelligentscan.domain.review import Origin

GateName = Literal[
    "sealed", "intact", "not_drifted", "reviewed", "segregation_of_duties", "metric_thresholds",
    "not_worse_than_champion", "no_open_findings", "fresh", "lineage", "signature", "documented", "evaluated",
]  # fmt: skip
BUILT_IN_POLICIES = ("solo", "team", "regulated")
"""The policies that ship, from the least to the most that they ask."""

MAX_POLICY_BYTES = 64 * 1024
"""Largest YAML of a policy."""

Days = Annotated[int, Field(ge=1, le=3650, description="Days.")]
Confirmation = Literal["none", "asked", "required"]
"""`asked`: an agent's act waits for a person where the client can ask one; `required`: it waits in any case."""


class GateSettings(Noun):
    """What one gate asks for; every gate reads the fields that concern it."""

    origin: Origin = "self-reported"
    max_age_days: Days | None = None
    required: Annotated[bool, Field(description="Fail, rather than not apply, if the model's rules name nothing.")] = (
        False
    )
    refuse_suppressed: Annotated[
        bool, Field(description="Count critical and high findings that a comment in the code silences.")
    ] = False
    fields: Annotated[list[str], Field(max_length=40, description="Model card fields that must be filled.")] = []


class Threshold(Noun):
    """The least and the most that a metric may be."""

    min: float | None = None
    max: float | None = None


class ModelRules(Noun):
    """What is asked of models whose name matches; `*` stands for any text."""

    name: Annotated[str, Field(max_length=256)] = "*"
    thresholds: dict[str, Threshold] = {}
    compare: Annotated[list[str], Field(description="Metrics that must not be worse than the champion's.")] = []
    tolerance: Annotated[float, Field(ge=0, description="How much worse each may be, in its own unit.")] = 0.0


class ReviewRules(Noun):
    """How a review is decided."""

    quorum: Annotated[int, Field(ge=1, le=9, description="Approvals by different people.")] = 1
    authenticated: Annotated[bool, Field(description="Only decisions that an enrolled key has signed count.")] = False
    four_eyes: Annotated[bool, Field(description="Who asked, and who made the run, cannot decide.")] = False
    separate_accounts: Annotated[
        bool, Field(description="Nor can who sits at the account that asked, whatever key they have.")
    ] = False
    complete: Annotated[bool, Field(description="Every criterion needs evidence or an attestation.")] = False
    valid_days: Annotated[Days, Field(description="How long an approval counts, in days.")] = 180
    open_days: Annotated[Days, Field(description="How long a request waits, in days.")] = 30


class PromotionPolicy(Noun):
    """A policy, as its YAML says it."""

    policy: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$")]
    version: Annotated[int, Field(ge=1)]
    review: ReviewRules = ReviewRules()
    confirmation: Confirmation = "asked"
    tiers: Annotated[
        dict[Tier, dict[Literal["Staging", "Production"], dict[GateName, GateSettings]]],
        Field(description="Tier, stage and gate to what it asks for."),
    ]
    rollback: Annotated[
        list[GateName], Field(description="Gates that a rollback to what was live right before must pass.")
    ] = ["sealed", "intact", "not_drifted"]
    models: Annotated[list[ModelRules], Field(max_length=1000)] = []


class PolicyInForce(Noun):
    """The policy that decides now."""

    policy: PromotionPolicy
    digest: Annotated[str, Field(description="sha256 of its canonical JSON.")]
    activated: Annotated[bool, Field(description="False for the built-in default, which nobody has activated.")]
    since: str | None
    by: str | None
    event: int | None


class PolicyRow(Noun):
    """A policy in a list."""

    policy: str
    version: int
    digest: str
    in_force: bool
    built_in: bool
    at: str | None = None


class PolicyList(Noun):
    """Policies that are built in or were activated before."""

    policies: list[PolicyRow]
