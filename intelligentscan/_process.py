"""Child processes: the one place that starts them, and that makes sure none outlives its caller.

A child gets an absolute program, a list of arguments (never a shell), a scrubbed environment and a session of its own.
Whatever ends the wait (exit, deadline, cancellation, a bug) kills and reaps the whole process group.

On Linux three programs of util-linux wrap the child where they are installed, each replacing itself by the next, so
that no extra process stays: `unshare` takes the network away, `prlimit` sets limits, `setpriv` forbids new privileges
and has the kernel kill the child when its parent dies, even by SIGKILL. A `preexec_fn` could do the same, but it runs
Python between fork and exec, which can dead-lock in a server with threads; an interpreter as launcher costs 20 ms per
child, these cost 2. What is missing (other systems, namespaces forbidden) is left out, and the result says whether the
network was blocked.

A limit of memory is for the whole session of the child: its resident memory is summed from /proc while it runs. The
kernel's own limits count address space per process, which programs reserve far more of than they use.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

Network = Literal["blocked", "not blocked"]

MIB = 1024 * 1024
SYSTEM_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin", "/opt/homebrew/bin")
_MAX_FILE_BYTES = 1024 * MIB
_MAX_MEMORY_BYTES = 16 * 1024 * MIB
_MAX_ERROR_BYTES = MIB
_PROBE_TIMEOUT_S = 5.0
_MEMORY_LOOK_S = 0.25
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a child ended. A negative exit code is the signal that ended it."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    timed_out: bool
    duration_s: float
    network: Network
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class _Launcher:
    """The wrapping programs this system lets us use; empty tuples for those it does not."""

    no_network: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    nice: tuple[str, ...] = ()

    def command(self, argv: Sequence[str], *, network: bool, background: bool) -> list[str]:
        # setpriv comes last: entering a user namespace would clear the parent-death signal again.
        return [
            *(() if network else self.no_network),
            *self.limits,
            *(self.nice if background else ()),
            *self.tied,
            *argv,
        ]


class _Capture:
    """The bytes of one stream, up to a bound."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.limit = limit
        self.truncated = False

    def add(self, chunk: bytes) -> None:
        room = self.limit - len(self.data)
        self.data += chunk[:room]
        self.truncated = self.truncated or len(chunk) > room


