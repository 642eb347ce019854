"""Copies of files as plain UTF-8 text, for engines that miss what other encodings, marks or NUL bytes hide.

Measured: semgrep and zizmor lose the first line or the whole file behind a byte order mark, ast-grep counts it as a
column, detect-secrets drops files that are no UTF-8, all without a word to the exit code. Lines stay where they are,
and so do columns, counted in characters.
"""

import codecs
import io
import tokenize
from dataclasses import replace
from pathlib import Path

from intelligentscan.scanners.interface import TargetFile

SLOW_CODECS = frozenset({"punycode", "idna"})
"""Decoding these takes time that grows with the square of the file."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def plain_text(data: bytes, *, python: bool = False) -> str:
    """Return the text of a file: by its byte order mark, by Python's coding line, as UTF-8, else as Latin-1.

    Args:
        data: the bytes of the file.
        python: whether a coding line on the first two lines counts, as it does for Python (PEP 263).
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    encodings = ["utf-8"]
    if python:
        try:
            declared = codecs.lookup(tokenize.detect_encoding(io.BytesIO(data).readline)[0]).name
            encodings = [name for name in (declared, "utf-8") if name not in SLOW_CODECS]
        except (SyntaxError, LookupError):
            pass
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except ValueError:
            continue
    return data.decode("latin-1")


def text_copy(file: TargetFile, folder: Path, *, name: str | None = None) -> TargetFile:
    """Return the file with a copy that is plain UTF-8 without a byte order mark or NUL bytes; the same if it is so.

    Args:
        file: one with a copy.
        folder: a private folder for such copies; made if missing.
        name: the name the copy must have below a folder with its number, for engines that go by names.
    """
    if file.copy is None:
        return file
    data = file.copy.read_bytes()
    text = plain_text(data, python=file.copy.suffix in {".py", ".pyi"}).replace("\0", " ").encode("utf-8", "replace")
    if text == data and name is None:
        return file
    folder.mkdir(mode=0o700, exist_ok=True)
    copy = folder / file.copy.name
    if name is not None:
        copy = folder / f"{file.copy.name.partition('.')[0]}.d" / name
        copy.parent.mkdir(mode=0o700)
    copy.write_bytes(text)
    return replace(file, copy=copy)
