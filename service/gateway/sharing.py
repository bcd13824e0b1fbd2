"""One answer for several readers: read once from where it comes, replayed from its beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from service.gateway.calls import TARGET_HEADER
from service.gateway.replaying import Reader, Replay
from service.gateway.replies import GatewayReply

Produce: TypeAlias = Callable[[], Awaitable[GatewayReply]]
Finished: TypeAlias = "Callable[[SharedAnswer], None]"
PIECE_BYTES = 64
"""What a piece takes beside its bytes."""
SAME_FOR_ALL = ("content-type", "content-length", TARGET_HEADER)
"""Headers of the answer that are every reader's."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a call is given, on the monotonic clock, in seconds."""

    started: float
    deadline: float

    @property
    def seconds(self) -> float:
        return self.deadline - self.started


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a request is known by."""

    key: bytes
    """By which its answer is found."""
    request: bytes
    """The digest of what is asked; another one under the same key is refused."""
    size: int
    """Bytes of the request, which are kept with the answer."""
    may_quote: bool = False
    """Its answer may quote documents."""
    name: str | None = None
    """The caller's own for it."""


class SharedAnswer:
    """An answer under way or at its end; whoever joins late reads it from the beginning.

    It is read by a task of its own, so no reader waits for a slower one. When the last reader
    leaves before the end, the work is stopped, unless it `outlives` its readers.
    """

    def __init__(
        self,
        produce: Produce,
        *,
        asked: Fingerprint,
        given: Span,
        outlives: bool,
        finished: Finished,
    ) -> None:
        """Begin.

        Args:
            produce: starts the work; what it raises, every reader meets.
            asked: what it is the answer to.
            given: the time in which it must have ended.
            outlives: goes on when nobody reads any more.
            finished: called once, at the end, however it ended.
        """
        self.asked = asked
        self.given = given
        self._outlives = outlives
        self._readers = 0
        self._reply: GatewayReply | None = None
        self._error: BaseException | None = None
        self._more = asyncio.Event()
        self._begun = asyncio.Event()
        self.pieces: list[bytes] = []
        self.size = asked.size
        """Bytes that it takes in memory, roughly."""
        self.ended = 0.0
        """When it came to its end, by the clock of who keeps it."""
        self.documents: frozenset[str] = frozenset()
        """Public ids of those that it may quote, once it is kept."""
        self.has_ended = False
        self.is_complete = False
        """True if it came to its own end, with nothing missing."""
        # Not kept on the object: an answer lives longer than the request that asked for it.
        self._task = asyncio.create_task(self._read(produce, finished))

    @property
    def is_open(self) -> bool:
        """False once it was stopped or broke: nobody may join any more."""
        return self._error is None

    @property
    def error(self) -> BaseException | None:
        """Why it did not come to its end."""
        return self._error

    @property
    def status(self) -> int:
        """Of HTTP; 0 until the answer begins."""
        return 0 if self._reply is None else self._reply.status

    @property
    def reply(self) -> GatewayReply | None:
        """What the first who asked was given."""
        return self._reply

    async def join(self, reader: Reader | None = None) -> GatewayReply:
        """Return the answer once it has begun, for who asked first or for one more reader."""
        self._readers += 1
        try:
            await self._begun.wait()
        except asyncio.CancelledError:
            self.leave()
            raise
        if self._reply is None:
            self.leave()
            raise self._error or asyncio.CancelledError()
        given = self._reply
        if reader is None:
            return GatewayReply(given.status, given.headers, Replay(self, None), given.outcome)
        same = {name: given.headers[name] for name in SAME_FOR_ALL if name in given.headers}
        return GatewayReply(
            given.status, {**reader.headers, **same}, Replay(self, reader), reader.outcome
        )

    async def wait_for_more(self) -> None:
        """Return when something was added to the pieces, or the answer ended."""
        await self._more.wait()

    def leave(self) -> None:
        """Count one reader less; the work of the last who leaves is stopped."""
        self._readers -= 1
        if self._readers == 0 and not self._outlives and not self._task.done():
            self._error = self._error or asyncio.CancelledError()
            self._task.cancel()

    async def _read(self, produce: Produce, finished: Finished) -> None:
        reply: GatewayReply | None = None
        try:
            reply = await produce()
            self._reply = reply
            self._begun.set()
            async for piece in reply.pieces:
                self.pieces.append(piece)
                self.size += len(piece) + PIECE_BYTES
                self._wake()
            self.is_complete = reply.outcome is None or reply.outcome.error is None
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - handed to the readers
            self._error = error
        finally:
            if reply is not None:
                await reply.pieces.aclose()
            self.has_ended = True
            self._begun.set()
            self._wake()
            finished(self)

    def _wake(self) -> None:
        woken, self._more = self._more, asyncio.Event()
        woken.set()
