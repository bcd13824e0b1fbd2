"""Retries are a share of the requests, so that they do not multiply the load when all fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

BUDGET_SECONDS = 10
FREE_RETRIES = 10
"""In that time, also where hardly anything is asked."""


class RetryBudget:
    """Allows retries as a share of the requests of the last ten seconds.

    When everything fails, retries multiply the load on servers that cannot bear it; so they are
    only for the exceptions.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[list[float]] = deque()
        """Second, requests, retries."""

    def note_request(self) -> None:
        self._now()[1] += 1

    def take(self, ratio: float) -> bool:
        """Take one retry, if there is one."""
        now = self._now()
        requests = sum(item[1] for item in self._seconds)
        retries = sum(item[2] for item in self._seconds)
        if retries >= max(FREE_RETRIES, ratio * requests):
            return False
        now[2] += 1
        return True

    def _now(self) -> list[float]:
        second = int(self._clock())
        while self._seconds and self._seconds[0][0] <= second - BUDGET_SECONDS:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]
