"""Engines that are used when they are installed: found by their program, never imported."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from intelligentscan.domain.errors import EngineMissing
from intelligentscan.scanners.batches import processors
from intelligentscan.scanners.child_engine import ChildEngine
from intelligentscan.scanners.config import EngineConfig
from intelligentscan.scanners.interface import EngineFacts
from intelligentscan.scanners.programs import SETTING, chosen_program, find_program

_VERSION = re.compile(r"\d+(?:\.\d+)+[0-9A-Za-z.+\-]*")


def extra(name: str) -> str:
    """Return how to install an engine that resolves together with us."""
    return f"pip install 'intelligentscan[{name}]'"


def own_environment(package: str) -> str:
    """Return how to install an engine that needs an environment of its own."""
    return f"uv tool install {package} (an environment of its own; {SETTING} may name its program)"


class OptionalEngine(ChildEngine):
    """An engine found when installed.

    Attributes:
        command: the plain name of its program.
    """

    optional: ClassVar[bool] = True
    command: ClassVar[str]

    def parallel(self) -> int:
        """Return how many calls may run at once: each uses one processor."""
        return processors()

    def program(self, options: EngineConfig | None = None, avoid: Path | None = None) -> list[str]:
        """Return the program that the options name, else the installed one.

        Raises:
            EngineMissing: it is not installed.
            InvalidArgument: the installation does not allow the named program.
        """
        if options is not None and options.executable is not None:
            return [str(chosen_program(options.executable, engine=self.name))]
        found = find_program(self.command, avoid=avoid)
        if found is None:
            raise EngineMissing(
                f"The engine {self.name} is not installed.",
                next=f"{self.install}, or leave {self.name} out of engines.",
            )
        return [str(found)]

    async def read_facts(self, program: Sequence[str], workspace: Path) -> EngineFacts:
        """Ask the program for its version.

        Raises:
            ScanFailed: it does not answer.
        """
        told = (await self.answer(program, ["--version"], workspace)).decode("utf-8", "replace")
        version = _VERSION.search(told)
        if version is None:
            raise self.not_started("its answer was not understood")
        return EngineFacts(version[0])
