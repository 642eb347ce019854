"""Measures what the project claims about speed, each figure beside its yardstick in the same run.

`python tools/bench.py [start|calls|writers|order|list] …` runs all parts or those named; `--json` prints
one document. Machines are noisy: trust the ratios, and the minimum before the median. Bytecode is
compiled first, because an installation that compiles is what users have.
"""

import argparse
import asyncio
import compileall
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import bench_governance
import bench_scans

BARE_SERVER = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("bare")
@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
server.run("stdio")
"""
ONE_PROCESS = """
import sys
import mcp.server.mcpserver
import mlflow
from mlflow.tracking import MlflowClient
MlflowClient(tracking_uri=sys.argv[1]).get_experiment("0")
"""
PROTOCOL = "2025-11-25"
Result = dict[str, Any]


def main() -> int:
    """Run the parts and print them; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts; all if none is named")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seconds", type=float, default=30, help="length of the load test of writers")
    parser.add_argument("--events", type=int, default=100_000, help="events of the trail whose history is asked for")
    parser.add_argument("--runs", type=int, default=10_000, help="runs in the experiment that is ordered")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    compile_bytecode()
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="intelligentscan-bench-") as folder:
        for part in options.parts or PARTS:
            home = Path(folder) / part
            home.mkdir()
            results[part] = PARTS[part](home, options)
            if not options.json:
                print_part(part, results[part])
    if options.json:
        print(json.dumps(results, indent=1))
    return 0


def compile_bytecode() -> None:
    """Compile every package of this environment, and ours."""
    import intelligentscan

    for folder in {*(p for p in sys.path if p.endswith("site-packages")), str(Path(intelligentscan.__file__).parent)}:
        compileall.compile_dir(folder, quiet=2, workers=2)


def print_part(part: str, result: Result) -> None:
    """Print one part as lines of name and value."""
    print(f"\n{part}")
    for key, value in result.items():
        print(f"  {key:<58} {value if not isinstance(value, float) else f'{value:.3g}'}")


# --- start-up -------------------------------------------------------------------------------------------------


class Child:
    """A server on pipes, spoken to in plain JSON lines."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._id = 0

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer."""
        self._id += 1
        self.send({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message.get("id") == self._id:
                return message
        raise RuntimeError("the server closed its output")

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def handshake(self) -> float:
        """Do the handshake and return the seconds since the process was started."""
        info = {"name": "bench", "version": "1"}
        self.ask("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": info})
        elapsed = time.perf_counter() - self.began
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}})
        return elapsed

    def close(self) -> None:
        """Close its input and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def environment_of(home: Path) -> dict[str, str]:
    """Return the environment of a server on a store of its own."""
    return {**os.environ, "INTELLIGENTSCAN_HOME": str(home)}


def ours() -> list[str]:
    """Return the command of our server."""
    return [sys.executable, "-m", "intelligentscan", "mcp"]


def measure_start(home: Path, _options: argparse.Namespace) -> Result:
    """Spawn to handshake, and spawn to the first answer that needs the store, interleaved with the yardsticks."""
    environment = environment_of(home)
    first = Child(ours(), environment)  # makes the store, so that no round pays for its migrations
    first.handshake()
    first.ask("tools/call", {"name": "search_experiments", "arguments": {}})
    first.close()
    bare: list[float] = []
    handshakes: list[float] = []
    answers: list[float] = []
    processes: list[float] = []
    for _ in range(9):
        child = Child([sys.executable, "-c", BARE_SERVER], environment)
        bare.append(child.handshake())
        child.close()
        child = Child(ours(), environment)
        handshakes.append(child.handshake())
        answer = child.ask("tools/call", {"name": "search_experiments", "arguments": {"limit": 1}})
        answers.append(time.perf_counter() - child.began)
        assert not answer["result"].get("isError"), answer
        child.close()
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", ONE_PROCESS, f"sqlite:///{home / 'mlflow.db'}"],
            env=environment, check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        processes.append(time.perf_counter() - began)
    return {
        "bare one-tool server, handshake, s (median, min)": f"{statistics.median(bare):.3f}, {min(bare):.3f}",
        "our handshake, s (median, min)": f"{statistics.median(handshakes):.3f}, {min(handshakes):.3f}",
        "handshake, ratio of medians (target 1.2)": statistics.median(handshakes) / statistics.median(bare),
        "handshake, ratio of minima": min(handshakes) / min(bare),
        "our first store-backed answer, s (median, min)": f"{statistics.median(answers):.3f}, {min(answers):.3f}",
        "one process: mcp + mlflow + get_experiment, s": f"{statistics.median(processes):.3f}, {min(processes):.3f}",
        "first answer, ratio of medians (target 1.0)": statistics.median(answers) / statistics.median(processes),
        "first answer, ratio of minima": min(answers) / min(processes),
    }


# --- calls ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(home: Path) -> Any:
    """Connect the SDK's client to our server as a child process."""
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    command = ours()
    parameters = StdioServerParameters(command=command[0], args=command[1:], env=environment_of(home))
    with Path(os.devnull).open("w") as silent:  # noqa: ASYNC230 - a device, opened once
        async with Client(stdio_client(parameters, errlog=silent), read_timeout_seconds=120) as client:
            yield client


