"""What governance looks like from outside: agent tools, commands and Python calls on real governed stores."""

import getpass
import json
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from command_line import COMMAND, CommandLine, child, child_environment
from conftest import copy_store, look_at, plain_mlflow
from mcp_client import MODES, answered, child_client, child_env, connected, refused, services_at, text_of
from mlflow import MlflowClient
from pydantic_core import from_json
from reviewed import approve, release

import intelligentscan
from intelligentscan.app import Services
from intelligentscan.domain.administration import Adoption, DatabaseCheck, Reconciliation, RetentionState
from intelligentscan.domain.audit import KeyRotation, TrailReport
from intelligentscan.domain.errors import GatesFailed, InvalidArgument, InvalidCursor, NotGoverned
from intelligentscan.domain.experiment import UnlockedExperiment
from intelligentscan.domain.history import History
from intelligentscan.domain.integrity import IntegrityReport
from intelligentscan.domain.registry import RegisteredVersion
from intelligentscan.toolsets.answer import ANSWER_CAP
from intelligentscan.toolsets.governance import MAX_LIVE
from intelligentscan.toolsets.selection import select

WHY = "best F1 of all"
UNKNOWN_KEY = "0" * 32


def train(home: Path, experiment: str) -> str:
    """Log a run with a model by plain MLflow and return its id."""
    import mlflow
    from sklearn.linear_model import LogisticRegression

    services = services_at(home)
    experiment_id = anyio.run(services.experiments.create, experiment).experiment_id
    with plain_mlflow(services.settings.store_uri), mlflow.start_run(experiment_id=experiment_id) as run:
        mlflow.log_metric("f1", 0.9)
        model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
    return str(run.info.run_id)


def store_uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """A home whose model `fm` has version 1 in Production and version 2 in Staging; tests only read it."""
    home = copy_store(template, tmp_path_factory.mktemp("governed") / "home")
    first, second = train(home, "fraud"), train(home, "fraud-b")

    async def work(services: Services) -> None:
        await services.registry.register("fm", run_id=first, product="cards", use_case="card fraud")
        await release(services, "fm", 1, reason=WHY)
        await services.registry.register("fm", run_id=second)
        await services.registry.promote("fm", 2, "Staging")

    anyio.run(work, services_at(home))
    MlflowClient(tracking_uri=store_uri(home)).create_registered_model("plain")
    return home


@pytest.fixture
def run_id(home: Path) -> str:
    """A finished run with a model, in the experiment `fraud` of a home of its own."""
    return train(home, "fraud")


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line on a home of its own, in an empty folder."""
    return at(home, monkeypatch)


@pytest.fixture
def reader(governed: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line on the governed home."""
    return at(governed, monkeypatch)


def at(home: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(home))
    monkeypatch.chdir(home.parent)
    return CommandLine(home)


@pytest.fixture
def registered(command: CommandLine, run_id: str) -> RegisteredVersion:
    """Version 1 of `fm`, registered by command; its experiment is locked."""
    return RegisteredVersion.model_validate(command.json("register", run_id, "--name", "fm"))


def triggers(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        return [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'gov%' ORDER BY 1"
            )
        ]


def go_around(home: Path, *statements: str) -> None:
    """Drop every guard and change rows, as the file's owner can."""
    names = triggers(home)
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        for name in names:
            connection.execute(f'DROP TRIGGER "{name}"')
        for statement in statements:
            connection.execute(statement)


