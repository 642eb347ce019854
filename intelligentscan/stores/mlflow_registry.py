"""Registered models and their versions through MLflow's registry store, whatever its backend."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelAlias
from mlflow.exceptions import MlflowException
from mlflow.prompt.registry_utils import has_prompt_tag
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModel
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from sqlalchemy import func
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from intelligentscan.domain.errors import InvalidName, ModelNotFound, VersionNotFound
from intelligentscan.domain.registry import ALIAS_OF_STAGE, PREVIOUS, Stage
from intelligentscan.domain.text import untrusted
from intelligentscan.stores.interface import (
    ModelRecord,
    ModelSource,
    Page,
    PyfuncModel,
    RunRecord,
    StageMove,
    StageMoved,
    VersionDraft,
    VersionRecord,
)
from intelligentscan.stores.mlflow_errors import none_if_missing
from intelligentscan.stores.mlflow_models import LoggedModels
from intelligentscan.stores.mlflow_records import page_token
from intelligentscan.stores.mlflow_tracking import quoted
from intelligentscan.stores.mlflow_unit import UnitBroken, Units


class MlflowRegistry:
    """One registry store.

    Args:
        store: MLflow's own registry store object.
        models: the logged models of the tracking store.
        units: transactions on the registry's database, None if it is behind a server.
        stages: whether the registry has stages beside aliases.
    """

    def __init__(self, store: Any, models: LoggedModels, units: Units | None, stages: bool) -> None:
        self.stages = stages
        self._store = store
        self._models = models
        self._units = units

    def model_sources(self, run: RunRecord) -> tuple[ModelSource, ...]:
        """Return the models that the run has logged, the newest first."""
        return self._models.of_run(run)

    def model_source(self, uri: str) -> tuple[ModelSource, str] | None:
        """Return the logged model of a `models:/m-…` or `runs:/…` URI, and the run that it came from."""
        return self._models.at(uri)

    def runs_with_models(self, experiment_id: str, limit: int) -> tuple[str, ...]:
        """Return ids of runs of the experiment that have logged a model, the newest first."""
        return self._models.runs_with_models(experiment_id, limit)

    def log_pyfunc(self, run: RunRecord, model: PyfuncModel) -> ModelSource:
        """Log a pyfunc model that a module of ours loads from a data file."""
        return self._models.log(run, model)

    def manifest(self, source: ModelSource) -> list[dict[str, object]]:
        """Return path, size and sha256 of each file of the model, sorted by path."""
        return self._models.manifest(source)

    def get_model(self, name: str) -> ModelRecord | None:
        """Return the registered model; prompts, which share MLflow's tables, are none."""
        model = none_if_missing(lambda: self._store.get_registered_model(name))
        if model is None or _is_prompt(model):
            return None
        return ModelRecord(model.name, model.description or None, _aliases(model.aliases), dict(model.tags))

    def get_versions(self, name: str, version: int | None, limit: int, token: str | None) -> Page[VersionRecord]:
        """Return versions of a registered model, the newest first."""
        if version is not None:
            return Page((self._version(name, version),))
        model = self.get_model(name)
        aliases = model.aliases if model else {}
        found = self._store.search_model_versions(f"name = {quoted(name)}", limit, ["version_number DESC"], token)
        return Page(tuple(_record(v, aliases) for v in found), page_token(found.token))

    def find_version(self, name: str, source: ModelSource, run_id: str) -> VersionRecord | None:
        """Return the first version that was made from this source, by us or by plain MLflow."""
        there = [
            v
            for v in self.get_versions(name, None, 1000, None).rows
            if v.source in (source.uri, source.location) and v.run_id == run_id
        ]
        return min(there, key=lambda v: v.version, default=None)

    def ensure_model(self, name: str) -> bool:
        """Make the registered model if there is none; tell whether this call made it.

        Raises:
            InvalidName: a prompt has the name.
        """
        if self.get_model(name) is not None:
            return False
        self.refuse_prompt(name)
        self._store.create_registered_model(name)
        return True

    def refuse_prompt(self, name: str) -> None:
        """Refuse a name that a prompt has; models and prompts share MLflow's tables.

        Raises:
            InvalidName: a prompt has it.
        """
        taken = none_if_missing(lambda: self._store.get_registered_model(name))
        if taken is not None and _is_prompt(taken):
            raise InvalidName(
                f"The name '{untrusted(name, 80)}' is taken by a prompt of MLflow's prompt registry.",
                next="call register_model with another name.",
            )

    def highest_version(self, name: str) -> int:
        """Return the highest version number that a name ever had, 0 if none; a deleted one is not given again."""
        if self._units is not None:
            with self._store.ManagedSessionMaker() as session:
                numbers = session.query(func.max(SqlModelVersion.version))
                highest: int | None = numbers.filter_by(name=name, workspace=DEFAULT_WORKSPACE_NAME).scalar()
                return highest or 0
        newest = self.get_versions(name, None, 1, None).rows
        return newest[0].version if newest else 0

    def create_sealed(self, draft: VersionDraft) -> VersionRecord:
        """Make a version whose source is the sealed copy; call it inside a governed unit."""
        tags = [ModelVersionTag(k, v) for k, v in draft.tags.items()]
        made = self._store.create_model_version(
            draft.name, draft.location, draft.run_id, tags, None, draft.description, model_id=draft.source.model_id
        )
        self._models.note_version(draft.source, draft.name, int(made.version))
        return self._version(draft.name, int(made.version))

    def create_version(self, draft: VersionDraft) -> tuple[VersionRecord, bool]:
        """Return the version made from this source, and whether this call made it, where no unit joins us."""
        name = draft.name
        try:
            return self._create_version(draft)
        except (MlflowException, UnitBroken, SQLAlchemyError):
            if self.get_model(name) is None:
                raise
            # Another process made the first version of this name at the same moment, which undid ours.
            return self._create_version(draft)

    def _create_version(self, draft: VersionDraft) -> tuple[VersionRecord, bool]:
        name, source, run_id = draft.name, draft.source, draft.run_id
        with self._atomic() as session:
            self.ensure_model(name)
            self._hold(session, name)
            if (there := self.find_version(name, source, run_id)) is not None:
                return there, False
            wanted = [ModelVersionTag(k, v) for k, v in draft.tags.items()]
            # MLflow resolves `models:/m-…` through the process-wide tracking URI, which is not ours to set.
            origin = source.location if session is not None else source.uri
            made = self._store.create_model_version(
                name, origin, run_id, wanted, None, draft.description, model_id=source.model_id
            )
            if session is not None and origin != source.uri:
                row = session.query(SqlModelVersion).filter_by(name=name, version=made.version)
                row.update({"source": source.uri})
            if session is None:  # another process, or a request that was sent twice, may have made a twin
                first = self.find_version(name, source, run_id)
                if first is not None and first.version < int(made.version):
                    self._store.delete_model_version(name, int(made.version))
                    return first, False
            self._models.note_version(source, name, int(made.version))
            return self._version(name, int(made.version)), True

    def fetch(self, source: ModelSource, folder: Path) -> Path:
        """Return a folder that holds the model's files: their own if they are local, else a copy in `folder`."""
        return self._models.fetch(source, folder)

    def model_names(self) -> list[str]:
        """Return the names of all registered models; prompts are none."""
        found: list[str] = []
        token: str | None = None
        while True:
            page = self._store.search_registered_models(max_results=1000, page_token=token)
            found += [m.name for m in page if not _is_prompt(m)]
            token = page.token
            if not token:
                return found

    def set_live(self, name: str, stages: dict[int, Stage], aliases: dict[str, int | None]) -> None:
        """Put who is in Production, and these aliases, to what the record says; what leaves it is archived."""
        model = self.get_model(name)
        actual = model.aliases if model else {}
        with self._atomic():
            for each in self._all_versions(name) if self.stages else ():
                wanted = stages.get(each.version) == "Production"
                if wanted != (each.stage == "Production"):
                    stage = "Production" if wanted else "Archived"
                    self._store.transition_model_version_stage(name, each.version, stage, False)
            for alias, version in aliases.items():
                if version is None and alias in actual:
                    self._store.delete_registered_model_alias(name, alias)
                elif version is not None and actual.get(alias) != version:
                    self._store.set_registered_model_alias(name, alias, version)

    def _all_versions(self, name: str) -> list[VersionRecord]:
        found: list[VersionRecord] = []
        token: str | None = None
        while True:
            page = self.get_versions(name, None, 1000, token)
            found += page.rows
            token = page.next_token
            if token is None:
                return found

    def in_stage(self, name: str, stage: Stage) -> int | None:
        """Return the version that holds the stage's alias or, without one, the stage itself."""
        alias, model = ALIAS_OF_STAGE.get(stage), self.get_model(name)
        if alias is None or model is None:
            return None
        if (holder := model.aliases.get(alias)) is not None or not self.stages:
            return holder
        latest = self._store.get_latest_versions(name, [stage])
        return int(latest[0].version) if latest else None

    def move_stage(self, move: StageMove) -> StageMoved:
        """Move stage and alias together; the outgoing Production version is archived and aliased 'previous'."""
        name, version, stage = move.name, move.version, move.stage
        with self._atomic() as session:
            self._hold(session, name)
            before = self._version(name, version)
            model = self.get_model(name)
            aliases = model.aliases if model else {}
            own = ALIAS_OF_STAGE.get(stage)
            holder = self.in_stage(name, stage)
            replaced = holder if holder != version else None
            if self.stages and before.stage != stage:
                self._store.transition_model_version_stage(name, version, stage, own is not None)
            elif self.stages and replaced is not None:
                self._store.transition_model_version_stage(name, version, stage, True)
            if own and aliases.get(own) != version:
                self._store.set_registered_model_alias(name, own, version)
            for other in (*ALIAS_OF_STAGE.values(), PREVIOUS):
                if other != own and aliases.get(other) == version:
                    self._store.delete_registered_model_alias(name, other)
            if stage == "Production" and replaced is not None:
                self._store.set_registered_model_alias(name, PREVIOUS, replaced)
            return StageMoved(self._version(name, version), replaced)

    def _atomic(self) -> AbstractContextManager[Session | None]:
        return self._units.unit() if self._units is not None else nullcontext()

    def _hold(self, session: Session | None, name: str) -> None:
        """Let one act at a time change this model, where the database can."""
        if session is not None:
            session.query(SqlRegisteredModel).filter_by(name=name).with_for_update().first()

    def _version(self, name: str, version: int) -> VersionRecord:
        found = none_if_missing(lambda: self._store.get_model_version(name, version))
        model = self.get_model(name)
        if found is None and model is None:
            raise ModelNotFound(
                f"There is no registered model '{name}'.",
                next="register one with register_model, or check the name with get_model.",
            )
        if found is None:
            raise VersionNotFound(
                f"The model '{name}' has no version {version}.", next=f"list its versions with get_model name='{name}'."
            )
        return _record(found, model.aliases if model else {})


def _is_prompt(model: Any) -> bool:
    return has_prompt_tag(model._tags)  # its public tags hide what it is


def _aliases(found: object) -> dict[str, int]:
    """Return aliases as name to version; MLflow gives a dict or a list, depending on the backend."""
    if isinstance(found, dict):
        return {alias: int(version) for alias, version in found.items()}
    listed = cast("list[RegisteredModelAlias]", found or [])
    return {a.alias: int(a.version) for a in listed}


def _record(found: Any, aliases: dict[str, int]) -> VersionRecord:
    version = int(found.version)
    return VersionRecord(
        name=found.name,
        version=version,
        stage=cast("Stage", found.current_stage or "None"),
        aliases=tuple(sorted(alias for alias, at in aliases.items() if at == version)),
        source=found.source,
        run_id=found.run_id or None,
        created=found.creation_timestamp,
        description=found.description or None,
        tags=dict(found.tags),
    )
