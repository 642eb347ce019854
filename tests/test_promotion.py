"""Promotion of governed versions: record, stage and alias move together, once, and only what passes every gate."""

import asyncio
import json
import threading
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from conftest import Look, Trained, run_plain
from reviewed import approve, release

from intelligentscan.app import Services
from intelligentscan.domain.errors import (
    IntelligentScanError,
    InvalidArgument,
    InvalidCursor,
    ModelNotFound,
    StoreError,
    VersionNotFound,
)
from intelligentscan.domain.registry import ALIAS_OF_STAGE, PREVIOUS, PromotionDecision, Stage, stage_from
from intelligentscan.store_environment import exports

FIVE_MB = "x" * 5_000_000


@pytest.fixture
async def services(registered: Trained) -> Services:
    """Services on a store whose two versions the committee of one has approved."""
    services = registered.services
    for version in (1, 2):
        await approve(services, "fm", version)
    return services


async def versions(services: Services) -> dict[int, tuple[str, list[str]]]:
    """Return stage and aliases of each version."""
    return {v.version: (v.stage, v.aliases) for v in (await services.registry.get("fm")).versions}


async def live(services: Services) -> dict[str, list[int]]:
    """Return which versions are live by our record."""
    found = (await services.history.get(name="fm")).live
    return {stage: [v.version for v in there] for stage, there in found.items()}


async def test_stage_and_alias_move_together_and_the_outgoing_version_is_kept_as_previous(
    services: Services, registered: Trained
) -> None:
    first = await services.registry.promote("fm", 1, "production", reason="the first")
    assert (first.status, first.stage, first.aliases, first.previous_version) == (
        "promoted", "Production", ["champion"], None,
    )  # fmt: skip
    assert {(g.gate, g.outcome) for g in first.gates} == {
        ("sealed", "pass"), ("intact", "pass"), ("not_drifted", "pass"), ("reviewed", "pass"),
    }  # fmt: skip
    staged = await services.registry.promote("fm", 2, "STAGING")
    assert (staged.stage, staged.aliases) == ("Staging", ["challenger"])
    assert await live(services) == {"Production": [1], "Staging": [2]}
    second = await services.registry.promote("fm", 2, "Production", reason="better")
    assert (second.previous_version, second.changed) == (1, True)
    assert await versions(services) == {1: ("Archived", ["previous"]), 2: ("Production", ["champion"])}
    assert await live(services) == {"Production": [2], "Staging": []}
    plain = registered.client.get_registered_model("fm")
    assert plain.aliases == {"champion": 2, "previous": 1} or plain.aliases == {"champion": "2", "previous": "1"}
    assert (await services.integrity.verify("fm")).problems == []


async def test_reasons_are_in_the_trail_and_with_the_version_and_in_no_tag(
    services: Services, registered: Trained
) -> None:
    await services.registry.promote("fm", 1, "Production", reason="the first")
    await services.registry.promote("fm", 2, "Production", reason="better")
    assert [v.reason for v in (await services.registry.get("fm")).versions] == ["better", "the first"]
    newest, *_ = (await services.history.get(name="fm", version=2)).events
    assert (newest.action, newest.reason, newest.version) == ("version.promoted", "better", 2)
    assert newest.facts["stages"] == {"1": "Archived", "2": "Production"}
    assert newest.facts["aliases"] == {"champion": 2, "previous": 1}
    assert [dict(registered.client.get_model_version("fm", v).tags) for v in ("1", "2")] == [{}, {}]


async def test_going_back_to_the_previous_version_swaps_the_two(services: Services) -> None:
    for version in (1, 2, 1):
        await services.registry.promote("fm", version, "Production", reason="r")
    assert await versions(services) == {1: ("Production", ["champion"]), 2: ("Archived", ["previous"])}
    assert await live(services) == {"Production": [1], "Staging": []}


async def test_a_demoted_version_loses_its_alias(services: Services) -> None:
    await services.registry.promote("fm", 1, "Production", reason="r")
    await services.registry.promote("fm", 2, "Production", reason="r")
    archived = await services.registry.promote("fm", 2, "Archived")
    assert (archived.stage, archived.aliases, archived.gates) == ("Archived", [], [])
    assert await versions(services) == {1: ("Archived", ["previous"]), 2: ("Archived", [])}
    assert await live(services) == {"Production": [], "Staging": []}
    await services.registry.promote("fm", 1, "Staging")
    assert (await versions(services))[1] == ("Staging", ["challenger"])
    assert (await services.integrity.verify("fm")).problems == []


