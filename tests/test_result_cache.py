"""Results of earlier scans: the same findings with less work, nothing in clear, nothing believed, never evidence."""

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_targets import LIGHT, TARGET, write
from planted_secrets import Planted
from test_scan_evidence import CLEAN, WEAK, commit, facts, recorded, repo, warned  # noqa: F401 - repo is a fixture

from intelligentscan.app import Services, build
from intelligentscan.domain.errors import EngineMissing
from intelligentscan.scanners import cache_store, child_engine, result_cache
from intelligentscan.scanners.bandit import Bandit
from intelligentscan.scanners.cache_store import AT_ONCE, FILE, CacheStore
from intelligentscan.scanners.config import EngineConfig, RuleSource, ScanConfig
from intelligentscan.scanners.engines import ENGINES
from intelligentscan.scanners.findings_file import findings_digest
from intelligentscan.scanners.interface import EngineFacts, ScanReport
from intelligentscan.scanners.result_cache import ResultCache
from intelligentscan.scanners.scan import scan_folder
from intelligentscan.services import scan_evidence
from intelligentscan.services.scan_evidence import ScanEvidence
from intelligentscan.settings import Settings

MIB = 2**20
BOTH = ScanConfig.of_engines(["bandit", "ruff"])
RUFF = ScanConfig.of_engines(["ruff"])
FILES: dict[str, str | bytes] = {
    "a.py": "value = eval(input())\n",
    "lib/b.py": "import pickle\n\n\ndef load(data):\n    return pickle.loads(data)\n",
    "lib/quiet.py": "value = eval(input())  # nosec  # noqa\n",
    "ok.py": "x = 1\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path.resolve() / "target", FILES)


@pytest.fixture
def store(tmp_path: Path) -> CacheStore:
    return CacheStore(tmp_path / "home", 50 * MIB)


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the copies that engines were started on, one for each call and file."""
    found: list[str] = []
    real = child_engine.run

    async def run(command: Sequence[str], **more: Any) -> Any:
        found.extend(argument for argument in command if "/files/" in argument)
        return await real(command, **more)

    monkeypatch.setattr(child_engine, "run", run)
    return found


async def scanned(
    root: Path, store: CacheStore | None, config: ScanConfig = BOTH, product: str | None = None
) -> ScanReport:
    return await scan_folder(root, config, cache=ResultCache(store, product) if store is not None else None)


def logged(report: ScanReport) -> tuple[Any, ...]:
    """Return all of a report that does not say when and how long its engines ran."""
    document = json.loads(json.dumps(report.sarif))
    for run in document["runs"]:
        for invocation in run["invocations"]:
            for when in ("startTimeUtc", "endTimeUtc", "exitCode"):
                invocation.pop(when, None)
    own = {"duration_s": 0.0, "exit_code": None, "files_cached": 0}
    return (
        findings_digest(report.findings),
        report.findings,
        json.dumps(document),
        report.status,
        report.rules_run,
        report.failed_files,
        report.sketches,
        report.warnings,
        (report.files_analyzed, report.files_failed, report.lines),
        [coverage.model_copy(update=own) for coverage in report.coverage],
    )


def cached(report: ScanReport) -> dict[str, int]:
    return {coverage.engine: coverage.files_cached for coverage in report.coverage}


def file_of(store: CacheStore) -> Path:
    return store._folder / FILE


def opened(store: CacheStore) -> Any:
    return closing(sqlite3.connect(file_of(store), isolation_level=None))


async def test_a_rescan_of_an_unchanged_folder_starts_no_engine_and_logs_the_same(
    root: Path, store: CacheStore, analysed: list[str]
) -> None:
    write(root, {"bad.py": "def f(:\n", "odd.py": b"# coding: latin-1\nname = '\xe9'\nexec(name)\n"})
    without = await scanned(root, None)
    cold = await scanned(root, store)
    analysed.clear()
    warm = await scanned(root, store)
    assert analysed == []
    assert logged(warm) == logged(cold) == logged(without)
    assert (cold.files_cached, warm.files_cached) == (0, 6)
    assert cached(warm) == {"bandit": 6, "ruff": 6}
    assert any(finding.suppressed for finding in warm.findings)
    assert warm.status == "partial"


async def test_every_engine_that_is_cached_says_the_same_of_a_file_again(
    tmp_path: Path, store: CacheStore, analysed: list[str]
) -> None:
    for name in LIGHT:
        try:
            ENGINES[name].program()
        except EngineMissing:
            pytest.skip(f"the engine {name} is not installed")
    assert {name for name, engine in ENGINES.items() if engine.per_file} == {"bandit", "ruff", *LIGHT}
    root = write(tmp_path.resolve() / "target", TARGET)
    config = ScanConfig.of_engines(list(LIGHT))
    cold = await scanned(root, store, config)
    assert {finding.engine for finding in cold.findings} == set(LIGHT)
    analysed.clear()
    warm = await scanned(root, store, config)
    assert (analysed, logged(warm)) == ([], logged(cold))
    (root / "web.js").write_text("\n\neval(text);\neval(other);\n")
    assert logged(await scanned(root, store, config)) == logged(await scanned(root, None, config))


async def test_only_what_changed_is_analysed_and_the_rest_is_as_in_a_scan_of_everything(
    root: Path, store: CacheStore, analysed: list[str]
) -> None:
    await scanned(root, store)
    write(root, {"lib/b.py": "import os\nos.system(input())\n", "new.py": "exec(input())\n"})
    (root / "ok.py").unlink()
    analysed.clear()
    warm = await scanned(root, store)
    assert len(analysed) == 4  # two files, two engines
    assert cached(warm) == {"bandit": 2, "ruff": 2}
    assert logged(warm) == logged(await scanned(root, None))


async def test_a_password_that_one_file_names_is_taken_out_of_the_others_whichever_of_them_is_cached(
    root: Path, store: CacheStore
) -> None:
    secret = "hunter2" + "correcthorse"
    names = {"named.py": f'password = "{secret}"\n', "shows.py": f'eval("{secret}")\n'}
    write(root, names)
    await scanned(root, store)
    for changed in names:
        write(root, {changed: f"\n{names[changed]}"})
        warm = await scanned(root, store)
        assert cached(warm) == {"bandit": 5, "ruff": 5}
        assert logged(warm) == logged(await scanned(root, None))
        assert secret not in repr(warm)
        await scanned(root, store)


RULES = """id: {id}
language: Python
severity: error
message: Text is run as code.
rule: {{pattern: eval($X)}}
"""


def _other_facts(monkeypatch: pytest.MonkeyPatch, **change: Any) -> None:
    real = Bandit.facts

    async def changed(self: Bandit, *arguments: Any) -> EngineFacts:
        return replace(await real(self, *arguments), **change)

    monkeypatch.setattr(Bandit, "facts", changed)


def _options(name: str, **options: Any) -> ScanConfig:
    return ScanConfig(engines={**BOTH.engines, name: EngineConfig(**options)})


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (lambda root, patch: {}, {"bandit": 4, "ruff": 4}),
        (lambda root, patch: {"product": "loans"}, {"bandit": 0, "ruff": 0}),
        (lambda root, patch: {"config": _options("bandit", ignore=("B101",))}, {"bandit": 0, "ruff": 4}),
        (lambda root, patch: {"config": _options("ruff", select=("S1",))}, {"bandit": 4, "ruff": 0}),
        (lambda root, patch: {"config": _options("ruff", memory_mb=2048)}, {"bandit": 4, "ruff": 0}),
        (lambda root, patch: _other_facts(patch, version="1.0.0") or {}, {"bandit": 0, "ruff": 4}),
        (lambda root, patch: _other_facts(patch, python_version="3.9.1") or {}, {"bandit": 0, "ruff": 4}),
        (lambda root, patch: _other_facts(patch, rules=("B102", "B307")) or {}, {"bandit": 0, "ruff": 4}),
        (lambda root, patch: patch.setattr(result_cache, "FORMAT", 0) or {}, {"bandit": 0, "ruff": 0}),
        (lambda root, patch: patch.setattr(result_cache, "_code_digest", str) or {}, {"bandit": 0, "ruff": 0}),
        (lambda root, patch: patch.setattr(result_cache, "FINGERPRINT_VERSION", "") or {}, {"bandit": 0, "ruff": 0}),
        (lambda root, patch: (root / "a.py").write_text("value = 2\n") and {}, {"bandit": 3, "ruff": 3}),
        (lambda root, patch: (root / "a.py").rename(root / "test_a.py") and {}, {"bandit": 3, "ruff": 3}),
        (lambda root, patch: (root.parent / "home" / "local.key").unlink() or {}, {"bandit": 0, "ruff": 0}),
    ],
    ids=[
        "nothing", "product", "ignored rule", "selected rules", "limits", "engine version", "python version",
        "known rules", "format", "our code", "fingerprints", "content", "path", "key",
    ],
)  # fmt: skip
async def test_whatever_an_entry_depends_on_makes_it_another_entry(
    root: Path,
    store: CacheStore,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, pytest.MonkeyPatch], dict[str, Any]],
    known: dict[str, int],
) -> None:
    await scanned(root, store)
    report = await scanned(root, store, **(change(root, monkeypatch) or {}))
    assert cached(report) == known


async def test_other_rules_of_an_engine_make_another_entry_and_the_same_elsewhere_do_not(
    root: Path, store: CacheStore, tmp_path: Path
) -> None:
    try:
        ENGINES["ast-grep"].program()
    except EngineMissing:
        pytest.skip("the engine ast-grep is not installed")
    rules = write(tmp_path / "rules", {"eval.yml": RULES.format(id="eval")})

    async def known() -> int:
        engines = {"ast-grep": EngineConfig(rules=(RuleSource(path=str(rules)),))}
        return cached(await scanned(root, store, ScanConfig(engines=engines)))["ast-grep"]

    assert (await known(), await known()) == (0, 4)
    write(rules, {"eval.yml": RULES.format(id="other")})
    assert await known() == 0


async def test_what_a_limit_ended_is_tried_again(
    root: Path, store: CacheStore, analysed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = child_engine.run

    async def hurried(command: Sequence[str], **more: Any) -> Any:
        if any("/files/" in argument for argument in command) and "bandit" in command:
            more["timeout_s"] = 0.001
        return await real(command, **more)

    monkeypatch.setattr(child_engine, "run", hurried)
    assert (await scanned(root, store)).status == "partial"
    monkeypatch.setattr(child_engine, "run", real)
    analysed.clear()
    again = await scanned(root, store)
    assert (cached(again), len(analysed)) == ({"bandit": 0, "ruff": 4}, 5)  # one of them once more, for its nosec
    assert logged(again) == logged(await scanned(root, None))


def _flip(store: CacheStore) -> None:
    with opened(store) as connection:
        connection.execute("UPDATE entry SET sealed = substr(sealed, 1, 20) || x'ff' || substr(sealed, 22)")


def _swap(store: CacheStore) -> None:
    with opened(store) as connection:
        rows = connection.execute("SELECT name, sealed FROM entry ORDER BY name").fetchall()
        exchanged = [(rows[number - 1][1], name) for number, (name, _) in enumerate(rows)]
        connection.executemany("UPDATE entry SET sealed = ? WHERE name = ?", exchanged)


def _no_blobs(store: CacheStore) -> None:
    with opened(store) as connection:
        connection.execute("UPDATE entry SET sealed = 'text', used = 'never'")


def _no_table(store: CacheStore) -> None:
    with opened(store) as connection:
        connection.execute("DROP TABLE entry")


def _foreign(store: CacheStore) -> None:
    file_of(store).unlink()
    with opened(store) as connection:
        connection.execute("CREATE TABLE notes (text)")


def _link(store: CacheStore) -> None:
    elsewhere = store._folder.parent / "elsewhere"
    elsewhere.write_text("mine")
    file_of(store).unlink()
    file_of(store).symlink_to(elsewhere)


def _truncate(store: CacheStore) -> None:
    os.truncate(file_of(store), 5_000)


@pytest.mark.parametrize(
    "damage",
    [
        _flip, _swap, _no_blobs, _no_table, _foreign, _link, _truncate,
        lambda store: file_of(store).write_bytes(b"no database at all" * 1000),
        lambda store: file_of(store).write_bytes(b""),
        lambda store: file_of(store).unlink(),
    ],
    ids=[
        "changed entries", "exchanged entries", "other types", "no table", "a foreign database", "a link", "truncated",
        "no database", "empty", "removed",
    ],
)  # fmt: skip
async def test_a_damaged_cache_is_no_cache_and_is_in_order_again_after_the_scan(
    root: Path, store: CacheStore, damage: Callable[[CacheStore], None]
) -> None:
    cold = await scanned(root, store, RUFF)
    damage(store)
    damaged = await scanned(root, store, RUFF)
    assert (cached(damaged), logged(damaged)) == ({"ruff": 0}, logged(cold))
    for _ in range(2):  # what was found broken while it was written is thrown away then
        warm = await scanned(root, store, RUFF)
    assert (cached(warm), logged(warm)) == ({"ruff": 4}, logged(cold))
    if damage is _link:
        assert (store._folder.parent / "elsewhere").read_text() == "mine"


def test_the_cache_is_for_its_owner_alone(store: CacheStore) -> None:
    os.umask(os.umask(0o022))
    store.put({b"name": b"value"})
    store._folder.chmod(0o755)
    file_of(store).chmod(0o644)
    assert store.get([b"name"]) == {b"name": b"value"}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (store._folder, *store._folder.iterdir())}
    assert modes.pop("cache") == 0o700
    assert set(modes.values()) == {0o600}


def test_a_key_that_is_open_to_others_switches_the_cache_off(store: CacheStore) -> None:
    store.put({b"name": b"value"})
    (store._home / "local.key").chmod(0o644)
    assert store.get([b"name"]) == {}
    (store._home / "local.key").chmod(0o600)
    assert store.get([b"name"]) == {b"name": b"value"}


def test_the_cache_stays_within_its_bound_and_drops_what_was_not_used_for_longest(tmp_path: Path) -> None:
    hours = iter(range(1_000_000))
    store = CacheStore(tmp_path / "home", 2 * MIB, clock=lambda: next(hours) * 3600.0 * 2)
    kept = {b"kept %d" % number: os.urandom(10_000) for number in range(5)}
    store.put(kept)
    for start in range(0, 1000, 50):
        store.put({b"%d" % number: os.urandom(10_000) for number in range(start, start + 50)})
        assert store.get(list(kept)) == kept
        assert sum(path.stat().st_size for path in store._folder.iterdir()) < 6 * MIB
    assert file_of(store).stat().st_size <= 3 * MIB
    assert store.get([b"%d" % number for number in range(500)]) == {}
    assert len(store.get([b"%d" % number for number in range(900, 1000)])) > 80
    store.put({b"huge": bytes(3 * MIB)})
    assert store.get([b"huge", *kept]) == kept


def test_entries_are_looked_up_and_kept_in_large_groups(store: CacheStore, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 3 * AT_ONCE
    values = {b"%d" % number: b"value" for number in range(count)}
    store.put(values)
    statements: list[str] = []
    real = sqlite3.connect

    def connect(*arguments: Any, **more: Any) -> sqlite3.Connection:
        connection = real(*arguments, **more)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(cache_store.sqlite3, "connect", connect)
    assert store.get(list(values)) == values
    assert sum(statement.startswith("SELECT") for statement in statements) == 3
    assert not any(statement.startswith(("UPDATE", "DELETE", "BEGIN")) for statement in statements)
    statements.clear()
    store.put(values)
    assert statements.count("COMMIT") == 3


WRITER = """
import os, sys
from pathlib import Path
from intelligentscan.scanners.cache_store import CacheStore
store, who, rounds = CacheStore(Path(sys.argv[1]), 2**20), sys.argv[2], int(sys.argv[3])
for number in range(rounds):
    mine = {f"{who} {number} {i}".encode(): os.urandom(2_000) for i in range(40)}
    store.put(mine)
    assert all(mine[name] == value for name, value in store.get(list(mine)).items())
    print(number, flush=True)
print(len(store.get([f"{who} {rounds - 1} {i}".encode() for i in range(40)])), flush=True)
"""


def _writer(store: CacheStore, who: str, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(store._home), who, str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _in_order(store: CacheStore) -> bool:
    with opened(store) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def test_processes_at_once_share_the_cache(store: CacheStore) -> None:
    """All start on an installation that has neither folder, file nor key."""
    writers = [_writer(store, who, 30) for who in ("one", "two", "three")]
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert (writer.returncode, err) == (0, "")
        assert int(out.split()[-1]) > 0
    assert _in_order(store)


def test_a_process_that_is_killed_while_it_writes_leaves_the_cache_in_order(store: CacheStore) -> None:
    store.put({b"name": b"value"})
    for number in range(3):
        writer = _writer(store, f"writer {number}", 1_000_000)
        assert writer.stdout is not None
        for _ in range(3 + number):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        store.put({b"name": b"%d" % number})
        assert store.get([b"name"]) == {b"name": b"%d" % number}
        assert _in_order(store)


async def test_secrets_of_scanned_files_are_not_in_the_bytes_of_the_cache(
    root: Path, store: CacheStore, analysed: list[str]
) -> None:
    planted = Planted(7)
    values = [value for kind in planted.values.values() for value in kind]
    lines = [f"password_{number} = {value!r}  # {value}\n" for number, value in enumerate(values)]
    write(root, {"secrets.py": "".join(f"{line}eval({value!r})\n" for line, value in zip(lines, values, strict=True))})
    write(root, {"marked.py": "distinctive_marker = eval('distinctive text')\n"})
    engines = ["bandit", "ruff"] + (["detect-secrets"] if shutil.which("detect-secrets", path=_scripts()) else [])
    config = ScanConfig.of_engines(engines)
    await scanned(root, store, config)
    analysed.clear()
    warm = await scanned(root, store, config)
    assert (analysed, warm.files_cached) == ([], 6)
    stored = b"".join(path.read_bytes() for path in store._folder.iterdir())
    assert len(stored) > 5_000
    for text in (*values, "distinctive", "password", "secrets.py"):
        assert text.encode() not in stored
    assert not any(value in repr(warm) for value in values)


def _scripts() -> str:
    return str(Path(sys.executable).parent)


@pytest.fixture
def files_cached(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files of each scan came from the cache."""
    found: list[int] = []
    real = ScanEvidence.record

    async def record(self: ScanEvidence, run: Any, report: ScanReport, artifacts: Path) -> str | None:
        found.append(report.files_cached)
        return await real(self, run, report, artifacts)

    monkeypatch.setattr(ScanEvidence, "record", record)
    return found


async def test_evidence_is_made_without_the_cache_and_rescans_with_it_leave_it_alone(
    services: Services,
    repo: Path,  # noqa: F811
    files_cached: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit(repo, ok=CLEAN)
    (repo / "weak.py").write_text(WEAK)
    await services.scans.scan(str(repo))
    await services.scans.scan(str(repo))  # still not committed
    made = commit(repo)
    evidence = await services.scans.scan(str(repo))
    again = await services.scans.scan(str(repo))
    forced = await services.scans.scan(str(repo), use_cache=False)
    assert files_cached == [0, 2, 0, 2, 0]
    found = await facts(services, made)
    assert found is not None
    assert (found.run_id, found.clean, found.complete) == (forced.run_id, True, True)
    assert [fact for fact in await recorded(services) if again.run_id in repr(fact)] == []
    assert warned(evidence) == warned(again) == warned(forced) == []
    monkeypatch.setattr(scan_evidence, "_STANDS_MS", 0)  # the record is an old one now
    newest = await services.scans.scan(str(repo))
    assert files_cached[-1] == 0
    assert (await facts(services, made)).run_id == newest.run_id  # type: ignore[union-attr]


async def test_a_record_of_other_engines_does_not_stand_in(
    services: Services,
    repo: Path,  # noqa: F811
    files_cached: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = commit(repo, ok=CLEAN)
    first = await services.scans.scan(str(repo))
    _other_facts(monkeypatch, version="99.0")
    second = await services.scans.scan(str(repo))
    assert files_cached == [0, 0]
    found = await facts(services, made)
    assert found is not None
    assert found.run_id == second.run_id != first.run_id


async def test_a_scan_that_used_the_cache_is_not_recorded_even_if_the_commit_turns_out_to_be_clean(
    services: Services,
    repo: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit(repo, ok=CLEAN)
    (repo / "weak.py").write_text(WEAK)
    await services.scans.scan(str(repo))
    made = commit(repo)

    async def dirty_before(*_: object) -> bool:
        return False

    monkeypatch.setattr(ScanEvidence, "is_wanted", dirty_before)
    run = await services.scans.scan(str(repo))
    (said,) = warned(run)
    assert "--no-cache" in said
    assert await facts(services, made) is None


async def test_products_share_no_results(services: Services, project: Path, files_cached: list[int]) -> None:
    write(project, FILES)
    await services.experiments.create("plain")
    await services.experiments.create("loans", product="loans")
    for experiment in ("plain", "loans", "loans", "plain"):
        await services.scans.scan(str(project), experiment=experiment)
    assert files_cached == [0, 0, 4, 4]


async def test_a_size_of_zero_switches_the_cache_off(home: Path, project: Path, files_cached: list[int]) -> None:
    write(project, FILES)
    services = build(Settings(home=home, allowed_roots=(project,), scan_cache_mb=0))
    for _ in range(2):
        await services.scans.scan(str(project))
    assert files_cached == [0, 0]
    assert not (home / "cache").exists()
