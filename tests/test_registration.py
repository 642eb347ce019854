"""Registration through the service: sealed, idempotent, whole; what cannot be registered leaves no trace."""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
import rfc8785
import sqlalchemy
from conftest import Look, Trained, copy_store, look_at, plain_mlflow
from reviewed import release

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    BytesChanged,
    GuardsBroken,
    IntelligentScanError,
    InvalidArgument,
    InvalidName,
    ModelNotFound,
    NoModel,
    NotFound,
    PlanInvalid,
    RunNotFinished,
    RunNotFound,
    StoreError,
    TooLarge,
)
from intelligentscan.domain.registry import RegisteredVersion
from intelligentscan.services.registration import Registrar
from intelligentscan.settings import Settings

FIVE_MB = "x" * 5_000_000


@pytest.fixture
def services(trained: Trained) -> Services:
    return trained.services


@pytest.fixture
def look(trained: Trained) -> Callable[[], Look]:
    return lambda: look_at(trained.home)


async def test_a_run_with_a_model_is_registered_with_the_digest_of_its_files(
    services: Services, trained: Trained
) -> None:
    made = await services.registry.register("fm", run_id=trained.with_model, description="why", tags={"team": "a"})
    assert (made.status, made.version, made.created, made.source_run_id) == ("registered", 1, True, trained.with_model)
    assert (made.experiment_locked, made.next_experiment, made.enforcement) == (True, "training-v2", "advisory")
    plain = trained.client.get_model_version("fm", "1")
    assert (plain.run_id, plain.description, plain.tags["team"]) == (trained.with_model, "why", "a")
    assert Path(plain.source).is_relative_to(trained.settings.archive_folder)
    model = trained.client.get_logged_model(str(made.model_uri).removeprefix("models:/"))
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = [
        {"path": p.relative_to(folder).as_posix(), "size": p.stat().st_size, "sha256": sha256(p)}
        for p in folder.rglob("*")
        if p.is_file()
    ]
    manifest = rfc8785.dumps(sorted(files, key=lambda f: str(f["path"])))
    assert made.manifest_digest == hashlib.sha256(manifest).hexdigest()
    for file in files:
        assert sha256(Path(plain.source) / str(file["path"])) == file["sha256"]
    assert json.loads(model.tags["mlflow.modelVersions"])[-1] == {"name": "fm", "version": 1}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_the_same_registration_again_changes_nothing(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    first = await services.registry.register("fm", run_id=trained.with_model)
    before = look()
    for again in (
        await services.registry.register("fm", run_id=trained.with_model),
        await services.registry.register("fm", model_uri=first.model_uri),
        await trained.services.registry.register("fm", model_uri=f"runs:/{trained.with_model}/model"),
    ):
        assert (again.version, again.created, again.manifest_digest) == (1, False, first.manifest_digest)
    assert look() == before
    other = await services.registry.register("fm", run_id=trained.better)
    assert (other.version, other.created) == (2, True)
    assert (await services.registry.register("fm", run_id=trained.with_model)).version == 1


async def test_eight_registrations_of_one_run_at_once_make_one_version(services: Services, trained: Trained) -> None:
    answers: list[RegisteredVersion] = []

    async def register(through: Services) -> None:
        answers.append(await through.registry.register("fm", run_id=trained.with_model))

    other = trained.services
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(register, (services, other)[number % 2])
    assert {a.version for a in answers} == {1}
    assert [a.created for a in answers].count(True) == 1
    assert len((await services.registry.get("fm")).versions) == 1


async def test_a_model_in_a_run_folder_as_older_clients_leave_it_is_registered(
    services: Services, trained: Trained
) -> None:
    made = await services.registry.register("fm", run_id=trained.legacy)
    assert (made.model, made.model_uri) == ("classifier", f"runs:/{trained.legacy}/classifier")
    by_uri = await services.registry.register("fm", model_uri=f"runs:/{trained.legacy}/classifier")
    assert (by_uri.version, by_uri.created) == (1, False)


async def test_of_several_models_one_must_be_named(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    before = look()
    with pytest.raises(InvalidArgument) as caught:
        await services.registry.register("fm", run_id=trained.with_two)
    assert "left" in caught.value.message
    assert "right" in caught.value.message
    assert "model_path" in caught.value.next
    assert look() == before
    made = await services.registry.register("fm", run_id=trained.with_two, model_path="right")
    assert (made.model, made.version) == ("right", 1)
    with pytest.raises(NoModel):
        await services.registry.register("fm", run_id=trained.with_two, model_path="middle")


async def test_a_run_without_a_model_is_refused_before_anything_is_created(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    before = look()
    with pytest.raises(NoModel) as caught:
        await services.registry.register("fm", run_id=trained.without)
    assert "mlflow.sklearn.log_model" in caught.value.next
    siblings = caught.value.details["runs_with_models"]
    assert isinstance(siblings, list)
    assert {trained.with_model, trained.better, trained.with_two} == set(siblings)
    assert trained.with_model in caught.value.next
    assert look() == before


@pytest.mark.parametrize("kind", ["running", "failed"])
async def test_a_run_that_has_not_finished_is_refused(
    services: Services, trained: Trained, look: Callable[[], Look], kind: str
) -> None:
    run_id = getattr(trained, kind)
    before = look()
    for given in ({"run_id": run_id}, {"run_id": run_id, "dry_run": True}):
        with pytest.raises(RunNotFinished) as caught:
            await services.registry.register("fm", **given)
        assert kind.upper() in caught.value.message
        assert "FINISHED" in caught.value.next
    assert look() == before


BAD: dict[str, tuple[dict[str, Any], type[IntelligentScanError]]] = {
    "nothing named": ({}, InvalidArgument),
    "both named": ({"run_id": "0" * 32, "model_uri": "runs:/x/y"}, InvalidArgument),
    "a prefix": ({"run_id": "0" * 8}, InvalidArgument),
    "latest": ({"run_id": "latest"}, InvalidArgument),
    "an unknown run": ({"run_id": "0" * 32}, RunNotFound),
    "an unknown model": ({"model_uri": "models:/m-00000000000000000000000000000000"}, NotFound),
    "an unknown run's model": ({"model_uri": f"runs:/{'0' * 32}/model"}, NotFound),
    "a run URI without a path": ({"model_uri": f"runs:/{'0' * 32}"}, NotFound),
    "a registered version": ({"model_uri": "models:/name/1"}, InvalidArgument),
    "a file": ({"model_uri": "/etc/passwd"}, InvalidArgument),
    "a bucket": ({"model_uri": "s3://bucket/model"}, InvalidArgument),
    "a URI with a control character": ({"model_uri": "runs:/a\x00/b"}, InvalidArgument),
    "a 5 MB URI": ({"model_uri": "runs:/" + FIVE_MB}, InvalidArgument),
    "a 5 MB run": ({"run_id": FIVE_MB}, InvalidArgument),
    "a 5 MB description": ({"run_id": "0" * 32, "description": FIVE_MB}, TooLarge),
    "a 5 MB tag": ({"run_id": "0" * 32, "tags": {"t": FIVE_MB}}, TooLarge),
    "a reserved tag": ({"run_id": "0" * 32, "tags": {"intelligentscan.promotion": "x"}}, InvalidName),
    "a plan that is not there": ({"run_id": "0" * 32, "confirm": "x"}, PlanInvalid),
}


async def test_a_bad_source_is_refused_without_a_trace(services: Services, look: Callable[[], Look]) -> None:
    before = look()
    for case, (given, error) in BAD.items():
        with pytest.raises(error) as caught:
            await services.registry.register("fm", **given)
        assert caught.value.next, case
        assert len(str(caught.value)) < 1_000, case
    assert look() == before


async def test_a_name_that_no_uri_could_carry_is_refused_without_a_trace(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    before = look()
    for bad in ("", " ", "a/b", "a:b", "a%41", "a\nb", "a\u200bb", " a", FIVE_MB, "x" * 251):
        with pytest.raises(InvalidName):
            await services.registry.register(bad, run_id=trained.with_model)
        with pytest.raises(InvalidName):
            await services.registry.get(bad)
        with pytest.raises(InvalidName):
            await services.registry.promote(bad, 1, "Staging")
    assert look() == before


async def test_an_odd_but_readable_name_works_all_the_way(services: Services, trained: Trained) -> None:
    for odd in ("o'brien's model", 'the "best"', "with space", "ünï中", "a`b", "1", "latest"):
        for run_id in (trained.with_model, trained.better):
            await services.registry.register(odd, run_id=run_id)
        await release(services, odd, 2, reason="better")
        found = (await services.registry.get(odd)).versions
        assert [(v.version, v.stage, v.aliases) for v in found] == [(2, "Production", ["champion"]), (1, "None", [])]
    assert (await services.integrity.verify()).problems == []


async def test_a_dry_run_of_a_registration_changes_nothing_and_says_what_it_would_do(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    before = look()
    would = await services.registry.register("fm", run_id=trained.with_model, dry_run=True)
    assert (would.status, would.version, would.created) == ("would_register", 1, False)
    assert look() == before
    made = await services.registry.register("fm", run_id=trained.with_model)
    assert made.manifest_digest == would.manifest_digest
    before = look()
    assert (await services.registry.register("fm", run_id=trained.with_model, dry_run=True)).version == 1
    assert (await services.registry.register("fm", run_id=trained.better, dry_run=True)).version == 2
    assert look() == before


async def test_a_model_whose_files_are_gone_or_are_links_is_refused(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    for model in trained.client.search_logged_models([trained.experiment.experiment_id]):
        folder = Path(model.artifact_location)
        if model.source_run_id == trained.with_model:
            (folder / "MLmodel").unlink()
        elif model.source_run_id == trained.better:
            (folder / "extra").symlink_to("/etc/passwd")
    before = look()
    for run_id in (trained.with_model, trained.better):
        with pytest.raises(NoModel) as caught:
            await services.registry.register("gone", run_id=run_id)
        assert caught.value.next
    assert look().beside_trail == before.beside_trail


async def test_a_prompt_of_the_prompt_registry_is_no_model(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    from mlflow.entities.model_registry import RegisteredModelTag

    # The public call adds a link to an experiment some time later, from a thread of its own.
    registry = trained.client._get_registry_client().store
    registry.create_registered_model("fm", [RegisteredModelTag("mlflow.prompt.is_prompt", "true")])
    before = look()
    for call in (
        lambda: services.registry.get("fm"),
        lambda: services.registry.promote("fm", 1, "Staging"),
    ):
        with pytest.raises(ModelNotFound):
            await call()
    with pytest.raises(InvalidName) as caught:
        await services.registry.register("fm", run_id=trained.with_model)
    assert "prompt" in caught.value.message
    assert look() == before


async def test_a_model_logged_outside_any_run_is_refused_with_what_to_do(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    from mlflow.entities import LoggedModelStatus

    model = trained.client.create_logged_model(trained.experiment.experiment_id, name="loose")
    trained.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    before = look()
    with pytest.raises(NoModel) as caught:
        await services.registry.register("fm", model_uri=model.model_uri)
    assert "run" in caught.value.next
    assert look() == before


async def test_a_registry_of_its_own_file_works(trained: Trained, tmp_path: Path) -> None:
    registry = f"sqlite:///{tmp_path}/registry/models.db"
    services = build(Settings(home=trained.home, registry_uri=registry))
    before = look_at(trained.home).rows
    made = await services.registry.register("apart", run_id=trained.with_model)
    again = await services.registry.register("apart", run_id=trained.with_model)
    assert (made.version, made.created, again.version, again.created) == (1, True, 1, False)
    await services.registry.promote("apart", 1, "Staging")
    (version,) = (await services.registry.get("apart")).versions
    assert (version.stage, version.aliases, version.sealed) == ("Staging", ["challenger"], True)
    assert (made.enforcement, made.experiment_locked) == ("advisory", True)
    after = look_at(trained.home).rows
    for table in ("model_versions", "gov_event", "gov_experiment_lock"):
        assert after[table] == before[table]


# What goes wrong in the middle


@pytest.mark.parametrize("statement", ["gov_ticket_close", "INSERT INTO model_versions", "INSERT INTO gov_seal"])
async def test_a_registration_that_fails_in_the_middle_leaves_nothing_in_the_store(
    services: Services, trained: Trained, look: Callable[[], Look], statement: str
) -> None:
    before = look()
    engine = await services.store.read(lambda s: s.governance.engine)

    def refuse(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        if statement in sql:
            raise sqlalchemy.exc.DatabaseError(sql, {}, Exception("not now"))

    sqlalchemy.event.listen(engine, "before_cursor_execute", refuse)
    with pytest.raises(StoreError) as caught:
        await services.registry.register("fm", run_id=trained.with_model)
    sqlalchemy.event.remove(engine, "before_cursor_execute", refuse)
    assert "not now" in caught.value.message
    assert look() == before
    assert (await services.registry.register("fm", run_id=trained.with_model)).version == 1


async def test_a_trigger_of_somebody_else_on_a_guarded_table_is_named_and_nothing_is_registered(
    services: Services, trained: Trained, look: Callable[[], Look]
) -> None:
    with closing(sqlite3.connect(trained.home / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TRIGGER theirs BEFORE INSERT ON model_versions BEGIN SELECT 1; END")
    before = look()
    with pytest.raises(GuardsBroken) as caught:
        await services.registry.register("fm", run_id=trained.with_model)
    assert "theirs" in str(caught.value.details)
    assert "intelligentscan adopt" in caught.value.next
    assert look() == before


async def test_files_that_change_while_they_are_copied_are_not_registered(
    services: Services, trained: Trained, look: Callable[[], Look], monkeypatch: pytest.MonkeyPatch
) -> None:
    (model,) = (
        m
        for m in trained.client.search_logged_models([trained.experiment.experiment_id])
        if m.source_run_id == trained.with_model
    )
    inventory = Registrar._inventory

    async def meddled(registrar: Registrar, experiment_id: str) -> str:
        (Path(model.artifact_location) / "requirements.txt").write_text("something-else\n")
        return await inventory(registrar, experiment_id)

    before = look()
    with monkeypatch.context() as patch, pytest.raises(BytesChanged) as caught:
        patch.setattr(Registrar, "_inventory", meddled)
        await services.registry.register("fm", run_id=trained.with_model)
    assert caught.value.next
    assert look().beside_trail == before.beside_trail
    assert (await services.registry.register("fm", run_id=trained.with_model)).version == 1


@pytest.mark.parametrize("odd", ["100% #1?a=b", "sp ace ünï'中 &;@+:"])
async def test_a_model_in_a_home_with_any_characters_is_registered_and_loaded_by_plain_mlflow(
    tmp_path: Path, template: Path, odd: str
) -> None:
    import mlflow
    from sklearn.dummy import DummyClassifier

    settings = Settings(home=copy_store(template, tmp_path / odd))
    services = build(settings)
    experiment = await services.experiments.create("exp")
    with plain_mlflow(settings.store_uri):
        with mlflow.start_run(experiment_id=str(experiment)) as run:
            model = DummyClassifier(strategy="constant", constant=7).fit([[0.0]], [7])
            mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
        made = await services.registry.register("fm", run_id=run.info.run_id)
        await release(services, "fm", made.version, reason="r")
        for uri in ("models:/fm/1", "models:/fm/Production", "models:/fm@champion"):
            assert mlflow.sklearn.load_model(uri).predict([[0.0]]).tolist() == [7]
    assert (await services.integrity.verify()).problems == []
    assert {path.name for path in tmp_path.iterdir()} == {odd}
