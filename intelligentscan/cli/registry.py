"""`register` and `promote`: a run becomes a model version, and a version moves between stages."""

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from intelligentscan.cli.runner import EXIT_ERROR, on_services, reported
from intelligentscan.cli.terminal import Json, answer, aside, facts_table, print_json, print_next
from intelligentscan.cli.wording import for_people
from intelligentscan.domain.errors import GatesFailed, InvalidArgument
from intelligentscan.domain.registry import GateResult, PromotionDecision, RegisteredVersion

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
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Tag for the version; may be repeated.")
    ] = None,
    product: Annotated[
        str | None, typer.Option(help="AI product it belongs to; the experiment's if not given.")
    ] = None,
    use_case: Annotated[str | None, typer.Option(help="What it is for; kept in the audit trail.")] = None,
    abandon_running: Annotated[
        bool,
        typer.Option("--abandon-running", metavar="", help="End other runs that nobody wrote to for 24 h."),
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Register a run's model, or a scan's configuration.

    Seals the version and locks the run's experiment for everybody; work goes on in the next one.
    """
    tags = _tags(tag or [])
    is_uri = run.startswith(("models:/", "runs:/"))
    version = on_services(
        lambda services: services.registry.register(
            name,
            run_id=None if is_uri else run,
            model_uri=run if is_uri else None,
            model_path=model_path,
            description=description,
            tags=tags or None,
            product=product,
            use_case=use_case,
            abandon_running=abandon_running,
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
    try:
        decision = on_services(
            lambda services: services.registry.promote(name, version, to, reason=reason, dry_run=dry_run),
            doing="Promoting",
        )
    except GatesFailed as refusal:
        if json:
            raise
        _print_refusal(refusal)
        raise typer.Exit(EXIT_ERROR) from refusal
    if json:
        print_json(decision)
    else:
        _print_decision(decision)
    if decision.status in ("would_refuse", "pending_review", "pending_confirmation"):
        raise typer.Exit(_REFUSED)


def _tags(given: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for each in given:
        key, mark, value = each.partition("=")
        if not mark or not key or key in found:
            raise InvalidArgument(
                "Tags are given as KEY=VALUE, each key once.", next="call again with --tag card.owner=… for one."
            )
        found[key] = value
    return found


def _print_version(version: RegisteredVersion) -> None:
    console = answer()
    what, planned = f"{version.name} version {version.version}", version.status == "would_register"
    if planned:
        console.print(Text(f"would register {what}", style="bold"))
    else:
        done = "registered" if version.created else "was registered before:"
        console.print(Text(f"✓ {done} {what}", style="bold green"))
    facts = [("model", f"{version.model} of run {version.source_run_id}")]
    if version.product:
        facts.append(("product", version.product))
    if version.manifest_digest:
        facts.append(("sha256", version.manifest_digest))
    if version.seal_event is not None:
        facts.append(("sealed", f"event {version.seal_event} of the audit trail"))
    if version.next_experiment:
        state = "is locked for everybody" if version.experiment_locked else "would be locked for everybody"
        facts.append(("experiment", f"{state}; go on in {version.next_experiment}"))
    facts.append(("enforcement", version.enforcement))
    facts += [("note", for_people(note)) for note in version.notes]
    console.print(facts_table(facts))
    if not planned and version.created:
        print_next(f"intelligentscan promote {shlex.quote(version.name)} {version.version} --to Staging")


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
    _print_gates(console, decision.gates)
    facts = [("aliases", ", ".join(decision.aliases))] if decision.aliases else []
    if decision.previous_version is not None:
        facts.append(("replaces", f"version {decision.previous_version}"))
    facts += [("enforcement", decision.enforcement), ("four eyes", "yes" if decision.four_eyes else "no")]
    facts += [("note", for_people(note)) for note in decision.notes]
    console.print(facts_table(facts))


def _print_refusal(refusal: GatesFailed) -> None:
    console = aside()
    console.print(Text(f"✗ {refusal.message}", style="bold red"), soft_wrap=True)
    gates = refusal.details.get("gates")
    _print_gates(console, [GateResult.model_validate(gate) for gate in gates] if isinstance(gates, list) else [])


def _print_gates(console: Console, gates: Sequence[GateResult]) -> None:
    for gate in gates:
        mark, style = {"pass": ("✓", "green"), "fail": ("✗", "red")}.get(gate.outcome, ("·", "dim"))
        console.print(Text(f"  {mark} {gate.gate}: {for_people(gate.detail)}", style=style), soft_wrap=True)
