"""Context of findings: what of the source around them is kept, so that later scans know them again without it.

Needs the source once, when the scan is made. Everything kept is free of literals (see `file_sketch`).
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.file_sketch import FileSketch, bounded, skeleton
from intelligentscan.scanners.fingerprint import normalised
from intelligentscan.scanners.rule_aliases import matching_rule
from intelligentscan.scanners.source_lines import SourceLines

MAX_SKETCHED_LINES = 1_000_000
"""Of all files of a scan together: four characters each in coverage/files.json."""
MAX_FAILED = 1_000
"""Failed files that are sketched: what is gone may have been renamed to one of them."""
AROUND = 3
_LEAST_AROUND = 3
_MAX_SYMBOL = 200
_LAST_LINE = 2**31
_PYTHON = (".py", ".pyi", ".pyw")
_BLOCK = re.compile(r"([ \t]*)(?:async[ \t]+def|def|class)[ \t]+(\w+)")
_OPENING = ("async", "def", "class")
_MARGIN = re.compile(r"[ \t]*")


@dataclass(frozen=True, slots=True)
class Placed:
    """Findings that know their surroundings, and the sketches of the files they are in."""

    findings: tuple[Finding, ...]
    sketches: dict[str, FileSketch]


def content_fingerprint(finding: Finding) -> str:
    """Return the hash of the rule and the redacted text of the line, without blanks; of the message if there is none.

    Unlike the fingerprint it says nothing about the place, so code that moves keeps it.
    """
    text = finding.message if finding.snippet is None else finding.snippet
    parts = (finding.engine, matching_rule(finding.engine, finding.rule), normalised(text))
    return sha256_hex("\0".join(("intelligentscan/content/1", *parts)).encode("utf-8", "replace"))


def placed(findings: Sequence[Finding], sources: SourceLines | None, also: Iterable[str] = ()) -> Placed:
    """Return the findings with content fingerprint, context and symbol, and the sketches of their files.

    Args:
        findings: redacted.
        sources: reads the scanned folder; None if nobody has it, which leaves the content fingerprint.
        also: further files to sketch, such as those that an engine failed on.
    """
    result = [finding.model_copy(update={"content_fingerprint": content_fingerprint(finding)}) for finding in findings]
    if sources is None:
        return Placed(tuple(result), {})
    by_path: dict[str, list[int]] = defaultdict(list)
    for index, finding in enumerate(findings):
        if finding.path is not None:
            by_path[finding.path].append(index)
    sketches: list[tuple[str, FileSketch]] = []
    for path in (*sorted(by_path), *sorted(set(also) - by_path.keys())[:MAX_FAILED]):
        lines = sources.lines(path, 1, _LAST_LINE)
        if not lines:
            continue
        skeletons = [skeleton(line) for line in lines]
        sketches.append((path, FileSketch.of(skeletons)))
        symbols = _symbols(lines) if path.endswith(_PYTHON) and path in by_path else []
        for index in by_path.get(path, ()):
            result[index] = _with_context(result[index], skeletons, symbols)
    return Placed(tuple(result), bounded(sketches, MAX_SKETCHED_LINES))


def _with_context(finding: Finding, skeletons: Sequence[str], symbols: Sequence[str]) -> Finding:
    line = finding.line
    if line is None or line > len(skeletons):
        return finding
    update: dict[str, str] = {}
    around = [text for text in skeletons[max(0, line - 1 - AROUND) : line + AROUND] if text]
    if len(around) >= _LEAST_AROUND:
        update["context"] = hashlib.sha256("\n".join(around).encode("utf-8", "replace")).hexdigest()[:32]
    if finding.symbol is None and symbols and symbols[line - 1]:
        update["symbol"] = symbols[line - 1]
    return finding.model_copy(update=update)


def _symbols(lines: Sequence[str]) -> list[str]:
    """Return, per line of Python source, the dotted name of the functions and classes around it.

    Goes by indentation alone: a text literal that looks like code misleads it, the same way in every scan.
    """
    found: list[str] = []
    blocks: list[tuple[int, str]] = []
    symbol = ""
    for line in lines:
        code = line.lstrip()
        if code and not code.startswith(("#", ")", "]", "}")):
            margin = len(line) - len(code)
            if line[:margin].strip(" "):
                margin = len((_MARGIN.match(line) or [""])[0].expandtabs())
            known = len(blocks)
            while blocks and blocks[-1][0] >= margin:
                blocks.pop()
            changed = len(blocks) != known
            if code.startswith(_OPENING) and (block := _BLOCK.match(line)):
                blocks.append((margin, block[2]))
                changed = True
            if changed:
                symbol = ".".join(name for _, name in blocks)[:_MAX_SYMBOL]
        found.append(symbol)
    return found
