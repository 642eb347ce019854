"""The commands that start something else: the MCP server, the demo."""

from pathlib import Path
from typing import Annotated

import typer

from intelligentscan.cli.runner import reported
from intelligentscan.cli.terminal import Json


def mcp(context: typer.Context) -> None:
    """Serve MCP on stdio; an assistant starts this."""
    raise typer.Exit(serve(context.args))


def serve(options: list[str]) -> int:
    """Run the MCP server until its client leaves; return its exit code."""
    from intelligentscan.server.main import main  # costs half a second, for this one command

    return main(options)


@reported
def demo(
    home: Annotated[
        Path | None, typer.Option(help="Folder for the demo's store, instead of INTELLIGENTSCAN_HOME.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", metavar="", help="Only the five main tools.")] = False,
    json: Json = False,
) -> None:
    """Watch a whole conversation: scan, compare, register, promote."""
    from intelligentscan.server.demo import run_demo  # it brings the SDK's client, for this one command

    raise typer.Exit(run_demo(home, quick, as_json=json))
