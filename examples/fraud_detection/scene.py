# ruff: noqa: T201
"""What the story is told with: commands, fresh processes, Git, and lines on the screen."""

import contextlib
import io
import json
import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intelligentscan.cli.app import app


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
