"""What plain MLflow clients do to a guarded store: acts that are refused, and acts that stay free."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    AssessmentSource,
    Dataset,
    DatasetInput,
    Feedback,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    TraceInfo,
    TraceLocation,
    TraceState,
)
from mlflow.tracing.constant import TraceMetadataKey


@dataclass(frozen=True)
class Side:
    """One experiment with what was made in it."""

    experiment: str
    run: str
    model: str
    trace: str


@dataclass(frozen=True)
class World:
    """A store as plain clients made it: one experiment to be locked, one that stays open, models, a prompt."""

    client: MlflowClient
    locked: Side
    open: Side


def dataset(name: str = "d") -> DatasetInput:
    return DatasetInput(Dataset(name, "digest", "local", json.dumps({"uri": "x"})), [InputTag("context", "train")])


def trace_info(trace_id: str, experiment_id: str) -> TraceInfo:
    return TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=int(time.time() * 1000),
        state=TraceState.OK,
        tags={"a": "b"},
        trace_metadata={TraceMetadataKey.INPUTS: "x"},
    )


def feedback(trace_id: str, name: str = "good") -> Feedback:
    return Feedback(name=name, value=True, source=AssessmentSource("HUMAN", "somebody"), trace_id=trace_id)


def build_side(client: MlflowClient, name: str) -> Side:
    store = client._tracking_client.store
    experiment = client.create_experiment(name, artifact_location=f"file:///nowhere/{name}")
    run = client.create_run(experiment, tags={"t": "v"}).info.run_id
    client.log_batch(run, [Metric("m", 1.0, 1, 0)], [Param("p", "v")], [RunTag("t2", "v")])
    client.log_inputs(run, [dataset()])
    model = client.create_logged_model(experiment, name="net", source_run_id=run, params={"a": "b"}, tags={"c": "d"})
    client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
    client.log_metric(run, "acc", 0.5, model_id=model.model_id)
    client.finalize_logged_model(model.model_id, "READY")
    store.start_trace(trace_info(f"tr-{name}", experiment))
    store.create_assessment(feedback(f"tr-{name}"))
    store.link_traces_to_run([f"tr-{name}"], run)
    client.set_terminated(run)
    return Side(experiment, run, model.model_id, f"tr-{name}")


def build_world(client: MlflowClient) -> World:
    """Make everything by a plain client; nothing is governed yet."""
    world = World(client, build_side(client, "locked"), build_side(client, "open"))
    for name in ("governed", "plain"):
        client.create_registered_model(name)
        for _ in range(3):
            client.create_model_version(name, f"runs:/{world.locked.run}/net", world.locked.run, tags={"k": "v"})
    client.register_prompt("a-prompt", "hello {{name}}")
    return world


Act = Callable[[World], object]

ON_LOCKED: dict[str, Act] = {
    "start a run": lambda w: w.client.create_run(w.locked.experiment),
    "log a new metric": lambda w: w.client.log_metric(w.locked.run, "new", 1.0),
    "log another step": lambda w: w.client.log_metric(w.locked.run, "m", 1.0, step=7),
    "log a param": lambda w: w.client.log_param(w.locked.run, "new", "v"),
    "log a batch": lambda w: w.client.log_batch(w.locked.run, [Metric("x", 1, 1, 1)], [Param("x", "1")]),
    "set a tag": lambda w: w.client.set_tag(w.locked.run, "x", "1"),
    "change a tag": lambda w: w.client.set_tag(w.locked.run, "t", "other"),
    "log tags only": lambda w: w.client.log_batch(w.locked.run, tags=[RunTag("x", "1")]),
    "delete a tag": lambda w: w.client.delete_tag(w.locked.run, "t"),
    "rename a run": lambda w: w.client.update_run(w.locked.run, name="other"),
    "resume a run": lambda w: w.client.update_run(w.locked.run, status="RUNNING"),
    "end a run": lambda w: w.client.set_terminated(w.locked.run, "FAILED"),
    "delete a run": lambda w: w.client.delete_run(w.locked.run),
    "delete the experiment": lambda w: w.client.delete_experiment(w.locked.experiment),
    "rename the experiment": lambda w: w.client.rename_experiment(w.locked.experiment, "other"),
    "tag the experiment": lambda w: w.client.set_experiment_tag(w.locked.experiment, "k", "v"),
    "log a data set": lambda w: w.client.log_inputs(w.locked.run, [dataset("new")]),
    "log a model as input of a locked run": lambda w: w.client.log_inputs(
        w.locked.run, models=[LoggedModelInput(w.open.model)]
    ),
    "log an output": lambda w: w.client.log_outputs(w.locked.run, [LoggedModelOutput(w.open.model, 1)]),
    "claim the model as another run's output": lambda w: w.client.log_outputs(
        running(w), [LoggedModelOutput(w.locked.model, 1)]
    ),
    "make a logged model": lambda w: w.client.create_logged_model(w.locked.experiment, name="n"),
    "make a logged model of the run elsewhere": lambda w: w.client.create_logged_model(
        w.open.experiment, name="n", source_run_id=w.locked.run
    ),
    "finalize the model": lambda w: w.client.finalize_logged_model(w.locked.model, "FAILED"),
    "tag the model": lambda w: w.client.set_logged_model_tags(w.locked.model, {"x": "y"}),
    "untag the model": lambda w: w.client.delete_logged_model_tag(w.locked.model, "c"),
    "delete the model": lambda w: w.client.delete_logged_model(w.locked.model),
    "log a metric for the model from another experiment": lambda w: w.client.log_metric(
        running(w), "acc", 0.99, model_id=w.locked.model
    ),
    "start a trace": lambda w: w.client._tracking_client.store.start_trace(trace_info("tr-new", w.locked.experiment)),
    "tag a trace": lambda w: w.client.set_trace_tag(w.locked.trace, "x", "y"),
    "untag a trace": lambda w: w.client.delete_trace_tag(w.locked.trace, "a"),
    "delete traces": lambda w: w.client.delete_traces(w.locked.experiment, trace_ids=[w.locked.trace]),
    "assess a trace": lambda w: w.client._tracking_client.store.create_assessment(feedback(w.locked.trace, "more")),
    "link a trace to the run": lambda w: w.client._tracking_client.store.link_traces_to_run(
        [w.open.trace], w.locked.run
    ),
    "add an evaluation data set": lambda w: w.client._tracking_client.store.create_dataset(
        "examples", experiment_ids=[w.locked.experiment]
    ),
    "register a scorer": lambda w: w.client._tracking_client.store.register_scorer(w.locked.experiment, "judge", "{}"),
}


def running(world: World) -> str:
    """Return a running run of the open experiment."""
    return str(world.client.create_run(world.open.experiment).info.run_id)


def use_as_input(world: World) -> None:
    """Evaluate a locked model in a run of the open experiment."""
    run = running(world)
    world.client.log_inputs(run, [dataset()], [LoggedModelInput(world.locked.model)])
    world.client.log_inputs(run, models=[LoggedModelInput(world.locked.model)])
    world.client.log_metric(run, "acc", 0.7)
    inputs = world.client.get_run(run).inputs
    assert inputs is not None
    assert [i.model_id for i in inputs.model_inputs] == [world.locked.model]


def work_in_open(world: World) -> None:
    """Do in the open experiment what is refused in the locked one."""
    mirrored = World(world.client, world.open, world.open)
    one_after_another = [
        name
        for name in ON_LOCKED
        if not name.startswith(("delete the", "delete a run", "delete traces", "rename the", "claim", "log an output"))
    ]
    for name in one_after_another:
        ON_LOCKED[name](mirrored)
    world.client.delete_run(world.open.run)
    world.client.restore_run(world.open.run)


def register_elsewhere(world: World) -> None:
    """Register a model of the locked experiment under a name that is not governed."""
    client = world.client
    client.create_model_version("plain", f"runs:/{world.locked.run}/net", world.locked.run)
    client.set_logged_model_tags(world.locked.model, {"mlflow.modelVersions": '[{"name": "plain", "version": 4}]'})


def use_prompts(world: World) -> None:
    """Use the prompt registry, which shares its tables with models."""
    client = world.client
    for template in ("hi", "hi again"):
        client.register_prompt("new-prompt", template)
        client.register_prompt("a-prompt", template)
    client.set_prompt_alias("a-prompt", "production", 2)
    client.set_prompt_version_tag("a-prompt", 2, "reviewed", "yes")
    client.delete_prompt_version("a-prompt", "1")
    for version in ("1", "2"):
        client.delete_prompt_version("new-prompt", version)
    client.delete_prompt("new-prompt")


def use_plain_model(world: World) -> None:
    """Use a model whose name is not governed."""
    client: Any = world.client
    client.transition_model_version_stage("plain", 1, "Production", archive_existing_versions=True)
    client.set_registered_model_alias("plain", "champion", "2")
    client.delete_registered_model_alias("plain", "champion")
    client.set_model_version_tag("plain", "1", "a", "b")
    client.update_model_version("plain", "1", "text")
    client.delete_model_version("plain", "2")
    client.rename_registered_model("plain", "plainer")
    client.delete_registered_model("plainer")


def use_free_parts(world: World) -> None:
    """Use what stays free on a governed model."""
    client = world.client
    client.set_registered_model_tag("governed", "team", "a")
    client.delete_registered_model_tag("governed", "team")
    client.transition_model_version_stage("governed", "1", "Staging")
    client.set_registered_model_alias("governed", "challenger", "1")
    client.delete_registered_model_alias("governed", "challenger")
    client.transition_model_version_stage("governed", "1", "Archived")
    client.transition_model_version_stage("governed", "1", "None")
    client.set_registered_model_alias("governed", "nightly", "2")
    client.set_registered_model_alias("governed", "nightly", "3")
    client.delete_registered_model_alias("governed", "nightly")


def read_everything(world: World) -> None:
    """Read what is locked."""
    client, locked = world.client, world.locked
    assert client.get_experiment_by_name("locked") is not None
    assert client.search_runs([locked.experiment])[0].info.run_id == locked.run
    assert client.get_metric_history(locked.run, "m")[0].value == 1.0
    assert client.get_logged_model(locked.model).status == "READY"
    assert client._tracking_client.store.get_trace_info(locked.trace).tags["a"] == "b"
    assert [v.version for v in client.search_model_versions("name = 'governed'")]


FREE: dict[str, Callable[[World], None]] = {
    "reading": read_everything,
    "a locked model as input elsewhere": use_as_input,
    "everything in an open experiment": work_in_open,
    "registering under another name": register_elsewhere,
    "prompts": use_prompts,
    "a model that is not governed": use_plain_model,
    "stages, tags and other aliases of a governed model": use_free_parts,
}

ON_GOVERNED: dict[str, tuple[str, Act]] = {
    "register a version": (
        "TICKET_REQUIRED",
        lambda w: w.client.create_model_version("governed", f"runs:/{w.open.run}/net", w.open.run),
    ),
    "copy a version into it": (
        "TICKET_REQUIRED",
        lambda w: w.client.copy_model_version("models:/plain/1", "governed"),
    ),
    "describe a version": ("VERSION_SEALED", lambda w: w.client.update_model_version("governed", "1", "other")),
    "tag a version": ("VERSION_SEALED", lambda w: w.client.set_model_version_tag("governed", "1", "x", "y")),
    "change a version's tag": ("VERSION_SEALED", lambda w: w.client.set_model_version_tag("governed", "1", "k", "y")),
    "untag a version": ("VERSION_SEALED", lambda w: w.client.delete_model_version_tag("governed", "1", "k")),
    "delete a version": ("VERSION_SEALED", lambda w: w.client.delete_model_version("governed", "1")),
    "describe the model": ("MODEL_GOVERNED", lambda w: w.client.update_registered_model("governed", "other")),
    "rename the model": ("MODEL_GOVERNED", lambda w: w.client.rename_registered_model("governed", "other")),
    "delete the model": ("VERSION_SEALED", lambda w: w.client.delete_registered_model("governed")),
    "mark the model as a prompt": (
        "MODEL_GOVERNED",
        lambda w: w.client.set_registered_model_tag("governed", "mlflow.prompt.is_prompt", "true"),
    ),
    "set a tag of ours": (
        "MODEL_GOVERNED",
        lambda w: w.client.set_registered_model_tag("governed", "intelligentscan.x", "y"),
    ),
    "move a version to Production": (
        "PROMOTION_REQUIRED",
        lambda w: w.client.transition_model_version_stage("governed", "1", "Production"),
    ),
    **{
        f"set the alias {alias}": (
            "ALIAS_RESERVED",
            lambda w, alias=alias: w.client.set_registered_model_alias("governed", alias, "1"),  # type: ignore[misc]
        )
        for alias in (
            "champion", "challenger", "previous", "production", "Production", "PROD", "prod", "staging", "stage",
            "archived", "live", "Champion", "champ1on", "champi0n", "cham-pion", "_champion_", "ch4mpion", "pr0d",
            "5taging", "L1VE", "1ive", "charnpion", "châmpion", "рrod",
        )
    },
}  # fmt: skip
"""Acts on a governed model, each with the code of its refusal."""
