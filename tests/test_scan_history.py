"""Scans of one folder over time, as services log them: replayed commits, rescans, what comes back, why it is so."""

import json
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scan_world import FOUND, HELPER, VAULT, committed, git, write

from intelligentscan.app import Services
from intelligentscan.domain.errors import StoreBroken
from intelligentscan.domain.scan import FindingRow, ScanRun
from intelligentscan.services.scan_changes import StoredChanges

if TYPE_CHECKING:
    from mlflow import MlflowClient

REPOSITORY = Path(__file__).parents[1]
STEPS = 10
TREE = "tests"


@pytest.fixture
def repo(project: Path) -> Path:
    return write(project / "repo", {"vault.py": VAULT, "helper.py": HELPER})


def commits_of_this_repository() -> list[str]:
    """Return the last commits, the oldest first; fewer in a shallow clone, none outside of one."""
    command = ["git", "log", "--first-parent", f"-{STEPS}", "--format=%H", "--", TREE]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.split()[::-1] if done.returncode == 0 else []


def this_repository(folder: Path) -> Iterator[None]:
    """Put one commit after the other of this repository's own tests into the folder."""
    commits = commits_of_this_repository()
    if len(commits) < STEPS:
        pytest.skip(f"this clone knows fewer than {STEPS} commits; sources are replayed instead")
    for commit in commits:
        archive = folder.with_suffix(".tar")
        git(REPOSITORY, "archive", "--format=tar", f"--output={archive}", commit, TREE)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
        yield


def replayed_sources(folder: Path) -> Iterator[None]:
    """Make commits of real files: added, edited, renamed, moved into folders, cut and deleted at random."""
    rng = random.Random(5)
    sources = sorted((REPOSITORY / TREE).glob("test_*.py"))
    rng.shuffle(sources)
    for path in sources[:8]:
        (folder / path.name).write_bytes(path.read_bytes())
    committed(folder)
    yield
    for step in range(STEPS - 1):
        there = sorted(folder.rglob("*.py"))
        edited, renamed, cut = rng.sample(there, 3)
        edited.write_text("# one more line\n" * 9 + edited.read_text().replace("assert len(", "assert  len("))
        write(folder, {f"part{step}/{renamed.name}": renamed.read_text() + "\n\nassert renamed\n"})
        renamed.unlink()
        cut.write_text("".join(line for line in cut.read_text().splitlines(keepends=True) if "assert x" not in line))
        (folder / f"new_{step}.py").write_bytes(sources[8 + step].read_bytes())
        if step % 3 == 2:
            rng.choice(sorted(folder.rglob("*.py"))).unlink()
        committed(folder)
        yield


@pytest.mark.parametrize("history", [this_repository, replayed_sources], ids=lambda h: h.__name__)
async def test_over_ten_commits_new_minus_fixed_is_the_change_of_the_total(
    services: Services, project: Path, client: "MlflowClient", history: Callable[[Path], Iterator[None]]
) -> None:
    folder = project / "history"
    folder.mkdir()
    scans: list[ScanRun] = []
    moved = 0.0
    for _ in history(folder):
        scans.append(await services.scans.scan(str(folder), engines=["ruff"]))
        metrics = client.get_run(scans[-1].run_id).data.metrics
        if len(scans) > 1:
            earlier, now = scans[-2], scans[-1]
            new, fixed, persisting = now.new or 0, now.fixed or 0, now.persisting or 0
            assert now.baseline_run_id == earlier.run_id
            assert now.not_comparable == 0
            total = now.vulnerabilities_found
            assert new - fixed - metrics["compare.suppressed"] == total - earlier.vulnerabilities_found
            assert new + persisting == total
            assert metrics["compare.moved"] <= persisting
            moved += metrics["compare.moved"]
    assert len(scans) == STEPS
    assert scans[-1].vulnerabilities_found > 100
    if history is replayed_sources:
        assert moved > 0

    compared = await services.comparisons.compare(run_ids=[scan.run_id for scan in scans])
    assert compared.findings is not None
    assert [(c.new, c.fixed, c.persisting) for c in compared.findings.changes] == [
        (scan.new, scan.fixed, scan.persisting) for scan in scans[1:]
    ]
    assert sum(change.moved for change in compared.findings.changes) == moved


