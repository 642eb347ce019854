"""`doctor`: what it finds in order, what it finds wrong, and that it works when nothing else does."""

import json
import os
import socket
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import child_work
import pytest
from command_line import CommandLine, child

import intelligentscan.services.diagnosis  # so that it is there when a child may not read it any more
from intelligentscan.domain.diagnosis import Diagnosis

assert intelligentscan.services.diagnosis


@pytest.fixture
def command(home: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line in a project, on a new store."""
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(home))
    monkeypatch.chdir(project)
    (project / "pyproject.toml").write_text("")
    (project / "app.py").write_text("print('hello')\n")
    return CommandLine(home)


def doctor(*, home: Path, cwd: Path | None = None, code: int, **env: str) -> dict[str, dict[str, object]]:
    """Return what doctor says, by the name of the check."""
    done = child(["doctor", "--json"], home=home, cwd=cwd, **env)
    assert done.code == code, done
    diagnosis = Diagnosis.model_validate_json(done.out)
    assert diagnosis.healthy is (code == 0)
    return {check.name: check.model_dump() for check in diagnosis.checks}


def test_doctor_finds_a_new_installation_in_order_and_makes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"

    found = doctor(home=home, code=0)

    assert found["store"]["details"] | {"embedded": True, "selected_by": "default"} == found["store"]["details"]  # type: ignore[operator]
    assert "first use makes it" in str(found["store"]["fact"])
    assert not home.exists()


def test_doctor_counts_what_the_store_holds_and_says_what_an_assistant_may_read(
    command: CommandLine, home: Path, project: Path
) -> None:
    command("scan", ".")
    home.chmod(0o755)

    found = {check["name"]: check for check in command.json("doctor")["checks"]}

    store = found["store"]["details"]
    assert (store["journal_mode"], store["experiments"], store["runs"]) == ("wal", 2, 1)
    assert found["roots"]["details"] == {"roots": [str(project)], "selected_by": "working directory"}
    assert (found["home"]["status"], found["home"]["details"]["mode"]) == ("note", "0755")
    assert found["engines"]["details"].keys() == {"bandit", "ruff"}
    assert all(found["engines"]["details"].values())
    assert "elsewhere" not in found


def test_doctor_in_plain_words_says_what_to_do(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTELLIGENTSCAN_ALLOWED_ROOTS", "/no/such/folder")

    answer = command("doctor")

    assert answer.code == 1
    assert "✗  roots" in answer.out
    assert "1 problem to solve." in answer.out


def test_doctor_gives_up_on_a_server_that_never_answers_and_names_the_store_with_the_runs(
    command: CommandLine, home: Path, project: Path
) -> None:
    command("scan", ".")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://user:hunter2@127.0.0.1:{silent.getsockname()[1]}"
        found = doctor(home=home, cwd=project, code=1, MLFLOW_TRACKING_URI=uri, MLFLOW_HTTP_REQUEST_TIMEOUT="1")

    assert found["store"]["status"] == "problem"
    assert "MLFLOW_TRACKING_URI" in str(found["store"]["next"])
    assert "hunter2" not in json.dumps(found)
    assert found["elsewhere"]["details"] == {"stores": [f"sqlite:///{home / 'mlflow.db'}"]}


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("postgresql://user:hunter2@127.0.0.1:1/db", "did not answer"),
        ("sqlite:////etc/passwd", "not a database"),
    ],
)
def test_doctor_works_with_a_store_that_does_not_open(home: Path, uri: str, word: str) -> None:
    found = doctor(home=home, code=1, MLFLOW_TRACKING_URI=uri)

    assert word in str(found["store"]["fact"])
    assert "hunter2" not in json.dumps(found)
    assert found["engines"]["status"] == "ok"


def test_doctor_works_with_settings_that_cannot_be_read(home: Path) -> None:
    (home / "config.toml").write_text("x = [")

    found = doctor(home=home, code=1)

    assert "config.toml" in str(found["settings"]["fact"])
    assert found["engines"]["status"] == "ok"


def doctor_here(home: str) -> tuple[int, str]:
    """Run doctor in this process, as whoever it belongs to."""
    os.environ["INTELLIGENTSCAN_HOME"] = home
    os.chdir("/")
    answer = CommandLine(Path(home))("doctor", "--json")
    return answer.code, answer.out


def test_doctor_works_for_a_user_who_may_not_read_the_home(home: Path, children: ForkServerContext) -> None:
    home.chmod(0)
    try:
        with ProcessPoolExecutor(1, mp_context=children) as pool:
            code, out = pool.submit(child_work.as_nobody, doctor_here, str(home)).result()
    finally:
        home.chmod(0o700)

    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 1
    assert checks["home"]["status"] == "problem"
    assert "INTELLIGENTSCAN_HOME" in checks["home"]["next"]
