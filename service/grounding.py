"""Has every answer over documents scored for groundedness: before its end is told, or after it."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from anyio import to_thread

from infra.contracts import Answer, Groundedness, Interaction
from monitoring.groundedness_metrics import GroundednessMetrics

logger = logging.getLogger(__name__)

MOST_WAITING = 1_000
"""Answers that wait to be scored after they were told."""


class Grounding:
    """Keeps what a detector does wrong away from answers; counts and times what it finds."""

    def __init__(
        self,
        score: Callable[[Answer], Groundedness],
        metrics: GroundednessMetrics,
        *,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """Take what scores.

        Args:
            score: blocks; whatever it raises is logged and counted, and the answer goes on.
            metrics: are told of everything that is found.
            most_waiting: answers more than these are not scored.
        """
        self._score = score
        self._metrics = metrics
        self._room = threading.BoundedSemaphore(most_waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grounding")

    async def within(self, answer: Answer) -> Answer:
        """Return the answer with what was found."""
        return replace(answer, groundedness=await to_thread.run_sync(self.find, answer))

    def after(self, answer: Answer, then: Callable[[Groundedness | None], None]) -> None:
        """Score an answer when there is time for it; `then` is called in any case."""
        if not self._room.acquire(blocking=False):
            self._metrics.count_blind("overloaded")
            then(None)
            return
        self._thread.submit(self._later, answer, then)

    def find(self, answer: Answer) -> Groundedness | None:
        """Return what was found, or None where scoring failed."""
        started = time.perf_counter()
        try:
            found = self._score(answer)
        except Exception as error:  # a detector is a plug-in, and no answer fails for it
            logger.exception("an answer was not scored: %s", type(error).__name__)
            self._metrics.count_blind("failed")
            return None
        self._metrics.observe(found, seconds=time.perf_counter() - started)
        if answer.answerable and not answer.passages:
            self._metrics.count_blind("no_passages")
        return found

    def close(self) -> None:
        """Score what waits, and end."""
        self._thread.shutdown(wait=True)

    def _later(self, answer: Answer, then: Callable[[Groundedness | None], None]) -> None:
        try:
            then(self.find(answer))
        finally:
            self._room.release()


def noted(item: Interaction, found: Groundedness | None, *, review_share: float) -> Interaction:
    """Return an interaction with what was found of its answer, and whether to look at it.

    Chance is drawn from its id, so that every process draws alike.
    """
    if found is None:
        return item
    review: Literal["unsupported", "sampled"] | None = None
    if found.verdict == "unsupported":
        review = "unsupported"
    elif found.verdict != "unscored" and _drawn(item.id) < review_share:
        review = "sampled"
    return replace(item, groundedness=found.score, verdict=found.verdict, review=review)


def _drawn(id_: str) -> float:
    """Return a number from 0 to below 1 that is the id's own."""
    digest = hashlib.sha256(id_.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
