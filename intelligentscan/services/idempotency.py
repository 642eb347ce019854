"""Idempotency keys: unique per person, tool and experiment, bound to the call's other arguments."""

import json

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import InvalidArgument
from intelligentscan.stores.interface import Idempotency

MAX_KEY = 200


def idempotency(
    key: str | None, *, person: str, tool: str, experiment_id: str, arguments: dict[str, object]
) -> Idempotency | None:
    """Return the hashed key and the digest of the arguments, or None without a key.

    Raises:
        InvalidArgument: the key is empty or longer than 200 characters.
    """
    if key is None:
        return None
    if not key.strip() or len(key) > MAX_KEY:
        raise InvalidArgument(
            f"An idempotency_key has 1 to {MAX_KEY} characters.", next="use a UUID made once per intended write."
        )
    return Idempotency(key=_digest([person, tool, experiment_id, key]), arguments=_digest(arguments))


def _digest(value: object) -> str:
    return sha256_hex(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())
