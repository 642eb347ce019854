"""The conversation of the README, for real: an MCP client speaks to our server as a child process on stdio.

Every step prints its request and a short form of the answer, and says whether it held; steps that must
be refused hold when they are refused. The store is left as it is, for `intelligentscan ui`, and the next
demo goes on in it: in the experiments that follow those that this one has locked.
"""

import json
import os
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from intelligentscan.server.demo_conversation import HOME, PACKAGE, Conversation, StepFailed
from intelligentscan.server.demo_governance import GovernedSteps
from intelligentscan.settings import Settings

EXPERIMENT = "demo"
TRAINING = "demo-training"
MODEL = "demo-classifier"
CONFIG_MODEL = "demo-scan-config"
_LOAD = """
import json, sys
import mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict(pd.DataFrame({"repo_path": [sys.argv[2]]}))
print(json.dumps({"findings": len(found), "worst": found.severity.value_counts().to_dict()}))
"""
_NOT_OURS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "INTELLIGENTSCAN_GOVERNANCE_URI",
    "INTELLIGENTSCAN_ARCHIVE",
    "INTELLIGENTSCAN_CHECKPOINT_DIR",
)
"""Settings that would lead out of the embedded store, into which the demo belongs."""


def run_demo(home: Path | None, quick: bool, as_json: bool = False) -> int:
    """Run the demo on the embedded store and return the exit code: 0 if every step held.

    Args:
        home: folder of the store; INTELLIGENTSCAN_HOME if None.
        quick: only the five named tools, and the refusal of a run in the locked experiment.
        as_json: print one JSON document at the end instead of the conversation.
    """
    for name in _NOT_OURS:
        os.environ.pop(name, None)
    if home is not None:
        os.environ[HOME] = str(home.expanduser().absolute())
    console = Console(quiet=as_json)
    demo: Demo | None = None
    failed: list[BaseException] = []
    try:
        demo = Demo(Conversation(Settings.load(), console))
        anyio.run(demo.quick if quick else demo.full)
    except* StepFailed as group:  # the client's task groups wrap what is raised inside them
        failed += _leaves(group)
    for failure in failed:
        console.print(f"\n[bold red]The demo stopped:[/] {escape(str(failure))}")
    if as_json:
        steps = demo.talk.steps if demo else []
        problems = [str(failure) for failure in failed]
        print(json.dumps({"ok": not failed, "steps": steps, "problems": problems}, ensure_ascii=False))  # noqa: T201
    elif demo is not None and not failed:
        demo.farewell()
    return 1 if failed else 0


