"""Settings in, services out: the one place that names concrete stores and engines.

It imports neither the agent face nor the HTTP face, so that a script or a CLI command does not pay for
them. Each service is imported when it is first asked for: a client waits for the server's handshake
with a short deadline, and together they would take half as long again as the protocol itself.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from intelligentscan._paths import AllowedRoots, default_roots
from intelligentscan.settings import Settings, sqlite_path
from intelligentscan.stores.access import StoreAccess

if TYPE_CHECKING:
    from intelligentscan.services.adoption import AdoptionService
    from intelligentscan.services.comparison import ComparisonService
    from intelligentscan.services.denials import Denials
    from intelligentscan.services.diagnosis import DiagnosisService
    from intelligentscan.services.evidence import EvidenceGatherer
    from intelligentscan.services.experiments import ExperimentService
    from intelligentscan.services.history import HistoryService
    from intelligentscan.services.integrity import IntegrityService
    from intelligentscan.services.locks import LockService
    from intelligentscan.services.people import PeopleService
    from intelligentscan.services.plans import PlanService
    from intelligentscan.services.policies import PolicyService
    from intelligentscan.services.registry import RegistryService
    from intelligentscan.services.resolve import Resolver
    from intelligentscan.services.review import ReviewService
    from intelligentscan.services.runs import RunService
    from intelligentscan.services.scan_records import ScanRecords
    from intelligentscan.services.scans import ScanService
    from intelligentscan.services.seals import SealChecks
    from intelligentscan.services.trail import TrailService
    from intelligentscan.services.upkeep import UpkeepService
    from intelligentscan.stores.archive import Archive


class Services:
    """Every service of one store.

    Args:
        settings: what is set.
        roots: where path arguments may lie.
        neighbourhood: folders in which other stores are looked for.
    """

    def __init__(self, settings: Settings, roots: AllowedRoots, neighbourhood: tuple[Path, ...]) -> None:
        self.settings = settings
        self.roots = roots
        self.neighbourhood = neighbourhood
        self.store = StoreAccess(settings)

    def start(self) -> None:
        """Begin to import MLflow and to open the store in the background."""
        self.store.start()

    async def create_store(self) -> None:
        """Make the SQLite store if it is not there yet, before plain MLflow uses it; a server makes its own.

        Raises:
            StoreError: it cannot be made.
        """
        path = sqlite_path(self.settings.store_uri)
        if path is not None and not await anyio.to_thread.run_sync(os.path.lexists, path):
            await self.store.read(lambda stores: None)

    def load(self) -> None:
        """Import every service; blocks for some 0.1 s, so call it from a thread when nobody is waiting."""
        for name, member in vars(type(self)).items():
            if isinstance(member, cached_property):
                getattr(self, name)

    @cached_property
    def experiments(self) -> "ExperimentService":
        """Creating and finding experiments."""
        from intelligentscan.services.experiments import ExperimentService

        return ExperimentService(self.store, self._resolver, self.locks)

    @cached_property
    def runs(self) -> "RunService":
        """Logging, finding and reading runs."""
        from intelligentscan.services.runs import RunService

        return RunService(self.store, self._resolver, self.roots, self.locks, self._denials)

    @cached_property
    def comparisons(self) -> "ComparisonService":
        """Runs side by side."""
        from intelligentscan.services.comparison import ComparisonService

        return ComparisonService(self.store, self._resolver, self._records)

    @cached_property
    def scans(self) -> "ScanService":
        """Scanning, importing, listing findings."""
        from intelligentscan.scanners.cache_store import CacheStore
        from intelligentscan.services.scan_cache import ScanCache
        from intelligentscan.services.scan_evidence import ScanEvidence
        from intelligentscan.services.scans import ScanService

        evidence = ScanEvidence(self.store)
        most = self.settings.scan_cache_mb * 2**20
        cache = ScanCache(CacheStore(self.settings.home, most) if most else None, evidence)
        return ScanService(self.store, self._resolver, self.roots, self._records, self.locks, evidence, cache)

    @cached_property
    def registry(self) -> "RegistryService":
        """Registering models and moving their versions."""
        from intelligentscan.services.promotion import PromotionService
        from intelligentscan.services.registration import Registrar
        from intelligentscan.services.registry import RegistryService
        from intelligentscan.services.scan_configs import ScanConfigs

        registrar = Registrar(self.store, self._archive, self._seals)
        promotion = PromotionService(self.store, self._gatherer, self.trail, self._denials, self.reviews.ensure)
        configs = ScanConfigs(self.store)
        return RegistryService(self.store, self._resolver, configs, registrar, promotion, self._denials, self.trail)

    @cached_property
    def plans(self) -> "PlanService":
        """Acts of agents that wait for a person."""
        from intelligentscan.services.plans import PlanService

        return PlanService(self.store)

    @cached_property
    def reviews(self) -> "ReviewService":
        """The committee's reviews."""
        from intelligentscan.services.review import ReviewService

        return ReviewService(self.store, self._archive, self._seals, self.trail, self._denials)

    @cached_property
    def locks(self) -> "LockService":
        """Locked experiments."""
        from intelligentscan.services.locks import LockService

        return LockService(self.store, self._resolver)

    @cached_property
    def people(self) -> "PeopleService":
        """Who has which role, products, and the keys of reviewers."""
        from intelligentscan.services.people import PeopleService

        return PeopleService(self.store, self._denials)

    @cached_property
    def policies(self) -> "PolicyService":
        """The promotion policy."""
        from intelligentscan.services.policies import PolicyService

        return PolicyService(self.store, self._denials)

    @cached_property
    def history(self) -> "HistoryService":
        """What happened, and what was live."""
        from intelligentscan.services.history import HistoryService

        return HistoryService(self.store)

    @cached_property
    def trail(self) -> "TrailService":
        """The audit trail and its keys."""
        from intelligentscan.services.trail import TrailService

        return TrailService(self.store, self.settings)

    @cached_property
    def integrity(self) -> "IntegrityService":
        """Whether everything is as it was recorded."""
        from intelligentscan.services.integrity import IntegrityService

        return IntegrityService(self.store, self._seals, self.trail)

    @cached_property
    def _gatherer(self) -> "EvidenceGatherer":
        from intelligentscan.services.evidence import EvidenceGatherer

        return EvidenceGatherer(self.store, self._seals, self.trail)

    @cached_property
    def adoption(self) -> "AdoptionService":
        """An administrator's acts on the store."""
        from intelligentscan.services.adoption import AdoptionService

        return AdoptionService(self.store, self._seals, self._gatherer)

    @cached_property
    def upkeep(self) -> "UpkeepService":
        """Upgrading the database, and splitting its roles."""
        from intelligentscan.services.upkeep import UpkeepService

        return UpkeepService(self.store, self.settings, self._archive, self.adoption)

    @cached_property
    def diagnosis(self) -> "DiagnosisService":
        """What is in order here and what is not."""
        from intelligentscan.services.diagnosis import DiagnosisService
        from intelligentscan.stores import nearby

        agent_roots = _agent_roots(self.settings, _working_directory())
        neighbourhood = dict.fromkeys((*self.neighbourhood, *agent_roots.roots, self.settings.home))
        return DiagnosisService(
            self.settings,
            self.store,
            agent_roots,
            lambda: nearby.find(neighbourhood, self.settings.store_uri),
            self.adoption.check,
        )

    @cached_property
    def _resolver(self) -> "Resolver":
        from intelligentscan.services.resolve import Resolver
        from intelligentscan.stores import nearby

        return Resolver(self.store, lambda: nearby.find(self.neighbourhood, self.settings.store_uri))

    @cached_property
    def _archive(self) -> "Archive":
        from intelligentscan.stores.archive import Archive

        # A place that was chosen for it is one where other accounts load models from.
        return Archive(self.settings.archive_folder, shared=self.settings.archive is not None)

    @cached_property
    def _denials(self) -> "Denials":
        from intelligentscan.services.denials import Denials

        return Denials(self.store)

    @cached_property
    def _seals(self) -> "SealChecks":
        from intelligentscan.services.seals import SealChecks

        return SealChecks(self.store, self._archive)

    @cached_property
    def _records(self) -> "ScanRecords":
        from intelligentscan.services.scan_records import ScanRecords

        return ScanRecords(self.store)


def build(settings: Settings, *, anywhere: bool = False) -> Services:
    """Return the services on the store that the settings name; nothing is opened yet.

    Args:
        settings: what is set.
        anywhere: a person at a shell or in Python names paths with their own rights, not an agent;
            credentials and INTELLIGENTSCAN_HOME stay refused.
    """
    here = _working_directory()
    if anywhere:
        roots = AllowedRoots((Path("/"),), settings.home, base=here)
        return Services(settings, roots, (here,) if here else ())
    roots = _agent_roots(settings, here)
    return Services(settings, roots, roots.roots)


def _agent_roots(settings: Settings, here: Path | None) -> AllowedRoots:
    if settings.allowed_roots is not None:
        return AllowedRoots(settings.allowed_roots, settings.home)
    return AllowedRoots(default_roots(here, _user_folder()) if here else (), settings.home)


def _user_folder() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user without a home folder, as in some containers
        return Path("/")


def _working_directory() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None
