"""Gathers what a dossier is made from: a bounded number of calls, whatever the run has logged."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import NoModel, StoreBroken, TooLarge
from intelligentscan.domain.review import Criterion
from intelligentscan.domain.severity import SEVERITIES
from intelligentscan.services.dossier import ArtifactFact, Material, ScanFact
from intelligentscan.services.lineage import lineage_of
from intelligentscan.services.review_facts import scan_record
from intelligentscan.services.sealed_model import SealedModel
from intelligentscan.stores.archive import Archive
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, SealRecord
from intelligentscan.stores.governance.vouched import VouchedRow
from intelligentscan.stores.interface import KIND_TAG, RunRecord, Stores, VersionRecord

_MAX_LISTING = 512 * 2**20
_HASHED = 64 * 2**20
_MAX_FOLDERS = 10
_MAX_RUNS = 10
_MODEL_FILE = "MLmodel"


def material_of(
    stores: Stores,
    archive: Archive,
    seal: SealRecord,
    version: VersionRecord,
    model: SealedModel,
    given: Mapping[Criterion, object],
) -> Material:
    """Return what is known about a sealed version; blocks.

    Args:
        stores: the stores, opened.
        archive: where listings of locked experiments are.
        seal: the version as it was sealed.
        version: the version as the registry has it.
        model: what its sealed files say.
        given: what came with the request.
    """
    run = stores.tracking.get_run(seal.run_id)
    commit = lineage_of(stores, run).facts["code_version"] if run else None
    registered = stores.registry.get_model(seal.name)
    live = stores.registry.in_stage(seal.name, "Production")
    champion = live if live != seal.version else None
    with stores.governance.reading() as read:
        held = read.seals(DEFAULT_WORKSPACE, seal.name, champion).get(champion) if champion is not None else None
        use_case = read.text_of(seal.event, "use_case")
        scan = scan_record(read, commit) if commit else None
        lock = read.lock(seal.experiment_id)
    theirs = stores.tracking.get_run(held.run_id) if held else None
    artifacts = _listed(archive, lock.files_digest, seal.run_id) if lock else None
    if artifacts is None:
        artifacts = _looked_up(stores, archive, run) if run else []
    return Material(
        version=version,
        manifest_digest=seal.manifest_digest,
        run=run,
        model=model,
        model_description=registered.description if registered else None,
        use_case=use_case,
        code_version=commit,
        datasets=stores.tracking.datasets(run.run_id) if run else (),
        artifacts=_without_models(artifacts),
        scans=([_ours(scan)] if scan else []) + _imported(stores, given, commit),
        champion=champion,
        champion_metrics=theirs.metrics if theirs else {},
        given=given,
    )


def _ours(scan: VouchedRow) -> ScanFact:
    facts: dict[str, Any] = {
        "run_id": scan["run_id"],
        "commit": scan["commit_id"],
        "at": rfc3339(scan.at),
        **{column: bool(scan[column]) for column in ("clean", "complete")},
        **{column: scan[column] for column in ("critical", "high")},
    }
    return ScanFact("measured by us", facts, scan["sarif_digest"])


def _imported(stores: Stores, given: Mapping[Criterion, object], commit: str | None) -> list[ScanFact]:
    """Return imported scans of the run's commit that the request names as `{"run_id": …}`."""
    named = [value.get("run_id") for value in given.values() if isinstance(value, dict)]
    wanted = sorted({n for n in named if isinstance(n, str) and names.is_run_id(n)})[:_MAX_RUNS]
    runs = stores.tracking.runs_by_ids(wanted) if wanted and commit else ()
    return [
        ScanFact(
            "imported",
            {"run_id": run.run_id, "commit": commit}
            | {severity: run.metrics.get(f"findings.{severity}") for severity in SEVERITIES[:2]},
        )
        for run in runs
        if run.tags.get(KIND_TAG) == "import" and run.tags.get("mlflow.source.git.commit") == commit
    ]


def _listed(archive: Archive, digest: str, run_id: str) -> list[ArtifactFact] | None:
    """Return the files of a run as they were hashed when its experiment was locked."""
    with suppress(StoreBroken, TooLarge, ValueError, KeyError, TypeError):
        listing = json.loads(archive.read_document(digest, _MAX_LISTING))["folders"].get(f"run {run_id}")
        return _rows(listing) if listing is not None else None
    return None


def _looked_up(stores: Stores, archive: Archive, run: RunRecord) -> list[ArtifactFact]:
    label = f"run {run.run_id}"
    local = next((f.folder for f in stores.tracking.folders(run.experiment_id) if f.label == label), None)
    if local is not None:
        with suppress(NoModel, TooLarge):
            return _rows(json.loads(archive.inventory(local, hash_up_to_bytes=_HASHED, below=local.parent)))
    top = stores.tracking.list_artifacts(run)
    below = [
        a for f in [a for a in top if a.folder][:_MAX_FOLDERS] for a in stores.tracking.list_artifacts(run, f.path)
    ]
    return [ArtifactFact(a.path, a.size, None) for a in (*top, *below) if not a.folder]


def _rows(listing: dict[str, Any]) -> list[ArtifactFact]:
    return [
        ArtifactFact(row["path"], row["size"], row.get("sha256"))
        for row in listing["entries"]
        if row["kind"] == "file" and "path" in row
    ]


def _without_models(artifacts: list[ArtifactFact]) -> list[ArtifactFact]:
    """Leave out what lies in the folder of a model: it is sealed, or none of this version's."""
    models = {str(PurePosixPath(a.path).parent) for a in artifacts if PurePosixPath(a.path).name == _MODEL_FILE}
    return [a for a in artifacts if not models.intersection(map(str, PurePosixPath(a.path).parents))]