# Agents


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_registers_goes_on_elsewhere_promotes_and_asks_who_did_it(
    home: Path, run_id: str, mode: str
) -> None:
    async with connected(services_at(home), mode) as agent:
        planned = await answered(agent, "register_model", name="fm", run_id=run_id, dry_run=True)
        made = await answered(agent, "register_model", name="fm", run_id=run_id, product="cards", use_case="card fraud")
        locked = await refused(agent, "log_run", experiment="fraud", params={"a": 1})
        onward = await answered(agent, "create_experiment", name=made["next_experiment"])
        again = await answered(agent, "create_experiment", name="fraud")
        waits = await answered(agent, "promote", name="fm", version=1, to="Production", reason=WHY)
        await services_at(home).reviews.decide(waits["review_id"], "approve", "looked at it")
        moved = await answered(agent, "promote", name="fm", version=1, to="Production", reason=WHY)
        history = await answered(agent, "get_history", name="fm", version=1)
        checked = await answered(agent, "verify_integrity", name="fm")

    assert (planned["status"], planned["experiment_locked"]) == ("would_register", False)
    assert (made["experiment_locked"], made["next_experiment"]) == (True, "fraud-v2")
    assert (locked["code"], locked["details"]["next_experiment"]) == ("EXPERIMENT_LOCKED", "fraud-v2")
    assert "fraud-v2" in locked["next"]
    assert (onward["created"], onward["locked"]) == (True, False)
    assert (again["locked"], again["next_experiment"]) == (True, "fraud-v2")
    assert (waits["status"], [g["gate"] for g in waits["gates"] if g["outcome"] == "fail"]) == (
        "pending_review",
        ["reviewed"],
    )
    assert (moved["status"], {gate["outcome"] for gate in moved["gates"]}) == ("promoted", {"pass"})
    assert (moved["four_eyes"], moved["policy"]) == (False, "solo")
    newest = history["events"][0]
    assert (newest["action"], newest["reason"], newest["version"]) == ("version.promoted", WHY, 1)
    assert [row["version"] for row in history["live"]["Production"]] == [1]
    assert (checked["ok"], checked["problems"]) == (True, [])
    assert checked["enforcement"] in ("prevented", "detected", "advisory")


async def test_who_promoted_a_version_and_what_was_live_before_it_are_one_call_each(governed: Path) -> None:
    now = datetime.now(UTC)
    async with connected(services_at(governed)) as agent:
        told = await answered(agent, "get_history", name="fm", version=1)
        today = await answered(agent, "get_history", at=now.date().isoformat())
        before = await answered(agent, "get_history", name="fm", at="2020-02-29")

    promoted = next(event for event in told["events"] if event["action"] == "version.promoted")
    assert promoted["actor"]
    assert promoted["reason"] == WHY
    assert [gate["outcome"] for gate in promoted["facts"]["gates"]] == ["pass"] * 4
    registered = next(event for event in told["events"] if event["action"] == "version.registered")
    assert registered["on_behalf_of"] == promoted["actor"]
    assert len(registered["facts"]["manifest_digest"]) == 64
    assert {stage: [row["version"] for row in rows] for stage, rows in today["live"].items()} == {
        "Production": [1],
        "Staging": [2],
    }
    assert (before["events"], before["live"]) == ([], {"Production": [], "Staging": []})


async def test_pages_of_history_reach_every_event_once(governed: Path) -> None:
    seen: list[int] = []
    async with connected(services_at(governed)) as agent:
        page = await answered(agent, "get_history", name="fm", limit=3)
        while True:
            seen += [event["seq"] for event in page["events"]]
            if (cursor := page["next_cursor"]) is None:
                break
            page = await answered(agent, "get_history", name="fm", limit=3, cursor=cursor)
        whole = await answered(agent, "get_history", name="fm", limit=100)

    assert seen == [event["seq"] for event in whole["events"]] == sorted(set(seen), reverse=True)
    assert len(seen) > 6


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("get_history", {"version": 1}, "INVALID_ARGUMENT"),
        ("get_history", {"name": "fm", "version": "first"}, "INVALID_ARGUMENT"),
        ("get_history", {"name": "fm", "version": 0}, "INVALID_ARGUMENT"),
        ("get_history", {"name": "fm", "version": 2**63}, "INVALID_ARGUMENT"),
        ("get_history", {"name": ["fm", "other"]}, "INVALID_ARGUMENT"),
        ("get_history", {"name": "a/b"}, "INVALID_NAME"),
        ("get_history", {"name": "n" * 251}, "INVALID_ARGUMENT"),
        ("get_history", {"at": "tomorrow"}, "INVALID_ARGUMENT"),
        ("get_history", {"at": "2026-02-30"}, "INVALID_ARGUMENT"),
        ("get_history", {"at": "9999-12-31"}, "INVALID_ARGUMENT"),
        ("get_history", {"at": "2026-11-07'; DROP TABLE gov_event; --"}, "INVALID_ARGUMENT"),
        ("get_history", {"at": 20261107}, "INVALID_ARGUMENT"),
        ("get_history", {"limit": 0}, "INVALID_ARGUMENT"),
        ("get_history", {"limit": 10**9}, "INVALID_ARGUMENT"),
        ("get_history", {"cursor": "garbage"}, "INVALID_CURSOR"),
        ("get_history", {"who": "me"}, "INVALID_ARGUMENT"),
        ("verify_integrity", {"version": 1}, "INVALID_ARGUMENT"),
        ("verify_integrity", {"name": "nobody"}, "MODEL_NOT_FOUND"),
        ("verify_integrity", {"name": "fm", "version": 9}, "VERSION_NOT_FOUND"),
        ("verify_integrity", {"name": "plain"}, "NOT_GOVERNED"),
        ("register_model", {"name": "fm", "run_id": "0" * 32, "abandon_running": "maybe"}, "INVALID_ARGUMENT"),
        ("promote", {"name": "plain", "version": 1, "to": "Production", "reason": "r"}, "VERSION_NOT_FOUND"),
    ],
)
async def test_a_call_that_makes_no_sense_is_refused_with_its_code_and_a_next_step(
    governed: Path, tool: str, arguments: dict[str, Any], code: str
) -> None:
    before = look_at(governed)
    async with connected(services_at(governed)) as agent:
        error = await refused(agent, tool, **arguments)

    assert error["code"] == code
    assert error["next"]
    assert look_at(governed) == before


