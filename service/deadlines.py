"""Until when an answer is waited for, where its caller says so; what is begun then is given up."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from infra.errors import EngineTimedOut

Event = TypeVar("Event")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A time on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @property
    def seconds_left(self) -> float | None:
        """None where it never comes; never below 0."""
        return None if math.isinf(self.at) else max(0.0, self.at - time.monotonic())

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Give up what is awaited in the block when it comes.

        Raises:
            EngineTimedOut: it came.
        """
        limit = asyncio.timeout(self.seconds_left)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise EngineTimedOut("The deadline passed before the answer was complete") from error

    async def bound(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Yield what comes until then; what whoever takes it does meanwhile is not cut off.

        Raises:
            EngineTimedOut: it came before the last.
        """
        async with aclosing(events):
            while True:
                try:
                    async with self.kept():
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                yield event


NEVER: Final = Deadline(math.inf)
