"""Registering models and moving their versions through the stages."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.errors import (
    InvalidArgument,
    NoModel,
    NotFound,
    RunNotFinished,
)
from intelligentscan.domain.plan import Consent
from intelligentscan.domain.registry import (
    ModelDetails,
    PromotionDecision,
    RegisteredVersion,
    VersionRow,
)
from intelligentscan.domain.review import ReviewStatus
from intelligentscan.domain.text import untrusted
from intelligentscan.services import cursor as cursors
from intelligentscan.services.denials import Denials
from intelligentscan.services.enforcement import claim
from intelligentscan.services.plan_record import plan_use, refuse_early
from intelligentscan.services.principal import person
from intelligentscan.services.promotion import PROMOTED, PromotionService, no_model
from intelligentscan.services.registration import Registrar
from intelligentscan.services.registration_record import Wanted
from intelligentscan.services.resolve import Resolver, full_run_id
from intelligentscan.services.review_facts import review_statuses
from intelligentscan.services.scan_configs import MODEL_NAME, ScanConfigs
from intelligentscan.services.trail import TrailService
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.governance.records import DEFAULT_WORKSPACE, SealRecord, Subject
from intelligentscan.stores.interface import ModelSource, RunRecord, Stores, VersionRecord

_MAX_SIBLINGS = 5


class RegistryService:
    """One use case per method."""

    def __init__(
        self,
        store: StoreAccess,
        resolver: Resolver,
        configs: ScanConfigs,
        registrar: Registrar,
        promotion: PromotionService,
        denials: Denials,
        trail: TrailService,
    ) -> None:
        self._trail = trail
        self._denials = denials
        self._store = store
        self._resolver = resolver
        self._configs = configs
        self._registrar = registrar
        self._promotion = promotion

    async def register(
        self,
        name: str,
        *,
        run_id: str | None = None,
        model_uri: str | None = None,
        model_path: str | None = None,
        description: str | None = None,
        tags: dict[str, object] | None = None,
        product: str | None = None,
        use_case: str | None = None,
        abandon_running: bool = False,
        dry_run: bool = False,
        confirm: str | Consent | None = None,
    ) -> RegisteredVersion:
        """Register a run's logged model, or a scan's configuration, as the next version of a name.

        The experiment of the run is locked for everybody, and the version is sealed. The same run and model
        under the same name give the same version again.

        Args:
            name: name of the registered model.
            run_id: full id of the run; its model is taken, of a scan its configuration.
            model_uri: `models:/m-…` or `runs:/RUN/PATH`, instead of a run.
            model_path: which of the run's models, by its name.
            description: text for the version.
            tags: tags for the version.
            product: the product that it belongs to; that of the experiment if None.
            use_case: what it is for, kept in the trail.
            abandon_running: end other runs of the experiment that nobody wrote to for a day.
            dry_run: only say what would be registered.
            confirm: id of a plan that a person approved, or a yes that came with the call.

        Raises:
            NoModel: the run has no model; nothing was created.
            RunNotFinished: the run is still running or failed.
            Refused: the state of the experiment or of the store forbids it; the subclass says why.
        """
        arguments: dict[str, object] = {
            "name": name, "run_id": run_id, "model_uri": model_uri, "model_path": model_path,
            "description": description, "tags": tags, "product": product, "use_case": use_case,
            "abandon_running": abandon_running,
        }  # fmt: skip
        plan = plan_use(confirm, "register_model", arguments)
        wanted = names.model_name(name)
        text, version_tags = names.description(description), names.tags(tags)
        purpose = names.description(use_case)
        owner = names.model_name(product) if product is not None else None
        if (run_id is None) == (model_uri is None):
            raise InvalidArgument(
                "Give either run_id or model_uri.", next="call register_model with the run_id of a finished run."
            )
        if plan is not None and not dry_run:
            subject = Subject(None, DEFAULT_WORKSPACE, wanted)
            await refuse_early(self._store, self._denials, plan, subject)
        await self._store.read(lambda s: s.registry.refuse_prompt(wanted))
        source, run = await self._source(run_id, model_uri, model_path, dry_run)
        if dry_run or source is None:
            return await self._would_register(wanted, source, run, owner, abandon_running)
        # Its bytes are ours, made from the YAML of a scan; whatever else is registered is examined like any model.
        own_config = source.name == MODEL_NAME and run.run_id != run_id
        request = Wanted(
            name=wanted,
            source=source,
            run=run,
            requester=person(),
            description=text,
            tags=version_tags,
            product=owner,
            use_case=purpose,
            tier="scan-config" if own_config else "standard",
            abandon_running=abandon_running,
            plan=plan,
        )
        subject = Subject(run.experiment_id, DEFAULT_WORKSPACE, wanted, run_id=run.run_id)
        async with self._denials.noting("register_model", subject):
            done = await self._registrar.register(request)
        notes = [] if done.verified else ["Its sealed copy differs from what was copied: it is in quarantine."]
        if own_config and done.lock is not None:
            kept = untrusted(done.lock.experiment_name, 80)
            notes.append(f"Locked is '{kept}', where configurations are kept; the experiment of the scan stays open.")
        if done.created and (missed := await self._trail.checkpoint_if_set()):
            notes.append(missed)
        if done.lock is None:
            notes.append("Its experiment was unlocked by an administrator since.")
        return RegisteredVersion(
            status="registered",
            name=wanted,
            version=done.seal.version,
            created=done.created,
            source_run_id=run.run_id,
            model=untrusted(source.name, 100),
            model_uri=source.uri,
            manifest_digest=done.seal.manifest_digest,
            experiment_locked=done.lock is not None,
            next_experiment=untrusted(done.lock.next_experiment, names.MAX_NAME) if done.lock else None,
            enforcement=await self._store.read(claim),
            product=owner,
            seal_event=done.seal.event,
            notes=notes,
        )

    async def _would_register(
        self, name: str, source: ModelSource | None, run: RunRecord, product: str | None, abandon: bool
    ) -> RegisteredVersion:
        manifest: Any = await self._store.read(lambda s: s.registry.manifest(source)) if source else []
        digest = sha256_hex(rfc8785.dumps(manifest)) if source else None
        notes: list[str] = []
        locked, following = False, None
        if source is not None:
            lock, following, product = await self._registrar.preview(name, run, product, abandon=abandon)
            locked = lock is not None
            if lock is None:
                notes = ["Registering locks the experiment of the run for everybody."]
        there, highest = await self._versions(name, run.run_id, digest)
        return RegisteredVersion(
            status="would_register",
            name=name,
            version=there.version if there else highest + 1,
            created=False,
            source_run_id=run.run_id,
            model=untrusted(source.name, 100) if source else MODEL_NAME,
            model_uri=source.uri if source else None,
            manifest_digest=digest,
            experiment_locked=locked,
            next_experiment=untrusted(following, names.MAX_NAME) if following else None,
            enforcement=await self._store.read(claim),
            product=product,
            seal_event=there.event if there else None,
            notes=notes,
        )

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
            raise no_model(wanted)
        page = await self._store.read(lambda s: s.registry.get_versions(wanted, version, limit, token))
        governed = await self._store.read(lambda s: _standing(s, wanted))
        return ModelDetails(
            name=wanted,
            description=untrusted(model.description, 1_000) if model.description else None,
            governed=governed.governed,
            versions=[_row(v, governed) for v in page.rows],
            next_cursor=cursors.encode(page.next_token, "versions", wanted),
            enforcement=await self._store.read(claim),
        )

    async def promote(
        self,
        name: str,
        version: int,
        to: str,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        confirm: str | Consent | None = None,
    ) -> PromotionDecision:
        """Move a version to Staging, Production or Archived, as `PromotionService.promote` says."""
        return await self._promotion.promote(name, version, to, reason=reason, dry_run=dry_run, confirm=confirm)

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

    async def _versions(self, name: str, run_id: str, digest: str | None) -> tuple[SealRecord | None, int]:
        """Return the version that these bytes of this run have already, and the highest of the name."""

        def look(stores: Stores) -> tuple[SealRecord | None, int]:
            seal = None
            if digest is not None and stores.governance.installed():
                with stores.governance.reading() as read:
                    seal = read.seal_of(DEFAULT_WORKSPACE, name, run_id, digest)
            return seal, stores.registry.highest_version(name)

        return await self._store.read(look)


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the record says about the versions of a model."""

    governed: bool = False
    sealed: frozenset[int] = frozenset()
    legacy: frozenset[int] = frozenset()
    quarantined: frozenset[int] = frozenset()
    reasons: dict[int, str] = field(default_factory=dict)
    reviews: dict[int, ReviewStatus] = field(default_factory=dict)


