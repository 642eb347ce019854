"""The server as clients start it: a real child process on stdio, in a small environment."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import fastmcp
import pytest
from fastmcp.client.transports import StdioTransport
from mcp_client import COMMAND, MODES, RawChild, answered, child_client, child_env, raw_child, refused

from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.selection import select

OFFERED = {name for toolset in BUILT_IN.values() for name in select(None, (), False).offers(toolset)}
SLOW_MLFLOW = """
import importlib, os, sys, time
while not os.path.exists(os.environ["MLFLOW_MAY_LOAD"]):
    time.sleep(0.01)
sys.path.remove(os.path.dirname(os.path.dirname(__file__)))
del sys.modules["mlflow"]
importlib.import_module("mlflow")
"""


def result_of(message: dict[str, Any]) -> dict[str, Any]:
    assert "error" not in message, message
    return dict(message["result"])


def test_importing_the_server_does_not_import_mlflow() -> None:
    script = (
        "import sys, intelligentscan.server.main; heavy = {'mlflow', 'typer', 'sqlalchemy', 'numpy', 'matplotlib'}; "
        "print(sorted(heavy & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_handshake_and_tool_list_are_answered_before_mlflow_is_there(home: Path, tmp_path: Path) -> None:
    package = tmp_path / "slow" / "mlflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SLOW_MLFLOW)
    signal = tmp_path / "now"
    env = child_env(home, PYTHONPATH=str(package.parent), MLFLOW_MAY_LOAD=str(signal))
    with raw_child(env) as child:
        waiting = child.call("search_experiments")
        child.send("server/discover")
        child.send("tools/list")
        assert {child.answer()["id"], child.answer()["id"]} == {waiting + 1, waiting + 2}
        signal.touch()
        message = child.answer()
        assert message["id"] == waiting
        assert result_of(message)["structuredContent"]["experiments"][0]["name"] == "Default"
        assert child.close() == 0


@pytest.mark.parametrize("mode", MODES)
async def test_the_sdk_client_works_in_both_eras(home: Path, mode: str) -> None:
    async with child_client(child_env(home), mode=mode) as client:
        assert client.protocol_version == {"auto": "2026-07-28", "legacy": "2025-11-25"}[mode]
        assert client.instructions is not None
        assert {tool.name for tool in (await client.list_tools()).tools} == OFFERED
        await answered(client, "create_experiment", name="e")
        run = await answered(client, "log_run", experiment="e", metrics={"f1": 0.5})
        assert (await answered(client, "get_run", run_id="latest", experiment="e"))["run_id"] == run["run_id"]
        assert (await refused(client, "get_run", run_id="0" * 32))["code"] == "RUN_NOT_FOUND"


async def test_fastmcp_client_works(home: Path) -> None:
    transport = StdioTransport(COMMAND[0], [*COMMAND[1:], "mcp"], env=child_env(home), keep_alive=False)
    async with fastmcp.Client(transport) as client:
        assert {tool.name for tool in await client.list_tools()} == OFFERED
        created = await client.call_tool("create_experiment", {"name": "e"})
        assert created.data.name == "e"
        refusal = await client.call_tool("get_run", {"run_id": "0" * 32}, raise_on_error=False)
        assert refusal.is_error


async def test_fifty_mixed_calls_at_once_get_each_their_own_answer(home: Path) -> None:
    rounds, kinds = 2, 5

    async def ask(client: Any, number: int, kind: int) -> None:
        name, key = f"e{number}", f"k{number}"
        match kind:
            case 0:
                asked = await answered(client, "create_experiment", name=name)
                assert asked["name"] == name
            case 1:
                found = await answered(client, "get_run", run_id=runs[number % len(runs)])
                assert found["params"] == {"number": str(number % len(runs))}
            case 2:
                found = await answered(
                    client, "search_runs", experiment="base", filter=f"params.number = '{number % 10}'"
                )
                assert [row["run_id"] for row in found["runs"]] == [runs[number % 10]]
            case 3:
                pair = [runs[number % 10], runs[(number + 1) % 10]]
                found = await answered(client, "compare_runs", run_ids=pair)
                assert [row["run_id"] for row in found["runs"]] == pair
            case 4:
                error = await refused(client, "log_run", experiment=key)
                assert f"'{key}'" in error["message"]

    async with child_client(child_env(home)) as client:
        await client.list_tools()
        await answered(client, "create_experiment", name="base")
        runs = [
            (await answered(client, "log_run", experiment="base", params={"number": n}))["run_id"] for n in range(10)
        ]
        for turn in range(rounds):
            async with anyio.create_task_group() as group:
                for number in range(50):
                    group.start_soon(ask, client, turn * 50 + number, number % kinds)


def test_nothing_but_the_protocol_is_on_stdout_whatever_the_client_writes(home: Path) -> None:
    with raw_child(child_env(home, PYTHONUNBUFFERED="1")) as child:
        child.send("server/discover")
        result_of(child.answer())
        for line in (b"hello\n", b"\xff\xfe\x00\n", b"[]\n", b"{}\n", b'{"jsonrpc":"2.0"}\n', b"x" * 1_000_000 + b"\n"):
            child.write(line)
        child.call("create_experiment", name="e")
        child.call("log_run", experiment="e", metrics={"a": 1})
        child.call("log_run", experiment="nowhere")
        child.call("no_such_tool")
        answers = [child.answer() for _ in range(4)]
        assert sorted(message["id"] for message in answers) == [2, 3, 4, 5]
        assert child.close() == 0
        assert child.noise == []
        assert child.stderr == ""


def test_metrics_that_are_no_finite_numbers_on_the_wire_are_refused(home: Path) -> None:
    arguments = {"experiment": "e", "metrics": {"loss": "PLACE"}}
    with raw_child(child_env(home)) as child:
        child.call("create_experiment", name="e")
        result_of(child.answer())
        for metric in ("NaN", "Infinity", "-Infinity", "1e999"):
            line = child.request("tools/call", name="log_run", arguments=arguments)
            child.write(line.replace('"PLACE"', metric).encode())
            answer = result_of(child.answer())
            assert answer["isError"]
            assert "'loss'" in answer["structuredContent"]["message"]
        child.call("search_runs", experiment="e")
        assert result_of(child.answer())["structuredContent"]["runs"] == []


def test_a_cheap_call_sent_during_a_scan_is_answered_before_the_scan_ends(home: Path, project: Path) -> None:
    for number in range(80):
        (project / f"m{number}.py").write_text("import os\n" * 200 + "os.system('ls')\n")
    with raw_child(child_env(home, project)) as child:
        child.call("search_experiments")
        result_of(child.answer())
        scan = child.call("scan_vulnerabilities", repo_path=str(project))
        cheap = child.call("search_experiments")
        assert [child.answer()["id"], child.answer()["id"]] == [cheap, scan]


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_closing_stdin_during_a_scan_ends_the_server_and_its_engines(home: Path, project: Path) -> None:
    for number in range(200):
        (project / f"m{number}.py").write_text("import os\n" * 300 + "os.system('ls')\n")
    with raw_child(child_env(home, project)) as child:
        child.call("search_experiments")
        result_of(child.answer())
        child.call("scan_vulnerabilities", repo_path=str(project))
        engines: list[int] = []
        while not engines:
            engines = children_of(child.process.pid)
        assert child.close() == 0
        assert [pid for pid in engines if Path(f"/proc/{pid}").exists()] == []


def test_closing_stdin_ends_an_idle_server_and_one_that_is_still_importing(home: Path) -> None:
    with raw_child(child_env(home)) as child:
        assert child.close() == 0
    with raw_child(child_env(home)) as child:
        child.send("server/discover")
        result_of(child.answer())
        child.call("search_experiments")
        assert child.close() == 0


def test_a_bare_command_whose_stdin_is_no_terminal_is_the_server(home: Path) -> None:
    with raw_child(child_env(home), command=None) as child:
        child.send("server/discover")
        assert result_of(child.answer())["supportedVersions"]


def names_offered(child: RawChild) -> set[str]:
    child.send("tools/list")
    return {tool["name"] for tool in result_of(child.answer())["tools"]}


@pytest.mark.parametrize(
    ("options", "settings", "offered"),
    [
        (["--toolsets=registry", "--exclude-tools=promote"], {}, {"register_model", "get_model"}),
        ([], {"TOOLSETS": "registry", "EXCLUDE_TOOLS": "get_model"}, {"register_model", "promote"}),
        (
            ["--read-only", "--toolsets", "registry,scan"],
            {"TOOLSETS": "registry,tracking", "READ_ONLY": "false"},
            {"get_model"},
        ),
    ],
)
def test_of_option_and_setting_the_stricter_wins(
    home: Path, options: list[str], settings: dict[str, str], offered: set[str]
) -> None:
    env = child_env(home, **{f"INTELLIGENTSCAN_{name}": value for name, value in settings.items()})
    with raw_child(env, *options) as child:
        assert names_offered(child) == offered


@pytest.mark.parametrize(
    ("options", "settings", "offered"),
    [
        ([], {}, False),
        (["--tools", "onboard_product"], {}, True),
        ([], {"TOOLS": "onboard_product"}, True),
        (["--tools=onboard_product", "--read-only"], {"TOOLS": "onboard_product,promote"}, False),
    ],
)
def test_a_tool_that_is_off_by_default_is_offered_if_option_or_setting_names_it(
    home: Path, options: list[str], settings: dict[str, str], offered: bool
) -> None:
    env = child_env(home, **{f"INTELLIGENTSCAN_{name}": value for name, value in settings.items()})
    with raw_child(env, *options, "--toolsets=governance") as child:
        assert ("onboard_product" in names_offered(child)) == offered


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (["--toolsets", "nothing"], {}, "tracking, scan, registry"),
        (["--reed-only"], {}, "--reed-only"),
        ([], {"INTELLIGENTSCAN_READ_ONLY": "perhaps"}, "INTELLIGENTSCAN_READ_ONLY"),
    ],
)
def test_a_wrong_option_or_setting_is_told_on_stderr_with_exit_code_2(
    home: Path, options: list[str], settings: dict[str, str], said: str
) -> None:
    run = subprocess.run(
        [*COMMAND, "mcp", *options], env=child_env(home, **settings), stdin=subprocess.DEVNULL, capture_output=True
    )
    assert run.returncode == 2
    assert run.stdout == b""
    assert said in run.stderr.decode()
    assert "Traceback" not in run.stderr.decode()


def test_it_starts_with_an_empty_environment_and_from_the_root_folder(tmp_path: Path) -> None:
    run = subprocess.run([*COMMAND, "mcp"], env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
