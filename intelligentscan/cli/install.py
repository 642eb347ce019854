"""`install`: writes the entry by which an MCP client starts our server, beside whatever else it has."""

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from intelligentscan._paths import ROOTS_SETTING, default_roots
from intelligentscan.cli.clients import CLIENTS, SERVER, Client, ClientName, claude_mcp_add, entry, merged, snippet
from intelligentscan.cli.runner import reported
from intelligentscan.cli.terminal import Json, answer, print_json, print_next, print_warning
from intelligentscan.domain.errors import InvalidArgument, PathNotFound, PathUnreadable, WrongPathKind
from intelligentscan.settings import Settings


@reported
def install(
    client: Annotated[ClientName, typer.Argument(metavar="CLIENT", help="The client to connect.")],
    root: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR", help="Folder the assistant may read; can be repeated. Default: the current project."
        ),
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", metavar="", help="Print the entry and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Connect Claude Desktop, Claude Code, Cursor or VS Code."""
    roots = _roots(root or [])
    target, ours = CLIENTS[client], entry(Settings.load(), roots)
    file = target.path(roots[0])
    command = claude_mcp_add(ours) if client == "claude-code" else None
    changed, backup = False, None
    if not only_print:
        before = _read(file)
        after = merged(before or "", target, ours, file)
        changed = after != before
        if changed:
            backup = _replace(file, after)
    if json:
        print_json(
            {
                "client": client,
                "file": str(file),
                "changed": changed,
                "backup": str(backup) if backup else None,
                "section": target.section,
                "entry": ours.data(target),
                "command": command,
                "notes": list(ours.notes),
            }
        )
        return
    if only_print:
        _print_entry(target, file, command, snippet(target, ours))
    else:
        _print_done(target, file, roots, backup, changed=changed)
    for note in ours.notes:
        print_warning(note)


def _roots(given: list[str]) -> list[Path]:
    """Return the folders that the assistant may read, absolute.

    Raises:
        InvalidArgument: none is given and the current folder is no project.
        PathRefused: one is missing or no folder.
    """
    if not given:
        found = list(default_roots(Path.cwd(), Path("~").expanduser()))
        if not found:
            raise InvalidArgument(
                "The current folder is no project, so an assistant could read nothing.",
                next="name the folders with --root, such as --root ~/code/shop.",
            )
        return found
    roots = [Path(text).expanduser().resolve() for text in given]
    for root in roots:
        if not root.exists():
            raise PathNotFound(f"There is no folder {root}.", next="call again with --root set to a folder.")
        if not root.is_dir():
            raise WrongPathKind(f"{root} is no folder.", next="call again with --root set to the folder that holds it.")
        if os.pathsep in str(root):
            raise InvalidArgument(
                f"{root} has '{os.pathsep}' in its name, which separates folders in {ROOTS_SETTING}.",
                next="name the folder above it with --root.",
            )
    return list(dict.fromkeys(roots))


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as exc:
        raise InvalidArgument(
            f"{file} is not UTF-8; it was left as it is.", next="save it as UTF-8, or repeat with --print."
        ) from exc
    except OSError as exc:
        raise PathUnreadable(f"{file} cannot be read: {exc.strerror}.", next="repeat with --print.") from exc


def _replace(file: Path, text: str) -> Path | None:
    """Write a file as a whole or not at all; return the copy of what was there before."""
    real = file.resolve()  # a link into a folder of dotfiles stays a link
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        backup = None
        mode = 0o600
        if real.exists():
            backup = real.with_name(f"{real.name}.bak")
            shutil.copy2(real, backup)
            mode = stat.S_IMODE(real.stat().st_mode)
        handle, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
        fresh = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.chmod(mode)
            fresh.replace(real)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as exc:
        raise PathUnreadable(
            f"{file} cannot be written: {exc.strerror}.", next="add the entry by hand: repeat with --print."
        ) from exc
    return backup


def _print_entry(client: Client, file: Path, command: str | None, text: str) -> None:
    console = answer()
    if command is not None:
        console.print(Text(command), soft_wrap=True)
        print_next(f"run this, or put the entry of 'install claude-code --print --json' into {file}.")
        return
    console.print(Text(text), soft_wrap=True)
    print_next(f"put this into {file}, then {client.restart}.")


def _print_done(client: Client, file: Path, roots: list[Path], backup: Path | None, *, changed: bool) -> None:
    console = answer()
    head = f"✓ {client.title} knows '{SERVER}'" if changed else f"✓ {client.title} knew '{SERVER}' already"
    console.print(Text(head, style="bold green"))
    console.print(Text(f"  file   {file}"), soft_wrap=True)
    if backup is not None:
        console.print(Text(f"  before {backup}", style="dim"), soft_wrap=True)
    console.print(Text(f"  reads  {', '.join(map(str, roots))}"), soft_wrap=True)
    print_next(f"{client.restart}, then say: scan this repo, then compare with last time.")