MOVES: tuple[tuple[int, Stage], ...] = tuple((v, s) for v in (1, 2) for s in ("Staging", "Production", "Archived"))


def every_pair() -> list[tuple[int, Stage]]:
    """Return a walk in which every move follows every other one, and itself."""
    after = {move: list(MOVES) for move in MOVES}
    walk, stack = [], [MOVES[0]]
    while stack:
        if after[stack[-1]]:
            stack.append(after[stack[-1]].pop())
        else:
            walk.append(stack.pop())
    return walk[::-1]


class Expected:
    """Where versions and aliases are to be after each move."""

    def __init__(self) -> None:
        self.stage: dict[int, Stage] = {1: "None", 2: "None"}
        self.alias: dict[str, int] = {}

    def move(self, version: int, stage: Stage) -> None:
        own = ALIAS_OF_STAGE.get(stage)
        if self.stage[version] == stage and (own is None or self.alias.get(own) == version):
            return
        there = [v for v, s in self.stage.items() if s == stage]
        holder = self.alias.get(own, there[0] if there else None) if own else None
        self.alias = {a: v for a, v in self.alias.items() if v != version}
        if own is not None:
            self.stage = {v: "Archived" if s == stage else s for v, s in self.stage.items()}
            self.alias[own] = version
        self.stage[version] = stage
        if stage == "Production" and holder not in (None, version):
            self.alias[PREVIOUS] = holder  # type: ignore[assignment]

    @property
    def versions(self) -> dict[int, tuple[str, list[str]]]:
        return {v: (s, sorted(a for a, at in self.alias.items() if at == v)) for v, s in self.stage.items()}


async def test_every_move_after_every_other_and_plain_moves_in_between_leave_record_and_registry_alike(
    services: Services, registered: Trained
) -> None:
    """Plain clients may move what is not in Production; that is no drift."""
    expected = Expected()
    walk = every_pair()
    assert len(walk) == len(MOVES) ** 2 + 1
    plain: list[Stage] = ["Staging", "None", "Archived"]
    for number, (version, stage) in enumerate(walk):
        await services.registry.promote("fm", version, stage, reason="r")
        expected.move(version, stage)
        assert await versions(services) == expected.versions, walk[: number + 1]
        assert (await live(services))["Production"] == [v for v, s in expected.stage.items() if s == "Production"]
        if number % 4 == 3:
            other, to = 3 - version, plain[number % 3]
            if expected.stage[other] != "Production":
                registered.client.transition_model_version_stage("fm", str(other), to)
                expected.stage[other] = to
    assert (await services.integrity.verify("fm")).problems == []


async def test_plain_moves_to_staging_are_free_and_to_production_need_the_decision(
    services: Services, registered: Trained, look: Callable[[], Look]
) -> None:
    from mlflow.exceptions import MlflowException

    client = registered.client
    client.transition_model_version_stage("fm", "1", "Staging")
    client.set_registered_model_alias("fm", "challenger", "1")
    assert await versions(services) == {1: ("Staging", ["challenger"]), 2: ("None", [])}
    before = look()
    for act in (
        lambda: client.transition_model_version_stage("fm", "1", "Production"),
        lambda: client.set_registered_model_alias("fm", "champion", "1"),
        lambda: client.set_registered_model_alias("fm", "Pr0duct1on", "1"),
        lambda: client.delete_model_version("fm", "1"),
        lambda: client.set_model_version_tag("fm", "1", "approved", "yes"),
    ):
        with pytest.raises(MlflowException) as caught:
            act()
        assert caught.value.error_code == "BAD_REQUEST"
    assert look() == before
    with pytest.raises(MlflowException, match=r"PROMOTION_REQUIRED: .*call promote"):
        client.transition_model_version_stage("fm", "1", "Production")
    await services.registry.promote("fm", 1, "Production", reason="r")
    with pytest.raises(MlflowException, match="PROMOTION_REQUIRED"):
        client.transition_model_version_stage("fm", "1", "Archived")
    client.transition_model_version_stage("fm", "1", "Production")
    assert (await services.integrity.verify("fm")).problems == []


