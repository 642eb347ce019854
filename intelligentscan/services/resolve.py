"""Turns what people write (a name, a prefix, 'latest') into experiments and runs."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import anyio.to_thread

from intelligentscan.domain import names
from intelligentscan.domain.errors import (
    AmbiguousRun,
    ExperimentDeleted,
    ExperimentNotFound,
    InvalidArgument,
    RunNotFound,
)
from intelligentscan.domain.text import untrusted
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import ExperimentRecord, RunRecord
from intelligentscan.stores.nearby import NearbyStore

LATEST = "latest"
MIN_PREFIX = 6
_PREFIX = re.compile(r"[0-9a-f]{6,31}")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a run will be logged; an experiment that is missing is made only when there is something to log.

    Attributes:
        name: its name.
        experiment: the experiment, None while it is missing.
        earlier: the locked experiments that it continues, the oldest first.
    """

    name: str
    experiment: ExperimentRecord | None
    earlier: tuple[ExperimentRecord, ...] = ()

    @property
    def chain(self) -> tuple[ExperimentRecord, ...]:
        """The experiments that hold its runs, the newest first."""
        here = (self.experiment,) if self.experiment is not None else ()
        return (*here, *reversed(self.earlier))


class Resolver:
    """Finds experiments and runs by what a caller wrote."""

    def __init__(self, store: StoreAccess, nearby: Callable[[], list[NearbyStore]]) -> None:
        self._store = store
        self._nearby = nearby

    async def nearby(self) -> list[str]:
        """Return one line for each other store in the allowed roots that holds runs."""
        return [untrusted(str(found), 400) for found in await anyio.to_thread.run_sync(self._nearby)]

    async def experiment(self, name_or_id: str) -> ExperimentRecord:
        """Return the active experiment of this name or, if none has it, of this id.

        Raises:
            ExperimentNotFound: there is none; other stores nearby that hold runs are named.
            ExperimentDeleted: it was soft-deleted.
        """
        wanted = names.experiment_name(name_or_id)
        found = await self._store.read(lambda s: s.tracking.find_experiment(wanted))
        if found is None:
            elsewhere = await self.nearby()
            also = f" Elsewhere: {elsewhere[0]}" if elsewhere else ""
            raise ExperimentNotFound(
                f"There is no experiment '{untrusted(wanted, 80)}'.{also}",
                next="create it with create_experiment, or list what is there with search_experiments.",
                details={"nearby": elsewhere} if elsewhere else None,
            )
        if found.deleted:
            raise ExperimentDeleted(
                f"The experiment '{untrusted(wanted, 80)}' was deleted.",
                next="restore it with 'mlflow experiments restore', or use another name with create_experiment.",
                details={"experiment_id": found.experiment_id},
            )
        return found

    async def destination(self, name: str, create: bool) -> Destination:
        """Return where a run will be logged; with `create`, a missing experiment is made by `made`, not here."""
        try:
            return Destination(name, await self.experiment(name))
        except ExperimentNotFound:
            if not create:
                raise
            return Destination(name, None)

    async def made(self, destination: Destination) -> ExperimentRecord:
        """Return the experiment of a destination, making it if it is missing."""
        if destination.experiment is not None:
            return destination.experiment
        record, _ = await self._store.write(lambda s: s.tracking.create_experiment(destination.name, {}))
        return record

    async def run(self, run: str, experiment: str | None = None) -> RunRecord:
        """Return the run of a full id, a unique prefix of at least 6 characters, or 'latest' of an experiment.

        Raises:
            RunNotFound: there is none.
            AmbiguousRun: the prefix fits several runs; they are listed.
            InvalidArgument: 'latest' without an experiment, or text that cannot be a run id.
        """
        run = run.strip()
        if run.lower() == LATEST:
            return await self._latest(experiment)
        within = await self.experiment(experiment) if experiment is not None else None
        if names.is_run_id(run):
            found = await self._store.read(lambda s: s.tracking.get_run(run))
        else:
            found = await self._by_prefix(run, within.experiment_id if within else None)
        if found is None or found.deleted or (within and found.experiment_id != within.experiment_id):
            raise no_run(run, within)
        return found

    async def _latest(self, experiment: str | None) -> RunRecord:
        if experiment is None:
            raise InvalidArgument("'latest' needs an experiment.", next="call again with experiment set.")
        record = await self.experiment(experiment)
        page = await self._store.read(
            lambda s: s.tracking.search_runs(record.experiment_id, "", ["attributes.start_time DESC"], 1, None)
        )
        if not page.rows:
            raise RunNotFound(
                f"The experiment '{untrusted(record.name, 80)}' has no run yet.",
                next="log one with log_run, log_scan_run or scan_vulnerabilities.",
            )
        return page.rows[0]

    async def _by_prefix(self, prefix: str, experiment_id: str | None) -> RunRecord | None:
        if not _PREFIX.fullmatch(prefix):
            raise InvalidArgument(
                f"'{untrusted(prefix, 40)}' cannot be a run id.",
                next=f"give the 32 hexadecimal digits of the id, at least {MIN_PREFIX} of them, or 'latest' with "
                "experiment; search_runs lists the ids.",
            )
        found = await self._store.read(lambda s: s.tracking.runs_by_prefix(prefix, experiment_id, 6))
        if len(found) > 1:
            ids = [r.run_id for r in found[:5]]
            raise AmbiguousRun(
                f"'{prefix}' fits {'more than 5' if len(found) > 5 else len(found)} runs: {', '.join(ids)}.",
                next=f"call again with run_id='{ids[0]}' or another of these.",
                details={"run_ids": ids},
            )
        return found[0] if found else None


def full_run_id(run_id: str) -> str:
    """Return a full run id; governed writes take nothing shorter.

    Raises:
        InvalidArgument: it is a prefix, 'latest' or no run id.
    """
    run_id = run_id.strip()
    if not names.is_run_id(run_id):
        raise InvalidArgument(
            f"'{untrusted(run_id, 40)}' is no full run id.",
            next="give the 32 hexadecimal digits; get_run returns the full id for a prefix or for 'latest'.",
        )
    return run_id


def no_run(run: str, within: ExperimentRecord | None = None) -> RunNotFound:
    """Return the error for a run that is not there."""
    where = f" in experiment '{untrusted(within.name, 80)}'" if within else ""
    return RunNotFound(f"There is no run '{run}'{where}.", next="list the runs of an experiment with search_runs.")
