"""A circuit breaker: after some failures in a row a replica is left alone, then tried by one call.

closed --failures in a row--> open --time passes, or a probe succeeds--> half-open
half-open --one call succeeds--> closed; --it fails--> open
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeAlias

State: TypeAlias = Literal["closed", "half_open", "open"]


class Breaker:
    """Counts how the calls of one replica end, and says whether it may have another."""

    def __init__(
        self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`failures` in a row open it, for `seconds`."""
        self._limit = failures
        self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._is_trying = False

    @property
    def state(self) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    @property
    def is_ready(self) -> bool:
        """Whether a call may be sent: one at a time while it is half-open."""
        if self._open_until is None:
            return True
        return not self._is_trying and self._clock() >= self._open_until

    @property
    def seconds_left(self) -> float:
        """Until it may be tried; 0 if it may be now."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def begin(self) -> None:
        """Note that a call was sent; it ends in one of the three below."""
        if self._open_until is not None:
            self._is_trying = True

    def succeed(self) -> None:
        self._failures = 0
        self._open_until = None
        self._is_trying = False

    def fail(self) -> None:
        self._failures += 1
        self._is_trying = False
        if self._open_until is not None or self._failures >= self._limit:
            self._open_until = self._clock() + self._seconds

    def abandon(self) -> None:
        """The call ended in a way that says nothing about the replica: its caller left."""
        self._is_trying = False

    def half_open(self) -> None:
        """A probe found the replica well: let one call try it now."""
        if self._open_until is not None:
            self._open_until = self._clock()
