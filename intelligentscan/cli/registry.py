"""`register` and `promote`: a run becomes a model version, and a version moves between stages."""

from typing import Annotated

import typer
from rich.text import Text

from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, answer, print_json, print_next
from intelligentscan.domain.registry import PromotionDecision, RegisteredVersion

_REFUSED = 1
DryRun = Annotated[bool, typer.Option("--dry-run", metavar="", help="Only say what would happen.")]


@reported
def register(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Full run id, or a model URI: models:/m-…, runs:/RUN/NAME.")
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the registered model.")],
    model_path: Annotated[str | None, typer.Option(help="Which of the run's models, by its name.")] = None,
    description: Annotated[str | None, typer.Option(help="Text for the version.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Register a run's model, or a scan's configuration."""
    is_uri = run.startswith(("models:/", "runs:/"))
    version = on_services(
        lambda services: services.registry.register(
            name,
            run_id=None if is_uri else run,
            model_uri=run if is_uri else None,
            model_path=model_path,
            description=description,
            dry_run=dry_run,
        ),
        doing="Registering",
    )
    if json:
        print_json(version)
    else:
        _print_version(version)


@reported
def promote(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the registered model.")],
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version.")],
    to: Annotated[str, typer.Option("--to", help="Staging, Production or Archived.")],
    reason: Annotated[str | None, typer.Option(help="Why; needed for Production.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Move a version to Staging, Production or Archived."""
    decision = on_services(
        lambda services: services.registry.promote(name, version, to, reason=reason, dry_run=dry_run),
        doing="Promoting",
    )
    if json:
        print_json(decision)
    else:
        _print_decision(decision)
    if decision.status in ("would_refuse", "pending_review", "pending_confirmation"):
        raise typer.Exit(_REFUSED)


def _print_version(version: RegisteredVersion) -> None:
    console = answer()
    if version.status == "would_register":
        console.print(Text(f"would register {version.name} version {version.version}", style="bold"))
    else:
        done = "registered" if version.created else "was registered before:"
        console.print(Text(f"✓ {done} {version.name} version {version.version}", style="bold green"))
    console.print(Text(f"  model {version.model} of run {version.source_run_id}"), soft_wrap=True)
    if version.manifest_digest:
        console.print(Text(f"  sha256 {version.manifest_digest}", style="dim"), soft_wrap=True)
    if version.next_experiment:
        console.print(f"  the experiment is locked now; go on in {version.next_experiment}", soft_wrap=True)
    for note in version.notes:
        console.print(f"  {note}", soft_wrap=True)
    if version.status == "registered":
        print_next(f"intelligentscan promote {version.name} {version.version} --to Staging")


def _print_decision(decision: PromotionDecision) -> None:
    console = answer()
    what = f"{decision.name} version {decision.version}"
    match decision.status:
        case "promoted":
            line = f"✓ {what} {'is now in' if decision.changed else 'was already in'} {decision.stage}"
            console.print(Text(line, style="bold green"))
        case "would_promote":
            line = f"would move {what} to" if decision.changed else f"would change nothing: {what} is in"
            console.print(Text(f"{line} {decision.stage}", style="bold"))
        case "would_refuse":
            console.print(Text(f"✗ would refuse to move {what} to {decision.stage}", style="bold red"))
        case "pending_review" | "pending_confirmation":
            console.print(
                Text(f"… {what} waits for its {decision.status.removeprefix('pending_')}", style="bold yellow")
            )
    for gate in decision.gates:
        mark, style = {"pass": ("✓", "green"), "fail": ("✗", "red")}.get(gate.outcome, ("·", "dim"))
        console.print(Text(f"  {mark} {gate.gate}: {gate.detail}", style=style), soft_wrap=True)
    if decision.aliases:
        console.print(f"  aliases: {', '.join(decision.aliases)}", soft_wrap=True)
    if decision.previous_version is not None:
        console.print(f"  replaces version {decision.previous_version}", soft_wrap=True)
    for note in decision.notes:
        console.print(f"  {note}", soft_wrap=True)
