"""The command line: what each command prints, its exit codes, its JSON, and its words when something is wrong."""

import ast
import itertools
import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from command_line import COMMAND, Answer, CommandLine, child, child_environment
from conftest import copy_store
from typer.core import TyperGroup
from typer.testing import CliRunner

import intelligentscan
from intelligentscan import __version__
from intelligentscan.cli.app import app
from intelligentscan.cli.runner import reported
from intelligentscan.cli.wording import for_people
from intelligentscan.domain.comparison import RunComparison
from intelligentscan.domain.registry import PromotionDecision, RegisteredVersion
from intelligentscan.scanners.sarif_document import parse_sarif
from intelligentscan.toolsets import BUILT_IN
from intelligentscan.toolsets.toolset import tools_of

WEAK = "import subprocess\nsubprocess.call(command, shell=True)\n"
CLEAN = "print('hello')\n"
SARIF = {
    "version": "2.1.0",
    "runs": [
        {
            "tool": {"driver": {"name": "ExampleScan", "version": "1.0"}},
            "results": [
                {
                    "ruleId": "weak-hash",
                    "level": "error",
                    "message": {"text": "[red]MD5[/red] is weak :warning:"},
                    "locations": [{"physicalLocation": {"artifactLocation": {"uri": "app.py"}}}],
                }
            ],
        }
    ],
}


SOURCE = Path(intelligentscan.__file__).parent
GROUPS = ("audit", "keys", "db", "archive", "model", "policy", "review", "role", "product", "plan")


def next_steps(tree: ast.AST) -> Iterator[str]:
    """Yield the texts that are given as the next step of an error, what is filled in as 'x'."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "next":
            yield from texts(node.value)


def every_text(tree: ast.AST) -> Iterator[str]:
    """Yield every text, what is filled in as '7'."""
    pieces = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
            yield node.value


def texts(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str() as text):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(part.value if isinstance(part, ast.Constant) else "x" for part in parts)]  # type: ignore[misc]
        case ast.BinOp(left=left, right=right):
            return [one + two for one in texts(left) for two in texts(right)]
        case ast.IfExp(body=body, orelse=other):
            return texts(body) + texts(other)
    return []


@pytest.fixture
def command(home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line in a project, on a new store."""
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(home))
    monkeypatch.chdir(project)
    (project / "pyproject.toml").write_text("")
    (project / "app.py").write_text(WEAK)
    return CommandLine(home)


@pytest.fixture
def sarif_file(project: Path) -> Path:
    path = project / "report.sarif"
    path.write_text(json.dumps(SARIF))
    return path


