"""Opaque cursors: the place to go on from, bound to the call that made them."""

import base64
import binascii
import json

import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import InvalidArgument, InvalidCursor

MAX_LIMIT = 100
_MAX_CURSOR = 4_000


def encode(place: str | None, *call: object) -> str | None:
    """Return a cursor to this place in the answer to this call; None for no place."""
    if place is None:
        return None
    return base64.urlsafe_b64encode(json.dumps([_mark(call), place]).encode()).decode().rstrip("=")


def decode(cursor: str | None, *call: object) -> str | None:
    """Return the place that a cursor names.

    Raises:
        InvalidCursor: it is damaged, or was made by another call.
    """
    if cursor is None:
        return None
    try:
        if len(cursor) > _MAX_CURSOR:
            raise ValueError("too long")
        mark, place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if mark == _mark(call) and isinstance(place, str):
            return place
    except (ValueError, TypeError, binascii.Error, RecursionError) as exc:
        raise _wrong() from exc
    raise _wrong()


def checked_limit(limit: int) -> int:
    """Return the limit if it is 1 to 100."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidArgument(
            f"limit is {limit}; it must be 1 to {MAX_LIMIT}.", next=f"call again with limit={MAX_LIMIT}."
        )
    return limit


def _mark(call: tuple[object, ...]) -> str:
    return sha256_hex(rfc8785.dumps([str(part) for part in call]))[:12]


def _wrong() -> InvalidCursor:
    return InvalidCursor(
        "This cursor does not belong to this call.",
        next="repeat the arguments of the call that returned it, or call without cursor.",
    )
