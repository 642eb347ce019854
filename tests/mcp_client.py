"""MCP clients for tests: in memory on real services, and raw or through the SDK on a real stdio child."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import CallToolResult

from intelligentscan.app import Services, build
from intelligentscan.settings import Settings
from intelligentscan.toolsets.mcp_server import IntelligentScanServer
from intelligentscan.toolsets.selection import Selection, select

MODES = ("auto", "legacy")
EVERYTHING = select(None, (), False)
COMMAND = [sys.executable, "-m", "intelligentscan"]
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def services_at(home: Path, *roots: Path) -> Services:
    """Return real services on the embedded store in `home`; paths may lie in the roots."""
    return build(Settings(home=home, allowed_roots=roots))


@asynccontextmanager
async def connected(services: Services, mode: str = "auto", selection: Selection = EVERYTHING) -> AsyncIterator[Client]:
    """Yield an SDK client connected in memory to our server."""
    async with Client(IntelligentScanServer(services, selection), mode=mode) as client:
        await client.list_tools()  # so that the client validates what follows against the published schemas
        yield client


async def answered(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Return the structured content of a call that must succeed."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert not result.is_error, text_of(result)
    return dict(result.structured_content)


async def refused(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Return the structured content of a call that must be refused; its text says the same."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert result.is_error, text_of(result)
    error = dict(result.structured_content)
    assert text_of(result) == f"{error['message']} Next: {error['next']}"
    return error


def text_of(result: CallToolResult) -> str:
    """Return the text of a result."""
    return "".join(block.text for block in result.content if block.type == "text")


def child_env(home: Path, *roots: Path, **more: str) -> dict[str, str]:
    """Return an environment as small as a desktop application gives its children."""
    allowed = os.pathsep.join(str(root) for root in roots)
    given = {"INTELLIGENTSCAN_ALLOWED_ROOTS": allowed} if roots else {}
    return {"PATH": "/usr/bin:/bin", "INTELLIGENTSCAN_HOME": str(home), **given, **more}


@asynccontextmanager
async def child_client(env: dict[str, str], *options: str, mode: str = "auto") -> AsyncIterator[Client]:
    """Yield an SDK client of a real stdio child."""
    parameters = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "mcp", *options], env=env)
    async with Client(stdio_client(parameters), mode=mode) as client:
        yield client


class RawChild:
    """A real stdio child, spoken to line by line, so that everything it writes is seen."""

    def __init__(self, env: dict[str, str], *options: str, command: str | None = "mcp") -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *([command] if command else []), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        self.noise: list[bytes] = []
        self._last_id = 0

    def request(self, method: str, **params: Any) -> str:
        """Return the line of a new request of the modern era."""
        self._last_id += 1
        params["_meta"] = MODERN_META
        return json.dumps({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}) + "\n"

    def send(self, method: str, **params: Any) -> int:
        """Send a request and return its id."""
        self.write(self.request(method, **params).encode())
        return self._last_id

    def call(self, tool: str, **arguments: Any) -> int:
        """Send a tool call and return its id."""
        return self.send("tools/call", name=tool, arguments=arguments)

    def write(self, line: bytes) -> None:
        """Write bytes to the child's stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield the responses in the order they arrive; what is not JSON-RPC goes to `noise`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                message = json.loads(line)
                protocol = message["jsonrpc"] == "2.0"
            except (ValueError, TypeError, KeyError):
                protocol = False
            if not protocol:
                self.noise.append(line)
            elif "id" in message:
                yield message

    def answer(self) -> dict[str, Any]:
        """Return the next response."""
        return next(self.answers())

    def close(self) -> int:
        """Close the child's stdin, read what is left, and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        for _ in self.answers():
            pass
        return self.process.wait(timeout=30)

    @property
    def stderr(self) -> str:
        """What the child wrote to stderr; only after `close`."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@contextmanager
def raw_child(env: dict[str, str], *options: str, command: str | None = "mcp") -> Iterator[RawChild]:
    """Yield a raw child that is ended whatever happens."""
    child = RawChild(env, *options, command=command)
    try:
        yield child
    finally:
        child.process.kill()
        child.process.wait()
        for stream in (child.process.stdin, child.process.stdout, child.process.stderr):
            if stream is not None:
                stream.close()
