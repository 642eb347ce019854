"""What a gate is: a pure check of evidence that passes, fails, or does not apply."""

from dataclasses import dataclass
from typing import Protocol

from intelligentscan.domain.registry import GateResult, Stage


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts on which a promotion is decided.

    Attributes:
        name: the registered model.
        version: the version to promote.
        stage: where it is to go.
        sealed: whether it was registered through the service identity, its bytes in the archive.
        legacy: whether it was there before the model was governed.
        verified: whether the sealed copy was hashed again after its registration.
        quarantined: whether it was ever found changed.
        drift: what no longer matches the record, in short texts.
    """

    name: str
    version: int
    stage: Stage
    sealed: bool
    legacy: bool
    verified: bool
    quarantined: bool
    drift: tuple[str, ...]


class Gate(Protocol):
    """One promotion check."""

    name: str

    def check(self, evidence: Evidence) -> GateResult:
        """Return the outcome; missing evidence fails."""
        ...
