"""Findings about passwords and keys: which values they name or point at, and the same findings without them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from intelligentscan._credential_forms import is_key_text, opens_private_key
from intelligentscan.scanners.interface import Sarif
from intelligentscan.scanners.sarif_rules import (
    RuleBook,
    as_object,
    is_secret_result,
    objects,
    text_of,
    whole,
)
from intelligentscan.scanners.sarif_uris import UriResolver
from intelligentscan.scanners.secret_text import (
    REDACTED,
    Secrets,
    values_in_code,
    values_in_message,
    without_literals,
    without_quoted,
    without_tokens,
    without_value,
)
from intelligentscan.scanners.source_lines import SourceLines

MAX_DEPTH = 200
_MAX_TEXT = 100_000
_MAX_REGION_LINES = 50
_LONGEST_KEY = 200
_DROPPED_FROM_SECRETS = frozenset(
    {"fixes", "fingerprints", "partialFingerprints", "attachments", "webRequest", "webResponse", "graphs", "stacks"}
)
_KEPT_PROPERTIES = frozenset(
    re.findall(
        r"\S+",
        """
        tags cwe CWE cwes cwe_id precision confidence issue_confidence issue_severity severity security-severity
        problem.severity
        """,
    )
)


def secret_message(text: str, *, only_secrets: bool) -> str:
    """Return the message of a finding about a password without what it repeats."""
    return without_tokens(text) if only_secrets else without_quoted(text)


def secret_code(text: str, *, only_secrets: bool) -> str:
    """Return the source of a finding about a password without its value; secret scanners also report unquoted ones."""
    return without_value(text) if only_secrets else without_literals(text)


def collect_secrets(document: Sarif, *, root: Path | None = None, sources: SourceLines | None = None) -> Secrets:
    """Return the values that password findings of the document name or point at.

    Args:
        document: a SARIF log as its scanner wrote it.
        root: the scanned folder, if the values may be read from its files.
        sources: an open reader of that folder, to share its cache.
    """
    secrets = Secrets()
    if root is not None and sources is None:
        sources = SourceLines(root)
    for run in objects(document.get("runs")):
        rules, uris = RuleBook(run), UriResolver(run, root, sources)
        for result in objects(run.get("results")):
            if is_secret_result(rules.of(result), result):
                for value in (*_told_values(result), *_shown_values(result, rules.only_secrets, uris, sources)):
                    secrets.add(value)
    return secrets


def secret_of(result: Sarif, *, only_secrets: bool, uris: UriResolver, sources: SourceLines | None) -> str | None:
    """Return the value that a password finding is about, None if neither its message nor its source shows it."""
    values = _told_values(result) or list(_shown_values(result, only_secrets, uris, sources))
    return "\0".join(dict.fromkeys(values)) if any(value.strip() for value in values) else None


def is_inside_key(sources: SourceLines, path: str, line: int, text: str) -> bool:
    """Tell whether a line of a file is the inside of a private key."""
    return is_key_text(text) and opens_private_key(sources.lines(path, max(1, line - _LONGEST_KEY), line))


def _told_values(result: Sarif) -> list[str]:
    message = result.get("message")
    told = message if isinstance(message, str) else as_object(message).get("text")
    return values_in_message(text_of(told, _MAX_TEXT))


def _shown_values(result: Sarif, only_secrets: bool, uris: UriResolver, sources: SourceLines | None) -> Iterable[str]:
    for location in objects(result.get("locations")):
        physical = as_object(location.get("physicalLocation"))
        for text in _shown_code(physical, uris, sources):
            yield from values_in_code(text, whole=only_secrets)


def _shown_code(physical: Sarif, uris: UriResolver, sources: SourceLines | None) -> Iterable[str]:
    region = as_object(physical.get("region"))
    if snippet := text_of(as_object(region.get("snippet")).get("text"), _MAX_TEXT):
        yield snippet
    first = whole(region.get("startLine"))
    place = uris.place(physical.get("artifactLocation"))
    if sources is None or first is None or place.path is None or not place.is_file:
        return
    last = whole(region.get("endLine")) or first
    lines = sources.lines(place.path, first, min(last, first + _MAX_REGION_LINES))
    start, end = whole(region.get("startColumn")), whole(region.get("endColumn"))
    # Scanners count columns in characters, UTF-16 units or bytes; on plain ASCII lines these agree.
    if len(lines) == 1 and start and end and 0 < start < end and lines[0].isascii():
        yield lines[0][start - 1 : end - 1]
    elif lines:
        yield "\n".join(lines)


def without_secret(value: Any, only_secrets: bool, key: str = "result", depth: int = 0) -> Any:
    """Return a copy of (part of) a password finding in which nothing can hold the password."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [without_secret(item, only_secrets, key, depth + 1) for item in value]
    if key == "message" and isinstance(value, str):
        return secret_message(value, only_secrets=only_secrets)
    if not isinstance(value, dict):
        return value
    if key == "message":
        return _secret_message_object(value, only_secrets)
    if key == "properties":
        return {k: v for k, v in value.items() if k in _KEPT_PROPERTIES or isinstance(v, bool | int | float)}
    copy: Sarif = {}
    for inner, item in value.items():
        if inner in _DROPPED_FROM_SECRETS:
            continue
        if inner == "snippet":
            text = as_object(item).get("text")
            copy[inner] = {"text": secret_code(text, only_secrets=only_secrets) if isinstance(text, str) else REDACTED}
        elif inner == "contextRegion":
            copy[inner] = {k: v for k, v in as_object(item).items() if k != "snippet"}
        else:
            copy[inner] = without_secret(item, only_secrets, inner, depth + 1)
    return copy


def _secret_message_object(message: Sarif, only_secrets: bool) -> Sarif:
    copy: Sarif = {}
    for key, value in message.items():
        if key in ("text", "markdown") and isinstance(value, str):
            copy[key] = secret_message(value, only_secrets=only_secrets)
        elif key == "arguments" and isinstance(value, list):
            copy[key] = [REDACTED for _ in value]
        elif key == "id":
            copy[key] = value
    return copy
