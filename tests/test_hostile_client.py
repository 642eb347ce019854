"""A plain MLflow client against what is locked and sealed: acts 1 to 4, 14, 16 to 20, 22, 23 and 34 of the notes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlflow
import pytest
from conftest import plain_mlflow
from hostile import LOCKED, World, feedback, span, trace_info, tracking_store
from hostile_rows import counted, everything, locked_rows
from mlflow.entities import Dataset, DatasetInput, LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import sqlalchemy_store
from test_hostile_sql import refusals

SEALED = (
    "VERSION_SEALED: a registered version of a governed model does not change; make another version with "
    "register_model of IntelligentScan."
)
TICKET = (
    "TICKET_REQUIRED: versions of a governed model are made by registration alone; register it with register_model "
    "of IntelligentScan."
)
PROMOTE = (
    "PROMOTION_REQUIRED: the Production stage of a governed model follows a recorded decision; call promote of "
    "IntelligentScan."
)
GOVERNED = (
    "MODEL_GOVERNED: a governed model keeps its name and description and is not deleted; use another name for "
    "another model."
)
TAGS = (
    "MODEL_GOVERNED: tags named mlflow.prompt.* and intelligentscan.* are not set on a governed model; use another key."
)
ALIAS = (
    "ALIAS_RESERVED: champion, challenger, previous and names like them follow recorded decisions on a governed "
    "model; call promote of IntelligentScan, or use another alias."
)
ASCII = "ALIAS_RESERVED: an alias of a governed model is written in plain ASCII; use another alias."
SWALLOWED = "INTERNAL_ERROR"
"""What MLflow says itself where it takes SQLite's refusal for a conflict, and tries again a few times."""


@dataclass(frozen=True)
class Attack:
    """One call that must be refused.

    Attributes:
        act: its number in the notes.
        says: what the refusal says.
        code: MLflow's error code.
        attempts: how many statements the database refused.
        sqlite: what differs there.
        postgresql: what differs there.
    """

    act: int
    name: str
    call: Callable[[World], object]
    says: str = LOCKED
    code: str = "BAD_REQUEST"
    attempts: int = 1
    sqlite: dict[str, Any] = field(default_factory=dict)
    postgresql: dict[str, Any] = field(default_factory=dict)


def start(w: World) -> None:
    assert mlflow.set_experiment("fraud").experiment_id == w.ids.fraud  # a read, which stays allowed
    with mlflow.start_run():
        raise AssertionError("a run began")


def resume(w: World) -> None:
    with mlflow.start_run(run_id=w.ids.run):
        raise AssertionError("a run went on")


def version(w: World, source: str | None = None) -> object:
    return w.client.create_model_version("fm", source or f"models:/{w.ids.free_model}", w.ids.free)


def sealed_folder(w: World) -> object:
    return w.client.create_model_version("fm", w.client.get_model_version("fm", "1").source, w.ids.run)


def to_stage(number: int, stage: str, *, archive: bool = False) -> Callable[[World], object]:
    return lambda w: w.client.transition_model_version_stage("fm", number, stage, archive)  # type: ignore[arg-type]


def alias(name: str, number: str = "2") -> Callable[[World], object]:
    return lambda w: w.client.set_registered_model_alias("fm", name, number)


def inputs(w: World, run: str, name: str) -> None:
    w.client.log_inputs(run, [DatasetInput(Dataset(name, "x1", "local", "{}"), [])])


