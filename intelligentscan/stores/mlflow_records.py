"""MLflow's entities turned into the store's records."""

from typing import Any, cast

from mlflow.entities import Experiment, Run

from intelligentscan.domain.run import RunStatus
from intelligentscan.stores.interface import ExperimentRecord, RunRecord


def experiment_record(entity: Experiment) -> ExperimentRecord:
    """Return MLflow's experiment as a record."""
    return ExperimentRecord(
        experiment_id=str(entity.experiment_id),
        name=entity.name,
        artifact_location=entity.artifact_location,
        deleted=entity.lifecycle_stage == "deleted",
        tags=dict(entity.tags),
        last_update=entity.last_update_time,
    )


def run_record(entity: Run) -> RunRecord:
    """Return MLflow's run as a record."""
    info: Any = entity.info
    outputs = entity.outputs.model_outputs if entity.outputs else []
    return RunRecord(
        run_id=info.run_id,
        run_name=info.run_name or "",
        experiment_id=str(info.experiment_id),
        status=cast("RunStatus", info.status),
        deleted=info.lifecycle_stage == "deleted",
        artifact_uri=info.artifact_uri,
        start_time=info.start_time,
        end_time=info.end_time,
        params=dict(entity.data.params),
        metrics=dict(entity.data.metrics),
        tags=dict(entity.data.tags),
        model_ids=tuple(output.model_id for output in outputs),
    )


def page_token(token: str | bytes | None) -> str | None:
    """Return the token of the next page as text; MLflow's SQL stores give bytes, its servers text."""
    return (token.decode() if isinstance(token, bytes) else token) or None
