"""The folder that is copied into the archive: which files of it are taken, and how its faults are told from ours."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from intelligentscan.domain.errors import BytesChanged, NoModel, TooLarge, WrongPathKind
from intelligentscan.domain.text import untrusted
from intelligentscan.stores.archive_manifest import is_plain_path
from intelligentscan.stores.archive_place import reason
from intelligentscan.stores.archive_tree import TreeEntry, text_name, walk

META_FILE = "registered_model_meta"
"""MLflow's note about the registered model, which a plain load writes into a local model's folder."""


def source_files(source: int, max_files: int) -> Iterator[TreeEntry]:
    """Yield the files below an open folder that are taken.

    Raises:
        NoModel: there is a link or a special file, or something cannot be read.
        TooLarge: there are more files or folders, or they are nested too deeply.
        BytesChanged: a folder went away meanwhile.
    """
    files = folders = 0
    walked = walk(source, max_entries=2 * max_files + 1)
    while True:
        with source_errors("."):
            entry = next(walked, None)
        if entry is None:
            return
        if entry.kind not in {"file", "folder"} or (entry.kind == "folder" and entry.path == META_FILE):
            raise link_or_special(entry.path)
        folders += entry.kind == "folder"
        files += entry.kind == "file"
        if max(files, folders) > max_files:
            raise TooLarge(
                f"The model has more than {max_files:,} files or folders.", next="log it as fewer, larger files."
            )
        if entry.kind == "file" and entry.path != META_FILE:
            yield entry


def plain_path(entry: TreeEntry) -> str:
    """Return the path of a file as a manifest holds it.

    Raises:
        NoModel: it is too long or not UTF-8.
    """
    path = text_name(entry.path)
    if path is None or not is_plain_path(path):
        raise NoModel(
            "The model's folder holds a file whose path is too long or not UTF-8.",
            next="log the model again with shorter, plain names.",
            details={"file": untrusted(entry.path)},
        )
    return path


@contextmanager
def source_errors(path: str) -> Iterator[None]:
    """Say of a file of the caller's what the system refused, so that it is not taken for the archive's fault.

    Args:
        path: which file; '.' is the walk through the folder, '' its opening.
    """
    try:
        yield
    except WrongPathKind as exc:
        raise link_or_special(path) from exc
    except OSError as exc:
        if exc.errno in {errno.EACCES, errno.EPERM}:
            raise NoModel(
                "A file or folder of the model cannot be read by this user.",
                next="grant read access to the model's folder, then call register_model again.",
                details={"file": untrusted(path)},
            ) from exc
        if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise link_or_special(path) from exc
        if exc.errno == errno.ENOENT:
            raise (changed(path) if path else no_files()) from exc
        raise NoModel(
            f"A file of the model cannot be read: {reason(exc)}.",
            next="check the disk that holds the run's artifacts, then call register_model again.",
            details={"file": untrusted(path)},
        ) from exc


def link_or_special(path: str) -> NoModel:
    """Return the refusal of what is neither a plain file nor a folder."""
    return NoModel(
        "The model's folder holds a link or a special file, whose bytes cannot be vouched for.",
        next="log the model again with plain files only.",
        details={"file": untrusted(path)},
    )


def no_files() -> NoModel:
    """Return the refusal of a folder without files."""
    return NoModel(
        "The model's files are gone: its folder is empty.",
        next="log the model again, then call register_model with the new run.",
    )


def changed(path: str) -> BytesChanged:
    """Return the refusal of a file that does not hold still."""
    return BytesChanged(
        "A file of the model changed while it was copied.",
        next="end whatever still writes the model, then call register_model again.",
        details={"file": untrusted(path)},
    )


def too_large(path: str) -> TooLarge:
    """Return the refusal of the file with which the bytes are too many."""
    return TooLarge(
        "The model has more bytes than the archive takes for one model.",
        next="log a smaller model, or leave out checkpoints that the model does not need.",
        details={"file": untrusted(path)},
    )