async def test_what_stood_in_staging_by_plain_moves_alone_gives_way_to_a_promoted_version(
    services: Services, registered: Trained
) -> None:
    registered.client.transition_model_version_stage("fm", "1", "Staging")
    would = await services.registry.promote("fm", 2, "Staging", dry_run=True)
    done = await services.registry.promote("fm", 2, "Staging")
    assert (would.previous_version, done.previous_version) == (1, 1)
    assert await versions(services) == {1: ("Archived", []), 2: ("Staging", ["challenger"])}


async def test_a_version_that_is_there_already_stays_and_nothing_is_written(
    services: Services, look: Callable[[], Look]
) -> None:
    await services.registry.promote("fm", 1, "Production", reason="r")
    before = look()
    again = await services.registry.promote("fm", 1, "Production", reason="again")
    assert (again.status, again.changed) == ("promoted", False)
    assert look() == before


async def test_aliases_of_others_are_left_alone(services: Services, registered: Trained) -> None:
    registered.client.set_registered_model_alias("fm", "mine", "1")
    await services.registry.promote("fm", 1, "Production", reason="r")
    await services.registry.promote("fm", 2, "Production", reason="r")
    assert await versions(services) == {1: ("Archived", ["mine", "previous"]), 2: ("Production", ["champion"])}
    assert (await services.integrity.verify("fm")).problems == []


@pytest.mark.parametrize("to", ["Staging", "Production", "Archived"])
async def test_a_dry_run_of_a_promotion_changes_nothing(services: Services, look: Callable[[], Look], to: str) -> None:
    await services.registry.promote("fm", 1, to, reason="r")
    before = look()
    would = await services.registry.promote("fm", 2, to, reason="r", dry_run=True)
    assert (would.status, would.stage) == ("would_promote", to)
    assert would.previous_version == (None if to == "Archived" else 1)
    assert look() == before


BAD: list[tuple[int, str, str | None, type[IntelligentScanError]]] = [
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
]


async def test_an_impossible_promotion_is_refused_without_a_trace(services: Services, look: Callable[[], Look]) -> None:
    before = look()
    for version, to, reason, error in BAD:
        with pytest.raises(error) as caught:
            await services.registry.promote("fm", version, to, reason=reason)
        assert caught.value.next
        assert len(str(caught.value)) < 1_000
        assert str(caught.value).isprintable()
    assert look() == before


async def test_an_unknown_model_and_version_are_named(services: Services) -> None:
    for call in (lambda: services.registry.get("other"), lambda: services.registry.promote("other", 1, "Staging")):
        with pytest.raises(ModelNotFound) as caught:
            await call()
        assert "register_model" in caught.value.next
    with pytest.raises(VersionNotFound) as missing:
        await services.registry.get("fm", version=3)
    assert "get_model" in missing.value.next


