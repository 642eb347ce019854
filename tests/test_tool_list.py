"""The tool list as an agent gets it: complete, bounded, short."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mcp_client import EVERYTHING, services_at

from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.mcp_server import INSTRUCTIONS, IntelligentScanServer
from intelligentscan.toolsets.selection import select
from intelligentscan.toolsets.toolset import tools_of

LISTS = {"search_experiments", "search_runs", "list_findings", "get_model", "get_history"}
READS = LISTS | {"get_run", "compare_runs", "verify_integrity"}
ARGUMENTS = {
    "create_experiment": "name description tags product",
    "search_experiments": "query product limit cursor",
    "log_run": "experiment run_id run_name params metrics metric_history tags artifacts parent_run_id status "
    "idempotency_key",
    "search_runs": "experiment filter order_by limit cursor columns",
    "get_run": "run_id experiment metric_history",
    "compare_runs": "run_ids experiment top_k order_by metrics only_differences response_format",
    "scan_vulnerabilities": "repo_path experiment engines config baseline idempotency_key",
    "log_scan_run": "experiment sarif_path sarif findings repo_path scanner scanner_version params metrics tags "
    "baseline idempotency_key",
    "list_findings": "run_id severity state rule path limit cursor",
    "register_model": "run_id name model_uri model_path description tags product use_case abandon_running dry_run "
    "confirm",
    "get_model": "name version limit cursor",
    "promote": "name version to reason dry_run confirm",
    "request_review": "name version evidence",
    "get_history": "name version at actor limit cursor",
    "verify_integrity": "name version",
}
REQUIRED = {
    "create_experiment": ["name"],
    "search_experiments": [],
    "log_run": ["experiment"],
    "search_runs": ["experiment"],
    "get_run": ["run_id"],
    "compare_runs": [],
    "scan_vulnerabilities": ["repo_path"],
    "log_scan_run": ["experiment"],
    "list_findings": ["run_id"],
    "register_model": ["name"],
    "get_model": ["name"],
    "promote": ["name", "version", "to"],
    "request_review": ["name", "version"],
    "get_history": [],
    "verify_integrity": [],
}
BOUNDS = {
    "string": {"maxLength", "enum"},
    "integer": {"minimum"},
    "array": {"maxItems"},
    "object": {"type"},
    "boolean": {"type"},
}


@pytest.fixture
async def tools(tmp_path: Path) -> dict[str, dict[str, Any]]:
    server = IntelligentScanServer(services_at(tmp_path), EVERYTHING)
    return {t.name: t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in await server.list_tools()}


def compact(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


async def test_the_fifteen_tools_are_listed_with_the_arguments_of_the_contract(tools: dict[str, Any]) -> None:
    assert tools.keys() == ARGUMENTS.keys()
    for name, tool in tools.items():
        assert set(ARGUMENTS[name].split()) <= tool["inputSchema"]["properties"].keys(), name
        assert tool["inputSchema"].get("required", []) == REQUIRED[name], name


async def test_the_whole_list_stays_within_the_budget_of_an_agent(tools: dict[str, Any]) -> None:
    assert sum(compact(tool) for tool in tools.values()) <= 24_000


async def test_descriptions_are_short_name_the_neighbouring_tool_and_say_when_nothing_changes(
    tools: dict[str, Any],
) -> None:
    lengths = {name: len(tool["description"]) for name, tool in tools.items()}
    assert max(lengths.values()) <= 400
    assert sum(lengths.values()) / len(lengths) <= 220
    for name, tool in tools.items():
        others = tools.keys() - {name}
        assert any(other in tool["description"] for other in others), name
        assert ("Changes nothing." in tool["description"]) == (name in READS), name


async def test_every_tool_states_its_title_and_all_four_hints(tools: dict[str, Any]) -> None:
    for name, tool in tools.items():
        assert tool["title"]
        assert tool["annotations"] == {
            "readOnlyHint": name in READS,
            "destructiveHint": name == "promote",
            "idempotentHint": name in READS | {"create_experiment", "register_model", "promote", "request_review"},
            "openWorldHint": False,
        }, name


async def test_every_argument_has_a_description_a_plain_type_and_bounds(tools: dict[str, Any]) -> None:
    for name, tool in tools.items():
        for argument, schema in tool["inputSchema"]["properties"].items():
            assert schema["description"], (name, argument)
            assert BOUNDS[schema["type"]] & schema.keys(), (name, argument)


async def test_every_field_of_a_result_has_a_type_and_lists_say_what_is_in_their_rows(tools: dict[str, Any]) -> None:
    for name, tool in tools.items():
        for field, schema in tool["outputSchema"]["properties"].items():
            assert schema["type"], (name, field)
            if schema["type"] == "array" and field not in ("notes", "warnings", "aliases"):
                assert schema["description"], (name, field)


async def test_every_list_has_a_limit_of_at_most_100_and_a_cursor(tools: dict[str, Any]) -> None:
    for name in LISTS:
        limit = tools[name]["inputSchema"]["properties"]["limit"]
        assert (limit["default"], limit["minimum"], limit["maximum"]) == (20, 1, 100)
        assert "next_cursor" in tools[name]["outputSchema"]["properties"]


async def test_schemas_are_valid_and_carry_no_titles_references_or_unions(tools: dict[str, Any]) -> None:
    for tool in tools.values():
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            Draft202012Validator.check_schema(schema)
            text = json.dumps(schema)
            assert not any(word in text for word in ('"$ref"', '"$defs"', '"anyOf"', '"title":'))


async def test_a_tool_that_is_off_by_default_is_published_as_fully_as_the_others(tmp_path: Path) -> None:
    server = IntelligentScanServer(services_at(tmp_path), select(None, (), False, ["onboard_product"]))
    (tool,) = [t for t in await server.list_tools() if t.name == "onboard_product"]
    published = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert published["inputSchema"]["required"] == ["name"]
    assert published["inputSchema"]["properties"].keys() == {"name", "description", "developers"}
    assert all(
        a["description"] and BOUNDS[a["type"]] & a.keys() for a in published["inputSchema"]["properties"].values()
    )
    assert all(field["type"] for field in published["outputSchema"]["properties"].values())
    assert len(published["description"]) <= 400
    assert published["annotations"] == {
        "readOnlyHint": False,
        "destructiveHint": False,
        "idempotentHint": True,
        "openWorldHint": False,
    }


def test_the_instructions_map_every_tool_in_1500_characters() -> None:
    assert len(INSTRUCTIONS) <= 1_500
    for toolset in BUILT_IN.values():
        for name, facts in tools_of(toolset).items():
            assert (name in INSTRUCTIONS) == facts.by_default


def test_the_instructions_say_that_registering_locks_and_comes_before_promoting() -> None:
    order = INSTRUCTIONS[INSTRUCTIONS.index("Order:") :]
    assert (
        order.index("register_model") < order.index("locks") < order.index("promote") < order.index("next_experiment")
    )
