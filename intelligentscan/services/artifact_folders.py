"""What lies in the artifact folders of an experiment, listed when it is locked and compared later."""

import json
from pathlib import Path

import rfc8785

from intelligentscan.domain.integrity import Problem
from intelligentscan.stores.archive import Archive

_FORMAT = "intelligentscan.folders.v1"
_HASHED = 256 * 2**20
_NEXT = "the sealed copy is not touched by this; find out who may write to the artifact folder."


def list_folders(archive: Archive, folders: dict[str, Path]) -> bytes:
    """Return what lies in each folder; files are hashed while they are few and small, else their times are kept."""
    left, listed = _HASHED, {}
    for label, folder in sorted(folders.items()):
        document = archive.inventory(folder, hash_up_to_bytes=left, below=folder.parent)
        listed[label] = json.loads(document)
        left = max(0, left - _size(folder))
    return rfc8785.dumps({"format": _FORMAT, "folders": listed})


def compare_folders(archive: Archive, document: bytes, folders: dict[str, Path], where: str) -> list[Problem]:
    """Return what was added, changed or removed since."""
    known = json.loads(document)["folders"]
    problems: list[Problem] = []
    for label in sorted(known.keys() | folders.keys()):
        if label not in known:
            problems.append(Problem(code="FILES", what="ADDED: a folder of its own", where=f"{where}, {label}"))
        elif label in folders:
            below = folders[label].parent
            for found in archive.compare_inventory(rfc8785.dumps(known[label]), folders[label], below=below):
                if found.code == "BYTECODE":  # loading the original leaves it; nobody is served from there
                    continue
                place = f"{where}, {label}: {found.path}"
                problems.append(Problem(code="FILES", what=f"{found.code}: {found.message}", where=place, next=_NEXT))
        else:
            problems.append(Problem(code="FILES", what="MISSING: its run or model is gone", where=f"{where}, {label}"))
    return problems


def _size(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
