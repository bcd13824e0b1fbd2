"""Requests that wait for one model share batches, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from infra.errors import EngineFailed, Overloaded
from service.prediction.batching import FEW_ROWS, QUICK_SECONDS, Batcher, Bounds
from service.prediction.columns import Table
from waiting import until


def table(*values: float) -> Table:
    return Table(len(values), {"x": np.array(values)})


class Doubling:
    """Doubles, but not a 13; notes the rows of each batch, and waits for its gate."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.gate = threading.Event()
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def run(self, columns: Mapping[str, Any]) -> Any:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.batches.append(columns["x"].tolist())
        assert self.gate.wait(10)
        with self._lock:
            self.running -= 1
        if 13 in columns["x"]:
            raise EngineFailed("no thirteens")
        return columns["x"] * 2


@pytest.fixture
def model() -> Doubling:
    return Doubling()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


async def started(batcher: Batcher, *tables: Table) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(batcher.run(each)) for each in tables]
    await asyncio.sleep(0)
    return tasks


def test_what_comes_while_a_batch_runs_is_the_next_batch(
    model: Doubling, threads: ThreadPoolExecutor
) -> None:
    seen: list[int] = []

    async def scenario() -> list[Any]:
        batcher = Batcher(model.run, threads, Bounds(), observe=seen.append)
        tasks = await started(batcher, table(1), table(2, 3), table(4))
        model.gate.set()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(scenario())
    assert [each.tolist() for each in answers] == [[2], [4, 6], [8]]
    assert model.batches == [[1], [2, 3, 4]]
    assert seen == [1, 3]


