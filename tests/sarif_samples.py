"""Builders of small SARIF documents in the manner of many producers, for the tests of the scanning room."""

import json
import re
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator, FormatChecker
from jsonschema.exceptions import best_match

BIN = Path(sys.executable).parent


def log(*runs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": "2.1.0", "runs": list(runs), **more}


def run(
    results: Any, name: str = "ExampleScan", rules: list[dict[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    driver: dict[str, Any] = {"name": name, "version": "1.0"}
    if rules is not None:
        driver["rules"] = rules
    return {"tool": {"driver": driver}, "results": results, **more}


def at(uri: str | None, line: int | None = None, *, base: str | None = None, **region: Any) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if uri is not None:
        location["uri"] = uri
    if base is not None:
        location["uriBaseId"] = base
    physical: dict[str, Any] = {"artifactLocation": location}
    if line is not None:
        region = {"startLine": line, **region}
    if region:
        physical["region"] = region
    return {"physicalLocation": physical}


def result(rule: str | None = "R1", message: str | None = "something is wrong", /, *where: Any, **more: Any) -> Any:
    found: dict[str, Any] = dict(more)
    if rule is not None:
        found["ruleId"] = rule
    if message is not None:
        found["message"] = {"text": message}
    if where:
        found["locations"] = list(where)
    return found


def bandit_of(*paths: Path) -> dict[str, Any]:
    """Run the real bandit and return its SARIF."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "bandit", "--quiet", "--exit-zero", "-f", "sarif", "-r", *map(str, paths)],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def ruff_of(*paths: Path, preview: bool = False) -> dict[str, Any]:
    """Run the real ruff and return its SARIF."""
    options = ["--isolated", "--no-cache", "--exit-zero", "--select", "S", "--output-format", "sarif"]
    done = subprocess.run(
        [str(BIN / "ruff"), "check", *options, *(["--preview"] if preview else []), *map(str, paths)],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


FORMATS = FormatChecker(formats=())
_PATTERNS = {
    "uri": r"[A-Za-z][A-Za-z0-9+.\-]*:(?:[!$&-;=?-Z_a-z~#\[\]]|%[0-9A-Fa-f]{2})*",
    "uri-reference": r"(?:[!$&-;=?-Z_a-z~#\[\]]|%[0-9A-Fa-f]{2})*",
    "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
}
for _name, _pattern in _PATTERNS.items():
    FORMATS.checks(_name)(lambda value, _pattern=_pattern: bool(re.fullmatch(_pattern, value)))


@cache
def sarif_schema() -> Draft4Validator:
    """Return a validator of the OASIS schema, formats of URIs and times included."""
    text = files("intelligentscan.scanners").joinpath("schemas/sarif-2.1.0.json").read_text("utf-8")
    return Draft4Validator(json.loads(text), format_checker=FORMATS)


def check_schema(document: Any) -> None:
    """Fail if a document is not valid by the OASIS schema, as JSON readers elsewhere see it."""
    seen = json.loads(json.dumps(document, allow_nan=False))
    if (worst := best_match(sarif_schema().iter_errors(seen))) is not None:
        raise AssertionError(f"{worst.json_path}: {worst.message[:500]}")
