"""The MCP face on real services: right answers, errors an agent can act on, answers that fit."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_client import MODES, answered, connected, refused, text_of
from mcp_types import ResourceLink
from pydantic import Field

from intelligentscan.app import Services
from intelligentscan.domain.errors import RunNotFound
from intelligentscan.domain.noun import Noun
from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.selection import select
from intelligentscan.toolsets.toolset import Toolset, tool

both_modes = pytest.mark.parametrize("mode", MODES)
SARIF = {
    "version": "2.1.0",
    "runs": [
        {
            "tool": {"driver": {"name": "check", "rules": [{"id": "R1"}]}},
            "results": [
                {
                    "ruleId": "R1",
                    "level": "error",
                    "message": {"text": "weak"},
                    "locations": [
                        {"physicalLocation": {"artifactLocation": {"uri": "a.py"}, "region": {"startLine": 3}}}
                    ],
                }
            ],
        }
    ],
}


class Word(Noun):
    """A result of one word."""

    word: str


class Trouble(Toolset):
    """A toolset whose tools go wrong in ways that real ones should not."""

    name = "trouble"
    began: ClassVar[anyio.Event]
    ended: ClassVar[anyio.Event]

    @tool(title="Crash")
    async def crash(self, secret: Annotated[str, Field(max_length=100, description="Text.")]) -> Word:
        """Crash with the argument in the exception."""
        raise RuntimeError(f"could not use {secret}")

    @tool(title="Refuse in a group")
    async def refuse_in_a_group(self) -> Word:
        """Refuse inside a task group."""

        async def refuse() -> None:
            raise RunNotFound("There is no such run.", next="search_runs lists them.")

        async with anyio.create_task_group() as group:
            group.start_soon(refuse)
        return Word(word="never")

    @tool(title="Wait")
    async def wait(self) -> Word:
        """Wait until cancelled."""
        Trouble.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            Trouble.ended.set()
        return Word(word="never")


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> type[Trouble]:
    monkeypatch.setitem(BUILT_IN, Trouble.name, Trouble)
    Trouble.began, Trouble.ended = anyio.Event(), anyio.Event()
    return Trouble


@both_modes
async def test_a_result_is_structured_once_and_told_as_compact_text(services: Services, mode: str) -> None:
    async with connected(services, mode) as client:
        result = await client.call_tool("create_experiment", {"name": "fraud", "product": "cards"})
        assert result.structured_content["name"] == "fraud"
        assert result.structured_content["created"] is True
        text = text_of(result)
        told = {key: value for key, value in result.structured_content.items() if value is not None}
        assert json.loads(text) == told
        assert "\n" not in text
        again = await answered(client, "create_experiment", name="fraud")
        assert again["created"] is False


@both_modes
async def test_a_life_cycle_of_runs_answers_what_was_logged(services: Services, mode: str) -> None:
    async with connected(services, mode) as client:
        await answered(client, "create_experiment", name="e")
        ids = [
            (await answered(client, "log_run", experiment="e", params={"depth": d}, metrics={"f1": d / 10}))["run_id"]
            for d in (3, 5)
        ]
        run = await answered(client, "get_run", run_id=ids[0][:12])
        assert (run["run_id"], run["params"], run["metrics"]) == (ids[0], {"depth": "3"}, {"f1": 0.3})
        best = await answered(client, "search_runs", experiment="e", order_by="metrics.f1 DESC", limit=1)
        assert [row["run_id"] for row in best["runs"]] == [ids[1]]
        comparison = await client.call_tool("compare_runs", {"run_ids": ids})
        assert comparison.structured_content["metrics"][0]["best_run_id"] == ids[1]
        assert text_of(comparison).startswith(comparison.structured_content["summary"])


@both_modes
async def test_a_scan_answers_with_a_link_to_its_report_which_can_be_read(services: Services, mode: str) -> None:
    async with connected(services, mode) as client:
        await answered(client, "create_experiment", name="e")
        result = await client.call_tool("log_scan_run", {"experiment": "e", "sarif": SARIF})
        assert not result.is_error, text_of(result)
        (link,) = [block for block in result.content if isinstance(block, ResourceLink)]
        run_id = result.structured_content["run_id"]
        assert link.uri == result.structured_content["report"] == f"intelligentscan://runs/{run_id}/report"
        (report,) = (await client.read_resource(link.uri)).contents
        assert (report.mime_type, "R1" in report.text) == ("text/markdown", True)
        (sarif,) = (await client.read_resource(f"intelligentscan://runs/{run_id}/sarif")).contents
        assert sarif.mime_type == "application/json"
        assert json.loads(sarif.text)["version"] == "2.1.0"


@both_modes
@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("intelligentscan://runs/00000000000000000000000000000000/report", "RUN_NOT_FOUND"),
        ("intelligentscan://runs/..%2F..%2Fetc/report", "NOT_FOUND"),
        ("intelligentscan://nothing", "NOT_FOUND"),
    ],
)
async def test_a_resource_that_is_not_there_is_an_error_with_a_next_step(
    services: Services, mode: str, uri: str, code: str
) -> None:
    async with connected(services, mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    assert caught.value.error.code == -32602
    assert caught.value.error.data["code"] == code
    assert caught.value.error.data["next"] in caught.value.error.message


@both_modes
async def test_a_domain_error_is_a_fact_and_a_next_step(services: Services, mode: str) -> None:
    async with connected(services, mode) as client:
        error = await refused(client, "log_run", experiment="nowhere")
    assert error["code"] == "EXPERIMENT_NOT_FOUND"
    assert "create_experiment" in error["next"]


@pytest.mark.parametrize(
    ("name", "arguments", "named", "allowed"),
    [
        ("create_experiment", {}, "name", "1 to 250 characters"),
        ("create_experiment", {"name": "x" * 251}, "name", "1 to 250 characters"),
        ("create_experiment", {"name": ""}, "name", "1 to 250 characters"),
        ("search_runs", {"experiment": "e", "limit": 500}, "limit", "1 to 100"),
        ("search_runs", {"experiment": "e", "limit": "many"}, "limit", "integer"),
        ("get_run", {"run_id": "abc"}, "run_id", "6 to 64 characters"),
        ("compare_runs", {"run_ids": ["a" * 32]}, "run_ids", "2 to 100 items"),
        ("compare_runs", {"run_ids": "not json"}, "run_ids", "array"),
        ("compare_runs", {"response_format": "long"}, "response_format", "one of concise, detailed"),
        ("log_run", {"experiment": "e", "params": [1]}, "params", "object"),
        ("log_run", {"experiment": "e", "status": "DONE"}, "status", "FINISHED, RUNNING, FAILED, KILLED"),
        ("log_scan_run", {"experiment": "e", "sarif": "{broken"}, "sarif", "object"),
        ("list_findings", {"run_id": "a" * 32, "severity": "worst"}, "severity", "critical, high, medium, low, info"),
        ("register_model", {"name": "m", "run_id": "abcdef"}, "run_id", "32"),
        ("promote", {"name": "m", "to": "Staging"}, "version", "integer"),
        ("promote", {"name": "m", "version": "one", "to": "Staging"}, "version", "integer"),
        ("promote", {"name": "m", "version": True, "to": "Staging"}, "version", "integer"),
        ("get_model", {"name": "m", "version": True}, "version", "integer"),
        ("request_review", {"name": "m", "version": True}, "version", "integer"),
        ("search_runs", {"experiment": "e", "limit": True}, "limit", "1 to 100"),
    ],
)
async def test_a_wrong_argument_is_named_with_what_is_allowed(
    services: Services, look: Callable[[], Any], name: str, arguments: dict[str, Any], named: str, allowed: str
) -> None:
    before = look()
    async with connected(services) as client:
        error = await refused(client, name, **arguments)
    assert error["code"] == "INVALID_ARGUMENT"
    assert named in error["message"]
    assert f"call {name} again with {named}" in error["next"]
    assert allowed in error["next"]
    assert named in error["details"]["allowed"]
    assert look() == before


async def test_unknown_arguments_are_refused_with_the_known_ones(services: Services, look: Callable[[], Any]) -> None:
    before = look()
    async with connected(services) as client:
        error = await refused(client, "create_experiment", name="e", tag={"a": "b"}, colour="red")
    assert error["code"] == "INVALID_ARGUMENT"
    assert "'colour', 'tag'" in error["message"]
    assert "Did you mean tags?" in error["message"]
    assert error["details"] == {"allowed": ["name", "description", "tags", "product"]}
    assert look() == before


async def test_values_are_never_repeated_and_errors_stay_short(services: Services) -> None:
    huge = "\u202esecret" * 1_000_000
    async with connected(services) as client:
        for arguments in ({"name": huge}, {"name": {"a": huge}}, {huge: 1}, {"name": "e", "tags": {huge: huge}}):
            result = await client.call_tool("create_experiment", arguments)
            assert result.is_error
            told = text_of(result) + json.dumps(result.structured_content, ensure_ascii=False)
            assert len(told) < 8_000
            assert "\u202e" not in told


async def test_lists_and_objects_may_come_as_json_text(services: Services) -> None:
    async with connected(services) as client:
        await answered(client, "create_experiment", name="e")
        first = await answered(client, "log_run", experiment="e", params='{"lr": 0.1}', metrics='{"f1": 0.5}')
        second = await answered(client, "log_run", experiment="e", metrics='{"f1": 0.7}')
        comparison = await answered(
            client, "compare_runs", run_ids=json.dumps([first["run_id"], second["run_id"]]), only_differences="true"
        )
        assert len(comparison["runs"]) == 2
        imported = await answered(client, "log_scan_run", experiment="e", sarif=json.dumps(SARIF))
        assert imported["vulnerabilities_found"] == 1


async def test_an_empty_text_for_an_optional_argument_means_nothing_was_given(services: Services) -> None:
    async with connected(services) as client:
        await answered(client, "create_experiment", name="e", description="", product="")
        run = await answered(client, "log_run", experiment="e", run_id="", parent_run_id="", status="")
        assert run["status"] == "FINISHED"
        assert len((await answered(client, "search_runs", experiment="e", filter="", cursor=""))["runs"]) == 1


async def test_a_version_may_be_a_number_in_quotes(services: Services) -> None:
    async with connected(services) as client:
        error = await refused(client, "promote", name="nothing", version="3", to="staging")
    assert error["code"] in {"MODEL_NOT_FOUND", "VERSION_NOT_FOUND"}


async def test_an_unknown_tool_names_those_of_a_near_name(services: Services) -> None:
    async with connected(services) as client:
        near = await refused(client, "compare_run")
        far = await refused(client, "\u202e" + "x" * 5_000)
    assert (near["code"], near["details"]) == ("UNKNOWN_TOOL", {"tools": ["compare_runs"]})
    assert far["code"] == "UNKNOWN_TOOL"
    assert "get_run" in far["next"]
    assert len(far["message"]) < 200


@both_modes
async def test_read_only_offers_only_reading_and_wins_over_every_other_switch(services: Services, mode: str) -> None:
    selection = select(["tracking", "scan"], ["log_run"], True)
    async with connected(services, mode, selection) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"search_experiments", "search_runs", "get_run", "compare_runs", "list_findings"}
        for writing in ("log_run", "create_experiment", "promote"):
            error = await refused(client, writing, experiment="e", name="e")
            assert error["code"] == "READ_ONLY"
            assert "--read-only" in error["next"]
    assert (await services.experiments.search()).experiments[0].name == "Default"


@both_modes
async def test_excluded_tools_and_toolsets_that_are_off_are_refused_with_the_switch(
    services: Services, mode: str
) -> None:
    async with connected(services, mode, select(["tracking"], ["compare_runs"], False)) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"create_experiment", "search_experiments", "log_run", "search_runs", "get_run"}
        excluded = await refused(client, "compare_runs", experiment="e")
        off = await refused(client, "promote", name="m", version=1, to="Staging")
        templates = (await client.list_resource_templates()).resource_templates
    assert (excluded["code"], "--exclude-tools" in excluded["message"]) == ("UNKNOWN_TOOL", True)
    assert (off["code"], "--toolsets" in off["message"]) == ("UNKNOWN_TOOL", True)
    assert templates == []


@both_modes
async def test_a_crash_shows_an_incident_id_and_the_trace_is_in_the_log(
    services: Services, trouble: type[Trouble], mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(services, mode, select(None, (), False)) as client:
        with caplog.at_level(logging.ERROR):
            error = await refused(client, "crash", secret="hunter2")
        assert (await answered(client, "search_experiments"))["experiments"]
    assert error["code"] == "INTERNAL_ERROR"
    incident = error["details"]["incident"]
    assert incident in error["message"]
    assert "hunter2" not in json.dumps(error)
    (record,) = [r for r in caplog.records if incident in r.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


async def test_a_refusal_from_a_task_group_is_still_a_refusal(services: Services, trouble: type[Trouble]) -> None:
    async with connected(services, selection=select(None, (), False)) as client:
        assert (await refused(client, "refuse_in_a_group"))["code"] == "RUN_NOT_FOUND"


@both_modes
async def test_a_cancelled_call_is_cancelled_in_the_tool_and_the_session_goes_on(
    services: Services, trouble: type[Trouble], mode: str
) -> None:
    async with connected(services, mode, select(None, (), False)) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "wait", {})
            await trouble.began.wait()
            group.cancel_scope.cancel()
        with anyio.fail_after(10):
            await trouble.ended.wait()
        assert (await answered(client, "search_experiments"))["experiments"]


@both_modes
async def test_a_scan_reports_progress_that_only_grows(services: Services, project: Path, mode: str) -> None:
    (project / "weak.py").write_text("import subprocess\nsubprocess.call('ls', shell=True)\n")
    seen: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        assert total == 1.0
        assert message
        seen.append(done)

    async with connected(services, mode) as client:
        result = await client.call_tool(
            "scan_vulnerabilities", {"repo_path": str(project), "engines": "bandit"}, progress_callback=progress
        )
    assert not result.is_error, text_of(result)
    assert result.structured_content["vulnerabilities_found"] >= 1
    assert len(seen) >= 2
    assert seen == sorted(seen)