async def test_a_cursor_of_another_call_is_refused(governed: Path) -> None:
    async with connected(services_at(governed)) as agent:
        cursor = (await answered(agent, "get_history", name="fm", limit=1))["next_cursor"]
        for other in (
            {},
            {"name": "fm", "version": 1},
            {"name": "fm", "actor": "me"},
            {"name": "fm", "at": "2030-01-01"},
        ):
            error = await refused(agent, "get_history", **other, cursor=cursor)
            assert error["code"] == "INVALID_CURSOR", other


async def test_history_of_an_unknown_name_or_person_is_empty_and_says_so(governed: Path) -> None:
    async with connected(services_at(governed)) as agent:
        model = await answered(agent, "get_history", name="nobody")
        version = await answered(agent, "get_history", name="nothing", version=9, at="2030-01-01")
        person = await answered(agent, "get_history", name="fm", actor="nobody")
        idle = await answered(agent, "get_history", name="nothing", actor=getpass.getuser())

    told = [(found["events"], found["notes"][0]) for found in (model, version, person, idle)]
    assert told == [
        ([], "Nothing governed had happened to 'nobody' yet."),
        ([], "Nothing governed had happened to version 9 of 'nothing' by then."),
        ([], "Nobody is known as 'nobody' on this store."),
        ([], f"'{getpass.getuser()}' has not done anything to 'nothing' yet, nor had it done."),
    ]


async def test_so_many_live_versions_are_cut_that_events_have_room(home: Path) -> None:
    client = MlflowClient(tracking_uri=store_uri(home))
    folder = home / "artifacts" / "plain"
    folder.mkdir(parents=True)
    names = [f"model-{number:03}" for number in range(MAX_LIVE + 5)]
    for name in names:
        client.create_registered_model(name)
        client.create_model_version(name, str(folder))
        client.transition_model_version_stage(name, "1", "Production")
    services = services_at(home)
    await services.adoption.adopt()
    async with connected(services) as agent:
        result = await agent.call_tool("get_history", {"limit": 100})

    told = result.structured_content
    assert len(told["live"]["Production"]) == MAX_LIVE
    assert f"Production shows {MAX_LIVE} of {len(names)}; call get_history with name" in told["notes"]
    assert len(told["events"]) > MAX_LIVE
    assert max(len(json.dumps(told)), len(text_of(result))) <= ANSWER_CAP


async def test_read_only_keeps_the_looks_and_takes_the_acts(governed: Path) -> None:
    async with connected(services_at(governed), selection=select(None, (), True)) as agent:
        offered = {tool.name for tool in (await agent.list_tools()).tools}
        error = await refused(agent, "register_model", name="fm", run_id="0" * 32)

    assert {"get_history", "verify_integrity", "get_model"} <= offered
    assert not {"register_model", "promote", "create_experiment"} & offered
    assert error["code"] == "READ_ONLY"


async def test_a_toolset_of_its_own_can_be_chosen(governed: Path) -> None:
    async with connected(services_at(governed), selection=select(["governance"], (), False)) as agent:
        assert {tool.name for tool in (await agent.list_tools()).tools} == {
            "request_review",
            "get_history",
            "verify_integrity",
        }


