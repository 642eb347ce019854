"""Scanning configurations as models: logged as runs of `scan-configs/<name>` and registered from there.

Registering from a run of their own keeps the experiment of the scans out of it.
"""

import time
from importlib.metadata import version as installed

import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan._private_folder import private_folder_blocking
from intelligentscan.domain.errors import NoModel, Refused, StoreError, StoreUnavailable
from intelligentscan.scanners.config import FINDING_COLUMNS, ScanConfig
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.services.idempotency import idempotency
from intelligentscan.services.locks import locks_of
from intelligentscan.services.principal import real_user
from intelligentscan.services.runs import authored
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import (
    KIND_TAG,
    Idempotency,
    ModelSource,
    PyfuncModel,
    RunDraft,
    RunRecord,
    Stores,
)

CONFIG_ARTIFACT = "config/scan_config.yaml"
MODEL_NAME = "scan-config"
_MAX_CONFIG = 262_144
LOADER = "intelligentscan.scan_config_model"
INPUTS = {"repo_path": "string"}
OUTPUTS = {name: "long" if name == "line" else "string" for name in FINDING_COLUMNS}


class ScanConfigs:
    """Makes the configuration of a scan a logged model."""

    def __init__(self, store: StoreAccess) -> None:
        self._store = store

    def is_own_scan(self, run: RunRecord) -> bool:
        """Tell whether the run is a scan by our own engines, which has a configuration."""
        return run.tags.get(KIND_TAG) == "scan"

    async def of_run(self, run: RunRecord) -> ScanConfig:
        """Return the configuration that a scan was made with.

        Raises:
            NoModel: the scan has left none.
        """
        data = await self._store.read(lambda s: s.tracking.read_artifact(run, CONFIG_ARTIFACT, _MAX_CONFIG))
        if data is None:
            raise NoModel(
                f"The scan {run.run_id} has left no configuration.",
                next="scan again with scan_vulnerabilities and register that run.",
            )
        return ScanConfig.from_yaml(data.decode("utf-8", "replace"))

    async def logged(self, scan: RunRecord, dry_run: bool) -> tuple[ModelSource | None, RunRecord]:
        """Return the model of a scan's configuration and its run; one per digest, made on first use.

        With `dry_run` nothing is made: without a model so far, the scan itself comes back.
        """
        config = await self.of_run(scan)
        experiment = f"scan-configs/{config.name}"
        if dry_run:
            return None, scan
        versions = {
            f"engine.{engine}.version": scan.params.get(f"engine.{engine}.version", "") for engine in config.engines
        }

        def key_in(experiment_id: str) -> Idempotency | None:
            return idempotency(
                sha256_hex(rfc8785.dumps([config.digest, versions])),
                person="",
                tool="scan-config",
                experiment_id=experiment_id,
                arguments={},
            )

        def make(stores: Stores) -> tuple[ModelSource, RunRecord]:
            record, _ = stores.tracking.create_experiment(experiment, {KIND_TAG: "scan-configs"})
            while (lock := locks_of(stores, [record.experiment_id]).get(record.experiment_id)) is not None:
                key = key_in(record.experiment_id)
                known = stores.tracking.run_by_key(record.experiment_id, key) if key else None
                if known is not None and (sources := stores.registry.model_sources(known)):
                    return sources[0], known
                # Registering its model locked the experiment; other configurations go on in the next one.
                record, _ = stores.tracking.create_experiment(lock.next_experiment, {KIND_TAG: "scan-configs"})
            now = int(time.time() * 1000)
            user = real_user()
            run = stores.tracking.write_run(
                RunDraft(
                    experiment_id=record.experiment_id,
                    user=user,
                    time=now,
                    run_name=config.name,
                    params={"scan.config.name": config.name, "scan.config.digest": config.digest, **versions},
                    tags=authored({KIND_TAG: "scan-config"}, user),
                    status="RUNNING",
                    idempotency=key_in(record.experiment_id),
                )
            ).run
            sources = stores.registry.model_sources(run)
            source = sources[0] if sources else _log(stores, run, config, versions)
            if run.status != "FINISHED":
                end = RunDraft(
                    record.experiment_id, user, int(time.time() * 1000), run_id=run.run_id, status="FINISHED"
                )
                run = stores.tracking.write_run(end).run
            return source, run

        def make_together(stores: Stores) -> tuple[ModelSource, RunRecord]:
            # As one, so that nobody locks the experiment while the model is being logged in it.
            with stores.tracking.together():
                return make(stores)

        try:
            return await self._store.write(make_together)
        except StoreUnavailable:
            raise
        except (Refused, StoreError):  # another process logged or registered a configuration at the same moment
            return await self._store.write(make_together)


def _log(stores: Stores, run: RunRecord, config: ScanConfig, versions: dict[str, str]) -> ModelSource:
    requirements = [f"intelligentscan=={installed('intelligentscan')}"]
    packages = {key: ENGINES[key.split(".")[1]].package for key in versions}
    requirements += [f"{packages[key]}=={version}" for key, version in versions.items() if version and packages[key]]
    with private_folder_blocking() as private:
        data = private / "scan_config.yaml"
        data.write_text(config.to_yaml(), encoding="utf-8")
        model = PyfuncModel(MODEL_NAME, LOADER, data, tuple(requirements), INPUTS, OUTPUTS, {"repo_path": "."})
        return stores.registry.log_pyfunc(run, model)
