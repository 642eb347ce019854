"""Signed records of scans: only ours, only of a commit, only what was seen, and never in the scanner's way."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hostile import World

from intelligentscan._digest import sha256_hex
from intelligentscan.app import Services, build
from intelligentscan.domain.scan import ScanRun
from intelligentscan.gates.interface import ScanFacts
from intelligentscan.services.review_facts import scan_facts
from intelligentscan.settings import Settings
from intelligentscan.stores.interface import Stores

if TYPE_CHECKING:
    from mlflow import MlflowClient

IDENTITY = {f"GIT_{who}_{what}": "dev@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
WEAK = "import subprocess\n\n\ndef run(command):\n    return subprocess.run(command, shell=True)\n"
CLEAN = "def one():\n    return 1\n"
QUIET = "import subprocess\n\n\ndef run(command):\n    return subprocess.run(command, shell=True)  # nosec  # noqa\n"


def git(folder: Path, *arguments: str) -> str:
    program = shutil.which("git")
    assert program is not None
    done = subprocess.run([program, *arguments], cwd=folder, env=IDENTITY, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, **files: str) -> str:
    """Write files, commit everything, and return the commit."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main")
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".py").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", "change")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repo(project: Path) -> Path:
    return project / "secret-repository"


def facts_of(commit: str) -> Callable[[Stores], ScanFacts | None]:
    def look(stores: Stores) -> ScanFacts | None:
        with stores.governance.reading() as read:
            return scan_facts(read, commit)

    return look


async def facts(services: Services, commit: str) -> ScanFacts | None:
    """Return what a gate hears about scans of a commit."""
    return await services.store.read(facts_of(commit))


async def recorded(services: Services) -> list[Any]:
    """Return the records of scans, the oldest first."""
    found = (await services.history.get(limit=100)).events
    return [e for e in reversed(found) if e.action == "scan.recorded"]


def serious(run: ScanRun) -> int:
    return run.severities["critical"] + run.severities["high"]


def warned(run: ScanRun) -> list[str]:
    return [w for w in run.warnings if "cannot serve as evidence" in w]


async def test_a_scan_of_a_clean_commit_is_recorded_with_what_is_open_in_it(services: Services, repo: Path) -> None:
    weak = commit(repo, weak=WEAK, quiet=QUIET)
    run = await services.scans.scan(str(repo))
    assert serious(run) > 0
    found = await facts(services, weak)
    assert found is not None
    assert (found.run_id, found.clean, found.complete) == (run.run_id, True, True)
    assert (found.critical, found.high) == (run.critical_count, run.severities["high"])
    assert found.suppressed > 0
    (event,) = await recorded(services)
    assert (event.run_id, found.at // 1000 > 0) == (run.run_id, True)
    assert warned(run) == []
    assert "secret-repository" not in event.model_dump_json()
    assert str(repo) not in event.model_dump_json()
    mended = commit(repo, weak=CLEAN, quiet=CLEAN)
    await services.scans.scan(str(repo))
    after = await facts(services, mended)
    assert after is not None
    assert (after.critical, after.high) == (0, 0)
    assert (await services.integrity.verify()).ok


async def test_the_record_holds_the_digest_of_the_report(services: Services, repo: Path) -> None:
    commit(repo, weak=WEAK)
    run = await services.scans.scan(str(repo))

    def look(stores: Stores) -> tuple[str, bytes]:
        with stores.governance.reading() as read:
            record = read.tables.scan_record
            digest = read.connection.execute(record.select().with_only_columns(record.c.sarif_digest)).scalar_one()
        logged = stores.tracking.get_run(run.run_id)
        assert logged is not None
        return digest, stores.tracking.read_artifact(logged, "sarif/combined.sarif", 10**7) or b""

    digest, report = await services.store.read(look)
    assert digest == sha256_hex(report)


async def test_what_was_not_all_of_a_commit_is_recorded_as_such_and_does_not_hide_what_was(
    services: Services, repo: Path
) -> None:
    made = commit(repo, ok=CLEAN, sub__ok=CLEAN)
    whole = await services.scans.scan(str(repo))
    config = repo.parent / "narrow.yaml"
    config.write_text("name: narrow\nengines: {bandit: {ignore: [B602]}, ruff: {}}\n")
    for less in (
        {"repo_path": str(repo / "sub")},
        {"repo_path": str(repo), "engines": ["ruff"]},
        {"repo_path": str(repo), "config": str(config)},
    ):
        await services.scans.scan(**less, use_cache=False)  # type: ignore[arg-type]
        found = await facts(services, made)
        assert found is not None
        assert (found.run_id, found.complete) == (whole.run_id, True)
    (repo / "ok.py").write_text(WEAK)
    dirty = await services.scans.scan(str(repo), use_cache=False)
    assert serious(dirty) > 0
    found = await facts(services, made)
    assert found is not None
    assert (found.run_id, found.clean, found.critical) == (whole.run_id, True, 0)
    git(repo, "checkout", "-q", ".")
    newest = await services.scans.scan(str(repo), use_cache=False)
    assert (await facts(services, made)).run_id == newest.run_id  # type: ignore[union-attr]
    assert len(await recorded(services)) == 6


@pytest.mark.parametrize(
    ("less", "clean", "complete"),
    [({"engines": ["bandit"]}, True, False), ({"repo_path": "sub"}, True, False), ({"changed": True}, False, True)],
    ids=["one engine", "a subfolder", "changed since"],
)
async def test_a_gate_hears_of_such_a_scan_if_there_is_no_better_one(
    services: Services, repo: Path, less: dict[str, Any], clean: bool, complete: bool
) -> None:
    made = commit(repo, ok=CLEAN, sub__ok=CLEAN)
    if less.pop("changed", False):
        (repo / "new.py").write_text(CLEAN)
    await services.scans.scan(str(repo / less.pop("repo_path", ".")), **less)
    found = await facts(services, made)
    assert found is not None
    assert (found.clean, found.complete) == (clean, complete)


async def test_nothing_is_recorded_of_other_scanners_and_of_folders_without_a_commit(
    services: Services, repo: Path, client: "MlflowClient"
) -> None:
    repo.mkdir()
    (repo / "weak.py").write_text(WEAK)
    run = await services.scans.scan(str(repo))
    made = commit(repo)
    document = {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "Other"}}, "results": []}]}
    imported = await services.scans.log(
        "imports", sarif=document, repo_path=str(repo), tags={"team": "red"}, create_missing=True
    )
    for key, value in (("intelligentscan.kind", "scan"), ("mlflow.source.git.commit", made)):
        client.set_tag(imported.run_id, key, value)
    client.log_metric(imported.run_id, "findings.critical", 0)
    assert await recorded(services) == []
    assert await facts(services, made) is None
    assert warned(run) == warned(imported) == []