@pytest.mark.parametrize("statement", ["registered_model_aliases", "UPDATE model_versions", "INSERT INTO gov_stage"])
async def test_a_promotion_that_fails_in_the_middle_changes_nothing(
    services: Services, look: Callable[[], Look], statement: str
) -> None:
    await services.registry.promote("fm", 1, "Production", reason="r")
    before = look()
    engine = await services.store.read(lambda s: s.governance.engine)

    def refuse(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        if statement in sql and not sql.startswith("SELECT"):
            raise sqlalchemy.exc.DatabaseError(sql, {}, Exception("not now"))

    sqlalchemy.event.listen(engine, "before_cursor_execute", refuse)
    with pytest.raises(StoreError) as caught:
        await services.registry.promote("fm", 2, "Production", reason="r")
    sqlalchemy.event.remove(engine, "before_cursor_execute", refuse)
    assert "not now" in caught.value.message
    assert look() == before
    assert (await services.registry.promote("fm", 2, "Production", reason="r")).previous_version == 1


def test_promotions_of_two_versions_at_once_end_in_one_consistent_state(registered: Trained) -> None:
    decisions: list[PromotionDecision] = []
    failed: list[Exception] = []
    ready = threading.Barrier(4)

    def promote(version: int) -> None:
        services = registered.services
        ready.wait()
        try:
            live = services.registry.promote
            decisions.extend(asyncio.run(live("fm", version, "Production", reason="r")) for _ in range(5))
        except Exception as exc:
            failed.append(exc)

    for version in (1, 2):
        asyncio.run(approve(registered.services, "fm", version))
    threads = [threading.Thread(target=promote, args=(version,)) for version in (1, 2, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(decisions) == 20
    state = asyncio.run(versions(registered.services))
    assert sorted(state.values()) == [("Archived", ["previous"]), ("Production", ["champion"])]
    assert asyncio.run(registered.services.integrity.verify("fm")).problems == []


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
    trained: Trained, tmp_path: Path
) -> None:
    """Also after the originals were swapped: what it loads are the sealed bytes."""
    services = trained.services
    for run_id in (trained.with_model, trained.better, trained.legacy):
        await services.registry.register("fm", run_id=run_id)
    await release(services, "fm", 1, reason="r")
    await release(services, "fm", 2, reason="r")
    await services.registry.promote("fm", 3, "Staging")
    swap_originals(trained)
    uris = ("/Production", "@champion", "@previous", "/Staging", "@challenger", "/1", "/3")
    ended = await asyncio.to_thread(run_plain, LOAD, "fm", *uris, env=exports(trained.settings), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    loaded = {uri: strength for uri, (strength, predicted) in json.loads(ended.stdout).items() if predicted == [0, 1]}
    assert loaded == {
        "/Production": 3.0, "@champion": 3.0, "@previous": 1.0, "/Staging": 1.0, "@challenger": 1.0,
        "/1": 1.0, "/3": 1.0,
    }  # fmt: skip
    report = await services.integrity.verify("fm")
    assert {p.code for p in report.problems} == {"FILES"}, "the loads left the sealed copies as they were"


def swap_originals(trained: Trained) -> None:
    """Put another model in the place of every logged one."""
    import pickle

    from sklearn.dummy import DummyClassifier

    other = pickle.dumps(DummyClassifier(strategy="constant", constant=1).fit([[0.0], [1.0]], [0, 1]))
    swapped = list(
        chain.from_iterable((trained.home / "artifacts").rglob(f"model.{kind}") for kind in ("pkl", "skops"))
    )
    assert len(swapped) >= 5
    for file in swapped:
        file.write_bytes(other)


# Reading


async def test_versions_are_listed_newest_first_in_pages(trained: Trained) -> None:
    services = trained.services
    for given in ({"run_id": trained.with_model}, {"run_id": trained.with_two, "model_path": "left"}):
        await services.registry.register("fm", **given)
    await services.registry.register("fm", run_id=trained.with_two, model_path="right")
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page = await services.registry.get("fm", limit=2, cursor=cursor)
        seen += [v.version for v in page.versions]
        assert (page.governed, {v.state for v in page.versions}) == (True, {"sealed"})
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [3, 2, 1]
    first = await services.registry.get("fm", limit=2)
    await services.registry.register("fm-other", run_id=trained.better)
    with pytest.raises(InvalidCursor):
        await services.registry.get("fm-other", limit=2, cursor=first.next_cursor)
    one = await services.registry.get("fm", version=2)
    assert [v.version for v in one.versions] == [2]


async def test_hostile_descriptions_are_shown_escaped(trained: Trained) -> None:
    evil = "[x](http://evil) <script>\u202e"
    services = trained.services
    trained.client.create_registered_model("fm", description=evil)
    made = await services.registry.register("fm", run_id=trained.with_model, description=evil, use_case=evil)
    await services.registry.promote("fm", 1, "Production", reason=evil)
    found, history = await services.registry.get("fm"), await services.history.get(name="fm")
    assert found.description
    for shown in (made.model_dump_json(), found.model_dump_json(), history.model_dump_json()):
        for bad in ("](", "<script", "\u202e"):
            assert bad not in shown


def test_a_stage_that_does_not_exist_is_shown_without_what_could_act() -> None:
    with pytest.raises(InvalidArgument) as refused:
        stage_from("\u202e\x1b[31m<script>![x](http://e)")
    shown = str(refused.value)
    assert "\x1b" not in shown
    assert "<script" not in shown
    assert "](" not in shown
