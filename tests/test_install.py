"""`install`: what it writes, what it leaves alone, and that the entry it writes starts a server that answers."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from intelligentscan.cli.clients import CLIENTS, ClientName

OTHERS = {"mcpServers": {"files": {"command": "npx", "args": ["-y", "files"]}}, "theme": "dark", "größe": 1}
FILES: dict[ClientName, str] = {
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "claude-code": ".mcp.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".vscode/mcp.json",
}


@pytest.fixture
def command(home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line in a project of a user whose home folder is the project's parent."""
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(home))
    monkeypatch.setenv("HOME", str(project.parent))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.chdir(project)
    (project / "pyproject.toml").write_text("")
    return CommandLine(home)


def file_of(client: ClientName, project: Path) -> Path:
    return (project.parent if client == "claude-desktop" else project) / FILES[client]


async def tools_of(entry: dict[str, Any]) -> set[str]:
    """Start the entry's command as a client started from a menu does: in an empty environment, in '/'."""
    variables = [f"{name}={value}" for name, value in entry["env"].items()]
    words = [*variables, entry["command"], *entry["args"]]
    script = f"cd / && exec /usr/bin/env -i {shlex.join(words)}"
    async with Client(stdio_client(StdioServerParameters(command="/bin/sh", args=["-c", script]))) as client:
        return {tool.name for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize("client", list(CLIENTS))
async def test_the_entry_written_for_a_client_starts_a_server_that_answers(
    command: CommandLine, project: Path, home: Path, client: ClientName
) -> None:
    answer = command("install", client, "--root", ".")

    assert answer.code == 0, answer
    config = json.loads(file_of(client, project).read_text())
    entry = config["servers" if client == "vscode" else "mcpServers"]["intelligentscan"]
    assert Path(entry["command"]).is_absolute()
    assert entry["env"] == {"INTELLIGENTSCAN_ALLOWED_ROOTS": str(project), "INTELLIGENTSCAN_HOME": str(home)}
    assert {"scan_vulnerabilities", "compare_runs", "promote"} <= await tools_of(entry)


async def test_the_line_for_claude_code_names_a_command_that_starts(command: CommandLine, project: Path) -> None:
    answer = command("install", "claude-code", "--print")

    words = shlex.split(answer.out)
    dashes = words.index("--")
    # Its --env takes every word that follows, so the name must come before.
    assert words[:4] == ["claude", "mcp", "add", "intelligentscan"]
    env = dict(words[i + 1].split("=", 1) for i, word in enumerate(words[:dashes]) if word == "--env")
    started, *args = words[dashes + 1 :]
    assert "log_run" in await tools_of({"command": started, "args": args, "env": env})
    assert not file_of("claude-code", project).exists()


def test_print_writes_nothing_and_shows_the_whole_configuration(command: CommandLine, project: Path) -> None:
    before = sorted(project.rglob("*"))

    printed = json.loads(command("install", "cursor", "--print").out)

    assert printed["mcpServers"].keys() == {"intelligentscan"}
    assert sorted(project.rglob("*")) == before


def test_other_servers_and_settings_stay_and_a_backup_is_kept(command: CommandLine, project: Path) -> None:
    file = file_of("cursor", project)
    file.parent.mkdir()
    text = json.dumps(OTHERS, ensure_ascii=False)
    file.write_text(text, encoding="utf-8")
    file.chmod(0o640)

    told = command.json("install", "cursor")

    after = json.loads(file.read_text(encoding="utf-8"))
    assert after["mcpServers"].pop("intelligentscan") == told["entry"]
    assert after == OTHERS
    assert Path(told["backup"]).read_text(encoding="utf-8") == text
    assert file.stat().st_mode & 0o777 == 0o640
    assert {p.name for p in file.parent.iterdir()} == {"mcp.json", "mcp.json.bak"}


def test_a_second_time_changes_nothing(command: CommandLine, project: Path) -> None:
    first = command.json("install", "vscode")
    before = file_of("vscode", project).read_bytes()

    second = command.json("install", "vscode")

    assert (first["changed"], second["changed"], second["backup"]) == (True, False, None)
    assert file_of("vscode", project).read_bytes() == before


def test_what_somebody_added_to_our_entry_stays(command: CommandLine, project: Path, tmp_path: Path) -> None:
    command("install", "cursor")
    file = file_of("cursor", project)
    config = json.loads(file.read_text())
    config["mcpServers"]["intelligentscan"]["env"]["INTELLIGENTSCAN_READ_ONLY"] = "true"
    config["mcpServers"]["intelligentscan"]["disabled"] = True
    file.write_text(json.dumps(config))

    command("install", "cursor", "--root", str(project), "--root", str(tmp_path))

    ours = json.loads(file.read_text())["mcpServers"]["intelligentscan"]
    assert ours["disabled"] is True
    assert ours["env"]["INTELLIGENTSCAN_READ_ONLY"] == "true"
    assert ours["env"]["INTELLIGENTSCAN_ALLOWED_ROOTS"] == f"{project}{os.pathsep}{tmp_path}"


def test_a_link_to_a_file_elsewhere_stays_a_link(command: CommandLine, project: Path, tmp_path: Path) -> None:
    dotfile = tmp_path / "dotfiles.json"
    dotfile.write_text("{}")
    file_of("claude-code", project).symlink_to(dotfile)

    command("install", "claude-code")

    assert file_of("claude-code", project).is_symlink()
    assert "intelligentscan" in json.loads(dotfile.read_text())["mcpServers"]


@pytest.mark.parametrize(
    "text",
    ['{"servers": {}, // mine\n}', "{", "[]", '{"servers": []}', '{"servers": {"intelligentscan": 1}}', "\x80"],
    ids=["comment", "cut", "list", "servers-list", "entry-number", "not-utf-8"],
)
def test_a_file_that_is_not_understood_is_named_and_left_as_it_is(
    command: CommandLine, project: Path, text: str
) -> None:
    file = file_of("vscode", project)
    file.parent.mkdir()
    file.write_bytes(text.encode("latin-1"))

    error = command.json("install", "vscode", code=2)

    assert str(file) in error["message"]
    assert "--print" in error["next"]
    assert file.read_bytes() == text.encode("latin-1")
    assert list(file.parent.iterdir()) == [file]


def test_an_empty_file_and_a_byte_order_mark_are_no_obstacle(command: CommandLine, project: Path) -> None:
    file = file_of("claude-code", project)
    for content in (b"", b"\xef\xbb\xbf{}"):
        file.write_bytes(content)
        assert command("install", "claude-code").code == 0
        assert "intelligentscan" in json.loads(file.read_text())["mcpServers"]


def test_the_store_of_this_shell_goes_along_but_no_password(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    plain = command.json("install", "cursor", "--print")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:hunter2@db/mlflow")
    secret = command("install", "cursor")

    assert plain["entry"]["env"]["MLFLOW_TRACKING_URI"] == f"sqlite:///{project / 'runs.db'}"
    assert "hunter2" not in file_of("cursor", project).read_text()
    assert "config.toml" in secret.err


def test_without_a_project_or_root_nothing_is_written(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert "--root" in command.json("install", "cursor", code=2)["next"]
    assert command.json("install", "cursor", "--root", "missing", code=2)["code"] == "PATH_NOT_FOUND"
    assert command.json("install", "cursor", "--root", __file__, code=2)["code"] == "WRONG_PATH_KIND"
    assert not (tmp_path / ".cursor").exists()


def test_claude_desktop_is_found_where_each_system_keeps_it(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    told = command.json("install", "claude-desktop", "--print")

    expected = project.parent / "Library/Application Support/Claude/claude_desktop_config.json"
    assert told["file"] == str(expected)
