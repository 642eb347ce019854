"""Findings that callers hand over as plain data, checked field by field and then read like any scanner's SARIF.

Going through SARIF means one way to redact, to resolve paths, to rate and to fingerprint.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from intelligentscan.domain.errors import InvalidArgument, TooLarge
from intelligentscan.domain.scan import Finding
from intelligentscan.domain.severity import SEVERITIES
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners.interface import Sarif
from intelligentscan.scanners.sarif_rating import severity_word
from intelligentscan.scanners.sarif_reader import MAX_FINDINGS, SarifReading, engine_name, read_sarif
from intelligentscan.scanners.secret_digest import SecretDigests

_RULE = ("rule", "rule_id", "ruleId", "check_id", "test_id", "code")
_MESSAGE = ("message", "text", "description", "title", "issue_text")
_PATH = ("path", "file", "filename", "file_path")
_LINE = ("line", "line_number", "lineno", "start_line", "startLine")
_END_LINE = ("end_line", "endLine", "line_end")
_COLUMN = ("column", "col", "start_column", "startColumn")
_SEVERITY = ("severity", "level", "issue_severity")
_CWE = ("cwe", "cwes", "cwe_id", "issue_cwe")
_SNIPPET = ("snippet", "code_snippet")
_SYMBOL = ("symbol", "function")
_SUPPRESSED = ("suppressed",)
_EXAMPLE = "findings=[{'rule': 'R1', 'severity': 'high', 'path': 'app.py', 'line': 3, 'message': 'what is wrong'}]"


def plain_findings(
    items: Sequence[dict[str, Any]], *, scanner: str = "unknown", root: Path | None = None
) -> tuple[Finding, ...]:
    """Return findings made of plain dicts.

    Args:
        items: each with a rule and a message; optional path, line, end_line, column, severity, cwe, snippet, symbol,
            suppressed. Usual other spellings of these names are accepted, further keys are ignored.
        scanner: name of the tool they come from.
        root: the scanned folder, if the text of the lines may be read from it.

    Raises:
        InvalidArgument: an item lacks its rule or message, or a field has the wrong type; names index and field.
        TooLarge: there are more than 200,000 items.
    """
    return read_plain_findings(items, scanner=scanner, root=root).findings


def read_plain_findings(
    items: Sequence[dict[str, Any]],
    *,
    scanner: str = "unknown",
    scanner_version: str = "",
    root: Path | None = None,
    digests: SecretDigests | None = None,
) -> SarifReading:
    """Return what `plain_findings` returns together with warnings and the name of the engine; same errors."""
    if not isinstance(items, list | tuple):
        raise InvalidArgument(f"findings is {_kind(items)}; it takes a list of objects.", next=_EXAMPLE)
    if len(items) > MAX_FINDINGS:
        raise TooLarge(
            f"{len(items):,} findings were given; the most is {MAX_FINDINGS:,}.", next="narrow the scan or split it."
        )
    results = [_result(_Item(index, item)) for index, item in enumerate(items)]
    driver = {"name": scanner, "version": scanner_version}
    document: Sarif = {"version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return read_sarif(document, root=root, engine=engine_name(scanner), digests=digests)


class _Item:
    """One item, read field by field; every complaint names the index and the field."""

    def __init__(self, index: int, item: Any) -> None:
        if not isinstance(item, dict):
            raise InvalidArgument(f"findings[{index}] is {_kind(item)}, not an object.", next=_EXAMPLE)
        self._index = index
        self._item = item

    def value(self, names: Sequence[str]) -> tuple[str, Any]:
        """Return the name and value of the first of the spellings that is given, else the first name and None."""
        for name in names:
            if self._item.get(name) is not None:
                return name, self._item[name]
        return names[0], None

    def text(self, names: Sequence[str], *, required: bool = False) -> str | None:
        name, value = self.value(names)
        if value is None or (isinstance(value, str) and not value.strip()):
            if required:
                raise InvalidArgument(f"findings[{self._index}] has no {names[0]}.", next=_EXAMPLE)
            return None
        if not isinstance(value, str):
            raise self.wrong(name, value, "a text")
        return value

    def number(self, names: Sequence[str]) -> int | None:
        """Return a line or column; 0 means none, as some scanners write it."""
        name, value = self.value(names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise self.wrong(name, value, "a whole number from 1")
        return value or None

    def wrong(self, name: str, value: Any, due: str) -> InvalidArgument:
        shown = f" '{untrusted(value, 40)}'" if isinstance(value, str) else ""
        return InvalidArgument(f"findings[{self._index}].{name} is {_kind(value)}{shown}; {due} is due.", next=_EXAMPLE)


def _result(item: _Item) -> Sarif:
    result: Sarif = {
        "ruleId": item.text(_RULE, required=True),
        "message": {"text": item.text(_MESSAGE, required=True)},
        "properties": {**_severity(item), **_cwe(item)},
    }
    location: Sarif = {}
    path = item.text(_PATH)
    region = {
        "startLine": item.number(_LINE),
        "endLine": item.number(_END_LINE),
        "startColumn": item.number(_COLUMN),
        "snippet": {"text": item.text(_SNIPPET) or ""},
    }
    if path is not None:
        location["physicalLocation"] = {"artifactLocation": {"uri": _uri(path)}, "region": region}
    if symbol := item.text(_SYMBOL):
        location["logicalLocations"] = [{"fullyQualifiedName": symbol}]
    result["locations"] = [location]
    name, suppressed = item.value(_SUPPRESSED)
    if not isinstance(suppressed, bool | None):
        raise item.wrong(name, suppressed, "true or false")
    result["suppressions"] = [{"kind": "external"}] if suppressed else []
    return result


def _severity(item: _Item) -> Sarif:
    name, value = item.value(_SEVERITY)
    if value is None:
        return {}
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 10:
        return {"security-severity": value}
    if severity_word(value) is None:
        raise item.wrong(name, value, f"one of {', '.join(SEVERITIES)} (or a CVSS score from 0 to 10)")
    return {"severity": value}


def _cwe(item: _Item) -> Sarif:
    name, value = item.value(_CWE)
    if value is None:
        return {}
    parts = value if isinstance(value, list | tuple) else [value]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int | dict):
            raise item.wrong(name, part, "a CWE such as 'CWE-89', or a list of them,")
    return {"cwe": list(parts)}


def _uri(path: str) -> str:
    """Write a path as the URI it is; what already is a URI stays as given."""
    if "://" in path or path.startswith("pkg:"):
        return path
    path = path.replace("\\", "/")
    absolute = path.startswith("/") or path[1:3] == ":/"
    quoted = quote(path.encode("utf-8", "replace"), safe="/:" if absolute else "/")
    return f"file:///{quoted.lstrip('/')}" if absolute else quoted


def _kind(value: Any) -> str:
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
