"""Child processes: bounded, scrubbed, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import anyio
import pytest

from intelligentscan import _process
from intelligentscan._process import ProcessResult, find_executable, run, scrubbed_env

SH = "/bin/sh"
LINUX = sys.platform.startswith("linux")


async def sh(script: str, folder: Path, *arguments: str, timeout_s: float = 20, **options: object) -> ProcessResult:
    return await run(
        [SH, "-c", script, "sh", *arguments], cwd=folder, env=scrubbed_env(folder), timeout_s=timeout_s, **options
    )


def alive(mark: str) -> list[str]:
    """Return the processes whose arguments contain the mark, zombies left out."""
    table = subprocess.run(["ps", "-ww", "-eo", "stat,pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in table.splitlines() if mark in line and not line.startswith("Z")]


async def until(condition, seconds: float = 10) -> bool:
    with anyio.move_on_after(seconds):
        while not condition():
            await anyio.sleep(0.02)
        return True
    return False


def unique_seconds() -> str:
    """A duration for `sleep` that no other process has, and that none of them lives to see."""
    return str(10**9 + uuid.uuid4().int % 10**8)


def sleepers(mark: str) -> str:
    return f"sleep {mark} & sleep {mark}; true"


async def test_a_child_gives_its_output_errors_and_exit_code(tmp_path):
    result = await sh('printf out; printf "%s" "$1" >&2; exit 7', tmp_path, "a 'b'; $(c)")

    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out", b"a 'b'; $(c)")
    assert not result.timed_out
    assert not result.stdout_truncated


async def test_a_child_inherits_nothing_of_our_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("INTELLIGENTSCAN_TEST_TOKEN", "secret")

    result = await run(["/usr/bin/env"], cwd=tmp_path, env=scrubbed_env(tmp_path), timeout_s=20)

    names = {line.partition("=")[0] for line in result.stdout.decode().splitlines()}
    assert names == {"PATH", "LANG", "LC_ALL", "HOME", "TMPDIR"}


async def test_a_deadline_kills_the_child_and_its_children(tmp_path):
    mark = unique_seconds()

    result = await sh(sleepers(mark), tmp_path, timeout_s=0.5)

    assert result.timed_out
    assert result.exit_code == -signal.SIGKILL
    assert await until(lambda: not alive(mark))  # the kernel takes its time on a busy machine


async def test_a_cancellation_kills_the_child_and_its_children(tmp_path):
    mark = unique_seconds()

    async with anyio.create_task_group() as group:
        group.start_soon(sh, sleepers(mark), tmp_path)
        assert await until(lambda: len(alive(mark)) >= 2)
        group.cancel_scope.cancel()

    assert await until(lambda: not alive(mark))  # the kernel takes its time on a busy machine


async def test_a_failure_elsewhere_kills_the_child_and_its_children(tmp_path):
    mark = unique_seconds()

    async def fail():
        await until(lambda: len(alive(mark)) >= 2)
        raise KeyError(mark)

    async def both():
        async with anyio.create_task_group() as group:
            group.start_soon(sh, sleepers(mark), tmp_path)
            group.start_soon(fail)

    with pytest.raises(ExceptionGroup):
        await both()

    assert await until(lambda: not alive(mark))  # the kernel takes its time on a busy machine


async def test_a_grandchild_that_keeps_the_pipes_open_ends_with_the_child(tmp_path):
    mark = unique_seconds()

    result = await sh(f"sleep {mark} & echo done", tmp_path, timeout_s=60)

    assert result.stdout == b"done\n"
    assert not result.timed_out
    assert await until(lambda: not alive(mark))


async def test_output_beyond_the_bound_ends_the_child_and_is_marked(tmp_path):
    result = await sh("while :; do echo yyyyyyyyyyyyyyyyyyyyyyyy; done", tmp_path, max_output=1000)

    assert result.stdout_truncated
    assert len(result.stdout) == 1000
    assert result.exit_code == -signal.SIGKILL


async def test_errors_beyond_the_bound_are_cut_and_the_child_goes_on(tmp_path):
    result = await sh("head -c 3000000 /dev/zero >&2; echo done", tmp_path)

    assert result.stderr_truncated
    assert result.stdout == b"done\n"


async def test_input_reaches_the_child_and_a_child_that_ignores_it_is_no_error(tmp_path):
    data = b"x" * 3_000_000

    assert (await sh("cat", tmp_path, stdin=data)).stdout == data
    assert (await sh("exit 0", tmp_path, stdin=data)).exit_code == 0
    assert (await sh("cat", tmp_path)).stdout == b""


async def test_a_relative_or_missing_program_is_refused(tmp_path):
    with pytest.raises(ValueError, match="absolute"):
        await run(["sh"], cwd=tmp_path, env={}, timeout_s=5)
    with pytest.raises(FileNotFoundError):
        await run([str(tmp_path / "nothing")], cwd=tmp_path, env={}, timeout_s=5)


@pytest.mark.skipif(not LINUX, reason="limits are set by util-linux")
async def test_a_child_cannot_dump_core_nor_gain_privileges(tmp_path):
    result = await sh("ulimit -c; grep NoNewPrivs /proc/self/status", tmp_path)

    assert result.stdout.split() == [b"0", b"NoNewPrivs:", b"1"]


async def test_the_network_is_blocked_where_the_result_says_so(tmp_path):
    script = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-I", "-c", script, str(server.getsockname()[1])]
        environment = scrubbed_env(tmp_path)

        closed = await run(command, cwd=tmp_path, env=environment, timeout_s=30)
        opened = await run(command, cwd=tmp_path, env=environment, timeout_s=30, network=True)

    assert (opened.exit_code, opened.network) == (0, "not blocked")
    assert (closed.exit_code != 0) == (closed.network == "blocked")


async def test_without_the_wrapping_programs_a_child_runs_and_the_network_is_not_claimed_blocked(tmp_path, monkeypatch):
    monkeypatch.setattr(_process, "_launcher", _process._Launcher())

    result = await sh("echo ran", tmp_path)

    assert (result.stdout, result.network) == (b"ran\n", "not blocked")


@pytest.mark.skipif(not LINUX, reason="the kernel's parent-death signal is Linux")
async def test_a_child_dies_with_a_parent_that_is_killed(tmp_path):
    mark = unique_seconds()
    script = f"""
