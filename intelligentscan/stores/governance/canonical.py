"""Canonical JSON (RFC 8785): the one form of a value that is hashed and signed, and the check that a text is in it."""

import json
from typing import Any, NoReturn

import rfc8785

from intelligentscan.domain.errors import InvalidArgument

MAX_DEPTH = 64
"""Deepest nesting; both this writer and any reader's parser stay clear of their recursion limits."""
_SAFE = 2**53 - 1
_HUGE = "An integer lies beyond what JSON keeps exactly (2**53)."
_NEXT = "log such a value as text, or leave it out."


class NotCanonical(ValueError):
    """A text is not canonical JSON."""


class _NeedsCare(Exception):
    """A number that the fast check does not judge."""


def canonical(value: object) -> bytes:
    """Return the canonical form of a JSON value.

    Raises:
        InvalidArgument: the value has no such form: NaN or infinity, an integer beyond 2**53, half a character,
            a key that is not text, a type that is not JSON's, or deeper nesting than 64.
    """
    if _too_deep(value, MAX_DEPTH):
        raise InvalidArgument(f"A value is nested deeper than {MAX_DEPTH} levels.", next="log it flatter.")
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.FloatDomainError as exc:
        raise InvalidArgument("A number is not finite (NaN or infinity).", next=_NEXT) from exc
    except UnicodeEncodeError as exc:
        raise InvalidArgument("A key holds half a character (a lone surrogate).", next=_NEXT) from exc
    except rfc8785.IntegerDomainError as exc:
        raise InvalidArgument(_HUGE, next=_NEXT) from exc
    except rfc8785.CanonicalizationError as exc:
        if isinstance(exc.__cause__, UnicodeEncodeError):
            raise InvalidArgument("A text holds half a character (a lone surrogate).", next=_NEXT) from exc
        raise InvalidArgument(f"A value cannot be kept as JSON: {str(exc)[:100]}.", next=_NEXT) from exc
    except ValueError as exc:  # an integer that Python itself does not write out
        raise InvalidArgument(_HUGE, next=_NEXT) from exc


def parse_canonical(text: str) -> object:
    """Return the value of a text that is canonical JSON.

    Raises:
        NotCanonical: the text is not JSON, or another way to write the same value.
    """
    try:
        value: object = _FAST.decode(text)
        if text.isascii() and _ENCODER.encode(value) == text:
            return value
    except _NeedsCare:
        pass
    except (ValueError, RecursionError) as exc:
        raise NotCanonical("the text is not JSON") from exc
    try:
        value = _CAREFUL.decode(text)
        if rfc8785.dumps(value) == text.encode():  # type: ignore[arg-type]
            return value
    except (ValueError, RecursionError) as exc:
        raise NotCanonical("the text is not JSON that has a canonical form") from exc
    raise NotCanonical("the text is JSON, but not in canonical form")


def canonical_object(text: str) -> dict[str, Any]:
    """Return the object of a text that is canonical JSON.

    Raises:
        NotCanonical: the text is not that.
    """
    value = parse_canonical(text)
    if not isinstance(value, dict):
        raise NotCanonical("the text is not a JSON object")
    return value


def quoted(text: str) -> str:
    """Return a text as a canonical JSON string; half a character passes, and fails when encoded."""
    return json.encoder.encode_basestring(text)


def _too_deep(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_too_deep(each, levels - 1) for each in value.values())
    if isinstance(value, list | tuple):
        return levels == 0 or any(_too_deep(each, levels - 1) for each in value)
    return False


def _care(_: str) -> NoReturn:
    raise _NeedsCare


def _small_integer(digits: str) -> int:
    if len(digits) > 15:
        raise _NeedsCare
    return int(digits)


def _integer(digits: str) -> int | float:
    # RFC 8785 writes floats up to 1e21 without an exponent; read as integers they would be beyond the safe range.
    exact = int(digits) if len(digits) <= 17 else None
    return exact if exact is not None and abs(exact) <= _SAFE else float(digits)


def _not_a_number(name: str) -> NoReturn:
    raise ValueError(name)


# For values without floats and for ASCII, the standard encoder writes RFC 8785's form, some twenty times faster.
_FAST = json.JSONDecoder(parse_float=_care, parse_int=_small_integer, parse_constant=_not_a_number)
_CAREFUL = json.JSONDecoder(parse_int=_integer, parse_constant=_not_a_number)
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
