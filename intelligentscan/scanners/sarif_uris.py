"""The locations of one SARIF run: from URIs of every shape to paths relative to the scanned root.

Producers write relative paths, `%SRCROOT%` chains, absolute file URIs of the machine they ran on,
Windows paths, and names that are no files at all (images, packages). What leads out of the root by
`..` gets no path.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from intelligentscan.scanners.interface import Sarif
from intelligentscan.scanners.sarif_rules import as_list, as_object, text_of, whole
from intelligentscan.scanners.source_lines import SourceLines

MAX_PATH = 2_000
_MAX_CHAIN = 10
_MAX_DEPTH = 60
_MAX_SEARCHES = 2_000
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")
_DRIVE = re.compile(r"/*([A-Za-z]):(?=/|$)")
_FILE = re.compile(r"file:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a location points: a path (None if there is none to show), and what was wrong with it."""

    path: str | None
    problem: str | None = None
    is_file: bool = True


_NOWHERE = Place(None, is_file=False)


class UriResolver:
    """Turns the artifact locations of one run into paths; each distinct URI is worked out once."""

    def __init__(self, run: Sarif, root: Path | None, sources: SourceLines | None) -> None:
        self._bases = as_object(run.get("originalUriBaseIds"))
        self._artifacts = as_list(run.get("artifacts"))
        self._roots = spellings(root)
        self._root_names = {folder.rstrip("/").rpartition("/")[2] for folder in self._roots}
        self._sources = sources
        self._places: dict[tuple[str, str], Place] = {}
        self._learned: list[str] = []
        self._searches = 0

    def place(self, location: Any) -> Place:
        """Return the place of an artifactLocation."""
        location = as_object(location)
        uri, base = text_of(location.get("uri"), MAX_PATH), text_of(location.get("uriBaseId"))
        index = whole(location.get("index"))
        if not uri and index is not None and 0 <= index < len(self._artifacts):
            described = as_object(as_object(self._artifacts[index]).get("location"))
            uri, base = text_of(described.get("uri"), MAX_PATH), text_of(described.get("uriBaseId"))
        if not uri:
            return _NOWHERE
        key = (uri, base)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._resolve(uri, base)
        return place

    def _resolve(self, uri: str, base: str) -> Place:
        if _SCHEME.match(uri) and not _FILE.match(uri) and not _DRIVE.match(uri):
            return Place(uri[:MAX_PATH], is_file=False)
        path = _decoded(uri)
        if _is_absolute(path):
            return self._below_root(path)
        prefix, anchor = self._base(base)
        if anchor:
            inside = self._inside(_collapsed_absolute(f"{anchor}{prefix}{path}"))
            if inside:
                return Place(inside)
        joined = _collapsed(f"{prefix}{path}")
        if joined is None:
            return Place(None, "its path leads out of the scanned folder by '..'", is_file=False)
        return Place(joined or None, is_file=bool(joined))

    def _base(self, base: str) -> tuple[str, str]:
        """Return the relative part of a base-id chain, and the absolute folder it hangs on (or '')."""
        prefix = ""
        for _ in range(_MAX_CHAIN):
            described = as_object(self._bases.get(base)) if base else {}
            uri = text_of(described.get("uri"), MAX_PATH)
            if not uri:
                parent = text_of(described.get("uriBaseId"))
                if not parent:
                    break
                base = parent
                continue
            folder = _decoded(uri)
            folder = folder if folder.endswith("/") else folder + "/"
            if _is_absolute(folder) or _SCHEME.match(uri):
                return prefix, folder
            prefix = folder + prefix
            base = text_of(described.get("uriBaseId"))
        return prefix, ""

    def _below_root(self, path: str) -> Place:
        path = _collapsed_absolute(path)
        inside = self._inside(path)
        if inside is not None:
            return Place(inside) if inside else _NOWHERE
        for folder in (*self._learned, *self._declared_folders()):
            if path.startswith(folder) and len(path) > len(folder):
                return Place(path[len(folder) :])
        if found := self._end_in_root(path):
            folder = path[: len(path) - len(found)]
            if folder.strip("/"):
                self._learned.append(folder)
                self._searches = 0
            return Place(found)
        if self._roots:
            return Place(None, "its path lies outside the scanned folder", is_file=False)
        return Place(path, is_file=False)

    def _inside(self, path: str) -> str | None:
        for root in self._roots:
            if path == root.rstrip("/"):
                return ""
            if path.startswith(root):
                return path[len(root) :]
        return None

    def _declared_folders(self) -> list[str]:
        folders = []
        for described in self._bases.values():
            uri = text_of(as_object(described).get("uri"), MAX_PATH)
            if uri and _is_absolute(folder := _decoded(uri)):
                folders.append(folder if folder.endswith("/") else folder + "/")
        return sorted(folders, key=len, reverse=True)

    def _end_in_root(self, path: str) -> str | None:
        """Return the longest end of a foreign absolute path that is a file of the root, for reports made elsewhere.

        A bare file name counts only below a folder named like the root: every project has an `__init__.py`.
        """
        if self._sources is None or self._searches >= _MAX_SEARCHES:
            return None
        self._searches += 1
        parts = path.strip("/").split("/")
        for start in range(min(len(parts), _MAX_DEPTH)):
            bare = start == len(parts) - 1
            if bare and (start == 0 or parts[start - 1] not in self._root_names):
                return None
            candidate = "/".join(parts[start:])
            if self._sources.has(candidate):
                return candidate
        return None


def _decoded(uri: str) -> str:
    """Return the path of a file URI or relative reference: forward slashes, percent signs decoded once."""
    match = _FILE.match(uri)
    rest = uri[match.end() :] if match else uri
    rest = rest.replace("\\", "/")  # before decoding: an encoded backslash belongs to the file's name
    if match:
        rest = _without_authority(rest.partition("#")[0])
    decoded = unquote(rest, errors="replace")
    if match or _DRIVE.match(decoded):
        decoded = _DRIVE.sub(r"\1:", decoded, count=1)
    return decoded if decoded.isascii() else decoded.encode("utf-8", "replace").decode("utf-8")


def _without_authority(rest: str) -> str:
    path = rest.lstrip("/")
    if len(rest) == len(path):
        return path
    host, slash, after = path.partition("/")
    if slash and len(rest) - len(path) == 2 and host.lower() == "localhost":
        return f"/{after}"
    return f"/{path}"


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or bool(_DRIVE.match(path))


def _collapsed(path: str) -> str | None:
    """Return a relative path without '.' and '..' parts, or None if it climbs out."""
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _collapsed_absolute(path: str) -> str:
    drive = _DRIVE.match(path)
    head = f"{drive[1]}:/" if drive else "/"
    parts: list[str] = []
    for part in path[drive.end() if drive else 0 :].split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return head + "/".join(parts)


def spellings(root: Path | None) -> tuple[str, ...]:
    """Return the absolute path of the root as it may be written, with a slash at its end; nothing without a root."""
    if root is None:
        return ()
    spelled = {root.absolute().as_posix(), root.resolve().as_posix()}
    return tuple(sorted({folder.rstrip("/") + "/" for folder in spelled}, key=len, reverse=True))
