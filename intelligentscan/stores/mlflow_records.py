"""MLflow's entities turned into the store's records."""

from collections.abc import Callable
from typing import Any, cast

from mlflow.entities import Experiment, Run, RunOutputs
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from intelligentscan.domain.run import RunStatus
from intelligentscan.stores.interface import ExperimentRecord, RunRecord

CLAIM_PARAM = "intelligentscan.claim"
"""On servers without transactions: the run whose writer won an idempotency key. Not a param of the run."""


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
        params={k: v for k, v in entity.data.params.items() if k != CLAIM_PARAM},
        metrics=dict(entity.data.metrics),
        tags=dict(entity.data.tags),
        model_ids=tuple(output.model_id for output in outputs),
    )


def run_reader(store: Any) -> Callable[[str], Run]:
    """Return what reads one run of a store.

    A SQL store's own `get_run` spends a third of its time on the datasets and models that went into the
    run, which nobody here asks for.
    """
    if not isinstance(store, SqlAlchemyStore):
        whole: Callable[[str], Run] = store.get_run
        return whole

    def read(run_id: str) -> Run:
        with store.ManagedSessionMaker() as session:
            entity: Run = store._get_run(session, run_id, eager=True).to_mlflow_entity()
            return Run(entity.info, entity.data, run_outputs=RunOutputs(store._get_model_outputs(run_id, session)))

    return read


def page_token(token: str | bytes | None) -> str | None:
    """Return the token of the next page as text; MLflow's SQL stores give bytes, its servers text."""
    return (token.decode() if isinstance(token, bytes) else token) or None
