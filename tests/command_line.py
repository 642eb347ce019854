"""The command line for tests: in this process, and as a real child."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from intelligentscan.cli.app import app

COMMAND = (sys.executable, "-m", "intelligentscan")


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What stdout holds, which must be one JSON document and nothing else."""
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """Commands on one INTELLIGENTSCAN_HOME, which the test has put into the environment."""

    home: Path

    def __call__(self, *arguments: str) -> Answer:
        """Run a command in this process."""
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Return the JSON document of a command that must end with this exit code."""
        answer = self(*arguments, "--json")
        assert answer.code == code, answer
        return answer.json


def child(arguments: Sequence[str], *, home: Path, cwd: Path | None = None, **env: str) -> Answer:
    """Run a command as a real child in an environment that holds nothing else."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env=child_environment(home, **env),
        cwd=cwd or home.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def child_environment(home: Path, **env: str) -> dict[str, str]:
    """Return the environment of such a child."""
    return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin", "INTELLIGENTSCAN_HOME": str(home), **env}
