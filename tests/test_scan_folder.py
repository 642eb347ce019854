"""Scanning a folder from its file list to the report."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import anyio
import pytest

from intelligentscan.domain.errors import NothingToScan, PathNotFound, ScanFailed, WrongPathKind
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.interface import ScanReport
from intelligentscan.scanners.matching import match
from intelligentscan.scanners.scan import scan_folder
from intelligentscan.scanners.scan_record import ScanRecord

EVAL = "value = eval(input())\n"
DEFAULT = ScanConfig.of_engines(["bandit", "ruff"])
RUFF = ScanConfig.of_engines(["ruff"])
SETPRIV = shutil.which("setpriv")


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path.resolve() / "project"
    root.mkdir()
    return root


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    folder = tmp_path.resolve() / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


async def test_the_report_counts_what_was_found_analysed_failed_and_skipped(root, temporary):
    write(root, {"a.py": "x = 1\n" + EVAL, "bad.py": "def f(:\n", "README.md": "# x\n", ".env": "TOKEN=1\n"})
    (root / "link.py").symlink_to("a.py")

    report = await scan_folder(root, DEFAULT)

    assert (report.kind, report.scanner, report.target) == ("scan", "bandit, ruff", str(root))
    assert report.status == "partial"
    assert (report.files_discovered, report.files_analyzed, report.files_failed, report.files_skipped) == (5, 1, 1, 3)
    assert (report.bytes, report.lines) == (len("x = 1\n" + EVAL), 2)
    assert report.files == ("a.py", "bad.py")
    assert report.failed_files == {"bandit": ("bad.py",), "ruff": ("bad.py",)}
    assert report.config == DEFAULT
    assert {run["tool"]["driver"]["name"] for run in report.sarif["runs"]} == {"Bandit", "ruff"}
    assert list(temporary.iterdir()) == []


async def test_two_scans_of_the_same_files_give_the_same_findings(root):
    write(root, {f"m{number:02}.py": EVAL + "password = 'hunter22'\n" for number in range(30)})

    first, second = await scan_folder(root, DEFAULT), await scan_folder(root, DEFAULT)

    assert first.findings == second.findings
    assert len({finding.fingerprint for finding in first.findings}) == len(first.findings) > 100


async def test_passwords_in_the_target_are_in_no_part_of_the_report(root):
    write(root, {"a.py": "password = 'Tr0ub4dor&3-xyz'\nprint('Tr0ub4dor&3-xyz', eval('1'))\n"})

    report = await scan_folder(root, DEFAULT)

    assert {"B105", "S105"} <= {finding.rule for finding in report.findings}
    assert "Tr0ub4dor" not in str(report)


async def test_progress_never_falls_and_ends_at_one(root):
    write(root, {f"m{number:02}.py": EVAL for number in range(30)})
    told: list[tuple[float, str]] = []

    async def progress(share: float, text: str) -> None:
        told.append((share, text))

    await scan_folder(root, DEFAULT, progress=progress)

    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert any("bandit: 30 of 30 files" in text for _, text in told)
    assert any("ruff: 30 of 30 files" in text for _, text in told)


async def test_an_empty_folder_and_one_without_python_are_refused_with_what_is_there(root):
    with pytest.raises(NothingToScan, match="no files; bandit or ruff analyses") as empty:
        await scan_folder(root, DEFAULT)
    assert "repo_path" in empty.value.next

    write(root, {"a.js": "", "b.js": "", "c.go": "", "d.<script>": "", "e": ""})
    with pytest.raises(NothingToScan) as other:
        await scan_folder(root, DEFAULT)
    assert "5 files (.js 2, other 2, .go 1)" in other.value.message
    assert "log_scan_run" in other.value.next
    assert "<script" not in str(other.value)


async def test_a_missing_folder_and_a_file_are_refused(root):
    write(root, {"a.py": EVAL})

    with pytest.raises(PathNotFound):
        await scan_folder(root / "nothing", DEFAULT)
    with pytest.raises(WrongPathKind):
        await scan_folder(root / "a.py", DEFAULT)


async def test_links_in_a_circle_are_harmless(root):
    write(root, {"src/a.py": EVAL})
    (root / "src" / "up").symlink_to(root)
    (root / "self.py").symlink_to("self.py")

    report = await scan_folder(root, DEFAULT)

    assert report.status == "complete"
    assert report.files == ("src/a.py",)


async def test_excluded_folders_and_our_own_temporary_files_are_not_scanned(root, monkeypatch):
    write(root, {"a.py": EVAL, "home/b.py": EVAL, "tmp/keep.txt": ""})
    monkeypatch.setattr(tempfile, "tempdir", str(root / "tmp"))

    report = await scan_folder(root, DEFAULT, exclude=(root / "home",))

    assert report.files == ("a.py",)


def hide_as_an_environment(root: Path) -> None:
    (root / "src" / "pyvenv.cfg").touch()


def hide_behind_a_folder_link(root: Path) -> None:
    (root / "src").rename(root.parent / "elsewhere")
    (root / "src").symlink_to(root.parent / "elsewhere")


def hide_behind_a_file_link(root: Path) -> None:
    (root / "src" / "a.py").rename(root.parent / "a.py")
    (root / "src" / "a.py").symlink_to(root.parent / "a.py")


@pytest.mark.parametrize(
    "hide", [hide_as_an_environment, hide_behind_a_folder_link, hide_behind_a_file_link], ids=lambda act: act.__name__
)
async def test_a_file_that_is_hidden_from_the_scan_does_not_count_as_fixed(root, hide):
    write(root, {"src/a.py": EVAL, "b.py": "x = 1\n"})
    before = ScanRecord.of(await scan_folder(root, RUFF))
    hide(root)

    after = await scan_folder(root, RUFF)

    changes = match(before, ScanRecord.of(after))
    assert after.findings == ()
    assert changes.count("fixed") == 0
    assert changes.count("not_comparable") == 1


async def test_a_scan_knows_the_commit_of_its_target(root):
    write(root, {"a.py": EVAL})
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "x"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        await anyio.run_process(["git", *identity, *command], cwd=root)

    report = await scan_folder(root, RUFF)

    assert (report.vcs.branch, report.vcs.dirty) == ("main", False)
    assert len(report.vcs.commit) == 40


def engine_children() -> list[str]:
    """Return the command lines of our descendants that belong to a scan."""
    table = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,stat,args"], capture_output=True, text=True, check=True
    ).stdout
    parents, lines = {}, {}
    for line in table.splitlines()[1:]:
        pid, parent, state, args = line.split(None, 3)
        if not state.startswith("Z"):
            parents[int(pid)], lines[int(pid)] = int(parent), args
    mine = {os.getpid()}
    for _ in range(5):
        mine |= {pid for pid, parent in parents.items() if parent in mine}
    return [lines[pid] for pid in mine - {os.getpid()} if pid in lines and _is_of_a_scan(lines[pid])]


def _is_of_a_scan(arguments: str) -> bool:
    """Tell a scan's child from those of other tests in this process, such as a tracking server."""
    return any(name in arguments for name in ("bandit", "ruff", "git "))


