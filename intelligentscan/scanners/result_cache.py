"""Results of earlier scans: an engine is not run again on a file that it, its rules and we have not changed since.

Only for engines whose results depend on one file alone. What is kept is what the engine said of a file, before
findings are read and passwords are taken out of it: that part is done anew in every scan and takes the passwords of
all files into account, so a scan from the cache logs exactly what one without it would. Nothing of it is kept in clear
(see `cache_store`). Such results are never evidence for a gate.
"""

import json
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import rfc8785
from anyio.to_thread import run_sync

from intelligentscan._collector import paused_collector
from intelligentscan._digest import sha256_hex
from intelligentscan.domain.text import untrusted
from intelligentscan.scanners import engine_sarif
from intelligentscan.scanners.cache_store import CacheStore
from intelligentscan.scanners.child_engine import SHOWN_FAILURES, status_of
from intelligentscan.scanners.config import EngineConfig, ScanConfig
from intelligentscan.scanners.fingerprint import FINGERPRINT_VERSION
from intelligentscan.scanners.interface import Engine, EngineFacts, EngineResult, FilesDone, Sarif, Target, TargetFile
from intelligentscan.scanners.sarif_reader import SarifReading, read_sarif

FORMAT = 1
"""Of an entry; to be raised when its fields change. Changes of our code need nothing, it is part of every name."""

_MAX_ENTRY_BYTES = 64 * 1024 * 1024
_LASTING = re.compile(r"not (?:parsable|valid Python|a Dockerfile|in the encoding)|its encoding \S+ is not supported")
"""Why a file is lost again in every scan. After a crash or any reason not listed here, it is tried anew."""


@dataclass(frozen=True, slots=True)
class ResultCache:
    """The cache as one scan uses it.

    Attributes:
        store: where the entries are.
        product: the product that the scan is for; products share nothing.
        read: whether results may come from it; if not, it is only filled.
    """

    store: CacheStore
    product: str | None = None
    read: bool = True


@dataclass(frozen=True, slots=True)
class _Entry:
    """What an engine said of one file.

    Attributes:
        results: its SARIF results in their order.
        rules: descriptors of their rules.
        driver: how the engine describes itself.
        lost: why the file was not analysed; None if it was.
        network: as coverage says it.
    """

    results: list[Sarif] = field(default_factory=list)
    rules: list[Sarif] = field(default_factory=list)
    driver: Sarif = field(default_factory=dict)
    lost: str | None = None
    network: str = "not blocked"

    def to_bytes(self) -> bytes:
        return zlib.compress(
            json.dumps(
                [self.results, self.rules, self.driver, self.lost, self.network], separators=(",", ":")
            ).encode(),
            1,
        )

    @staticmethod
    def from_bytes(data: bytes) -> "_Entry | None":
        try:
            inflater = zlib.decompressobj()
            text = inflater.decompress(data, _MAX_ENTRY_BYTES)
            return _Entry(*json.loads(text)) if inflater.eof else None
        except (zlib.error, ValueError, TypeError):
            return None


async def scan_with_cache(
    cache: ResultCache,
    engine: Engine,
    target: Target,
    files: Sequence[TargetFile],
    config: ScanConfig,
    on_files_done: FilesDone,
) -> EngineResult:
    """Return what `engine.scan` would, running the engine only on the files that the cache does not know.

    Raises:
        As `Engine.scan`.
    """
    began = time.perf_counter()
    options = config.engines.get(engine.name, EngineConfig())
    facts = await engine.facts(options, target.root)
    names = await run_sync(_names, cache, engine, options, facts, target.root, files)
    known = await run_sync(_known, cache.store, names) if cache.read else {}
    await on_files_done(len(known))
    fresh = await engine.scan(target, [file for file in files if file.path not in known], config, on_files_done)
    await run_sync(_keep, cache.store, names, fresh, files)
    if not known:
        return fresh
    return await run_sync(_joined, fresh, known, files, target, began)