def test_batch_has_no_more_rows_than_allowed_but_for_one_large_request(
    model: Doubling, threads: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        batcher = Batcher(model.run, threads, Bounds(batch_rows=3))
        tables = [table(0), table(1, 1), table(2), table(3), table(4, 4, 4, 4), table(5)]
        tasks = await started(batcher, *tables)
        model.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert model.batches == [[0], [1, 1, 2], [3], [4, 4, 4, 4], [5]]


def test_as_many_batches_run_at_once_as_allowed(
    model: Doubling, threads: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        batcher = Batcher(model.run, threads, Bounds(batches=2, batch_rows=1))
        tasks = await started(batcher, *[table(n) for n in range(6)])
        await asyncio.to_thread(until, lambda: model.running == 2)
        model.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert model.most_running == 2
    assert len(model.batches) == 6


def test_failing_request_takes_no_other_of_its_batch_with_it(
    model: Doubling, threads: ThreadPoolExecutor
) -> None:
    async def scenario() -> list[Any]:
        batcher = Batcher(model.run, threads, Bounds())
        tasks = await started(batcher, table(1), table(2), table(13), table(4))
        model.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    one, two, thirteen, four = asyncio.run(scenario())
    assert [one.tolist(), two.tolist(), four.tolist()] == [[2], [4], [8]]
    assert isinstance(thirteen, EngineFailed)
    assert model.batches == [[1], [2, 13, 4], [2], [13], [4]]


def test_who_leaves_is_not_computed_for(model: Doubling, threads: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        batcher = Batcher(model.run, threads, Bounds())
        first, left, last = await started(batcher, table(1), table(2), table(3))
        left.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        assert (await first).tolist() == [2]
        assert (await last).tolist() == [6]

    asyncio.run(scenario())
    assert model.batches == [[1], [3]]


def test_no_more_wait_than_may(model: Doubling, threads: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        batcher = Batcher(model.run, threads, Bounds(waiting=2))
        tasks = await started(batcher, table(1), table(2), table(3))
        with pytest.raises(Overloaded):
            await batcher.run(table(4))
        model.gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", [np.array([np.nan]), np.array([np.inf]), np.array([1.0, 2.0])])
def test_what_is_no_answer_is_a_failure(answer: Any, threads: ThreadPoolExecutor) -> None:
    batcher = Batcher(lambda _: answer, threads, Bounds())
    with pytest.raises(EngineFailed):
        asyncio.run(batcher.run(table(1)))


def test_loop_is_free_while_a_model_runs(model: Doubling, threads: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        (task,) = await started(Batcher(model.run, threads, Bounds()), table(1))
        await asyncio.to_thread(until, lambda: model.running)
        model.gate.set()  # on the loop, which the model would keep from getting here
        assert (await task).tolist() == [2]

    asyncio.run(scenario())


def test_few_rows_for_a_quick_model_are_answered_on_the_loop(threads: ThreadPoolExecutor) -> None:
    now, cost, places, seen = 0.0, 0.0001, [], []

    def model(columns: Mapping[str, Any]) -> Any:
        nonlocal now
        now += cost
        places.append("loop" if threading.current_thread() is threading.main_thread() else "thread")
        return columns["x"] * 2

    async def scenario() -> None:
        nonlocal cost
        batcher = Batcher(model, threads, Bounds(), observe=seen.append, clock=lambda: now)
        for rows in (1, 1, FEW_ROWS, FEW_ROWS + 1):
            assert (await batcher.run(table(*[2] * rows))).tolist() == [4] * rows
        assert places == ["thread", "loop", "loop", "thread"]
        assert seen == [1, 1, FEW_ROWS, FEW_ROWS + 1]
        cost = 10 * QUICK_SECONDS
        await batcher.run(table(1))
        cost = 0.0001
        for _ in range(23):
            await batcher.run(table(1))
        assert places[4:] == ["loop", *["thread"] * 22, "loop"]

    asyncio.run(scenario())


async def quick_one(model: Any, threads: ThreadPoolExecutor, **options: Any) -> Batcher:
    """Return a batcher that has found its model quick."""
    batcher = Batcher(model, threads, Bounds(**options), clock=lambda: 0.0)
    await batcher.run(table(0))
    return batcher


def test_requests_of_one_turn_of_the_loop_share_a_batch(threads: ThreadPoolExecutor) -> None:
    batches: list[list[float]] = []

    def model(columns: Mapping[str, Any]) -> Any:
        batches.append(columns["x"].tolist())
        return columns["x"] * 2

    async def scenario() -> list[Any]:
        batcher = await quick_one(model, threads, batch_rows=4)
        return await asyncio.gather(*[batcher.run(table(n, n)) for n in range(1, 4)])

    answers = asyncio.run(scenario())
    assert [each.tolist() for each in answers] == [[2, 2], [4, 4], [6, 6]]
    assert batches == [[0], [1, 1, 2, 2], [3, 3]]


def test_failing_request_takes_no_other_of_its_turn_with_it(
    model: Doubling, threads: ThreadPoolExecutor
) -> None:
    model.gate.set()

    async def scenario() -> list[Any]:
        batcher = await quick_one(model.run, threads)
        asked = [batcher.run(table(n)) for n in (1, 13, 4)]
        return await asyncio.gather(*asked, return_exceptions=True)

    one, thirteen, four = asyncio.run(scenario())
    assert [one.tolist(), four.tolist()] == [[2], [8]]
    assert isinstance(thirteen, EngineFailed)
    assert model.batches == [[0], [1, 13, 4], [1], [13], [4]]


def test_a_request_that_is_alone_needs_no_turn(
    model: Doubling, threads: ThreadPoolExecutor
) -> None:
    model.gate.set()

    async def scenario() -> None:
        batcher = Batcher(model.run, threads, Bounds(), clock=lambda: 0.0)
        assert batcher.run_now(table(1)) is None  # nothing is known of the model
        await batcher.run(table(1))
        found = batcher.run_now(table(2))
        assert found is not None
        assert found.tolist() == [4]
        assert batcher.run_now(table(*[2] * (FEW_ROWS + 1))) is None
        waiting = asyncio.create_task(batcher.run(table(3)))
        await asyncio.sleep(0)
        assert batcher.run_now(table(4)) is None  # it would go before who came first
        assert (await waiting).tolist() == [6]

    asyncio.run(scenario())


@pytest.mark.parametrize("is_quick", [True, False])
def test_who_waits_too_long_is_told(
    model: Doubling, threads: ThreadPoolExecutor, is_quick: bool
) -> None:
    async def scenario() -> None:
        batcher = Batcher(model.run, threads, Bounds(), clock=lambda: 0.0)
        if is_quick:
            model.gate.set()
            await batcher.run(table(0))
            model.gate.clear()
        rows = table(*[1] * (FEW_ROWS + 1))  # which go to a thread
        both = [batcher.run(table(2), seconds=0.01), batcher.run(rows, seconds=0.01)]
        told = await asyncio.gather(*both, return_exceptions=True)
        assert [type(each) for each in told] == [TimeoutError, TimeoutError]
        model.gate.set()
        assert (await batcher.run(table(3), seconds=10)).tolist() == [6]

    asyncio.run(scenario())
