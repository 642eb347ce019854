"""The README's first command, as a newcomer runs it: once, and again on the store that it has left."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path


def run_demo(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "intelligentscan", "demo", "--home", str(home), *options],
        env=environment,
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_quick_demo_meets_the_lock_and_goes_on_behind_it_the_next_time(tmp_path: Path) -> None:
    home = tmp_path / "home"

    first = run_demo(home, "--quick")
    again = run_demo(home, "--quick", "--json")

    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    assert "steps held" in first.stdout
    assert "BEST" in first.stdout
    assert "EXPERIMENT_LOCKED: experiment 'demo-training' was locked by a registration" in first.stdout
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    answers = [step["answer"] for step in json.loads(again.stdout)["steps"]]
    assert any("locked by an earlier registration; next: demo-training-v2" in answer for answer in answers)
    assert stages(home) == {("demo-classifier", 1): "Archived", ("demo-classifier", 2): "Production"}
    assert locked(home) == ["demo-training", "demo-training-v2"]
    assert unfinished(home) == 0


def test_the_demo_holds_every_step_twice_and_leaves_its_store_in_order(tmp_path: Path) -> None:
    home = tmp_path / "home"

    for done in (run_demo(home), run_demo(home)):
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert "steps held" in done.stdout
        assert "refused with VERSION_NOT_FOUND" in done.stdout
        assert "start_run() was refused with EXPERIMENT_LOCKED" in done.stdout
        assert "waits for a review before Production" in done.stdout
        assert "Production loads the sealed bytes" in done.stdout
        assert "model.skops: CHANGED" in done.stdout
        assert "exit 3: self-consistent, signer unknown" in done.stdout
        assert "exit 0: verified" in done.stdout
        assert done.stdout.count("BEST") >= 2
    assert stages(home) == {
        ("demo-classifier", 1): "Archived",
        ("demo-classifier", 2): "Production",
        ("demo-scan-config", 1): "Staging",
    }
    assert locked(home) == ["scan-configs/default", "demo-training", "demo-training-v2"]
    assert unfinished(home) == 0
    checked = subprocess.run(
        [sys.executable, "-m", "intelligentscan", "verify"],
        env={**os.environ, "INTELLIGENTSCAN_HOME": str(home)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_demo_fails_when_a_step_does_not_hold(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_text("this is no database")

    done = run_demo(home, "--quick")

    assert done.returncode == 1
    assert "The demo stopped" in done.stdout


def stages(home: Path) -> dict[tuple[str, int], str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        rows = connection.execute("SELECT name, version, current_stage FROM model_versions")
        return {(name, version): stage for name, version, stage in rows}


def locked(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        rows = connection.execute("SELECT experiment_name FROM gov_experiment_lock ORDER BY event")
        return [name for (name,) in rows]


def unfinished(home: Path) -> int:
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM runs WHERE status != 'FINISHED'").fetchone()
    return int(count)