def _names(
    cache: ResultCache,
    engine: Engine,
    options: EngineConfig,
    facts: EngineFacts,
    root: Path,
    files: Sequence[TargetFile],
) -> dict[str, bytes]:
    """Return what the entry of each file depends on, by path; files without a copy have none.

    The path is part of it, for rules may go by names and folders: a file that was renamed is analysed again.
    """
    rule_set = engine.rule_set(options)
    program = engine.program(options, root)
    file = Path(program[0]).stat()
    said = options.model_dump(mode="json")
    said["rules"] = [source.digest or source.path for source in options.rules]
    common: dict[str, Any] = {
        "format": FORMAT,
        "code": _code_digest(),
        "product": cache.product,
        "engine": [engine.name, facts.version, facts.python_version, list(facts.rules)],
        "program": [*program, str(file.st_size), str(file.st_mtime_ns)],
        "options": said,
        "rule_set": rule_set.digest if rule_set is not None else None,
        "fingerprint": FINGERPRINT_VERSION,
    }
    base = sha256_hex(rfc8785.dumps(common))
    return {
        file.path: b"%b\0%b\0%b" % (base.encode(), file.digest.encode(), file.path.encode("utf-8", "surrogatepass"))
        for file in files
        if file.copy is not None and file.digest
    }


@cache
def _code_digest() -> str:
    """Return the digest of our own scanning code: an adapter that calls or reads an engine otherwise finds nothing."""
    folder = resources.files("intelligentscan.scanners")
    sources = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".py"))
    return sha256_hex(json.dumps([[name, sha256_hex(entry.read_bytes())] for name, entry in sources]).encode())


def _known(store: CacheStore, names: Mapping[str, bytes]) -> dict[str, _Entry]:
    paths = {name: path for path, name in names.items()}
    found = store.get(list(paths))
    entries = ((paths[name], _Entry.from_bytes(data)) for name, data in found.items())
    return {path: entry for path, entry in entries if entry is not None}


def _keep(store: CacheStore, names: Mapping[str, bytes], fresh: EngineResult, files: Sequence[TargetFile]) -> None:
    """Keep what the engine said of the files about which it is certain."""
    run = _run_of(fresh)
    reasons = _reasons(run)
    by_uri: dict[str, list[Sarif]] = defaultdict(list)
    for result in run["results"]:
        by_uri[engine_sarif.first_uri(result)].append(result)
    driver = run["tool"]["driver"]
    rules = {rule["id"]: rule for rule in driver["rules"]}
    about = {key: value for key, value in driver.items() if key != "rules"}
    values: dict[bytes, bytes] = {}
    for file in files:
        name, uri = names.get(file.path), engine_sarif.uri_of(file)
        lost = reasons.get(uri)
        if name is None or file.path not in fresh.certain_files or (lost is not None and not _LASTING.match(lost)):
            continue
        results = by_uri.get(uri, [])
        used = sorted({result["ruleId"] for result in results} & rules.keys())
        entry = _Entry(results, [rules[rule] for rule in used], about, lost, fresh.coverage.network)
        values[name] = entry.to_bytes()
    store.put(values)


@paused_collector()
def _joined(
    fresh: EngineResult, known: Mapping[str, _Entry], files: Sequence[TargetFile], target: Target, began: float
) -> EngineResult:
    """Return the result of an engine with what the cache has of the other files."""
    document = _document(fresh, known, files)
    reading = _read(document, fresh, target)
    reasons = _reasons(_run_of(fresh)) | {
        engine_sarif.uri_of(file): entry.lost
        for file in files
        if (entry := known.get(file.path)) is not None and entry.lost is not None
    }
    failed = [(file, reasons[uri]) for file in files if (uri := engine_sarif.uri_of(file)) in reasons]
    seen = fresh.coverage.files_seen + len(known)
    analyzed = seen - len(failed)
    networks = {entry.network for entry in known.values()}
    if fresh.coverage.exit_code is not None:
        networks.add(fresh.coverage.network)
    coverage = fresh.coverage.model_copy(
        update={
            "status": status_of(seen, analyzed, bool(reading.findings)),
            "files_seen": seen,
            "files_analyzed": analyzed,
            "files_failed": len(failed),
            "files_cached": len(known),
            "failures": [untrusted(f"{file.shown}: {reason}", 300) for file, reason in failed[:SHOWN_FAILURES]],
            "findings": sum(finding.counts for finding in reading.findings),
            "duration_s": round(time.perf_counter() - began, 3),
            "network": "not blocked" if "not blocked" in networks else min(networks),
        }
    )
    return replace(
        fresh,
        coverage=coverage,
        findings=reading.findings,
        sarif=document,
        failed_files=tuple(file.shown for file, _ in failed),
        warnings=(*_without_reading(fresh, target), *reading.warnings),
        cached_files=tuple(file.shown for file in files if file.path in known),
    )


