"""The conversation of the README, for real: an MCP client speaks to our server as a child process on stdio.

Every step prints its request and a short form of the answer, and says whether it held; steps that must
be refused hold when they are refused. The store is left as it is, for `intelligentscan ui`.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from intelligentscan._process import run
from intelligentscan.settings import Settings
from intelligentscan.store_environment import exports

HOME = "INTELLIGENTSCAN_HOME"
EXPERIMENT = "demo"
TRAINING = "demo-training"
MODEL = "demo-classifier"
CONFIG_MODEL = "demo-scan-config"
_PACKAGE = Path(__file__).resolve().parents[1]
_LOAD = """
import json, sys
import mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(pd.DataFrame({"repo_path": [sys.argv[2]]}))
print(json.dumps({"findings": len(found), "worst": found.severity.value_counts().to_dict()}))
"""


class StepFailed(Exception):
    """A step of the demo did not hold."""


def run_demo(home: Path | None, quick: bool, as_json: bool = False) -> int:
    """Run the demo on the embedded store and return the exit code: 0 if every step held.

    Args:
        home: folder of the store; INTELLIGENTSCAN_HOME if None.
        quick: only the five named tools.
        as_json: print one JSON document at the end instead of the conversation.
    """
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):  # the demo belongs into the embedded store
        os.environ.pop(name, None)
    if home is not None:
        os.environ[HOME] = str(home.expanduser().absolute())
    demo = Demo(Settings.load(), Console(quiet=as_json))
    failed: list[BaseException] = []
    try:
        anyio.run(demo.quick if quick else demo.full)
    except* StepFailed as group:  # the client's task groups wrap what is raised inside them
        failed += _leaves(group)
    for failure in failed:
        demo.console.print(f"\n[bold red]The demo stopped:[/] {escape(str(failure))}")
    if as_json:
        problems = [str(failure) for failure in failed]
        print(json.dumps({"ok": not failed, "steps": demo.steps, "problems": problems}, ensure_ascii=False))  # noqa: T201
    elif not failed:
        demo.farewell()
    return 1 if failed else 0


class Demo:
    """One conversation, step by step."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self.console = console
        self._settings = settings
        self._examples = _examples()
        self._began = time.monotonic()
        self.steps: list[dict[str, str]] = []
        self._client: Client

    async def quick(self) -> None:
        """Use the five named tools once each, and have one refusal."""
        async with self._connected():
            await self._create()
            training = await self._train()
            first = await self._import("examplescan.sarif")
            second = await self._call(
                "log_scan_run",
                lambda a: f"{a['vulnerabilities_found']} findings",
                experiment=EXPERIMENT,
                scanner="hand-written check",
                findings=[
                    {"rule": "R1", "severity": "high", "path": "app.py", "line": 3, "message": "debug mode is on"},
                ],
            )
            await self._compare([first["run_id"], second["run_id"]])
            await self._release(MODEL, training, "the first classifier that is good enough for the demo")

    async def full(self) -> None:
        """Scan, import, compare, register, be refused, promote, and use what was promoted."""
        sample = str(self._examples / "sample_app")
        async with self._connected():
            await self._create()
            own = await self._scan(str(_PACKAGE), ["bandit", "ruff"])
            await self._scan(str(_PACKAGE), ["ruff"])
            narrow = await self._scan(sample, ["ruff"])
            wide = await self._scan(sample, ["bandit", "ruff"])
            self._hold(own["scan_status"] == "complete", "our own sources were analysed completely")
            imported = await self._import("examplescan.sarif", sample)
            await self._compare([narrow["run_id"], wide["run_id"]])
            await self._findings(wide["run_id"])
            better = max((narrow, wide), key=lambda scan: scan["vulnerabilities_found"])
            self._say(
                f"The sample is weak on purpose, so the strategy that finds more is better: {better['run_id'][:8]}."
            )
            await self._refused("register_model", "NO_MODEL", run_id=imported["run_id"], name=CONFIG_MODEL)
            version = await self._release(
                CONFIG_MODEL, better["run_id"], "finds more in the sample that is weak on purpose"
            )
            await self._use(version, sample, better["vulnerabilities_found"])
            await self._train_two()
            await self._same_key_twice()

    def farewell(self) -> None:
        """Say what was done and where to look."""
        seconds = time.monotonic() - self._began
        self.console.print(f"\n[bold green]Every one of {len(self.steps)} steps held[/] ({seconds:.0f} s).")
        where = f"INTELLIGENTSCAN_HOME={shlex.quote(str(self._settings.home))} " if os.environ.get(HOME) else ""
        self.console.print(f"Look at it in MLflow's own UI:  [bold]{escape(where)}intelligentscan ui[/]")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        roots = os.pathsep.join([str(_PACKAGE), str(self._examples)])
        environment = {
            **os.environ,
            HOME: str(self._settings.home),
            "INTELLIGENTSCAN_ALLOWED_ROOTS": roots,
        }
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "intelligentscan", "mcp"], env=environment, cwd=str(_PACKAGE)
        )
        self.console.print("[dim]starting the server as a child process: intelligentscan mcp[/]")
        async with Client(stdio_client(server), read_timeout_seconds=300) as client:
            self._client = client
            tools = (await client.list_tools()).tools
            self._step("tools/list", f"{len(tools)} tools over MCP {client.protocol_version}")
            yield

    async def _create(self) -> None:
        for name in (EXPERIMENT, TRAINING):
            await self._call(
                "create_experiment",
                lambda a: f"id {a['experiment_id']}, " + ("made" if a["created"] else "was there"),
                name=name,
            )

    async def _scan(self, path: str, engines: list[str]) -> dict[str, Any]:
        return await self._call(
            "scan_vulnerabilities",
            lambda a: (
                f"{a['vulnerabilities_found']} findings, {a['critical_count']} critical, {a['scan_status']}"
                + (f"; {a['new']} new, {a['fixed']} fixed since last time" if a["new"] is not None else "")
            ),
            repo_path=path,
            experiment=EXPERIMENT,
            engines=engines,
        )

    async def _import(self, name: str, repo_path: str | None = None) -> dict[str, Any]:
        more = {"repo_path": repo_path} if repo_path else {}
        return await self._call(
            "log_scan_run",
            lambda a: f"{a['vulnerabilities_found']} findings of another scanner, {len(a['warnings'])} warnings",
            experiment=EXPERIMENT,
            sarif_path=str(self._examples / "import" / name),
            **more,
        )

    async def _compare(self, run_ids: list[str]) -> None:
        answer = await self._call(
            "compare_runs",
            lambda a: f"{len(a['runs'])} runs, {len(a['metrics'])} metrics, {len(a['params'])} params differ",
            run_ids=run_ids,
        )
        table = Table(show_edge=False, pad_edge=False)
        table.add_column("metric")
        for column in answer["runs"]:
            table.add_column(escape(f"{column['run_name']} {column['run_id'][:8]}"), justify="right")
        for metric in answer["metrics"][:8]:
            cells = [
                f"{value:.6g}" + (" [bold green]BEST[/]" if run_id == metric["best_run_id"] else "")
                if (value := metric["values"].get(run_id)) is not None
                else "–"
                for run_id in run_ids
            ]
            table.add_row(escape(metric["key"]), *cells)
        self.console.print(table)
        self._hold("BEST" in answer["summary"] or not answer["metrics"], "the best run of each metric is marked")

    async def _findings(self, run_id: str) -> None:
        answer = await self._call(
            "list_findings", lambda a: f"{a['total']} findings, the worst first", run_id=run_id, limit=5
        )
        for row in answer["findings"]:
            self.console.print(f"    [red]{row['severity']:<8}[/] {escape(row['rule'])} {escape(row['location'])}")

    async def _release(self, name: str, run_id: str, reason: str) -> int:
        registered = await self._call(
            "register_model",
            lambda a: f"version {a['version']} of {a['name']}, manifest {str(a['manifest_digest'])[:12]}",
            run_id=run_id,
            name=name,
        )
        version = int(registered["version"])
        await self._refused("promote", "VERSION_NOT_FOUND", name=name, version=version + 1000, to="Staging")
        for stage in ("Staging", "Production"):
            answer = await self._call(
                "promote",
                lambda a: f"{a['status']}: {a['stage']}, aliases {', '.join(a['aliases'])}",
                name=name,
                version=version,
                to=stage,
                reason=reason,
            )
            self._hold(answer["stage"] == stage, f"version {version} is in {stage}")
        return version

    async def _use(self, version: int, target: str, expected: int) -> None:
        uri = f"models:/{CONFIG_MODEL}/Production"
        self._request("plain MLflow in a new process", {"load_model": uri})
        answer = await self._child(["-c", _LOAD, uri, target])
        found = json.loads(answer.splitlines()[-1])
        self._step("predict", f"version {version} loaded from Production, {found['findings']} findings")
        self._hold(found["findings"] == expected, "the promoted configuration finds what its scan had found")

    async def _train(self, strength: float = 1.0) -> str:
        script = self._examples / "train_model.py"
        self._request("plain MLflow in a new process", {"run": script.name, "C": strength})
        printed = await self._child([str(script), "--experiment", TRAINING, "--strength", str(strength)])
        run_id = printed.strip().splitlines()[-1]
        self._step("trained", f"run {run_id[:8]} in the same store")
        return run_id

    async def _train_two(self) -> None:
        runs = [await self._train(strength) for strength in (0.001, 1.0)]
        await self._compare(runs)
        await self._release(MODEL, runs[-1], "better accuracy than the strongly regularised one")

    async def _same_key_twice(self) -> None:
        key = f"demo-{time.time_ns()}"
        calls = [
            await self._call(
                "log_run",
                lambda a: f"run {a['run_id'][:8]}, created: {a['created']}",
                experiment=EXPERIMENT,
                metrics={"answer": 42},
                idempotency_key=key,
            )
            for _ in range(2)
        ]
        self._hold(calls[0]["run_id"] == calls[1]["run_id"], "the same key gave the same run")

    async def _child(self, arguments: list[str]) -> str:
        """Run this Python on the store, as `intelligentscan run --` does, and return what it printed."""
        environment = {**os.environ, **exports(self._settings), "MLFLOW_LOGGING_LEVEL": "ERROR"}
        result = await run(
            [sys.executable, *arguments], cwd=_PACKAGE.parent, env=environment, timeout_s=120, max_output=1_000_000
        )
        if result.exit_code != 0:
            raise StepFailed(f"{arguments[0]} ended with {result.exit_code}: {result.stderr.decode()[-500:]}")
        return result.stdout.decode()

    async def _call(self, tool: str, short: Callable[[dict[str, Any]], str], **arguments: Any) -> dict[str, Any]:
        self._request(tool, arguments)
        bar = Progress(
            TextColumn("   "), SpinnerColumn(), BarColumn(30), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        with bar:
            task = bar.add_task("", total=1.0)

            async def progress(progress: float, total: float | None, message: str | None) -> None:
                bar.update(task, completed=progress / (total or 1.0), description=escape(message or ""))

            result = await self._client.call_tool(tool, arguments, progress_callback=progress)
        if result.is_error:
            raise StepFailed(f"{tool} was refused: {_text(result)}")
        answer: dict[str, Any] = result.structured_content or {}
        self._step(tool, short(answer))
        return answer

    async def _refused(self, tool: str, code: str, **arguments: Any) -> None:
        self._request(tool, arguments)
        result = await self._client.call_tool(tool, arguments)
        structured: dict[str, Any] = result.structured_content or {}
        self._hold(bool(result.is_error) and structured.get("code") == code, f"refused with {code}")
        self.console.print(f"    [yellow]{escape(str(structured.get('message')))}[/]")
        self.console.print(f"    [yellow]Next: {escape(str(structured.get('next')))}[/]")

    def _request(self, what: str, arguments: dict[str, Any]) -> None:
        self.console.print()
        line = Text.assemble((f"→ {what} ", "bold cyan"), (json.dumps(arguments, ensure_ascii=False), "dim"))
        self.console.print(line, no_wrap=True, overflow="ellipsis")

    def _step(self, what: str, answer: str) -> None:
        self.steps.append({"step": what, "answer": answer})
        self.console.print(f"  [green]✓[/] {escape(answer)}")

    def _say(self, text: str) -> None:
        self.console.print(f"  {escape(text)}")

    def _hold(self, held: bool, what: str) -> None:
        if not held:
            raise StepFailed(f"expected that {what}")
        self.steps.append({"step": "check", "answer": what})
        self.console.print(f"  [green]✓[/] {escape(what)}")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for found in group.exceptions
        for leaf in (_leaves(found) if isinstance(found, BaseExceptionGroup) else [found])
    ]


def _examples() -> Path:
    """Return the folder of examples: beside the package in a clone, inside it when installed."""
    for folder in (_PACKAGE.parent / "examples", _PACKAGE / "_examples"):
        if (folder / "train_model.py").is_file():
            return folder
    raise StepFailed("the examples are not installed; run the demo from a clone")


def _text(result: Any) -> str:
    return " ".join(getattr(block, "text", "") for block in result.content)[:600]
