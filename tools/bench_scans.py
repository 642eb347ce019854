"""What scans cost: a report of 50,000 findings beside plain parsing and storing, and a rescan beside the first scan."""

import argparse
import importlib.util
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]
FINDINGS = 50_000
_FILES, _RULES, _ROUNDS = 2_000, 120, 3
_WORDS = re.findall(
    r"\S+",
    """
    buffer request session handler cursor payload template response archive worker queue cluster record service loader
    writer column header router bundle socket folder digest parser filter channel context adapter token key
    """,
)

# Each runs in a process of its own, so that its memory is its own; both are warmed up before the clock starts.
_YARDSTICK = """
import json, sys, time
from pathlib import Path
import mlflow
source, home = Path(sys.argv[1]), Path(sys.argv[2])
client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
experiment = client.create_experiment("yardstick", artifact_location=str(home / "artifacts"))
run_id = client.create_run(experiment).info.run_id
began = time.perf_counter()
with source.open(encoding="utf-8") as stream:
    document = json.load(stream)
loaded = time.perf_counter()
copy = home / "report.sarif"
copy.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
client.log_artifact(run_id, str(copy), "sarif")
written = time.perf_counter()
client.log_artifact(run_id, str(source), "copy")
copied = time.perf_counter()
"""
_OURS = """
import sys, time
from pathlib import Path
import anyio
from intelligentscan.app import build
from intelligentscan.settings import Settings
source, home = Path(sys.argv[1]), Path(sys.argv[2])
services = build(Settings(home=home, allowed_roots=(source.parent,)))
async def log():
    global began, ended
    await services.scans.log("warm-up", sarif_path=str(source.parent / "small.sarif"), create_missing=True)
    began = time.perf_counter()
    run = await services.scans.log("bench", sarif_path=str(source), create_missing=True)
    ended = time.perf_counter()
    assert run.vulnerabilities_found == int(sys.argv[3]), run.vulnerabilities_found
anyio.run(log)
"""
_SCAN = """
import json, sys, time
from pathlib import Path
import anyio
from intelligentscan.app import build
from intelligentscan.settings import Settings
target, home, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
services = build(Settings(home=home, allowed_roots=(target.parent,)))
async def scan():
    await services.experiments.create("bench")
    services.load()
    if len(sys.argv) == 4:
        await services.scans.scan(str(target.parent / "small"), experiment="bench")
    began = time.perf_counter()
    run = await services.scans.scan(str(target), experiment="bench", use_cache=kind == "warm")
    seconds = time.perf_counter() - began
    logged = await services.runs.get(run.run_id)
    print(json.dumps({"seconds": seconds, "findings": run.vulnerabilities_found,
        "digest": logged.params["findings_digest"], "files": max(c.files_seen for c in run.coverage),
        "cached": max(c.files_cached for c in run.coverage)}))
anyio.run(scan)
"""
_REPORT = """
import json, resource
print(json.dumps({"seconds": [%s], "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def measure_sarif(home: Path, _options: argparse.Namespace) -> Result:
    """A SARIF file of 50,000 findings through `ScanService.log`, against `json.load` plus writing the artifact."""
    folder = home / "reports"
    folder.mkdir()
    big = folder / "big.sarif"
    write_report(big, FINDINGS)
    write_report(folder / "small.sarif", 20)
    loads: list[float] = []
    writes: list[float] = []
    copies: list[float] = []
    ours: list[float] = []
    plain_peak = our_peak = 0.0
    for number in range(_ROUNDS):
        plain = _child(_YARDSTICK, "loaded - began, written - loaded, copied - written", big, home / f"plain-{number}")
        load, write, copy = plain["seconds"]
        logged = _child(_OURS, "ended - began", big, home / f"ours-{number}", str(FINDINGS))
        loads.append(load)
        writes.append(write)
        copies.append(copy)
        ours.append(logged["seconds"][0])
        plain_peak, our_peak = max(plain_peak, plain["peak"]), max(our_peak, logged["peak"])
    yardstick = statistics.median(load + write for load, write in zip(loads, writes, strict=True))
    least = min(load + write for load, write in zip(loads, writes, strict=True))
    strict = statistics.median(load + copy for load, copy in zip(loads, copies, strict=True))
    return {
        "findings": FINDINGS,
        "file, MB": big.stat().st_size / 1e6,
        "json.load, s (median)": statistics.median(loads),
        "writing the artifact: json.dumps and log_artifact, s": statistics.median(writes),
        "copying the file with log_artifact, s": statistics.median(copies),
        "logged as a scan, s (median, min)": f"{statistics.median(ours):.2f}, {min(ours):.2f}",
        "ratio to json.load plus writing the artifact (limit 2)": statistics.median(ours) / yardstick,
        "ratio of minima": min(ours) / least,
        "ratio to json.load plus copying the file as it is": statistics.median(ours) / strict,
        "peak memory of a process that logs it, MB": our_peak,
        "peak memory of one that loads and writes it, MB": plain_peak,
    }


def _child(script: str, seconds: str, source: Path, home: Path, *more: str) -> Result:
    """Run a script in a process of its own and return its seconds and its peak memory."""
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script + _REPORT % seconds, str(source), str(home), *more],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    shutil.rmtree(home)
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


def write_report(path: Path, findings: int) -> None:
    """Write a report as a data-flow analyser writes it: the same bytes at every call; 50,000 findings are 60 MB."""
    chance = random.Random(5)  # noqa: S311 - the same file every time
    rules = [_rule(chance, number) for number in range(_RULES)]
    driver = {"name": "ExampleAnalyser", "semanticVersion": "2.12.0", "organization": "Example", "rules": rules}
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"$schema":"https://json.schemastore.org/sarif-2.1.0.json","version":"2.1.0","runs":[{"tool":')
        json.dump({"driver": driver}, stream)
        stream.write(',"columnKind":"utf16CodeUnits","results":[')
        for number in range(findings):
            stream.write(",\n" if number else "\n")
            json.dump(_result(chance, rules, number), stream, separators=(",", ":"))
        stream.write("]}]}")


def _rule(chance: random.Random, number: int) -> Result:
    text = _sentence(chance, 12)
    return {
        "id": f"py/{chance.choice(_WORDS)}-{number}",
        "name": f"py/{chance.choice(_WORDS)}-{number}",
        "shortDescription": {"text": text},
        "fullDescription": {"text": f"{text} {_sentence(chance, 25)}"},
        "defaultConfiguration": {"level": chance.choice(("error", "warning", "note"))},
        "properties": {
            "tags": ["security", f"external/cwe/cwe-{chance.randrange(20, 950):03d}"],
            "precision": "high",
            "security-severity": f"{chance.uniform(1, 10):.1f}",
        },
    }


def _result(chance: random.Random, rules: list[Result], number: int) -> Result:
    index = chance.randrange(len(rules))
    file, line = chance.randrange(_FILES), chance.randrange(1, 900)
    code = _code(chance)
    region = {"startLine": line, "startColumn": 9, "endColumn": 9 + len(code)}
    context = "\n".join([f"    {_code(chance)}", f"    {_code(chance)}", f"        {code}", f"    {_code(chance)}"])
    steps = [_step(chance, file, line - 1), _step(chance, file, line)]
    return {
        "ruleId": rules[index]["id"],
        "ruleIndex": index,
        "rule": {"id": rules[index]["id"], "index": index},
        "message": {"text": f"{_sentence(chance, 14)} See the [value](1) of '{chance.choice(_WORDS)}'."},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": _artifact(file),
                    "region": region,
                    "contextRegion": {"startLine": max(1, line - 2), "endLine": line + 1, "snippet": {"text": context}},
                }
            }
        ],
        "partialFingerprints": {
            "primaryLocationLineHash": f"{chance.getrandbits(64):x}:1",
            "primaryLocationStartColumnFingerprint": str(number % 17),
        },
        "codeFlows": [{"threadFlows": [{"locations": steps}]}],
    }


def _step(chance: random.Random, file: int, line: int) -> Result:
    place = {"artifactLocation": _artifact(file), "region": {"startLine": max(1, line), "startColumn": 5}}
    return {"location": {"physicalLocation": place, "message": {"text": f"{chance.choice(_WORDS)} here"}}}


def _artifact(file: int) -> Result:
    return {"uri": f"src/{_WORDS[file % len(_WORDS)]}/module_{file}.py", "uriBaseId": "%SRCROOT%", "index": file}


def _code(chance: random.Random) -> str:
    return f"{chance.choice(_WORDS)}_{chance.randrange(1000)} = {chance.choice(_WORDS)}.run({chance.choice(_WORDS)}, {chance.randrange(100)})"  # noqa: E501 - one line of code


def _sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words)).capitalize() + "."


def measure_rescan(home: Path, _options: argparse.Namespace) -> Result:
    """The same tree, scanned and logged without and with results of the scan before.

    Each scan has a process of its own, warmed up with a folder of one file as a server would be; what a process that
    does nothing else takes (it imports the plotting library and asks the engines for their versions) comes last.
    """
    target = home / "target"
    package = importlib.util.find_spec("mlflow")
    if package is None or package.origin is None:
        raise SystemExit("mlflow is not installed")
    shutil.copytree(Path(package.origin).parent, target, ignore=_not_python)
    small = home / "small"
    small.mkdir()
    (small / "one.py").write_text("assert True\n")
    place = home / "home"
    cold = [_scanned(target, place, "cold") for _ in range(_ROUNDS)]
    warm = [_scanned(target, place, "warm") for _ in range(_ROUNDS)]
    first = [_scanned(target, place, kind, "not warmed up") for kind in ("cold", "warm")]
    if len({scan["digest"] for scan in (*cold, *warm)}) != 1:
        raise SystemExit("the scans did not find the same")
    seconds = {name: [scan["seconds"] for scan in scans] for name, scans in (("cold", cold), ("warm", warm))}
    return {
        "files": warm[0]["files"],
        "findings": warm[0]["findings"],
        "files from the cache, cold and warm": f"{cold[0]['cached']} and {warm[0]['cached']}",
        "cold, s (median, min)": f"{statistics.median(seconds['cold']):.2f}, {min(seconds['cold']):.2f}",
        "warm, s (median, min)": f"{statistics.median(seconds['warm']):.2f}, {min(seconds['warm']):.2f}",
        "ratio of warm to cold (limit 0.1)": statistics.median(seconds["warm"]) / statistics.median(seconds["cold"]),
        "ratio of minima": min(seconds["warm"]) / min(seconds["cold"]),
        "first scan of a process, cold and warm, s": f"{first[0]['seconds']:.2f} and {first[1]['seconds']:.2f}",
    }


def _not_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py") and not Path(folder, name).is_dir()]


def _scanned(target: Path, home: Path, *kind: str) -> Result:
    """Scan and log in a new process; the clock runs from the call to its answer, the run written."""
    done = subprocess.run(
        [sys.executable, "-c", _SCAN, str(target), str(home), *kind],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    found: Result = json.loads(done.stdout.splitlines()[-1])
    return found


PARTS: dict[str, Callable[[Path, argparse.Namespace], Result]] = {
    "sarif": measure_sarif,
    "rescan": measure_rescan,
}