async def test_a_cancelled_scan_leaves_no_child_and_no_file(root, temporary):
    write(root, {f"m{number:03}.py": EVAL * 3000 for number in range(20)})

    async with anyio.create_task_group() as group:
        group.start_soon(scan_folder, root, DEFAULT)
        with anyio.fail_after(30):
            while not any("bandit" in line and "--tests" in line for line in engine_children()):
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()

    assert engine_children() == []
    assert list(temporary.iterdir()) == []


async def test_other_work_goes_on_while_a_scan_runs(root):
    write(root, {f"m{number:02}.py": EVAL * 20 for number in range(20)})
    ticks = 0
    reports: list[ScanReport] = []

    async def tick() -> None:
        nonlocal ticks
        while not reports:
            ticks += 1
            await anyio.sleep(0.01)

    async def scan() -> None:
        reports.append(await scan_folder(root, DEFAULT))

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        group.start_soon(scan)

    assert ticks > 10


async def test_scans_at_the_same_time_do_not_mix(tmp_path):
    roots = []
    for number in range(5):
        root = tmp_path.resolve() / f"project{number}"
        write(root, {f"only{number}.py": EVAL * (number + 1)})
        roots.append(root)
    reports: dict[int, ScanReport] = {}

    async def scan(number: int) -> None:
        reports[number] = await scan_folder(roots[number], DEFAULT)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(scan, number)

    for number, report in reports.items():
        counts = Counter((finding.engine, finding.path) for finding in report.findings)
        assert counts == {("bandit", f"only{number}.py"): number + 1, ("ruff", f"only{number}.py"): number + 1}


