"""What a store offers to the services, and the types that cross that border.

Every method blocks; services call them through `Lanes`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from intelligentscan.domain.registry import Stage
from intelligentscan.domain.run import RunStatus

if TYPE_CHECKING:
    from intelligentscan.stores.governance.store import GovernanceStore

T = TypeVar("T")
KIND_TAG = "intelligentscan.kind"
PRODUCT_TAG = "intelligentscan.product"
IDEMPOTENCY_TAG = "intelligentscan.idempotency"
ARGUMENTS_TAG = "intelligentscan.arguments"


@dataclass(frozen=True, slots=True)
class ExperimentRecord:
    """An experiment as the store keeps it; times in milliseconds since the epoch."""

    experiment_id: str
    name: str
    artifact_location: str
    deleted: bool
    tags: dict[str, str]
    last_update: int | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the store keeps it; times in milliseconds since the epoch."""

    run_id: str
    run_name: str
    experiment_id: str
    status: RunStatus
    deleted: bool
    artifact_uri: str
    start_time: int | None
    end_time: int | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    model_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One point of a metric; time in milliseconds since the epoch."""

    key: str
    value: float
    time: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's key, hashed with person, tool and experiment, and the digest of the other arguments."""

    key: str
    arguments: str


@dataclass(frozen=True, slots=True)
class RunDraft:
    """Everything one call writes to a run. `run_id` None makes a new run."""

    experiment_id: str
    user: str
    time: int
    run_id: str | None = None
    run_name: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    metrics: tuple[MetricValue, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: Path | None = None
    status: RunStatus | None = None
    start_time: int | None = None
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """A dataset that a run has logged."""

    name: str
    digest: str
    context: str | None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run or a logged model keeps its files; None where that is not a folder of this machine.

    Its state is another one after somebody ended the run or finished the model.
    """

    label: str
    folder: Path | None
    state: str = ""


@dataclass(frozen=True, slots=True)
class RunningRun:
    """A run that has not ended; the time of its last known write in milliseconds since the epoch."""

    run_id: str
    run_name: str
    last_write: int


@dataclass(frozen=True, slots=True)
class WrittenRun:
    """The run after a write, and whether the write made it."""

    run: RunRecord
    created: bool


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the token of the next page if there is one."""

    rows: tuple[T, ...]
    next_token: str | None = None


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """One entry of an artifact folder; size in bytes."""

    path: str
    folder: bool
    size: int | None


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that a run has logged, and where its files are."""

    name: str
    uri: str
    location: str
    model_id: str | None


@dataclass(frozen=True, slots=True)
class PyfuncModel:
    """A model that a module of ours loads from a data file.

    Attributes:
        name: name of the logged model.
        loader_module: module whose `_load_pyfunc` reads the data file.
        data: the data file.
        requirements: pinned packages that the module needs.
        inputs: column names and MLflow types that the model takes.
        outputs: column names and MLflow types that it returns.
        example: one row of input.
    """

    name: str
    loader_module: str
    data: Path
    requirements: tuple[str, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]
    example: dict[str, object]


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One version of a registered model; time in milliseconds since the epoch."""

    name: str
    version: int
    stage: Stage
    aliases: tuple[str, ...]
    source: str
    run_id: str | None
    created: int | None
    description: str | None
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A registered model without its versions."""

    name: str
    description: str | None
    aliases: dict[str, int]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class StageMove:
    """What one promotion changes, done as a whole or not at all."""

    name: str
    version: int
    stage: Stage


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """A version to make: under which name, from which logged model, and where its sealed copy lies if it has one."""

    name: str
    source: ModelSource
    run_id: str
    location: str
    description: str | None
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class StageMoved:
    """The version after the move, and the one that it replaced."""

    version: VersionRecord
    replaced: int | None


class TrackingStore(Protocol):
    """Experiments, runs and artifacts of one MLflow store."""

    def find_experiment(self, name_or_id: str) -> ExperimentRecord | None:
        """Return the experiment of this name, else of this id, deleted ones too."""
        ...

    def find_experiment_by_name(self, name: str) -> ExperimentRecord | None:
        """Return the experiment of exactly this name, a deleted one too."""
        ...

    def experiment_by_id(self, experiment_id: str) -> ExperimentRecord | None:
        """Return the experiment of this id, a deleted one too."""
        ...

    def create_experiment(self, name: str, tags: dict[str, str]) -> tuple[ExperimentRecord, bool]:
        """Return the experiment of this name and whether this call made it."""
        ...

    def search_experiments(
        self, text: str | None, tags: dict[str, str], limit: int, token: str | None
    ) -> Page[ExperimentRecord]:
        """Return experiments whose name contains the text, last changed first."""
        ...

    def together(self) -> AbstractContextManager[object]:
        """Open one transaction for all that is called within, where the store is a database; short acts only."""
        ...

    def write_run(self, draft: RunDraft) -> WrittenRun:
        """Write the draft as a whole; the winner's run if the idempotency key was used before."""
        ...

    def run_by_key(self, experiment_id: str, key: Idempotency) -> RunRecord | None:
        """Return the run that an idempotency key was used for.

        Raises:
            IdempotencyConflict: it was used with other arguments.
        """
        ...

    def get_run(self, run_id: str) -> RunRecord | None:
        """Return the run of this full id, deleted ones too."""
        ...

    def runs_by_ids(self, run_ids: Sequence[str]) -> tuple[RunRecord, ...]:
        """Return the runs of these full ids in one search; missing ones are left out."""
        ...

    def runs_by_prefix(self, prefix: str, experiment_id: str | None, limit: int) -> tuple[RunRecord, ...]:
        """Return runs whose id begins with the prefix."""
        ...

    def search_runs(
        self, experiment_id: str, filter: str, order_by: Sequence[str], limit: int, token: str | None
    ) -> Page[RunRecord]:
        """Return a page of the experiment's runs."""
        ...

    def running(self, experiment_id: str, limit: int) -> tuple[RunningRun, ...]:
        """Return runs of the experiment that have not ended."""
        ...

    def end_run(self, run_id: str, status: RunStatus, time: int) -> None:
        """End a run."""
        ...

    def folders(self, experiment_id: str) -> tuple[RunFolder, ...]:
        """Return where the runs and the logged models of an experiment keep their files."""
        ...

    def datasets(self, run_id: str) -> tuple[DatasetRecord, ...]:
        """Return the datasets that a run has logged as inputs."""
        ...

    def metric_history(self, run_id: str, key: str, limit: int) -> tuple[MetricValue, ...]:
        """Return up to `limit` points of a metric in the order of their steps."""
        ...

    def list_artifacts(self, run: RunRecord, path: str | None = None) -> tuple[ArtifactRecord, ...]:
        """Return one level of the run's artifact tree."""
        ...

    def read_artifact(self, run: RunRecord, path: str, limit: int) -> bytes | None:
        """Return an artifact's bytes, None if there is none; more than `limit` bytes are refused."""
        ...


class RegistryStore(Protocol):
    """Logged models, registered models and their versions."""

    stages: bool
    """Whether the registry has stages beside aliases (Unity Catalog has none)."""

    def model_sources(self, run: RunRecord) -> tuple[ModelSource, ...]:
        """Return the models that the run has logged, the newest first."""
        ...

    def model_source(self, uri: str) -> tuple[ModelSource, str] | None:
        """Return the logged model of a `models:/m-…` or `runs:/…` URI, and the run that it came from."""
        ...

    def runs_with_models(self, experiment_id: str, limit: int) -> tuple[str, ...]:
        """Return ids of runs of the experiment that have logged a model, the newest first."""
        ...

    def log_pyfunc(self, run: RunRecord, model: PyfuncModel) -> ModelSource:
        """Log a pyfunc model that a module of ours loads from a data file."""
        ...

    def manifest(self, source: ModelSource) -> list[dict[str, object]]:
        """Return path, size and sha256 of each file of the model, sorted by path."""
        ...

    def get_model(self, name: str) -> ModelRecord | None:
        """Return the registered model; prompts are none."""
        ...

    def get_versions(self, name: str, version: int | None, limit: int, token: str | None) -> Page[VersionRecord]:
        """Return versions of a registered model, the newest first."""
        ...

    def find_version(self, name: str, source: ModelSource, run_id: str) -> VersionRecord | None:
        """Return the version that was made from this source."""
        ...

    def ensure_model(self, name: str) -> bool:
        """Make the registered model if there is none; tell whether this call made it."""
        ...

    def refuse_prompt(self, name: str) -> None:
        """Refuse a name that a prompt has.

        Raises:
            InvalidName: a prompt has it.
        """
        ...

    def highest_version(self, name: str) -> int:
        """Return the highest version number that a name ever had, 0 if none."""
        ...

    def create_sealed(self, draft: VersionDraft) -> VersionRecord:
        """Make a version whose source is the sealed copy; call it inside a governed unit."""
        ...

    def create_version(self, draft: VersionDraft) -> tuple[VersionRecord, bool]:
        """Return the version made from this source, and whether this call made it, where no unit joins us."""
        ...

    def fetch(self, source: ModelSource, folder: Path) -> Path:
        """Return a folder that holds the model's files: their own if they are local, else a copy in `folder`."""
        ...

    def model_names(self) -> list[str]:
        """Return the names of all registered models; prompts are none."""
        ...

    def set_live(self, name: str, stages: dict[int, Stage], aliases: dict[str, int | None]) -> None:
        """Put who is in Production, and these aliases, to what the record says."""
        ...

    def in_stage(self, name: str, stage: Stage) -> int | None:
        """Return the version that holds Staging or Production; there may be several in the others."""
        ...

    def move_stage(self, move: StageMove) -> StageMoved:
        """Move stage and alias together; the outgoing Production version is archived and aliased 'previous'."""
        ...


@dataclass(frozen=True, slots=True)
class SchemaRevision:
    """Which schema the database has, and which one this release of MLflow makes; None where a server decides."""

    current: str | None
    head: str | None
    tables: tuple[str, ...] = ()

    @property
    def upgrade_needed(self) -> bool:
        """Whether MLflow would refuse the database as it is."""
        return self.current != self.head


class Stores(Protocol):
    """The stores, opened."""

    def schema(self) -> SchemaRevision:
        """Return the schema of the tracking database."""
        ...

    @property
    def tracking(self) -> TrackingStore:
        """Experiments, runs and artifacts."""
        ...

    @property
    def registry(self) -> RegistryStore:
        """Logged and registered models."""
        ...

    @property
    def governance(self) -> "GovernanceStore":
        """Locks, seals, the stage record and the audit trail."""
        ...

    def call(self, use: "Callable[[Stores], T]") -> T:
        """Run the function on the stores; what goes wrong in them comes out as one of our errors."""
        ...
