"""Settings in, services out: the one place that names concrete stores and engines.

It imports neither the agent face nor the HTTP face, so that a script or a CLI command does not pay for them.
"""

from dataclasses import dataclass
from pathlib import Path

from intelligentscan._paths import AllowedRoots, default_roots
from intelligentscan.services.comparison import ComparisonService
from intelligentscan.services.experiments import ExperimentService
from intelligentscan.services.registry import RegistryService
from intelligentscan.services.resolve import Resolver
from intelligentscan.services.runs import RunService
from intelligentscan.services.scan_configs import ScanConfigs
from intelligentscan.services.scan_records import ScanRecords
from intelligentscan.services.scans import ScanService
from intelligentscan.settings import Settings
from intelligentscan.stores import nearby
from intelligentscan.stores.access import StoreAccess


@dataclass(frozen=True, slots=True)
class Services:
    """Every service of one store."""

    settings: Settings
    roots: AllowedRoots
    store: StoreAccess
    experiments: ExperimentService
    runs: RunService
    comparisons: ComparisonService
    scans: ScanService
    registry: RegistryService

    def start(self) -> None:
        """Begin to import MLflow and to open the store in the background."""
        self.store.start()


def build(settings: Settings, *, anywhere: bool = False) -> Services:
    """Return the services on the store that the settings name; nothing is opened yet.

    Args:
        settings: what is set.
        anywhere: a person at a shell or in Python names paths with their own rights, not an agent;
            credentials and INTELLIGENTSCAN_HOME stay refused.
    """
    roots = _roots(settings, anywhere)
    store = StoreAccess(settings)
    neighbourhood = (roots.base,) if anywhere and roots.base else roots.roots
    resolver = Resolver(store, lambda: nearby.find(neighbourhood, settings.store_uri))
    records = ScanRecords(store)
    configs = ScanConfigs(store)
    return Services(
        settings=settings,
        roots=roots,
        store=store,
        experiments=ExperimentService(store, resolver),
        runs=RunService(store, resolver, roots),
        comparisons=ComparisonService(store, resolver, records),
        scans=ScanService(store, resolver, roots, records),
        registry=RegistryService(store, resolver, configs),
    )


def _roots(settings: Settings, anywhere: bool) -> AllowedRoots:
    try:
        here: Path | None = Path.cwd()
    except OSError:  # the working directory was removed
        here = None
    if anywhere:
        return AllowedRoots((Path("/"),), settings.home, base=here)
    if settings.allowed_roots is not None:
        return AllowedRoots(settings.allowed_roots, settings.home)
    return AllowedRoots(default_roots(here, Path("~").expanduser()) if here else (), settings.home)
