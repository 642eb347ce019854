"""One engine's SARIF, brought together from its calls: one run, paths of the target, failed files as notifications.

Engines write absolute paths of the machine, list rules per call, and report a file they could not parse as a finding or
not at all. What leaves here names files relative to the scanned root and has the same order on every machine.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from intelligentscan.scanners.copies import CopyNames
from intelligentscan.scanners.interface import Sarif, TargetFile

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


@dataclass(frozen=True, slots=True)
class Invocation:
    """When an engine ran, how it ended, and on which files it failed."""

    started: datetime
    ended: datetime
    exit_code: int | None
    successful: bool
    failed: Sequence[tuple[TargetFile, str]]


def runs(document: Any) -> list[Sarif]:
    """Return the runs of a document that are objects; engines are trusted to find, not to be well formed."""
    found = document.get("runs") if isinstance(document, dict) else None
    return [run for run in found if isinstance(run, dict)] if isinstance(found, list) else []


def results(document: Any) -> list[Sarif]:
    """Return the results of all runs of a document."""
    return [
        result
        for run in runs(document)
        for result in run.get("results") or []
        if isinstance(result, dict) and isinstance(result.get("ruleId"), str)
    ]


def first_uri(result: Sarif) -> str:
    """Return the URI of a result's (or notification's) first location, or ''."""
    for location in result.get("locations") or []:
        uri = location.get("physicalLocation", {}).get("artifactLocation", {}).get("uri")
        if isinstance(uri, str):
            return uri
    return ""


def rebuilt(
    documents: Sequence[Sarif],
    unsuppressed: Sequence[Sarif],
    names: CopyNames,
    wanted: Callable[[str], bool],
    program: Mapping[str, str],
    invocation: Invocation,
) -> Sarif:
    """Return one document with one run.

    Args:
        documents: what the engine wrote, call by call.
        unsuppressed: what it wrote when told to ignore suppression comments; results that only show up here were
            suppressed in the source.
        names: leads from copies to files.
        wanted: whether a rule was asked for; results of others are not findings.
        program: name and version of the engine, for when no call gave a report.
        invocation: what happened.
    """
    kept = _relocated(documents, names, wanted)
    kept += _suppressed(kept, _relocated(unsuppressed, names, wanted))
    kept.sort(key=order)
    driver = {**program, **_driver([*documents, *unsuppressed], {result["ruleId"] for result in kept})}
    _relocate(driver["rules"], names)
    index = {rule["id"]: number for number, rule in enumerate(driver["rules"])}
    for result in kept:
        result.pop("ruleIndex", None)
        if result["ruleId"] in index:
            result["ruleIndex"] = index[result["ruleId"]]
    run = {"tool": {"driver": driver}, "invocations": [_invocation(invocation)], "results": kept}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _relocated(documents: Sequence[Sarif], names: CopyNames, wanted: Callable[[str], bool]) -> list[Sarif]:
    found = []
    for document in documents:
        for result in results(document):
            if wanted(result["ruleId"]) and names.file(first_uri(result)) is not None:
                _relocate(result, names)
                found.append(result)
    return found


def _relocate(value: Any, names: CopyNames) -> None:
    """Replace the URI of every artifact location below the value, and copies that any other text names."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in entries:
        if isinstance(item, str):
            value[key] = names.original(item)
        elif key == "artifactLocation" and isinstance(item, dict):
            file = names.file(str(item.get("uri", "")))
            value[key] = {"uri": uri_of(file)} if file is not None else {}
        elif isinstance(item, dict | list):
            _relocate(item, names)


def uri_of(file: TargetFile) -> str:
    """Return the relative URI of a file of the target."""
    return quote(file.path.encode("utf-8", "surrogateescape"), safe="/")


def _suppressed(kept: list[Sarif], unsuppressed: list[Sarif]) -> list[Sarif]:
    known = Counter(_identity(result) for result in kept)
    hidden = []
    for result in unsuppressed:
        identity = _identity(result)
        if known[identity]:
            known[identity] -= 1
        else:
            result["suppressions"] = [{"kind": "inSource"}]
            hidden.append(result)
    return hidden


def _identity(result: Sarif) -> str:
    return json.dumps([result["ruleId"], result.get("locations"), result.get("message")], sort_keys=True)


def order(result: Sarif) -> tuple[str, int, int, str, str]:
    """Return what results are sorted by: place, rule and message."""
    region: Mapping[str, Any] = {}
    for location in result.get("locations") or []:
        region = location.get("physicalLocation", {}).get("region") or {}
        break
    line, column = region.get("startLine"), region.get("startColumn")
    return (
        first_uri(result),
        line if isinstance(line, int) else 0,
        column if isinstance(column, int) else 0,
        result["ruleId"],
        json.dumps(result.get("message"), sort_keys=True),
    )


def _driver(documents: Sequence[Sarif], used: set[str]) -> dict[str, Any]:
    drivers = [run.get("tool", {}).get("driver", {}) for document in documents for run in runs(document)]
    rules = {rule["id"]: rule for driver in drivers for rule in driver.get("rules") or [] if rule.get("id") in used}
    driver = {key: value for key, value in drivers[0].items() if key != "rules"} if drivers else {}
    return {**driver, "rules": [rules[key] for key in sorted(rules)]}


def _invocation(invocation: Invocation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "executionSuccessful": invocation.successful,
        "startTimeUtc": _time(invocation.started),
        "endTimeUtc": _time(invocation.ended),
    }
    if invocation.exit_code is not None:
        described["exitCode"] = invocation.exit_code
    if invocation.failed:
        described["toolExecutionNotifications"] = [notification(file, reason) for file, reason in invocation.failed]
    return described


def notification(file: TargetFile, reason: str) -> dict[str, Any]:
    """Return the notification that a file was not analysed."""
    return {
        "level": "error",
        "message": {"text": reason},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri_of(file)}}}],
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
