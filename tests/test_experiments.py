"""Experiments: made once per name, found by text or product, and named clearly when they are not there."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from conftest import Look

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import (
    ExperimentDeleted,
    ExperimentNotFound,
    IntelligentScanError,
    InvalidArgument,
    InvalidCursor,
    InvalidName,
    TooLarge,
)
from intelligentscan.domain.experiment import Experiment
from intelligentscan.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIVE_MB = "x" * 5_000_000


async def test_an_experiment_is_made_once_and_looks_ordinary_to_plain_mlflow(
    services: Services, client: "MlflowClient", home: Path
) -> None:
    made = await services.experiments.create("exp", description="why", tags={"team": "a", "n": 1}, product="p1")
    again = await services.experiments.create("exp")
    assert (made.created, again.created) == (True, False)
    assert str(again) == made.experiment_id == again.experiment_id
    assert made.artifact_location == str(home / "artifacts" / made.experiment_id)
    plain = client.get_experiment_by_name("exp")
    assert plain.experiment_id == made.experiment_id
    assert plain.tags["mlflow.note.content"] == "why"
    assert (plain.tags["team"], plain.tags["n"]) == ("a", "1")
    assert again.product == "p1"


async def test_a_second_description_is_not_taken_silently(services: Services, look: Callable[[], Look]) -> None:
    await services.experiments.create("exp", description="first")
    before = look()
    again = await services.experiments.create("exp", description="second", tags={"new": "1"})
    assert again.notes
    assert not (await services.experiments.create("exp", description="first")).notes
    assert look() == before


async def test_eight_calls_at_once_make_one_experiment(services: Services, look: Callable[[], Look]) -> None:
    made: list[Experiment] = []

    async def create() -> None:
        made.append(await services.experiments.create("same", tags={"a": "b"}))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(create)
    assert len({e.experiment_id for e in made}) == 1
    assert [e.created for e in made].count(True) == 1
    assert look().rows["experiments"] == 2


async def test_a_deleted_experiment_is_named_deleted_in_every_call(
    services: Services, client: "MlflowClient", look: Callable[[], Look]
) -> None:
    made = await services.experiments.create("gone")
    logged = await services.runs.log("gone")
    client.delete_experiment(made.experiment_id)
    before = look()
    calls = [
        lambda: services.experiments.create("gone"),
        lambda: services.runs.log("gone"),
        lambda: services.runs.search("gone"),
        lambda: services.runs.search(made.experiment_id),
        lambda: services.runs.get("latest", experiment="gone"),
        lambda: services.comparisons.compare(experiment="gone"),
    ]
    for call in calls:
        with pytest.raises(ExperimentDeleted) as caught:
            await call()
        assert "restore" in caught.value.next
        assert caught.value.details == {"experiment_id": made.experiment_id}
    with pytest.raises(IntelligentScanError):
        await services.runs.get(logged.run_id)
    assert look() == before


@pytest.mark.parametrize(
    "name",
    [
        *("", "   ", " x", "x ", "a\nb", "a\x00b", "a\x1bb"),
        *("zero\u200bwidth", "bidi\u202ereversed", "tag\U000e0041", FIVE_MB, "x" * 251),
    ],
)
async def test_a_name_that_cannot_be_read_is_refused_without_a_trace(
    services: Services, look: Callable[[], Look], name: str
) -> None:
    await services.experiments.create("there")
    before = look()
    with pytest.raises(InvalidName) as caught:
        await services.experiments.create(name)
    assert caught.value.next
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).isprintable()
    assert look() == before


@pytest.mark.parametrize(
    "name", ["o'brien", 'say "hi"', "a/b\\c", "100%", "under_score", "ünï中", "1", "-- drop", "a`b"]
)
async def test_a_printable_name_is_kept_as_it_is(services: Services, name: str) -> None:
    made = await services.experiments.create(name)
    logged = await services.runs.log(name, params={"a": 1})
    assert logged.experiment_id == made.experiment_id
    assert [r.run_id for r in (await services.runs.search(name)).runs] == [logged.run_id]
    assert [e.name for e in (await services.experiments.search(query=name)).experiments] == [name]


async def test_a_name_that_is_another_experiments_id_is_the_name_first(services: Services) -> None:
    first = await services.experiments.create("first")
    named = await services.experiments.create(first.experiment_id)
    assert named.experiment_id != first.experiment_id
    assert (await services.runs.search(first.experiment_id)).experiment_id == named.experiment_id


@pytest.mark.parametrize("name", ["nowhere", "9" * 30, "99999999999999999999", "٣", "-1", "0x1"])
async def test_an_unknown_experiment_is_refused_without_a_trace(
    services: Services, look: Callable[[], Look], name: str
) -> None:
    await services.experiments.search()
    before = look()
    for call in (
        lambda: services.runs.log(name, params={"a": 1}),
        lambda: services.runs.search(name),
        lambda: services.comparisons.compare(experiment=name),
    ):
        with pytest.raises(ExperimentNotFound) as caught:
            await call()
        assert "create_experiment" in caught.value.next
    assert look() == before


async def test_an_unknown_experiment_names_the_store_nearby_that_holds_runs(
    services: Services, project: Path, template: Path
) -> None:
    from conftest import copy_store

    other = build(Settings(home=copy_store(template, project / "lab")))
    await other.experiments.create("theirs")
    await other.runs.log("theirs")
    with pytest.raises(ExperimentNotFound) as caught:
        await services.runs.search("theirs")
    assert f"MLFLOW_TRACKING_URI=sqlite:///{project}/lab/mlflow.db" in str(caught.value)
    empty = await services.experiments.search()
    assert [note for note in empty.notes if "lab/mlflow.db holds 1 run" in note]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"tags": {"mlflow.user": "x"}}, InvalidName),
        ({"tags": {"intelligentscan.kind": "x"}}, InvalidName),
        ({"tags": {"a\nb": "x"}}, InvalidName),
        ({"tags": {"a": FIVE_MB}}, TooLarge),
        ({"tags": {f"t{i}": "x" for i in range(101)}}, TooLarge),
        ({"tags": {"a": ["x"]}}, InvalidArgument),
        ({"description": FIVE_MB}, TooLarge),
        ({"product": "a/b"}, InvalidName),
        ({"product": FIVE_MB}, InvalidName),
    ],
)
async def test_bad_details_are_refused_without_a_trace(
    services: Services, look: Callable[[], Look], given: dict[str, object], error: type[IntelligentScanError]
) -> None:
    await services.experiments.search()
    before = look()
    with pytest.raises(error) as caught:
        await services.experiments.create("exp", **given)  # type: ignore[arg-type]
    assert caught.value.next
    assert len(str(caught.value)) < 1_000
    assert look() == before


async def test_search_finds_text_anywhere_in_the_name_and_products(services: Services) -> None:
    for name, product in (("Fraud-2024", "ace"), ("fraud-2025", None), ("other", "ace")):
        await services.experiments.create(name, product=product)
    found = await services.experiments.search(query="FRAUD")
    assert {e.name for e in found.experiments} == {"Fraud-2024", "fraud-2025"}
    assert {e.name for e in (await services.experiments.search(product="ace")).experiments} == {"Fraud-2024", "other"}
    both = await services.experiments.search(query="fraud", product="ace")
    assert [(e.name, e.product) for e in both.experiments] == [("Fraud-2024", "ace")]
    assert (await services.experiments.search(query="nothing")).experiments == []


async def test_search_pages_through_all_and_a_cursor_belongs_to_its_call(services: Services) -> None:
    for number in range(7):
        await services.experiments.create(f"e{number}")
    names: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        page = await services.experiments.search(query="e", limit=3, cursor=cursor)
        names += [e.name for e in page.experiments]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(names) == sorted([f"e{n}" for n in range(7)] + ["Default"])
    first = await services.experiments.search(query="e", limit=3)
    for wrong in (first.next_cursor, "rubbish", "", "x" * 5000, "é", FIVE_MB):
        with pytest.raises(InvalidCursor):
            await services.experiments.search(query="other", cursor=wrong)


@pytest.mark.parametrize("limit", [0, -1, 101, 10**9])
async def test_a_limit_out_of_bounds_is_refused(services: Services, limit: int) -> None:
    with pytest.raises(InvalidArgument):
        await services.experiments.search(limit=limit)


@pytest.mark.parametrize("query", [FIVE_MB, "a\x00b"])
async def test_a_search_text_that_fits_no_name_is_an_error_or_finds_nothing(services: Services, query: str) -> None:
    try:
        assert (await services.experiments.search(query=query)).experiments == []
    except InvalidArgument as error:
        assert error.next


async def test_hostile_names_of_plain_mlflow_are_shown_escaped(services: Services, client: "MlflowClient") -> None:
    client.create_experiment("see [this](http://evil) <img src=x> \u202e!")
    shown = (await services.experiments.search(query="evil")).experiments[0].name
    assert shown.isprintable()
    assert "](" not in shown
    assert "<img" not in shown
