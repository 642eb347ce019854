"""Private copies of the files to scan, under neutral names; engines see these and never the target itself.

So no configuration, module or link of the target can reach an engine, every engine sees the same bytes even if the
target changes meanwhile, and names with line breaks, leading dashes or broken encodings meet no argument parser.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from intelligentscan._digest import sha256_hex
from intelligentscan._paths import open_beneath
from intelligentscan.domain.errors import WrongPathKind
from intelligentscan.scanners.interface import TargetFile

MAX_FILE_BYTES = 10 * 1024 * 1024
"""Larger sources are generated; an engine would need minutes for one of them. They count as failed, not as clean."""

MAX_TOTAL_BYTES = 2 * 1024 * 1024 * 1024
_FILES_PER_FOLDER = 1000
_SILENCING = (b"nosec", b"noqa", b"ast-grep-ignore", b"hadolint", b"allowlist", b"whitelist")
_SILENCING_BEFORE_COLON = (b"ruff", b"flake8", b"zizmor")
_NAMED = re.compile(rb"(?:%b)\s*:" % b"|".join(_SILENCING_BEFORE_COLON))
_PLAIN_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,9}")
_COPY_NAME = re.compile(r"(?<![0-9])([0-9]{7})\.(?:d/[A-Za-z][A-Za-z.\-]{0,30}|[a-z][a-z0-9]{0,9})(?![A-Za-z0-9_])")
"""A copy is NUMBER.SUFFIX, or NUMBER.d/NAME for an engine that goes by the name of a file, such as Dockerfile."""


class Copier:
    """Copies files of one root into a private folder, up to a total size."""

    def __init__(self, root: int, folder: Path) -> None:
        """Args: root is the descriptor of the open root folder; folder is private and empty."""
        self._root = root
        self._folder = folder
        self._count = 0
        self._bytes = 0

    def copy(self, files: Sequence[TargetFile]) -> list[TargetFile]:
        """Return the files with their copies, or with the reason why there is none.

        Raises:
            OSError: the private folder cannot be written (the files of the target never raise).
        """
        return [self._copied(file) for file in files]

    def _copied(self, file: TargetFile) -> TargetFile:
        if not file.readable:
            return file
        try:
            data = self._read(file.path)
        except WrongPathKind:
            return _without_copy(file, "is no longer a regular file")
        except PermissionError:
            return _without_copy(file, "cannot be read by this user")
        except OSError as exc:
            return _without_copy(file, f"could not be read: {os.strerror(exc.errno or 0)}")
        if len(data) > MAX_FILE_BYTES:
            return replace(file, reason=f"larger than the limit of {MAX_FILE_BYTES // 2**20} MiB")
        if self._bytes + len(data) > MAX_TOTAL_BYTES:
            return replace(file, reason=f"beyond the limit of {MAX_TOTAL_BYTES // 2**30} GiB for one scan")
        self._bytes += len(data)
        return replace(
            file,
            size=len(data),
            copy=self._write(data, PurePosixPath(file.path).suffix.lower()),
            lines=data.count(b"\n") + (not data.endswith(b"\n") and bool(data)),
            suppressions=_may_silence(data),
            digest=sha256_hex(data),
        )

    def _read(self, path: str) -> bytes:
        with os.fdopen(open_beneath(self._root, path), "rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)

    def _write(self, data: bytes, suffix: str) -> Path:
        self._count += 1
        folder = self._folder / f"{self._count // _FILES_PER_FOLDER:04}"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{self._count:07}{_neutral(suffix)}"
        path.write_bytes(data)
        return path


def _may_silence(data: bytes) -> bool:
    """Tell whether a file has a word that silences some engine; plain searches, for every file pays for them."""
    lowered = data.lower()
    if any(word in lowered for word in _SILENCING):
        return True
    return any(word in lowered for word in _SILENCING_BEFORE_COLON) and _NAMED.search(lowered) is not None


def number_of(copy: Path) -> str:
    """Return the seven digits that name a copy."""
    return str(_COPY_NAME.findall(str(copy))[-1])


class CopyNames:
    """Leads from the name of a copy, as an engine writes it, back to the file of the target."""

    def __init__(self, files: Iterable[TargetFile]) -> None:
        self._files = {number_of(file.copy): file for file in files if file.copy is not None}

    def file(self, text: str) -> TargetFile | None:
        """Return the file whose copy the text names last, if it names one."""
        return next((file for _, file in reversed(list(self._named(text)))), None)

    def original(self, text: str) -> str:
        """Return the text with every copy's path replaced by that of its file."""
        parts: list[str] = []
        end = 0
        for match, file in self._named(text):
            start = max(text.rfind(c, end, match.start()) for c in " \t\n'\"(:") + 1
            parts += [text[end : max(start, end)], file.shown]
            end = match.end()
        return "".join([*parts, text[end:]])

    def _named(self, text: str) -> Iterator[tuple[re.Match[str], TargetFile]]:
        for match in _COPY_NAME.finditer(text):
            file = self._files.get(match[1])
            if file is not None:
                yield match, file


def _neutral(suffix: str) -> str:
    if suffix == ".pyw":
        return ".py"
    return suffix if _PLAIN_SUFFIX.fullmatch(suffix) else ".txt"


def _without_copy(file: TargetFile, reason: str) -> TargetFile:
    return replace(file, readable=False, reason=reason)
