# ruff: noqa: T201
"""The whole story of one model, on a store of its own: `python story.py --home DIR`.

Two people train, one of their models is registered, its experiment is locked, the committee is asked, the other of
the two approves with a key of her own, and at the end the trail tells who put what into Production on which evidence.
Everybody sits at one account here, so what they sign with their keys is all that tells them apart.
"""

import argparse
import contextlib
import io
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transactions
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import intelligentscan
from intelligentscan.cli.app import app
from intelligentscan.domain.errors import GatesFailed

FIRST, NEXT = "/team-awesome/fraud-detection-v1", "/team-awesome/fraud-detection-v2"
MODEL = "team_awesome_fraud_detector"
PRODUCT = "team-awesome-fraud-detector"
TEAM = ("alice", "bob")
RANDOM_FOREST, XGBOOST = "train_random_forest.py", "train_xgboost.py"
CODE = ("transactions.py", "training.py", RANDOM_FOREST, XGBOOST)
REASON = "finds more of the fraud, with fewer false alarms"
ANOTHER_RUN = """\
import mlflow

mlflow.set_experiment({experiment!r})
with mlflow.start_run() as run:
    mlflow.log_param("attempt", "one more")
print("run", run.info.run_id)
"""
PREDICT = """\
import mlflow.pyfunc
import pandas as pd

model = mlflow.pyfunc.load_model("models:/team_awesome_fraud_detector/Production")
one = [[100.0, 1, 0, 1, 50.0]]  # amount, online, abroad, at night, minutes since the last one
columns = ["amount", "is_online", "is_abroad", "is_night", "minutes_since_last"]
print("fraud" if model.predict(pd.DataFrame(one, columns=columns, dtype=float))[0] else "not fraud")
"""


class StoryBroken(Exception):
    """A step did not end as it must."""


@dataclass(frozen=True)
class Place:
    """Where the story happens.

    Attributes:
        home: INTELLIGENTSCAN_HOME of the store.
        code: a Git checkout of the training scripts.
        keys: the private keys of the two people.
        data: the file of transactions.
    """

    home: Path
    code: Path
    keys: Path
    data: Path


def main() -> None:
    """Tell it."""
    parser = argparse.ArgumentParser(description="Tell the story of one model, from two attempts to Production.")
    parser.add_argument("--home", type=Path, required=True, help="a folder that is not there yet, or empty")
    home: Path = parser.parse_args().home.expanduser().absolute()
    if home.exists() and any(home.iterdir()):
        parser.error(f"{home} is not empty; the story needs a folder of its own")
    place = Place(home / "store", home / "code", home / "keys", home / "data" / "transactions.csv")
    for name in [n for n in os.environ if n.startswith(("MLFLOW_", "INTELLIGENTSCAN_"))]:
        del os.environ[name]  # another store is none of its business
    os.environ["INTELLIGENTSCAN_HOME"] = str(place.home)
    tell(place)


def tell(place: Place) -> None:
    """Go through the story step by step."""
    write_code(place)
    form_team(place)
    runs = train(place)
    best = compare(runs)
    author, other = TEAM if best == runs[0] else reversed(TEAM)
    version = register(best)
    meet_the_lock(place)
    stage(version)
    be_refused(version)
    scan(place)
    review_id = ask_for_review(version)
    approve(place, review_id, author, other)
    release(version)
    predict(place)
    tell_history(version)
    print(f"\nLook at it:  INTELLIGENTSCAN_HOME={shlex.quote(str(place.home))} intelligentscan ui")


def write_code(place: Place) -> None:
    """Make a checkout of the training code, so that each run names its commit, and the data beside it."""
    chapter("The code, under version control, and the data")
    place.code.mkdir(parents=True)
    for name in CODE:
        shutil.copyfile(Path(__file__).with_name(name), place.code / name)
    (place.code / ".gitignore").write_text("__pycache__/\n")
    for arguments in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "Fraud detection")):
        git(place, *arguments)
    place.data.parent.mkdir()
    table = transactions.make()
    table.to_csv(place.data, index=False)
    share = table[transactions.LABEL].mean()
    print(f"commit {git(place, 'rev-parse', 'HEAD')[:12]}; {len(table)} transactions, {share:.0%} of them fraud")


