"""Blocking calls on bounded worker threads, so that nothing blocks the event loop.

MLflow's connection pool holds 15 connections and some of its calls need two at once: more than about
eight threads on one store can stop each other for good. So a store gets a writer lane and a reader
lane. A lane's place is given back when the thread ends, not when the caller stops waiting for it.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
from anyio.lowlevel import EventLoopToken, current_token

from intelligentscan.domain.errors import StoreUnavailable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Lane:
    """At most `width` threads at once, in the event loop that first uses the lane."""

    def __init__(self, width: int) -> None:
        self._limiter = anyio.CapacityLimiter(width)

    async def run(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run the call on a worker thread. A cancelled caller leaves at once; its thread keeps its place."""
        return await (await self.place()).run(call, *args)

    async def place(self) -> "Place":
        """Wait for a place in the lane; its `run` must be called, which gives it back."""
        place = Place(self._limiter, current_token())
        await self._limiter.acquire_on_behalf_of(place)
        return place


class Place:
    """A place in a lane, given back once: by its caller, or by its thread if the caller has left before."""

    def __init__(self, limiter: anyio.CapacityLimiter, token: EventLoopToken) -> None:
        self._limiter = limiter
        self._token = token
        self._mutex = threading.Lock()
        self._running = False
        self._left = False

    async def run(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run the call on a worker thread, and give the place back when the thread has ended."""
        try:
            return await anyio.to_thread.run_sync(
                self._work, partial(call, *args), abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        finally:
            self._leave()

    def _work(self, call: Callable[[], T]) -> T:
        with self._mutex:
            if self._left:
                raise RuntimeError("the caller left before the work began")
            self._running = True
        try:
            return call()
        finally:
            with self._mutex:
                self._running = False
                abandoned = self._left
            if abandoned:
                self._give_back_from_thread()

    def _leave(self) -> None:
        with self._mutex:
            self._left = True
            running = self._running
        if not running:
            self._limiter.release_on_behalf_of(self)

    def _give_back_from_thread(self) -> None:
        try:
            anyio.from_thread.run_sync(self._limiter.release_on_behalf_of, self, token=self._token)
        except RuntimeError:  # the event loop has ended, and its lanes with it
            return


class Lanes:
    """The writer and the reader lane of one store, and the deadline for each of its answers.

    Args:
        writers: threads that may write at once.
        readers: threads that may read at once.
        deadline_s: longest wait for one call in seconds, queueing included.
    """

    def __init__(self, writers: int, readers: int, deadline_s: float) -> None:
        self._writers = Lane(writers)
        self._readers = Lane(readers)
        self._deadline_s = deadline_s

    async def read(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a read; a cancel is obeyed at once.

        Raises:
            StoreUnavailable: the deadline passed.
        """
        try:
            with anyio.fail_after(self._deadline_s):
                return await self._readers.run(call, *args)
        except TimeoutError as exc:
            raise StoreUnavailable(
                f"The tracking store did not answer within {self._deadline_s:g} s.",
                next="call again; if it persists, check MLFLOW_TRACKING_URI with 'intelligentscan doctor'.",
            ) from exc

    async def write(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a write; once begun it is completed, also when the caller is cancelled meanwhile.

        Raises:
            StoreUnavailable: the deadline passed; the message says whether the outcome is unknown.
        """
        await anyio.lowlevel.checkpoint()
        try:
            with anyio.fail_after(self._deadline_s) as waiting:
                place = await self._writers.place()
        except TimeoutError as exc:
            raise StoreUnavailable(
                f"Other writes kept the tracking store busy for {self._deadline_s:g} s; nothing was written.",
                next="call again; if it persists, check MLFLOW_TRACKING_URI with 'intelligentscan doctor'.",
            ) from exc
        try:
            with anyio.fail_after(waiting.deadline - anyio.current_time(), shield=True):
                return await place.run(call, *args)
        except TimeoutError as exc:
            raise StoreUnavailable(
                f"The tracking store did not confirm the write within {self._deadline_s:g} s; "
                "whether it was done is unknown.",
                next="repeat the call with the same arguments and the same idempotency_key.",
            ) from exc
