"""Registering models and moving their versions through the stages."""

import json
from typing import Any

import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import (
    InvalidArgument,
    ModelNotFound,
    NoModel,
    NotFound,
    RunNotFinished,
)
from intelligentscan.domain.registry import (
    ALIAS_OF_STAGE,
    ModelDetails,
    PromotionDecision,
    RegisteredVersion,
    Stage,
    VersionRow,
    stage_from,
)
from intelligentscan.domain.text import untrusted
from intelligentscan.services import cursor as cursors
from intelligentscan.services.principal import real_user
from intelligentscan.services.resolve import Resolver, full_run_id
from intelligentscan.services.scan_configs import MODEL_NAME, ScanConfigs
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import ModelSource, RunRecord, StageMove, Stores, VersionRecord

MAX_REASON = 1_000
PROMOTION_TAG = "intelligentscan.promotion"
_MAX_SIBLINGS = 5


class RegistryService:
    """One use case per method."""

    def __init__(self, store: StoreAccess, resolver: Resolver, configs: ScanConfigs) -> None:
        self._store = store
        self._resolver = resolver
        self._configs = configs

    async def register(
        self,
        name: str,
        *,
        run_id: str | None = None,
        model_uri: str | None = None,
        model_path: str | None = None,
        description: str | None = None,
        tags: dict[str, object] | None = None,
        dry_run: bool = False,
        confirm: str | None = None,
    ) -> RegisteredVersion:
        """Register a run's logged model, or a scan's configuration, as the next version of a name.

        The same run and model under the same name give the same version again.

        Args:
            name: name of the registered model.
            run_id: full id of the run; its model is taken, of a scan its configuration.
            model_uri: `models:/m-…` or `runs:/RUN/PATH`, instead of a run.
            model_path: which of the run's models, by its name.
            description: text for the version.
            tags: tags for the version.
            dry_run: only say what would be registered.
            confirm: id of an approved plan.

        Raises:
            NoModel: the run has no model; nothing was created.
            RunNotFinished: the run is still running or failed.
        """
        _no_plan(confirm)
        wanted = names.model_name(name)
        text, version_tags = names.description(description), names.tags(tags)
        if (run_id is None) == (model_uri is None):
            raise InvalidArgument(
                "Give either run_id or model_uri.", next="call register_model with the run_id of a finished run."
            )
        source, run = await self._source(run_id, model_uri, model_path, dry_run)
        manifest: Any = await self._store.read(lambda s: s.registry.manifest(source)) if source else []
        answer = RegisteredVersion(
            status="would_register",
            name=wanted,
            version=await self._next_version(wanted, source, run.run_id),
            created=False,
            source_run_id=run.run_id,
            model=untrusted(source.name, 100) if source else MODEL_NAME,
            model_uri=source.uri if source else None,
            manifest_digest=sha256_hex(rfc8785.dumps(manifest)) if source else None,
            experiment_locked=False,
            next_experiment=None,
            enforcement="advisory",
        )
        if dry_run or source is None:
            return answer
        record, created = await self._store.write(
            lambda s: s.registry.create_version(wanted, source, run.run_id, text, version_tags)
        )
        return answer.model_copy(update={"status": "registered", "version": record.version, "created": created})

    async def get(
        self, name: str, *, version: int | None = None, limit: int = 20, cursor: str | None = None
    ) -> ModelDetails:
        """Return a registered model and its versions, the newest first.

        Raises:
            ModelNotFound: no model has this name.
            VersionNotFound: the model has no such version.
        """
        cursors.checked_limit(limit)
        wanted = names.model_name(name)
        token = cursors.decode(cursor, "versions", wanted)
        model = await self._store.read(lambda s: s.registry.get_model(wanted))
        if model is None:
            raise _no_model(wanted)
        page = await self._store.read(lambda s: s.registry.get_versions(wanted, version, limit, token))
        return ModelDetails(
            name=wanted,
            description=untrusted(model.description, 1_000) if model.description else None,
            versions=[_row(v) for v in page.rows],
            next_cursor=cursors.encode(page.next_token, "versions", wanted),
            enforcement="advisory",
        )

    async def promote(
        self,
        name: str,
        version: int,
        to: str,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        confirm: str | None = None,
    ) -> PromotionDecision:
        """Move a version to Staging, Production or Archived; stage and alias move together.

        The version that leaves Production is archived and gets the alias 'previous'. A version that is there
        already stays, and nothing is changed.

        Raises:
            InvalidArgument: no such stage, or no reason for Production.
            ModelNotFound: no model has this name.
            VersionNotFound: the model has no such version.
        """
        _no_plan(confirm)
        wanted, stage = names.model_name(name), stage_from(to)
        because = _reason(reason, stage)
        model = await self._store.read(lambda s: s.registry.get_model(wanted))
        if model is None:
            raise _no_model(wanted)
        before = (await self._store.read(lambda s: s.registry.get_versions(wanted, version, 1, None))).rows[0]
        alias = ALIAS_OF_STAGE.get(stage)
        holder = await self._store.read(lambda s: s.registry.in_stage(wanted, stage))
        there = before.stage == stage and (alias is None or model.aliases.get(alias) == version)
        previous = holder if holder != version else None
        if dry_run or there:
            return _decision(before, stage, previous, "would_promote" if dry_run else "promoted", changed=not there)
        note = json.dumps({"to": stage, "reason": because, "by": real_user()}, ensure_ascii=False)
        moved = await self._store.write(
            lambda s: s.registry.move_stage(StageMove(wanted, version, stage, {PROMOTION_TAG: note}))
        )
        return _decision(moved.version, stage, moved.replaced, "promoted", changed=True)

    async def _source(
        self, run_id: str | None, model_uri: str | None, model_path: str | None, dry_run: bool
    ) -> tuple[ModelSource | None, RunRecord]:
        """Return the model to register and its run; no model for the dry run of an unlogged configuration."""
        if model_uri is not None:
            uri = _model_uri(model_uri)
            found = await self._store.read(lambda s: s.registry.model_source(uri))
            if found is None:
                raise NotFound(
                    f"There is no logged model at '{untrusted(uri, 120)}'.",
                    next="give models:/m-… or runs:/RUN_ID/NAME; get_run lists the models of a run.",
                )
            source, owner = found
            if not owner:
                raise NoModel(
                    "The model was logged outside any run, so nothing says how it was made.",
                    next="log it within a run, mlflow.sklearn.log_model(model, name='model'), then register that run.",
                )
            return source, _finished(await self._resolver.run(owner))
        run = _finished(await self._resolver.run(full_run_id(run_id or "")))
        sources = await self._store.read(lambda s: s.registry.model_sources(run))
        logged = sorted({m.name for m in sources})
        if model_path is not None:
            sources = tuple(m for m in sources if m.name == model_path)
        if not sources and model_path in (None, MODEL_NAME) and self._configs.is_own_scan(run):
            return await self._configs.logged(run, dry_run)
        if not sources:
            raise await self._without_model(run, model_path, logged)
        if len({m.name for m in sources}) > 1:
            listed = ", ".join(untrusted(m.name, 60) for m in sources[:10])
            raise InvalidArgument(
                f"The run has several models: {listed}.", next="call register_model again with model_path set to one."
            )
        return sources[0], run

    async def _without_model(self, run: RunRecord, model_path: str | None, logged: list[str]) -> NoModel:
        if logged:
            named = ", ".join(untrusted(name, 60) for name in logged[:10])
            return NoModel(
                f"The run {run.run_id} has no model named '{untrusted(model_path or '', 60)}'; it has: {named}.",
                next="call register_model again with model_path set to one of these.",
            )
        siblings = await self._store.read(lambda s: s.registry.runs_with_models(run.experiment_id, _MAX_SIBLINGS))
        what = f"no model named '{untrusted(model_path, 60)}'" if model_path else "no model"
        also = f"; these runs of the experiment have one: {', '.join(siblings)}" if siblings else ""
        return NoModel(
            f"The run {run.run_id} has {what}.",
            next="log one in the training script, mlflow.sklearn.log_model(model, name='model'), then call "
            f"register_model with that run{also}.",
            details={"runs_with_models": list(siblings)},
        )

    async def _next_version(self, name: str, source: ModelSource | None, run_id: str) -> int:
        """Return the version that this source has already, or the number of the next one."""

        def number(stores: Stores) -> int:
            there = stores.registry.find_version(name, source, run_id) if source else None
            newest = stores.registry.get_versions(name, None, 1, None).rows
            return there.version if there else newest[0].version + 1 if newest else 1

        return await self._store.read(number)


