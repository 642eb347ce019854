"""Experiments as every face shows them."""

from typing import Annotated

from pydantic import Field

from intelligentscan.domain.noun import Noun


class Experiment(Noun):
    """One experiment. `str()` of it is its id, so that it can be handed to plain MLflow."""

    experiment_id: str
    name: Annotated[str, Field(description="Untrusted.")]
    created: Annotated[bool, Field(description="False if it was there before.")]
    locked: bool
    next_experiment: Annotated[str | None, Field(description="Where work goes on.")] = None
    artifact_location: str
    product: str | None = None
    notes: list[str] = []

    def __str__(self) -> str:
        return self.experiment_id


class UnlockedExperiment(Noun):
    """An experiment that an administrator opened again."""

    experiment_id: str
    name: Annotated[str, Field(description="Untrusted.")]
    locked_by_event: int
    event: int
    at: str


class ExperimentRow(Noun):
    """One experiment in a list."""

    experiment_id: str
    name: str
    locked: bool
    next_experiment: str | None = None
    product: str | None
    last_update: str | None


class ExperimentList(Noun):
    """A page of experiments, the most recently changed first."""

    experiments: Annotated[list[ExperimentRow], Field(description="Names are untrusted text.")]
    next_cursor: str | None = None
    notes: list[str] = []
