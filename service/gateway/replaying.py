"""One reader of a shared answer: replayed from its beginning, within the reader's own time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.errors import EngineTimedOut
from service.errors import as_object, describe
from service.gateway.calls import Outcome
from service.streaming import frame

if TYPE_CHECKING:
    from service.gateway.sharing import SharedAnswer


@dataclass(frozen=True, slots=True)
class Reader:
    """One who did not ask first."""

    outcome: Outcome
    headers: Mapping[str, str]
    left: Callable[[], float]
    """Seconds until its own deadline."""
    ended: Callable[[BaseException | None], None]
    """Called once, with why if it was before the answer's end."""


class Replay:
    """Reads a shared answer from its beginning; not a generator, so that closing always counts."""

    def __init__(self, shared: SharedAnswer, reader: Reader | None) -> None:
        self._shared = shared
        self._reader = reader
        self._at = 0
        self._has_left = False

    def __aiter__(self) -> Replay:
        return self

    async def __anext__(self) -> bytes:
        shared = self._shared
        while not self._has_left:
            if self._at < len(shared.pieces):
                self._at += 1
                return shared.pieces[self._at - 1]
            if shared.has_ended:
                self._leave(shared.error)
                if shared.error is not None:
                    raise shared.error
                break
            try:
                await self._wait()
            except TimeoutError:  # only a stream keeps its readers waiting
                late = EngineTimedOut("The deadline passed before the answer was complete")
                self._leave(late)
                return frame(as_object(describe(late)))
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leave."""
        self._leave(asyncio.CancelledError())

    async def _wait(self) -> None:
        if self._reader is None:  # the work has a deadline, which is this one's
            await self._shared.wait_for_more()
            return
        async with asyncio.timeout(self._reader.left()):
            await self._shared.wait_for_more()

    def _leave(self, error: BaseException | None) -> None:
        """Count as a reader no more; `error` is why before the end."""
        if not self._has_left:
            self._has_left = True
            self._shared.leave()
            if self._reader is not None:
                self._reader.ended(error)
