"""Findings as JSON lines (`findings/findings.jsonl`), one finding a line, written and read without holding the text."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from intelligentscan._digest import sha256_hex
from intelligentscan.domain.errors import StoreBroken, TooLarge
from intelligentscan.domain.scan import Finding

MAX_LINE = 1_000_000
MAX_FINDINGS = 1_000_000


def write_findings(path: Path, findings: Iterable[Finding]) -> int:
    """Write the findings to a new file and return how many there were."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for finding in findings:
            stream.write(finding.model_dump_json())
            stream.write("\n")
            count += 1
    return count


def read_findings(path: Path) -> tuple[Finding, ...]:
    """Return the findings of a file that `write_findings` wrote.

    Raises:
        StoreBroken: the file is missing, or a line of it is no finding; the message names the line.
        TooLarge: it holds more than 1,000,000 findings.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            return tuple(findings_of(iter(lambda: stream.readline(MAX_LINE + 1), "")))
    except (OSError, UnicodeDecodeError) as exc:
        raise StoreBroken(
            "The findings of the run (findings/findings.jsonl) cannot be read.",
            next="check the artifact store, or scan again with scan_vulnerabilities.",
        ) from exc


def findings_of(lines: Iterable[str]) -> Iterator[Finding]:
    """Yield the finding of each line; empty lines are skipped.

    Raises:
        StoreBroken: a line is no finding.
        TooLarge: there are more than 1,000,000 findings.
    """
    count = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        count += 1
        if count > MAX_FINDINGS:
            raise TooLarge(f"The file holds more than {MAX_FINDINGS:,} findings.", next="narrow the rules of the scan.")
        if len(line) > MAX_LINE:
            raise _broken(number)
        try:
            yield Finding.model_validate_json(line)
        except ValidationError as exc:
            raise _broken(number) from exc


def findings_digest(findings: Iterable[Finding]) -> str:
    """Return a digest that two scans share exactly if they found the same, in whatever order and wherever."""
    lines = sorted(
        json.dumps([f.engine, f.rule, f.path, f.line, f.column, f.end_line, f.severity, f.suppressed, f.fingerprint])
        for f in findings
    )
    return sha256_hex("\n".join(lines).encode())


def _broken(number: int) -> StoreBroken:
    return StoreBroken(
        f"Line {number:,} of the run's findings (findings/findings.jsonl) is no finding.",
        next="scan again with scan_vulnerabilities; the artifact was changed after it was logged.",
    )
