"""Runs side by side: what differs, which is best, and how the findings of scans changed."""

from collections.abc import Mapping, Sequence
from typing import Literal

from intelligentscan.domain import names
from intelligentscan.domain.clock import rfc3339
from intelligentscan.domain.comparison import (
    ComparedMetric,
    ComparedParam,
    ComparedRun,
    FindingsComparison,
    RunComparison,
)
from intelligentscan.domain.errors import InvalidArgument, RunNotFound
from intelligentscan.domain.metrics import higher_is_better
from intelligentscan.domain.text import table_cell, untrusted
from intelligentscan.services.resolve import Resolver
from intelligentscan.services.runs import finite
from intelligentscan.services.scan_records import ScanRecords
from intelligentscan.stores.access import StoreAccess
from intelligentscan.stores.interface import RunRecord

Format = Literal["concise", "detailed"]
MAX_RUNS = 100
DEFAULT_RUNS = 10
_SUMMARY = {"concise": 1_600, "detailed": 12_000}
CONCISE_ROWS = 12
_HEADLINE = ("vulnerabilities_found", "critical_count")
_WIDE = 6
"""Up to this many runs are columns of the summary; more are rows."""


class ComparisonService:
    """Compares 2 to 100 runs."""

    def __init__(self, store: StoreAccess, resolver: Resolver, scans: ScanRecords) -> None:
        self._store = store
        self._resolver = resolver
        self._scans = scans

    async def compare(
        self,
        *,
        run_ids: Sequence[str] | None = None,
        experiment: str | None = None,
        top_k: int | None = None,
        order_by: str | None = None,
        metrics: Sequence[str] | None = None,
        only_differences: bool = True,
        response_format: Format = "concise",
    ) -> RunComparison:
        """Compare the named runs, or the first `top_k` of an experiment.

        Args:
            run_ids: 2 to 100 runs by id, prefix or 'latest'.
            experiment: its runs are compared when no run is named.
            top_k: how many runs of the experiment; 10 if not given.
            order_by: MLflow's ordering of the experiment's runs, such as 'metrics.accuracy DESC'; newest first.
            metrics: only these metrics.
            only_differences: leave out params with one value in all runs.
            response_format: 'concise' bounds the summary and the number of metrics.

        Raises:
            RunNotFound: a run is not there.
            InvalidArgument: fewer than 2 or more than 100 runs.
        """
        runs = await self._runs(run_ids, experiment, top_k, order_by)
        notes: list[str] = []
        columns = [_column(run) for run in runs]
        metric_rows = _metrics(runs, metrics)
        param_rows = _params(runs, only_differences, 100 if response_format == "concise" else 500)
        if metrics and (unknown := set(metrics) - {m.key for m in metric_rows}):
            notes.append(f"No run has the metrics {', '.join(sorted(untrusted(u, 60) for u in unknown)[:10])}.")
        if response_format == "concise":
            if (more := len(metric_rows) - CONCISE_ROWS) > 0:
                notes.append(f"{more} more metrics; name them in metrics, or use response_format='detailed'.")
            if (more := len(param_rows) - CONCISE_ROWS) > 0:
                notes.append(f"{more} more params differ; use response_format='detailed'.")
            metric_rows, param_rows = metric_rows[:CONCISE_ROWS], param_rows[:CONCISE_ROWS]
        findings = await self._findings(runs, notes)
        return RunComparison(
            runs=columns,
            params=param_rows,
            metrics=metric_rows,
            findings=findings,
            summary=_summary(columns, metric_rows, param_rows, findings, _SUMMARY[response_format]),
            notes=notes,
        )

    async def _runs(
        self, run_ids: Sequence[str] | None, experiment: str | None, top_k: int | None, order_by: str | None
    ) -> list[RunRecord]:
        if run_ids:
            if not 2 <= len(run_ids) <= MAX_RUNS:
                raise InvalidArgument(
                    f"{len(run_ids)} runs were named; 2 to {MAX_RUNS} can be compared.",
                    next="name more runs in run_ids, or give experiment to compare its newest runs.",
                )
            return await self._named(list(run_ids), experiment)
        if experiment is None:
            raise InvalidArgument("Nothing to compare was named.", next="call again with run_ids or experiment.")
        count = DEFAULT_RUNS if top_k is None else top_k
        if not 2 <= count <= MAX_RUNS:
            raise InvalidArgument(f"top_k is {count}; it must be 2 to {MAX_RUNS}.", next="call again with top_k=10.")
        within = await self._resolver.experiment(experiment)
        order = names.ordering([order_by] if order_by else None) or ["attributes.start_time DESC"]
        page = await self._store.read(lambda s: s.tracking.search_runs(within.experiment_id, "", order, count, None))
        if len(page.rows) < 2:
            raise RunNotFound(
                f"The experiment has {len(page.rows)} runs; a comparison needs two.",
                next="log another run with log_run, log_scan_run or scan_vulnerabilities.",
            )
        return list(page.rows)

    async def _named(self, wanted: list[str], experiment: str | None) -> list[RunRecord]:
        if experiment is not None:
            await self._resolver.experiment(experiment)
        full = [
            text.strip() if names.is_run_id(text.strip()) else (await self._resolver.run(text, experiment)).run_id
            for text in wanted
        ]
        unique = list(dict.fromkeys(full))
        if len(unique) < 2:
            raise InvalidArgument("One run was named twice.", next="name two different runs in run_ids.")
        found = {r.run_id: r for r in await self._store.read(lambda s: s.tracking.runs_by_ids(unique))}
        if missing := [run_id for run_id in unique if run_id not in found]:
            raise RunNotFound(
                f"There is no run {', '.join(missing[:5])}.",
                next="list the runs of an experiment with search_runs.",
                details={"missing": missing},
            )
        return [found[run_id] for run_id in unique]

    async def _findings(self, runs: list[RunRecord], notes: list[str]) -> FindingsComparison | None:
        scans = sorted((r for r in runs if self._scans.is_scan(r)), key=lambda r: (r.start_time or 0, r.run_id))
        if len(scans) < 2:
            return None
        if len(scans) > DEFAULT_RUNS:
            notes.append(f"Findings are compared for the last {DEFAULT_RUNS} of {len(scans)} scans.")
            scans = scans[-DEFAULT_RUNS:]
        return FindingsComparison(changes=await self._scans.changes(scans))


