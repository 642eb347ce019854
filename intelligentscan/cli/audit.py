"""`audit` and `keys`: the trail as an auditor meets it, and the keys that sign it."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic_core import from_json
from rich.text import Text

from intelligentscan.cli.confirmation import Yes, confirm
from intelligentscan.cli.history import Actor, At, Limit, VersionOption, print_events, told
from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import (
    Json,
    answer,
    counted,
    facts_table,
    plain_table,
    print_json,
    print_next,
    print_warning,
)
from intelligentscan.domain.audit import TrailKey, TrailReport
from intelligentscan.domain.errors import InvalidArgument, NotFound

audit = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
keys = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@audit.command("log")
@reported
def audit_log(
    name: Annotated[str | None, typer.Option("--name", "-n", help="Only this registered model.")] = None,
    version: VersionOption = None,
    actor: Actor = None,
    at: At = None,
    limit: Limit = 20,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write the whole trail to a new file, for audit verify --log."),
    ] = None,
    json: Json = False,
) -> None:
    """List the trail's events, or export the whole trail."""
    if export is not None:
        if any(part is not None for part in (name, version, actor, at)):
            raise InvalidArgument(
                "An export is the whole trail; a part of it would not verify.",
                next="leave out --name, --version, --actor and --at.",
            )
        written = on_services(lambda services: services.trail.export(export), doing="Exporting")
        if json:
            print_json({"path": str(export), "events": written})
            return
        answer().print(Text(f"✓ {counted(written, 'event')} in {export}", style="bold green"), soft_wrap=True)
        print_next(f"check it on any machine: intelligentscan audit verify --log {export.name} --trust KEY")
        return
    found = on_services(
        lambda services: told(services, name=name, version=version, at=at, actor=actor, limit=limit), doing="Reading"
    )
    if json:
        print_json(found)
    else:
        print_events(found)


@audit.command("verify")
@reported
def audit_verify(
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Exported trail; the store's own if not given.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="Signed state that was kept elsewhere.")
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option("--trust", metavar="KEY", help="Key that you know: its id, or a file of keys. Can be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Check the trail: order, links, signatures, rows.

    Exit code: 0 verified by a trusted key, 1 something does not hold, 2 could not check, 3 self-consistent but the
    signer is unknown (no --trust). An exported trail needs neither store nor server.
    """
    report = on_services(
        lambda services: services.trail.verify(log=log, checkpoint=checkpoint, trust=trust or ()),
        doing="Verifying",
        opening=log is None,
    )
    if json:
        print_json({**report.model_dump(mode="json"), "exit_code": report.exit_code})
    else:
        _print_trail(report)
    raise typer.Exit(report.exit_code)


@audit.command("checkpoint")
@reported
def audit_checkpoint(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder to keep it in. Default: the setting CHECKPOINT_DIR."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Sign the trail's present state and keep it elsewhere."""
    made = on_services(lambda services: services.trail.checkpoint(output), doing="Signing")
    if json:
        print_json(made)
        return
    answer().print(Text(f"✓ checkpoint of event {made.seq}: {made.path}", style="bold green"), soft_wrap=True)
    for note in made.notes:
        print_warning(note)


@keys.command("show")
@reported
def keys_show(json: Json = False) -> None:
    """Show the keys that signed the trail."""
    found = on_services(lambda services: services.trail.keys(), doing="Reading")
    if json:
        print_json(found)
        return
    if not found.keys:
        answer().print("no key yet; the first governed act makes one", style="dim")
        return
    _print_keys(found.keys)
    if not found.readable:
        print_warning("This account does not have the key in force: it cannot register, promote or unlock.")


@keys.command("export")
@reported
def keys_export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="New file to write. Default: stdout.")
    ] = None,
    json: Json = False,
) -> None:
    """Export the public keys, for audit verify --trust."""
    document = on_services(lambda services: services.trail.public_keys(), doing="Reading")
    exported = [key["key_id"] for key in from_json(document)["keys"]]
    if not exported:
        raise NotFound(
            "There is no key yet.", next="the first governed act makes one, such as 'intelligentscan adopt'."
        )
    if output is None:
        typer.echo(document, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as stream:
            stream.write(document)
    except OSError as exc:
        raise InvalidArgument(
            f"The keys cannot be written to {output}: {exc.strerror}.", next="name a new file in a folder of yours."
        ) from exc
    if json:
        print_json({"path": str(output), "keys": exported})
        return
    answer().print(Text(f"✓ {counted(len(exported), 'public key')} in {output}", style="bold green"), soft_wrap=True)
    print_next(
        "hand this file to your auditors by another way than the trail: intelligentscan audit verify --trust FILE"
    )


@keys.command("rotate")
@reported
def keys_rotate(yes: Yes = False, json: Json = False) -> None:
    """Bring a new signing key into force."""
    confirm(
        [
            "A new key signs the trail from now on; the old one signs that event, and the new one countersigns it.",
            "Signatures of the old key stay good for the events up to then.",
        ],
        yes=yes,
    )
    done = on_services(lambda services: services.trail.rotate(), doing="Rotating")
    if json:
        print_json(done)
        return
    answer().print(f"✓ event {done.event} brought the key {done.new} into force", style="bold green", soft_wrap=True)
    answer().print(f"  before: {done.old}", style="dim", soft_wrap=True)
    print_next("give it to your auditors: intelligentscan keys export -o keys.json")


def _print_trail(report: TrailReport) -> None:
    console = answer()
    mark, style = {0: ("✓", "bold green"), 3: ("!", "bold yellow")}.get(report.exit_code, ("✗", "bold red"))
    console.print(Text(f"{mark} {report.verdict}: {counted(report.events, 'event')}", style=style))
    facts = [("head", report.head_hash or "–"), ("checkpoint", report.checkpoint)]
    console.print(facts_table(facts))
    if report.keys:
        console.print()
        _print_keys(report.keys)
    if report.problems:
        console.print()
        table = plain_table("event", "problem", "what")
        for problem in report.problems:
            where = "–" if problem.seq is None else str(problem.seq)
            table.add_row(where, Text(problem.code, style="bold red"), problem.message)
        console.print(table)
        if (more := report.problems_total - len(report.problems)) > 0:
            console.print(f"and {more} more", style="dim")
    for note in report.notes:
        print_warning(note)


def _print_keys(found: list[TrailKey]) -> None:
    table = plain_table("key", "signs events")
    table.columns[0].no_wrap = True
    for key in found:
        until = "on, in force" if key.last is None else f"to {key.last}"
        table.add_row(key.fingerprint, f"{key.first} {until}", style="dim" if key.last is not None else None)
    answer().print(table)
