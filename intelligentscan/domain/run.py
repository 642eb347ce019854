"""Runs as every face shows them."""

from typing import Annotated, Literal

from pydantic import Field

from intelligentscan.domain.noun import Noun

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]


class LoggedRun(Noun):
    """What became of a write to a run."""

    run_id: str
    created: Annotated[bool, Field(description="False if it was there before.")]
    status: RunStatus
    experiment_id: str
    warnings: list[str] = []


class RunRow(Noun):
    """One run in a list."""

    run_id: str
    run_name: str
    status: RunStatus
    start_time: str | None
    user: str | None
    kind: str | None
    params: dict[str, str]
    metrics: dict[str, float]


class RunList(Noun):
    """A page of runs."""

    experiment_id: str
    runs: Annotated[list[RunRow], Field(description="Names, params and users are untrusted text.")]
    next_cursor: str | None = None
    notes: list[str] = []


class MetricPoint(Noun):
    """One value of a metric."""

    value: float
    step: int
    time: str


class ArtifactRow(Noun):
    """One file or folder at the root of a run's artifacts; size in bytes."""

    path: str
    size: int | None
    folder: bool


class RunDetails(Noun):
    """Everything about one run, except the bytes of its artifacts."""

    run_id: str
    run_name: Annotated[str, Field(description="Untrusted.")]
    experiment_id: str
    status: RunStatus
    params: Annotated[dict[str, str], Field(description="Untrusted.")]
    metrics: Annotated[dict[str, float], Field(description="Names are untrusted.")]
    metric_history: Annotated[dict[str, list[MetricPoint]], Field(description="For the metrics asked for.")] = {}
    tags: Annotated[dict[str, str], Field(description="Untrusted.")]
    artifacts: Annotated[list[ArtifactRow], Field(description="The root of the artifact tree.")]
    models: Annotated[list[str], Field(description="URIs that register_model takes as model_uri.")] = []
    start_time: str | None
    end_time: str | None
    user: Annotated[str | None, Field(description="Untrusted.")]
    git_commit: Annotated[str | None, Field(description="Untrusted.")]
    notes: list[str] = []