async def test_a_rescan_of_one_commit_changes_nothing_and_has_the_same_digest(
    services: Services, repo: Path, client: "MlflowClient"
) -> None:
    committed(repo)
    scans = [await services.scans.scan(str(repo)) for _ in range(2)]
    (repo / "vault.py").write_text("# one line more\n" + VAULT)
    scans.append(await services.scans.scan(str(repo), engines=["ruff"]))

    first, second, edited = (client.get_run(scan.run_id).data.params["findings_digest"] for scan in scans)
    assert (scans[1].new, scans[1].fixed, scans[1].not_comparable) == (0, 0, 0)
    assert scans[1].persisting == scans[0].vulnerabilities_found > FOUND
    assert first == second != edited
    assert len(first) == 64
    unique = client.get_run(scans[0].run_id).data.metrics["findings.unique"]
    assert unique == FOUND + 1 < scans[0].vulnerabilities_found


async def test_a_partial_scan_never_reports_fixed(services: Services, repo: Path) -> None:
    await services.scans.scan(str(repo), engines=["ruff"])
    write(repo, {"vault.py": VAULT.replace("eval(text)", "int(text)"), "broken.py": "def f(:\n"})
    (repo / "helper.py").unlink()
    partial = await services.scans.scan(str(repo), engines=["ruff"])
    (repo / "broken.py").unlink()
    again = await services.scans.scan(str(repo), engines=["ruff"])

    assert partial.scan_status == "partial"
    assert (partial.new, partial.fixed, partial.persisting, partial.not_comparable) == (0, 0, FOUND - 2, 2)
    rows = (await services.scans.findings(partial.run_id, state="not_comparable")).findings
    assert {row.reason for row in rows} == {"the second scan is partial, and nothing counts as fixed in a partial scan"}
    assert (again.new, again.fixed, again.persisting) == (0, 0, FOUND - 2)


async def rows_of(services: Services, scan: ScanRun) -> dict[str, FindingRow]:
    return {row.rule: row for row in (await services.scans.findings(scan.run_id)).findings}


async def test_the_list_of_findings_says_how_each_was_recognised_and_where_it_was(
    services: Services, repo: Path
) -> None:
    committed(repo)
    await services.scans.scan(str(repo), engines=["ruff"])
    (repo / "vault.py").rename(repo / "safe.py")
    write(repo, {"safe.py": "# above\n" + VAULT.replace("eval(text)", "int(text)").replace("mktemp()", "mktemp('x')")})
    committed(repo)
    rows = await rows_of(services, await services.scans.scan(str(repo), engines=["ruff"]))

    assert (rows["S324"].state, rows["S324"].location, rows["S324"].previous) == ("moved", "safe.py:10", "vault.py:9")
    assert rows["S324"].method == "same text on the same line"
    assert (rows["S306"].state, rows["S306"].method) == ("moved", "similar text on the same line")
    assert (rows["S101"].state, rows["S101"].previous) == ("persisting", None)
    assert (rows["S307"].state, rows["S307"].method, rows["S307"].reason) == ("fixed", None, None)


