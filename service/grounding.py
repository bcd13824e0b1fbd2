"""Has every answer over documents scored for groundedness: before its end is told, or after it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import replace
from typing import Literal, Protocol, TypeAlias

import anyio

from infra.contracts import Answer, Groundedness, Interaction
from infra.security import drawn
from monitoring.groundedness_metrics import GroundednessMetrics
from service.daemon_threads import DaemonThreads

logger = logging.getLogger(__name__)

MOST_WAITING = 1_000
"""Answers that wait to be scored after they were told."""
THREADS = 4
"""That score answers before they are told; a detector that hangs takes no other thread."""
CLOSING_SECONDS = 10.0

Then: TypeAlias = Callable[[Groundedness | None], None]


class Followed(Protocol):
    """A scorer that changes while it runs."""

    @property
    def is_due(self) -> bool: ...

    def follow(self) -> None:
        """Look for another model, and open it; blocks."""


class Grounding:
    """Keeps what a detector does wrong away from answers; counts and times what it finds."""

    def __init__(
        self,
        score: Callable[[Answer], Groundedness],
        metrics: GroundednessMetrics,
        *,
        followed: Followed | None = None,
        timeout_seconds: float = 2.0,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """Take what scores.

        Args:
            score: blocks; whatever it raises is logged and counted, and the answer goes on.
            metrics: are told of everything that is found.
            followed: is asked to follow where that is due, beside the answers.
            timeout_seconds: an answer that waits longer for its score is told without one.
            most_waiting: answers more than these are not scored.
        """
        self._score = score
        self._metrics = metrics
        self._followed = followed
        self._timeout_seconds = timeout_seconds
        self._room = threading.BoundedSemaphore(most_waiting)
        # Threads of its own, as a place is free again only when its scoring really ended.
        self._within = DaemonThreads(THREADS, name="grounding-within")
        self._after = DaemonThreads(1, name="grounding")
        self._waiting: dict[object, Then] = {}
        """Who takes its value out tells it, so that each is told once."""

    async def within(self, answer: Answer) -> Answer:
        """Return the answer with what was found, or as it is where that takes too long."""
        context = contextvars.copy_context()
        try:
            scored = self._within.submit(context.run, self._scored, answer)
        except RuntimeError:  # it was closed
            self._metrics.count_blind("closed")
            return answer
        self._follow()
        with anyio.move_on_after(self._timeout_seconds):
            found = self._observed(answer, *await asyncio.wrap_future(scored))
            return replace(answer, groundedness=found)
        logger.warning("an answer was not scored within %s s", self._timeout_seconds)
        self._metrics.count_blind("slow")
        return answer

    def after(self, answer: Answer, then: Then) -> None:
        """Score an answer when there is time for it; `then` is called in any case."""
        if not self._room.acquire(blocking=False):
            self._metrics.count_blind("overloaded")
            then(None)
            return
        key = object()
        self._waiting[key] = then
        try:
            self._after.submit(self._later, key, answer)
        except RuntimeError:  # it was closed
            self._give_up(key)
        self._follow()

    def close(self, *, seconds: float = CLOSING_SECONDS) -> None:
        """Score what waits, for so long at most, and end; the rest is told without a score."""
        self._within.shutdown(wait=False)
        try:
            last = self._after.submit(int)  # one thread: what was submitted before has ended then
        except RuntimeError:
            return
        wait([last], timeout=seconds)
        self._after.shutdown(wait=False, cancel_futures=True)
        for key in tuple(self._waiting):
            self._give_up(key)

    def _follow(self) -> None:
        if self._followed is not None and self._followed.is_due:
            with suppress(RuntimeError):  # it was closed
                self._after.submit(self._followed.follow)

    def _scored(self, answer: Answer) -> tuple[Groundedness | None, float]:
        """Return what was found, None where scoring failed, and the seconds that it took."""
        started = time.perf_counter()
        try:
            found = self._score(answer)
        except Exception as error:  # a detector is a plug-in, and no answer fails for it
            logger.exception("an answer was not scored: %s", type(error).__name__)
            return None, time.perf_counter() - started
        return found, time.perf_counter() - started

    def _observed(
        self, answer: Answer, found: Groundedness | None, seconds: float
    ) -> Groundedness | None:
        if found is None:
            self._metrics.count_blind("failed")
            return None
        self._metrics.observe(found, seconds=seconds)
        if answer.answerable and not answer.passages:
            self._metrics.count_blind("no_passages")
        return found

    def _later(self, key: object, answer: Answer) -> None:
        try:
            found, seconds = self._scored(answer)
            if (then := self._waiting.pop(key, None)) is not None:
                then(self._observed(answer, found, seconds))
        finally:
            self._room.release()

    def _give_up(self, key: object) -> None:
        if (then := self._waiting.pop(key, None)) is not None:
            self._metrics.count_blind("closed")
            then(None)


def noted(item: Interaction, found: Groundedness | None, *, review_share: float) -> Interaction:
    """Return an interaction with what was found of its answer, and whether to look at it.

    Chance is drawn from its id, so that every process draws alike.
    """
    if found is None:
        return item
    review: Literal["unsupported", "sampled"] | None = None
    if found.verdict == "unsupported":
        review = "unsupported"
    elif found.verdict != "unscored" and drawn(item.id) < review_share:
        review = "sampled"
    return replace(item, groundedness=found.score, verdict=found.verdict, review=review)