async def test_a_temporary_folder_that_cannot_be_written_is_a_clear_failure(root, monkeypatch):
    write(root, {"a.py": EVAL})
    monkeypatch.setattr(tempfile, "tempdir", str(root / "no-such-folder"))

    with pytest.raises(ScanFailed, match="temporary files") as failure:
        await scan_folder(root, DEFAULT)
    assert "TMPDIR" in failure.value.next


def scan_without_root_rights(root: Path) -> dict[str, object]:
    """Scan in a process to which file permissions apply, as they do not to root."""
    script = f"""
import anyio, json, sys
from pathlib import Path
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.scanners.config import ScanConfig
from intelligentscan.scanners.matching import match
from intelligentscan.scanners.scan import scan_folder
from intelligentscan.scanners.scan_record import ScanRecord

async def main():
    try:
        report = await scan_folder(Path({str(root)!r}), ScanConfig.of_engines(["bandit", "ruff"]))
    except IntelligentScanError as exc:
        return {{"code": exc.code, "message": exc.message, "next": exc.next}}
    return {{
        "status": report.status,
        "failures": {{item.engine: item.failures for item in report.coverage}},
        "found": sorted({{finding.path for finding in report.findings}}),
        "failed": report.failed_files,
        "warnings": report.warnings,
        "counts": [report.files_discovered, report.files_analyzed, report.files_failed],
    }}
print(json.dumps(anyio.run(main)))
"""
    command = [sys.executable, "-c", script]
    if os.geteuid() == 0:
        if SETPRIV is None:
            pytest.skip("root reads everything, and there is no setpriv to give that up")
        dropped = "-dac_override,-dac_read_search"
        command = [SETPRIV, f"--bounding-set={dropped}", f"--inh-caps={dropped}", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_unreadable_files_and_folders_make_a_scan_partial(root):
    write(root, {"good.py": EVAL, "secret.py": EVAL, "closed/a.py": EVAL, "blind/b.py": EVAL, "notes.txt": ""})
    (root / "secret.py").chmod(0)
    (root / "closed").chmod(0)
    (root / "blind").chmod(0o444)
    try:
        answer = scan_without_root_rights(root)
    finally:
        (root / "closed").chmod(0o755)
        (root / "blind").chmod(0o755)

    assert answer["status"] == "partial"
    assert answer["found"] == ["good.py"]
    for engine in ("bandit", "ruff"):
        assert answer["failures"][engine] == [
            "blind/b.py: cannot be read by this user",
            "secret.py: cannot be read by this user",
        ]
    assert any("1 folders could not be read" in text for text in answer["warnings"])
    assert answer["counts"] == [4, 1, 2]
    assert answer["failed"] == {name: ["blind/b.py", "secret.py", "closed/"] for name in ("bandit", "ruff")}


def test_only_unreadable_files_are_an_error(root):
    write(root, {"a.py": EVAL, "b.py": EVAL})
    for name in ("a.py", "b.py"):
        (root / name).chmod(0)

    answer = scan_without_root_rights(root)

    assert answer["code"] == "PATH_UNREADABLE"
    assert "None of the 2 files" in answer["message"]


def test_an_unreadable_folder_is_an_error(root):
    write(root, {"a.py": EVAL})
    root.chmod(0)
    try:
        answer = scan_without_root_rights(root)
    finally:
        root.chmod(0o755)

    assert answer["code"] == "PATH_UNREADABLE"
    assert answer["next"]


def test_a_folder_whose_only_contents_are_unreadable_is_an_error_and_not_called_empty(root):
    write(root, {"closed/a.py": EVAL})
    (root / "closed").chmod(0)
    try:
        answer = scan_without_root_rights(root)
    finally:
        (root / "closed").chmod(0o755)

    assert answer["code"] == "PATH_UNREADABLE"
