"""The demo's conversation: our server as a child process, plain MLflow as others, and every step on the screen.

Each step prints its request and a short form of the answer, and says whether it held. A step that must be refused
holds when it is refused.
"""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import CallToolResult
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from intelligentscan._process import ProcessResult, run
from intelligentscan.settings import Settings
from intelligentscan.store_environment import exports

HOME = "INTELLIGENTSCAN_HOME"
PACKAGE = Path(__file__).resolve().parents[1]
_ANSWER_S = 120
_CHILD_S = 120
_MAX_OUTPUT = 1_000_000


class StepFailed(Exception):
    """A step of the demo did not hold."""


class Conversation:
    """One conversation, step by step.

    Args:
        settings: the store to speak about.
        console: the screen.
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.examples = _examples()
        self.steps: list[dict[str, str]] = []
        self._client: Client

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Start the server, and end it afterwards."""
        roots = os.pathsep.join([str(PACKAGE), str(self.examples)])
        environment = {**os.environ, HOME: str(self.settings.home), "INTELLIGENTSCAN_ALLOWED_ROOTS": roots}
        server = StdioServerParameters(
            command=sys.executable, args=["-m", "intelligentscan", "mcp"], env=environment, cwd=str(PACKAGE)
        )
        self.console.print("[dim]starting the server as a child process: intelligentscan mcp[/]")
        async with Client(stdio_client(server), read_timeout_seconds=_ANSWER_S) as client:
            self._client = client
            tools = (await client.list_tools()).tools
            self.step("tools/list", f"{len(tools)} tools over MCP {client.protocol_version}")
            yield

    async def call(self, tool: str, short: Callable[[dict[str, Any]], str], **arguments: Any) -> dict[str, Any]:
        """Call a tool, show the short form of its answer and return the whole.

        Raises:
            StepFailed: it was refused.
        """
        result = await self._asked(tool, arguments)
        if result.is_error:
            raise StepFailed(f"{tool} was refused: {_text(result)}")
        answer: dict[str, Any] = result.structured_content or {}
        self.step(tool, short(answer))
        return answer

    async def refused(self, tool: str, code: str, **arguments: Any) -> None:
        """Call a tool that must refuse, and show what it says.

        Raises:
            StepFailed: it did not refuse, or with another code.
        """
        result = await self._asked(tool, arguments)
        structured: dict[str, Any] = result.structured_content or {}
        self.hold(bool(result.is_error) and structured.get("code") == code, f"refused with {code}")
        self.quote(str(structured.get("message")))
        self.quote(f"Next: {structured.get('next')}")

    async def plain(self, *arguments: str) -> ProcessResult:
        """Run this Python in a new process on the store, as `intelligentscan run --` does; its end is not judged."""
        environment = {
            **os.environ,
            **exports(self.settings),
            HOME: str(self.settings.home),
            "MLFLOW_LOGGING_LEVEL": "ERROR",
        }
        return await run(
            [sys.executable, *arguments],
            cwd=self.examples,
            env=environment,
            timeout_s=_CHILD_S,
            max_output=_MAX_OUTPUT,
        )

    async def printed(self, *arguments: str) -> list[str]:
        """Run this Python in a new process on the store, and return the lines that it printed.

        Raises:
            StepFailed: it ended with an error.
        """
        result = await self.plain(*arguments)
        if result.exit_code != 0:
            raise StepFailed(f"the child process ended with {result.exit_code}: {result.stderr.decode()[-500:]}")
        return result.stdout.decode().strip().splitlines()

    def request(self, what: str, arguments: dict[str, Any]) -> None:
        """Show what is asked for."""
        self.console.print()
        shown = f" {json.dumps(arguments, ensure_ascii=False)}" if arguments else ""
        line = Text.assemble((f"→ {what}", "bold cyan"), (shown, "dim"))
        self.console.print(line, no_wrap=True, overflow="ellipsis")

    def step(self, what: str, answer: str) -> None:
        """Show the answer of a step that held."""
        self.steps.append({"step": what, "answer": answer})
        self.console.print(f"  [green]✓[/] {escape(answer)}")

    def hold(self, held: bool, what: str) -> None:
        """Show that something is as it must be.

        Raises:
            StepFailed: it is not.
        """
        if not held:
            raise StepFailed(f"expected that {what}")
        self.step("check", what)

    def say(self, text: str) -> None:
        """Show a remark."""
        self.console.print(f"  {escape(text)}")

    def quote(self, text: str) -> None:
        """Show the words of a refusal."""
        self.console.print(f"    [yellow]{escape(text)}[/]", soft_wrap=True)

    async def _asked(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        self.request(tool, arguments)
        try:
            with self._waiting() as progress:
                return await self._client.call_tool(tool, arguments, progress_callback=progress)
        except MCPError as exc:
            raise StepFailed(f"the server has not answered {tool}: {exc}") from exc

    @contextmanager
    def _waiting(self) -> Iterator[ProgressFnT]:
        bar = Progress(
            TextColumn("   "), SpinnerColumn(), BarColumn(30), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        with bar:
            task = bar.add_task("", total=1.0)

            async def progress(progress: float, total: float | None, message: str | None) -> None:
                bar.update(task, completed=progress / (total or 1.0), description=escape(message or ""))

            yield progress


def _examples() -> Path:
    """Return the folder of examples: beside the package in a clone, inside it when installed."""
    for folder in (PACKAGE.parent / "examples", PACKAGE / "_examples"):
        if (folder / "train_model.py").is_file():
            return folder
    raise StepFailed("the examples are not installed; run the demo from a clone")


def _text(result: Any) -> str:
    return " ".join(getattr(block, "text", "") for block in result.content)[:600]
