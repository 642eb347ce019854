"""Asking before an administrator's act: what it will do, and whether to go on."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from intelligentscan.cli.terminal import aside

DECLINED = 1
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask at a terminal.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the audit trail.")]


def asks(*, yes: bool) -> bool:
    """Tell whether somebody is there to be asked."""
    return not yes and sys.stdin is not None and sys.stdin.isatty()


def confirm(will: Sequence[str], *, yes: bool) -> None:
    """Say what will happen and ask whether to go on; a script is not asked.

    Args:
        will: what the command will do, one fact per line.
        yes: the answer was given with the command.

    Raises:
        typer.Exit: the person said no.
    """
    if not asks(yes=yes):
        return
    console = aside()
    for line in will:
        console.print(Text(line), soft_wrap=True)
    if not typer.confirm("Go on?", err=True):
        console.print("nothing was changed", style="dim")
        raise typer.Exit(DECLINED)
