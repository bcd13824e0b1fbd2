"""Runs trials: asks the target, retries what was not the case's fault, scores, and goes on."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from evals.context import Context
from evals.metric import Metric
from evals.scores import Score
from evals.scoring import checked, is_writable, words
from evals.suite import Suite
from evals.target import Target
from evals.trial import Case, Output, Trial
from infra.errors import (
    BudgetExceeded,
    EngineFailed,
    InvalidConfiguration,
    MissingDependency,
    NotReady,
    Overloaded,
    RateLimited,
    SourceFailed,
    StorageFailed,
)

RETRIED = (EngineFailed, NotReady, Overloaded, RateLimited, SourceFailed, StorageFailed, OSError)
"""Not the case's fault; `TimeoutError` is an `OSError`."""
TEMPORARY = (*RETRIED, InvalidConfiguration, MissingDependency)
"""What is past when a metric's server, or what the operator set, is mended."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0
GIVE_UP_AFTER = 20
"""Trials in a row whose target was out of order: asking the rest would only take time."""

Finished: TypeAlias = Callable[[Trial], None]
Key: TypeAlias = tuple[str, int]
"""A case's id and the repeat."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every trial needs."""

    suite: Suite
    target: Target
    metrics: Mapping[str, Metric]
    """Those of cases, by the name that the suite gives them."""
    context: Context = field(default_factory=Context)
    begun: Mapping[Key, Trial] = field(default_factory=dict)
    """Trials that have an output, and scores that failed for a while: only these are made again."""
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


async def run_trials(
    work: Work, planned: list[tuple[Case, int]], *, on_trial: Finished
) -> list[Trial]:
    """Run what is planned, some at a time, and return it in that order.

    What the deadline, or a target that is out of order, leaves undone has the reason in its place.

    Args:
        work: what every trial needs.
        planned: cases and the number of the repeat.
        on_trial: is told of each as it is finished, not of those left undone.
    """
    done: dict[int, Trial] = {}
    state = _State(iter(enumerate(planned)))

    async def worker() -> None:
        for position, (case, repeat) in state.taken():
            asked = await _asked(work, case, repeat)
            trial = await _scored(work, case, repeat, asked)
            done[position] = trial
            on_trial(trial)
            state.count(asked)

    reason = ""
    try:
        async with asyncio.timeout(work.suite.deadline_seconds):
            async with asyncio.TaskGroup() as group:
                for _ in range(min(work.suite.concurrency, len(planned))):
                    group.create_task(worker())
    except BaseExceptionGroup as group:  # of `on_trial`, which has nothing to do with trials
        raise group.exceptions[0] from None
    except TimeoutError:
        reason = f"not run: the deadline of {work.suite.deadline_seconds:g} s had passed"
    reason = reason or f"not run: the target failed {GIVE_UP_AFTER} times in a row"
    return [
        done.get(position)
        or work.begun.get((case.id, repeat))
        or undone(work, case, repeat, reason)
        for position, (case, repeat) in enumerate(planned)
    ]


def undone(work: Work, case: Case, repeat: int, reason: str) -> Trial:
    """Return a trial without an output."""
    scores = {name: Score.error(f"no output: {reason}") for name in work.metrics}
    return Trial(case, repeat, None, scores, failure=reason)


def _seed(work: Work, case: Case, repeat: int) -> int:
    # A copy has the seed of its case, so that what differs is its input alone.
    return seed_of(work.suite.seed, case.original or case.id, repeat)


def seed_of(seed: int, case: str, repeat: int) -> int:
    """Return a trial's own seed, which does not depend on the order of cases."""
    digest = hashlib.sha256(f"{seed}/{repeat}/{case}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(slots=True)
class _State:
    queue: Iterator[tuple[int, tuple[Case, int]]]
    """Shared by the workers: each takes what comes next."""
    in_a_row: int = 0

    def taken(self) -> Iterator[tuple[int, tuple[Case, int]]]:
        for item in self.queue:
            if self.in_a_row >= GIVE_UP_AFTER:
                return
            yield item

    def count(self, asked: _Asked) -> None:
        self.in_a_row = self.in_a_row + 1 if asked.is_out_of_order else 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """The output, or why there is none, and how often the target was asked."""

    output: Output | None
    attempts: int
    failure: str = ""
    is_out_of_order: bool = False
    """Whether it is not the case that failed."""


async def _asked(work: Work, case: Case, repeat: int) -> _Asked:
    begun = work.begun.get((case.id, repeat))
    if begun is not None:
        return _Asked(begun.output, begun.attempts)
    return await _ask(work, case, _seed(work, case, repeat))


async def _ask(work: Work, case: Case, seed: int) -> _Asked:
    attempt = 0
    while True:
        attempt += 1
        started = work.clock()
        try:
            async with asyncio.timeout(work.suite.timeout_seconds):
                output = await work.target(case, seed=seed)
            took = work.clock() - started
            if not is_writable(output):
                failure = "the target failed: its output is not JSON, or not text"
                return _Asked(None, attempt, failure)
            return _Asked(replace(output, latency_seconds=took), attempt)
        except RETRIED as error:
            if attempt > work.suite.retries or isinstance(error, BudgetExceeded):
                reason = words(error, work.suite.timeout_seconds)
                failure = f"the target is out of order: {reason}"
                return _Asked(None, attempt, failure, is_out_of_order=True)
            await work.sleep(_pause(error, attempt))
        except Exception as error:  # noqa: BLE001  any target may fail in any way; the run goes on
            return _Asked(None, attempt, f"the target failed: {words(error)}")


def _pause(error: BaseException, attempt: int) -> float:
    asked = getattr(error, "retry_after_seconds", 0.0)
    grown = FIRST_PAUSE_SECONDS * float(2 ** (attempt - 1))
    return min(max(float(asked), grown), LONGEST_PAUSE_SECONDS)


async def _scored(work: Work, case: Case, repeat: int, asked: _Asked) -> Trial:
    if asked.output is None:
        return replace(undone(work, case, repeat, asked.failure), attempts=asked.attempts)
    context = replace(work.context, seed=_seed(work, case, repeat))
    begun = work.begun.get((case.id, repeat))
    scores = {} if begun is None else begun.lasting
    for name, metric in work.metrics.items():
        if name not in scores:
            scores[name] = await _score(work, metric, case, output=asked.output, context=context)
    return Trial(case, repeat, asked.output, scores, attempts=asked.attempts)


async def _score(
    work: Work, metric: Metric, case: Case, *, output: Output, context: Context
) -> Score:
    try:
        async with asyncio.timeout(work.suite.timeout_seconds):
            score: object = await metric.score(case, output, context)
    except Exception as error:  # noqa: BLE001  a metric's failure is a score like any other
        reason = words(error, work.suite.timeout_seconds)
        return Score.error(reason, is_temporary=isinstance(error, TEMPORARY))
    return checked(score, metric)
