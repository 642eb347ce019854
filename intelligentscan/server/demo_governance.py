"""The demo's governed steps: what registering does to everybody, what it seals, who did it, and how that is checked.

The plain MLflow scripts run in processes of their own that know nothing of us; they are shown as they are run.
"""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from rich.syntax import Syntax
from rich.text import Text

from intelligentscan._process import ProcessResult
from intelligentscan.server.demo_conversation import Conversation, StepFailed
from intelligentscan.services.principal import real_user

LOCKED = "EXPERIMENT_LOCKED"
UNKNOWN_SIGNER = 3
_NEXT_RUN = """\
import mlflow

mlflow.set_experiment({experiment!r})
with mlflow.start_run() as run:
    mlflow.log_metric("accuracy", 0.99)
print(run.info.run_id)
"""
_ACCURACY = """\
import json, sys
import mlflow.pyfunc
from sklearn.metrics import accuracy_score
from train_model import split

_, x_test, _, y_test = split()
print(json.dumps([accuracy_score(y_test, mlflow.pyfunc.load_model(uri).predict(x_test)) for uri in sys.argv[1:]]))
"""


@dataclass(frozen=True, slots=True)
class Release:
    """A version that was registered and promoted."""

    name: str
    version: int
    created: bool
    model_uri: str
    next_experiment: str
    reason: str