def _model_uri(text: str) -> str:
    if text.startswith(("models:/m-", "runs:/")) and len(text) <= 500 and text == untrusted(text, 500):
        return text
    raise InvalidArgument(
        f"'{untrusted(text, 80)}' is no URI of a logged model.",
        next="give models:/m-… or runs:/RUN_ID/NAME, or call register_model with run_id.",
    )


def _finished(run: RunRecord) -> RunRecord:
    if run.status == "FINISHED":
        return run
    raise RunNotFinished(
        f"The run {run.run_id} is {run.status}; only a FINISHED run can be registered.",
        next=f"end it with log_run run_id='{run.run_id}' status='FINISHED', or register another run."
        if run.status == "RUNNING"
        else "register a finished run; search_runs with filter \"attributes.status = 'FINISHED'\" lists them.",
    )


def _reason(reason: str | None, stage: Stage) -> str | None:
    if stage == "Production" and not (reason and reason.strip()):
        raise InvalidArgument(
            "A promotion to Production needs a reason.", next="call promote again with reason: why this version, now."
        )
    if reason is not None and len(reason) > MAX_REASON:
        raise InvalidArgument(
            f"The reason has {len(reason):,} characters; the most is {MAX_REASON:,}.", next="give a shorter reason."
        )
    return reason


def _no_plan(confirm: str | None) -> None:
    if confirm is not None:
        raise InvalidArgument("There is no plan with this id to confirm.", next="call again without confirm.")


def _no_model(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"There is no registered model '{untrusted(name, 80)}'.",
        next="register one with register_model, or check the name in MLflow's UI.",
    )


def _decision(
    version: VersionRecord, stage: Stage, previous: int | None, status: str, *, changed: bool
) -> PromotionDecision:
    return PromotionDecision(
        status="would_promote" if status == "would_promote" else "promoted",
        name=version.name,
        version=version.version,
        stage=stage,
        aliases=list(version.aliases),
        previous_version=previous,
        gates=[],
        changed=changed,
        four_eyes=False,
        enforcement="advisory",
    )


def _row(version: VersionRecord) -> VersionRow:
    note = version.tags.get(PROMOTION_TAG)
    return VersionRow(
        version=version.version,
        stage=version.stage,
        aliases=list(version.aliases),
        sealed=False,
        review=None,
        run_id=version.run_id,
        created=rfc3339(version.created),
        description=untrusted(version.description, 300) if version.description else None,
        reason=_noted_reason(note) if note else None,
    )


def _noted_reason(note: str) -> str | None:
    try:
        reason = json.loads(note).get("reason")
    except (ValueError, AttributeError):
        return None
    return untrusted(str(reason), 300) if reason else None
