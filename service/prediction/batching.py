"""Requests that wait for the same model are answered together, off the loop."""

from __future__ import annotations

import asyncio
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
QUICK_SECONDS = 0.0003
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
    is_alone: bool = False
    """It was in a batch that failed, and is tried by itself."""


class Batcher:
    """Runs a model off the loop. Nobody waits for a batch to fill: what came meanwhile is the next.

    A few rows for a model that has lately taken less than a thread does are answered at once.

    To be used from one event loop.
    """

    def __init__(
        self,
        run: Run,
        threads: Executor,
        bounds: Bounds,
        *,
        observe: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take what runs a batch, the threads, the bounds, and who is told the rows of a batch."""
        self._run = run
        self._threads = threads
        self._bounds = bounds
        self._observe = observe
        self._clock = clock
        self._seconds: float | None = None
        """That a small batch took, at most, of late; None before the first."""
        self._queue: deque[_Waiting] = deque()
        self._running = 0

    async def run(self, table: Table) -> NDArray[Any]:
        """Return what the model says of each row; who gives up waiting is not computed for.

        Raises:
            Overloaded: as many requests as may wait for this model.
            EngineFailed: the model cannot be run on these rows.
        """
        if len(self._queue) >= self._bounds.waiting:
            raise Overloaded(
                f"{len(self._queue)} requests wait for this model; try again in a moment"
            )
        if self._is_quick(table) and not self._queue and not self._running:
            self._observe(table.rows)
            return self._timed(table.columns, table.rows)
        answer = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(table, answer))
        self._start()
        found: NDArray[Any] = await answer
        return found

    def _start(self) -> None:
        while self._queue and self._running < self._bounds.batches:
            batch = self._next()
            if not batch:
                return
            self._running += 1
            rows = sum(each.table.rows for each in batch)
            self._observe(rows)
            columns = joined([each.table.columns for each in batch])
            work = asyncio.get_running_loop().run_in_executor(
                self._threads, self._timed, columns, rows
            )
            work.add_done_callback(partial(self._end, batch))

    def _timed(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        start = self._clock()
        try:
            return checked(self._run, columns, rows)
        finally:
            if rows <= FEW_ROWS:
                self._seconds = max(self._clock() - start, FORGETTING * (self._seconds or 0.0))

    def _is_quick(self, table: Table) -> bool:
        seconds = self._seconds
        return seconds is not None and seconds <= QUICK_SECONDS and table.rows <= FEW_ROWS

    def _next(self) -> Sequence[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            first = self._queue[0]
            if first.answer.done():  # whoever asked has left, or waited too long
                self._queue.popleft()
                continue
            is_last = first.is_alone or rows + first.table.rows > self._bounds.batch_rows
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
        elif len(batch) == 1:
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
        else:  # one of them may be to blame, and the others are not to suffer for it
            for each in reversed(batch):
                each.is_alone = True
                self._queue.appendleft(each)
        self._start()


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
