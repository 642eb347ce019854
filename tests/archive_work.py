"""What the tests of the archive do in processes of their own, and the folders that they do it with."""

import itertools
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from intelligentscan.stores.archive import Archive
from intelligentscan.stores.archive_manifest import Manifest, Problem
from intelligentscan.stores.archive_view import model_meta

META = model_meta("spam", 1)
LIMITS: dict[str, Any] = {"max_bytes": 1 << 30, "max_files": 10_000}


def fill(folder: Path, files: int = 12, size: int = 3000) -> Path:
    """Make a folder that looks like a model; the same arguments give the same bytes."""
    for number in range(files):
        path = folder / ("code" if number % 3 else ".") / f"{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"# {number}\n".encode() * (size // 4))
    (folder / "MLmodel").write_text("flavors: {}\n")
    return folder


def take(archive: Path, folder: Path) -> Manifest:
    """Copy a folder into an archive, within ample limits."""
    return Archive(archive).take(folder, **LIMITS)


def blobs(archive: Archive) -> dict[str, Path]:
    """Return the blobs by their names."""
    return {path.name: path for path in (archive.root / "sha256").glob("*/*")}


def unfinished(archive: Archive) -> list[Path]:
    """Return everything that is no blob, view or signature."""
    return [*(archive.root / "tmp").iterdir(), *(archive.root / "sealed").glob(".*")]


def codes(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in problems]


def write_over(path: Path, data: bytes) -> None:
    """Write into a file where it lies, as its owner can, and leave its permissions as they were."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(mode)


def open_up(folder: Path) -> None:
    """Make a view's folders writable, as their owner can."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def close_up(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o555)


def while_it_goes_on(act: Callable[[], None], work: Callable[[], None]) -> None:
    """Do something again and again in a thread of its own while other work is done."""
    ended = threading.Event()

    def again() -> None:
        while not ended.is_set():
            act()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        work()
    finally:
        ended.set()
        thread.join()


def digest_of_taken(archive: str, folder: str) -> str:
    """Copy a folder into an archive; return the digest of the manifest."""
    return take(Path(archive), Path(folder)).digest


def take_and_view(archive: str, folder: str, view_id: str = "v1") -> str:
    """Copy a folder and make a view of it, as a registration does; return the digest of the manifest."""
    manifest = take(Path(archive), Path(folder))
    Archive(Path(archive)).view(view_id, manifest, META, sealed=False)
    return manifest.digest


def die_at(function: str, number: int, after: bool, archive: str, folder: str) -> None:
    """Begin a registration's copy and be killed at the n-th call of a function of the system."""
    real: Callable[..., Any] = getattr(os, function)
    calls = itertools.count(1)  # which several threads may ask

    def counted(*arguments: Any, **named: Any) -> Any:
        this = next(calls)
        if this == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return real(*arguments, **named)
        finally:
            if this == number:
                os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, function, counted)
    take_and_view(archive, folder)
    raise AssertionError(f"there is no call {number} of {function}")


def copy_for_ever(archive: str, folder: str) -> None:
    """Register copies without end, until somebody kills the process."""
    number = 0
    while True:
        number += 1
        fill(Path(folder), 30, 500 + number % 7 * 10_000)
        take_and_view(archive, folder, f"v{number % 3}")


def take_with_little_room(archive: str, folder: str, bytes_per_file: int) -> str:
    """Copy a folder where the system takes no larger files, as a quota does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, bytes_per_file))
    return digest_of_taken(archive, folder)


def load_once(uri: str, model_uri: str) -> list[str]:
    """Load a model with plain MLflow and use it; return where its code came from, and what it answers."""
    import mlflow

    sys.modules.pop("shouter", None)
    mlflow.set_tracking_uri(uri)
    answer = mlflow.pyfunc.load_model(model_uri).predict([1, 2])
    return [str(sys.modules["shouter"].__file__), *answer]


def load_as_nobody(other_uri: str, uri: str, folder: str, model_uri: str) -> list[str]:
    """Load a model as a user who owns nothing; what it takes is imported before, with another store."""
    _import_everything(other_uri, folder)
    _become_nobody()
    return load_once(uri, model_uri)


def register_and_load_as_nobody(other_uri: str, uri: str, folder: str, archive: str) -> list[str]:
    """Do everything as that user: copy, make the view, register it and load it."""
    from mlflow import MlflowClient

    _import_everything(other_uri, folder)
    _become_nobody()
    register(uri, Path(archive), Path(folder), "spam", shared=False)
    MlflowClient(tracking_uri=uri).set_registered_model_alias("spam", "champion", "1")
    for model_uri in ("models:/spam/Production", "models:/spam@champion", "models:/spam/1"):
        answer = load_once(uri, model_uri)
    (Path(folder) / "registered_model_meta").unlink(missing_ok=True)
    manifest = take(Path(archive), Path(folder))
    return [*answer, *(problem.code for problem in Archive(Path(archive)).check_view("v1", manifest, META))]


def register(uri: str, archive: Path, folder: Path, name: str, *, shared: bool) -> Path:
    """Register the sealed copy of a model under a name, by hand and plain MLflow; return the view."""
    from mlflow import MlflowClient

    kept = Archive(archive, shared=shared)
    view = kept.view("v1", kept.take(folder, **LIMITS), model_meta(name, 1), sealed=False)
    client = MlflowClient(tracking_uri=uri)
    client.create_registered_model(name)
    client.create_model_version(name, str(view))
    client.transition_model_version_stage(name, "1", "Production")
    return view


def _import_everything(uri: str, folder: str) -> None:
    """Do once what is done later, because that user may not read the interpreter's modules everywhere."""
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=uri).search_registered_models()
    load_once(uri, folder)


def _become_nobody() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
