"""Locked experiments: which are, where work continues, and how an administrator opens one again."""

from collections.abc import Iterable

from intelligentscan._credential_forms import without_credentials
from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import ExperimentLocked, InvalidArgument, Refused
from intelligentscan.domain.experiment import UnlockedExperiment
from intelligentscan.domain.text import untrusted
from intelligentscan.services.principal import person
from intelligentscan.services.resolve import Destination, Resolver
from intelligentscan.services.rights import require
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import Act, LockRecord, Subject
from intelligentscan.stores.interface import ExperimentRecord, Stores

MAX_REASON = 1_000
_MAX_CHAIN = 1_000


class LockService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, resolver: Resolver) -> None:
        self._store = store
        self._resolver = resolver

    async def of(self, experiment_ids: Iterable[str]) -> dict[str, LockRecord]:
        """Return the active locks among these experiments, each with the name where work continues now."""
        wanted = list(experiment_ids)

        def look(stores: Stores) -> dict[str, LockRecord]:
            found = locks_of(stores, wanted)
            if not found:
                return {}
            with stores.governance.reading() as read:
                by_name = {lock.experiment_name: lock for lock in read.locks().values()}
            return {key: continued_in(by_name, lock) for key, lock in found.items()}

        return await self._store.read(look) if wanted else {}

    async def refuse_if_locked(self, experiment: ExperimentRecord) -> None:
        """Refuse to write into a locked experiment.

        Raises:
            ExperimentLocked: it names the experiment where work continues.
        """
        found = await self.of([experiment.experiment_id])
        if (lock := found.get(experiment.experiment_id)) is not None:
            raise experiment_locked(lock)

    async def onward(self, destination: Destination) -> Destination:
        """Return where work goes on: the destination, or the open end of its chain if it is locked."""
        while destination.experiment is not None:
            here = destination.experiment
            lock = (await self._store.read(lambda s, e=here.experiment_id: locks_of(s, [e]))).get(here.experiment_id)  # type: ignore[misc]
            if lock is None:
                break
            following = await self._store.read(lambda s, n=lock.next_experiment: s.tracking.find_experiment_by_name(n))  # type: ignore[misc]
            if following is not None and following.deleted:
                raise experiment_locked(lock)
            destination = Destination(lock.next_experiment, following, (*destination.earlier, here))
        return destination

    async def unlock(self, experiment: str, reason: str) -> UnlockedExperiment:
        """Open a locked experiment again: an administrator's act, which stays in the trail.

        Sealed versions stay sealed. The next registration from the experiment locks it again.

        Raises:
            Refused: it is not locked.
            NotPermitted: there are administrators, and whoever asks is none of them.
        """
        because = checked_reason(reason, "unlock")
        record = await self._resolver.experiment(experiment)

        def act(stores: Stores) -> tuple[LockRecord, int, int]:
            with stores.governance.unit() as unit:
                require(unit.read, "administer", None)
                unit.hold_experiment(record.experiment_id)
                lock = unit.read.lock(record.experiment_id)
                if lock is None:
                    raise Refused(
                        f"The experiment '{untrusted(record.name, 80)}' is not locked.",
                        next="search_experiments shows which are.",
                    )
                event = unit.append(
                    Act(
                        "experiment.unlocked",
                        person(),
                        Subject(experiment_id=record.experiment_id),
                        rows={"experiment_unlock": [{"lock_event": lock.event}]},
                        text={"reason": because},
                    )
                )
                unit.retract_lock(record.experiment_id)
                return lock, event.seq, event.at

        lock, seq, at = await self._store.write(act)
        return UnlockedExperiment(
            experiment_id=record.experiment_id,
            name=untrusted(record.name, names.MAX_NAME),
            locked_by_event=lock.event,
            event=seq,
            at=rfc3339(at) or "",
        )


def locks_of(stores: Stores, experiment_ids: list[str]) -> dict[str, LockRecord]:
    """Return the active locks among these experiments, each with the experiment that followed it at once."""
    if not stores.governance.installed():
        return {}
    with stores.governance.reading() as read:
        return read.locks(experiment_ids)


def continued_in(by_name: dict[str, LockRecord], lock: LockRecord) -> LockRecord:
    """Return the lock with the end of its chain as the next experiment: that may have been locked since."""
    following = lock.next_experiment
    for _ in range(_MAX_CHAIN):
        if following not in by_name:
            break
        following = by_name[following].next_experiment
    return LockRecord(
        lock.event,
        lock.experiment_id,
        lock.experiment_name,
        following,
        lock.rows_digest,
        lock.files_digest,
    )


def experiment_locked(lock: LockRecord) -> ExperimentLocked:
    """Return the refusal to write into a locked experiment."""
    following = untrusted(lock.next_experiment, names.MAX_NAME)
    return ExperimentLocked(
        f"The experiment '{untrusted(lock.experiment_name, 80)}' was locked when a model was registered from it.",
        next=f"call again with experiment='{following}'; create_experiment makes it if it is missing.",
        details={"next_experiment": following, "locked_by_event": lock.event},
    )


def checked_reason(reason: str | None, what: str) -> str:
    """Return the reason that an act needs, without credentials: it is kept for good.

    Raises:
        InvalidArgument: there is none, or it is too long.
    """
    if reason is not None and not isinstance(reason, str):
        raise InvalidArgument(f"The reason is {type(reason).__name__}, not text.", next="give the reason as text.")
    if reason is None or not reason.strip():
        raise InvalidArgument(f"An act of this kind ({what}) needs a reason.", next="call again with a reason.")
    if len(reason) > MAX_REASON:
        raise InvalidArgument(
            f"The reason has {len(reason):,} characters; the most is {MAX_REASON:,}.", next="give a shorter reason."
        )
    return without_credentials(reason.strip())
