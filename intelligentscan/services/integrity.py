"""Is everything still as it was sealed, locked and recorded? Reads, compares, changes nothing."""

from collections import Counter

from intelligentscan.domain import names
from intelligentscan.domain.errors import InvalidArgument, ModelNotFound, NotGoverned, VersionNotFound
from intelligentscan.domain.integrity import IntegrityReport, Problem
from intelligentscan.domain.text import untrusted
from intelligentscan.services.drift import all_versions, drift_of, guard_problems
from intelligentscan.services.enforcement import claim
from intelligentscan.services.seals import VERIFIED, SealChecks
from intelligentscan.services.trail import TrailService
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, LockRecord, SealRecord
from intelligentscan.stores.interface import Stores, VersionRecord

MAX_PROBLEMS = 100


class IntegrityService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, checks: SealChecks, trail: TrailService) -> None:
        self._store = store
        self._checks = checks
        self._trail = trail

    async def verify(self, name: str | None = None, version: int | None = None) -> IntegrityReport:
        """Compare guards, trail, records, registry rows, sealed bytes and locked experiments with what was recorded.

        Args:
            name: only this registered model and the experiments that it came from; everything if None.
            version: only this version of it.

        Raises:
            ModelNotFound, VersionNotFound: there is no such thing.
            NotGoverned: the model was registered by plain MLflow.
        """
        if version is not None and name is None:
            raise InvalidArgument("A version needs its model.", next="call verify_integrity again with name too.")
        wanted = names.model_name(name) if name is not None else None
        checked: Counter[str] = Counter()
        if not await self._store.read(lambda s: s.governance.installed()):
            adopt = "run 'intelligentscan adopt' once to put it under governance."
            bare = Problem(code="GUARD", what="this store is not governed: it has no tables and no guards", next=adopt)
            guarded = await self._store.read(lambda s: s.governance.joint)
            return await self._report(checked, [bare] if guarded else [], ["Nothing is sealed here yet."])
        problems = await self._store.read(guard_problems)
        checked["guards"] += 1
        problems += await self._trail.problems(whole=wanted is None)
        checked["trail"] += 1
        models = [wanted] if wanted else await self._store.read(_governed_names)
        locks: dict[str, LockRecord] = {}
        for each in models:
            seals, there, found = await self._store.read(lambda s, n=each: _state(s, n, version))  # type: ignore[misc]
            problems += [p for p in found if p.code != "GUARD"]
            checked["models"] += 1
            for seal in seals:
                problems += await self._version(seal, there.get(seal.version), checked)
            for seal in seals:
                if seal.experiment_id not in locks:
                    locks |= await self._store.read(lambda s, e=seal.experiment_id: _lock(s, e))  # type: ignore[misc]
        if wanted is None:
            locks |= await self._store.read(_all_locks)
        for lock in locks.values():
            problems += await self._checks.experiment(lock)
            checked["experiments"] += 1
        return await self._report(checked, problems, [])

    async def _version(self, seal: SealRecord, there: VersionRecord | None, checked: Counter[str]) -> list[Problem]:
        where = f"{seal.name} version {seal.version}"
        problems = await self._checks.bytes_of(seal) + await self._checks.rows_of(seal, there)
        verified, quarantined, kept_until = await self._store.read(lambda s: _standing(s, seal))
        checked["versions"] += 1
        if quarantined:
            problems.append(Problem(code="QUARANTINED", what="it was found changed before", where=where))
        elif not verified:
            problems.append(
                Problem(
                    code="UNVERIFIED",
                    what="its sealed copy was not hashed again after its registration",
                    where=where,
                    next="call register_model again with the same arguments, or promote it: both do that.",
                )
            )
        if kept_until is None:
            problems.append(Problem(code="RETENTION", what="nothing says how long it is kept", where=where))
        return problems

    async def _report(self, checked: Counter[str], problems: list[Problem], notes: list[str]) -> IntegrityReport:
        enforcement = await self._store.read(claim)
        if enforcement == "advisory":
            notes.append("advisory: whoever has this account's rights could also forge the record; keep checkpoints.")
        return IntegrityReport(
            ok=not problems,
            checked=dict(checked),
            problems=_some_of_each(problems),
            problems_total=len(problems),
            enforcement=enforcement,
            notes=notes,
        )


def _some_of_each(problems: list[Problem]) -> list[Problem]:
    """Return as many problems as one answer takes; many of one kind do not hide the others."""
    if len(problems) <= MAX_PROBLEMS:
        return problems
    share = MAX_PROBLEMS // len({p.code for p in problems})
    seen: Counter[str] = Counter()
    kept: list[Problem] = []
    for problem in problems:
        seen[problem.code] += 1
        if seen[problem.code] <= share:
            kept.append(problem)
    return kept


def _governed_names(stores: Stores) -> list[str]:
    with stores.governance.reading() as read:
        return [name for workspace, name in read.governed_models() if workspace == DEFAULT_WORKSPACE]


def _state(
    stores: Stores, name: str, version: int | None
) -> tuple[list[SealRecord], dict[int, VersionRecord], list[Problem]]:
    with stores.governance.reading() as read:
        governed = read.is_governed(DEFAULT_WORKSPACE, name)
        seals = read.seals(DEFAULT_WORKSPACE, name, version)
        legacy = read.legacy(DEFAULT_WORKSPACE, name)
    if not governed:
        if stores.registry.get_model(name) is None:
            raise ModelNotFound(
                f"There is no registered model '{untrusted(name, 80)}'.", next="check the name with get_model."
            )
        raise NotGoverned(
            f"The model '{untrusted(name, 80)}' was registered by plain MLflow; nothing of it is sealed.",
            next=f"an administrator adopts it with 'intelligentscan adopt {untrusted(name, 80)}'.",
        )
    there = {v.version: v for v in all_versions(stores, name)}
    if version is not None and version not in seals and version not in legacy and version not in there:
        raise VersionNotFound(
            f"The model '{untrusted(name, 80)}' has no version {version}.",
            next=f"list its versions with get_model name='{untrusted(name, 80)}'.",
        )
    problems = drift_of(stores, name)
    if version in legacy:
        problems.append(
            Problem(
                code="LEGACY",
                what=f"version {version} was there before the model was governed: legacy, unreviewed",
                where=name,
                next="register its run with register_model to have a sealed version.",
            )
        )
    return list(seals.values()), there, problems


def _lock(stores: Stores, experiment_id: str) -> dict[str, LockRecord]:
    with stores.governance.reading() as read:
        return read.locks([experiment_id])


def _all_locks(stores: Stores) -> dict[str, LockRecord]:
    with stores.governance.reading() as read:
        return read.locks()


def _standing(stores: Stores, seal: SealRecord) -> tuple[bool, bool, int | None]:
    with stores.governance.reading() as read:
        kept = read.retention(seal.workspace, seal.name, seal.version)
        return (
            read.has_event(VERIFIED, seal.workspace, seal.name, seal.version),
            seal.version in read.quarantined(seal.workspace, seal.name),
            kept[0] if kept else None,
        )