async def call(client: Any, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool and return its structured content."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    structured: dict[str, Any] = result.structured_content
    return structured


def timed(work: Callable[[], object], rounds: int) -> list[float]:
    """Return the milliseconds of each round."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return times


async def timed_async(work: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """Return the milliseconds of each round."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        times.append((time.perf_counter() - began) * 1000)
    return times


def measure_calls(home: Path, _options: argparse.Namespace) -> Result:
    """p50 of single calls on the pipes against the in-process client on the same file, and many calls at once."""
    server = Child(ours(), environment_of(home))
    server.handshake()

    def ask(tool: str, **arguments: Any) -> dict[str, Any]:
        result = server.ask("tools/call", {"name": tool, "arguments": arguments})["result"]
        assert not result.get("isError"), result["content"]
        structured: dict[str, Any] = result["structuredContent"]
        return structured

    payload = {
        "params": {f"p{i}": str(i) for i in range(10)},
        "metrics": {f"m{i}": i / 7 for i in range(10)},
        "tags": {"kind": "bench"},
    }
    experiment = ask("create_experiment", name="bench")["experiment_id"]
    runs = [ask("log_run", experiment="bench", **payload)["run_id"] for _ in range(30)]
    run_id = runs[0]
    times = {
        "get_run": timed(lambda: ask("get_run", run_id=run_id), 300),
        "search_runs of 20": timed(lambda: ask("search_runs", experiment="bench"), 50),
        "compare_runs of 5": timed(lambda: ask("compare_runs", run_ids=runs[:5]), 50),
        "log_run": timed(lambda: ask("log_run", experiment="bench", **payload), 100),
        "an unknown tool, so nothing but the protocol": timed(
            lambda: server.ask("tools/call", {"name": "none", "arguments": {}}), 300
        ),
    }
    server.close()

    async def at_once() -> float:
        async with connected(home) as client:
            await call(client, "get_run", run_id=run_id)
            began = time.perf_counter()
            await asyncio.gather(*(call(client, "get_run", run_id=runs[i % 30]) for i in range(300)))
            return 300 / (time.perf_counter() - began)

    result: Result = {"get_run, 300 at once, calls per s": asyncio.run(at_once())}
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")

    def write() -> None:
        run = client.create_run(experiment)
        now = int(time.time() * 1000)
        client.log_batch(
            run.info.run_id,
            [Metric(f"m{i}", i / 7, now, 0) for i in range(10)],
            [Param(f"p{i}", str(i)) for i in range(10)],
            [RunTag("kind", "bench")],
        )
        client.set_terminated(run.info.run_id)

    client.get_run(run_id)
    direct = {
        "get_run": timed(lambda: client.get_run(run_id), 200),
        "search_runs of 20": timed(lambda: client.search_runs([experiment], max_results=20), 50),
        "log_run": timed(write, 100),
    }
    for name, served_times in times.items():
        ours_ms = statistics.median(served_times)
        line = f"{ours_ms:.2f}"
        if name in direct:
            client_ms = statistics.median(direct[name])
            line += f" (client {client_ms:.2f}, difference {ours_ms - client_ms:+.2f})"
        result[f"{name}, p50 ms through the server"] = line
    return result


# --- writers --------------------------------------------------------------------------------------------------


def measure_writers(home: Path, options: argparse.Namespace) -> Result:
    """64 callers through one server against 8 threads on the in-process client, each for the given seconds."""

    async def served() -> tuple[int, int, float]:
        done = failed = 0
        async with connected(home) as client:
            await call(client, "create_experiment", name="bench")
            await call(client, "log_run", experiment="bench")
            end = time.monotonic() + options.seconds

            async def caller(number: int) -> None:
                nonlocal done, failed
                while time.monotonic() < end:
                    try:
                        await call(
                            client, "log_run", experiment="bench", run_name=f"caller-{number}",
                            params={f"p{i}": str(i) for i in range(10)},
                            metrics={f"m{i}": i / 7 for i in range(10)}, tags={"kind": "bench"},
                        )  # fmt: skip
                        done += 1
                    except Exception:
                        failed += 1

            began = time.perf_counter()
            await asyncio.gather(*(caller(i) for i in range(64)))
            return done, failed, time.perf_counter() - began

    done, failed, seconds = asyncio.run(served())
    rate = done / seconds
    other = home / "client"
    other.mkdir()
    direct, errors = direct_writers(other, options.seconds)
    return {
        "64 callers through one server, runs per s": rate,
        "  failed": failed,
        "8 threads on the in-process client, runs per s": direct,
        "  failed ": errors,
        "ratio (target 0.9)": rate / direct,
    }


def direct_writers(folder: Path, seconds: float) -> tuple[float, int]:
    """Return runs per second and failures of 8 threads on MLflow's client, on a file as MLflow leaves it."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("bench", artifact_location=str(folder))
    counts = [0] * 8
    errors = [0] * 8
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        while time.monotonic() < end:
            try:
                run = client.create_run(experiment, run_name=f"thread-{number}")
                now = int(time.time() * 1000)
                client.log_batch(
                    run.info.run_id,
                    [Metric(f"m{i}", i / 7, now, 0) for i in range(10)],
                    [Param(f"p{i}", str(i)) for i in range(10)],
                    [RunTag("kind", "bench")],
                )
                client.set_terminated(run.info.run_id)
                counts[number] += 1
            except Exception:
                errors[number] += 1

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began), sum(errors)


# --- order ----------------------------------------------------------------------------------------------------


def measure_order(home: Path, options: argparse.Namespace) -> Result:
    """Best run by a metric among many, against the same query of MLflow's client on fresh statistics."""
    count = options.runs

    async def prepare() -> str:
        async with connected(home) as client:
            experiment: str = (await call(client, "create_experiment", name="bench"))["experiment_id"]
            return experiment

    experiment = asyncio.run(prepare())
    fill(home / "mlflow.db", experiment, count)

    async def served() -> list[float]:
        async with connected(home) as client:

            async def best() -> None:
                found = await call(
                    client, "search_runs", experiment="bench", order_by=["metrics.m0 DESC"], limit=1
                )  # fmt: skip
                assert len(found["runs"]) == 1

            return await timed_async(best, 12)

    times = asyncio.run(served())
    from mlflow.tracking import MlflowClient

    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        connection.execute("ANALYZE")
    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    direct = timed(lambda: client.search_runs([experiment], order_by=["metrics.m0 DESC"], max_results=1), 12)
    return {
        f"best of {count:,} runs, first call, ms": times[0],
        f"best of {count:,} runs, p50 ms": statistics.median(times[1:]),
        "the same query, MLflow's client, fresh statistics, p50 ms": statistics.median(direct[1:]),
        "ratio (target 1.3)": statistics.median(times[1:]) / statistics.median(direct[1:]),
    }


def fill(database: Path, experiment: str, count: int) -> None:
    """Insert finished runs with 5 metrics and 5 params each, as another client would have written them."""
    now = int(time.time() * 1000)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,"
            " end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)"
            " VALUES (?, ?, 'LOCAL', '', '', 'bench', 'FINISHED', ?, ?, '', 'active', ?, ?)",
            [(f"{i:032x}", f"run-{i}", now + i, now + i, f"/nowhere/{i}", experiment) for i in range(count)],
        )
        metrics = [(f"m{k}", (i * 7919 + k) % 10_007, now, f"{i:032x}", 0, 0) for i in range(count) for k in range(5)]
        for table in ("metrics", "latest_metrics"):
            connection.executemany(
                f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - two table names of ours
                metrics,
            )
        connection.executemany(
            "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
            [(f"p{k}", str(i % (k + 2)), f"{i:032x}") for i in range(count) for k in range(5)],
        )


# --- list -----------------------------------------------------------------------------------------------------


def measure_list(home: Path, _options: argparse.Namespace) -> Result:
    """Size of what an agent has to read before it can ask."""
    child = Child(ours(), environment_of(home))
    child.handshake()
    tools = child.ask("tools/list", {})["result"]["tools"]
    child.close()
    sizes = {t["name"]: len(json.dumps(t, ensure_ascii=False, separators=(",", ":"))) for t in tools}
    descriptions = [len(t["description"]) for t in tools]
    return {
        "tools": len(tools),
        "characters of compact JSON (limit 24,000)": sum(sizes.values()),
        "longest description (limit 400)": max(descriptions),
        "descriptions on average (limit 220)": sum(descriptions) / len(descriptions),
        "largest": max(sizes, key=lambda name: sizes[name]),
    }


PARTS: dict[str, Callable[[Path, argparse.Namespace], Result]] = {
    "start": measure_start,
    "calls": measure_calls,
    "writers": measure_writers,
    "order": measure_order,
    "list": measure_list,
    **bench_governance.PARTS,
    **bench_scans.PARTS,
}

if __name__ == "__main__":
    sys.exit(main())