def _document(fresh: EngineResult, known: Mapping[str, _Entry], files: Sequence[TargetFile]) -> Sarif:
    """Return the engine's document as it would have written it about all files."""
    run = _run_of(fresh)
    results = list(run["results"])
    rules: dict[str, Sarif] = {}
    own = {rule["id"]: rule for rule in run["tool"]["driver"]["rules"]}
    used: dict[str, set[str]] = defaultdict(set)
    for result in run["results"]:
        used[engine_sarif.first_uri(result)].add(result["ruleId"])
    for file in files:
        if (entry := known.get(file.path)) is not None:
            results += entry.results
            rules |= {rule["id"]: rule for rule in entry.rules}
        else:
            rules |= {rule: own[rule] for rule in used[engine_sarif.uri_of(file)] if rule in own}
    results.sort(key=engine_sarif.order)
    ordered = [rules[rule] for rule in sorted(rules)]
    index = {rule["id"]: number for number, rule in enumerate(ordered)}
    for result in results:
        if result["ruleId"] in index:
            result["ruleIndex"] = index[result["ruleId"]]
    # Without a call of its own the engine did not say how it is called.
    said = run["tool"]["driver"] if fresh.coverage.exit_code is not None else next(iter(known.values())).driver
    invocations = [_invocation(run, known, files)]
    joined = {"tool": {"driver": {**said, "rules": ordered}}, "invocations": invocations, "results": results}
    return {**(fresh.sarif or {}), "runs": [joined]}


def _invocation(run: Sarif, known: Mapping[str, _Entry], files: Sequence[TargetFile]) -> Sarif:
    """Return how the engine was run, with the files it failed on now or before."""
    key = "toolExecutionNotifications"
    invocation = dict(run["invocations"][0])
    told = {engine_sarif.first_uri(item): item for item in invocation.pop(key, [])}
    for file in files:
        if (entry := known.get(file.path)) is not None and entry.lost is not None:
            told[engine_sarif.uri_of(file)] = engine_sarif.notification(file, entry.lost)
    ordered = [told[uri] for file in files if (uri := engine_sarif.uri_of(file)) in told]
    invocation["executionSuccessful"] |= any(entry.lost is None for entry in known.values())
    return {**invocation, **({key: ordered} if ordered else {})}


def _run_of(result: EngineResult) -> Sarif:
    run: Sarif = (result.sarif or {})["runs"][0]
    return run


def _reasons(run: Sarif) -> dict[str, str]:
    """Return why files were lost, by their URI."""
    told: list[dict[str, Any]] = run["invocations"][0].get("toolExecutionNotifications", [])
    return {engine_sarif.first_uri(item): item["message"]["text"] for item in told}


def _without_reading(fresh: EngineResult, target: Target) -> tuple[str, ...]:
    """Return the warnings of a result without those about its document, which is read again with all files in it."""
    if not fresh.warnings or fresh.sarif is None:
        return fresh.warnings
    read = _read(fresh.sarif, fresh, target).warnings
    return fresh.warnings[: len(fresh.warnings) - len(read)]


def _read(document: Sarif, fresh: EngineResult, target: Target) -> SarifReading:
    return read_sarif(document, root=target.root, engine=fresh.coverage.engine, digests=target.digests)
