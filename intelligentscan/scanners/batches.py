"""Running one engine over many files in batches, so that one bad file costs itself and not the others.

A single file can end an engine: by nesting that overflows its stack, by a string its report cannot encode, by input it
needs minutes for. Such an engine prints nothing about the other files of its call either, sometimes with the exit code
of a clean scan. So a batch without a usable report is halved and run again until the bad files stand alone.
"""

import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar

from intelligentscan.scanners.interface import FilesDone, TargetFile

OUT_OF_TIME = "not reached within the time limit"
_SHORTEST_TURN_S = 30.0
_HOPELESS_AFTER = 10
_FILE_OVERHEAD_BYTES = 2_000

Report = TypeVar("Report")
_children: RunVar[anyio.CapacityLimiter] = RunVar("intelligentscan_engine_children")


class NoReport(Exception):
    """A call of an engine gave no usable report; the text says why."""


class EngineBroken(NoReport):
    """No call can give a report, whatever its files, such as with rules that the engine refuses."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive files of one call; `order` is the place of the first in the whole list."""

    order: int
    files: Sequence[TargetFile]


@dataclass(slots=True)
class BatchesResult(Generic[Report]):
    """The reports of all calls in the order of their files, and the files that no call could report on."""

    reports: list[Report] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def cut(files: Sequence[TargetFile], *, max_files: int, max_bytes: int) -> list[Batch]:
    """Cut the files into batches of bounded count and size, in their order."""
    batches: list[Batch] = []
    start = size = 0
    for number, file in enumerate(files):
        weight = file.size + _FILE_OVERHEAD_BYTES
        if number > start and (number - start >= max_files or size + weight > max_bytes):
            batches.append(Batch(start, files[start:number]))
            start, size = number, 0
        size += weight
    if start < len(files):
        batches.append(Batch(start, files[start:]))
    return batches


async def run_batches(
    batches: Sequence[Batch],
    call: Callable[[Sequence[TargetFile], float], Awaitable[Report]],
    *,
    timeout_s: float,
    parallel: int,
    on_files_done: FilesDone,
) -> BatchesResult[Report]:
    """Run every batch, halving those that give no report, within one time limit.

    Args:
        batches: what to run.
        call: runs the engine on files within the given seconds; raises NoReport if that gave no usable report.
        timeout_s: the limit for all of it; files not reached by then are failed.
        parallel: how many calls at once; all engines together share the processors.
        on_files_done: told how many files each finished call was through with.
    """
    work = _Work[Report](deque(batches), anyio.current_time() + timeout_s)
    async with anyio.create_task_group() as group:
        for _ in range(min(parallel, len(batches))):
            group.start_soon(_work_off, work, call, on_files_done)
    done = sorted(work.done, key=lambda pair: pair[0])
    return BatchesResult([report for _, report in done], work.failed)


@dataclass(slots=True)
class _Work(Generic[Report]):
    waiting: deque[Batch]
    deadline: float
    done: list[tuple[int, Report]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    broken: bool = False


async def _work_off(
    work: _Work[Report], call: Callable[[Sequence[TargetFile], float], Awaitable[Report]], on_files_done: FilesDone
) -> None:
    while work.waiting:
        batch = work.waiting.popleft()
        try:
            async with _limiter():
                report = await call(batch.files, _turn(work))
        except NoReport as exc:
            work.broken = work.broken or isinstance(exc, EngineBroken)
            if (
                len(batch.files) > 1
                and not work.broken
                and anyio.current_time() < work.deadline
                and not _hopeless(work)
            ):
                work.waiting.extendleft(reversed(_halves(batch)))
                continue
            for file in batch.files:
                work.failed[file.path] = str(exc)
        else:
            work.done.append((batch.order, report))
        await on_files_done(len(batch.files))


def _turn(work: _Work[Report]) -> float:
    """Return the seconds one call may take: a share of what is left, so that a file that hangs leaves some."""
    left = work.deadline - anyio.current_time()
    if left <= 0:
        raise NoReport(OUT_OF_TIME)
    return min(left, max(_SHORTEST_TURN_S, left / 4))


def _hopeless(work: _Work[Report]) -> bool:
    """Whether the engine itself is broken: many files alone gave no report, and no call ever gave one."""
    return not work.done and len(work.failed) >= _HOPELESS_AFTER


def _halves(batch: Batch) -> list[Batch]:
    middle = len(batch.files) // 2
    return [Batch(batch.order, batch.files[:middle]), Batch(batch.order + middle, batch.files[middle:])]


def processors() -> int:
    """Return how many engine processes may run at once."""
    return max(1, min(8, os.cpu_count() or 1))


def _limiter() -> anyio.CapacityLimiter:
    limiter = _children.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(processors())
        _children.set(limiter)
    return limiter
