"""Finds other MLflow stores in the allowed roots, so that an empty answer can say where the runs are."""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from intelligentscan.settings import sqlite_path, sqlite_uri

_MAX_FOLDERS = 200
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages"})


@dataclass(frozen=True, slots=True)
class NearbyStore:
    """A store that is not the one in force, the number of its runs, and the URI that selects it."""

    path: Path
    runs: int
    uri: str

    def __str__(self) -> str:
        return f"{self.path} holds {self.runs} runs; MLFLOW_TRACKING_URI={self.uri} selects it."


def find(roots: Iterable[Path], in_force: str) -> list[NearbyStore]:
    """Return stores with runs at the top of each root or one folder below, apart from the one in force."""
    current = sqlite_path(in_force)
    found: dict[Path, NearbyStore] = {}
    for root in roots:
        for folder in _folders(root):
            database, files = folder / "mlflow.db", folder / "mlruns"
            if database != current and (runs := _sqlite_runs(database)):
                found[database] = NearbyStore(database, runs, sqlite_uri(database))
            if files.as_uri() != in_force and (runs := _file_runs(files)):
                found[files] = NearbyStore(files, runs, files.as_uri())
    return list(found.values())


def _folders(root: Path) -> Iterator[Path]:
    yield root
    try:
        with os.scandir(root) as entries:
            below = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in sorted(below)[:_MAX_FOLDERS]:
        if not name.startswith(".") and name not in _SKIPPED:
            yield root / name


def _sqlite_runs(path: Path) -> int:
    try:
        if not path.is_file():
            return 0
        # Reading a file in WAL mode leaves files beside it, unless it is said that nobody writes to it.
        mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
        with closing(sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=1)) as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])
    except (sqlite3.Error, OSError):
        return 0


def _file_runs(path: Path) -> int:
    try:
        return sum(1 for _ in path.glob("*/*/meta.yaml")) if path.is_dir() else 0
    except OSError:
        return 0
