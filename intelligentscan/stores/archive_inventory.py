"""Inventories: a listing of a folder of artifacts, to find later what was added, changed or removed in it.

MLflow's own note beside a model is left out, because merely loading a model by `models:/…` writes it. Compiled Python
in `__pycache__` has a code of its own, because importing a model's code from the folder writes it.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import rfc8785

from intelligentscan._paths import open_beneath
from intelligentscan.domain.errors import StoreBroken, WrongPathKind
from intelligentscan.stores.archive_blobs import hash_of
from intelligentscan.stores.archive_manifest import DAMAGED_NEXT, ProblemCode, Problems
from intelligentscan.stores.archive_place import reason
from intelligentscan.stores.archive_source import META_FILE, source_errors
from intelligentscan.stores.archive_tree import TreeEntry, open_tree, raw_name, text_name, walk
from intelligentscan.stores.archive_view import CACHE

MAX_ENTRIES = 200_000
_MODEL_FILE = "MLmodel"
_NOTE_BYTES = 4096
_Row = dict[str, Any]


def take_inventory(folder: Path, *, hash_up_to_bytes: int, below: Path | None) -> bytes:
    """Return the inventory of a folder as canonical JSON; a folder that does not exist is an empty one.

    Args:
        folder: absolute path.
        hash_up_to_bytes: files are hashed while their bytes together stay within this; of the others the times are
            kept.
        below: as for `open_tree`.

    Raises:
        NoModel: a folder cannot be read, or was swapped for a link meanwhile.
        TooLarge: it holds too many entries, or is nested too deeply.
    """
    rows: list[_Row] = []
    left = hash_up_to_bytes
    with source_errors("."):
        try:
            opened = open_tree(folder, below)
        except FileNotFoundError:
            return _document(rows)
        try:
            for entry in _entries(opened):
                digest = _digest(entry) if entry.kind == "file" and entry.status.st_size <= left else None
                left -= entry.status.st_size if digest else 0
                rows.append(_row(entry, digest))
        finally:
            os.close(opened)
    return _document(rows)


def compare_inventory(document: bytes, folder: Path, *, below: Path | None) -> Problems:
    """Compare a folder with its inventory.

    Raises:
        StoreBroken: the document is not an inventory.
        TooLarge: the folder holds too many entries.
    """
    known = _read(document)
    problems = Problems()
    seen: set[str] = set()

    def enter(entry: TreeEntry) -> bool:
        # Python's own folders are looked into, so that nothing else hides in them.
        return entry.path in known or entry.name == CACHE

    def unreadable(entry: TreeEntry, exc: OSError) -> None:
        problems.add("UNREADABLE", entry.path, f"The folder cannot be read: {reason(exc)}.")
        seen.update(path for path in known if path.startswith(f"{entry.path}/"))

    try:
        opened = open_tree(folder, below)
    except FileNotFoundError:
        opened = None
    except OSError as exc:
        problems.add("UNREADABLE", ".", f"The folder cannot be read, or is a link now: {reason(exc)}.")
        return problems
    if opened is not None:
        try:
            for entry in _entries(opened, enter, unreadable):
                seen.add(entry.path)
                _compare(entry, known.get(entry.path), problems)
                if problems.full:
                    break
        finally:
            os.close(opened)
    for path, row in known.items():
        if path not in seen:
            problems.add(_code("MISSING", path), path, f"The {row['kind']} was removed.")
    return problems


def _entries(
    folder: int,
    enter: Callable[[TreeEntry], bool] = lambda _: True,
    unreadable: Callable[[TreeEntry, OSError], None] | None = None,
) -> Iterator[TreeEntry]:
    for entry in walk(folder, max_entries=MAX_ENTRIES, enter=enter, unreadable=unreadable):
        if not _is_note(entry):
            yield entry


def _is_note(entry: TreeEntry) -> bool:
    if entry.name != META_FILE or entry.kind != "file" or entry.status.st_size > _NOTE_BYTES:
        return False
    with suppress(OSError):
        return stat.S_ISREG(os.stat(_MODEL_FILE, dir_fd=entry.parent, follow_symlinks=False).st_mode)
    return False


def _row(entry: TreeEntry, digest: str | None) -> _Row:
    row: _Row = {"kind": entry.kind} | _text("path", entry.path)
    if entry.kind == "file":
        row["size"] = entry.status.st_size
        # Nanoseconds are more than a JSON number holds exactly.
        times = {"mtime_ns": str(entry.status.st_mtime_ns), "ctime_ns": str(entry.status.st_ctime_ns)}
        row |= {"sha256": digest} if digest else times
    elif entry.kind == "link":
        row |= _text("target", _target(entry))
    elif entry.kind == "special":
        row["type"] = stat.S_IFMT(entry.status.st_mode)
    return row


def _compare(entry: TreeEntry, known: _Row | None, problems: Problems) -> None:
    def add(code: ProblemCode, message: str) -> None:
        problems.add(_code(code, entry.path), entry.path, message)

    if known is None:
        code: ProblemCode = {"link": "LINK", "special": "SPECIAL"}.get(entry.kind, "ADDED")  # type: ignore[assignment]
        add(code, f"The {entry.kind} was added.")
    elif known["kind"] != entry.kind:
        add("LINK" if entry.kind == "link" else "CHANGED", f"There is a {entry.kind} in place of the {known['kind']}.")
    elif entry.kind != "file" or "sha256" not in known:
        now = _row(entry, None)
        if _without_ctime(now) != _without_ctime(known):
            add("CHANGED", f"The {entry.kind} was changed.")
        elif now != known:
            add("TOUCHED", "The file was touched; whether its bytes are the same cannot be told.")
    elif entry.status.st_size != known["size"]:
        add("CHANGED", "The file was changed.")
    elif (digest := _digest(entry)) is None:
        add("UNREADABLE", "The file cannot be read.")
    elif digest != known["sha256"]:
        add("CHANGED", "The file was changed.")


def _code(code: ProblemCode, path: str) -> ProblemCode:
    parts = path.split("/")
    cached = parts[-1] == CACHE or (CACHE in parts and path.endswith(".pyc"))
    return "BYTECODE" if cached and code in {"ADDED", "CHANGED", "MISSING", "TOUCHED"} else code


def _without_ctime(row: _Row) -> _Row:
    return {name: value for name, value in row.items() if name != "ctime_ns"}


def _digest(entry: TreeEntry) -> str | None:
    """Return the digest of a file; None if it cannot be read or is no file any more."""
    try:
        descriptor = open_beneath(entry.parent, entry.name)
    except (OSError, WrongPathKind):
        return None
    try:
        return hash_of(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _target(entry: TreeEntry) -> str:
    try:
        return os.readlink(entry.name, dir_fd=entry.parent)
    except OSError:
        return ""  # gone, or no link any more; the next comparison shows it


def _text(name: str, raw: str) -> _Row:
    text = text_name(raw)
    return {f"{name}_bytes": os.fsencode(raw).hex()} if text is None else {name: text}


def _document(rows: list[_Row]) -> bytes:
    return rfc8785.dumps({"v": 1, "entries": rows})


def _read(document: bytes) -> dict[str, _Row]:
    try:
        read: Any = json.loads(document)
        if read["v"] != 1:
            raise ValueError(read["v"])
        return {_raw(row): row for row in read["entries"] if row["kind"] in {"file", "folder", "link", "special"}}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise StoreBroken("An inventory of the archive cannot be read.", next=DAMAGED_NEXT) from exc


def _raw(row: _Row) -> str:
    return raw_name(row["path"]) if "path" in row else os.fsdecode(bytes.fromhex(row["path_bytes"]))
