"""Registration and promotion: idempotent, whole, with stage and alias together; loadable by plain MLflow."""

import asyncio
import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
import rfc8785
from conftest import Look, Trained, look_at, plain_mlflow, run_plain

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    IntelligentScanError,
    InvalidArgument,
    InvalidCursor,
    InvalidName,
    ModelNotFound,
    NoModel,
    NotFound,
    RunNotFinished,
    RunNotFound,
    TooLarge,
    VersionNotFound,
)
from intelligentscan.domain.registry import PromotionDecision, RegisteredVersion, stage_from
from intelligentscan.settings import Settings
from intelligentscan.store_environment import exports

FIVE_MB = "x" * 5_000_000


@pytest.fixture
def services(trained: Trained) -> Services:
    return trained.services


@pytest.fixture
def look(trained: Trained) -> Callable[[], Look]:
    return lambda: look_at(trained.home)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model name of this test alone."""
    return hashlib.sha256(request.node.name.encode()).hexdigest()[:12]


async def versions(services: Services, name: str) -> dict[int, tuple[str, list[str]]]:
    """Return stage and aliases of each version."""
    return {v.version: (v.stage, v.aliases) for v in (await services.registry.get(name)).versions}


async def two_versions(services: Services, trained: Trained, name: str) -> None:
    await services.registry.register(name, run_id=trained.with_model)
    await services.registry.register(name, run_id=trained.better)


# Registration


async def test_a_run_with_a_model_is_registered_with_the_digest_of_its_files(
    services: Services, trained: Trained, name: str
) -> None:
    made = await services.registry.register(name, run_id=trained.with_model, description="why", tags={"team": "a"})
    assert (made.status, made.version, made.created, made.source_run_id) == ("registered", 1, True, trained.with_model)
    assert (made.experiment_locked, made.next_experiment, made.enforcement) == (False, None, "advisory")
    plain = trained.client.get_model_version(name, "1")
    assert (plain.run_id, plain.description, plain.tags["team"]) == (trained.with_model, "why", "a")
    assert plain.source == made.model_uri
    model = trained.client.get_logged_model(str(made.model_uri).removeprefix("models:/"))
    folder = Path(model.artifact_location.removeprefix("file://"))
    files = [
        {"path": p.relative_to(folder).as_posix(), "size": p.stat().st_size, "sha256": sha256(p)}
        for p in folder.rglob("*")
        if p.is_file()
    ]
    manifest = rfc8785.dumps(sorted(files, key=lambda f: str(f["path"])))
    assert made.manifest_digest == hashlib.sha256(manifest).hexdigest()
    assert json.loads(model.tags["mlflow.modelVersions"])[-1] == {"name": name, "version": 1}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_the_same_registration_again_changes_nothing(
    services: Services, trained: Trained, name: str, look: Callable[[], Look]
) -> None:
    first = await services.registry.register(name, run_id=trained.with_model)
    before = look()
    for again in (
        await services.registry.register(name, run_id=trained.with_model),
        await services.registry.register(name, model_uri=first.model_uri),
        await trained.services.registry.register(name, model_uri=f"runs:/{trained.with_model}/model"),
    ):
        assert (again.version, again.created, again.manifest_digest) == (1, False, first.manifest_digest)
    assert look() == before
    other = await services.registry.register(name, run_id=trained.better)
    assert (other.version, other.created) == (2, True)
    assert (await services.registry.register(name, run_id=trained.with_model)).version == 1


async def test_a_version_registered_by_plain_mlflow_is_the_same_version(
    services: Services, trained: Trained, name: str
) -> None:
    import mlflow

    model = trained.client.search_logged_models(
        [trained.experiment.experiment_id], filter_string=f"source_run_id = '{trained.with_model}'"
    )[0]
    with plain_mlflow(trained.settings.store_uri):
        mlflow.register_model(model.model_uri, name)
        mlflow.register_model(f"runs:/{trained.legacy}/classifier", name)
    for run_id, version in ((trained.with_model, 1), (trained.legacy, 2)):
        found = await services.registry.register(name, run_id=run_id)
        assert (found.version, found.created) == (version, False)


async def test_eight_registrations_of_one_run_at_once_make_one_version(
    services: Services, trained: Trained, name: str
) -> None:
    answers: list[RegisteredVersion] = []

    async def register(through: Services) -> None:
        answers.append(await through.registry.register(name, run_id=trained.with_model))

    other = trained.services
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(register, (services, other)[number % 2])
    assert {a.version for a in answers} == {1}
    assert [a.created for a in answers].count(True) == 1
    assert len((await services.registry.get(name)).versions) == 1


async def test_a_model_in_a_run_folder_as_older_clients_leave_it_is_registered(
    services: Services, trained: Trained, name: str
) -> None:
    made = await services.registry.register(name, run_id=trained.legacy)
    assert (made.model, made.model_uri) == ("classifier", f"runs:/{trained.legacy}/classifier")
    by_uri = await services.registry.register(name, model_uri=f"runs:/{trained.legacy}/classifier")
    assert (by_uri.version, by_uri.created) == (1, False)


async def test_of_several_models_one_must_be_named(
    services: Services, trained: Trained, name: str, look: Callable[[], Look]
) -> None:
    before = look()
    with pytest.raises(InvalidArgument) as caught:
        await services.registry.register(name, run_id=trained.with_two)
    assert "left" in caught.value.message
    assert "right" in caught.value.message
    assert "model_path" in caught.value.next
    assert look() == before
    made = await services.registry.register(name, run_id=trained.with_two, model_path="right")
    assert (made.model, made.version) == ("right", 1)
    with pytest.raises(NoModel):
        await services.registry.register(name, run_id=trained.with_two, model_path="middle")


async def test_a_run_without_a_model_is_refused_before_anything_is_created(
    services: Services, trained: Trained, name: str, look: Callable[[], Look]
) -> None:
    before = look()
    with pytest.raises(NoModel) as caught:
        await services.registry.register(name, run_id=trained.without)
    assert "mlflow.sklearn.log_model" in caught.value.next
    siblings = caught.value.details["runs_with_models"]
    assert isinstance(siblings, list)
    assert {trained.with_model, trained.better, trained.with_two} == set(siblings)
    assert trained.with_model in caught.value.next
    assert look() == before


@pytest.mark.parametrize("kind", ["running", "failed"])
async def test_a_run_that_has_not_finished_is_refused(
    services: Services, trained: Trained, name: str, look: Callable[[], Look], kind: str
) -> None:
    run_id = getattr(trained, kind)
    before = look()
    for given in ({"run_id": run_id}, {"run_id": run_id, "dry_run": True}):
        with pytest.raises(RunNotFinished) as caught:
            await services.registry.register(name, **given)
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
    "a plan that is not there": ({"run_id": "0" * 32, "confirm": "x"}, InvalidArgument),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_source_is_refused_without_a_trace(
    services: Services, name: str, look: Callable[[], Look], case: str
) -> None:
    given, error = BAD[case]
    before = look()
    with pytest.raises(error) as caught:
        await services.registry.register(name, **given)
    assert caught.value.next
    assert len(str(caught.value)) < 1_000
    assert look() == before


@pytest.mark.parametrize("bad", ["", " ", "a/b", "a:b", "a%41", "a\nb", "a\u200bb", " a", FIVE_MB, "x" * 251])
async def test_a_name_that_no_uri_could_carry_is_refused_without_a_trace(
    services: Services, trained: Trained, look: Callable[[], Look], bad: str
) -> None:
    before = look()
    calls = [
        lambda: services.registry.register(bad, run_id=trained.with_model),
        lambda: services.registry.get(bad),
        lambda: services.registry.promote(bad, 1, "Staging"),
    ]
    for call in calls:
        with pytest.raises(InvalidName):
            await call()
    assert look() == before


@pytest.mark.parametrize("odd", ["o'brien's model", 'the "best"', "with space", "ünï中", "a`b", "1", "latest"])
async def test_an_odd_but_readable_name_works_all_the_way(services: Services, trained: Trained, odd: str) -> None:
    await two_versions(services, trained, odd)
    await services.registry.promote(odd, 2, "Production", reason="better")
    assert await versions(services, odd) == {2: ("Production", ["champion"]), 1: ("None", [])}


async def test_a_dry_run_of_a_registration_changes_nothing_and_says_what_it_would_do(
    services: Services, trained: Trained, name: str, look: Callable[[], Look]
) -> None:
    before = look()
    would = await services.registry.register(name, run_id=trained.with_model, dry_run=True)
    assert (would.status, would.version, would.created) == ("would_register", 1, False)
    assert look() == before
    made = await services.registry.register(name, run_id=trained.with_model)
    assert made.manifest_digest == would.manifest_digest
    before = look()
    assert (await services.registry.register(name, run_id=trained.with_model, dry_run=True)).version == 1
    assert (await services.registry.register(name, run_id=trained.better, dry_run=True)).version == 2
    assert look() == before


async def test_a_model_whose_files_are_gone_or_are_links_is_refused(tmp_path: Path, template: Path) -> None:
    from conftest import copy_store, train

    home = copy_store(template, tmp_path / "home")
    own = train(home, Settings(home=home), Settings(home=home).store_uri)
    source = own.client.search_logged_models([own.experiment.experiment_id])
    for model in source:
        folder = Path(model.artifact_location)
        if model.source_run_id == own.with_model:
            (folder / "MLmodel").unlink()
        elif model.source_run_id == own.better:
            (folder / "extra").symlink_to("/etc/passwd")
    before = look_at(home)
    for run_id in (own.with_model, own.better):
        with pytest.raises(NoModel) as caught:
            await own.services.registry.register("gone", run_id=run_id)
        assert caught.value.next
    assert look_at(home) == before


async def test_a_prompt_of_the_prompt_registry_is_no_model(
    services: Services, trained: Trained, name: str, look: Callable[[], Look]
) -> None:
    from mlflow.entities.model_registry import RegisteredModelTag

    # The public call adds a link to an experiment some time later, from a thread of its own.
    registry = trained.client._get_registry_client().store
    registry.create_registered_model(name, [RegisteredModelTag("mlflow.prompt.is_prompt", "true")])
    before = look()
    for call in (
        lambda: services.registry.get(name),
        lambda: services.registry.promote(name, 1, "Staging"),
    ):
        with pytest.raises(ModelNotFound):
            await call()
    with pytest.raises(InvalidName) as caught:
        await services.registry.register(name, run_id=trained.with_model)
    assert "prompt" in caught.value.message
    assert look() == before


async def test_a_model_logged_outside_any_run_is_refused_with_what_to_do(
    services: Services, trained: Trained, name: str, look: Callable[[], Look]
) -> None:
    from mlflow.entities import LoggedModelStatus

    model = trained.client.create_logged_model(trained.experiment.experiment_id, name="loose")
    trained.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    before = look()
    with pytest.raises(NoModel) as caught:
        await services.registry.register(name, model_uri=model.model_uri)
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
    assert await versions(services, "apart") == {1: ("Staging", ["challenger"])}
    assert look_at(trained.home).rows["model_versions"] == before["model_versions"]


# Promotion


async def test_stage_and_alias_move_together_and_the_outgoing_version_is_kept_as_previous(
    services: Services, trained: Trained, name: str
) -> None:
    await two_versions(services, trained, name)
    first = await services.registry.promote(name, 1, "production", reason="the first")
    assert (first.status, first.stage, first.aliases, first.previous_version) == (
        "promoted", "Production", ["champion"], None,
    )  # fmt: skip
    staged = await services.registry.promote(name, 2, "STAGING")
    assert (staged.stage, staged.aliases) == ("Staging", ["challenger"])
    second = await services.registry.promote(name, 2, "Production", reason="better")
    assert (second.previous_version, second.changed) == (1, True)
    assert await versions(services, name) == {1: ("Archived", ["previous"]), 2: ("Production", ["champion"])}
    assert [v.reason for v in (await services.registry.get(name)).versions] == ["better", "the first"]
    plain = trained.client.get_registered_model(name)
    assert plain.aliases == {"champion": 2, "previous": 1} or plain.aliases == {"champion": "2", "previous": "1"}


async def test_going_back_to_the_previous_version_swaps_the_two(
    services: Services, trained: Trained, name: str
) -> None:
    await two_versions(services, trained, name)
    for version in (1, 2, 1):
        await services.registry.promote(name, version, "Production", reason="r")
    assert await versions(services, name) == {1: ("Production", ["champion"]), 2: ("Archived", ["previous"])}


async def test_a_demoted_version_loses_its_alias(services: Services, trained: Trained, name: str) -> None:
    await two_versions(services, trained, name)
    await services.registry.promote(name, 1, "Production", reason="r")
    await services.registry.promote(name, 2, "Production", reason="r")
    archived = await services.registry.promote(name, 2, "Archived")
    assert (archived.stage, archived.aliases) == ("Archived", [])
    assert await versions(services, name) == {1: ("Archived", ["previous"]), 2: ("Archived", [])}
    await services.registry.promote(name, 1, "Staging")
    assert (await versions(services, name))[1] == ("Staging", ["challenger"])


async def test_a_version_that_is_there_already_stays_and_nothing_is_written(
    services: Services, trained: Trained, name: str, look: Callable[[], Look]
) -> None:
    await two_versions(services, trained, name)
    await services.registry.promote(name, 1, "Production", reason="r")
    before = look()
    again = await services.registry.promote(name, 1, "Production", reason="again")
    assert (again.status, again.changed) == ("promoted", False)
    assert look() == before


async def test_a_stage_that_plain_mlflow_set_without_an_alias_is_understood(
    services: Services, trained: Trained, name: str
) -> None:
    await two_versions(services, trained, name)
    trained.client.transition_model_version_stage(name, "1", "Production")
    would = await services.registry.promote(name, 2, "Production", reason="r", dry_run=True)
    assert would.previous_version == 1
    done = await services.registry.promote(name, 2, "Production", reason="r")
    assert done.previous_version == 1
    assert await versions(services, name) == {1: ("Archived", ["previous"]), 2: ("Production", ["champion"])}


async def test_aliases_of_others_are_left_alone(services: Services, trained: Trained, name: str) -> None:
    await two_versions(services, trained, name)
    trained.client.set_registered_model_alias(name, "mine", "1")
    await services.registry.promote(name, 1, "Production", reason="r")
    await services.registry.promote(name, 2, "Production", reason="r")
    assert await versions(services, name) == {1: ("Archived", ["mine", "previous"]), 2: ("Production", ["champion"])}


@pytest.mark.parametrize("to", ["Staging", "Production", "Archived"])
async def test_a_dry_run_of_a_promotion_changes_nothing(
    services: Services, trained: Trained, name: str, look: Callable[[], Look], to: str
) -> None:
    await two_versions(services, trained, name)
    await services.registry.promote(name, 1, to, reason="r")
    before = look()
    would = await services.registry.promote(name, 2, to, reason="r", dry_run=True)
    assert (would.status, would.stage) == ("would_promote", to)
    assert would.previous_version == (None if to == "Archived" else 1)
    assert look() == before


@pytest.mark.parametrize(
    ("version", "to", "reason", "error"),
    [
        (9, "Staging", None, VersionNotFound),
        (0, "Staging", None, VersionNotFound),
        (-1, "Staging", None, VersionNotFound),
        (2**70, "Staging", None, VersionNotFound),
        (1, "Live", None, InvalidArgument),
        (1, "", None, InvalidArgument),
        (1, "None", None, InvalidArgument),
        (1, FIVE_MB, None, InvalidArgument),
        (1, "Stag\u200bing", None, InvalidArgument),
        (1, "Production", None, InvalidArgument),
        (1, "Production", "  ", InvalidArgument),
        (1, "Production", FIVE_MB, InvalidArgument),
    ],
)
async def test_an_impossible_promotion_is_refused_without_a_trace(
    services: Services,
    trained: Trained,
    name: str,
    look: Callable[[], Look],
    version: int,
    to: str,
    reason: str | None,
    error: type[IntelligentScanError],
) -> None:
    await services.registry.register(name, run_id=trained.with_model)
    before = look()
    with pytest.raises(error) as caught:
        await services.registry.promote(name, version, to, reason=reason)
    assert caught.value.next
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).isprintable()
    assert look() == before


async def test_an_unknown_model_and_version_are_named(services: Services, trained: Trained, name: str) -> None:
    for call in (lambda: services.registry.get(name), lambda: services.registry.promote(name, 1, "Staging")):
        with pytest.raises(ModelNotFound) as caught:
            await call()
        assert "register_model" in caught.value.next
    await services.registry.register(name, run_id=trained.with_model)
    with pytest.raises(VersionNotFound) as missing:
        await services.registry.get(name, version=2)
    assert "get_model" in missing.value.next


async def test_a_deleted_version_is_not_found_and_its_number_is_not_given_again(
    services: Services, trained: Trained, name: str
) -> None:
    await two_versions(services, trained, name)
    trained.client.delete_model_version(name, "1")
    with pytest.raises(VersionNotFound):
        await services.registry.promote(name, 1, "Staging")
    assert list(await versions(services, name)) == [2]
    assert (await services.registry.register(name, run_id=trained.with_model)).version == 3


@pytest.mark.parametrize("failing", ["registered_model_aliases", "model_version_tags"])
async def test_a_promotion_that_fails_in_the_middle_changes_nothing(
    services: Services, trained: Trained, name: str, look: Callable[[], Look], failing: str
) -> None:
    await two_versions(services, trained, name)
    await services.registry.promote(name, 1, "Production", reason="r")
    trigger = f"CREATE TRIGGER refuse BEFORE INSERT ON {failing} BEGIN SELECT RAISE(ABORT, 'not now'); END"
    with closing(sqlite3.connect(trained.home / "mlflow.db")) as connection:
        connection.execute(trigger)
        connection.execute(trigger.replace("refuse", "refuse_too").replace("INSERT", "UPDATE"))
        before = look()
        try:
            with pytest.raises(IntelligentScanError) as caught:
                await services.registry.promote(name, 2, "Production", reason="r")
        finally:
            connection.execute("DROP TRIGGER refuse")
            connection.execute("DROP TRIGGER refuse_too")
    assert "not now" in caught.value.message
    assert look().digest == before.digest


async def test_a_registration_that_fails_in_the_middle_leaves_no_name_behind(
    services: Services, trained: Trained, name: str, look: Callable[[], Look]
) -> None:
    with closing(sqlite3.connect(trained.home / "mlflow.db")) as connection:
        connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON model_versions BEGIN SELECT RAISE(ABORT, 'no'); END")
        before = look()
        try:
            with pytest.raises(IntelligentScanError):
                await services.registry.register(name, run_id=trained.with_model)
        finally:
            connection.execute("DROP TRIGGER refuse")
    assert look().digest == before.digest
    assert (await services.registry.register(name, run_id=trained.with_model)).version == 1


def test_promotions_of_two_versions_at_once_end_in_one_consistent_state(trained: Trained, name: str) -> None:
    asyncio.run(two_versions(trained.services, trained, name))
    decisions: list[PromotionDecision] = []
    ready = threading.Barrier(4)

    def promote(version: int) -> None:
        services = trained.services
        ready.wait()
        decisions.extend(
            asyncio.run(services.registry.promote(name, version, "Production", reason="r")) for _ in range(5)
        )

    threads = [threading.Thread(target=promote, args=(version,)) for version in (1, 2, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = asyncio.run(versions(trained.services, name))
    assert sorted(state.values()) == [("Archived", ["previous"]), ("Production", ["champion"])]
    assert len(decisions) == 20


LOAD = """
import json, sys
import mlflow.sklearn
name = sys.argv[1]
out = {}
for uri in sys.argv[2:]:
    model = mlflow.sklearn.load_model(f"models:/{name}{uri}")
    out[uri] = [model.C, model.predict([[0.0], [3.0]]).tolist()]
