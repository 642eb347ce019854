"""Lanes: bounded threads, an event loop that stays free, cancels and deadlines that lose no place."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import anyio.lowlevel
import pytest

from intelligentscan._threads import Lane, Lanes
from intelligentscan.domain.errors import StoreUnavailable

PATIENCE_S = 20.0


class Held:
    """A blocking call that waits until it is let go; notes how often and how many at once it ran."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0
        self.ended = 0
        self.most = 0
        self._mutex = threading.Lock()

    def __call__(self) -> str:
        with self._mutex:
            self.begun += 1
            self.most = max(self.most, self.begun - self.ended)
        assert self.go.wait(PATIENCE_S)
        with self._mutex:
            self.ended += 1
        return "done"


@contextmanager
def held() -> Iterator[Held]:
    call = Held()
    try:
        yield call
    finally:
        call.go.set()


async def until(condition: object, *counts: int) -> None:
    """Wait until the condition holds."""
    assert callable(condition)
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(0.001)


async def test_a_lane_runs_no_more_calls_at_once_than_it_is_wide() -> None:
    lane = Lane(3)
    with held() as call:
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(lane.run, call)
            await until(lambda: call.begun == 3)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert call.begun == 3
            call.go.set()
    assert (call.ended, call.most) == (12, 3)


async def test_the_event_loop_goes_on_while_a_call_blocks() -> None:
    lanes = Lanes(1, 1, PATIENCE_S)
    turns = 0
    with held() as call:
        async with anyio.create_task_group() as group:
            group.start_soon(lanes.read, call)
            await until(lambda: call.begun == 1)
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
                turns += 1
            assert call.ended == 0
            call.go.set()
    assert turns == 100


async def test_a_cancelled_reader_leaves_at_once_and_its_place_is_kept_until_its_thread_ends() -> None:
    lanes = Lanes(1, 1, PATIENCE_S)
    with held() as first, held() as second:
        second.go.set()
        async with anyio.create_task_group() as group:
            group.start_soon(lanes.read, first)
            await until(lambda: first.begun == 1)
            group.cancel_scope.cancel()
        assert first.ended == 0
        async with anyio.create_task_group() as group:
            group.start_soon(lanes.read, second)
            for _ in range(50):
                await anyio.sleep(0.001)
            assert second.begun == 0
            first.go.set()
        assert (first.ended, second.ended) == (1, 1)


async def test_many_cancelled_readers_do_not_pile_up_threads() -> None:
    lanes = Lanes(1, 2, PATIENCE_S)
    with held() as call:
        for _ in range(10):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(lanes.read, call)
                await anyio.sleep(0.005)
                group.cancel_scope.cancel()
        assert call.begun == 2
        call.go.set()
        await until(lambda: call.ended == 2)
        assert await lanes.read(lambda: "free") == "free"


async def test_a_writer_that_began_is_completed_when_its_caller_is_cancelled() -> None:
    lanes = Lanes(1, 1, PATIENCE_S)
    with held() as call:
        async with anyio.create_task_group() as group:
            group.start_soon(lanes.write, call)
            await until(lambda: call.begun == 1)
            group.cancel_scope.cancel()
            threading.Timer(0.02, call.go.set).start()
        assert call.ended == 1


async def test_a_writer_that_waits_for_its_turn_is_cancelled_without_having_written() -> None:
    lanes = Lanes(1, 1, PATIENCE_S)
    with held() as first, held() as second:
        second.go.set()
        async with anyio.create_task_group() as outer:
            outer.start_soon(lanes.write, first)
            await until(lambda: first.begun == 1)
            async with anyio.create_task_group() as inner:
                inner.start_soon(lanes.write, second)
                await anyio.sleep(0.01)
                inner.cancel_scope.cancel()
            assert first.ended == 0
            first.go.set()
        assert await lanes.write(lambda: "free") == "free"
        assert second.begun == 0


async def test_a_write_is_not_begun_for_a_caller_that_was_cancelled_before() -> None:
    lanes = Lanes(1, 1, PATIENCE_S)
    begun = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await lanes.write(begun.append, 1)
    assert begun == []


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_a_call_past_its_deadline_is_an_error_with_a_next_step_and_the_lane_works_again(kind: str) -> None:
    lanes = Lanes(1, 1, 0.05)
    run = lanes.read if kind == "read" else lanes.write
    with held() as call:
        with pytest.raises(StoreUnavailable) as caught:
            await run(call)
        assert call.ended == 0
        assert ("idempotency_key" in caught.value.next) == (kind == "write")
        with pytest.raises(StoreUnavailable):
            await run(call)
        assert call.begun == 1
        call.go.set()
        await until(lambda: call.ended == 1)
        assert await run(lambda: "free") == "free"


async def test_a_write_that_never_began_is_not_said_to_be_uncertain() -> None:
    lanes = Lanes(1, 1, 0.05)
    with held() as call:
        with pytest.raises(StoreUnavailable) as first:
            await lanes.write(call)
        with pytest.raises(StoreUnavailable) as second:
            await lanes.write(call)
        assert "unknown" in first.value.message
        assert "unknown" not in second.value.message
        assert "nothing was written" in second.value.message


async def test_an_error_of_the_call_reaches_the_caller_and_frees_the_place() -> None:
    lanes = Lanes(1, 1, PATIENCE_S)

    def fails() -> None:
        raise ValueError("inside")

    for run in (lanes.read, lanes.write) * 3:
        with pytest.raises(ValueError, match="inside"):
            await run(fails)


def test_lanes_serve_one_event_loop_after_another() -> None:
    for _ in range(3):
        lanes = Lanes(1, 1, PATIENCE_S)
        assert anyio.run(lanes.read, lambda: "answer") == "answer"


def test_an_event_loop_that_ends_does_not_wait_for_an_abandoned_call() -> None:
    with held() as call:

        async def main() -> None:
            lanes = Lanes(1, 1, 0.02)
            with pytest.raises(StoreUnavailable):
                await lanes.read(call)

        anyio.run(main)
        assert call.ended == 0
