"""How gates word their outcome, and the rule on the origin of evidence that they share."""

import math
from collections.abc import Sequence

from intelligentscan.domain.policy import GateName
from intelligentscan.domain.registry import GateResult
from intelligentscan.domain.review import STRENGTH, Origin
from intelligentscan.domain.text import untrusted
from intelligentscan.gates.interface import Evidence, Rules

MEASURED: Origin = "measured by us"
NO_ORIGIN = ""
"""In place of an origin where there is no evidence."""

_SHOWN = 3
_MAX_NAME = 80


def passed(gate: GateName, detail: str, origin: Origin = MEASURED) -> GateResult:
    """Return that a gate passes."""
    return GateResult(gate=gate, outcome="pass", detail=detail, origin=origin)


def failed(gate: GateName, detail: str, origin: str = MEASURED) -> GateResult:
    """Return that a gate fails; the detail says why, and which call would satisfy it."""
    return GateResult(gate=gate, outcome="fail", detail=detail, origin=origin)


def missing(gate: GateName, detail: str) -> GateResult:
    """Return that a gate fails because there is no evidence."""
    return failed(gate, detail, NO_ORIGIN)


def does_not_apply(gate: GateName, detail: str) -> GateResult:
    """Return that a gate has nothing to ask."""
    return GateResult(gate=gate, outcome="not_applicable", detail=detail, origin=NO_ORIGIN)


def too_weak(gate: GateName, origin: Origin, rules: Rules, what: str) -> GateResult | None:
    """Return the failure of evidence whose origin is weaker than the policy asks; None if it is strong enough.

    Args:
        gate: the gate.
        origin: who says so.
        rules: what the policy asks.
        what: the evidence, in the plural.
    """
    asked = rules.settings.origin
    if STRENGTH[origin] >= STRENGTH[asked]:
        return None
    return failed(
        gate,
        f"{what} are {origin}, the policy asks for '{asked}'; where nothing gives that, an administrator lowers it "
        "in the policy and runs 'intelligentscan policy activate FILE --reason …'",
        origin,
    )


def version_of(evidence: Evidence) -> str:
    """Return the arguments that name the version in a call."""
    return f"name='{untrusted(evidence.name, _MAX_NAME)}' version={evidence.version}"


def another_run(evidence: Evidence, what: str, **arguments: str) -> str:
    """Return the calls that bring another run in this one's place.

    Args:
        evidence: the facts about the version.
        what: the run that is needed.
        arguments: what its registration must say.
    """
    given = "".join(f" {name}={value}" for name, value in arguments.items())
    name = untrusted(evidence.name, _MAX_NAME)
    return f"log {what} with log_run, then register that with register_model name='{name}'{given}"


def shortened(texts: Sequence[str]) -> str:
    """Return the first of several texts, and how many more there are."""
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return f"{', '.join(texts[:_SHOWN])}{more}"


def finite(value: float | None) -> bool:
    """Tell whether a number is there and can be compared."""
    return value is not None and math.isfinite(value)