async def test_repeating_a_scan_with_its_key_records_nothing_more(services: Services, repo: Path) -> None:
    commit(repo, ok=CLEAN)
    runs = [await services.scans.scan(str(repo), idempotency_key="k") for _ in range(2)]
    assert [run.created for run in runs] == [True, False]
    assert len(await recorded(services)) == 1


@pytest.mark.parametrize("what", ["no key", "guards away", "not governed"])
async def test_a_scan_that_cannot_be_recorded_succeeds_and_says_that_it_is_no_evidence(
    own: World, tmp_path: Path, what: str
) -> None:
    made = commit(tmp_path / "repo", weak=WEAK)
    services = own.services
    if what == "no key":
        services = own.services_with(home=tmp_path / "other", archive=own.home / "archive")
    elif what == "guards away" and own.sqlite:
        (name,) = own.sql(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'gov_seal'", owner=True
        )[0]
        own.sql(f'DROP TRIGGER "{name}"', owner=True)
    elif what == "guards away":
        own.sql("ALTER TABLE gov.seal DISABLE TRIGGER ALL", owner=True)
    else:
        services = build(Settings(home=tmp_path / "bare", tracking_uri=_bare(tmp_path)), anywhere=True)
    run = await services.scans.scan(str(tmp_path / "repo"), experiment="scans", create_missing=True)
    assert (run.created, serious(run) > 0) == (True, True)
    if what == "not governed":
        assert warned(run) == []  # nothing asks for evidence there
    else:
        (said,) = warned(run)
        assert "key" in said or "guards" in said
        assert await facts(own.services, made) is None


def _bare(folder: Path) -> str:
    """Return a store that plain MLflow has made, which nobody governs."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"sqlite:///{folder}/bare.db"
    SqlAlchemyStore(uri, str(folder / "artifacts")).engine.dispose()
    return uri


async def test_a_record_that_no_event_made_is_no_evidence_and_is_reported(own: World) -> None:
    """An invented scan of the run's commit, the newest and the cleanest."""
    last = own.sql(f"SELECT max(seq) FROM {own.gov('event')}", owner=True)[0][0]  # noqa: S608
    row = {
        "event": last, "run_id": own.ids.run, "experiment_id": int(own.ids.fraud), "commit_id": "c" * 40, "clean": 1,
        "complete": 1, "critical": 0, "high": 0, "suppressed": 0, "sarif_digest": "0" * 64,
    }  # fmt: skip
    columns, marks = ", ".join(row), ", ".join("?" for _ in row)
    statement = f"INSERT INTO {own.gov('scan_record')} ({columns}) VALUES ({marks})"  # noqa: S608
    own.sql(statement, *row.values(), owner=True)
    assert await facts(own.services, "c" * 40) is None
    assert "RECORD" in await own.problems()


async def test_a_repository_with_submodules_is_never_scanned_as_a_whole(services: Services, repo: Path) -> None:
    commit(repo.parent / "other", weak=WEAK)
    other = git(repo.parent / "other", "rev-parse", "HEAD")
    commit(repo, ok=CLEAN)
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{other},other")
    (repo / "other").mkdir()
    git(repo, "commit", "-q", "-m", "a submodule, not checked out")
    await services.scans.scan(str(repo))
    found = await facts(services, git(repo, "rev-parse", "HEAD"))
    assert found is not None
    assert (found.clean, found.complete, found.high) == (True, False, 0)