import anyio
from pathlib import Path
from intelligentscan._process import run
async def main():
    await run(["/bin/sleep", "{mark}"], cwd=Path("/"), env={{}}, timeout_s=300)
anyio.run(main)
"""

    def child() -> list[str]:
        return [line for line in alive(f"/bin/sleep {mark}") if "import anyio" not in line]

    parent = await anyio.open_process([sys.executable, "-c", script])
    try:
        assert await until(lambda: bool(child()))
    finally:
        parent.kill()
        await parent.wait()

    assert await until(lambda: not child())


def test_a_program_is_never_taken_from_the_scanned_folder_nor_a_relative_path_entry(tmp_path, monkeypatch):
    target, tools = tmp_path / "target", tmp_path / "tools"
    for folder in (target, tools):
        folder.mkdir()
        program = folder / "hunter"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.chdir(target)

    monkeypatch.setenv("PATH", os.pathsep.join([".", "", str(target), str(tools)]))
    assert find_executable("hunter", avoid=target) == tools / "hunter"

    monkeypatch.setenv("PATH", os.pathsep.join([".", "", str(target)]))
    assert find_executable("hunter", avoid=target) is None


def test_system_programs_are_found_without_a_path(monkeypatch):
    monkeypatch.delenv("PATH", raising=False)

    found = find_executable("sh")

    assert found is not None
    assert found.is_absolute()


@pytest.mark.skipif(not LINUX, reason="the memory of a group is read from /proc")
async def test_a_group_that_uses_too_much_memory_together_is_ended(tmp_path):
    mark = unique_seconds()
    hungry = f"x = bytearray(100 * 2**20); import time; time.sleep({mark})"
    command = f"{sys.executable} -c '{hungry}'"

    over = await sh(f"{command} & {command} & wait", tmp_path, max_memory=180 * 2**20)
    below = await sh(f"{sys.executable} -c 'x = bytearray(50 * 2**20)'", tmp_path, max_memory=180 * 2**20)

    assert over.out_of_memory
    assert not over.timed_out
    assert not alive(mark)
    assert (below.exit_code, below.out_of_memory) == (0, False)
