"""Fingerprint: the identity of a finding that survives inserted lines, re-indentation and other line ends.

It is the SHA-256 of the canonical rule, the path, the line's text without blanks, and which of the
equal ones it is, counted from the top of the file. The text is taken after redaction: the hash of a
line with a password in it would let anyone who guesses the password confirm the guess.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from intelligentscan._digest import sha256_hex

FINGERPRINT_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What identifies one finding: where it is, under which rule, and the redacted text of its line."""

    engine: str
    rule: str
    path: str | None
    text: str
    line: int | None = None
    column: int | None = None


def normalised(text: str) -> str:
    """Return the text without any white space; comments stay, because they can switch a rule off."""
    return "".join(text.split())


def fingerprints(sightings: Sequence[Sighting]) -> list[str]:
    """Return one fingerprint per sighting, in the given order; the order given does not change their values.

    Occurrences are counted per engine, so that adding a second engine leaves the first one's identities alone.
    """
    groups: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for index, sighting in enumerate(sightings):
        key = (sighting.engine, sighting.rule, sighting.path or "", normalised(sighting.text))
        groups[key].append(index)
    result = [""] * len(sightings)
    for (_, rule, path, text), members in groups.items():
        members.sort(key=lambda i: (sightings[i].line or 0, sightings[i].column or 0))
        for occurrence, index in enumerate(members):
            result[index] = _digest(rule, path, text, str(occurrence))
    return result


def _digest(*parts: str) -> str:
    """Hash the parts so that no two lists of parts give the same bytes: each is preceded by its length."""
    pieces = [f"intelligentscan/fingerprint/{FINGERPRINT_VERSION}".encode()]
    for part in parts:
        data = part.encode("utf-8", "replace")
        pieces.append(b"%d:" % len(data) + data)
    return sha256_hex(b"\n".join(pieces))