def _standing(stores: Stores, name: str) -> _Standing:
    if not stores.governance.installed():
        return _Standing()
    with stores.governance.reading() as read:
        if not read.is_governed(DEFAULT_WORKSPACE, name):
            return _Standing()
        return _Standing(
            governed=True,
            sealed=frozenset(read.seals(DEFAULT_WORKSPACE, name)),
            legacy=frozenset(read.legacy(DEFAULT_WORKSPACE, name)),
            quarantined=frozenset(read.quarantined(DEFAULT_WORKSPACE, name)),
            reasons=read.reasons(DEFAULT_WORKSPACE, name, PROMOTED),
            reviews=review_statuses(read, DEFAULT_WORKSPACE, name, int(time.time() * 1000)),
        )


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


def _row(version: VersionRecord, standing: _Standing) -> VersionRow:
    reason = standing.reasons.get(version.version)
    state: Literal["sealed", "legacy", "quarantined", "unsealed"] = "unsealed"
    if version.version in standing.quarantined:
        state = "quarantined"
    elif version.version in standing.sealed:
        state = "sealed"
    elif version.version in standing.legacy:
        state = "legacy"
    return VersionRow(
        version=version.version,
        stage=version.stage,
        aliases=list(version.aliases),
        sealed=version.version in standing.sealed,
        state=state,
        review="legacy, unreviewed" if state == "legacy" else standing.reviews.get(version.version),
        run_id=version.run_id,
        created=rfc3339(version.created),
        description=untrusted(version.description, 300) if version.description else None,
        reason=untrusted(reason, 300) if reason else None,
    )
