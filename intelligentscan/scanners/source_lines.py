"""Lines of the scanned sources, read beneath the root without following links, cached and bounded."""

import os
import re
import stat
from collections import OrderedDict
from pathlib import Path

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_CACHED_FILES = 32
_LINE_END = re.compile(r"\r\n|\r|\n")
_BASE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class SourceLines:
    """Hands out single lines of files below one root; what cannot be read is simply not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: OrderedDict[str, list[str] | None] = OrderedDict()
        self._known: dict[str, bool] = {}

    def line(self, path: str, number: int) -> str | None:
        """Return line `number` (from 1) of the file without its line end, or None."""
        lines = self._lines(path)
        if lines is None or not 1 <= number <= len(lines):
            return None
        return lines[number - 1]

    def lines(self, path: str, first: int, last: int) -> list[str]:
        """Return the lines from `first` to `last`, both from 1 and included; fewer if the file ends before."""
        found = self._lines(path)
        return [] if found is None or first < 1 else found[first - 1 : last]

    def has(self, path: str) -> bool:
        """Tell whether the path names a regular file below the root."""
        known = self._known.get(path)
        if known is None:
            descriptor = self._open(path)
            known = descriptor is not None
            if descriptor is not None:
                os.close(descriptor)
            self._known[path] = known
        return known

    def _lines(self, path: str) -> list[str] | None:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        lines = self._read(path)
        self._files[path] = lines
        if len(self._files) > MAX_CACHED_FILES:
            self._files.popitem(last=False)
        return lines

    def _read(self, path: str) -> list[str] | None:
        descriptor = self._open(path)
        if descriptor is None:
            return None
        with open(descriptor, "rb") as stream:  # noqa: PTH123  (a descriptor, not a path)
            if os.fstat(descriptor).st_size > MAX_FILE_BYTES:
                return None
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            return None
        return _LINE_END.split(data.decode("utf-8-sig", "replace"))

    def _open(self, path: str) -> int | None:
        parts = path.split("/")
        if not path or "\x00" in path or any(part in ("", ".", "..") for part in parts):
            return None
        try:
            folder = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            for part in parts[:-1]:
                inner = os.open(part, _BASE_FLAGS | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            descriptor = os.open(parts[-1], _BASE_FLAGS, dir_fd=folder)
        except (OSError, ValueError):
            return None
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        return descriptor
