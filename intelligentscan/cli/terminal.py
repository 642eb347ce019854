"""What a terminal shows: answers on stdout, errors and progress on stderr, one JSON document when asked.

Text from runs and scanned code is shown as it is: markup and emoji codes in it are switched off.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from intelligentscan.domain.errors import IntelligentScanError
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
_COMMAND_OF_TOOL = {
    "scan_vulnerabilities": "'intelligentscan scan'",
    "log_scan_run": "'intelligentscan import-sarif'",
    "compare_runs": "'intelligentscan compare'",
    "register_model": "'intelligentscan register'",
    "create_experiment": "'intelligentscan scan --experiment'",
    "log_run": "'intelligentscan run -- CMD'",
}
_OPTION_OF_ARGUMENT = {
    "repo_path": "PATH",
    "sarif_path": "FILE",
    "run_ids": "RUN...",
    "run_id": "RUN",
    "model_uri": "RUN",
    "model_path": "--model-path",
    "top_k": "--top-k",
    "order_by": "--order-by",
    "with reason": "with --reason",
    "with to=": "with --to ",
    "in metrics": "with --metrics",
    "response_format='detailed'": "--json",
}
_BROWSING = ("list_findings", "search_experiments", "search_runs", "get_run", "get_model")
_WORDS = _COMMAND_OF_TOOL | _OPTION_OF_ARGUMENT
_WORD = re.compile(
    rf"(?P<browsing>\b(?:{'|'.join(_BROWSING)})\b(?: (?:with )?\w+=(?:'[^']*'|\S+))*)"
    rf"|(?<!\w)(?P<word>{'|'.join(map(re.escape, _WORDS))})(?![a-z_=]| run_id=)"
    r"|'[^']*'"  # what is quoted is somebody's name
)


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


def for_people(text: str) -> str:
    """Return a message with the names of agent tools and their arguments replaced by our commands and options."""
    return _WORD.sub(_for_people, text)


def _for_people(match: re.Match[str]) -> str:
    if match["browsing"]:
        return "'intelligentscan ui'"
    return _WORDS[match[0]] if match["word"] else match[0]


def plain_table(*columns: str, title: str | None = None) -> Table:
    """Return a table without borders, its columns as wide as their content."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column, header_style="dim", overflow="fold")
    return table


def listed(text: str) -> list[str] | None:
    """Return the parts of a comma-separated option, None if it is empty."""
    return [part.strip() for part in text.split(",") if part.strip()] or None
