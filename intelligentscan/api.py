"""The Python face for scripts and notebooks: the verbs, review, history, integrity and `use()`, on the same services.

Every function blocks until its answer is there and works from synchronous code, from a notebook's
running event loop and from several threads; the services run on one event loop in a thread of ours.
"""

import atexit
import functools
import operator
import os
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from intelligentscan.app import Services, build
from intelligentscan.domain.comparison import RunComparison
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.experiment import Experiment
from intelligentscan.domain.history import History
from intelligentscan.domain.integrity import IntegrityReport
from intelligentscan.domain.registry import PromotionDecision, RegisteredVersion
from intelligentscan.domain.review import ReviewRequest
from intelligentscan.domain.scan import ScanRun
from intelligentscan.settings import Settings, sqlite_uri
from intelligentscan.store_environment import exports
from intelligentscan.trusted_models import trust_known_types

T = TypeVar("T")
_DIGITS = re.compile(r"[0-9]{1,10}")
_starting = threading.Lock()
_stack = ExitStack()
_portal: BlockingPortal | None = None


def create_experiment(
    name: str,
    *,
    description: str | None = None,
    tags: Mapping[str, object] | None = None,
    product: str | None = None,
) -> Experiment:
    """Return the experiment of this name, making it if there is none; `str()` of it is its id.

    Raises:
        InvalidName: the name has invisible characters or is too long.
        ExperimentDeleted: a deleted experiment has this name.
    """
    return _run(
        lambda s: s.experiments.create(
            name, description=description, tags=dict(tags) if tags else None, product=product
        )
    )


def log_scan_run(
    experiment: str | Experiment,
    *,
    sarif_path: str | os.PathLike[str] | None = None,
    sarif: Mapping[str, Any] | None = None,
    findings: Sequence[Mapping[str, Any]] | None = None,
    repo_path: str | os.PathLike[str] | None = None,
    scanner: str | None = None,
    scanner_version: str | None = None,
    params: Mapping[str, object] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, object] | None = None,
    baseline: str | None = None,
    idempotency_key: str | None = None,
) -> ScanRun:
    """Log the result of any scanner as a run: a SARIF file, a SARIF dict, or a list of findings.

    Raises:
        SarifInvalid: the document is not SARIF 2.1.0.
        ExperimentNotFound: there is no such experiment.
    """
    return _run(
        lambda s: s.scans.log(
            str(experiment),
            sarif_path=os.fspath(sarif_path) if sarif_path is not None else None,
            sarif=dict(sarif) if sarif is not None else None,
            findings=[dict(f) for f in findings] if findings is not None else None,
            repo_path=os.fspath(repo_path) if repo_path is not None else None,
            scanner=scanner,
            scanner_version=scanner_version,
            params=dict(params) if params else None,
            metrics=dict(metrics) if metrics else None,
            tags=dict(tags) if tags else None,
            baseline=baseline,
            idempotency_key=idempotency_key,
        )
    )


def compare_runs(
    run_ids: Sequence[str] | None = None,
    *,
    experiment: str | Experiment | None = None,
    top_k: int | None = None,
    order_by: str | None = None,
    metrics: Sequence[str] | None = None,
    only_differences: bool = True,
    response_format: Literal["concise", "detailed"] = "detailed",
) -> RunComparison:
    """Compare 2 to 100 runs, or the first `top_k` of an experiment.

    Raises:
        RunNotFound: a run is not there.
    """
    return _run(
        lambda s: s.comparisons.compare(
            run_ids=list(run_ids) if run_ids is not None else None,
            experiment=str(experiment) if experiment is not None else None,
            top_k=top_k,
            order_by=order_by,
            metrics=metrics,
            only_differences=only_differences,
            response_format=response_format,
        )
    )


def register_model(
    run_id: str | None = None,
    model_name: str | None = None,
    *,
    name: str | None = None,
    model_uri: str | None = None,
    model_path: str | None = None,
    description: str | None = None,
    tags: Mapping[str, object] | None = None,
    product: str | None = None,
    use_case: str | None = None,
    abandon_running: bool = False,
    dry_run: bool = False,
) -> RegisteredVersion:
    """Register a run's logged model, or a scan's configuration, as the next version of a name.

    The version is sealed, and the run's experiment is locked for everybody; go on in `next_experiment`.

    Args:
        run_id: full id of the run.
        model_name: name of the registered model; `name` is the same.
        name: the same as `model_name`.
        model_uri: `models:/m-…` or `runs:/RUN/PATH`, instead of `run_id`.
        model_path: which of the run's models, by its name.
        description: text for the version.
        tags: tags for the version.
        product: AI product that it belongs to; the experiment's if None.
        use_case: what it is for, kept in the audit trail.
        abandon_running: end other runs of the experiment that nobody wrote to for 24 hours.
        dry_run: only say what would be registered.

    Raises:
        NoModel: the run has no model.
        RunNotFinished: the run is still running or failed.
        StillRunning: another run of the experiment has not ended.
    """
    chosen = _one("model_name", model_name, "name", name)
    return _run(
        lambda s: s.registry.register(
            chosen,
            run_id=run_id,
            model_uri=model_uri,
            model_path=model_path,
            description=description,
            tags=dict(tags) if tags else None,
            product=product,
            use_case=use_case,
            abandon_running=abandon_running,
            dry_run=dry_run,
        )
    )


