"""GitHub's line hash (`primaryLocationLineHash`), by which its code scanning knows an alert again.

For a line it takes the first 100 characters from the line's start on, running on over the next lines;
blanks and tabs do not count, every line end is one line feed, the end of the file is U+FFFF, and what
is missing after it are zeros. Characters are UTF-16 code units. They make a polynomial in 37, modulo
2^64, written in hexadecimal; `:n` counts the lines with the same hash so far. GitHub's upload action
computes the same from the files (codeql-action, src/fingerprints.ts) and warns about any difference.

A hash of a line with a password in it would let anyone who guesses the password confirm the guess, so
lines in whose reach redaction takes something out get none.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from intelligentscan._credential_forms import without_credentials
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.secret_text import REDACTED, Secrets, without_named_literals
from intelligentscan.scanners.source_lines import SourceLines

LINE_HASH = "primaryLocationLineHash"
_BLOCK = 100
_BASE = 37
_MASK = 2**64 - 1
_END_OF_FILE = "\uffff"
_LINES_BEFORE = 3
_LINE_END = re.compile(r"\r\n?")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


def with_line_hashes(findings: Sequence[Finding], sources: SourceLines, secrets: Secrets) -> tuple[Finding, ...]:
    """Return the findings, those in readable files with their line's hash.

    Args:
        findings: redacted findings.
        sources: the scanned folder.
        secrets: all values that were taken out of the findings.
    """
    result = list(findings)
    places: dict[str, list[int]] = defaultdict(list)
    for index, finding in enumerate(findings):
        shown = finding.message if finding.snippet is None else finding.message + finding.snippet
        if finding.path is not None and finding.line is not None and REDACTED not in shown:
            places[finding.path].append(index)
    for path, indices in places.items():
        if (text := sources.text(path)) is None:
            continue
        safe = _safe_lines(text, {line for index in indices if (line := findings[index].line) is not None}, secrets)
        hashes = line_hashes(text, safe)
        for index in indices:
            if (found := hashes.get(findings[index].line or 0)) is not None:
                result[index] = findings[index].model_copy(update={"line_hash": found})
    return tuple(result)


def line_hashes(text: str, lines: Collection[int]) -> dict[int, str]:
    """Return the hash of each of the lines that the text has.

    Args:
        text: a whole file, decoded from UTF-8 with its byte order mark, if it has one.
        lines: numbers of lines, from 1.
    """
    last = max(lines, default=0)
    plain = _without_blanks(_line_feeds(text))
    counted = (plain if plain.isascii() else _ASTRAL.sub(_as_utf16, plain)) + _END_OF_FILE
    padded = counted + "\0" * _BLOCK
    starts = _starts(counted, last)
    reach = {line: padded[starts[line - 1] : starts[line - 1] + _BLOCK] for line in lines if 1 <= line <= len(starts)}
    wanted = frozenset(reach.values())
    seen: Counter[str] = Counter()
    hashes: dict[int, str] = {}
    for line, start in enumerate(starts, start=1):
        block = padded[start : start + _BLOCK]
        if block in wanted:  # equal hashes come from equal blocks, but for one pair in 2^64
            seen[block] += 1
            if line in reach:
                hashes[line] = f"{_polynomial(block):x}:{seen[block]}"
    return hashes


def _line_feeds(text: str) -> str:
    return _LINE_END.sub("\n", text) if "\r" in text else text


def _without_blanks(text: str) -> str:
    return text.replace(" ", "").replace("\t", "")


def _starts(counted: str, last: int) -> list[int]:
    """Return where the lines start, down to the last one that is asked for."""
    starts = [0] if last else []
    while len(starts) < last and (end := counted.find("\n", starts[-1])) >= 0:
        starts.append(end + 1)
    return starts


def _polynomial(block: str) -> int:
    value = 0
    for character in block:
        value = value * _BASE + ord(character) & _MASK
    return value


def _as_utf16(match: re.Match[str]) -> str:
    offset = ord(match[0]) - 0x10000
    return chr(0xD800 + (offset >> 10)) + chr(0xDC00 + (offset & 0x3FF))


def _safe_lines(text: str, lines: Collection[int], secrets: Secrets) -> list[int]:
    """Return the lines in whose reach, and just before it, there is nothing that redaction takes out."""
    rows = _line_feeds(text).split("\n")
    return [line for line in lines if line <= len(rows) and _is_safe(rows, line, secrets)]


def _is_safe(rows: list[str], line: int, secrets: Secrets) -> bool:
    end, left = line - 1, _BLOCK
    while left > 0 and end < len(rows):
        left -= len(_without_blanks(rows[end])) + 1
        end += 1
    near = "\n".join(rows[max(0, line - 1 - _LINES_BEFORE) : end])
    return secrets.redact(without_credentials(without_named_literals(near)), code=True) == near