class GovernedSteps:
    """Steps of one conversation."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk

    async def open_experiment(self, name: str) -> str:
        """Make an experiment, or go on in the one that follows if it was locked; return the name of the open one."""
        answer = await self._talk.call("create_experiment", _opened, name=name)
        while answer["locked"]:
            answer = await self._talk.call("create_experiment", _opened, name=answer["next_experiment"])
        return str(answer["name"])

    async def register(self, name: str, run_id: str, reason: str) -> Release:
        """Look first, then register: the version is sealed and the run's experiment locked."""
        await self._talk.call(
            "register_model",
            lambda a: f"{a['status'].replace('_', ' ')}: version {a['version']} of {a['name']}; {_next(a)}",
            run_id=run_id,
            name=name,
            dry_run=True,
        )
        made = await self._talk.call(
            "register_model",
            lambda a: (
                f"version {a['version']}, sealed as {str(a['manifest_digest'])[:12]}; {_next(a)}; "
                f"enforcement: {a['enforcement']}"
            ),
            run_id=run_id,
            name=name,
        )
        self._talk.hold(made["experiment_locked"], "the experiment of the run is locked for everybody")
        return Release(
            name=name,
            version=int(made["version"]),
            created=bool(made["created"]),
            model_uri=str(made["model_uri"]),
            next_experiment=str(made["next_experiment"]),
            reason=reason,
        )

    async def meet_the_lock(self, experiment: str, newest: str, following: str) -> None:
        """Let a fresh plain MLflow process write to the locked experiment, and another one to the next."""
        script = _NEXT_RUN.format(experiment=experiment)
        self._talk.request("plain MLflow in a new process", {"experiment": experiment})
        self._show(script)
        refused, went_on = await self._both(script, _NEXT_RUN.format(experiment=following))
        told = next((line for line in refused.stderr.decode().splitlines() if f"{LOCKED}:" in line), "")
        message = told[told.find(LOCKED) :]
        raised = "mlflow.exceptions" in refused.stderr.decode()
        self._talk.hold(refused.exit_code != 0 and raised and bool(told), f"start_run() was refused with {LOCKED}")
        self._talk.quote(f"MlflowException: … {message}")
        self._talk.hold(f"'{following}'" in message, f"the refusal names {following}, as register_model did")
        self._talk.request("the same script in a new process", {"experiment": following})
        self._talk.hold(went_on.exit_code == 0, f"it works: run {went_on.stdout.decode()[:8]} in {following}")
        there = await self._talk.call(
            "search_runs", lambda a: f"the newest is {a['runs'][0]['run_id'][:8]}", experiment=experiment, limit=1
        )
        self._talk.hold(there["runs"][0]["run_id"] == newest, "nothing came into the locked experiment")

    async def promote(self, release: Release) -> None:
        """Promote a version to Staging, and to Production once a person has approved it."""
        await self._talk.refused(
            "promote", "VERSION_NOT_FOUND", name=release.name, version=release.version + 1000, to="Staging"
        )
        if not release.created:  # it is live from before
            await self._move(release, "Production", "promoted")
            return
        await self._move(release, "Staging", "promoted")
        waits = await self._move(release, "Production", "pending_review")
        await self._approve(str(waits["review_id"]))
        done = await self._move(release, "Production", "promoted")
        self._talk.hold(not done["four_eyes"], "it says that nobody else looked at it: four_eyes is false under 'solo'")

    async def stage(self, release: Release) -> None:
        """Promote a scanning configuration to Staging; Production waits for its evaluation."""
        if release.created:
            await self._move(release, "Staging", "promoted")
        await self._talk.refused(
            "promote",
            "GATES_FAILED",
            name=release.name,
            version=release.version,
            to="Production",
            reason=release.reason,
        )

    async def _move(self, release: Release, stage: str, status: str) -> dict[str, Any]:
        answer = await self._talk.call(
            "promote", _moved, name=release.name, version=release.version, to=stage, reason=release.reason
        )
        what = f"is in {stage}" if status == "promoted" else f"waits for a review before {stage}"
        self._talk.hold(answer["status"] == status, f"version {release.version} {what}")
        return answer

    async def _approve(self, review_id: str) -> None:
        """Let a person decide at the command line: no tool of an agent can."""
        command = ("review", "approve", review_id, "--reason", "metrics, signature and lineage looked at", "--json")
        self._talk.request(f"a person at a shell: intelligentscan {' '.join(command[:3])}", {})
        done = await self._talk.plain("-m", "intelligentscan", *command)
        self._talk.hold(done.exit_code == 0, f"the review is {_printed(done, 'review_status')}")

    async def verify_integrity(self, name: str) -> None:
        """Compare everything with what was sealed, locked and recorded."""
        answer = await self._verified(name)
        self._talk.hold(answer["ok"], "everything is as it was sealed, locked and recorded")

    async def tell_history(self, release: Release) -> None:
        """Ask who promoted the version and why, and what is live."""
        answer = await self._talk.call(
            "get_history", lambda a: f"{len(a['events'])} events", name=release.name, version=release.version, limit=10
        )
        promoted = [e for e in answer["events"] if e["facts"].get("to") == "Production"]
        for event in answer["events"]:
            who = f"{event['actor']} for {event['on_behalf_of']}" if event["on_behalf_of"] else event["actor"]
            to = f" to {event['facts']['to']}" if "to" in event["facts"] else ""
            why = f": {event['reason']}" if event["reason"] else ""
            self._talk.say(f"  {event['seq']:>4}  {event['at']}  {who}  {event['action']}{to}{why}")
        told = bool(promoted) and promoted[0]["actor"] == real_user() and promoted[0]["reason"] == release.reason
        self._talk.hold(told, "it says who promoted the version, and why")
        evidence = promoted[0]["facts"] if promoted else {}
        decided = [e for e in answer["events"] if e["action"] == "review.decided"]
        self._talk.hold(
            bool(decided) and bool(evidence.get("review")),
            f"on whose approval: {decided[0]['actor'] if decided else 'nobody'}, review {evidence.get('review')}",
        )
        live = [row["version"] for row in answer["live"]["Production"]]
        self._talk.hold(live == [release.version], f"version {release.version} is live in Production")

    async def swap_original(self, release: Release, donor_run: str, accuracy: float) -> None:
        """Put another model in the place of the original; Production still loads the sealed one, and it is noticed."""
        donor = await self._talk.call("get_run", lambda a: f"its model: {a['models'][0]}", run_id=donor_run)
        original, other = (self._model_file(uri) for uri in (release.model_uri, donor["models"][0]))
        self._talk.request("somebody swaps the original model file", {"file": _below(original, 4)})
        kept = original.read_bytes()
        try:
            original.write_bytes(other.read_bytes())
            uris = [f"models:/{release.name}/Production", release.model_uri]
            self._talk.request("plain MLflow in a new process", {"load_model": uris})
            sealed, swapped = json.loads((await self._talk.printed("-c", _ACCURACY, *uris))[-1])
            self._talk.step(
                "predict", f"accuracy {sealed:.4f} from Production, {swapped:.4f} from the swapped original"
            )
            self._talk.hold(sealed == accuracy != swapped, "Production loads the sealed bytes")
            found = await self._verified(release.name)
            folder = release.model_uri.rpartition("/")[2]
            named = [p for p in found["problems"] if folder in str(p["where"])]
            self._talk.hold(not found["ok"] and bool(named), "the touched folder is named")
            self._talk.quote(f"{named[0]['code']} {named[0]['where']}: {named[0]['what']}")
            planned = await self._talk.call(
                "promote", _planned, name=release.name, version=release.version, to="Staging", dry_run=True
            )
            self._talk.hold(planned["status"] == "would_refuse", "nobody can promote it meanwhile")
        finally:
            original.write_bytes(kept)
        self._talk.say("the original file is put back")
        await self.verify_integrity(release.name)

    @asynccontextmanager
    async def audited(self) -> AsyncIterator[None]:
        """Let an auditor verify the trail beside the conversation, first without and then with a key to trust."""
        with tempfile.TemporaryDirectory(prefix="intelligentscan-demo-") as folder:
            key = str(Path(folder) / "keys.json")
            commands = (("audit", "verify"), ("keys", "export", "-o", key), ("audit", "verify", "--trust", key))
            ended: list[ProcessResult] = []

            async def work() -> None:
                for command in commands:
                    result = await self._talk.plain("-m", "intelligentscan", *command, "--json")
                    ended.append(result)

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                yield
        expected = ((UNKNOWN_SIGNER, "verdict"), (0, "keys"), (0, "verdict"))
        for command, result, (code, field) in zip(commands, ended, expected, strict=True):
            self._talk.request(f"an auditor's process: intelligentscan {' '.join(command)}", {})
            self._talk.hold(result.exit_code == code, f"exit {code}: {_printed(result, field)}")

    async def _both(self, *scripts: str) -> list[ProcessResult]:
        """Run scripts side by side: each spends most of its time importing MLflow."""
        results: dict[str, ProcessResult] = {}

        async def run(script: str) -> None:
            results[script] = await self._talk.plain("-c", script)

        async with anyio.create_task_group() as group:
            for script in scripts:
                group.start_soon(run, script)
        return [results[script] for script in scripts]

    async def _verified(self, name: str) -> dict[str, Any]:
        return await self._talk.call(
            "verify_integrity",
            lambda a: (
                f"ok: {a['ok']}, problems: {a['problems_total']}; checked "
                + ", ".join(f"{what} {count}" for what, count in a["checked"].items())
            ),
            name=name,
        )

    def _model_file(self, uri: str) -> Path:
        """Return the file of a logged model's weights, in the artifacts of the embedded store."""
        folders = (self._talk.settings.home / "artifacts").glob(f"*/models/{uri.rpartition('/')[2]}/artifacts")
        files = [file for folder in folders for file in folder.glob("model.*")]
        if len(files) != 1:
            raise StepFailed(f"the model {uri} has {len(files)} files of weights, not one")
        return files[0]

    def _show(self, script: str) -> None:
        code = script.rpartition("print(")[0].strip()
        for line in Syntax("", "python", theme="ansi_light").highlight(code).split("\n"):
            self._talk.console.print(Text("    ").append_text(line))


