"""The engines there are; a new one is a file beside this one and a line here and in `KNOWN_ENGINES`."""

from intelligentscan.scanners.ast_grep import AstGrep
from intelligentscan.scanners.bandit import Bandit
from intelligentscan.scanners.checkov import Checkov
from intelligentscan.scanners.detect_secrets import DetectSecrets
from intelligentscan.scanners.hadolint import Hadolint
from intelligentscan.scanners.interface import Engine
from intelligentscan.scanners.pip_audit import PipAudit
from intelligentscan.scanners.ruff import Ruff
from intelligentscan.scanners.semgrep import Semgrep
from intelligentscan.scanners.zizmor import Zizmor

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Bandit(), Ruff(), AstGrep(), Checkov(), DetectSecrets(), Hadolint(), PipAudit(), Semgrep(), Zizmor(),
    )
}  # fmt: skip
