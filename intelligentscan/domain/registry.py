"""Registered models, their versions, and what became of a promotion."""

from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.noun import Noun
from intelligentscan.domain.text import untrusted

Stage = Literal["None", "Staging", "Production", "Archived"]
Enforcement = Literal["prevented", "detected", "advisory"]
ALIAS_OF_STAGE: dict[Stage, str] = {"Staging": "challenger", "Production": "champion"}
PREVIOUS = "previous"
RESERVED_ALIASES = ("champion", "challenger", PREVIOUS)


def stage_from(text: str) -> Stage:
    """Return the stage a caller means, in any case of letters, or by its alias.

    Raises:
        InvalidArgument: it is none of Staging, Production and Archived.
    """
    words: dict[str, Stage] = {
        "staging": "Staging",
        "challenger": "Staging",
        "production": "Production",
        "champion": "Production",
        "archived": "Archived",
    }
    try:
        return words[text.strip().lower()]
    except KeyError:
        raise InvalidArgument(
            f"There is no stage '{untrusted(text, 40)}'.",
            next="call promote again with to='Staging', 'Production' or 'Archived'.",
        ) from None


class RegisteredVersion(Noun):
    """A version of a registered model, as `register_model` answers."""

    status: Literal["registered", "would_register", "pending_confirmation"]
    name: str
    version: Annotated[int, Field(description="With dry_run: the number it would get.")]
    created: Annotated[bool, Field(description="False if it was there before.")]
    source_run_id: str
    model: Annotated[str, Field(description="Untrusted.")]
    model_uri: str | None
    manifest_digest: Annotated[str | None, Field(description="sha256 of the canonical list of the model's files.")]
    experiment_locked: bool
    next_experiment: Annotated[str | None, Field(description="Where work goes on.")]
    enforcement: Enforcement
    product: str | None = None
    seal_event: Annotated[int | None, Field(description="Audit event that sealed it.")] = None
    plan_id: str | None = None
    notes: list[str] = []


class VersionRow(Noun):
    """One version in the answer of `get_model`."""

    version: int
    stage: Stage
    aliases: list[str]
    sealed: bool
    state: Literal["sealed", "legacy", "quarantined", "unsealed"]
    review: str | None
    run_id: str | None
    created: str | None
    description: str | None
    reason: str | None


class ModelDetails(Noun):
    """A registered model and its versions, the newest first."""

    name: str
    description: Annotated[str | None, Field(description="Untrusted.")]
    governed: bool
    versions: Annotated[
        list[VersionRow],
        Field(
            description="version, stage, aliases, sealed, state, review, run_id, created; description, reason untrusted"
        ),
    ]
    next_cursor: str | None = None
    enforcement: Enforcement


class GateResult(Noun):
    """The outcome of one promotion check."""

    gate: str
    outcome: Literal["pass", "fail", "not_applicable"]
    detail: str
    origin: str


class PromotionDecision(Noun):
    """What became of a promotion."""

    status: Literal["promoted", "pending_review", "pending_confirmation", "would_promote", "would_refuse"]
    name: str
    version: int
    stage: Stage
    aliases: list[str]
    previous_version: Annotated[int | None, Field(description="What was in that stage before.")]
    gates: Annotated[list[GateResult], Field(description="gate, outcome, detail, origin.")] = []
    changed: Annotated[bool, Field(description="False if it was there already.")] = True
    policy: str | None = None
    review_id: str | None = None
    plan_id: str | None = None
    four_eyes: bool
    enforcement: Enforcement
    notes: list[str] = []
