"""Runs side by side."""

from typing import Annotated

from pydantic import Field

from intelligentscan.domain.noun import Noun
from intelligentscan.domain.run import RunStatus


class ComparedRun(Noun):
    """One column of a comparison."""

    run_id: str
    run_name: str
    user: str | None
    start_time: str | None
    status: RunStatus


class ComparedParam(Noun):
    """One param: its value in each run that has it."""

    key: str
    values: dict[str, str]


class ComparedMetric(Noun):
    """One metric: its value in each run that has it, and which run does best."""

    key: str
    values: dict[str, float]
    best_run_id: str | None
    higher_is_better: bool


class FindingsChange(Noun):
    """How the findings of one scan differ from those of the scan before it in the comparison."""

    from_run_id: str
    to_run_id: str
    new: int
    fixed: int
    persisting: int
    not_comparable: int
    moved: int = 0
    reopened: int = 0
    reason: str | None = None


class FindingsComparison(Noun):
    """The scans of a comparison in the order of their start, each against the one before."""

    changes: list[FindingsChange]


class RunComparison(Noun):
    """2 to 100 runs side by side."""

    runs: Annotated[list[ComparedRun], Field(description="Names and users are untrusted text.")]
    params: Annotated[list[ComparedParam], Field(description="Values by run_id; untrusted text.")]
    metrics: Annotated[list[ComparedMetric], Field(description="Values by run_id; keys untrusted.")]
    findings: Annotated[FindingsComparison | None, Field(description="Null unless the runs are scans.")] = None
    summary: Annotated[str, Field(description="Markdown table with BEST marked; untrusted text in cells.")]
    notes: list[str] = []