async def test_what_is_back_after_several_scans_is_reopened_and_names_the_run_that_had_it(
    services: Services, repo: Path
) -> None:
    first = await services.scans.scan(str(repo), engines=["ruff"])
    write(repo, {"vault.py": VAULT.replace("eval(text)", "int(text)")})
    cured = await services.scans.scan(str(repo), engines=["ruff"])
    (repo / "vault.py").rename(repo / "safe.py")
    between = await services.scans.scan(str(repo), engines=["ruff"])
    write(repo, {"safe.py": VAULT})
    back = await services.scans.scan(str(repo), engines=["ruff"])

    assert (cured.fixed, between.new, between.fixed) == (1, 0, 0)
    assert (back.new, back.fixed) == (1, 0)
    row = (await rows_of(services, back))["S307"]
    assert (row.state, row.reason) == ("reopened", f"it was fixed in an earlier scan; run {first.run_id} had it last")
    compared = await services.comparisons.compare(run_ids=[between.run_id, back.run_id])
    assert compared.findings is not None
    assert [(c.new, c.reopened) for c in compared.findings.changes] == [(1, 1)]


async def test_a_rename_that_only_git_knows_is_followed_when_scanning_and_when_comparing(
    services: Services, repo: Path, client: "MlflowClient"
) -> None:
    old = VAULT + "".join(f"\n\ndef first_{n}():\n    return {n}\n" for n in range(9))
    new = VAULT + "".join(f"\n\ndef other_{n}():\n    yield '{n}'\n" for n in range(9))
    write(repo, {"vault.py": old})
    committed(repo)
    before = await services.scans.scan(str(repo), engines=["ruff"])
    (repo / "vault.py").unlink()
    write(repo, {"safe.py": new})
    committed(repo)
    after = await services.scans.scan(str(repo), engines=["ruff"])

    assert (after.new, after.fixed, after.persisting) == (0, 0, FOUND)
    diff = json.loads(Path(client.download_artifacts(after.run_id, "compare/diff.json")).read_text())
    assert diff["renamed"] == {"vault.py": "safe.py"}
    compared = await services.comparisons.compare(run_ids=[before.run_id, after.run_id])
    assert compared.findings is not None
    assert [(c.new, c.fixed, c.moved) for c in compared.findings.changes] == [(0, 0, 4)]


async def test_imports_of_a_source_that_is_gone_are_matched_by_what_was_stored(services: Services, repo: Path) -> None:
    def sarif(line: int) -> dict[str, object]:
        place = {"artifactLocation": {"uri": "vault.py"}, "region": {"startLine": line}}
        found = {"ruleId": "R", "message": {"text": "m"}, "locations": [{"physicalLocation": place}]}
        return {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "Other"}}, "results": [found]}]}

    one = await services.scans.log("imports", sarif=sarif(9), repo_path=str(repo), create_missing=True)
    (repo / "vault.py").rename(repo / "safe.py")
    write(repo, {"vault.py": "# above\n" + VAULT.replace("md5(data)", "md5(other)")})
    (repo / "safe.py").unlink()
    two = await services.scans.log("imports", sarif=sarif(10), repo_path=str(repo))
    (repo / "vault.py").unlink()

    assert (two.new, two.fixed, two.persisting) == (0, 0, 1)
    compared = await services.comparisons.compare(run_ids=[one.run_id, two.run_id])
    assert compared.findings is not None
    assert [(c.new, c.persisting) for c in compared.findings.changes] == [(0, 1)]


class TestStoredChanges:
    def test_comparisons_of_earlier_releases_are_read(self) -> None:
        old = StoredChanges.from_json(b'{"baseline": "r1", "states": ["new", "suppressed"], "gone": []}')
        assert [(c.state, c.method) for c in old.current] == [("new", None), ("suppressed", None)]
        assert (old.baseline, old.renamed, old.fixed_before) == ("r1", {}, [])

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"baseline": "r", "states": ["new"], "methods": [], "gone": [{}]}',
         '{"baseline": "r", "states": [], "gone": [], "fixed_before": [{"engine": 7}]}', "[" * 9999],
    )  # fmt: skip
    def test_a_changed_artifact_is_refused(self, text: str) -> None:
        with pytest.raises(StoreBroken):
            StoredChanges.from_json(text.encode())
