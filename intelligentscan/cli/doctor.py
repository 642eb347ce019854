"""`doctor`: what is in order here, what is not, and what to do about it."""

import os

import anyio
import typer
from rich.text import Text

from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, answer, plain_table, print_json
from intelligentscan.domain.diagnosis import Check, CheckStatus, Diagnosis
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.settings import Settings, home_from_environment

_DEADLINE_S = 10.0
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_MARKS: dict[CheckStatus, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "note": ("!", "yellow"),
    "problem": ("✗", "bold red"),
}


@reported
def doctor(json: Json = False) -> None:
    """Check this installation and its store.

    Exit code 1 if something does not work.
    """
    diagnosis = _diagnose()
    if json:
        print_json(diagnosis)
    else:
        print_diagnosis(diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _diagnose() -> Diagnosis:
    for name, value in _IMPATIENT.items():
        os.environ.setdefault(name, value)
    try:
        settings = Settings.load()
    except IntelligentScanError as error:
        from intelligentscan.services.diagnosis import diagnose_without_settings  # app.py needs settings for it

        return anyio.run(diagnose_without_settings, error, home_from_environment())
    impatient = settings.model_copy(update={"deadline_s": min(settings.deadline_s, _DEADLINE_S)})
    return on_services(lambda services: services.diagnosis.run(), doing="Looking", settings=impatient, opening=False)


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print one line per check, and what to do."""
    console = answer()
    table = plain_table()
    table.show_header = False
    table.padding = (0, 2, 0, 0)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for check in diagnosis.checks:
        mark, style = _MARKS[check.status]
        table.add_row(Text(mark, style=style), check.name, _words(check))
    console.print(table)
    console.print()
    problems = sum(check.status == "problem" for check in diagnosis.checks)
    if problems:
        console.print(f"{problems} {'problem' if problems == 1 else 'problems'} to solve.", style="bold red")
    else:
        console.print("Ready.", style="bold green")
        console.print("→ connect an assistant: intelligentscan install claude-code", soft_wrap=True)


def _words(check: Check) -> Text:
    words = Text(check.fact)
    if check.next:
        words.append(f"\n→ {check.next}", style="default" if check.status == "problem" else "dim")
    return words