async def test_a_run_that_still_goes_on_stops_a_registration_until_it_ends(home: Path, run_id: str) -> None:
    client = MlflowClient(tracking_uri=store_uri(home))
    going = client.create_run(client.get_run(run_id).info.experiment_id).info.run_id
    async with connected(services_at(home)) as agent:
        error = await refused(agent, "register_model", name="fm", run_id=run_id)
        fresh = await refused(agent, "register_model", name="fm", run_id=run_id, abandon_running=True)
        await answered(agent, "log_run", experiment="fraud", run_id=going, status="KILLED")
        made = await answered(agent, "register_model", name="fm", run_id=run_id)

    assert (error["code"], fresh["code"]) == ("STILL_RUNNING", "STILL_RUNNING")
    assert f"run_id='{going}'" in error["next"]
    assert made["version"] == 1


async def test_what_was_changed_behind_our_back_is_found_and_stops_a_promotion(home: Path, run_id: str) -> None:
    services = services_at(home)
    await services.registry.register("fm", run_id=run_id)
    await release(services, "fm", 1, reason=WHY)
    sealed = next((home / "archive" / "sealed").rglob("requirements.txt"))
    go_around(home, "DELETE FROM registered_model_aliases", "UPDATE model_versions SET description = 'other'")
    async with connected(services_at(home)) as agent:
        bare = await answered(agent, "verify_integrity", name="fm")
    await services_at(home).adoption.adopt()
    sealed.chmod(0o644)
    sealed.write_bytes(b"swapped")
    async with connected(services_at(home)) as agent:
        found = await answered(agent, "verify_integrity", name="fm")
        plan = await answered(agent, "promote", name="fm", version=1, to="Staging", dry_run=True)
        error = await refused(agent, "promote", name="fm", version=1, to="Staging")

    assert (bare["ok"], found["ok"]) == (False, False)
    assert {"GUARD", "ALIAS", "ROWS"} <= {problem["code"] for problem in bare["problems"]}
    assert bare["problems_total"] > len(bare["problems"])
    assert {"ALIAS", "ROWS", "BYTES"} <= {problem["code"] for problem in found["problems"]}
    assert plan["status"] == "would_refuse"
    assert error["code"] == "GATES_FAILED"
    assert {g["gate"] for g in error["details"]["gates"] if g["outcome"] == "fail"} >= {"intact", "not_drifted"}


async def test_a_real_child_tells_history_and_verifies_also_when_it_is_read_only(governed: Path) -> None:
    async with child_client(child_env(governed), "--read-only") as agent:
        told = await answered(agent, "get_history", name="fm", limit=2)
        checked = await answered(agent, "verify_integrity", name="fm", version=1)
        error = await refused(agent, "promote", name="fm", version=1, to="Archived")

    assert [event["seq"] for event in told["events"]] == sorted((e["seq"] for e in told["events"]), reverse=True)
    assert checked["ok"]
    assert error["code"] == "READ_ONLY"


# Commands


def test_register_says_what_is_locked_and_where_to_go_on(command: CommandLine, run_id: str) -> None:
    planned = command("register", run_id, "--name", "fm", "--dry-run")
    made = command("register", run_id, "--name", "fm", "--product", "cards", "--use-case", "card fraud")
    again = command("register", run_id, "--name", "fm")

    assert (planned.code, made.code, again.code) == (0, 0, 0)
    assert "would be locked for everybody; go on in fraud-v2" in planned.out
    assert "✓ registered fm version 1" in made.out
    assert "is locked for everybody; go on in fraud-v2" in made.out
    assert "cards" in made.out
    assert "enforcement" in made.out
    assert "intelligentscan promote fm 1 --to Staging" in made.err
    assert "was registered before: fm version 1" in again.out
    told = History.model_validate(command.json("history", "fm"))
    registration = next(event for event in told.events if event.action == "version.registered")
    assert registration.facts["use_case"] == "card fraud"


def test_promote_shows_every_gate_when_it_does_it_and_when_it_refuses(
    command: CommandLine, registered: RegisteredVersion
) -> None:
    anyio.run(approve, services_at(command.home), "fm", 1)
    moved = command("promote", "fm", "1", "--to", "Production", "--reason", WHY)
    go_around(command.home, "DELETE FROM registered_model_aliases")
    refusal = command("promote", "fm", "1", "--to", "Staging")
    plan = command("promote", "fm", "1", "--to", "Staging", "--dry-run")
    as_json = command.json("promote", "fm", "1", "--to", "Staging", code=2)

    assert [gate in moved.out for gate in ("✓ sealed", "✓ intact", "✓ not_drifted", "✓ reviewed")] == [True] * 4
    assert (refusal.code, refusal.out) == (2, "")
    assert "✗ not_drifted" in refusal.err
    assert "✓ intact" in refusal.err
    assert "verify_integrity" not in refusal.err
    assert plan.code == 1
    assert as_json["code"] == "GATES_FAILED"
    assert [g["gate"] for g in as_json["details"]["gates"]] == ["intact", "not_drifted"]