def at_a_terminal(*arguments: str, home: Path) -> str:
    """Run a command on a pseudo-terminal and return what it shows."""
    parent, terminal = pty.openpty()
    environment = {**child_environment(home), "TERM": "dumb", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdin=terminal, stdout=terminal, stderr=terminal, cwd=home.parent
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(parent, 65536):
            shown += chunk
    except OSError:  # Linux says so when the other side is closed
        pass
    os.close(parent)
    assert process.wait(timeout=60) == 0, shown
    return shown.decode()


# Help, version, errors


def test_without_arguments_at_a_terminal_the_help_lists_every_command(home: Path) -> None:
    shown = at_a_terminal(home=home)

    commands = {command.name for command in app.registered_commands}
    assert commands >= {"mcp", "demo", "scan", "import-sarif", "compare", "register", "promote", "env", "run", "ui"}
    assert commands >= {"doctor", "install", "history", "verify", "adopt", "unlock", "reconcile", "experiments"}
    for name in [*commands, *GROUPS]:
        assert f" {name} " in shown


def test_the_version_is_printed(command: CommandLine) -> None:
    assert command("--version").out == f"intelligentscan {__version__}\n"


def test_an_error_is_one_line_with_the_fact_and_one_with_the_next_step_on_stderr(command: CommandLine) -> None:
    answer = command("scan", "missing")

    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.splitlines() == [
        "✗ There is no 'missing'.",
        "→ call again with PATH set to a path that exists; check its spelling.",
    ]


def test_an_error_with_json_is_one_document_on_stdout(command: CommandLine) -> None:
    answer = command("scan", "missing", "--json")

    assert answer.code == 2
    assert answer.err == ""
    assert answer.json.keys() == {"code", "message", "next", "details"}
    assert answer.json["code"] == "PATH_NOT_FOUND"


def test_a_wrong_setting_is_told_like_any_error(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTELLIGENTSCAN_DEADLINE_S", "soon")

    assert command.json("compare", "--experiment", "x", code=2)["code"] == "INVALID_ARGUMENT"


def test_a_crash_shows_no_trace_and_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()

    @app.command()
    @reported
    def divide(json: bool = False) -> None:
        typer.echo(1 // 0)

    quiet = CliRunner().invoke(app)
    monkeypatch.setenv("INTELLIGENTSCAN_DEBUG", "1")
    loud = CliRunner().invoke(app)

    assert quiet.exit_code == loud.exit_code == 2
    assert "Traceback" not in quiet.stderr
    assert "INTELLIGENTSCAN_DEBUG=1" in quiet.stderr
    assert "ZeroDivisionError: integer division" in loud.stderr


@pytest.mark.parametrize(
    ("for_agents", "shown"),
    [
        ("list its versions with get_model name='cfg'.", "list its versions with 'intelligentscan model show cfg'."),
        ("look with verify_integrity name='a b'", "look with 'intelligentscan verify \"a b\"'"),
        ("call promote again with to='Staging'.", "call 'intelligentscan promote' again with --to 'Staging'."),
        ("call register_model again, or promote it", "call 'intelligentscan register' again, or promote it"),
        ("get_run lists the models of a run.", "the run's page in 'intelligentscan ui' lists the models of a run."),
        ("the run's end; abandon_running=true ends it.", "the run's end; --abandon-running ends it."),
        ("use response_format='detailed'.", "use --json."),
        ("There is no experiment 'run_id'.", "There is no experiment 'run_id'."),
        ("end it with log_run run_id='ab' status='FINISHED'", "end it with mlflow.MlflowClient().set_terminated('ab')"),
        (
            "the run's model; call register_model with run_id='x'",
            "the run's model; call 'intelligentscan register' with RUN 'x'",
        ),
        ("call promote name='x' version=3 to='Archived'.", "call 'intelligentscan promote x 3 --to Archived'."),
        (
            "promote name='x' version=3 to='Production' reason=…",
            "'intelligentscan promote x 3 --to Production --reason …'",
        ),
        (
            "register_model name='a b' description=… tags={'card.owner': …, 'card.about': 'x y'}",
            '\'intelligentscan register RUN --name "a b" --description … --tag card.owner=… --tag "card.about=x y"\'',
        ),
        (
            "request_review name='x' version=3 evidence={'bias': …}, or",
            "'intelligentscan review request x 3 --evidence bias=…', or",
        ),
        ("look with get_history name='$HOME'", "look with 'intelligentscan history \"\\$HOME\"'"),
        ("call promote again without confirm.", "the agent calls promote again without confirm."),
        ("call again without confirm; x", "the agent calls again without confirm; x"),
        ("register_model without confirm makes one", "the agent's call of register_model without confirm makes one"),
        ("the agent calls register_model again, confirm='x'", "the agent calls register_model again, confirm='x'"),
    ],
)
def test_next_steps_name_commands_where_agents_read_tools(for_agents: str, shown: str) -> None:
    assert for_people(for_agents) == shown


def test_no_next_step_in_the_source_names_an_agent_tool_to_a_person() -> None:
    tools = {name for toolset in BUILT_IN.values() for name in tools_of(toolset)} - {"promote"}  # which is a verb too
    named = re.compile(rf"\b(?:{'|'.join(tools)})\b")
    steps = [step for path in SOURCE.rglob("*.py") for step in next_steps(ast.parse(path.read_text()))]

    assert len(steps) > 100
    assert [told for told in map(for_people, steps) if named.search(told)] == []


def test_every_command_that_a_next_step_names_exists() -> None:
    told = [for_people(step) for path in SOURCE.rglob("*.py") for step in next_steps(ast.parse(path.read_text()))]
    commands = {tuple(found.split()) for step in told for found in re.findall(r"'intelligentscan ([a-z -]+)", step)}

    for words in commands:
        path = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
        shown = CliRunner().invoke(app, [*path[: 2 if path[0] in GROUPS else 1], "--help"])
        assert shown.exit_code == 0, words
        for option in (word for word in words if word.startswith("--") and word != "--"):
            assert option in shown.output, words


def test_a_command_that_a_text_gives_with_its_arguments_runs_as_it_stands() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        for told in map(for_people, every_text(ast.parse(path.read_text()))):
            for given in re.findall(r"'intelligentscan ([a-z][^']+)'", told):
                words = shlex.split(given.replace("VERSION", "7").replace("CLIENT", "cursor"))
                command = typer.main.get_command(app)
                while isinstance(command, TyperGroup) and words and words[0] in command.commands:
                    command = command.commands[words.pop(0)]
                if isinstance(command, TyperGroup) or not words or words == ["--help"]:
                    continue
                try:
                    command.make_context("told", words)
                except Exception as refusal:
                    wrong.append((path.name, given, str(refusal)))
    assert wrong == []


# scan, import-sarif


def test_a_scan_shows_counts_the_worst_findings_and_its_run(command: CommandLine) -> None:
    answer = command("scan", ".", "--experiment", "shop")
    logged = command.json("compare", "--experiment", "shop", code=2)

    assert answer.code == 0
    assert "vulnerabilities: 2 critical" in answer.out
    assert "app.py:2" in answer.out
    assert "run " in answer.out
    assert "shop (1)" in answer.out
    assert logged["message"].startswith("The experiment has 1 runs")


def test_a_scan_as_json_is_the_published_result_with_the_gate(command: CommandLine) -> None:
    scanned = command("scan", ".", "--engines", "bandit", "--fail-on", "any", "--json")

    assert scanned.code == 1
    assert scanned.json["gate"] == {"fail_on": "any", "hits": scanned.json["vulnerabilities_found"]}
    assert scanned.json["experiment"] == "vulnerability_scanning"
    assert len(scanned.json["run_id"]) == 32


def test_a_scan_again_takes_unchanged_files_from_the_cache_unless_told_not_to(command: CommandLine) -> None:
    def cached(*options: str) -> int:
        scanned = command("scan", ".", "--engines", "ruff", *options, "--json")
        return int(scanned.json["coverage"][0]["files_cached"])

    assert (cached(), cached() > 0, cached("--no-cache")) == (0, True, 0)


def test_a_scan_as_sarif_is_a_sarif_log(command: CommandLine) -> None:
    answer = command("scan", ".", "--format", "sarif")

    assert answer.code == 0
    assert {run["tool"]["driver"]["name"].lower() for run in parse_sarif(answer.out)["runs"]} == {"bandit", "ruff"}


def test_a_gate_on_new_findings_counts_all_at_first_and_later_only_the_new_ones(
    command: CommandLine, project: Path
) -> None:
    def scan() -> Answer:
        return command("scan", ".", "--engines", "bandit", "--fail-on", "new-critical")

    first, same = scan(), scan()
    (project / "more.py").write_text(WEAK)
    worse = scan()

    assert (first.code, same.code, worse.code) == (1, 0, 1)
    assert "--fail-on new-critical: none" in same.err
    assert "more.py:2" in worse.err
    assert "app.py:2" not in worse.err


def test_a_gate_lets_findings_below_its_severity_through(command: CommandLine, project: Path) -> None:
    (project / "app.py").write_text("import random\nprint(random.random())\n")

    assert command("scan", ".", "--fail-on", "new-high").code == 0
    assert command("scan", ".", "--fail-on", "any").code == 1


def test_a_partial_scan_is_said_loudly(command: CommandLine, project: Path) -> None:
    (project / "broken.py").write_text("def (:\n")

    answer = command("scan", ".", "--engines", "bandit")

    assert answer.code == 0
    assert "PARTIAL SCAN; not analysed: bandit 1 of 2 files" in answer.err
    assert "PARTIAL" in answer.out


def test_a_folder_with_nothing_to_scan_could_not_be_scanned(command: CommandLine, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    assert command.json("scan", str(empty), code=2)["code"] == "NOTHING_TO_SCAN"


def test_each_sarif_file_becomes_a_run_and_a_broken_one_stops_no_other(
    command: CommandLine, project: Path, sarif_file: Path
) -> None:
    (project / "broken.sarif").write_text("{")

    answer = command("import-sarif", "broken.sarif", str(sarif_file), "--experiment", "imports", "--json")

    assert answer.code == 2
    assert [(run["file"], run["vulnerabilities_found"]) for run in answer.json["runs"]] == [(str(sarif_file), 1)]
    assert [(failed["file"], failed["code"]) for failed in answer.json["failed"]] == [("broken.sarif", "SARIF_INVALID")]


def test_text_of_a_scanner_is_shown_as_it_is(command: CommandLine, sarif_file: Path) -> None:
    answer = command("import-sarif", str(sarif_file), "--experiment", "imports")

    assert answer.code == 0
    assert "[red]MD5[/red] is weak :warning:" in answer.out


# compare, register, promote


def test_a_comparison_marks_the_best_value(command: CommandLine, project: Path) -> None:
    worse = command.json("scan", ".", "--engines", "bandit", "--experiment", "shop")
    (project / "app.py").write_text(CLEAN)
    better = command.json("scan", ".", "--engines", "bandit", "--experiment", "shop")

    shown = command("compare", worse["run_id"][:8], "latest", "--experiment", "shop", "--metrics", "critical_count")
    compared = RunComparison.model_validate(command.json("compare", "--experiment", "shop"))

    line = next(line for line in shown.out.splitlines() if line.startswith("critical_count"))
    assert line.split() == ["critical_count", "1", "0", "BEST"]
    assert better["run_id"] in shown.out
    assert "findings 1 → 2: 0 new, 2 fixed, 0 persisting" in shown.out
    assert next(m for m in compared.metrics if m.key == "critical_count").best_run_id == better["run_id"]


def test_many_runs_are_compared_as_rows(command: CommandLine, sarif_file: Path) -> None:
    for position in range(7):
        sarif_file.write_text(json.dumps(SARIF | {"runs": SARIF["runs"] * (position + 1)}))  # type: ignore[operator]
        assert command("import-sarif", str(sarif_file), "--experiment", "many").code == 0

    rows = command("compare", "--experiment", "many", "--metrics", "vulnerabilities_found").out.split("\n\n")[1]

    assert [line.split() for line in rows.splitlines()[1:8]][-1] == ["7", "1", "BEST"]


def test_an_unknown_experiment_names_a_store_nearby_that_has_runs(
    command: CommandLine, template: Path, project: Path, sarif_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{copy_store(template, project / 'notebooks') / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    command("import-sarif", str(sarif_file), "--experiment", "mine")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")

    answer = command("compare", "--experiment", "mine")

    assert answer.code == 2
    assert f"MLFLOW_TRACKING_URI={uri} selects it" in answer.err
    assert "'intelligentscan scan PATH --experiment NAME'" in answer.err


def test_a_scan_is_registered_and_promoted(command: CommandLine) -> None:
    run_id = command.json("scan", ".", "--engines", "ruff")["run_id"]

    planned = RegisteredVersion.model_validate(command.json("register", run_id, "--name", "config", "--dry-run"))
    registered = RegisteredVersion.model_validate(command.json("register", run_id, "--name", "config"))
    again = command("register", run_id, "--name", "config")
    refused = command.json("promote", "config", "1", "--to", "Production", code=2)
    would = command("promote", "config", "1", "--to", "staging", "--dry-run")
    promoted = PromotionDecision.model_validate(command.json("promote", "config", "1", "--to", "staging"))
    unevaluated = command("promote", "config", "1", "--to", "Production", "--reason", "best")

    assert (planned.status, registered.status) == ("would_register", "registered")
    assert "was registered before: config version 1" in again.out
    assert "reason" in refused["message"]
    assert "would move config version 1 to Staging" in would.out
    assert (promoted.status, promoted.aliases) == ("promoted", ["challenger"])
    assert (unevaluated.code, "✗ evaluated" in unevaluated.err) == (2, True)


def test_a_prefix_is_not_enough_to_register(command: CommandLine) -> None:
    assert command.json("register", "abcdef12", "--name", "config", code=2)["code"] == "INVALID_ARGUMENT"


# env, run


def test_the_first_command_makes_the_store_and_writes_nothing_but_its_answer(tmp_path: Path) -> None:
    home = tmp_path / 'it\'s $HOME "here"'

    printed = child(["env"], home=home)
    shell = subprocess.run(
        ["/bin/sh", "-c", 'eval "$1"; printf "%s" "$MLFLOW_DEFAULT_ARTIFACT_ROOT"', "sh", printed.out],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )

    assert (printed.code, printed.err) == (0, "")
    assert all(line.startswith("export ") for line in printed.out.splitlines())
    assert shell.stdout == str(home / "artifacts")
    assert (home / "mlflow.db").is_file()
    assert home.stat().st_mode & 0o077 == 0


def test_env_as_json_holds_the_same_variables(command: CommandLine, home: Path) -> None:
    assert command.json("env")["MLFLOW_TRACKING_URI"] == f"sqlite:///{home / 'mlflow.db'}"


def test_run_passes_environment_arguments_and_exit_code(home: Path) -> None:
    script = (
        "import os, sys; print(sys.argv[1:], os.environ['MLFLOW_TRACKING_URI'], 'MLFLOW_LOGGING_LEVEL' in os.environ);"
        "sys.exit(7)"
    )

    done = child(["run", "--", sys.executable, "-c", script, "--json", "-x"], home=home)

    assert done.code == 7
    assert done.out == f"['--json', '-x'] sqlite:///{home / 'mlflow.db'} False\n"


def test_a_signal_to_run_reaches_the_command(home: Path) -> None:
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(33))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    command = [*COMMAND, "run", sys.executable, "-c", script]
    with subprocess.Popen(command, env=child_environment(home), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 33


def test_a_command_dies_of_a_closed_pipe_as_in_a_shell(home: Path) -> None:
    done = child(["run", "--", "/bin/sh", "-c", "yes | head -n 1"], home=home)

    assert (done.code, done.out, done.err) == (0, "y\n", "")


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_started_is_told_as_shells_do(home: Path, program: str, code: int) -> None:
    done = child(["run", "--json", "--", program], home=home)

    assert done.code == code
    assert program in done.json["message"]


def test_a_program_of_this_installation_runs_without_being_on_the_path(home: Path) -> None:
    done = child(["run", "ruff", "--version"], home=home, PATH="/nowhere")

    assert done.code == 0
    assert done.out.startswith("ruff ")


def test_a_command_does_not_wait_at_its_end_for_a_server_it_gave_up_on(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = child(
            ["compare", "--experiment", "x", "--json"],
            home=home,
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{silent.getsockname()[1]}",
            MLFLOW_HTTP_REQUEST_TIMEOUT="600",
            INTELLIGENTSCAN_DEADLINE_S="3",
        )

    assert done.code == 2
    assert done.json["code"] == "STORE_UNAVAILABLE"