def _column(run: RunRecord) -> ComparedRun:
    user = run.tags.get("mlflow.user")
    return ComparedRun(
        run_id=run.run_id,
        run_name=untrusted(run.run_name, 60),
        user=untrusted(user, 60) if user else None,
        start_time=rfc3339(run.start_time),
        status=run.status,
    )


def _metrics(runs: list[RunRecord], wanted: Sequence[str] | None) -> list[ComparedMetric]:
    """Return the metrics of the runs: the counts of scans, then what differs, then by how many runs have it."""
    metrics = {run.run_id: finite(run) for run in runs}
    keys = dict.fromkeys(key for run in runs for key in sorted(metrics[run.run_id]))
    rows = []
    for key in keys:
        if wanted and key not in wanted:
            continue
        values = {run_id: found[key] for run_id, found in metrics.items() if key in found}
        higher = higher_is_better(key)
        rows.append(
            ComparedMetric(
                key=untrusted(key, 100), values=values, best_run_id=_best(values, higher), higher_is_better=higher
            )
        )
    return sorted(rows, key=lambda row: (row.key not in _HEADLINE, row.best_run_id is None, -len(row.values)))


def _best(values: Mapping[str, float], higher: bool) -> str | None:
    """Return the run with the best value; None if all are equal or only one run has the metric."""
    if len(set(values.values())) < 2:
        return None
    return (max if higher else min)(values, key=lambda run_id: values[run_id])


def _params(runs: list[RunRecord], only_differences: bool, limit: int) -> list[ComparedParam]:
    keys = dict.fromkeys(key for run in runs for key in sorted(run.params))
    rows = []
    for key in keys:
        values = {run.run_id: run.params[key] for run in runs if key in run.params}
        if only_differences and len(values) == len(runs) and len(set(values.values())) == 1:
            continue
        rows.append(ComparedParam(key=untrusted(key, 100), values={r: untrusted(v, limit) for r, v in values.items()}))
    return rows


def _summary(
    runs: list[ComparedRun],
    metrics: list[ComparedMetric],
    params: list[ComparedParam],
    findings: FindingsComparison | None,
    budget: int,
) -> str:
    """Return a Markdown table of the comparison, BEST marked, within the budget of characters."""
    names_of = {r.run_id: r.run_name for r in runs}
    if len(runs) <= _WIDE:
        head = ["metric", *(f"{table_cell(r.run_name, 18)} {r.run_id[:8]}" for r in runs)]
        rows = [[table_cell(m.key, 32), *(_value(m, r.run_id) for r in runs)] for m in metrics]
        rows += [
            [f"param {table_cell(p.key, 26)}", *(table_cell(p.values.get(r.run_id, "–"), 18) for r in runs)]
            for p in params
        ]
    else:
        shown = metrics[:4]
        head = ["run", *(table_cell(m.key, 24) for m in shown)]
        rows = [[f"{table_cell(r.run_name, 18)} {r.run_id[:8]}", *(_value(m, r.run_id) for m in shown)] for r in runs]
    tail = [
        f"findings {c.from_run_id[:8]} to {c.to_run_id[:8]}: {c.new} new, {c.fixed} fixed, {c.persisting} persisting"
        + (f", {c.not_comparable} not comparable" if c.not_comparable else "")
        for c in (findings.changes if findings else [])
    ]
    if len(runs) > _WIDE:  # the best run may be among the rows that do not fit
        tail += [
            f"best {table_cell(m.key, 24)}: {table_cell(names_of[m.best_run_id], 18)} {m.best_run_id[:8]}"
            for m in metrics[:4]
            if m.best_run_id
        ]
    lines = [_row(head), _row(["---"] * len(head))]
    used = sum(len(line) + 1 for line in (*lines, *tail)) + 40
    for position, row in enumerate(rows):
        line = _row(row)
        used += len(line) + 1
        if used > budget:
            tail.insert(0, f"{len(rows) - position} more rows in the structured answer.")
            break
        lines.append(line)
    return "\n".join([*lines, *tail])[:budget]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(metric: ComparedMetric, run_id: str) -> str:
    value = metric.values.get(run_id)
    if value is None:
        return "–"
    return f"{value:.6g} BEST" if run_id == metric.best_run_id else f"{value:.6g}"
