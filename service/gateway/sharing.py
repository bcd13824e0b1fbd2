"""One answer for several readers: read once from where it comes, replayed from its beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from service.gateway.replies import GatewayReply

Produce: TypeAlias = Callable[[], Awaitable[GatewayReply]]
Finished: TypeAlias = "Callable[[SharedAnswer], None]"
PIECE_BYTES = 64
"""What a piece takes beside its bytes."""


class SharedAnswer:
    """An answer under way or at its end; whoever joins late reads it from the beginning.

    It is read by a task of its own, so no reader waits for a slower one. When the last reader
    leaves before the end, the work is stopped, unless it `outlives` its readers.
    """

    def __init__(
        self, produce: Produce, *, request: bytes, outlives: bool, finished: Finished
    ) -> None:
        """Begin.

        Args:
            produce: starts the work; what it raises, every reader meets.
            request: the digest of what is asked.
            outlives: goes on when nobody reads any more.
            finished: called once, at the end, however it ended.
        """
        self.request = request
        self._produce = produce
        self._outlives = outlives
        self._finished = finished
        self._readers = 0
        self._reply: GatewayReply | None = None
        self._error: BaseException | None = None
        self._more = asyncio.Event()
        self._begun = asyncio.Event()
        self.pieces: list[bytes] = []
        self.size = 0
        """Bytes that it takes in memory, roughly."""
        self.is_complete = False
        """True if it came to its own end, with nothing missing."""
        self._task = asyncio.create_task(self._read())

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

    async def join(self, headers: Mapping[str, str] | None = None) -> GatewayReply:
        """Return the answer for one more reader, once it has begun; `headers` are that reader's."""
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
        own = dict(given.headers if headers is None else headers)
        for name in ("content-type", "content-length"):
            if name in given.headers:
                own[name] = given.headers[name]
        return GatewayReply(given.status, own, _Reader(self), given.outcome)

    async def wait_for_more(self) -> None:
        """Return when something was added to the pieces, or the answer ended."""
        await self._more.wait()

    def leave(self) -> None:
        """Count one reader less; the work of the last who leaves is stopped."""
        self._readers -= 1
        if self._readers == 0 and not self._outlives and not self._task.done():
            self._error = self._error or asyncio.CancelledError()
            self._task.cancel()

    async def _read(self) -> None:
        reply: GatewayReply | None = None
        try:
            reply = await self._produce()
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
            self._finished(self)

    has_ended = False

    def _wake(self) -> None:
        woken, self._more = self._more, asyncio.Event()
        woken.set()


class _Reader:
    """Reads a shared answer from its beginning; not a generator, so that closing always counts."""

    def __init__(self, shared: SharedAnswer) -> None:
        self._shared = shared
        self._at = 0
        self._has_left = False

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> bytes:
        shared = self._shared
        while self._at == len(shared.pieces):
            if shared.has_ended:
                await self.aclose()
                if shared.error is not None:
                    raise shared.error
                raise StopAsyncIteration
            await shared.wait_for_more()
        self._at += 1
        return shared.pieces[self._at - 1]

    async def aclose(self) -> None:
        """Leave."""
        if not self._has_left:
            self._has_left = True
            self._shared.leave()
