"""A notebook, a script, MLflow's own UI and an assistant meet in one store."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from command_line import COMMAND, CommandLine, child_environment
from conftest import free_port

from intelligentscan.app import build
from intelligentscan.domain.run import RunDetails, RunList
from intelligentscan.settings import Settings
from intelligentscan.store_environment import exports, tame_mlflow

TRAIN = """
import sys, mlflow
mlflow.set_experiment("notebook")
with mlflow.start_run(run_name="plain"):
    mlflow.log_metric("accuracy", 0.9)
    mlflow.log_text("hello", "note.txt")
    print(mlflow.get_artifact_uri())
"""


def found(home: Path) -> tuple[RunList, RunDetails]:
    """Return what our own search finds in the experiment of the script, and its first run."""

    async def search() -> tuple[RunList, RunDetails]:
        services = build(Settings(home=home))
        runs = await services.runs.search("notebook")
        return runs, await services.runs.get(runs.runs[0].run_id)

    return anyio.run(search)


def shell(script: str, *, home: Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that has our commands on its PATH."""
    return subprocess.run(
        ["/bin/sh", "-ec", script],
        env=child_environment(home, MLFLOW_DISABLE_TELEMETRY="true", **env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def started(*command: str, home: Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a server in a process group of its own, ended as Ctrl-C ends it."""
    process = subprocess.Popen(
        command,
        env=child_environment(home, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def experiments_at(url: str, process: subprocess.Popen[str]) -> dict[str, str]:
    """Return names and artifact folders of the experiments that a UI shows, as soon as it answers."""
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/experiments/search",
        data=json.dumps({"max_results": 10}).encode(),
        headers={"Content-Type": "application/json"},
    )
    patience = time.monotonic() + 90
    while time.monotonic() < patience and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                shown: list[dict[str, Any]] = json.load(answer)["experiments"]
                return {e["name"]: e["artifact_location"] for e in shown}
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError("the UI did not start")


def test_a_plain_mlflow_script_after_env_logs_into_our_store(home: Path, project: Path) -> None:
    script = f'eval "$({shlex.join(COMMAND)} env)"; exec {shlex.join([sys.executable, "-c", TRAIN])}'

    done = shell(script, home=home, cwd=project)

    assert done.returncode == 0, done.stderr
    runs, details = found(home)
    assert [(run.run_name, run.metrics) for run in runs.runs] == [("plain", {"accuracy": 0.9})]
    assert [artifact.path for artifact in details.artifacts] == ["note.txt"]
    assert done.stdout.strip().startswith(str(home / "artifacts"))
    assert list(project.iterdir()) == []


def test_use_points_this_process_at_our_store(home: Path, project: Path) -> None:
    script = f"import intelligentscan; print(intelligentscan.use()){TRAIN}"

    done = shell(shlex.join([sys.executable, "-c", script]), home=home, cwd=project)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"sqlite:///{home / 'mlflow.db'}"
    assert [run.run_name for run in found(home)[0].runs] == ["plain"]
    assert list(project.iterdir()) == []


def test_mlflow_ui_after_env_and_our_ui_show_our_experiments(
    home: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTELLIGENTSCAN_HOME", str(home))
    monkeypatch.chdir(project)
    (project / "app.py").write_text("assert True\n")
    assert CommandLine(home)("scan", ".", "--engines", "ruff", "--experiment", "ours").code == 0
    plain = free_port()
    after_env = f'eval "$({shlex.join(COMMAND)} env)"; exec mlflow ui --workers 1 --port {plain}'
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            started("/bin/sh", "-c", after_env, home=home, cwd=project) as mlflow,
            started(*COMMAND, "ui", "--port", str(port), "--json", home=home, cwd=project) as ours,
        ):
            assert ours.stdout is not None
            told = json.loads("".join(ours.stdout.readline() for _ in range(4)))
            shown = experiments_at(f"http://127.0.0.1:{plain}", mlflow)
            shown_by_ours = experiments_at(told["url"], ours)

    assert shown == shown_by_ours
    assert shown.keys() == {"Default", "ours"}
    assert Path(shown["ours"]).is_relative_to(home / "artifacts")
    assert told["url"].rpartition(":")[2] != str(port)
    assert [path.name for path in project.iterdir()] == ["app.py"]


def test_ui_is_refused_where_the_store_is_a_server_with_a_ui_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hunter2@tracking:5000")

    error = CommandLine(home).json("ui", code=2)

    assert "http://tracking:5000" in error["message"]
    assert "hunter2" not in json.dumps(error)


@pytest.mark.parametrize(
    ("tracking", "registry", "expected"),
    [
        ("http://one:5000", None, {"TRACKING": "http://one:5000", "REGISTRY": "http://one:5000"}),
        ("http://one:5000", "http://two:5000", {"TRACKING": "http://one:5000", "REGISTRY": "http://two:5000"}),
        ("databricks", None, {"TRACKING": "databricks"}),
    ],
)
def test_for_a_server_only_its_addresses_are_exported(
    tmp_path: Path, tracking: str, registry: str | None, expected: dict[str, str]
) -> None:
    named = exports(Settings(home=tmp_path, tracking_uri=tracking, registry_uri=registry))

    assert named == {f"MLFLOW_{name}_URI": uri for name, uri in expected.items()} | {"MLFLOW_DISABLE_TELEMETRY": "true"}


def test_for_a_database_the_ui_and_new_experiments_are_told_too(tmp_path: Path) -> None:
    named = exports(Settings(home=tmp_path, tracking_uri="postgresql://db/runs"))

    assert named["MLFLOW_BACKEND_STORE_URI"] == named["MLFLOW_REGISTRY_STORE_URI"] == "postgresql://db/runs"
    assert named["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == str(tmp_path / "artifacts")


def test_relative_stores_are_exported_with_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    named = exports(Settings(home=tmp_path, tracking_uri="sqlite:///runs.db", registry_uri="sqlite:///models.db"))

    assert named["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'runs.db'}"
    assert named["MLFLOW_REGISTRY_URI"] == f"sqlite:///{tmp_path / 'models.db'}"
    assert named["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == str(tmp_path / "mlruns")


def test_taming_mlflow_keeps_what_somebody_set() -> None:
    environ = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "300"}

    tame_mlflow(environ)

    assert environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300"
    assert environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert environ["MLFLOW_LOGGING_LEVEL"] == "ERROR"
