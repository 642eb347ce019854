"""`scan` and `import-sarif`: scans become runs, and a build can be stopped by what they found."""

import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from intelligentscan.app import Services
from intelligentscan.cli.runner import EXIT_ERROR, on_services, reported
from intelligentscan.cli.scan_view import print_findings, print_scan
from intelligentscan.cli.terminal import Json, aside, listed, print_error, print_json, print_next, print_warning
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.domain.scan import FindingRow, FindingState, ScanRun, TopFinding
from intelligentscan.domain.severity import Severity

Format = Literal["table", "json", "sarif"]
FailOn = Literal["new-critical", "new-high", "any"]
Experiment = Annotated[str, typer.Option("--experiment", "-e", help="Experiment name or id; made if it is missing.")]
Baseline = Annotated[
    str | None,
    typer.Option(help="Scan to compare with: its run, or 'latest'; the last scan of the same target if not given."),
]
GATE_HIT = 1
_SARIF = "sarif/combined.sarif"
_MAX_SARIF = 1_000_000_000
_SHOWN_HITS = 20
_GATED: dict[FailOn, tuple[Severity, ...]] = {"new-critical": ("critical",), "new-high": ("critical", "high")}


@dataclass(frozen=True, slots=True)
class _Gate:
    """What a `--fail-on` found: how many, the worst of them, and how many it could not judge."""

    hits: int
    worst: Sequence[FindingRow | TopFinding]
    unjudged: int = 0


@dataclass(frozen=True, slots=True)
class _Scanned:
    run: ScanRun
    gate: _Gate | None
    sarif: str | None


@reported
def scan(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Folder to scan; its code is read, never run.")],
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", "-e", help="Name or id; made if missing. Default: vulnerability_scanning."),
    ] = None,
    engines: Annotated[
        str | None, typer.Option(help="Engines, by comma. Default: bandit,ruff. 'doctor' lists the others.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Scanning configuration (YAML), instead of --engines.")] = None,
    baseline: Baseline = None,
    format: Annotated[Format, typer.Option(help="What to print on stdout.")] = "table",
    fail_on: Annotated[FailOn | None, typer.Option(help="Exit with 1 if there are such findings.")] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Analyse every file anew, also those that did not change.")
    ] = False,
    json: Json = False,
) -> None:
    """Scan a folder for vulnerabilities; the result is a run.

    Exit code: 0 clean, 1 --fail-on was hit, 2 could not scan.
    """
    with _progress() as report:

        async def work(services: Services) -> _Scanned:
            run = await services.scans.scan(
                path,
                experiment=experiment,
                engines=listed(engines) if engines is not None else None,
                config=config,
                baseline=baseline,
                progress=report,
                create_missing=True,
                use_cache=not no_cache,
            )
            gate = await _gate(services, run, fail_on) if fail_on is not None else None
            sarif = format == "sarif" and not json
            text = await services.runs.artifact_text(run.run_id, _SARIF, limit=_MAX_SARIF) if sarif else None
            return _Scanned(run, gate, text)

        scanned = on_services(work)
    if json or format == "json":
        gate = {"fail_on": fail_on, "hits": scanned.gate.hits} if scanned.gate else None
        print_json({**scanned.run.model_dump(mode="json"), "gate": gate})
    elif scanned.sarif is not None:
        sys.stdout.write(scanned.sarif)
    else:
        print_scan(scanned.run)
        within = shlex.quote(scanned.run.experiment)
        print_next(f"report: intelligentscan ui · all scans: intelligentscan compare -e {within}")
    if scanned.run.scan_status != "complete":
        print_warning(_partial(scanned.run))
    if scanned.gate is not None and fail_on is not None:
        _print_gate(scanned.gate, fail_on, shown=fail_on == "any" and format == "table" and not json)
        if scanned.gate.hits:
            raise typer.Exit(GATE_HIT)


