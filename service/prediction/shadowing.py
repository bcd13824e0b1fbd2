"""Shadow: the version that did not answer is asked the same rows aside, for the record alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from numpy.typing import NDArray

from infra import classical
from infra.contracts import Interaction
from infra.errors import EngineTimedOut, RagstoneError
from monitoring.challenger_metrics import ChallengerMetrics
from monitoring.prediction_metrics import outcome_of
from service.daemon_threads import DaemonThreads
from service.prediction.batching import checked
from service.prediction.columns import Table
from service.prediction.loading import Loaded
from service.prediction.recording import (
    SHADOW,
    Failed,
    Origin,
    Predicted,
    record,
    record_failure,
)

logger = logging.getLogger(__name__)
Read = Callable[[Loaded], Table]
_Said: TypeAlias = tuple[Table, NDArray[Any], float]


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """A request that was answered, for the version that did not answer it."""

    first: Predicted
    """What the caller was told."""
    other: Loaded
    read: Read
    """For a version with other columns; else what was read is taken."""
    origin: Origin


class Shadows:
    """Asks one copy at a time, in a thread of its own; what exceeds the queue is left out.

    To be used from one event loop.
    """

    def __init__(
        self,
        *,
        most: int,
        most_rows: int,
        seconds: float,
        metrics: ChallengerMetrics,
        add: Callable[[Interaction], None] | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take what bounds the queue and each copy, and who counts and keeps interactions.

        Args:
            most: copies that wait.
            most_rows: of all that wait; one that is alone may have more.
            seconds: that one may take.
            metrics: counts.
            add: keeps interactions.
            clock: in seconds.
        """
        self._most = most
        self._most_rows = most_rows
        self._seconds = seconds
        self._metrics = metrics
        self._add = add
        self._clock = clock
        self._waiting: deque[Copy] = deque()
        self._thread = DaemonThreads(1, name="shadow")
        self._task: asyncio.Task[None] | None = None

    def offer(self, copy: Copy) -> None:
        """Take a copy if there is room; never waits, never raises."""
        rows = copy.first.table.rows + sum(each.first.table.rows for each in self._waiting)
        is_full = len(self._waiting) >= self._most or rows > self._most_rows
        if self._waiting and is_full:
            self._metrics.count(copy.other.name, copy.other.version, SHADOW, "dropped")
            return
        self._waiting.append(copy)
        self._begin()

    async def settle(self) -> None:
        """Wait until nothing waits any more."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Give up the copies that wait."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        if self._task is None and self._waiting:
            self._task = asyncio.get_running_loop().create_task(self._work())
            self._task.add_done_callback(self._end)

    def _end(self, done: asyncio.Task[None]) -> None:
        self._task = None
        if not done.cancelled():
            if (error := done.exception()) is not None:
                logger.error("a shadow ended with what no runtime may raise", exc_info=error)
            self._begin()

    async def _work(self) -> None:
        while self._waiting:
            await self._answer(self._waiting.popleft())

    async def _answer(self, copy: Copy) -> None:
        work = asyncio.get_running_loop().run_in_executor(self._thread, _predict, copy, self._clock)
        try:
            await self._compare(copy, work)
        finally:
            work.cancel()  # nobody hears of one that is given up

    async def _compare(self, copy: Copy, work: asyncio.Future[_Said]) -> None:
        await asyncio.wait({work}, timeout=self._seconds)
        if not work.done():
            self._fail(copy, EngineTimedOut(f"It did not answer within {self._seconds:g} s"))
            with suppress(RagstoneError):
                await work  # it has the thread, and what comes next would be late for its sake
            return
        try:
            table, values, seconds = await work
        except RagstoneError as error:
            self._fail(copy, error)
            return
        other = copy.other
        found = replace(
            copy.first,
            loaded=other,
            table=table,
            values=values,
            chosen=None if other.labels is None else classical.decide(values, other.model),
            tag=SHADOW,
            explanations=None,
            is_copy=True,
        )
        self._metrics.count(other.name, other.version, SHADOW, "answered")
        self._metrics.observe(other.name, same=_same(copy.first, found), rows=table.rows)
        if self._add is not None:
            write = partial(
                record,
                found,
                self._add,
                origin=copy.origin,
                seconds=seconds,
                kept="predictions",
            )
            await asyncio.get_running_loop().run_in_executor(self._thread, write)

    def _fail(self, copy: Copy, error: RagstoneError) -> None:
        other = copy.other
        self._metrics.count(other.name, other.version, SHADOW, outcome_of(error))
        if self._add is not None:
            failed = Failed(other, SHADOW, error)
            record_failure(copy.first, self._add, failed=failed, origin=copy.origin)


def _predict(copy: Copy, clock: Callable[[], float]) -> _Said:
    """Return the rows, what the other version says of them, and the seconds it took."""
    start = clock()
    other, table = copy.other, copy.first.table
    if not other.reads_like(copy.first.loaded):
        table = copy.read(other)
    values = checked(other.runtime.run, table.columns, table.rows)
    return table, values, clock() - start


def _same(first: Predicted, other: Predicted) -> int:
    """Return of how many rows both say the same."""
    return sum(map(classical.is_same, first.labels.tolist(), other.labels.tolist()))