print(json.dumps(out))
"""


async def test_plain_mlflow_loads_what_was_promoted_by_stage_by_alias_and_by_number(
    services: Services, trained: Trained, name: str, tmp_path: Path
) -> None:
    await two_versions(services, trained, name)
    await services.registry.register(name, run_id=trained.legacy)
    await services.registry.promote(name, 1, "Production", reason="r")
    await services.registry.promote(name, 2, "Production", reason="r")
    await services.registry.promote(name, 3, "Staging")
    uris = ("/Production", "@champion", "@previous", "/Staging", "@challenger", "/1", "/3")
    ended = await asyncio.to_thread(run_plain, LOAD, name, *uris, env=exports(trained.settings), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    loaded = {uri: strength for uri, (strength, predicted) in json.loads(ended.stdout).items() if predicted == [0, 1]}
    assert loaded == {
        "/Production": 3.0, "@champion": 3.0, "@previous": 1.0, "/Staging": 1.0, "@challenger": 1.0,
        "/1": 1.0, "/3": 1.0,
    }  # fmt: skip


# Reading


async def test_versions_are_listed_newest_first_in_pages(services: Services, trained: Trained, name: str) -> None:
    await two_versions(services, trained, name)
    await services.registry.register(name, run_id=trained.with_two, model_path="left")
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = await services.registry.get(name, limit=2, cursor=cursor)
        seen += [v.version for v in page.versions]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [3, 2, 1]
    first = await services.registry.get(name, limit=2)
    await services.registry.register(name + "-other", run_id=trained.better)
    with pytest.raises(InvalidCursor):
        await services.registry.get(name + "-other", limit=2, cursor=first.next_cursor)
    one = await services.registry.get(name, version=2)
    assert [v.version for v in one.versions] == [2]


async def test_hostile_descriptions_are_shown_escaped(services: Services, trained: Trained, name: str) -> None:
    evil = "[x](http://evil) <script>\u202e"
    await services.registry.register(name, run_id=trained.with_model, description=evil)
    trained.client.update_registered_model(name, evil)
    await services.registry.promote(name, 1, "Production", reason=evil)
    shown = (await services.registry.get(name)).model_dump_json()
    for bad in ("](", "<script", "\u202e"):
        assert bad not in shown


def test_a_stage_that_does_not_exist_is_shown_without_what_could_act() -> None:
    with pytest.raises(InvalidArgument) as refused:
        stage_from("\u202e\x1b[31m<script>![x](http://e)")
    shown = str(refused.value)
    assert "\x1b" not in shown
    assert "<script" not in shown
    assert "](" not in shown
