"""Requests that wait for the same model are answered together, off the loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.errors import EngineFailed, Overloaded
from service.prediction.columns import Table, joined

Run: TypeAlias = Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]


FEW_ROWS = 8
TURN_ROWS = 64
"""Of requests that come in the same turn of the loop, at most."""
QUICK_SECONDS = 0.0005
"""About what it costs to hand a batch to a thread and back."""
FORGETTING = 0.9
"""What is left of a slow batch with each quick one after it: one keeps a model off the loop."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of one model at once."""

    batch_rows: int = 1024
    """Of several requests; a larger one is a batch by itself."""
    batches: int = 1
    waiting: int = 1024


@dataclass(slots=True)
class _Waiting:
    table: Table
    answer: asyncio.Future[NDArray[Any]]
    until: float
    """On the loop's clock, when it is given up."""
    is_alone: bool = False
    """It was in a batch that failed, and is tried by itself."""
    timer: asyncio.TimerHandle | None = None

    def give_up(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(TimeoutError())


class Batcher:
    """Runs a model off the loop. Nobody waits for a batch to fill: what came meanwhile is the next.

    A few rows for a model that has lately taken less than a thread does are answered on the loop,
    those of all requests that came in the same turn of it together.

    To be used from one event loop.
    """

    def __init__(
        self,
        run: Run,
        threads: Executor,
        bounds: Bounds,
        *,
        observe: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """Take what runs a batch, the threads, the bounds, and who is told the rows of a batch.

        The clock is that of the thread's own work: what a batch waits for others tells nothing of
        the model.
        """
        self._run = run
        self._threads = threads
        self._bounds = bounds
        self._observe = observe
        self._clock = clock
        self._seconds: float | None = None
        """That a small batch took, at most, of late; None before the first."""
        self._turn_rows = TURN_ROWS
        self._queue: deque[_Waiting] = deque()
        self._running = 0
        self._has_turn = False
        """What waits is answered once this turn of the loop has brought all that it brings."""

    async def run(self, table: Table, seconds: float = math.inf) -> NDArray[Any]:
        """Return what the model says of each row; who gives up waiting is not computed for.

        Raises:
            Overloaded: as many requests as may wait for this model.
            EngineFailed: the model cannot be run on these rows.
            TimeoutError: `seconds` have passed.
        """
        if len(self._queue) >= self._bounds.waiting:
            raise Overloaded(
                f"{len(self._queue)} requests wait for this model; try again in a moment"
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(table, loop.create_future(), loop.time() + seconds)
        self._queue.append(waiting)
        if self._is_quick(table) and not self._running:
            if not self._has_turn:
                self._has_turn = True
                loop.call_soon(self._take_turn)
        else:
            self._start()
            self._watch(waiting)
        try:
            return await waiting.answer
        finally:
            if waiting.timer is not None:
                waiting.timer.cancel()

    def run_now(self, table: Table) -> NDArray[Any] | None:
        """Answer a request that is alone, without waiting for its turn; None if that takes long.

        Raises:
            EngineFailed: the model cannot be run on these rows.
        """
        if self._queue or self._running or not self._is_quick(table):
            return None
        self._observe(table.rows)
        return self._timed(table.columns, table.rows)

    @property
    def is_free(self) -> bool:
        """Whether a few rows are answered here and now, before anybody else's."""
        seconds = self._seconds
        return seconds is not None and seconds <= QUICK_SECONDS and not self._running

    @property
    def turn_rows(self) -> int:
        """How many rows may be answered together on the loop."""
        return min(self._turn_rows, self._bounds.batch_rows)

    def run_together(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        """Answer rows of several requests here and now; it `is_free`, they are at most `turn_rows`.

        Raises:
            EngineFailed: the model cannot be run on these rows.
        """
        self._observe(rows)
        return self._timed(columns, rows)

    def _take_turn(self) -> None:
        """Answer what waits here and now, as long as that is quick."""
        self._has_turn = False
        while self._queue and not self._running and self._is_quick(self._queue[0].table):
            batch = self._next(min(self._turn_rows, self._bounds.batch_rows))
            if not batch:
                return
            columns, rows = self._joined(batch)
            try:
                found = self._timed(columns, rows)
            except Exception as error:  # noqa: BLE001  whoever waits is told
                self._fail(batch, error)
            else:
                _share(batch, found)
        self._start()
        for each in self._queue:
            self._watch(each)

    def _watch(self, waiting: _Waiting) -> None:
        """Have a request that is not answered in this turn given up in time."""
        if waiting.timer is None and waiting.until < math.inf:
            loop = asyncio.get_running_loop()
            waiting.timer = loop.call_at(waiting.until, waiting.give_up)

    def _start(self) -> None:
        while self._queue and self._running < self._bounds.batches:
            batch = self._next(self._bounds.batch_rows)
            if not batch:
                return
            self._running += 1
            for each in batch:
                self._watch(each)
            work = asyncio.get_running_loop().run_in_executor(
                self._threads, self._timed, *self._joined(batch)
            )
            work.add_done_callback(partial(self._end, batch))

    def _joined(self, batch: Sequence[_Waiting]) -> tuple[Mapping[str, NDArray[Any]], int]:
        tables = [each.table for each in batch]
        rows = sum(each.rows for each in tables)
        self._observe(rows)
        return joined([each.columns for each in tables]), rows

    def _timed(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        start = self._clock()
        try:
            return checked(self._run, columns, rows)
        finally:
            self._learn(self._clock() - start, rows)

    def _learn(self, seconds: float, rows: int) -> None:
        is_quick = seconds <= QUICK_SECONDS
        if is_quick or rows <= FEW_ROWS:
            self._seconds = max(seconds, FORGETTING * (self._seconds or 0.0))
        if FEW_ROWS < rows <= self._turn_rows:  # larger ones, as long as they are quick too
            more = min(TURN_ROWS, 2 * self._turn_rows)
            self._turn_rows = more if is_quick else max(FEW_ROWS, self._turn_rows // 2)

    def _is_quick(self, table: Table) -> bool:
        seconds = self._seconds
        return seconds is not None and seconds <= QUICK_SECONDS and table.rows <= FEW_ROWS

    def _next(self, most_rows: int) -> Sequence[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            first = self._queue[0]
            if first.answer.done():  # whoever asked has left, or waited too long
                self._queue.popleft()
                continue
            is_last = first.is_alone or rows + first.table.rows > most_rows
            if batch and is_last:
                break
            batch.append(self._queue.popleft())
            rows += first.table.rows
            if is_last:
                break
        return batch

    def _end(self, batch: Sequence[_Waiting], done: asyncio.Future[NDArray[Any]]) -> None:
        self._running -= 1
        error = None if done.cancelled() else done.exception()
        if done.cancelled():
            for each in batch:
                each.answer.cancel()
        elif error is None:
            _share(batch, done.result())
        else:
            self._fail(batch, error)
        self._take_turn()

    def _fail(self, batch: Sequence[_Waiting], error: BaseException) -> None:
        if len(batch) == 1:
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
        else:  # one of them may be to blame, and the others are not to suffer for it
            for each in reversed(batch):
                each.is_alone = True
                self._queue.appendleft(each)


def checked(run: Run, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
    """Run a batch, and refuse what is no answer to it."""
    found = run(columns)
    if found.shape[0] != rows:
        raise EngineFailed(f"The model answered {found.shape[0]} rows, and was asked {rows}")
    if not np.isfinite(found).all():
        raise EngineFailed("The model answered with what is no finite number")
    return found


def _share(batch: Sequence[_Waiting], found: NDArray[Any]) -> None:
    at = 0
    for each in batch:
        end = at + each.table.rows
        if not each.answer.done():
            each.answer.set_result(found[at:end])
        at = end
