"""Level and severity of one SARIF result: what the producer says, in the order in which it deserves belief."""

import math
from typing import Any

from intelligentscan.domain.severity import Severity, cvss_band
from intelligentscan.scanners.interface import Sarif
from intelligentscan.scanners.sarif_rules import RuleFacts, as_list, as_object
from intelligentscan.scanners.severity_map import Rating, engine_rating, raised

LEVELS = ("error", "warning", "note", "none")
_BY_LEVEL: dict[str, Severity] = {"error": "high", "warning": "medium", "note": "low", "none": "info"}
WORDS: dict[str, Severity] = {
    "critical": "critical",
    "blocker": "critical",
    "high": "high",
    "error": "high",
    "major": "high",
    "important": "high",
    "medium": "medium",
    "moderate": "medium",
    "warning": "medium",
    "low": "low",
    "minor": "low",
    "note": "low",
    "info": "info",
    "informational": "info",
    "information": "info",
    "negligible": "info",
    "none": "info",
    "unknown": "info",
}
_SCORE, _PROPERTY = "security-severity", "severity property"
_GIVEN = frozenset({_SCORE, _PROPERTY})
_TAG_WORDS = frozenset({"CRITICAL", "HIGH", "MEDIUM", "LOW"})


def severity_word(value: Any) -> Severity | None:
    """Return the severity a word stands for, in any case, or None if it is none we know."""
    return WORDS.get(value.strip().lower()) if isinstance(value, str) else None


def level_of(result: Sarif, facts: RuleFacts, override: str | None) -> str:
    """Return the SARIF level: the result's own, the command line's, the rule's default, else `warning`."""
    for level in (result.get("level"), override, facts.level):
        if isinstance(level, str) and level.lower() in LEVELS:
            return level.lower()
    return "warning"


def rate(result: Sarif, facts: RuleFacts, engine: str, message: str, override: str | None) -> Rating:
    """Return the severity of a result and where it came from; a score or word given for it is never raised."""
    rating = _rate(result, facts, engine, message, override)
    return rating if rating.source in _GIVEN else raised(engine, facts.id, message, rating)


def _rate(result: Sarif, facts: RuleFacts, engine: str, message: str, override: str | None) -> Rating:
    own = as_object(result.get("properties"))
    of_rule = as_object(facts.descriptor.get("properties"))
    for properties in (own, of_rule):
        if (band := _security_severity(properties.get("security-severity"))) is not None:
            return Rating(band, _SCORE)
    if engine == "bandit" and (band := severity_word(own.get("issue_severity"))) is not None:
        return Rating(band, f"issue_severity {own['issue_severity'][:20].upper()}")
    for properties in (own, of_rule):
        if (band := severity_word(properties.get("severity"))) is not None:
            return Rating(band, _PROPERTY)
    if (known := engine_rating(engine, facts.id, message)) is not None:
        return known
    for tag in facts.tags:
        if tag in _TAG_WORDS:
            return Rating(WORDS[tag.lower()], "severity tag")
    if (band := _unusual_level(result.get("level"))) is not None:
        return Rating(band, "level that SARIF does not know")
    level = level_of(result, facts, override)
    return Rating(_BY_LEVEL[level], f"level {level}")


def _unusual_level(level: Any) -> Severity | None:
    if isinstance(level, str) and level.lower() not in LEVELS:
        return severity_word(level)
    return None


def _security_severity(value: Any) -> Severity | None:
    """Return the CVSS band of the property; some tools write a word where a number is due."""
    if isinstance(value, bool) or value is None or as_list(value):
        return None
    if (word := severity_word(value)) is not None:
        return word
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return cvss_band(score) if math.isfinite(score) and 0 <= score <= 10 else None
