"""What the archive says about files: the manifest that names their bytes, and the problems that a check finds.

A manifest is data that may come back from a database, so it is read strictly: its paths are used to make files.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import rfc8785

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import StoreBroken
from intelligentscan.domain.text import untrusted

MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_DEPTH = 64
MAX_PROBLEMS = 200
DAMAGED_NEXT = "call verify_integrity to see what it concerns, then restore the archive's folder from a backup."

ProblemCode = Literal[
    "CHANGED", "ADDED", "MISSING", "LINK", "SPECIAL", "MODE", "META", "BYTECODE", "TOUCHED", "UNREADABLE", "MORE"
]
"""What a check can find.

CHANGED: other bytes. ADDED, MISSING: not expected, not there. LINK: a symbolic link, or a hard link to something that
is not the blob. SPECIAL: a pipe, socket or device, or a folder in place of a file. MODE: not protected against writing.
META: MLflow's note about the registered model names another one. BYTECODE: compiled Python that was not sealed.
TOUCHED: only a file's times differ and its bytes were never hashed. UNREADABLE: cannot be told. MORE: the list was cut.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """One difference between what was sealed and what is there.

    Attributes:
        code: kind of the difference.
        path: where, as text that is safe to show; '.' is the folder itself.
        message: the fact in one sentence.
    """

    code: ProblemCode
    path: str
    message: str


class Problems:
    """Collects problems up to a bound, so that a flooded folder cannot flood an answer."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self.full = False

    def add(self, code: ProblemCode, path: str, message: str) -> None:
        """Note a problem at a path, which need not be safe to show."""
        if len(self._found) < MAX_PROBLEMS:
            self._found.append(Problem(code, untrusted(path), message))
        elif not self.full:
            self.full = True
            self._found.append(
                Problem("MORE", ".", f"There are more than {MAX_PROBLEMS} problems; the rest is left out.")
            )

    def all(self) -> tuple[Problem, ...]:
        """Return them in the order of their paths; the note that there are more comes last."""
        return tuple(sorted(self._found, key=lambda p: (p.code == "MORE", p.path, p.code)))


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file: its path below the folder with forward slashes, its size in bytes and the SHA-256 of its bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of one folder, sorted by path.

    Raises:
        StoreBroken: the entries are not sorted, or name something that no folder can hold.
    """

    entries: tuple[ManifestEntry, ...]

    def __post_init__(self) -> None:
        known: set[str] = set()
        before = ""
        for entry in self.entries:
            if not (is_plain_path(entry.path) and entry.path > before and is_digest(entry.sha256) and entry.size >= 0):
                raise _broken(entry.path)
            known.add(before := entry.path)
        for path in known:
            if any(folder in known for folder in folders_of(path)):
                raise _broken(path)

    @classmethod
    def from_document(cls, document: bytes) -> "Manifest":
        """Read a manifest back.

        Raises:
            StoreBroken: it is not a manifest in canonical form.
        """
        try:
            rows: Any = json.loads(document)
            entries = tuple(ManifestEntry(row["path"], row["size"], row["sha256"]) for row in rows)
            right = all(type(e.path) is str and type(e.size) is int and type(e.sha256) is str for e in entries)
        except (ValueError, TypeError, KeyError, RecursionError) as exc:
            raise _broken("") from exc
        if not right:
            raise _broken("")
        manifest = cls(entries)
        if manifest.document != document:
            raise _broken("")
        return manifest

    @cached_property
    def document(self) -> bytes:
        """The canonical JSON of the entries (RFC 8785)."""
        return rfc8785.dumps([{"path": e.path, "size": e.size, "sha256": e.sha256} for e in self.entries])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the document."""
        return sha256_hex(self.document)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries)


def is_digest(text: str) -> bool:
    """Return whether the text is a SHA-256 in lower-case hexadecimal digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def is_plain_path(path: str) -> bool:
    """Return whether this is a relative path that leads downwards only, within the archive's bounds."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return False
    parts = path.split("/")
    return (
        size <= MAX_PATH_BYTES
        and len(parts) <= MAX_DEPTH
        and "\0" not in path
        and all(part not in {"", ".", ".."} and len(part.encode()) <= MAX_NAME_BYTES for part in parts)
    )


def folders_of(path: str) -> Iterator[str]:
    """Yield the folders that a path goes through, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _broken(path: str) -> StoreBroken:
    return StoreBroken(
        "A manifest of the archive is not one that the archive wrote.",
        next=DAMAGED_NEXT,
        details={"path": untrusted(path)},
    )
