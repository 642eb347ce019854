"""What happened to models and experiments, by whom and why, and what was live when."""

from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.noun import Noun


class HistoryEvent(Noun):
    """One entry of the audit trail."""

    seq: int
    at: str
    action: str
    actor: str
    on_behalf_of: str | None = None
    name: str | None = None
    version: int | None = None
    experiment_id: str | None = None
    run_id: str | None = None
    reason: Annotated[str | None, Field(description="Untrusted.")] = None
    facts: dict[str, object] = {}


class LiveVersion(Noun):
    """The version that was in a stage."""

    name: str
    version: int
    stage: Literal["Staging", "Production"]
    since: str
    event: int


class History(Noun):
    """Events, the newest first, and what was in each stage at the time that was asked for."""

    events: Annotated[
        list[HistoryEvent],
        Field(
            description="seq, at, action, actor, on_behalf_of, name, version, experiment_id, run_id, reason, facts; "
            "texts untrusted."
        ),
    ]
    live: Annotated[
        dict[str, list[LiveVersion]],
        Field(description="Stage to versions: name, version, stage, since, event; at `at`, or now."),
    ]
    at: str | None = None
    next_cursor: str | None = None
    notes: Annotated[list[str], Field(description="Untrusted.")] = []
