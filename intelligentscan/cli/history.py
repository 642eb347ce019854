"""`history` and `verify`: what happened and what was live, and whether everything is still as it was recorded."""

import re
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from intelligentscan.app import Services
from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, answer, clock, counted, plain_table, print_json, print_problems
from intelligentscan.domain.history import History, HistoryEvent
from intelligentscan.domain.integrity import IntegrityReport

NOT_AS_RECORDED = 1
_PAGE = 100
_SHOWN_LIVE = 20
_HEX = re.compile(r"[0-9a-f]{32,}")
_DIGITS = 12
"""How much of a digest a person needs to tell two apart."""

_ONE_EACH = ("guards", "trail")
_UNTOLD = frozenset({"stages", "aliases", "data", "lineage_origin", "run_author_is", "gates", "to", "next_experiment"})

Limit = Annotated[int, typer.Option(min=1, help="How many events.")]
At = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="Day (its end) or RFC 3339 time, UTC; nothing later is told.")
]
Actor = Annotated[str | None, typer.Option("--actor", help="Only what this person did, or had done.")]
VersionOption = Annotated[int | None, typer.Option("--version", "-v", min=1, help="Only this version of it.")]


@reported
def history(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Registered model; all if not given.")] = None,
    version: VersionOption = None,
    at: At = None,
    actor: Actor = None,
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """Show who did what and why, and what was live when."""
    found = on_services(
        lambda services: told(services, name=name, version=version, at=at, actor=actor, limit=limit), doing="Reading"
    )
    if json:
        print_json(found)
        return
    _print_live(answer(), found, named=name is not None)
    print_events(found)


@reported
def verify(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Registered model; all if not given.")] = None,
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", min=1, help="Number of the version; all if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """Check that nothing sealed, locked or recorded was changed.

    Exit code: 0 everything is as it was recorded, 1 something is not.
    """
    report = on_services(lambda services: services.integrity.verify(name, version), doing="Verifying")
    if json:
        print_json(report)
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(NOT_AS_RECORDED)


async def told(
    services: Services, *, name: str | None, version: int | None, at: str | None, actor: str | None, limit: int
) -> History:
    """Return so many events, however many pages that takes."""
    found: History | None = None
    while found is None or (found.next_cursor and len(found.events) < limit):
        page = await services.history.get(
            name=name,
            version=version,
            at=at,
            actor=actor,
            limit=min(limit - len(found.events) if found else limit, _PAGE),
            cursor=found.next_cursor if found else None,
        )
        before = found.events if found else []
        found = page.model_copy(update={"events": [*before, *page.events]})
    return found


def print_events(found: History) -> None:
    """Print events as a table, the newest first."""
    console = answer()
    if not found.events:
        console.print("no events", style="dim")
    else:
        table = plain_table("event", "when (UTC)", "what", "model", "who", "details")
        for column in table.columns[:3]:
            column.no_wrap = True
        for event in found.events:
            table.add_row(str(event.seq), clock(event.at), event.action, _subject(event), _who(event), _details(event))
        console.print(table)
    if found.next_cursor:
        console.print("there are older ones: name a larger --limit", style="dim")
    for note in found.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)


def _print_live(console: Console, found: History, *, named: bool) -> None:
    table = plain_table(f"live on {clock(found.at)}" if found.at else "live now", "", "since", "event")
    for stage, rows in found.live.items():
        for row in rows[:_SHOWN_LIVE]:
            what = f"version {row.version}" if named else f"{row.name} version {row.version}"
            style = "bold green" if stage == "Production" else "default"
            table.add_row(Text(stage, style=style), what, clock(row.since), str(row.event))
        if not rows:
            table.add_row(stage, Text("–", style="dim"), "", "")
        elif (more := len(rows) - _SHOWN_LIVE) > 0:
            table.add_row(stage, Text(f"and {more} more; name a model", style="dim"), "", "")
    console.print(table)
    console.print()


def _subject(event: HistoryEvent) -> str:
    if event.name is None:
        return f"experiment {event.experiment_id}" if event.experiment_id else "–"
    return event.name if event.version is None else f"{event.name} v{event.version}"


def _who(event: HistoryEvent) -> str:
    return f"{event.on_behalf_of} (by {event.actor})" if event.on_behalf_of else event.actor


def _details(event: HistoryEvent) -> str:
    """Return in words what an event says; `--json` has all of it."""
    facts = event.facts
    words = [f"to {facts['to']}"] if "to" in facts else []
    match facts.get("gates"):
        case [*gates] if gates:
            passed = sum(isinstance(gate, dict) and gate.get("outcome") != "fail" for gate in gates)
            words.append(f"{passed} of {counted(len(gates), 'gate')} passed")
    if "next_experiment" in facts:
        words.append(f"work goes on in {facts['next_experiment']}")
    words += [
        f"{key.replace('_', ' ')}: {_short(key, value)}"
        for key, value in facts.items()
        if key not in _UNTOLD and value != {}
    ]
    if event.reason:
        words.append(f"“{event.reason}”")
    return "; ".join(words)


def _short(key: str, value: object) -> str:
    match value:
        case str() if "digest" in key or _HEX.fullmatch(value):
            return value[:_DIGITS]
        case [*entries]:
            return ", ".join(str(entry) for entry in entries[:3]) + (" …" if len(entries) > 3 else "")
        case _:
            return str(value)


def _print_report(report: IntegrityReport) -> None:
    console = answer()
    checked = ", ".join(
        name if name in _ONE_EACH else counted(count, name.removesuffix("s")) for name, count in report.checked.items()
    )
    if report.ok:
        console.print("✓ everything is as it was recorded", style="bold green")
    else:
        console.print(f"✗ {counted(report.problems_total, 'problem')}", style="bold red")
        print_problems(console, report.problems)
        if (more := report.problems_total - len(report.problems)) > 0:
            console.print(f"  and {more} more", style="dim")
    console.print(f"  checked: {checked or 'nothing'}", soft_wrap=True)
    console.print(f"  enforcement: {report.enforcement}")
    for note in report.notes:
        console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
