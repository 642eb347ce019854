"""A SARIF log from bytes, text or data: is it JSON, is it SARIF 2.1.0, does it have runs."""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from pydantic_core import PydanticSerializationError, from_json, to_json

from intelligentscan.domain.errors import SarifInvalid, TooLarge
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners.interface import Sarif
from intelligentscan.scanners.sarif_rules import text_of

MAX_SARIF_BYTES = 200 * 1024 * 1024
MAX_RUNS = 1_000
_VERSION = "2.1.0"


def parse_sarif(data: bytes | str | Sarif) -> Sarif:
    """Return the SARIF 2.1.0 log that the bytes, text or object hold.

    Raises:
        SarifInvalid: it is not JSON, not SARIF, or of another version.
        TooLarge: it is longer than 200 MiB.
    """
    document: Any = data
    if isinstance(data, bytes | bytearray | str):
        if len(data) > MAX_SARIF_BYTES:
            raise TooLarge(
                f"The SARIF document has {len(data):,} bytes; the most is {MAX_SARIF_BYTES:,}.",
                next="split the report, for example by tool or by folder.",
            )
        document = _json(data)
    if not isinstance(document, dict):
        raise SarifInvalid(
            f"The document is JSON but no SARIF log: it holds {_kind(document)}, not an object.",
            next="give a SARIF 2.1.0 log: an object with version and runs.",
        )
    _check_version(document)
    runs = document.get("runs")
    if not isinstance(runs, list):
        raise SarifInvalid(
            "The document has no list named runs." if runs is None else f"runs holds {_kind(runs)}, not a list.",
            next="give a SARIF 2.1.0 log: an object with version and runs.",
        )
    if len(runs) > MAX_RUNS:
        raise TooLarge(f"The document has {len(runs):,} runs; the most is {MAX_RUNS:,}.", next="split the report.")
    return document


def sarif_pieces(document: Sarif) -> Iterator[bytes]:
    """Yield the log as JSON text in UTF-8, piece by piece, one result a line.

    Args:
        document: a SARIF log; results may be given as their JSON text already.
    """
    yield from _object_pieces(document, "runs", lambda run: _object_pieces(run, "results", _result_pieces))
    yield b"\n"


def _object_pieces(value: Any, rows: str, pieces: Callable[[Any], Iterator[bytes]]) -> Iterator[bytes]:
    """Yield an object whose entry of that name is a list with its own pieces per row."""
    if not isinstance(value, dict):
        yield json_bytes(value)
        return
    opening = b"{"
    for key, item in value.items():
        yield opening + json_bytes(str(key)) + b":"
        opening = b","
        if key != rows or not isinstance(item, list):
            yield json_bytes(item)
            continue
        separator = b"[\n"
        for row in item:
            yield separator
            yield from pieces(row)
            separator = b",\n"
        yield b"]" if item else b"[]"
    yield b"}" if value else b"{}"


def _result_pieces(result: Any) -> Iterator[bytes]:
    yield result if isinstance(result, bytes) else json_bytes(result)


def json_bytes(value: Any) -> bytes:
    """Return the value as JSON text in UTF-8; numbers that JSON does not have become null."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:  # a lone surrogate, which only an escape can write
        return json.dumps(value, separators=(",", ":")).encode()


def _json(data: bytes | bytearray | str) -> Any:
    if isinstance(data, bytes | bytearray) and data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    try:
        # Several times as fast, and strict: what it does not take is read again, to be told what is wrong with it.
        return from_json(data, allow_inf_nan=False)
    except ValueError:
        pass
    try:
        text = data if isinstance(data, str) else bytes(data).decode(json.detect_encoding(bytes(data)))
        return json.loads(text.removeprefix("\ufeff"), parse_constant=_no_constant)
    except UnicodeDecodeError as exc:
        raise SarifInvalid(
            f"The document is not UTF-8: byte {exc.start:,} cannot be decoded.", next="save the report as UTF-8."
        ) from exc
    except json.JSONDecodeError as exc:
        what = (
            "is empty"
            if not exc.doc.strip()
            else f"is not JSON: {exc.msg} at line {exc.lineno:,}, column {exc.colno:,}"
        )
        raise SarifInvalid(f"The document {what}.", next="check that the scanner finished writing its report.") from exc
    except RecursionError as exc:
        raise SarifInvalid(
            "The document is nested too deeply to be a SARIF report.", next="export the report again."
        ) from exc
    except ValueError as exc:
        what = "a number that JSON does not allow" if isinstance(exc, _NotJsonNumber) else "a number of absurd length"
        raise SarifInvalid(f"The document holds {what}.", next="export the report again.") from exc


class _NotJsonNumber(ValueError):
    """NaN or Infinity, which Python would read and nobody else."""


def _no_constant(name: str) -> NoReturn:
    raise _NotJsonNumber(name)


def _check_version(document: Sarif) -> None:
    version = document.get("version")
    if version is None and _VERSION in text_of(document.get("$schema")):
        return
    if not isinstance(version, str) or not version.startswith(_VERSION):
        said = f"names version '{untrusted(version, 40)}'" if isinstance(version, str) else "names no version"
        raise SarifInvalid(f"The document {said}; only SARIF {_VERSION} is read.", next="export as SARIF 2.1.0.")


def _kind(value: Any) -> str:
    names = {
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), "something else")
