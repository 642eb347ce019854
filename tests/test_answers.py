"""Answers fit into what an agent can take: cut where they must be, with nothing lost that a cursor can reach."""

import json
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from mcp_client import answered, connected, text_of

from intelligentscan.app import Services
from intelligentscan.toolsets.answer import ANSWER_CAP

if TYPE_CHECKING:
    from mlflow import MlflowClient


async def finished_run(services: Services, **more: Any) -> str:
    await services.experiments.create("e")
    return (await services.runs.log("e", **more)).run_id


async def test_metrics_that_are_not_finite_are_named_in_an_answer_that_is_still_valid(
    services: Services, client: "MlflowClient"
) -> None:
    run = client.create_run("0")
    client.log_metric(run.info.run_id, "loss", float("nan"))
    async with connected(services) as agent:
        shown = await answered(agent, "get_run", run_id=run.info.run_id)
    assert shown["metrics"] == {}
    assert "loss" in shown["notes"][0]


async def test_a_run_with_too_much_is_cut_under_the_cap_and_says_how_to_get_the_rest(services: Services) -> None:
    run_id = await finished_run(
        services, params={f"p{i:04}": "v" * 200 for i in range(900)}, metrics={f"m{i:04}": i for i in range(900)}
    )
    async with connected(services) as client:
        published = {t.name: t.output_schema for t in (await client.list_tools()).tools}["get_run"]
        result = await client.call_tool("get_run", {"run_id": run_id})
    shown = result.structured_content
    assert len(json.dumps(shown)) <= ANSWER_CAP
    assert len(text_of(result)) <= ANSWER_CAP
    assert shown["run_id"] == run_id
    assert len(shown["params"]) > 20
    assert len(shown["metrics"]) > 200
    assert f"params shows {len(shown['params'])} of 900" in text_of(result)
    assert "search_runs with columns" in text_of(result)
    assert "params shows" in shown["notes"][-1]
    Draft202012Validator(published).validate(shown)


async def test_a_page_that_is_too_long_is_shortened_so_that_its_cursor_misses_no_row(services: Services) -> None:
    await services.experiments.create("e")
    logged = {
        (await services.runs.log("e", params={f"p{i}": "v" * 100 for i in range(8)}, run_name="n" * 100)).run_id
        for _ in range(60)
    }
    found: list[str] = []
    cursor = None
    async with connected(services) as client:
        while True:
            result = await client.call_tool("search_runs", {"experiment": "e", "limit": 100, "cursor": cursor or ""})
            page = result.structured_content
            assert len(json.dumps(page)) <= ANSWER_CAP
            found += [row["run_id"] for row in page["runs"]]
            if (cursor := page["next_cursor"]) is None:
                break
            assert text_of(result).endswith(f"cursor={cursor}")
    assert len(found) == 60
    assert set(found) == logged


async def test_a_hundred_runs_are_compared_under_the_cap_with_a_clear_cut(services: Services) -> None:
    await services.experiments.create("e")
    ids = [
        (
            await services.runs.log(
                "e", params={f"p{k}": f"{i}-{k}" for k in range(10)}, metrics={f"m{k}": i * k for k in range(12)}
            )
        ).run_id
        for i in range(100)
    ]
    async with connected(services) as client:
        result = await client.call_tool("compare_runs", {"run_ids": ids})
    assert not result.is_error, text_of(result)
    assert len(json.dumps(result.structured_content)) <= ANSWER_CAP
    assert len(text_of(result)) <= ANSWER_CAP
    assert " of " in text_of(result) or result.structured_content["notes"]
    assert result.structured_content["runs"][0]["run_id"] == ids[0]
