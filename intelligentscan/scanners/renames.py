"""Renamed files between two scans: which file that is gone lives on under which name.

Three sources, in this order: what git says of the two commits, files whose lines are all equal, and files that share
at least 60 % of their lines. Only a name that is gone may have a successor, and only a name that was not there before
may be one, so a copy is never taken for a rename.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from intelligentscan.scanners.file_sketch import FileSketch
from intelligentscan.scanners.scan_record import ScanRecord

LEAST_SIMILARITY = 0.6
MAX_COMPARED = 20_000
"""Pairs of files whose lines are compared, those that share the most first."""
_COMMON = 50
"""A line that more files have tells nothing about which one became which."""


@dataclass(frozen=True, slots=True)
class Renames:
    """New names by old ones, and how many pairs of files were not compared because there were too many."""

    names: dict[str, str]
    skipped: int = 0


def renames(left: ScanRecord, right: ScanRecord, git: Mapping[str, str] | None = None) -> Renames:
    """Return which files of the left scan have another name in the right one, one to one.

    Args:
        left: a scan.
        right: another scan of the same folder.
        git: new names by old ones, as git knows them.
    """
    gone, new = _only(left, right), _only(right, left)
    found: dict[str, str] = {}
    for old, name in sorted((git or {}).items()):
        if old in gone and name in new:
            found[old] = name
            gone.discard(old)
            new.discard(name)
    _take(_equal(left, right, gone, new), found, gone, new)
    similar = sorted(_sharing(left, right, gone, new), key=lambda pair: (-pair[0], _by_names(pair[1], pair[2])))
    scored = [
        (-left.sketches[old].similarity(right.sketches[name]), old, name) for _, old, name in similar[:MAX_COMPARED]
    ]
    scored.sort(key=lambda pair: (pair[0], _by_names(pair[1], pair[2])))
    _take(((old, name) for score, old, name in scored if -score >= LEAST_SIMILARITY), found, gone, new)
    return Renames(found, max(0, len(similar) - MAX_COMPARED))


def _only(here: ScanRecord, there: ScanRecord) -> set[str]:
    """Return the files that one scan met and that are not there in the other; in unseen folders anything may be."""
    unseen = tuple(path for path in there.unseen if path.endswith("/"))
    return {path for path in _names(here) - _names(there) if not path.startswith(unseen)}


def _names(record: ScanRecord) -> set[str]:
    """Return the files that were there, whether or not they could be analysed."""
    found = {finding.path for finding in record.findings if finding.path is not None}
    return {*record.files, *record.unseen, *record.sketches, *found}


def _take(pairs: Iterable[tuple[str, str]], found: dict[str, str], gone: set[str], new: set[str]) -> None:
    for old, name in pairs:
        if old in gone and name in new:
            found[old] = name
            gone.discard(old)
            new.discard(name)


def _equal(left: ScanRecord, right: ScanRecord, gone: set[str], new: set[str]) -> Iterator[tuple[str, str]]:
    """Yield files with the same lines; where several have them, those of equal file names first."""
    olds, names = _by_digest(left, gone), _by_digest(right, new)
    for digest in sorted(olds.keys() & names.keys()):
        by_name = {PurePosixPath(path).name: path for path in names[digest]}
        same = [(old, by_name[name]) for old in olds[digest] if (name := PurePosixPath(old).name) in by_name]
        yield from same
        taken_old, taken_new = {old for old, _ in same}, {name for _, name in same}
        yield from zip(
            [old for old in olds[digest] if old not in taken_old],
            [name for name in names[digest] if name not in taken_new],
            strict=False,
        )


def _by_digest(record: ScanRecord, paths: set[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths & record.sketches.keys(), key=lambda path: (PurePosixPath(path).name, path)):
        found[record.sketches[path].digest].append(path)
    return found


def _sharing(left: ScanRecord, right: ScanRecord, gone: set[str], new: set[str]) -> Iterator[tuple[int, str, str]]:
    """Yield pairs of files with lines in common, and how many of their rarer lines these are."""
    olds, names = _by_line(left.sketches, gone), _by_line(right.sketches, new)
    shared: dict[tuple[str, str], int] = defaultdict(int)
    for line in olds.keys() & names.keys():
        if len(olds[line]) + len(names[line]) <= _COMMON:
            for old in olds[line]:
                for name in names[line]:
                    shared[old, name] += 1
    return ((count, old, name) for (old, name), count in shared.items())


def _by_line(sketches: Mapping[str, FileSketch], paths: set[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(paths & sketches.keys()):
        for line in sketches[path].counts:
            found[line].append(path)
    return found


def _by_names(old: str, name: str) -> tuple[bool, str, str]:
    """Order pairs of equal merit: those that keep the file's name first."""
    return PurePosixPath(old).name != PurePosixPath(name).name, old, name
