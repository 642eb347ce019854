"""What a terminal shows: answers on stdout, errors and progress on stderr, one JSON document when asked.

Text from runs and scanned code is shown as it is: markup and emoji codes in it are switched off.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from intelligentscan.cli.wording import for_people
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.domain.integrity import Problem
from intelligentscan.domain.noun import Noun
from intelligentscan.domain.severity import Severity

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document; errors too.")]

SEVERITY_STYLE: dict[Severity, str] = {
    "critical": "bold magenta",
    "high": "bold red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}
_PIPE_WIDTH = 140
_SHOWN_ALIKE = 8


def answer() -> Console:
    """Return the console for answers."""
    return _console(stderr=False)


def aside() -> Console:
    """Return the console for progress, warnings and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # In a file or a build log nobody scrolls sideways, so there tables are as wide as they need.
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def print_json(document: Noun | Mapping[str, Any]) -> None:
    """Print one JSON document on stdout."""
    text = document.model_dump_json(indent=2) if isinstance(document, Noun) else json.dumps(document, indent=2)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_error(error: IntelligentScanError, *, as_json: bool) -> None:
    """Print an error: a fact and a next step on stderr, or its JSON on stdout."""
    if as_json:
        print_json({"code": error.code, "message": error.message, "next": error.next, "details": error.details})
        return
    console = aside()
    console.print(Text(f"✗ {for_people(error.message)}", style="bold red"), soft_wrap=True)
    if error.next:
        print_next(error.next)


def print_next(step: str) -> None:
    """Print on stderr what to do next."""
    aside().print(Text(f"→ {for_people(step)}"), soft_wrap=True)


def print_warning(text: str) -> None:
    """Print on stderr what must not be overlooked."""
    aside().print(Text(f"! {for_people(text)}", style="bold yellow"), soft_wrap=True)


def plain_table(*columns: str, title: str | None = None) -> Table:
    """Return a table without borders, its columns as wide as their content."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column, header_style="dim", overflow="fold")
    return table


def facts_table(facts: Iterable[tuple[str, str | Text]]) -> Table:
    """Return names and what is known about each, without a heading."""
    table = plain_table()
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts:
        table.add_row(name, fact)
    return table


def print_problems(console: Console, problems: Iterable[Problem]) -> None:
    """Print what is not as it was recorded, and what to do: once for several in a row that need the same."""
    for next_step, group in itertools.groupby(problems, key=lambda problem: problem.next):
        alike = list(group)
        for problem in alike[:_SHOWN_ALIKE]:
            line = Text("  ").append(problem.code, style="bold red")
            line.append(f"  {problem.where}: " if problem.where else "  ").append(for_people(problem.what))
            console.print(line, soft_wrap=True)
        if len(alike) > _SHOWN_ALIKE:
            console.print(f"    and {len(alike) - _SHOWN_ALIKE} more like these", style="dim")
        if next_step:
            console.print(Text(f"    → {for_people(next_step)}", style="dim"), soft_wrap=True)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def clock(time: str) -> str:
    """Return an RFC 3339 time as people read it."""
    return time.replace("T", " ").removesuffix("Z")


def listed(text: str) -> list[str] | None:
    """Return the parts of a comma-separated option, None if it is empty."""
    return [part.strip() for part in text.split(",") if part.strip()] or None
