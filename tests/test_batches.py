"""Running an engine in batches."""

from collections.abc import Sequence

import anyio.lowlevel
import pytest

from intelligentscan.scanners.batches import OUT_OF_TIME, BatchesResult, NoReport, cut, run_batches
from intelligentscan.scanners.interface import TargetFile


def files(count: int, size: int = 100) -> list[TargetFile]:
    return [TargetFile(path=f"{number:03}.py", size=size) for number in range(count)]


class Recorder:
    """An engine that reports the paths it was given, and gives no report if a bad one is among them."""

    def __init__(self, bad: Sequence[str] = ()) -> None:
        self.bad = set(bad)
        self.calls: list[int] = []
        self.done = 0

    async def call(self, batch: Sequence[TargetFile], _: float) -> list[str]:
        self.calls.append(len(batch))
        await anyio.lowlevel.checkpoint()
        if self.bad & {file.path for file in batch}:
            raise NoReport("crashed")
        return [file.path for file in batch]

    async def files_done(self, more: int) -> None:
        self.done += more


async def run(recorder: Recorder, count: int, *, timeout_s: float = 60) -> BatchesResult[list[str]]:
    batches = cut(files(count), max_files=8, max_bytes=10**9)
    return await run_batches(batches, recorder.call, timeout_s=timeout_s, parallel=2, on_files_done=recorder.files_done)


def test_batches_keep_the_order_and_both_bounds():
    assert [len(batch.files) for batch in cut(files(10), max_files=4, max_bytes=10**9)] == [4, 4, 2]
    assert [len(batch.files) for batch in cut(files(3, 10**6), max_files=10, max_bytes=2_500_000)] == [2, 1]
    assert [len(batch.files) for batch in cut(files(2, 10**9), max_files=10, max_bytes=1)] == [1, 1]
    assert cut([], max_files=4, max_bytes=4) == []


@pytest.mark.parametrize("count", [0, 1, 8, 37])
async def test_reports_come_in_the_order_of_the_files(count):
    recorder = Recorder()

    result = await run(recorder, count)

    assert [path for report in result.reports for path in report] == [file.path for file in files(count)]
    assert result.failed == {}
    assert recorder.done == count


async def test_bad_files_are_singled_out_and_cost_no_other():
    count = 40
    recorder = Recorder(bad=["003.py", "004.py", "039.py"])

    result = await run(recorder, count)

    assert result.failed == {"003.py": "crashed", "004.py": "crashed", "039.py": "crashed"}
    expected = [file.path for file in files(count) if file.path not in result.failed]
    assert [path for report in result.reports for path in report] == expected
    assert recorder.done == count


async def test_an_engine_that_never_reports_is_given_up_early():
    recorder = Recorder(bad=[file.path for file in files(400)])

    result = await run(recorder, 400)

    assert len(result.failed) == 400
    assert len(recorder.calls) < 120


async def test_files_not_reached_in_time_are_failed():
    recorder = Recorder()

    result = await run(recorder, 20, timeout_s=0)

    assert result.reports == []
    assert set(result.failed.values()) == {OUT_OF_TIME}
    assert len(result.failed) == 20
    assert recorder.calls == []
