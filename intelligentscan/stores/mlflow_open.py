"""Opens the tracking and the registry store that the settings name."""

from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy
from mlflow.store.db import utils as db_utils
from mlflow.store.db.base_sql_model import Base
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking._model_registry import utils as registry_utils
from mlflow.tracking._tracking_service import utils as tracking_utils
from mlflow.utils.uri import is_databricks_unity_catalog_uri

from intelligentscan._signing import KeyFolder
from intelligentscan.domain.errors import StoreBroken, StoreError
from intelligentscan.domain.text import untrusted
from intelligentscan.settings import Settings, artifact_uri, sqlite_path, sqlite_uri
from intelligentscan.stores.governance.store import GovernanceStore
from intelligentscan.stores.interface import SchemaRevision, Stores
from intelligentscan.stores.mlflow_errors import translated
from intelligentscan.stores.mlflow_models import LoggedModels
from intelligentscan.stores.mlflow_registry import MlflowRegistry
from intelligentscan.stores.mlflow_schema import MIGRATION_LEASE, schema_facts
from intelligentscan.stores.mlflow_sqlite import PlannerStatistics, create_if_missing, give_engines
from intelligentscan.stores.mlflow_tracking import MlflowTracking
from intelligentscan.stores.mlflow_unit import Units
from intelligentscan.stores.mlflow_write import SqlWriter, StepWriter, index_idempotency

T = TypeVar("T")
GUARDED_DIALECTS = ("sqlite", "postgresql")
GOVERNANCE_FILE = "governance.db"


class MlflowStores:
    """Tracking and registry of one MLflow store, opened."""

    def __init__(self, tracking: MlflowTracking, registry: MlflowRegistry, governance: GovernanceStore) -> None:
        self.tracking = tracking
        self.registry = registry
        self.governance = governance

    def schema(self) -> SchemaRevision:
        """Return the schema of the tracking database."""
        if not hasattr(self.tracking._store, "engine"):
            return SchemaRevision(None, None)
        engine = self.tracking._store.engine
        tables = (*Base.metadata.tables, "alembic_version")
        return SchemaRevision(db_utils._get_schema_version(engine), db_utils._get_latest_schema_revision(), tables)

    def call(self, use: "Callable[[Stores], T]") -> T:
        """Run the function on the stores; what goes wrong in them comes out as one of our errors."""
        with translated():
            return use(self)


def open_stores(settings: Settings) -> MlflowStores:
    """Open the stores, creating a SQLite file that does not exist yet.

    Raises:
        StoreBroken: the SQLite file is there but cannot be used.
        StoreUnavailable: the database cannot be reached.
    """
    with translated():
        try:
            return _open(settings)
        except (ValueError, ImportError) as exc:
            raise StoreError(
                f"The tracking store cannot be opened: {untrusted(str(exc), 200)}.",
                next="correct MLFLOW_TRACKING_URI, or install the driver of its database.",
            ) from exc


def _open(settings: Settings) -> MlflowStores:
    uri = settings.store_uri
    path = sqlite_path(uri)
    if path is not None:
        create_if_missing(path, settings.artifact_root or str(path.parent))
        give_engines(uri)
    tracking_store = _migrated_once(uri, lambda: tracking_utils._get_store(uri, settings.artifact_root))
    registry_uri = settings.registry_uri or registry_utils._get_default_registry_uri_for_tracking_uri(uri) or uri
    if (registry_path := sqlite_path(registry_uri)) is not None:
        registry_uri = sqlite_uri(registry_path)
        create_if_missing(registry_path, artifact_uri(registry_path.parent / "mlruns"))
        give_engines(registry_uri)
    registry_store = _migrated_once(registry_uri, lambda: registry_utils._get_store(registry_uri, uri))
    statistics = PlannerStatistics(path, tracking_store.engine) if path is not None else None
    together = [tracking_store] if _is_sql(uri) else []
    if _is_sql(registry_uri) and registry_uri == uri:
        together.append(registry_store)
    units = Units(*together) if together else None
    registry_units = units if registry_uri == uri else Units(registry_store) if _is_sql(registry_uri) else None
    if units is not None and index_idempotency(tracking_store.engine):
        write = SqlWriter(tracking_store, units, uri, statistics).write
    else:
        write = StepWriter(tracking_store, uri).write
    tracking = MlflowTracking(tracking_store, uri, write, statistics.freshen if statistics else None, units)
    models = LoggedModels(tracking_store, uri, units)
    stages = not is_databricks_unity_catalog_uri(registry_uri)
    registry = MlflowRegistry(registry_store, models, registry_units, stages)
    joint = units if registry_uri == uri and settings.governance_uri is None else None
    return MlflowStores(tracking, registry, _governance(settings, uri, tracking_store, joint))


def _governance(settings: Settings, uri: str, store: Any, units: Units | None) -> GovernanceStore:
    """Open the governance database: MLflow's own where guards can stand in it, else one of its own."""
    keys = KeyFolder(settings.keys_folder)
    if units is not None and store.engine.dialect.name in GUARDED_DIALECTS:
        return GovernanceStore(store.engine, keys, units.unit)
    own = settings.governance_uri or sqlite_uri(settings.home / GOVERNANCE_FILE)
    if (path := sqlite_path(own)) is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = sqlite_uri(path)
    return GovernanceStore(sqlalchemy.create_engine(own), keys, None)


def _is_sql(uri: str) -> bool:
    return uri.split(":", 1)[0].split("+", 1)[0] in DATABASE_ENGINES


def _migrated_once(uri: str, get_store: Callable[[], T]) -> T:
    """Open a store; on PostgreSQL one process at a time, since the first one makes the schema."""
    if not uri.startswith(("postgresql", "postgres")):
        return get_store()
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LEASE})")
        try:
            facts = schema_facts(connection)
            if facts.current is not None and not facts.at_head:  # MLflow would migrate what others are using
                raise StoreBroken(
                    f"The tracking database has the schema {facts.current} of another release of MLflow.",
                    next="back it up, then run 'intelligentscan db upgrade'.",
                )
            return get_store()
        finally:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({MIGRATION_LEASE})")