def promote(
    name: str,
    version: int | str,
    to: str | None = None,
    *,
    stage: str | None = None,
    reason: str | None = None,
    dry_run: bool = False,
) -> PromotionDecision:
    """Move a version to Staging, Production or Archived; `stage` is the same as `to`.

    Raises:
        VersionNotFound: the model has no such version.
        InvalidArgument: no such stage, or no reason for Production.
        GatesFailed: a promotion check does not pass; `details["gates"]` names each.
        NotGoverned: plain MLflow registered the model.
    """
    target, number = _one("to", to, "stage", stage), _number(version)
    _text("reason", reason)
    return _run(lambda s: s.registry.promote(name, number, target, reason=reason, dry_run=dry_run))


def request_review(
    name: str, version: int | str, evidence: Mapping[str, str | Mapping[str, object]] | None = None
) -> ReviewRequest:
    """Ask the committee to review a sealed version; people decide at the command line.

    The same evidence again returns the same review.

    Args:
        name: the registered model.
        version: its version.
        evidence: text, or named values, by criterion: accuracy, safety, bias, risks, documentation.

    Raises:
        InvalidArgument: the evidence is not what it should be.
        NotGoverned: plain MLflow registered the model.
        Refused: the version is not sealed or was found changed, or a role is missing.
    """
    number = _number(version)
    return _run(lambda s: s.reviews.request(name, number, _plain(evidence)))


def get_history(
    name: str | None = None,
    version: int | str | None = None,
    *,
    at: str | date | None = None,
    actor: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> History:
    """Return who did what and why, the newest first, and what was live.

    Args:
        name: only this registered model.
        version: only this version of it.
        at: a day (its end) or a time, as text, `date` or `datetime`; UTC if it names no zone. Now if None.
        actor: only what this person did, or had done.
        limit: how many events, 1 to 100.
        cursor: `next_cursor` of the last answer.

    Raises:
        InvalidArgument: `at` is no time, or version came without name.
        InvalidCursor: the cursor belongs to another call.
    """
    number = _number(version) if version is not None else None
    moment = at.isoformat() if isinstance(at, date) else _text("at", at)
    _text("actor", actor), _text("cursor", cursor)
    return _run(lambda s: s.history.get(name=name, version=number, at=moment, actor=actor, limit=limit, cursor=cursor))


def verify_integrity(name: str | None = None, version: int | str | None = None) -> IntegrityReport:
    """Compare sealed versions, locked experiments, registry, guards and audit trail with what was recorded.

    Args:
        name: only this registered model; everything if None.
        version: only this version of it.

    Raises:
        ModelNotFound, VersionNotFound: there is no such thing.
        NotGoverned: plain MLflow registered the model.
    """
    number = _number(version) if version is not None else None
    return _run(lambda s: s.integrity.verify(name, number))


def use(store: str | os.PathLike[str] | None = None) -> str:
    """Point plain `mlflow` in this process at our store, and return its tracking URI.

    Plain `mlflow.sklearn.log_model(model, "model")` then takes scikit-learn's trees and XGBoost's models too: what
    MLflow asks to be trusted for them is in `trusted_models.TRUSTED_TYPES`, and each run's tag names what it needed.

    Args:
        store: a tracking URI, or the path of a SQLite file; the store of the settings if None.
    """
    given: dict[str, Any] = {}
    if store is not None:
        text = os.fspath(store)
        given["tracking_uri"] = text if "://" in text or text == "databricks" else sqlite_uri(Path(text).absolute())
    settings = Settings.load(**given)
    os.environ.update(exports(settings))
    _run(_opened)
    import mlflow

    mlflow.set_tracking_uri(settings.store_uri)
    mlflow.set_registry_uri(settings.registry_uri or settings.store_uri)
    trust_known_types()
    return settings.store_uri


async def _opened(services: Services) -> None:
    await services.store.read(lambda s: None)


def _number(version: int | str) -> int:
    """Return the number of a version; 2.9 is none, and neither is True."""
    if isinstance(version, str) and _DIGITS.fullmatch(version):
        return int(version)
    if not isinstance(version, bool | str):
        with suppress(TypeError):
            return operator.index(version)
    raise InvalidArgument("version is no whole number.", next="call again with version like 3 or '3'.")


def _plain(evidence: Any) -> Any:
    """Return evidence with every mapping in it as a dict; what is no mapping is left for the service to refuse."""
    if not isinstance(evidence, Mapping):
        return evidence
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in evidence.items()}


def _text(what: str, value: str | None) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(
            f"{what} is {type(value).__name__}, not text.", next=f"call again with {what} as text, or leave it out."
        )
    return value


def _one(first: str, a: str | None, second: str, b: str | None) -> str:
    if (a is None) == (b is None):
        raise InvalidArgument(f"Give either {first} or {second}.", next=f"call again with {first} set.")
    return str(_text(first, a) if a is not None else _text(second, b))


def _run(call: Callable[[Services], Awaitable[T]]) -> T:
    services = _services(Settings.load())

    async def job() -> T:
        return await call(services)

    return _event_loop().call(job)


@functools.lru_cache(maxsize=8)
def _services(settings: Settings) -> Services:
    return build(settings, anywhere=True)


def _event_loop() -> BlockingPortal:
    global _portal
    with _starting:
        if _portal is None:
            _portal = _stack.enter_context(start_blocking_portal())
            atexit.register(lambda: _stack.close())
    return _portal


def _start_anew() -> None:
    """Forget the parent's event loop, whose thread did not come along into this forked process."""
    global _portal, _stack, _starting
    _of_parent.append(_stack)  # if it went away, it would wait for that thread
    _portal, _stack, _starting = None, ExitStack(), threading.Lock()
    _services.cache_clear()


_of_parent: list[ExitStack] = []
os.register_at_fork(after_in_child=_start_anew)