class _Memory:
    """Ends a session that uses more resident memory than it may."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.exceeded = False

    async def watch(self, session: int) -> None:
        while self._limit is not None and not self.exceeded:
            if await anyio.to_thread.run_sync(_resident_bytes, session) > self._limit:
                self.exceeded = True
                _kill_group(session)
            await anyio.sleep(_MEMORY_LOOK_S)


_launcher: _Launcher | None = None


def scrubbed_env(home: Path) -> dict[str, str]:
    """Return the whole environment of a child: nothing is inherited from ours.

    Args:
        home: a private folder that takes the child's caches and temporary files.
    """
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home)}


def find_executable(name: str, *, avoid: Path | None = None) -> Path | None:
    """Return the absolute path of a program on PATH or in the usual system folders.

    Args:
        name: a plain program name.
        avoid: a folder whose programs are never taken: the scanned one.
    """
    on_path = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder.startswith("/")]
    for folder in (*on_path, *SYSTEM_FOLDERS):
        found = shutil.which(name, path=folder)
        if found is None:
            continue
        if avoid is None or not Path(found).resolve().is_relative_to(avoid.resolve()):
            return Path(found)
    return None


async def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_s: float,
    stdin: bytes | None = None,
    max_output: int = 64 * MIB,
    network: bool = False,
    background: bool = False,
    max_memory: int | None = None,
) -> ProcessResult:
    """Run a program to its end and return what it wrote.

    Args:
        argv: the absolute program and its arguments.
        cwd: the working directory.
        env: the whole environment; see `scrubbed_env`.
        timeout_s: after this many seconds the process group is killed and `timed_out` is set.
        stdin: bytes for standard input; nothing if None.
        max_output: bound on standard output; a program that writes more is killed.
        network: whether the child may use the network; False blocks it where the system can.
        background: whether the child gives way to other work.
        max_memory: bytes of resident memory that the child and its descendants may use together; one that uses more is
            killed and `out_of_memory` is set. Only kept where there is /proc; looked at four times a second.

    Raises:
        OSError: the program is missing, not executable, or could not be started.
    """
    if not Path(argv[0]).is_absolute():
        raise ValueError("a child process needs an absolute program path")
    if not os.access(argv[0], os.X_OK):
        # Asked here because a wrapper would only report it as an exit code.
        raise FileNotFoundError(f"{argv[0]} is not an executable file")
    launcher = await _find_launcher()
    return await _run(
        launcher.command(argv, network=network, background=background),
        cwd=cwd,
        env=env,
        timeout_s=timeout_s,
        stdin=stdin,
        max_output=max_output,
        network="not blocked" if network or not launcher.no_network else "blocked",
        max_memory=max_memory,
    )


async def _run(
    command: list[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_s: float,
    stdin: bytes | None,
    max_output: int,
    network: Network,
    max_memory: int | None = None,
) -> ProcessResult:
    started = time.perf_counter()
    out, err = _Capture(max_output), _Capture(_MAX_ERROR_BYTES)
    memory = _Memory(max_memory)
    # Shielded, so that a cancellation cannot fall between the start and the `try` that kills.
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
    try:
        with anyio.move_on_after(timeout_s) as deadline:
            async with anyio.create_task_group() as group:
                if stdin is not None and process.stdin is not None:
                    group.start_soon(_feed, process.stdin, stdin)
                if process.stdout is not None and process.stderr is not None:
                    group.start_soon(_drain, process.stdout, out, process.pid)
                    group.start_soon(_drain, process.stderr, err, None)
                async with anyio.create_task_group() as watching:
                    watching.start_soon(memory.watch, process.pid)
                    await process.wait()
                    watching.cancel_scope.cancel()
                # A grandchild that kept the pipes open would hold the readers until the deadline.
                _kill_group(process.pid)
    finally:
        await _end(process)
    return ProcessResult(
        exit_code=process.returncode if process.returncode is not None else -signal.SIGKILL,
        stdout=bytes(out.data),
        stderr=bytes(err.data),
        stdout_truncated=out.truncated,
        stderr_truncated=err.truncated,
        timed_out=deadline.cancelled_caught,
        duration_s=time.perf_counter() - started,
        network=network,
        out_of_memory=memory.exceeded,
    )


async def _feed(stream: ByteSendStream, data: bytes) -> None:
    # A child that ends without reading its input is not an error of ours.
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, BrokenPipeError, ConnectionError):
        await stream.send(data)
    with contextlib.suppress(anyio.BrokenResourceError, BrokenPipeError, ConnectionError):
        await stream.aclose()


async def _drain(stream: ByteReceiveStream, capture: _Capture, kill_when_full: int | None) -> None:
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for chunk in stream:
            capture.add(chunk)
            if capture.truncated and kill_when_full is not None:
                _kill_group(kill_when_full)


async def _end(process: Process) -> None:
    """Kill the process group, and wait until the child is reaped and its pipes are closed."""
    with anyio.CancelScope(shield=True):
        _kill_group(process.pid)
        await process.wait()
        await process.aclose()


def _kill_group(pid: int) -> None:
    # The child leads its own session, so its pid is the group's; the kernel keeps the number while a member lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _resident_bytes(session: int) -> int:
    """Return the resident memory of all processes of a session; shared pages count for each; 0 without /proc.

    Fields of /proc/PID/stat after the name in brackets: state, parent, group, session, …; the 22nd of them is the
    resident pages (proc_pid_stat(5)).
    """
    total = 0
    with contextlib.suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[3]) == session:
                    total += int(fields[21]) * _PAGE_BYTES
    return total


async def _find_launcher() -> _Launcher:
    """Find out once per process which wrapping programs work here."""
    global _launcher
    if _launcher is None:
        _launcher = await _probe_launcher()
    return _launcher


async def _probe_launcher() -> _Launcher:
    nice = _tool("nice")
    background = (nice, "-n", "10") if nice else ()
    if not sys.platform.startswith("linux"):
        return _Launcher(nice=background)
    unshare, prlimit, setpriv = _tool("unshare"), _tool("prlimit"), _tool("setpriv")
    no_network: tuple[str, ...] = ()
    # The plain form first: a user namespace would take root's right to read other users' files.
    for options in (("--net", "--"), ("--user", "--map-root-user", "--net", "--")):
        if unshare and not no_network and await _works((unshare, *options)):
            no_network = (unshare, *options)
    limits = (prlimit, *_limit_options(), "--") if prlimit else ()
    tied = (setpriv, "--no-new-privs", "--pdeathsig", "KILL", "--") if setpriv else ()
    return _Launcher(
        no_network=no_network,
        limits=limits if limits and await _works(limits) else (),
        tied=tied if tied and await _works(tied) else (),
        nice=background if background and await _works(background) else (),
    )


def _limit_options() -> list[str]:
    import resource

    wanted = (("core", resource.RLIMIT_CORE, 0), ("fsize", resource.RLIMIT_FSIZE, _MAX_FILE_BYTES))
    options = []
    for name, number, value in (*wanted, ("as", resource.RLIMIT_AS, _MAX_MEMORY_BYTES)):
        hard = resource.getrlimit(number)[1]
        # Only root may raise a hard limit, so ours never lies above the one in force.
        options.append(f"--{name}={value if hard == resource.RLIM_INFINITY else min(value, hard)}")
    return options


def _tool(name: str) -> str | None:
    return next((str(Path(f, name)) for f in SYSTEM_FOLDERS if os.access(Path(f, name), os.X_OK)), None)


async def _works(prefix: tuple[str, ...]) -> bool:
    true = _tool("true")
    if true is None:
        return False
    try:
        result = await _run(
            [*prefix, true],
            cwd=Path("/"),
            env={},
            timeout_s=_PROBE_TIMEOUT_S,
            stdin=None,
            max_output=MIB,
            network="not blocked",
        )
    except OSError:
        return False
    return result.exit_code == 0 and not result.timed_out
