"""How bad a finding is: our five bands, and where a band came from."""

from typing import Literal, get_args

Severity = Literal["critical", "high", "medium", "low", "info"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


def rank(severity: Severity) -> int:
    """Return 0 for critical up to 4 for info, to sort the worst first."""
    return SEVERITIES.index(severity)


def cvss_band(score: float) -> Severity:
    """Return the band of a CVSS v3 base score (FIRST, CVSS v3.1 specification, section 5)."""
    if score >= 9.0:
        return "critical"
    if score >= 7.0:
        return "high"
    if score >= 4.0:
        return "medium"
    return "low" if score > 0 else "info"
