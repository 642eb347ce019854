"""Sketch of a file: short hashes of its lines, kept with a scan so that later ones can compare it without the source.

A hash of a line that holds a password would let anyone who guesses it confirm the guess. So lines are hashed without
the contents of their literals, and lines that speak of passwords, keys or tokens without anything that follows the
name. Two files that differ only in those count as equal here.
"""

import base64
import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

SKETCH_VERSION = "1"
MAX_LINES = 20_000
"""Of longer files only this many lines from the top are kept."""
_BYTES = 3
_LITERAL = re.compile(r"\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?|`(?:\\.|[^`\\])*`?")
_HINTS = ("pass", "pwd", "secret", "credential", "key", "token", "auth")
_HINT = re.compile("|".join(_HINTS), re.IGNORECASE)
_VALUE = re.compile(r"[=:].*\Z", re.DOTALL)


def skeleton(line: str) -> str:
    """Return what of a line may be hashed: no white space, no literals, no values of names that sound secret."""
    shown = line[:2_000]
    if '"' in shown or "'" in shown or "`" in shown:
        shown = _LITERAL.sub("''", shown)
    if _is_hinting(shown):
        shown = _VALUE.sub("=", shown)
    return "".join(shown.split())


def _is_hinting(text: str) -> bool:
    if not text.isascii():
        return _HINT.search(text) is not None
    lowered = text.lower()  # every line of a file comes by here, and this is ten times as fast as the pattern
    return any(hint in lowered for hint in _HINTS)


def line_hash(text: str) -> int:
    """Return the short hash of a skeleton; an empty one has the hash 0."""
    return int.from_bytes(_line_bytes(text))


def _line_bytes(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=_BYTES).digest() if text else bytes(_BYTES)


@dataclass(frozen=True)
class FileSketch:
    """One version of one file.

    Attributes:
        digest: of all its lines, as sketches see them; equal for files that differ only in white space and literals.
        encoded: the hashes of its lines, three bytes each, in base64.
    """

    digest: str
    encoded: str

    @staticmethod
    def of(skeletons: Sequence[str]) -> "FileSketch":
        """Return the sketch of a file, given the skeletons of all its lines."""
        digest = hashlib.sha256("\n".join(text for text in skeletons if text).encode("utf-8", "replace"))
        hashes = b"".join([_line_bytes(text) for text in skeletons[:MAX_LINES]])
        return FileSketch(digest.hexdigest()[:32], base64.b64encode(hashes).decode())

    @cached_property
    def lines(self) -> tuple[int, ...]:
        """The hashes of its lines; an unreadable encoding has none."""
        try:
            data = base64.b64decode(self.encoded, validate=True)
        except (binascii.Error, ValueError):
            return ()
        return tuple(int.from_bytes(data[i : i + _BYTES]) for i in range(0, len(data), _BYTES))

    @cached_property
    def counts(self) -> Counter[int]:
        """How often each line occurs; empty lines do not count."""
        return Counter(line for line in self.lines if line)

    def similarity(self, other: "FileSketch") -> float:
        """Return the share of lines that both have, from 0 to 1, whatever their order."""
        total = self.counts.total() + other.counts.total()
        return 2 * (self.counts & other.counts).total() / total if total else 0.0


def bounded(sketches: Iterable[tuple[str, FileSketch]], most_lines: int) -> dict[str, FileSketch]:
    """Return the sketches by path, of the first ones up to a total of lines; the rest keeps only its digest."""
    kept: dict[str, FileSketch] = {}
    left = most_lines
    for path, sketch in sketches:
        left -= len(sketch.encoded) // 4
        kept[path] = sketch if left >= 0 else FileSketch(sketch.digest, "")
    return kept