def test_history_shows_what_is_live_who_did_what_and_why(reader: CommandLine) -> None:
    told = reader("history", "fm")
    past = reader("history", "fm", "--at", "2020-01-01")
    one = reader("history", "--limit", "1")
    everything = History.model_validate(reader.json("history", "--limit", "1000000"))

    assert told.code == 0
    assert told.out.splitlines()[1].split()[:3] == ["Production", "version", "1"]
    words = " ".join(told.out.split())  # long details are broken over several lines
    for said in (WHY, "4 of 4 gates passed", "work goes on in fraud-v2"):
        assert said in words
    assert "no events" in past.out
    assert "name a larger --limit" in one.out
    assert everything.next_cursor is None
    assert [event.seq for event in everything.events] == list(range(everything.events[0].seq, 0, -1))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("history", "fm", "--at", "soon"), "INVALID_ARGUMENT"),
        (("history", "--version", "1"), "INVALID_ARGUMENT"),
        (("verify", "nobody"), "MODEL_NOT_FOUND"),
        (("verify", "plain"), "NOT_GOVERNED"),
        (("model", "show", "nobody"), "MODEL_NOT_FOUND"),
        (("audit", "log", "--export", "x.jsonl", "--name", "fm"), "INVALID_ARGUMENT"),
        (("audit", "verify", "--log", "missing.jsonl"), "INVALID_ARGUMENT"),
        (("audit", "verify", "--checkpoint", "missing.json"), "INVALID_ARGUMENT"),
        (("audit", "verify", "--trust", "nonsense"), "INVALID_ARGUMENT"),
        (("audit", "checkpoint"), "INVALID_ARGUMENT"),
        (("db", "init-roles", "--dry-run"), "REFUSED"),
        (("unlock", "nobody", "--reason", "r"), "EXPERIMENT_NOT_FOUND"),
        (("unlock", "fraud", "--reason", "  "), "INVALID_ARGUMENT"),
        (("reconcile", "plain", "--reason", "r"), "NOT_GOVERNED"),
        (("adopt", "nobody"), "MODEL_NOT_FOUND"),
        (("archive", "hold", "fm", "9", "--reason", "r"), "VERSION_NOT_FOUND"),
        (("archive", "retain", "fm", "1", "--until", "2026-01-01", "--reason", "r"), "REFUSED"),
        (("archive", "retain", "fm", "1", "--until", "later", "--reason", "r"), "INVALID_ARGUMENT"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_json_error_and_changes_nothing(
    reader: CommandLine, arguments: tuple[str, ...], code: str
) -> None:
    before = look_at(reader.home)
    error = reader.json(*arguments, code=2)

    assert error["code"] == code
    assert error["next"]
    assert look_at(reader.home) == before


def test_versions_and_locked_experiments_can_be_listed(reader: CommandLine) -> None:
    shown = reader("model", "show", "fm").out
    plain = reader("model", "show", "plain").out
    locked = reader("experiments", "fraud").out

    assert [line.split()[:4] for line in shown.splitlines()[1:3]] == [
        ["2", "Staging", "challenger", "sealed"],
        ["1", "Production", "champion", "sealed"],
    ]
    assert "intelligentscan adopt plain" in plain
    assert locked.count("locked, go on in") == 2
    assert reader.json("experiments")["experiments"][0].keys() >= {"locked", "next_experiment"}


def test_verify_ends_with_1_when_something_is_not_as_recorded(
    command: CommandLine, registered: RegisteredVersion
) -> None:
    good = command("verify")
    go_around(command.home, "UPDATE model_versions SET description = 'other'")
    bad = command("verify", "fm", "1")

    assert (good.code, bad.code) == (0, 1)
    assert "everything is as it was recorded" in good.out
    assert "checked: guards, trail, 1 model, 1 version, 1 experiment" in good.out
    assert "intelligentscan adopt" in bad.out
    assert {p.code for p in IntegrityReport.model_validate(command.json("verify", code=1)).problems} >= {
        "GUARD",
        "ROWS",
    }


def test_an_exported_trail_is_verified_where_there_is_no_store_and_no_mlflow(
    reader: CommandLine, tmp_path: Path
) -> None:
    log, keys = tmp_path / "trail.jsonl", tmp_path / "keys.json"
    assert reader.json("audit", "log", "--export", str(log))["events"] > 5
    assert reader("keys", "export", "-o", str(keys)).code == 0
    [key_id] = reader.json("keys", "export", "-o", str(tmp_path / "again.json"))["keys"]
    edited = tmp_path / "edited.jsonl"
    edited.write_bytes(log.read_bytes().replace(b"Production", b"Staging"))
    script = (
        "import sys; from intelligentscan.cli import main; code = main();"
        "print('mlflow' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    elsewhere = child_environment(tmp_path / "nowhere", MLFLOW_TRACKING_URI="http://127.0.0.1:9")

    def verify(file: Path, *trust: str) -> tuple[int, str, TrailReport]:
        done = subprocess.run(
            [sys.executable, "-c", script, "audit", "verify", "--log", str(file), *trust, "--json"],
            env=elsewhere,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        document = json.loads(done.stdout)
        assert document.pop("exit_code") == done.returncode
        return done.returncode, done.stderr.strip(), TrailReport.model_validate(document)

    assert verify(log, "--trust", str(keys))[:2] == (0, "False")
    assert verify(log, "--trust", key_id)[0] == 0
    unknown = verify(log)
    assert (unknown[0], unknown[2].verdict) == (3, "self-consistent, signer unknown")
    assert verify(log, "--trust", UNKNOWN_KEY)[0] == 1
    assert {p.code for p in verify(edited, "--trust", key_id)[2].problems} == {"EDITED"}
    assert not (tmp_path / "nowhere" / "mlflow.db").exists()


def test_the_exported_keys_are_the_document_on_stdout_and_no_file_is_overwritten(
    reader: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    document = reader("keys", "export").out

    assert reader("keys", "export", "-o", str(file)).code == 0
    assert file.read_text() == document
    assert [key["key_id"] for key in from_json(document)["keys"]] == [
        key["key_id"] for key in reader.json("keys", "show")["keys"]
    ]
    assert reader("keys", "export", "-o", str(file)).code == 2
    assert reader("audit", "log", "--export", str(file)).code == 2
    assert file.read_text() == document


def test_a_rotated_key_signs_on_and_the_old_one_is_still_enough_to_trust_the_trail(
    command: CommandLine, registered: RegisteredVersion
) -> None:
    before = command.json("keys", "show")["in_force"]
    rotation = KeyRotation.model_validate(command.json("keys", "rotate"))
    command.json("archive", "hold", "fm", "1", "--reason", "case 7")

    assert (rotation.old, rotation.new) == (before, command.json("keys", "show")["in_force"])
    assert command("audit", "verify", "--trust", before).code == 0
    shown = command("keys", "show").out
    assert f"to {rotation.event}" in shown
    assert f"{rotation.event + 1} on, in force" in shown


def test_a_checkpoint_finds_a_trail_that_was_put_back(
    command: CommandLine, registered: RegisteredVersion, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    earlier = sqlite3.connect(":memory:")
    with closing(sqlite3.connect(command.home / "mlflow.db")) as store:
        store.backup(earlier)
    command.json("archive", "hold", "fm", "1", "--reason", "case 7")
    made = command.json("audit", "checkpoint", "--output", str(kept))
    matches = command.json("audit", "verify", "--checkpoint", made["path"], code=3)
    with closing(sqlite3.connect(command.home / "mlflow.db")) as store, closing(earlier):
        earlier.backup(store)
    cut = command.json("audit", "verify", "--checkpoint", made["path"], code=1)

    assert made["notes"] == ["the folder of checkpoints can be altered by this account: advisory."]
    assert matches["checkpoint"] == "matches"
    assert {problem["code"] for problem in cut["problems"]} == {"CUT_TAIL"}


def test_an_unlocked_experiment_takes_runs_again_and_the_trail_says_why(
    command: CommandLine, registered: RegisteredVersion
) -> None:
    done = UnlockedExperiment.model_validate(command.json("unlock", "fraud", "--reason", "registered the wrong run"))
    again = command.json("unlock", "fraud", "--reason", "twice", code=2)
    client = MlflowClient(tracking_uri=store_uri(command.home))
    client.create_run(done.experiment_id)

    assert again["code"] == "REFUSED"
    newest = History.model_validate(command.json("audit", "log", "--limit", "1")).events[0]
    assert (newest.action, newest.reason, newest.seq) == (
        "experiment.unlocked",
        "registered the wrong run",
        done.event,
    )


def test_drift_is_put_back_or_accepted_after_the_guards_are_back(
    command: CommandLine, registered: RegisteredVersion
) -> None:
    anyio.run(approve, services_at(command.home), "fm", 1)
    command.json("promote", "fm", "1", "--to", "Production", "--reason", WHY)
    guards = triggers(command.home)
    go_around(command.home, "DELETE FROM registered_model_aliases")
    broken = DatabaseCheck.model_validate(command.json("db", "check", code=1))
    back = Adoption.model_validate(command.json("adopt"))
    fixed = Reconciliation.model_validate(command.json("reconcile", "fm", "--reason", "somebody moved it"))
    nothing = command("reconcile", "fm", "--reason", "once more")

    assert broken.guards["missing"]
    assert set(back.repaired) <= {f"trigger {name}" for name in guards}
    assert triggers(command.home) == guards
    assert "intelligentscan adopt" in (broken.next or "")
    assert (fixed.how, [p.code for p in fixed.problems], fixed.left) == ("restored", ["ALIAS"], [])
    assert "nothing to reconcile for fm" in nothing.out
    assert command("verify", "fm").code == 0
    assert command("db", "check").code == 0


def test_a_plain_model_is_adopted_as_legacy_and_does_not_pass_to_production(command: CommandLine) -> None:
    client = MlflowClient(tracking_uri=store_uri(command.home))
    client.create_registered_model("old")
    client.create_model_version("old", str(command.home / "artifacts"))
    refused_before = command.json("promote", "old", "1", "--to", "Staging", code=2)
    adopted = command("adopt", "old")
    refused_after = command("promote", "old", "1", "--to", "Production", "--reason", "because")

    assert refused_before["code"] == "NOT_GOVERNED"
    assert "'intelligentscan adopt old'" in refused_before["next"]
    assert "1 legacy version" in adopted.out
    assert refused_after.code == 2
    assert "✗ sealed: legacy, unreviewed" in refused_after.err
    assert "intelligentscan register RUN --name old" in refused_after.err
    assert "legacy, unreviewed" in command("model", "show", "old").out


def test_a_store_that_nobody_adopted_says_so_in_one_line_everywhere(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'plain.db'}"
    MlflowClient(tracking_uri=uri).create_experiment("plain")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    export = tmp_path / "trail.jsonl"

    bare = IntegrityReport.model_validate(command.json("verify", code=1))
    assert ([p.code for p in bare.problems], bare.enforcement) == (["GUARD"], "advisory")
    assert "intelligentscan adopt" in (bare.problems[0].next or "")
    assert command.json("audit", "log", "--export", str(export), code=2)["code"] == "NOT_ADOPTED"
    assert not export.exists()
    assert command.json("unlock", "plain", "--reason", "r", code=2)["code"] == "NOT_ADOPTED"
    assert command.json("keys", "rotate", code=2)["code"] == "NOT_ADOPTED"
    assert "no key yet" in command("keys", "show").out
    assert command.json("audit", "log")["events"] == []
    assert command("adopt").code == 0
    assert command("verify").code == 0
    assert command.json("audit", "log", "--export", str(export))["events"] > 0


def test_retention_is_held_released_and_only_ever_longer(command: CommandLine, registered: RegisteredVersion) -> None:
    def archive(*arguments: str) -> RetentionState:
        return RetentionState.model_validate(command.json("archive", *arguments, "--reason", "audit 12"))

    held = archive("hold", "fm", "1")
    longer = archive("retain", "fm", "1", "--until", "2060-06-30")
    released = archive("release", "fm", "1")

    assert [state.legal_hold for state in (held, longer, released)] == [True, True, False]
    assert longer.until == released.until == "2060-06-30T23:59:59Z"
    assert command.json("archive", "retain", "fm", "1", "--until", "2059-01-01", "--reason", "r", code=2)


def test_the_database_is_upgraded_or_left_when_there_is_nothing_to_do(home: Path, command: CommandLine) -> None:
    done = child(["db", "upgrade", "--json"], home=home)
    command.json("experiments")
    in_use = child(["db", "upgrade", "--json"], home=home)

    assert (done.code, done.json["upgraded"]) == (0, False)
    assert (in_use.code, in_use.json["code"]) == (2, "REFUSED")
    assert "end what uses the store" in in_use.json["next"]


def test_the_roles_of_a_postgresql_database_are_printed_as_sql_first(
    command: CommandLine, database: str, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.uri(database))
    command.json("adopt")
    shown = command("db", "init-roles", "--dry-run", "--prefix", "bank")
    planned = command.json("db", "init-roles", "--dry-run", "--prefix", "bank")

    assert shown.code == 0
    assert shown.out.count(";\n") >= len(planned["statements"])
    assert planned["status"] == "would_do"
    assert planned["roles"] == ["bank_owner", "bank_app", "bank_npta", "bank_auditor"]
    assert command.json("db", "init-roles", "--prefix", "Robert'); --", code=2)["code"] == "INVALID_ARGUMENT"


def answering(home: Path, reply: str, *arguments: str) -> tuple[int, str]:
    """Run a command on a pseudo-terminal, answer its question, and return its exit code and what was shown."""
    parent, terminal = pty.openpty()
    environment = {**child_environment(home), "TERM": "dumb", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdin=terminal, stdout=terminal, stderr=terminal, cwd=home.parent
    )
    os.close(terminal)
    os.write(parent, f"{reply}\n".encode())
    shown = b"".join(read_all(parent))
    os.close(parent)
    return process.wait(timeout=60), shown.decode()


def read_all(parent: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(parent, 65536):
            yield chunk
    except OSError:  # Linux says so when the other side is closed
        return


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("unlock", "fraud", "--reason", "r"), "can be written to again, by everybody"),
        (("keys", "rotate"), "A new key signs the trail from now on"),
        (("adopt",), "only by promote"),
        (("reconcile", "fm", "--accept", "--reason", "r"), "legacy, unreviewed"),
        (("archive", "hold", "fm", "1", "--reason", "r"), "until somebody releases it"),
        (("archive", "release", "fm", "1", "--reason", "r"), "no longer under legal hold"),
        (("archive", "retain", "fm", "1", "--until", "2070-01-01", "--reason", "r"), "cannot be shortened"),
        (("db", "upgrade"), "or nothing changes"),
    ],
)
def test_at_a_terminal_an_administrators_act_says_what_it_will_do_and_a_no_changes_nothing(
    governed: Path, arguments: tuple[str, ...], says: str
) -> None:
    before = look_at(governed)
    code, shown = answering(governed, "n", *arguments)

    assert code == 1
    assert says in shown
    assert "nothing was changed" in shown
    assert look_at(governed) == before


def test_at_a_terminal_a_yes_goes_on(command: CommandLine, registered: RegisteredVersion) -> None:
    code, shown = answering(command.home, "y", "unlock", "fraud", "--reason", "wrong run")

    assert code == 0
    assert "fraud is open again" in shown
    assert answering(command.home, "", "keys", "rotate", "--yes")[0] == 0


# Python


def test_a_script_registers_promotes_and_looks_back(home: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(home))
    made = intelligentscan.register_model(run_id=run_id, model_name="fm", product="cards", use_case="card fraud")
    assert intelligentscan.promote("fm", "1", stage="Production", reason=WHY).status == "pending_review"
    anyio.run(approve, services_at(home), "fm", 1)
    assert intelligentscan.promote("fm", "1", stage="Production", reason=WHY).status == "promoted"

    assert (made.experiment_locked, made.next_experiment) == (True, "fraud-v2")
    assert intelligentscan.create_experiment("fraud").next_experiment == "fraud-v2"
    assert intelligentscan.log_scan_run("fraud", findings=[], scanner="s").experiment == "fraud-v2"
    told = intelligentscan.get_history("fm", "1", limit=1)
    assert (told.events[0].action, told.events[0].reason) == ("version.promoted", WHY)
    assert intelligentscan.get_history("fm", at=date(2020, 1, 1)).events == []
    assert intelligentscan.get_history("fm", at=datetime.now(UTC)).live["Production"][0].version == 1
    assert intelligentscan.verify_integrity("fm", 1).ok
    assert intelligentscan.verify_integrity().ok
    go_around(home, "DELETE FROM registered_model_aliases")
    assert not intelligentscan.verify_integrity("fm").ok
    with pytest.raises(GatesFailed):
        intelligentscan.promote("fm", 1, to="Staging")


def test_python_refuses_what_the_other_faces_refuse(governed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(governed))
    cursor = intelligentscan.get_history("fm", limit=1).next_cursor

    for wrong in ({"at": "soon"}, {"limit": 0}, {"limit": 101}, {"version": 1}, {"name": "fm", "version": "one"}):
        with pytest.raises(InvalidArgument):
            intelligentscan.get_history(**wrong)
    with pytest.raises(InvalidCursor):
        intelligentscan.get_history(cursor=cursor)
    with pytest.raises(NotGoverned):
        intelligentscan.verify_integrity("plain")
