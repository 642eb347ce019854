# ruff: noqa: T201
"""The whole story of one model, on a store of its own: `python story.py --home DIR`.

Two people train, one of their models is registered, its experiment is locked, the committee is asked, the other of
the two approves with a key of her own, and at the end the trail tells who put what into Production on which evidence.
Everybody sits at one account here, so what they sign with their keys is all that tells them apart.
"""

import argparse
import os
import shlex
import shutil
from pathlib import Path

import transactions
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from scene import Place, StoryBroken, account, chapter, children, command, git, hold, plain, show_gates

import intelligentscan
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


def main() -> None:
    """Tell it."""
    parser = argparse.ArgumentParser(description="Tell the story of one model, from two attempts to Production.")
    parser.add_argument("--home", type=Path, required=True, help="a folder that is not there yet, or empty")
    home: Path = parser.parse_args().home.expanduser().absolute()
    if home.exists() and any(home.iterdir()):
        parser.error(f"{home} is not empty; the story needs a folder of its own")
    place = Place(home / "store", home / "code", home / "keys", home / "data" / "transactions.csv")
    for name in [n for n in os.environ if n.startswith(("MLFLOW_", "INTELLIGENTSCAN_", "GIT_"))]:
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
    tell_history(version, review_id, other)
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
    """Let both train, one after the other, as each would in a terminal of their own; return the ids of their runs."""
    runs = []
    for who, script in zip(TEAM, (RANDOM_FOREST, XGBOOST), strict=True):
        chapter(f"{who} trains: {script}")
        (done,) = children(place, [[script, str(place.data)]], [who])
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


def tell_history(version: int, review_id: str, approver: str) -> None:
    """Say who put it into Production, on what evidence."""
    chapter("Who put it into Production, on what evidence?")
    told = intelligentscan.get_history(MODEL, version, limit=100)
    for event in reversed(told.events):
        who = f"{event.actor} for {event.on_behalf_of}" if event.on_behalf_of else event.actor
        print(f"{event.seq:>4}  {event.at}  {who:<16} {event.action}{': ' + event.reason if event.reason else ''}")
    promoted = next(e for e in told.events if e.facts.get("to") == "Production")
    decided = next(e for e in told.events if e.facts.get("review") == review_id and "verdict" in e.facts)
    registered = next(e for e in told.events if e.action == "version.registered")
    print(f"\n{promoted.actor} put version {version} into Production: {promoted.reason}")
    print(f"{decided.on_behalf_of} approved it ({decided.facts['proof']}): {decided.reason}")
    print(f"It is from run {registered.run_id} at commit {registered.facts['code_version']}.")
    print(f"Its sealed bytes are {promoted.facts['manifest_digest']}.")
    evidence = command("review", "show", review_id)["evidence"]
    for criterion in dict.fromkeys(item["criterion"] for item in evidence):
        said = (f"{item['what']} ({item['origin']})" for item in evidence if item["criterion"] == criterion)
        found = list(dict.fromkeys(said))
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        print(f"  {criterion:<14} {', '.join(found[:3])}{more}")
    hold(decided.on_behalf_of == approver and promoted.facts["review"] == review_id, "it follows from that approval")
    hold([row.version for row in told.live["Production"]] == [version], f"version {version} is live")
    hold(intelligentscan.verify_integrity(MODEL).ok, "everything is as it was sealed, locked and recorded")


if __name__ == "__main__":
    try:
        main()
    except StoryBroken as broken:
        raise SystemExit(f"The story broke off: {broken}") from broken