class Demo:
    """One conversation from its beginning to its end."""

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        self._governed = GovernedSteps(talk)
        self._began = time.monotonic()

    async def quick(self) -> None:
        """Use the five named tools once each, and meet the lock that registering brings."""
        async with self.talk.connected():
            await self._governed.open_experiment(EXPERIMENT)
            training = await self._governed.open_experiment(TRAINING)
            async with self._training(training, 1.0) as runs:
                first = await self._import("examplescan.sarif")
                second = await self.talk.call(
                    "log_scan_run",
                    lambda a: f"{a['vulnerabilities_found']} findings",
                    experiment=EXPERIMENT,
                    scanner="hand-written check",
                    findings=[
                        {"rule": "R1", "severity": "high", "path": "app.py", "line": 3, "message": "debug mode is on"},
                    ],
                )
                await self._compare([first["run_id"], second["run_id"]])
            release = await self._governed.register(MODEL, runs[0], "the first classifier that is good enough")
            await self._governed.meet_the_lock(training, runs[-1], release.next_experiment)
            await self._governed.promote(release)

    async def full(self) -> None:
        """Scan, compare, register, be refused, promote, use what was promoted, and check all of it."""
        sample = str(self.talk.examples / "sample_app")
        async with self.talk.connected():
            await self._governed.open_experiment(EXPERIMENT)
            training = await self._governed.open_experiment(TRAINING)
            async with self._training(training, 0.001, 1.0) as runs:
                own = await self._scan(str(PACKAGE), ["bandit", "ruff"])
                await self._scan(str(PACKAGE), ["ruff"])
                narrow = await self._scan(sample, ["ruff"])
                wide = await self._scan(sample, ["bandit", "ruff"])
                self.talk.hold(own["scan_status"] == "complete", "our own sources were analysed completely")
                imported = await self._import("examplescan.sarif", sample)
                await self._compare([narrow["run_id"], wide["run_id"]])
                await self._findings(wide["run_id"])
                better = max((narrow, wide), key=lambda scan: scan["vulnerabilities_found"])
                self.talk.say(
                    f"The sample is weak on purpose, so the strategy that finds more is better: {better['run_id'][:8]}."
                )
                await self.talk.refused("register_model", "NO_MODEL", run_id=imported["run_id"], name=CONFIG_MODEL)
                config = await self._governed.register(CONFIG_MODEL, better["run_id"], "finds more in the weak sample")
                open_still = await self._governed.open_experiment(EXPERIMENT)
                self.talk.hold(open_still == EXPERIMENT, "the experiment of the scans stays open")
                await self._governed.stage(config)
                await self._use(config.version, sample, better["vulnerabilities_found"])
            compared = await self._compare(runs)
            accuracy = next(m["values"][runs[-1]] for m in compared["metrics"] if m["key"] == "accuracy")
            release = await self._governed.register(MODEL, runs[-1], "more accurate than the strongly regularised one")
            async with self._governed.audited():
                await self._governed.meet_the_lock(training, runs[-1], release.next_experiment)
                await self._governed.promote(release)
                await self._governed.tell_history(release)
                await self._governed.verify_integrity(MODEL)
                await self._governed.swap_original(release, runs[0], accuracy)
                await self._same_key_twice()

    def farewell(self) -> None:
        """Say what was done and where to look."""
        seconds = time.monotonic() - self._began
        self.talk.console.print(f"\n[bold green]Every one of {len(self.talk.steps)} steps held[/] ({seconds:.0f} s).")
        home = shlex.quote(str(self.talk.settings.home))
        where = f"INTELLIGENTSCAN_HOME={home} " if os.environ.get(HOME) else ""
        self.talk.console.print(f"Look at it in MLflow's own UI:  [bold]{escape(where)}intelligentscan ui[/]")

    @asynccontextmanager
    async def _training(self, experiment: str, *strengths: float) -> AsyncIterator[list[str]]:
        """Train models by a plain MLflow script beside the conversation; their runs are there at the end."""
        runs: list[str] = []
        script = "train_model.py"

        async def train() -> None:
            arguments = ("--experiment", experiment, "--strength", *map(str, strengths))
            runs.extend((await self.talk.printed(str(self.talk.examples / script), *arguments))[-len(strengths) :])

        self.talk.request("plain MLflow in a new process, beside the conversation", {"run": script, "C": strengths})
        async with anyio.create_task_group() as group:
            group.start_soon(train)
            yield runs
        self.talk.request("the training script has ended", {"experiment": experiment})
        self.talk.step("trained", f"{' and '.join(f'run {run[:8]}' for run in runs)} in the same store")

    async def _scan(self, path: str, engines: list[str]) -> dict[str, Any]:
        return await self.talk.call(
            "scan_vulnerabilities",
            lambda a: (
                f"{a['vulnerabilities_found']} findings, {a['critical_count']} critical, {a['scan_status']}"
                + (f"; {a['new']} new, {a['fixed']} fixed since last time" if a["new"] is not None else "")
            ),
            repo_path=path,
            experiment=EXPERIMENT,
            engines=engines,
        )

    async def _import(self, name: str, repo_path: str | None = None) -> dict[str, Any]:
        more = {"repo_path": repo_path} if repo_path else {}
        return await self.talk.call(
            "log_scan_run",
            lambda a: f"{a['vulnerabilities_found']} findings of another scanner, {len(a['warnings'])} warnings",
            experiment=EXPERIMENT,
            sarif_path=str(self.talk.examples / "import" / name),
            **more,
        )

    async def _compare(self, run_ids: list[str]) -> dict[str, Any]:
        answer = await self.talk.call(
            "compare_runs",
            lambda a: f"{len(a['runs'])} runs, {len(a['metrics'])} metrics, {len(a['params'])} params differ",
            run_ids=run_ids,
        )
        table = Table(show_edge=False, pad_edge=False)
        table.add_column("metric")
        for column in answer["runs"]:
            table.add_column(escape(f"{column['run_name']} {column['run_id'][:8]}"), justify="right")
        for metric in answer["metrics"][:8]:
            cells = [
                f"{value:.6g}" + (" [bold green]BEST[/]" if run_id == metric["best_run_id"] else "")
                if (value := metric["values"].get(run_id)) is not None
                else "–"
                for run_id in run_ids
            ]
            table.add_row(escape(metric["key"]), *cells)
        self.talk.console.print(table)
        self.talk.hold("BEST" in answer["summary"] or not answer["metrics"], "the best run of each metric is marked")
        return answer

    async def _findings(self, run_id: str) -> None:
        answer = await self.talk.call(
            "list_findings", lambda a: f"{a['total']} findings, the worst first", run_id=run_id, limit=5
        )
        for row in answer["findings"]:
            self.talk.console.print(f"    [red]{row['severity']:<8}[/] {escape(row['rule'])} {escape(row['location'])}")

    async def _use(self, version: int, target: str, expected: int) -> None:
        uri = f"models:/{CONFIG_MODEL}/Staging"
        self.talk.request("plain MLflow in a new process", {"load_model": uri})
        found = json.loads((await self.talk.printed("-c", _LOAD, uri, target))[-1])
        self.talk.step("predict", f"version {version} loaded from Staging, {found['findings']} findings")
        self.talk.hold(found["findings"] == expected, "the staged configuration finds what its scan had found")

    async def _same_key_twice(self) -> None:
        key = f"demo-{time.time_ns()}"
        calls = [
            await self.talk.call(
                "log_run",
                lambda a: f"run {a['run_id'][:8]}, created: {a['created']}",
                experiment=EXPERIMENT,
                metrics={"answer": 42},
                idempotency_key=key,
            )
            for _ in range(2)
        ]
        self.talk.hold(calls[0]["run_id"] == calls[1]["run_id"], "the same key gave the same run")


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for found in group.exceptions
        for leaf in (_leaves(found) if isinstance(found, BaseExceptionGroup) else [found])
    ]
