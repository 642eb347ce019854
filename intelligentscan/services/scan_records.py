"""Reads logged scans back from their runs: findings, what was looked at, and what changed between two."""

import io
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import anyio.to_thread
from pydantic import BaseModel

from intelligentscan.domain.comparison import FindingsChange
from intelligentscan.domain.errors import NotFound
from intelligentscan.domain.scan import EngineCoverage, Finding
from intelligentscan.scanners.findings_file import findings_of
from intelligentscan.scanners.matching import match
from intelligentscan.scanners.scan_record import ScanRecord
from intelligentscan.services.scan_changes import StoredChanges
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import KIND_TAG, RunRecord

FINDINGS = "findings/findings.jsonl"
COVERAGE = "coverage/files.json"
ENGINES = "coverage/engines.json"
CHANGES = "compare/diff.json"
TARGET_TAG = "intelligentscan.target"
SCAN_KINDS = ("scan", "import")
_MAX_BYTES = 400_000_000


class ScanRecords:
    """Logged scans, as matching and lists need them."""

    def __init__(self, store: StoreAccess) -> None:
        self._store = store

    def is_scan(self, run: RunRecord) -> bool:
        """Tell whether the run is a scan, by our engines or imported."""
        return run.tags.get(KIND_TAG) in SCAN_KINDS

    async def read(self, run: RunRecord) -> ScanRecord:
        """Return a logged scan.

        Raises:
            NotFound: the run is no scan, or its findings are gone.
        """
        findings = await self._artifact(run, FINDINGS)
        coverage = await self._artifact(run, COVERAGE)
        if findings is None or coverage is None:
            raise NotFound(
                f"The run {run.run_id} holds no scan.",
                next="search_runs lists the runs of an experiment with their kind; scans have 'scan' or 'import'.",
            )
        return ScanRecord.from_json(coverage.decode(), _parsed(findings), run.run_id)

    async def changes_of(self, run: RunRecord) -> StoredChanges | None:
        """Return how a scan differed from its baseline when it was logged, or None without a baseline."""
        data = await self._artifact(run, CHANGES)
        return StoredChanges.from_json(data) if data is not None else None

    async def engines_of(self, run: RunRecord) -> "SeenByEngines":
        """Return what each engine saw of the target, and the warnings of the scan."""
        data = await self._artifact(run, ENGINES)
        return SeenByEngines.model_validate_json(data) if data is not None else SeenByEngines()

    async def changes(self, scans: Sequence[RunRecord]) -> list[FindingsChange]:
        """Return how each scan differs from the one before it."""
        result: list[FindingsChange] = []
        before = await self.read(scans[0])
        first = await self.changes_of(scans[0])
        fixed_before = first.fixed_before if first else ()
        for earlier, later in pairwise(scans):
            after = await self.read(later)
            stored = await self.changes_of(later)
            renamed = stored.renamed if stored is not None and stored.baseline == earlier.run_id else None
            work = partial(match, before, after, renamed_in_git=renamed, fixed_before=fixed_before)
            matching = await anyio.to_thread.run_sync(work)
            result.append(
                FindingsChange(
                    from_run_id=earlier.run_id,
                    to_run_id=later.run_id,
                    new=matching.new,
                    fixed=matching.fixed,
                    persisting=matching.persisting,
                    not_comparable=matching.not_comparable,
                    moved=matching.moved,
                    reopened=matching.reopened,
                    reason=next(iter(matching.reasons()), None),
                )
            )
            before, fixed_before = after, matching.fixed_before
        return result

    async def last_of(self, experiment_id: str, target: str) -> RunRecord | None:
        """Return the last finished scan of the same target in the experiment."""
        wanted = f"tags.`{TARGET_TAG}` = '{target}' AND attributes.status = 'FINISHED'"
        newest = ["attributes.start_time DESC"]
        page = await self._store.read(lambda s: s.tracking.search_runs(experiment_id, wanted, newest, 1, None))
        return page.rows[0] if page.rows else None

    async def _artifact(self, run: RunRecord, path: str) -> bytes | None:
        return await self._store.read(lambda s: s.tracking.read_artifact(run, path, _MAX_BYTES))


class SeenByEngines(BaseModel):
    """The artifact `coverage/engines.json`: coverage per engine, and the warnings of a scan."""

    coverage: tuple[EngineCoverage, ...] = ()
    warnings: tuple[str, ...] = ()


def _parsed(data: bytes) -> Iterator[Finding]:
    return findings_of(io.StringIO(data.decode("utf-8", "replace")))
