"""Small folders that real engines scan, for the tests of matching."""

import os
import subprocess
from pathlib import Path

from intelligentscan.domain.scan import Finding
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.finding_context import placed
from intelligentscan.scanners.fingerprint import Sighting, fingerprints
from intelligentscan.scanners.matching import Matching
from intelligentscan.scanners.sarif_reader import read_sarif
from intelligentscan.scanners.scan import scan_folder
from intelligentscan.scanners.scan_record import ScanRecord

RUFF = ScanConfig.of_engines(["ruff"])
BOTH = ScanConfig.of_engines(["bandit", "ruff"])
FILES = frozenset({"a.py", "b.py", "c.py"})
RULES = {"bandit": ("B101", "B602"), "ruff": ("S101", "S602")}
ENGINES = {"bandit": "1.9.4", "ruff": "0.17.6"}

VAULT = '''"""Keeps things."""

import hashlib
import subprocess
import tempfile


def digest(data):
    return hashlib.md5(data).hexdigest()


def run(command):
    result = subprocess.call(command, shell=True)
    return result


def read(text):
    value = eval(text)
    return value


def place():
    name = tempfile.mktemp()
    print(name)
    return name
'''
HELPER = '''"""Helps."""


def check(value):
    assert value
    return value
'''
FOUND = 5
"""What ruff finds in both files together."""


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files below a folder, which is made if it is missing."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


async def scanned(root: Path, config: ScanConfig = RUFF, **more: object) -> ScanRecord:
    """Scan a folder and return the record as a later scan reads it: from its artifacts, without the source."""
    made = ScanRecord.of(await scan_folder(root, config, **more))  # type: ignore[arg-type]
    findings = [Finding.model_validate_json(finding.model_dump_json()) for finding in made.findings]
    return ScanRecord.from_json(made.to_json(), findings)


def imported(*runs: dict, root: Path | None = None) -> ScanRecord:
    """Return the record of an imported SARIF log."""
    reading = read_sarif({"version": "2.1.0", "runs": list(runs)}, root=root)
    return ScanRecord(
        findings=placed(reading.findings, None).findings, engines=reading.versions, rules_run=reading.rules_run
    )


def finding(
    engine: str = "ruff", rule: str = "S602", path: str | None = "a.py", text: str = "x", line: int = 1, **more: object
) -> Finding:
    """Return a finding as a reader makes it."""
    (value,) = fingerprints([Sighting(engine, rule, path, text, line)])
    facts = {"severity": "high", "severity_source": "test", "message": "m", "snippet": text, "fingerprint": value}
    return Finding(**{**facts, "rule": rule, "engine": engine, "path": path, "line": line, **more})


def record(*findings: Finding, **more: object) -> ScanRecord:
    """Return the record of a scan of three files by two engines."""
    return ScanRecord(findings=findings, **{"engines": ENGINES, "rules_run": RULES, "files": FILES, **more})  # type: ignore[arg-type]


def counts(matching: Matching) -> tuple[int, int, int, int]:
    """Return new, fixed, persisting, not comparable."""
    return matching.new, matching.fixed, matching.persisting, matching.not_comparable


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody without a configuration."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    env = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "PATH": os.environ["PATH"]}
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, env=env, capture_output=True, check=True)
    return done.stdout.decode().strip()


def committed(folder: Path, message: str = "next") -> str:
    """Commit everything below a folder, which becomes a repository if it is none, and return the commit."""
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")
