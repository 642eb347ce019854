"""Lines of the scanned sources, read beneath the root without following links, cached and bounded.

Which file is read is the choice of a SARIF document, so credentials and the inside of `.git` are never opened.
"""

import codecs
import os
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from intelligentscan._credentials import is_credential
from intelligentscan._paths import open_beneath
from intelligentscan.domain.errors import WrongPathKind

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_CACHED_BYTES = 64 * 1024 * 1024
MAX_READ_BYTES = 2 * 1024 * 1024 * 1024
"""A document may name the same large files over and over; beyond this much, no more lines are read."""
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class _File:
    lines: list[str]
    size: int
    marked: bool = False


class SourceLines:
    """Hands out lines of files below one root; what cannot be read is simply not there."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._cached = 0
        self._left = MAX_READ_BYTES
        self._known: dict[str, bool] = {}

    def line(self, path: str, number: int) -> str | None:
        """Return line `number` (from 1) of the file without its line end, or None."""
        lines = self._lines(path)
        return lines[number - 1] if 1 <= number <= len(lines) else None

    def lines(self, path: str, first: int, last: int) -> list[str]:
        """Return the lines from `first` to `last`, both from 1 and included; fewer if the file ends before."""
        return self._lines(path)[first - 1 : last] if first >= 1 else []

    def text(self, path: str) -> str | None:
        """Return the file's text with plain line feeds and its byte order mark; None if it cannot be read."""
        lines = self._lines(path)
        return ("\ufeff" if self._files[path].marked else "") + "\n".join(lines) if lines else None

    def has(self, path: str) -> bool:
        """Tell whether the path names a regular file below the root that may be read."""
        known = self._known.get(path)
        if known is None:
            descriptor = self._open(path)
            known = self._known[path] = descriptor is not None
            if descriptor is not None:
                os.close(descriptor)
        return known

    def _lines(self, path: str) -> list[str]:
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = self._read(path)
            self._cached += file.size
            while self._cached > MAX_CACHED_BYTES and len(self._files) > 1:
                self._cached -= self._files.popitem(last=False)[1].size
        else:
            self._files.move_to_end(path)
        return file.lines

    def _read(self, path: str) -> "_File":
        descriptor = self._open(path) if self._left > 0 else None
        if descriptor is None:
            return _File([], len(path))
        with os.fdopen(descriptor, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        self._left -= len(data)
        if len(data) > MAX_FILE_BYTES:
            return _File([], len(path))
        lines = _LINE_END.split(data.decode("utf-8-sig", "replace"))
        return _File(lines, len(path) + len(data), marked=data.startswith(codecs.BOM_UTF8))

    def _open(self, path: str) -> int | None:
        parts = PurePosixPath(path)
        if is_credential(parts) or ".git" in (part.lower() for part in parts.parts):
            return None
        try:
            return open_beneath(self._root, path)
        except (OSError, ValueError, WrongPathKind):
            return None
