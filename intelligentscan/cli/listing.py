"""`experiments` and `model show`: what there is, which experiments are locked, which versions are sealed and live."""

from typing import Annotated

import typer
from rich.text import Text

from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, answer, clock, plain_table, print_json
from intelligentscan.domain.registry import ModelDetails, VersionRow

model = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
Limit = Annotated[int, typer.Option(min=1, max=100, help="How many.")]
_STAGE_STYLE = {"Production": "bold green", "Staging": "cyan"}
_RUN_DIGITS = 8


@reported
def experiments(
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="Part of the name, in any case.")] = None,
    product: Annotated[str | None, typer.Option(help="Only those of this AI product.")] = None,
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """List experiments, and where work goes on for locked ones."""
    found = on_services(
        lambda services: services.experiments.search(query=query, product=product, limit=limit), doing="Looking"
    )
    if json:
        print_json(found)
        return
    console = answer()
    table = plain_table("id", "experiment", "", "changed (UTC)", "product")
    for row in found.experiments:
        state = Text(f"locked, go on in {row.next_experiment}", style="yellow") if row.locked else Text("")
        changed = clock(row.last_update) if row.last_update else "–"
        table.add_row(row.experiment_id, row.name, state, changed, row.product or "–")
    console.print(table)
    if found.next_cursor:
        console.print("there are more: name a larger --limit or a part of the name", style="dim")
    for note in found.notes:
        console.print(Text(note, style="dim"), soft_wrap=True)


@model.command("show")
@reported
def model_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the registered model.")],
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", min=1, help="Number of the version; the newest if not given.")
    ] = None,
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """Show versions, their stages, seals and runs."""
    found = on_services(lambda services: services.registry.get(name, version=version, limit=limit), doing="Looking")
    if json:
        print_json(found)
    else:
        _print_model(found)


def _print_model(found: ModelDetails) -> None:
    console = answer()
    if not found.governed:
        console.print("! registered by plain MLflow, not governed", style="bold yellow")
        console.print(Text(f"→ intelligentscan adopt {found.name}"), soft_wrap=True)
    table = plain_table("version", "stage", "aliases", "state", "run", "registered (UTC)", "reason")
    for row in found.versions:
        table.add_row(
            str(row.version),
            Text(row.stage if row.stage != "None" else "–", style=_STAGE_STYLE.get(row.stage, "default")),
            ", ".join(row.aliases) or "–",
            _state(row),
            row.run_id[:_RUN_DIGITS] if row.run_id else "–",
            clock(row.created) if row.created else "–",
            row.reason or "–",
        )
    console.print(table)
    if found.next_cursor:
        console.print("there are older versions: name a larger --limit", style="dim")
    if found.governed:
        console.print(f"enforcement: {found.enforcement}", style="dim")


def _state(row: VersionRow) -> Text:
    styles = {"sealed": "green", "quarantined": "bold red"}
    if row.state == "legacy":
        return Text(row.review or row.state, style="yellow")
    review = f" · review {row.review}" if row.review else ""
    return Text(f"{row.state}{review}", style=styles.get(row.state, "yellow"))
