"""The engines that are built in; a new one is a file beside this one and a line here and in `KNOWN_ENGINES`."""

from intelligentscan.scanners.bandit import Bandit
from intelligentscan.scanners.interface import Engine
from intelligentscan.scanners.ruff import Ruff

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (Bandit(), Ruff())}