TWICE: dict[str, Any] = {"attempts": 2}
TAKEN = {"code": "RESOURCE_ALREADY_EXISTS"}
TRIED = "Model Version creation error (name=fm). Giving up after 3 attempts."
MADE: dict[str, Any] = {"says": TRIED, "code": SWALLOWED, "attempts": 3}
# register_model first asks the model that there is already to be created
ASKED: dict[str, Any] = {"sqlite": {**MADE, "attempts": 4}, "postgresql": TWICE}
ON_RUNS = (
    Attack(1, "set_experiment and start_run", start),
    Attack(2, "resume a run", resume),
    Attack(2, "end a run again", lambda w: w.client.set_terminated(w.ids.run, "FAILED")),
    Attack(2, "rename a run", lambda w: w.client.update_run(w.ids.run, name="other")),
    Attack(3, "a metric at a new step", lambda w: w.client.log_metric(w.ids.run, "accuracy", 1.0, step=2),
           sqlite=TWICE),
    Attack(3, "a new metric", lambda w: w.client.log_metric(w.ids.run, "late", 1.0), sqlite=TWICE),
    Attack(3, "a param", lambda w: w.client.log_param(w.ids.run, "late", 1)),
    Attack(4, "a batch of tags only", lambda w: w.client.log_batch(w.ids.run, tags=[RunTag("a", "b")]),
           sqlite={"says": "Failed to set tags with given within 3 retries", "code": SWALLOWED, "attempts": 5}),
    Attack(4, "a batch of everything", lambda w: w.client.log_batch(
        w.ids.run, [Metric("m", 1.0, 1, 1)], [Param("p", "1")], [RunTag("a", "b")])),
    Attack(4, "a tag", lambda w: w.client.set_tag(w.ids.run, "team", "blue")),
    Attack(4, "delete a tag", lambda w: w.client.delete_tag(w.ids.run, "team")),
    Attack(4, "a data set", lambda w: inputs(w, w.ids.run, "d2")),
    Attack(4, "a data set that is there already", lambda w: inputs(w, w.ids.second, "d")),
    Attack(4, "an input model", lambda w: w.client.log_inputs(w.ids.run, models=[LoggedModelInput(w.ids.free_model)])),
    Attack(4, "an output model", lambda w: w.client.log_outputs(w.ids.run, [LoggedModelOutput(w.ids.free_model, 1)])),
    Attack(4, "a locked model as an open run's output", lambda w: w.client.log_outputs(
        w.ids.free, [LoggedModelOutput(w.ids.model, 1)])),
    Attack(14, "delete the experiment", lambda w: w.client.delete_experiment(w.ids.fraud)),
    Attack(14, "rename the experiment", lambda w: w.client.rename_experiment(w.ids.fraud, "other")),
    Attack(14, "tag the experiment", lambda w: w.client.set_experiment_tag(w.ids.fraud, "goal", "let go")),
    Attack(14, "delete its tag", lambda w: w.client.delete_experiment_tag(w.ids.fraud, "goal")),
    Attack(14, "delete a run", lambda w: w.client.delete_run(w.ids.run)),
    Attack(14, "restore a run", lambda w: w.client.restore_run(w.ids.deleted)),
    Attack(16, "a locked model's metric from an open run", lambda w: w.client.log_metric(
        w.ids.free, "m", 1.0, model_id=w.ids.model), sqlite=TWICE),
)  # fmt: skip
ON_MODELS_AND_TRACES = (
    Attack(17, "create a logged model", lambda w: w.client.create_logged_model(w.ids.fraud)),
    Attack(17, "create one elsewhere, of a locked run", lambda w: w.client.create_logged_model(
        w.ids.open, source_run_id=w.ids.run)),
    Attack(17, "finalize", lambda w: w.client.finalize_logged_model(w.ids.model, "FAILED")),
    Attack(17, "delete", lambda w: w.client.delete_logged_model(w.ids.model)),
    Attack(17, "tag", lambda w: w.client.set_logged_model_tags(w.ids.model, {"a": "b"})),
    Attack(17, "params", lambda w: w.client.log_model_params(w.ids.model, {"a": "b"})),
    Attack(18, "a trace", lambda w: tracking_store(w).start_trace(trace_info(w.ids.fraud)),
           sqlite={"says": "no longer exists", "code": "RESOURCE_DOES_NOT_EXIST"}),
    Attack(18, "a span of a locked trace", lambda w: tracking_store(w).log_spans(w.ids.fraud, [span(w.ids.trace)])),
    Attack(18, "the same under an open experiment", lambda w: tracking_store(w).log_spans(
        w.ids.open, [span(w.ids.trace)])),
    Attack(18, "move a trace by starting it again", lambda w: tracking_store(w).start_trace(
        trace_info(w.ids.open, w.ids.trace)), attempts=2),
    Attack(18, "tag a trace", lambda w: w.client.set_trace_tag(w.ids.trace, "a", "b")),
    Attack(18, "delete its tag", lambda w: w.client.delete_trace_tag(w.ids.trace, "t")),
    Attack(18, "delete traces", lambda w: w.client.delete_traces(w.ids.fraud, trace_ids=[w.ids.trace])),
    Attack(18, "an assessment", lambda w: tracking_store(w).create_assessment(feedback(w.ids.trace, "bad")),
           sqlite={"says": "due to a constraint violation", "code": SWALLOWED}),
    Attack(18, "link a trace to a locked run", lambda w: w.client.link_traces_to_run([w.ids.free_trace], w.ids.run)),
)  # fmt: skip
ON_THE_REGISTRY = (
    Attack(19, "rename", lambda w: w.client.rename_registered_model("fm", "other"), GOVERNED, sqlite=TAKEN),
    Attack(19, "describe", lambda w: w.client.update_registered_model("fm", "better"), GOVERNED),
    Attack(19, "delete", lambda w: w.client.delete_registered_model("fm"), ALIAS),
    Attack(19, "create it again", lambda w: w.client.create_registered_model("fm"), "already exists", **TAKEN),
    Attack(19, "rename another model to it", lambda w: w.client.rename_registered_model("plain", "fm"), "",
           sqlite={**TAKEN, "says": "already exists"}, postgresql={"says": GOVERNED}),
    Attack(19, "mark it as a prompt", lambda w: w.client.set_registered_model_tag(
        "fm", "mlflow.prompt.is_prompt", "true"), TAGS),
    Attack(19, "a tag of ours", lambda w: w.client.set_registered_model_tag("fm", "intelligentscan.x", "1"), TAGS),
    Attack(20, "tag a version", lambda w: w.client.set_model_version_tag("fm", "1", "a", "b"), SEALED),
    Attack(20, "change its tag", lambda w: w.client.set_model_version_tag("fm", "1", "k", "w"), SEALED),
    Attack(20, "delete its tag", lambda w: w.client.delete_model_version_tag("fm", "1", "k"), SEALED),
    Attack(20, "describe a version", lambda w: w.client.update_model_version("fm", "1", "other"), SEALED),
    Attack(20, "delete a version", lambda w: w.client.delete_model_version("fm", "2"), SEALED),
    Attack(20, "delete the one in Production", lambda w: w.client.delete_model_version("fm", "1"), SEALED),
    Attack(21, "unapproved Production", to_stage(2, "Production"), PROMOTE),
    Attack(21, "the same, archiving the other", to_stage(2, "production", archive=True), PROMOTE),
    Attack(21, "take Production away", to_stage(1, "Archived"), PROMOTE),
    Attack(21, "from Production to Staging", to_stage(1, "Staging"), PROMOTE),
    Attack(22, "no champion", lambda w: w.client.delete_registered_model_alias("fm", "champion"), ALIAS),
    *(Attack(22, f"alias {name}", alias(name), ALIAS) for name in (
        "champion", "Champion", "CHAMPION", "champ1on", "champlon", "champ_ion", "ch4mpion", "charnpion", "-champion",
        "challenger", "cha11enger", "chal1eng3r", "previous", "prev1ous", "pr3v1ou5", "Production", "production_",
        "produc7ion", "prod", "PROD", "pr0d", "p-r-o-d", "stag1ng", "5taging", "stage", "arch1ved", "Live", "Iive",
    )),
    *(Attack(22, f"alias {name}", alias(name), ASCII) for name in (
        "сhampion", "champiоn", "prоd", "ｃｈａｍｐｉｏｎ", "chämpion", "ꓲive")),
    Attack(23, "create_model_version", version, TICKET, sqlite=MADE),
    Attack(23, "a stranger's source path", lambda w: version(w, "/etc"), TICKET, sqlite=MADE),
    Attack(23, "the sealed folder as source", sealed_folder, TICKET, sqlite=MADE),
    Attack(23, "register_model", lambda w: mlflow.register_model(f"models:/{w.ids.free_model}", "fm"), TICKET, **ASKED),
    Attack(23, "register_model of a locked run's", lambda w: mlflow.register_model(
        f"models:/{w.ids.model}", "fm"), TICKET, **ASKED),
    Attack(23, "copy_model_version", lambda w: w.client.copy_model_version("models:/plain/1", "fm"), TICKET, SWALLOWED,
           **ASKED),
    Attack(23, "copy of its own version", lambda w: w.client.copy_model_version("models:/fm/1", "fm"), TICKET,
           SWALLOWED, **ASKED),
    Attack(23, "a prompt of its name", lambda w: w.client.register_prompt("fm", "hello"), "exists", attempts=0,
           code="INVALID_PARAMETER_VALUE"),
)  # fmt: skip


