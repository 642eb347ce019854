"""What must hold before a run is registered: its experiment, the runs beside it, and who asks for which product."""

import time

from intelligentscan.domain.errors import (
    DefaultExperiment,
    ExperimentDeleted,
    ExperimentNotFound,
    InvalidArgument,
    StillRunning,
)
from intelligentscan.domain.names import next_experiment_name
from intelligentscan.domain.text import untrusted
from intelligentscan.services.rights import require
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE
from intelligentscan.stores.interface import ExperimentRecord, RunRecord, Stores

ABANDONED_AFTER_MS = 86_400_000
_DEFAULT_EXPERIMENT = "0"
_MAX_RUNNING = 50_000  # the most that MLflow finds in one search
_MAX_NAMED = 20


def experiment_of(stores: Stores, experiment_id: str) -> ExperimentRecord:
    """Return the experiment of a run that is to be registered.

    Raises:
        DefaultExperiment: it is MLflow's default one.
        ExperimentNotFound, ExperimentDeleted: it is gone.
    """
    if experiment_id == _DEFAULT_EXPERIMENT:
        raise DefaultExperiment(
            "The run belongs to MLflow's default experiment, which is everybody's and is never locked.",
            next="log the run in an experiment of its own (create_experiment), then register that run.",
        )
    found = stores.tracking.experiment_by_id(experiment_id)
    if found is None:
        raise ExperimentNotFound("The run's experiment is gone.", next="list what is there with search_experiments.")
    if found.deleted:
        raise ExperimentDeleted(
            f"The experiment '{untrusted(found.name, 80)}' of the run was deleted.",
            next="restore it with 'mlflow experiments restore', then call register_model again.",
        )
    return found


def end_others(stores: Stores, run: RunRecord, *, abandon: bool) -> list[str]:
    """Refuse while other runs of the experiment go on; end those that nobody writes to if that is asked for."""
    others, now = others_left(stores, run, abandon=abandon), int(time.time() * 1000)
    for other in others:
        stores.tracking.end_run(other, "KILLED", now)
    return others


def others_left(stores: Stores, run: RunRecord, *, abandon: bool) -> list[str]:
    """Return the other runs of the experiment that nobody writes to any more.

    Raises:
        StillRunning: somebody writes to one, or they may not be ended.
    """
    others = [r for r in stores.tracking.running(run.experiment_id, _MAX_RUNNING) if r.run_id != run.run_id]
    now = int(time.time() * 1000)
    fresh = [r for r in others if now - r.last_write < ABANDONED_AFTER_MS]
    if fresh or (others and not abandon):
        first = (fresh or others)[0]
        old = not fresh
        raise StillRunning(
            f"{len(others)} other run{'s' if len(others) > 1 else ''} of the experiment still going, "
            f"{first.run_id} for one; the lock would cut {'them' if len(others) > 1 else 'it'} off.",
            next=f"end it with log_run run_id='{first.run_id}' status='FINISHED' (or 'KILLED'), then call "
            "register_model again"
            + ("; nothing was written to it for a day: abandon_running=true ends it." if old else "."),
            details={"running": [r.run_id for r in others[:_MAX_NAMED]]},
        )
    return [r.run_id for r in others]


def next_free_name(stores: Stores, name: str, locked: set[str]) -> str:
    """Return the first free name of the chain X, X-v2, X-v3 and so on."""
    following = next_experiment_name(name)
    while following in locked or stores.tracking.find_experiment_by_name(following) is not None:
        following = next_experiment_name(following)
    return following


def product_for(read: GovernanceReads, name: str, wanted: str | None, of_experiment: str | None) -> str | None:
    """Return the product of a registration, if whoever asks may register for it.

    A model belongs to the product that its first registration named; before that, the caller's word counts, then the
    experiment's.

    Raises:
        InvalidArgument: the model belongs to another product.
        NotPermitted: no role of whoever asks allows it.
    """
    known = read.product_of(DEFAULT_WORKSPACE, name)
    governed = read.is_governed(DEFAULT_WORKSPACE, name)
    # A model without a product is everybody's who may register for every product, whatever product is named now.
    require(read, "register", known if governed else wanted or of_experiment)
    if known is not None and wanted is not None and wanted != known:
        raise InvalidArgument(
            f"The model '{untrusted(name, 80)}' belongs to the product '{untrusted(known, 80)}'.",
            next="call register_model again without product, or under another name.",
        )
    return known or wanted or of_experiment
