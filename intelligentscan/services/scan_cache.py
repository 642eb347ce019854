"""Which scans may answer from the cache of earlier results, and for which product."""

from pathlib import Path

from intelligentscan.scanners.cache_store import CacheStore
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.result_cache import ResultCache
from intelligentscan.services.resolve import Destination
from intelligentscan.services.scan_evidence import ScanEvidence
from intelligentscan.stores.interface import PRODUCT_TAG


class ScanCache:
    """The cache of one installation, None if it is switched off."""

    def __init__(self, store: CacheStore | None, evidence: ScanEvidence) -> None:
        self._store = store
        self._evidence = evidence

    async def of_scan(
        self, root: Path, config: ScanConfig, destination: Destination, use: bool = True
    ) -> ResultCache | None:
        """Return the cache as one scan may use it: every scan adds to it, evidence takes nothing from it.

        Args:
            root: the folder to scan.
            config: engines and rules.
            destination: where the scan will be logged; its product shares no results with others.
            use: whether the caller wants results of earlier scans.
        """
        if self._store is None:
            return None
        product = next((tag for within in destination.chain if (tag := within.tags.get(PRODUCT_TAG))), None)
        return ResultCache(self._store, product, read=use and not await self._evidence.is_wanted(root, config))