_left: dict[str, dict[str, str]] = {}
"""The digest of everything after the last attack, which is that before the next one."""


@pytest.mark.parametrize(
    "attack", [*ON_RUNS, *ON_MODELS_AND_TRACES, *ON_THE_REGISTRY], ids=lambda attack: f"{attack.act}-{attack.name}"
)
def test_a_plain_client_is_refused_and_changes_nothing(
    world: World, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlalchemy_store.time, "sleep", lambda _: None)  # MLflow waits between its attempts
    expected = {"says": attack.says, "code": attack.code, "attempts": attack.attempts, **getattr(attack, world.backend)}
    before = _left.get(world.backend) or everything(world)
    with plain_mlflow(world.plain), counted(world) as seen, pytest.raises(MlflowException) as caught:
        attack.call(world)
    _left[world.backend] = everything(world)
    assert _left[world.backend] == before
    assert expected["says"] in str(caught.value)
    assert (caught.value.error_code, seen.refused) == (expected["code"], expected["attempts"])


def test_a_batch_whose_metric_names_a_locked_model_leaves_nothing_in_the_locked_experiment(own: World) -> None:
    """MLflow writes a batch in several transactions: what belongs to the open run is kept."""
    before = locked_rows(own)
    batch = [Metric("m", 1.0, 1, 1, model_id=own.ids.model)]
    with plain_mlflow(own.plain), pytest.raises(MlflowException, match=LOCKED):
        own.client.log_batch(own.ids.free, batch)
    assert locked_rows(own) == before


