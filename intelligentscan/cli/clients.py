"""The MCP clients that we can be connected to: where each keeps its servers, and in which form. One table for all.

A client that is started from a menu has neither our PATH nor our environment, so an entry holds absolute paths and
everything that selects the same store as in this shell.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from intelligentscan._paths import ROOTS_SETTING
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.settings import Settings
from intelligentscan.store_environment import exports

ClientName = Literal["claude-desktop", "claude-code", "cursor", "vscode"]
SERVER = "intelligentscan"


@dataclass(frozen=True, slots=True)
class Client:
    """One MCP client.

    Attributes:
        title: its name for people.
        section: the key of its configuration that holds the servers.
        project_file: its file in a project; None if it has one for the user alone.
        names_type: whether an entry says that it is a stdio server.
        restart: what makes it notice a new entry.
    """

    title: str
    section: str
    project_file: str | None
    names_type: bool
    restart: str

    def path(self, project: Path) -> Path:
        """Return the configuration file to write."""
        return project / self.project_file if self.project_file else _claude_desktop_file()


CLIENTS: dict[ClientName, Client] = {
    "claude-desktop": Client("Claude Desktop", "mcpServers", None, False, "quit and start Claude Desktop"),
    "claude-code": Client(
        "Claude Code", "mcpServers", ".mcp.json", True, "start claude in this project and approve it"
    ),
    "cursor": Client("Cursor", "mcpServers", ".cursor/mcp.json", False, "open the project in Cursor and enable it"),
    "vscode": Client("VS Code", "servers", ".vscode/mcp.json", True, "open the project in VS Code and start it"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """How a client starts our server."""

    command: str
    args: tuple[str, ...]
    env: dict[str, str]
    notes: tuple[str, ...] = ()

    def data(self, client: Client) -> dict[str, Any]:
        """Return the entry as the client's configuration has it."""
        head = {"type": "stdio"} if client.names_type else {}
        return {**head, "command": self.command, "args": list(self.args), "env": self.env}


def entry(settings: Settings, roots: Sequence[Path]) -> Entry:
    """Return the entry that starts this installation on the store in force, allowed to read the roots."""
    beside = Path(sys.executable).parent / SERVER
    program = [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-m", SERVER]
    env = {ROOTS_SETTING: os.pathsep.join(str(root) for root in roots)}
    notes: list[str] = []
    if os.environ.get("INTELLIGENTSCAN_HOME"):
        env["INTELLIGENTSCAN_HOME"] = str(settings.home)
    if not settings.embedded:
        chosen = {"MLFLOW_TRACKING_URI": settings.tracking_uri, "MLFLOW_REGISTRY_URI": settings.registry_uri}
        absolute = exports(settings)
        for name in (name for name, value in chosen.items() if value and os.environ.get(name)):
            if urlsplit(absolute[name]).password:
                key = name.removeprefix("MLFLOW_").lower()
                notes.append(f"{name} holds a password and was left out: put {key} = \"…\" into config.toml of "
                             f"INTELLIGENTSCAN_HOME, {settings.home}.")  # fmt: skip
            else:
                env[name] = absolute[name]
    return Entry(program[0], (*program[1:], "mcp"), env, tuple(notes))


def snippet(client: Client, entry: Entry) -> str:
    """Return the whole configuration of a client that has no other server."""
    return json.dumps({client.section: {SERVER: entry.data(client)}}, indent=2, ensure_ascii=False)


def claude_mcp_add(entry: Entry) -> str:
    """Return the command that connects Claude Code in every project of this user."""
    # The name stands before --env, which would take every word up to the next option as another variable.
    words = ["claude", "mcp", "add", SERVER, "--scope", "user"]
    for name, value in entry.env.items():
        words += ["--env", f"{name}={value}"]
    return shlex.join([*words, "--", entry.command, *entry.args])


def merged(text: str, client: Client, entry: Entry, file: Path) -> str:
    """Return a client's configuration with our entry in it, everything else as it was.

    What somebody added to our entry stays, such as further variables.

    Raises:
        InvalidArgument: the text is not JSON, or not of the shape that the client reads.
    """
    config = _parsed(text, file)
    servers = _object(config.get(client.section, {}), f"'{client.section}'", file)
    ours = _object(servers.get(SERVER, {}), f"'{SERVER}'", file)
    env = {**_object(ours.get("env", {}), "'env'", file), **entry.env}
    servers = {**servers, SERVER: {**ours, **entry.data(client), "env": env}}
    return json.dumps({**config, client.section: servers}, indent=2, ensure_ascii=False) + "\n"


def _parsed(text: str, file: Path) -> Mapping[str, Any]:
    if not text.strip():
        return {}
    try:
        return _object(json.loads(text.removeprefix("\ufeff")), "the document", file)
    except json.JSONDecodeError as exc:
        raise InvalidArgument(
            f"{file} is not plain JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}; it was left as it is.",
            next="correct it (comments and trailing commas too), or add the entry by hand: repeat with --print.",
            details={"file": str(file), "line": exc.lineno, "column": exc.colno},
        ) from exc
    except RecursionError as exc:
        raise InvalidArgument(f"{file} is nested too deeply to be a configuration.", next="correct it.") from exc


def _object(value: Any, what: str, file: Path) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise InvalidArgument(
        f"{file}: {what} is no object; the file was left as it is.",
        next="correct it, or add the entry by hand: repeat with --print.",
        details={"file": str(file)},
    )


def _claude_desktop_file() -> Path:
    name = "claude_desktop_config.json"
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/Claude").expanduser() / name
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path("~/AppData/Roaming").expanduser()) / "Claude" / name
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()) / "Claude" / name