def _opened(answer: dict[str, Any]) -> str:
    if answer["locked"]:
        return f"id {answer['experiment_id']}, locked by an earlier registration; next: {answer['next_experiment']}"
    return f"id {answer['experiment_id']}, " + ("made" if answer["created"] else "was there")


def _next(answer: dict[str, Any]) -> str:
    if not answer["next_experiment"]:
        return "from an experiment of its own"
    return f"experiment {'locked, ' if answer['experiment_locked'] else ''}next: {answer['next_experiment']}"


def _moved(answer: dict[str, Any]) -> str:
    how = answer["status"] if answer["changed"] or answer["status"] != "promoted" else "was there"
    return f"{how}: {answer['stage']}, aliases {', '.join(answer['aliases'])}; gates: {_gates(answer)}"


def _planned(answer: dict[str, Any]) -> str:
    return f"{answer['status'].replace('_', ' ')}; gates: {_gates(answer)}"


def _gates(answer: dict[str, Any]) -> str:
    return ", ".join(f"{gate['gate']} {gate['outcome']}" for gate in answer["gates"])


def _printed(result: ProcessResult, field: str) -> str:
    try:
        value = json.loads(result.stdout)[field]
    except (ValueError, KeyError):
        return f"it printed {(result.stderr or result.stdout).decode(errors='replace')[-300:]}"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _below(path: Path, parts: int) -> str:
    return "/".join(("…", *path.parts[-parts:]))
