"""`adopt`, `unlock`, `reconcile` and `archive`: an administrator's acts on what is governed; each is in the trail."""

from typing import Annotated, Any

import typer
from rich.text import Text

from intelligentscan.cli.confirmation import Reason, Yes, confirm
from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, answer, clock, counted, print_json, print_next, print_problems
from intelligentscan.domain.administration import Adoption, Reconciliation, RetentionState

_LEFT_OVER = 1
archive = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the registered model.")]
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Number of the version.")]
Until = Annotated[str, typer.Option("--until", metavar="DATE", help="Last day, such as 2036-12-31; never shortened.")]


@reported
def adopt(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only this registered model; all if not given.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put a store, or one model of it, under governance."""
    what = f"The model '{name}' is governed" if name else "Every registered model of this store is governed"
    confirm(
        [
            f"{what} from now on: new versions only by register, Production only by promote.",
            "Tables, guards and a signing key are made, or put back, where they are missing.",
            "Versions and aliases that are there become legacy, unreviewed; none of them is changed.",
        ],
        yes=yes,
    )
    done = on_services(lambda services: services.adoption.adopt(name), doing="Adopting")
    if json:
        print_json(done)
    else:
        _print_adoption(done)


@reported
def unlock(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name or id of the experiment.")],
    reason: Reason,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Open a locked experiment again; versions stay sealed."""
    confirm(
        [
            f"The experiment '{experiment}' can be written to again, by everybody.",
            "Versions registered from it stay sealed; the next registration from it locks it again.",
        ],
        yes=yes,
    )
    done = on_services(lambda services: services.locks.unlock(experiment, reason), doing="Unlocking")
    if json:
        print_json(done)
        return
    line = f"✓ {done.name} is open again (event {done.event}); event {done.locked_by_event} had locked it"
    answer().print(Text(line, style="bold green"), soft_wrap=True)


@reported
def reconcile(
    name: Name,
    reason: Reason,
    accept: Annotated[
        bool, typer.Option("--accept", metavar="", help="Change the record to what the registry says, not vice versa.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Put stages and aliases back to the record, or accept them.

    Exit code: 0 registry and record agree, 1 something is left that this cannot mend.
    """
    will = (
        f"The record of '{name}' is changed to the stages and aliases that the registry has now; versions made "
        "without register become legacy, unreviewed."
        if accept
        else f"Stages and aliases of '{name}' are put back to what the record says."
    )
    confirm([f"{will} (Look first: intelligentscan verify {name})"], yes=yes)
    done = on_services(
        lambda services: services.adoption.reconcile(name, accept=accept, reason=reason), doing="Reconciling"
    )
    if json:
        print_json(done)
    else:
        _print_reconciliation(done)
    if done.left:
        raise typer.Exit(_LEFT_OVER)


@archive.command("hold")
@reported
def archive_hold(name: Name, version: Version, reason: Reason, yes: Yes = False, json: Json = False) -> None:
    """Put a legal hold on a sealed version: it is kept until released."""
    confirm([f"'{name}' version {version} is kept until somebody releases it, whatever its date says."], yes=yes)
    _retain(name, version, json, hold=True, reason=reason)


@archive.command("release")
@reported
def archive_release(name: Name, version: Version, reason: Reason, yes: Yes = False, json: Json = False) -> None:
    """Take a legal hold off; the version's date counts again."""
    confirm([f"'{name}' version {version} is no longer under legal hold; its retention date counts again."], yes=yes)
    _retain(name, version, json, hold=False, reason=reason)


@archive.command("retain")
@reported
def archive_retain(
    name: Name, version: Version, until: Until, reason: Reason, yes: Yes = False, json: Json = False
) -> None:
    """Keep a sealed version longer."""
    confirm([f"'{name}' version {version} is kept until {until}; that cannot be shortened later."], yes=yes)
    _retain(name, version, json, until=until, reason=reason)


def _retain(name: str, version: int, as_json: bool, **what: Any) -> None:
    done: RetentionState = on_services(
        lambda services: services.adoption.retain(name, version, **what), doing="Recording"
    )
    if as_json:
        print_json(done)
        return
    held = ", under legal hold" if done.legal_hold else ""
    line = f"✓ {done.name} version {done.version} is kept until {clock(done.until)}{held} (event {done.event})"
    answer().print(Text(line, style="bold green"), soft_wrap=True)


def _print_adoption(done: Adoption) -> None:
    console = answer()
    if done.installed or done.models:
        head = "governed"
    else:
        head = "the guards are back" if done.repaired else "everything was in order; nothing was changed"
    console.print(f"✓ {head}", style="bold green")
    if done.installed:
        console.print("  tables, guards and signing key were made")
    if done.repaired:
        console.print(Text(f"  put back: {', '.join(done.repaired)}"), soft_wrap=True)
    if done.models:
        console.print(Text(f"  models: {', '.join(done.models)}"), soft_wrap=True)
        console.print(f"  {counted(done.legacy_versions, 'legacy version')}")
    console.print(f"  enforcement: {done.enforcement}")
    for note in done.notes:
        console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
    if done.installed:
        print_next("intelligentscan keys export -o keys.json, and keep that file elsewhere")


def _print_reconciliation(done: Reconciliation) -> None:
    console = answer()
    fixed = len(done.problems) - len(done.left)
    if done.how == "nothing to do":
        console.print(Text(f"nothing to reconcile for {done.name}", style="default" if done.left else "bold green"))
    else:
        line = f"✓ {counted(max(fixed, 0), 'difference')} of {done.name} {done.how} (event {done.event})"
        console.print(Text(line, style="bold green"))
    if done.left:
        console.print(f"✗ {counted(len(done.left), 'problem')} left", style="bold red")
        print_problems(console, done.left)
