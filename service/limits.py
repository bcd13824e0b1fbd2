"""How much at once: a bounded number of questions is worked on, a bounded number waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio.to_thread
from starlette.exceptions import HTTPException

from service.deadlines import NEVER, Deadline

Result = TypeVar("Result")

WAITING_PER_RUNNING = 4
SPARE_THREADS = 16
"""For lists, uploads and key checks while every question's thread is busy."""


class Admission:
    """The one way in for work that blocks: searches and answers."""

    def __init__(self, max_running: int) -> None:
        self._max_waiting = WAITING_PER_RUNNING * max_running
        self._max_running = max_running
        self._places = asyncio.Semaphore(max_running)
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def admit(self, deadline: Deadline = NEVER) -> AsyncIterator[None]:
        """Hold one place for the length of the block; it is waited for until `deadline`.

        Raises:
            EngineTimedOut: there was none by then.
            HTTPException: 429, as many as may wait are waiting already.
        """
        if self._places.locked() and self.waiting >= self._max_waiting:
            raise HTTPException(
                429,
                f"{self.running} questions are being answered and {self.waiting} are waiting; "
                "try again shortly",
            )
        self.waiting += 1
        try:
            async with deadline.kept():
                await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()

    def widen_threads(self) -> None:
        """Give this event loop's thread pool room for every question that may run."""
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = self._max_running + SPARE_THREADS


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run what blocks in the bounded pool; a lost client leaves it running to its end."""
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