@pytest.mark.parametrize(
    ("call", "attempts"),
    [
        (lambda w: w.client.log_metric(w.ids.run, "accuracy", 0.9, 1_700_000_000_000, 1), 1),
        (lambda w: tracking_store(w).log_spans(w.ids.fraud, [span("tr-" + "7" * 32)]), 10),
    ],
    ids=["3-the same metric again", "18-spans of a new trace"],
)
def test_where_mlflow_swallows_a_refusal_nothing_changes_either(
    world: World, call: Callable[[World], object], attempts: int
) -> None:
    """On SQLite, MLflow takes the refusal for a point that is there, or for a trace that somebody else began."""
    before = everything(world)
    with plain_mlflow(world.plain), counted(world) as seen:
        if world.sqlite:
            call(world)
        else:
            with pytest.raises(MlflowException, match=LOCKED):
                call(world)
    assert everything(world) == before
    assert seen.refused == (attempts if world.sqlite else 1)


def test_what_was_never_forbidden_goes_on(own: World) -> None:
    client, ids, before = own.client, own.ids, locked_rows(own)
    with plain_mlflow(own.plain):
        client.log_param(ids.run, "C", 1.0)  # the same again: MLflow writes nothing
        client.log_inputs(ids.free, models=[LoggedModelInput(ids.model)])
        client.link_traces_to_run([ids.trace], ids.free)
        client.set_registered_model_alias("fm", "mine", "2")
        client.set_registered_model_alias("fm", "mine", "1")
        client.delete_registered_model_alias("fm", "mine")
        client.set_registered_model_tag("fm", "team", "red")
        client.transition_model_version_stage("fm", 2, "Staging")  # type: ignore[arg-type]
        client.set_registered_model_alias("fm", "challenger", "2")
        client.delete_registered_model_alias("fm", "challenger")
        client.create_prompt_version("greeting", "hi {{name}}")
        client.transition_model_version_stage("plain", 1, "Production")  # type: ignore[arg-type]
        client.set_registered_model_alias("plain", "Production", "1")
        mlflow.set_experiment("fraud-v2")
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1.0)
        assert client.get_run(run.info.run_id).data.metrics == {"m": 1.0}
    assert locked_rows(own) == before


async def test_a_copy_under_another_name_is_not_sealed_and_does_not_pass(own: World) -> None:
    with plain_mlflow(own.plain):
        copy = own.client.copy_model_version("models:/fm/1", "twin")
    assert (int(copy.version), (await own.services.registry.get("twin")).governed) == (1, False)
    assert (await own.promote("twin", 1)).startswith("NOT_GOVERNED")
    assert await own.problems() == set()


async def test_the_same_name_in_another_workspace_touches_nothing(own: World) -> None:
    client, ours = own.client, "SELECT * FROM model_versions WHERE workspace = 'default' ORDER BY name, version"
    services = own.services
    assert int(client.get_model_version_by_alias("fm", "champion").version) == 1
    assert await own.problems("fm", services) == set()  # MLflow would not open the store with such rows in it
    before = own.sql(ours)
    for row in (
        "registered_models (name, workspace) VALUES ('fm', 'other')",
        "model_versions (name, version, workspace, current_stage) VALUES ('fm', 3, 'other', 'Production')",
        "registered_model_aliases (name, alias, version, workspace) VALUES ('fm', 'champion', 3, 'other')",
    ):
        own.sql(f"INSERT INTO {row}")
    move = "UPDATE {} SET workspace = 'default' WHERE workspace = 'other'"
    answers = refusals(own, [move.format(each) for each in ("model_versions", "registered_model_aliases")])
    assert [answer.split(":")[0] for _, answer in answers] == ["TICKET_REQUIRED", "ALIAS_RESERVED"]
    assert own.sql(ours) == before
    assert int(client.get_model_version_by_alias("fm", "champion").version) == 1
    assert await own.problems("fm", services) == set()
