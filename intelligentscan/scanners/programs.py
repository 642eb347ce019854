"""Finding the programs of engines: where this environment keeps its own, on PATH, or named by whoever set it up.

A configuration may name a program or an interpreter, but it is data that can come from anywhere, also from the target.
So it can only choose among the programs that the setting INTELLIGENTSCAN_ENGINE_PROGRAMS lists.
"""

import os
import sysconfig
from pathlib import Path

from intelligentscan._process import find_executable
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.domain.text import untrusted
from intelligentscan.settings import Settings

SETTING = "INTELLIGENTSCAN_ENGINE_PROGRAMS"


def find_program(name: str, *, avoid: Path | None = None) -> Path | None:
    """Return the absolute path of an engine's program, or None if it is not installed.

    Args:
        name: the plain name of the program, such as 'hadolint'.
        avoid: the scanned folder; a program that PATH finds in it is not taken.

    Raises:
        InvalidArgument: a setting is wrong.
    """
    for named in _named():
        if named.name == name:
            return named
    own = Path(sysconfig.get_path("scripts"), name)
    if os.access(own, os.X_OK) and own.is_file():
        return own
    return find_executable(name, avoid=avoid)


def chosen_program(path: str, *, engine: str) -> Path:
    """Return the program that a configuration names, if the installation allows it.

    Raises:
        InvalidArgument: it is not one of the allowed programs, or is not there.
    """
    chosen = next((named for named in _named() if str(named) == path), None)
    if chosen is None:
        raise InvalidArgument(
            f"The configuration wants '{untrusted(path, 200)}' for {engine}, which this installation does not allow.",
            next=f"add its absolute path to {SETTING} (a list separated by '{os.pathsep}'), or leave it out.",
        )
    if not os.access(chosen, os.X_OK) or not chosen.is_file():
        raise InvalidArgument(
            f"The program '{untrusted(path, 200)}' for {engine} is not there, or not executable.",
            next=f"correct {SETTING} and the configuration.",
        )
    return chosen


def _named() -> tuple[Path, ...]:
    return Settings.load().engine_programs
