"""A stream under way from a server to a caller, which ends exactly once, however it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import cast

from infra.contracts import Usage
from infra.errors import EngineFailed, EngineTimedOut
from service.engines import Reply
from service.errors import as_object, describe
from service.gateway.attempts import Begun
from service.gateway.calls import LEFT, Outcome
from service.gateway.events import DONE, Events
from service.streaming import frame

logger = logging.getLogger(__name__)

FAILED = 502
"""The server said midway that it failed."""


class Stream(AsyncIterator[bytes]):
    """Whole events as they arrive.

    Not a generator: one that is closed before it was started runs no `finally`, and the place at
    the server would stay taken.
    """

    def __init__(
        self, begun: Begun, outcome: Outcome, *, prompt: int, end: Callable[[Outcome], None]
    ) -> None:
        """`prompt` is about how many tokens it has, `end` is told once how the call ended."""
        self._begun = begun
        self._outcome = outcome
        self._prompt = prompt
        self._tell = end
        self._first = begun.first
        self._events = cast("Events", begun.events)
        self._pieces = cast("AsyncGenerator[bytes, None]", begun.pieces)
        self._reply = cast("Reply", begun.reply)
        self._has_ended = False
        self._is_late = False
        self._reader: asyncio.Task[object] | None = None
        left = outcome.call.deadline - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(left, self._expire)
        outcome.first_byte = time.monotonic()

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            self._outcome.listen(first)
            return first
        if self._has_ended:
            raise StopAsyncIteration
        try:
            while (piece := await self._read()) is not None:
                if whole := self._events.feed(piece):
                    self._outcome.listen(whole)
                    return whole
            last = self._ending()
        except EngineFailed as error:
            last = self._ending() if self._is_told else self._failure(error)
        except asyncio.CancelledError:
            await self.aclose()
            raise
        await self._end()
        if not last:
            raise StopAsyncIteration
        return last

    async def aclose(self) -> None:
        """Stop the server's work, if it has not ended; the caller has left."""
        if not self._has_ended:
            if self._is_told:
                self._ending()
            else:
                self._outcome.status = LEFT
            await self._end()

    @property
    def _is_told(self) -> bool:
        """Whether the caller has seen how it ended: what comes after changes nothing."""
        return self._events.is_done or self._events.error is not None

    async def _read(self) -> bytes | None:
        """Return the next piece, None at the end; one timer for all pieces keeps the deadline."""
        if self._has_expired():
            raise self._lateness()
        self._reader = task = asyncio.current_task()
        try:
            return await self._pieces.__anext__()
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            if self._has_expired() and task is not None and task.uncancel() == 0:
                raise self._lateness() from None
            raise
        finally:
            self._reader = None

    def _has_expired(self) -> bool:
        return self._is_late

    def _expire(self) -> None:
        self._is_late = True
        if self._reader is not None:
            self._reader.cancel()

    def _lateness(self) -> EngineTimedOut:
        return EngineTimedOut("The deadline passed before the answer was complete")

    def _ending(self) -> bytes:
        """Return what is to follow the last event; only now the replica has proved itself."""
        events, replica = self._events, self._begun.replica
        if events.error is not None:
            self._note_failure(FAILED, events.error)
            return b""
        if not events.is_done and events.finish_reason is None:
            raise EngineFailed(f"{replica.server.address} ended the stream midway")
        replica.breaker.succeed()
        return b"" if events.is_done else DONE  # not every server says so at the end

    def _failure(self, error: EngineFailed) -> bytes:
        failure = describe(error)
        self._note_failure(failure.status, failure.code)
        logger.warning("%s", error)
        return frame(as_object(failure))

    def _note_failure(self, status: int, code: str) -> None:
        if not self._has_expired():
            self._begun.replica.note_failure()
        self._outcome.status, self._outcome.error = status, code

    async def _end(self) -> None:
        self._has_ended = True
        self._timer.cancel()
        try:
            await self._pieces.aclose()
            await self._reply.close()
        finally:
            self._begun.end()
            self._note()

    def _note(self) -> None:
        events, outcome = self._events, self._outcome
        outcome.pieces = events.count
        # A server that was stopped midway has told no usage; it sends about a token an event.
        outcome.usage = events.usage or Usage(self._prompt, events.count)
        outcome.cached_tokens = events.cached_tokens
        outcome.finish_reason = events.finish_reason
        self._tell(outcome)