def form_team(place: Place) -> None:
    """Onboard the product, enrol a key for each of the two, and choose the policy for teams."""
    chapter("The team lead sets up: product, people, policy")
    command("role", "grant", "administrator", account(), "--yes")
    command("product", "onboard", PRODUCT, "--description", "Finds fraud in card transactions")
    place.keys.mkdir(mode=0o700)
    for name in TEAM:
        key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        (place.keys / name).touch(mode=0o600)
        (place.keys / name).write_bytes(key)
        command("review", "enrol", name, "--key", str(place.keys / name), "--key-holder", "--yes")
        command("role", "grant", "reviewer", name, "--key-holder", "--yes")
    command("policy", "activate", "team", "--reason", "two people work on it", "--yes")


def train(place: Place) -> list[str]:
    """Let both train, as each would in a terminal of their own; return the ids of their runs."""
    runs = []
    scripts = [[script, str(place.data)] for script in (RANDOM_FOREST, XGBOOST)]
    for who, script, done in zip(TEAM, scripts, children(place, scripts, TEAM), strict=True):
        chapter(f"{who} trains: {script[0]}")
        hold(done.returncode == 0, f"run {done.stdout.strip()}" if done.stdout else done.stderr[-800:])
        runs.append(done.stdout.split()[-1])
    return runs


def compare(runs: list[str]) -> str:
    """Compare the runs and return the one that the team decides for."""
    chapter("They compare")
    compared = intelligentscan.compare_runs(runs)
    print(compared.summary)
    best = next(metric.best_run_id for metric in compared.metrics if metric.key == "f1")
    hold(best in runs, "one of them is better")
    return str(best)


def register(run_id: str) -> int:
    """Register the better model."""
    chapter("They register the better one")
    made = intelligentscan.register_model(
        run_id=run_id,
        model_name=MODEL,
        description="Flags card transactions that are likely fraud; not for refusing them without a person's look.",
        use_case="Queue of transactions that an analyst looks at. Limits: trained on invented data, four regions.",
        product=PRODUCT,
    )
    print(
        f"{made.name} version {made.version}, sealed as {str(made.manifest_digest)[:12]}; next: {made.next_experiment}"
    )
    hold(made.experiment_locked and made.next_experiment == NEXT, "the experiment is locked, and the next one named")
    return made.version


def meet_the_lock(place: Place) -> None:
    """Try to add a run with plain MLflow in a fresh process, and go on in the next experiment."""
    chapter("Somebody wants to add a run, with plain MLflow in a fresh process")
    script = ANOTHER_RUN.format(experiment=FIRST)
    print(script)
    refused, following = plain(place, script, ANOTHER_RUN.format(experiment=NEXT))
    said = next((line for line in refused.stderr.splitlines() if "EXPERIMENT_LOCKED" in line), "")
    hold(refused.returncode != 0 and f"'{NEXT}'" in said, "it is refused, and told where to go on")
    print(said)
    hold(following.returncode == 0, f"the same in {NEXT} works: {following.stdout.strip()}")


def stage(version: int) -> None:
    """Put the version into Staging."""
    chapter("Staging")
    decision = intelligentscan.promote(MODEL, version, to="Staging")
    hold(decision.stage == "Staging", f"version {version} is in {decision.stage}, alias {decision.aliases}")


def be_refused(version: int) -> None:
    """Ask for Production while something is missing: every gate that fails is named, with what would satisfy it."""
    chapter("Production, too early")
    try:
        intelligentscan.promote(MODEL, version, to="Production", reason=REASON)
    except GatesFailed as refused:
        print(refused.message)
        show_gates(refused.details["gates"])
    else:
        raise StoryBroken("it was not refused")


def scan(place: Place) -> None:
    """Scan the commit that the runs were made from."""
    chapter("The code of that commit is scanned")
    found = command("scan", str(place.code))
    print(f"{found['vulnerabilities_found']} findings, {found['critical_count']} critical; {found['scan_status']}")


def ask_for_review(version: int) -> str:
    """Ask again: now only the committee's word is missing, so the review is requested."""
    chapter("Production, asked again")
    decision = intelligentscan.promote(MODEL, version, to="Production", reason=REASON)
    show_gates([gate.model_dump() for gate in decision.gates])
    hold(decision.status == "pending_review", f"only a review is missing; it is requested: {decision.review_id}")
    return str(decision.review_id)


def approve(place: Place, review_id: str, author: str, other: str) -> None:
    """Let the one who trained it try to approve it, and then the other one, each with their own key."""
    chapter(f"{author} approves what {author} has trained")
    approval = ("review", "approve", review_id, "--reason", "I have looked at the matrix and at every region", "--yes")
    refused = command(*approval, "--key", str(place.keys / author), refused=True)
    print(f"{refused['code']}: {refused['message']}")
    chapter(f"{other} approves it, and signs")
    made = command(*approval, "--key", str(place.keys / other))
    hold(made["proof"] == "authenticated", f"{made['person']}: {made['verdict']}, {made['proof']}")


