"""The README's first command, as a newcomer runs it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest


@pytest.mark.parametrize(("options", "tables"), [(["--quick"], 1), ([], 2)])
def test_the_demo_holds_every_step_and_leaves_a_store(tmp_path: Path, options: list[str], tables: int) -> None:
    home = tmp_path / "home"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "COLUMNS": "120"}

    done = subprocess.run(
        [sys.executable, "-m", "intelligentscan", "demo", "--home", str(home), *options],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "steps held" in done.stdout
    assert "refused with VERSION_NOT_FOUND" in done.stdout
    assert done.stdout.count("BEST") >= tables
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        stages = {row[0] for row in connection.execute("SELECT current_stage FROM model_versions")}
        running = connection.execute("SELECT count(*) FROM runs WHERE status != 'FINISHED'").fetchone()[0]
    assert stages == {"Production"}
    assert running == 0


def test_the_demo_fails_when_a_step_does_not_hold(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_text("this is no database")

    done = subprocess.run(
        [sys.executable, "-m", "intelligentscan", "demo", "--home", str(home), "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "The demo stopped" in done.stdout
