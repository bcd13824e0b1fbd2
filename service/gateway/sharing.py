"""One answer for several readers: read once from where it comes, replayed from its beginning."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TypeAlias

from service.gateway.replies import GatewayReply

Produce: TypeAlias = Callable[[], Awaitable[GatewayReply]]
Finished: TypeAlias = "Callable[[SharedReply], None]"
PIECE_BYTES = 64
"""What a piece takes beside its bytes."""


class SharedReply:
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
        self._pieces: list[bytes] = []
        self._more = asyncio.Event()
        self._error: BaseException | None = None
        self.size = 0
        """Bytes that it takes in memory, roughly."""
        self.status = 0
        """Of HTTP; 0 until the answer begins."""
        self.headers: Mapping[str, str] = {}
        self.is_complete = False
        """True if it came to its own end, with nothing missing."""
        self._has_begun = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._read())

    @property
    def is_open(self) -> bool:
        """False once it was stopped or broke: nobody may join any more."""
        return self._error is None

    async def join(self) -> GatewayReply:
        """Return the answer for one more reader, once it has begun."""
        self._readers += 1
        try:
            await asyncio.shield(self._has_begun)
        except BaseException:
            self._leave()
            raise
        return GatewayReply(self.status, self.headers, self._replay())

    async def _read(self) -> None:
        try:
            reply = await self._produce()
            self.status, self.headers = reply.status, reply.headers
            self._has_begun.set_result(None)
            async with contextlib.aclosing(reply.pieces) as pieces:
                async for piece in pieces:
                    self._pieces.append(piece)
                    self.size += len(piece) + PIECE_BYTES
                    self._wake()
            self.is_complete = True
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - handed to the readers
            self._error = error
            if not self._has_begun.done():
                self._has_begun.set_exception(error)
                self._has_begun.exception()  # nobody may be left to look at it
        finally:
            self._wake()
            self._finished(self)

    async def _replay(self) -> AsyncGenerator[bytes, None]:
        at = 0
        try:
            while True:
                while at < len(self._pieces):
                    yield self._pieces[at]
                    at += 1
                if self.is_complete:
                    return
                if self._error is not None:
                    raise self._error
                await self._more.wait()
        finally:
            self._leave()

    def _wake(self) -> None:
        woken, self._more = self._more, asyncio.Event()
        woken.set()

    def _leave(self) -> None:
        self._readers -= 1
        if self._readers == 0 and not self._outlives and not self._task.done():
            self._error = self._error or asyncio.CancelledError()
            self._task.cancel()