def release(version: int) -> None:
    """Put the version into Production."""
    chapter("Production")
    decision = intelligentscan.promote(MODEL, version, to="Production", reason=REASON)
    show_gates([gate.model_dump() for gate in decision.gates])
    hold(decision.status == "promoted", f"version {version} is in {decision.stage}; four_eyes: {decision.four_eyes}")


def predict(place: Place) -> None:
    """Load what is in Production with plain MLflow in a fresh process, and predict one transaction."""
    chapter("One transaction, predicted by what is in Production")
    print(PREDICT)
    (done,) = plain(place, PREDICT)
    hold(done.stdout.strip() == "not fraud", done.stdout.strip() or done.stderr[-500:])


def tell_history(version: int) -> None:
    """Say who put it into Production, on what evidence."""
    chapter("Who put it into Production, on what evidence?")
    told = intelligentscan.get_history(MODEL, version, limit=100)
    for event in reversed(told.events):
        who = f"{event.actor} for {event.on_behalf_of}" if event.on_behalf_of else event.actor
        print(f"{event.seq:>4}  {event.at}  {who:<18} {event.action}{': ' + event.reason if event.reason else ''}")
    promoted = next(e for e in told.events if e.facts.get("to") == "Production")
    print(f"\n{promoted.actor} put version {version} into Production: {promoted.reason}")
    show_gates(promoted.facts["gates"])
    hold([row.version for row in told.live["Production"]] == [version], f"version {version} is live")
    hold(intelligentscan.verify_integrity(MODEL).ok, "everything is as it was sealed, locked and recorded")


def show_gates(gates: Sequence[dict[str, Any]]) -> None:
    """Show what each gate said."""
    for gate in gates:
        print(f"  {gate['outcome']:<14} {gate['gate']:<24} {gate.get('detail') or gate['origin']}")


def command(*arguments: str, refused: bool = False) -> dict[str, Any]:
    """Call a command and return its answer; in this process, because a new one would import MLflow again."""
    print(f"$ intelligentscan {shlex.join(arguments)}")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ended = app([*arguments, "--json"], standalone_mode=False)
    if bool(ended) != refused:
        raise StoryBroken(f"it ended with {ended}: {printed.getvalue()}")
    answer: dict[str, Any] = json.loads(printed.getvalue())
    return answer


def plain(place: Place, *scripts: str) -> list[subprocess.CompletedProcess[str]]:
    """Run scripts that know plain MLflow alone, side by side, each in a fresh process on the store."""
    return children(place, [["-m", "intelligentscan", "run", "--", sys.executable, "-c", script] for script in scripts])


def children(
    place: Place, commands: Sequence[list[str]], users: Sequence[str] | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Run this Python side by side with these arguments, for these users."""

    def child(arguments: list[str], user: str) -> subprocess.CompletedProcess[str]:
        quiet = {"PYTHONDONTWRITEBYTECODE": "1", "MLFLOW_LOGGING_LEVEL": "ERROR"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=place.code,
            env={**os.environ, **quiet, "LOGNAME": user},  # MLflow believes it; so does nobody else
            capture_output=True,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor() as pool:
        return list(pool.map(child, commands, users or [account()] * len(commands)))


def git(place: Place, *arguments: str) -> str:
    """Run Git in the checkout, with no settings from outside."""
    plain_git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ("-c", "user.name=Team Awesome", "-c", "user.email=team@awesome.invalid")
    return subprocess.run(
        ["git", *identity, *arguments],  # noqa: S607 - the caller's own Git
        cwd=place.code,
        env={**os.environ, **plain_git},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def account() -> str:
    """Return the account that everybody here sits at."""
    return pwd.getpwuid(os.getuid()).pw_name


def chapter(title: str) -> None:
    """Begin the next part."""
    print(f"\n--- {title}")


def hold(held: bool, what: str) -> None:
    """Show that something is as it must be.

    Raises:
        StoryBroken: it is not.
    """
    if not held:
        raise StoryBroken(f"expected: {what}")
    print(f"✓ {what}")


if __name__ == "__main__":
    try:
        main()
    except StoryBroken as broken:
        raise SystemExit(f"The story broke off: {broken}") from broken