@reported
def import_sarif(
    files: Annotated[list[str], typer.Argument(help="SARIF 2.1.0 files; each becomes a run.", metavar="FILE...")],
    experiment: Experiment,
    repo: Annotated[str | None, typer.Option(help="The folder that was scanned: adds commit and code lines.")] = None,
    baseline: Baseline = None,
    json: Json = False,
) -> None:
    """Log what other scanners found (CodeQL, Trivy, Semgrep …)."""
    failed: dict[str, IntelligentScanError] = {}

    async def work(services: Services) -> dict[str, ScanRun]:
        logged: dict[str, ScanRun] = {}
        for file in files:
            try:
                logged[file] = await services.scans.log(
                    experiment, sarif_path=file, repo_path=repo, baseline=baseline, create_missing=True
                )
            except IntelligentScanError as error:
                if len(files) == 1:
                    raise
                failed[file] = error
        return logged

    logged = on_services(work, doing="Importing")
    if json:
        print_json(
            {
                "runs": [{"file": file, **run.model_dump(mode="json")} for file, run in logged.items()],
                "failed": [
                    {"file": f, "code": e.code, "message": e.message, "next": e.next, "details": e.details}
                    for f, e in failed.items()
                ],
            }
        )
    else:
        for file, run in logged.items():
            print_scan(run, title=file)
    for file, run in logged.items():
        if run.scan_status != "complete":
            print_warning(f"{file}: the report says that its scan was {run.scan_status}.")
    for error in failed.values() if not json else ():
        print_error(error, as_json=False)
    if failed:
        raise typer.Exit(EXIT_ERROR)


async def _gate(services: Services, run: ScanRun, fail_on: FailOn) -> _Gate:
    """Return the findings that the gate does not let through: new ones, or without a baseline all."""
    if fail_on == "any":
        return _Gate(run.vulnerabilities_found, run.top_findings)
    states: tuple[FindingState, ...] = ("new", "reopened") if run.baseline_run_id else ("unmatched",)
    hits, unjudged = 0, 0
    worst: list[FindingRow] = []
    for severity in _GATED[fail_on]:
        for state in states:
            found = await services.scans.findings(run.run_id, severity=severity, state=state, limit=_SHOWN_HITS)
            hits += found.total
            worst += found.findings
        if run.not_comparable:
            found = await services.scans.findings(run.run_id, severity=severity, state="not_comparable", limit=1)
            unjudged += found.total
    return _Gate(hits, worst[:_SHOWN_HITS], unjudged)


def _print_gate(gate: _Gate, fail_on: FailOn, *, shown: bool) -> None:
    console = aside()
    if gate.unjudged:
        print_warning(
            f"{gate.unjudged} findings of this severity are not comparable with the baseline and were not counted."
        )
    if not gate.hits:
        console.print(f"✓ --fail-on {fail_on}: none", style="green")
        return
    console.print(f"✗ --fail-on {fail_on}: {gate.hits} {'finding' if gate.hits == 1 else 'findings'}", style="bold red")
    if not shown:
        print_findings(console, gate.worst)


def _partial(run: ScanRun) -> str:
    failed = [f"{c.engine} {c.files_failed} of {c.files_seen} files" for c in run.coverage if c.files_failed]
    lost = [c.engine for c in run.coverage if c.status == "failed"]
    told = [f"not analysed: {', '.join(failed)}"] if failed else []
    told += [f"did not complete: {', '.join(lost)}"] if lost else []
    return f"PARTIAL SCAN; {'; '.join(told) or 'see the warnings'}. What is missing here may still be there."


@contextmanager
def _progress() -> Iterator[Callable[[float, str], Awaitable[None]]]:
    """Show a progress bar on stderr, if it is a terminal."""
    console = aside()
    columns: tuple[Any, ...] = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)

        async def report(share: float, text: str) -> None:
            bar.update(task, completed=share, description=text)

        yield report
