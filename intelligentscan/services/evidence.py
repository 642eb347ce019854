"""What is known about a version when somebody wants to move it: the facts that the gates decide on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio.to_thread

from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.people import Tier
from intelligentscan.domain.policy import PolicyInForce
from intelligentscan.domain.registry import PREVIOUS, Stage
from intelligentscan.gates.interface import Champion, Evidence, ReviewFacts, ScanFacts
from intelligentscan.services.drift import drift_of
from intelligentscan.services.lineage import lineage_of
from intelligentscan.services.locks import locks_of
from intelligentscan.services.policies import policy_in_force
from intelligentscan.services.review_facts import review_facts, review_statuses, scan_facts
from intelligentscan.services.sealed_model import SealedModel, card_fields, sealed_model
from intelligentscan.services.seals import UNCHECKED, VERIFIED, SealChecks
from intelligentscan.services.trail import TrailService
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.reads import GovernanceReads
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, LockRecord, SealRecord, Subject
from intelligentscan.stores.interface import Stores, VersionRecord

REGISTERED = "version.registered"


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the record says about a version."""

    seal: SealRecord | None
    legacy: bool
    drift: tuple[str, ...]
    policy: PolicyInForce
    tier: Tier = "standard"
    requesters: tuple[str, ...] = ()
    review: ReviewFacts | None = None
    rollback: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """What the version's run says about itself, what replaces it would replace, and our scan of its code."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    champion: Champion | None = None
    code_version: str | None = None
    data: tuple[str, ...] = ()
    author: str | None = None
    ended: int | None = None
    scan: ScanFacts | None = None
    use_case: str | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """Evidence, and the policy under which it was gathered."""

    evidence: Evidence
    policy: PolicyInForce


class EvidenceGatherer:
    """Looks at everything that a promotion depends on."""

    def __init__(self, store: StoreAccess, checks: SealChecks, trail: TrailService) -> None:
        self._store = store
        self._checks = checks
        self._trail = trail

    async def _since_unlocked(self, seal: SealRecord) -> list[str]:
        """Return what keeps a run from proving anything: its experiment was unlocked, and is not as it was."""

        def last(stores: Stores) -> LockRecord | None:
            with stores.governance.reading() as read:
                return read.last_lock(seal.experiment_id)

        lock = await self._store.read(last)
        if lock is None or not await self._checks.experiment(lock):
            return []
        said = f"the experiment {seal.experiment_id} was unlocked and has changed since, so its run proves nothing"
        return [f"{said} any more; register_model a run of another experiment"]

    async def gather(self, version: VersionRecord, stage: Stage, now: int, *, record: bool) -> Gathered:
        """Return what is known about a version.

        Args:
            version: the version as the registry has it.
            stage: where it is to go.
            now: the time in ms since the epoch.
            record: put damage into the trail, which keeps the version in quarantine; a dry run writes nothing.
        """
        recorded = await self._store.read(lambda s: _recorded(s, version, now))
        drift = list(recorded.drift)
        found: list[Problem] = []
        damaged: list[Problem] = []
        run, model = _Run(), SealedModel()
        if (seal := recorded.seal) is not None:
            found = await self._checks.bytes_of(seal)
            damaged = [p for p in found if p.code != UNCHECKED]
            drift += [p.what for p in found if p.code == UNCHECKED]
            if record and damaged:
                await self._checks.quarantine(seal, damaged)
            elif record and not found:
                await self._checks.ensure_verified(seal)
            drift += [p.what for p in await self._checks.rows_of(seal, version)]
            lock = await self._store.read(lambda s: locks_of(s, [seal.experiment_id]).get(seal.experiment_id))
            if lock is not None:
                drift += [f"{p.where}: {p.what}" for p in await self._checks.experiment(lock)]
            elif stage == "Production" and not recorded.rollback:
                drift += await self._since_unlocked(seal)
            run = await self._store.read(lambda s: _run(s, seal, now))
            if not found and (folder := await self._checks.folder_of(seal)) is not None:
                model = await anyio.to_thread.run_sync(sealed_model, folder)
        drift += [p.what for p in await self._trail.problems(whole=False)]
        verified, quarantined = await self._store.read(lambda s: _checked(s, version))
        evidence = Evidence(
            name=version.name,
            version=version.version,
            stage=stage,
            sealed=seal is not None,
            legacy=recorded.legacy,
            verified=verified or (seal is not None and not found),
            quarantined=quarantined or bool(damaged),
            drift=tuple(drift),
            now=now,
            tier=recorded.tier,
            rollback=recorded.rollback,
            metrics=run.metrics,
            champion=run.champion,
            review=recorded.review,
            requesters=recorded.requesters,
            run_author=run.author,
            scan=run.scan,
            code_version=run.code_version,
            data=run.data,
            signature=model.signature,
            input_example=model.input_example,
            card=card_fields(version.description, version.tags, run.use_case),
            ended=run.ended,
        )
        return Gathered(evidence, recorded.policy)


def committee_facts(read: GovernanceReads, seal: SealRecord, policy: PolicyInForce, now: int) -> ReviewFacts | None:
    """Return what the committee has said about a sealed version."""
    return review_facts(read, DEFAULT_WORKSPACE, seal.name, seal.version, seal.manifest_digest, policy.digest, now)


def _recorded(stores: Stores, version: VersionRecord, now: int) -> _Recorded:
    name, number = version.name, version.version
    drift = tuple(p.what for p in drift_of(stores, name))
    with stores.governance.reading() as read:
        policy = policy_in_force(read)
        seal = read.seals(DEFAULT_WORKSPACE, name, number).get(number)
        legacy = number in read.legacy(DEFAULT_WORKSPACE, name)
        rollback = read.aliases(DEFAULT_WORKSPACE, name).get(PREVIOUS) == number
        if seal is None:
            return _Recorded(None, legacy, drift, policy, rollback=rollback)
        requester = read.on_behalf_of(seal.event)
        tier = read.last_fact(REGISTERED, "tier", Subject(None, DEFAULT_WORKSPACE, name, number))
        return _Recorded(
            seal,
            legacy,
            drift,
            policy,
            tier="scan-config" if tier == "scan-config" else "standard",
            requesters=(requester,) if requester and read.principal_of(requester) else (),
            review=committee_facts(read, seal, policy, now),
            rollback=rollback,
        )


def _run(stores: Stores, seal: SealRecord, now: int) -> _Run:
    run = stores.tracking.get_run(seal.run_id)
    if run is None:
        return _Run()
    lineage = lineage_of(stores, run)
    commit = lineage.facts["code_version"]
    champion = None
    live = stores.registry.in_stage(seal.name, "Production")
    with stores.governance.reading() as read:
        last = live or _last_live(read, seal.name, now)
        held = read.seals(DEFAULT_WORKSPACE, seal.name, last).get(last) if last not in (None, seal.version) else None
        scan = scan_facts(read, commit) if commit else None
        use_case = read.text_of(seal.event, "use_case")
    if last is not None and last != seal.version:
        theirs = stores.tracking.get_run(held.run_id) if held else None
        champion = Champion(last, theirs.metrics if theirs else {}, live=live is not None)
    return _Run(
        metrics=run.metrics,
        champion=champion,
        code_version=commit,
        data=tuple(d["digest"] for d in lineage.facts["data"]),
        author=lineage.text.get("run_author"),
        ended=run.end_time,
        scan=scan,
        use_case=use_case,
    )


def _last_live(read: GovernanceReads, name: str, now: int) -> int | None:
    """Return what was in Production last, so that archiving it first spares nobody the comparison.

    One whose approval the committee took back is no yardstick any more.
    """
    last = next(reversed(read.ever_live(DEFAULT_WORKSPACE, name)), None)
    if last is None or review_statuses(read, DEFAULT_WORKSPACE, name, now).get(last) in ("revoked", "rejected"):
        return None
    return last


def _checked(stores: Stores, version: VersionRecord) -> tuple[bool, bool]:
    with stores.governance.reading() as read:
        verified = read.has_event(VERIFIED, DEFAULT_WORKSPACE, version.name, version.version)
        quarantined = version.version in read.quarantined(DEFAULT_WORKSPACE, version.name)
    return verified, quarantined
