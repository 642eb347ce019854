"""What comes with a request for review, checked: texts or named values for the five criteria."""

import math
from collections.abc import Mapping
from typing import Any

from intelligentscan.domain.errors import InvalidArgument, TooLarge
from intelligentscan.domain.review import CRITERIA, Criterion
from intelligentscan.domain.text import untrusted

MAX_TEXT = 4_000
_MAX_VALUES = 20
_MAX_KEY = 60
_MAX_VALUE = 1_000
_SHAPE = "give evidence as {criterion: text} or {criterion: {key: text or number}}."


def checked_criterion(text: str) -> Criterion:
    """Return a criterion, in any case of letters.

    Raises:
        InvalidArgument: it is none of the five.
    """
    wanted = text.strip().lower()
    if wanted not in CRITERIA:
        raise InvalidArgument(
            f"There is no criterion '{untrusted(text, 40)}'.", next=f"name one of {', '.join(CRITERIA)}."
        )
    return wanted


def checked_evidence(evidence: Mapping[str, object] | None) -> dict[Criterion, object]:
    """Return what somebody gives as evidence, bounded and escaped; an empty text takes back what was given before.

    Raises:
        InvalidArgument: a criterion is unknown, or a value is neither text nor named values.
        TooLarge: a text is too long, or there are too many values.
    """
    if evidence is not None and not isinstance(evidence, Mapping):
        raise InvalidArgument("The evidence is no object.", next=_SHAPE)
    return {checked_criterion(str(key)): _value(str(key), value) for key, value in (evidence or {}).items()}


def _value(criterion: str, value: object) -> object:
    shown = untrusted(criterion, 40)
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise _too_large(shown, f"has {len(value):,} characters; the most is {MAX_TEXT:,}")
        return untrusted(value.strip(), MAX_TEXT)
    if not isinstance(value, dict):
        raise InvalidArgument(f"The evidence for {shown} is neither text nor named values.", next=_SHAPE)
    if len(value) > _MAX_VALUES:
        raise _too_large(shown, f"has {len(value):,} values; the most is {_MAX_VALUES}")
    return {untrusted(str(key), _MAX_KEY): _scalar(shown, each) for key, each in sorted(value.items(), key=str)}


def _scalar(criterion: str, value: Any) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        if len(value) > _MAX_VALUE:
            raise _too_large(criterion, f"has a text of {len(value):,} characters; the most is {_MAX_VALUE:,}")
        return untrusted(value, _MAX_VALUE)
    raise InvalidArgument(f"The evidence for {criterion} holds nested or very large values.", next=_SHAPE)


def _too_large(criterion: str, what: str) -> TooLarge:
    return TooLarge(
        f"The evidence for {criterion} {what}.",
        next="log the long text as an artifact of a run, and name it here.",
    )
