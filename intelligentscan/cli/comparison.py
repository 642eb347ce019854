"""`compare`: runs side by side, the best value of each metric marked."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from intelligentscan.cli.runner import on_services, reported
from intelligentscan.cli.terminal import Json, answer, listed, plain_table, print_json
from intelligentscan.cli.wording import for_people
from intelligentscan.domain.comparison import ComparedMetric, RunComparison

_LEAST_COLUMN = 16
"""Runs are columns as long as each has this much room; otherwise they are rows."""

_KEY_WIDTH = 32
_METRIC_COLUMNS = 5
_GAP = 3


@reported
def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs: ids, prefixes, or 'latest' with --experiment.", metavar="RUN...")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-e", help="Where the runs are; without RUN its newest are compared.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="How many of the experiment, 2 to 100. Default: 10.")] = None,
    order_by: Annotated[
        str | None, typer.Option(help="Which come first, such as 'metrics.accuracy DESC'. Default: newest.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Only these metrics, by comma.")] = None,
    json: Json = False,
) -> None:
    """Compare runs side by side; the best values are marked."""
    compared = on_services(
        lambda services: services.comparisons.compare(
            run_ids=runs or None,
            experiment=experiment,
            top_k=top_k,
            order_by=order_by,
            metrics=listed(metrics) if metrics is not None else None,
            response_format="detailed" if json else "concise",
        ),
        doing="Comparing",
    )
    if json:
        print_json(compared)
    else:
        print_comparison(compared)


def print_comparison(compared: RunComparison) -> None:
    """Print the runs, then their metrics and params, then how findings changed."""
    console = answer()
    number = {run.run_id: f"{position}" for position, run in enumerate(compared.runs, start=1)}
    table = plain_table("", "run", "started", "user", "id")
    table.columns[-1].no_wrap = True
    for run in compared.runs:
        name = run.run_name if run.status == "FINISHED" else f"{run.run_name} ({run.status.lower()})"
        table.add_row(number[run.run_id], name, run.start_time or "–", run.user or "–", run.run_id)
    console.print(table)
    console.print()
    room = (console.width - _KEY_WIDTH) // len(compared.runs) - _GAP
    if room >= _LEAST_COLUMN:
        _print_columns(console, compared, number, room)
    else:
        _print_rows(console, compared, number)
    if compared.findings is not None:
        console.print()
        for change in compared.findings.changes:
            pair = f"findings {number[change.from_run_id]} → {number[change.to_run_id]}: "
            line = Text(pair, style="dim").append(f"{change.new} new", style="red" if change.new else "default")
            line.append(", ").append(f"{change.fixed} fixed", style="green" if change.fixed else "default")
            line.append(f", {change.persisting} persisting", style="default")
            if change.not_comparable:
                line.append(f", {change.not_comparable} not comparable", style="yellow")
            console.print(line)
    for note in compared.notes:
        console.print(Text(for_people(note), style="dim"), soft_wrap=True)


def _print_columns(console: Console, compared: RunComparison, number: dict[str, str], room: int) -> None:
    table = plain_table("metric", *(number[run.run_id] for run in compared.runs))
    for metric in compared.metrics:
        equal = len(set(metric.values.values())) == 1 and len(metric.values) == len(compared.runs)
        table.add_row(
            metric.key, *(_value(metric, run.run_id) for run in compared.runs), style="dim" if equal else None
        )
    if compared.params:
        table.add_section()
        table.add_row(Text("param", style="dim"))
    for param in compared.params:
        table.add_row(param.key, *(_cut(param.values.get(run.run_id, "–"), room) for run in compared.runs))
    console.print(table)


def _print_rows(console: Console, compared: RunComparison, number: dict[str, str]) -> None:
    shown = compared.metrics[:_METRIC_COLUMNS]
    table = plain_table("", *(metric.key for metric in shown))
    for run in compared.runs:
        table.add_row(number[run.run_id], *(_value(metric, run.run_id) for metric in shown))
    console.print(table)
    if (more := len(compared.metrics) - len(shown)) and not compared.notes:
        console.print(f"{more} more metrics; name them with --metrics", style="dim")


def _value(metric: ComparedMetric, run_id: str) -> Text:
    value = metric.values.get(run_id)
    if value is None:
        return Text("–", style="dim")
    if run_id == metric.best_run_id:
        return Text(f"{value:.6g} BEST", style="bold green")
    return Text(f"{value:.6g}")


def _cut(value: str, room: int) -> Text:
    text = Text(value)
    text.truncate(room, overflow="ellipsis")
    return text
