"""HTTP/1.1 to one model server: kept connections, and answers read as they come, nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import cast

import httptools

from infra.errors import EngineFailed, EngineTimedOut, EngineUnreachable
from service.engines._place import Place

HEAD_BYTES = 64 * 1024
"""Of an answer's status line and headers."""
BUFFER_BYTES = 128 * 1024
"""Of an answer that is read ahead; beyond this the server is made to wait."""


class Connections:
    """Those to one server that are open: the one that was used last is used next."""

    def __init__(self, place: Place, *, connect_seconds: float, keep_alive_seconds: float) -> None:
        self.place = place
        self._connect_seconds = connect_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def kept(self) -> Connection | None:
        """Return one that is open and that nobody uses, if there is one."""
        while self._idle:
            kept = self._idle.pop()
            if kept.is_open:
                return kept
        return None

    async def made(self, timeout_seconds: float) -> Connection:
        """Return a new one.

        Raises:
            EngineUnreachable: it does not stand in time.
            EngineFailed: the server cannot be reached.
        """
        seconds = min(self._connect_seconds, timeout_seconds)
        try:
            async with asyncio.timeout(seconds):
                made = await self._connect(seconds)
        except TimeoutError as error:
            words = f"no connection within {seconds:.3g} s"
            raise EngineUnreachable(f"{self.place.address} cannot be asked: {words}") from error
        except (OSError, ValueError) as error:
            raise EngineFailed(f"{self.place.address} cannot be asked: {_words(error)}") from error
        self._open.add(made)
        return made

    async def _connect(self, seconds: float) -> Connection:
        """Try the host's addresses in turn; one that does not answer leaves time for the others."""
        place, loop = self.place, asyncio.get_running_loop()
        until = loop.time() + seconds
        hosts = await _addresses(place)
        for left in range(len(hosts) - 1, -1, -1):
            try:
                async with asyncio.timeout((until - loop.time()) / (left + 1)):
                    _, made = await loop.create_connection(
                        lambda: Connection(
                            place.address, keep=self._keep, forget=self._open.discard
                        ),
                        hosts[-left - 1],
                        place.port,
                        ssl=place.security,
                        server_hostname=place.host if place.security else None,
                    )
                return made
            except OSError:  # which a TimeoutError is
                if not left:
                    raise
        raise OSError("the host has no address")

    async def close(self) -> None:
        """Close all of them, also those in use."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._idle.clear()
        for each in tuple(self._open):
            each.abort()
        # Connections close in the loop's next turn, which may be its last.
        await asyncio.sleep(0)

    def _keep(self, used: Connection) -> None:
        used.idle_since = used.loop.time()
        self._idle.append(used)
        if self._timer is None:
            self._timer = used.loop.call_later(self._keep_alive_seconds, self._tidy)

    def _tidy(self) -> None:
        """Close those that were not used for long, which stand first."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._idle:
            left = self._idle[0].idle_since + self._keep_alive_seconds - loop.time()
            if self._idle[0].is_open and left > 0:
                self._timer = loop.call_later(left, self._tidy)
                return
            self._idle.popleft().abort()


async def _addresses(place: Place) -> list[str]:
    """Return the addresses of a host, in the order in which they are to be tried."""
    try:
        return [str(ip_address(place.host))]
    except ValueError:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(each[4][0]) for each in found))


class Connection(asyncio.Protocol):
    """One request at a time, and its answer."""

    def __init__(
        self,
        address: str,
        *,
        keep: Callable[[Connection], None],
        forget: Callable[[Connection], None],
    ) -> None:
        """`keep` is told when it can serve the next request, `forget` when it is closed."""
        self.loop = asyncio.get_running_loop()
        self.is_open = False
        self.idle_since = 0.0
        self.heard_at = 0.0
        """When something came last, by the loop's clock."""
        self._address = address
        self._keep = keep
        self._forget = forget
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._is_asked = False
        self._waiter: asyncio.Future[None] | None = None
        self._clear()

    def _clear(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_ended = False
        self._has_head = False
        self._head_bytes = 0
        self._ends_with_connection = False
        self._is_reusable = False
        self._pieces: list[bytes] = []
        self._size = 0
        self.is_paused = False
        """Whether the server is made to wait, because nobody takes what came."""
        self._failure: EngineFailed | None = None

    def ask(self, head: bytes, body: bytes) -> None:
        """Send a request; `wait` for its answer, `read` it, and then `release`."""
        self._clear()
        self._is_asked = True
        self._transport.write(head)
        if body:
            self._transport.write(body)

    async def wait(self, timeout_seconds: float, *, of: float | None = None) -> None:
        """Return when status and headers are here; cancelling this closes the connection.

        Args:
            timeout_seconds: how long they are waited for.
            of: of how many seconds that is what is left, as errors tell.

        Raises:
            EngineTimedOut: they are not, in time.
            EngineFailed: the connection broke, or the server does not speak HTTP.
        """
        timer = self.loop.call_later(timeout_seconds, self._expire, of or timeout_seconds)
        try:
            while not self._has_head and self._failure is None:
                await self._more()
        finally:
            timer.cancel()
        if self._failure is not None:
            failure = self._failure
            self.release()
            raise failure

    async def read(self) -> bytes:
        """Return what has come of the body since the last time; empty at its end.

        Raises:
            EngineFailed: the connection broke before that.
        """
        while not self._pieces:
            if self.has_ended:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._more()
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self.is_paused and self.is_open:
            self.is_paused = False
            self.heard_at = self.loop.time()  # until now it was not listened to
            self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self) -> None:
        """End the exchange: the connection serves the next one if the answer has ended."""
        if not self._is_asked:
            return
        self._is_asked = False
        is_whole = self.has_ended and self._is_reusable and self.is_open
        if is_whole and not self.is_paused and not self._transport.get_write_buffer_size():
            self._keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close it at once."""
        if self.is_open:
            self.is_open = False
            self._transport.abort()

    def fail(self, failure: EngineFailed) -> None:
        """Give the answer up: whoever waits for it is told why."""
        if self._failure is None and not self.has_ended:
            self._failure = failure
        self.abort()
        self._wake()

    async def _more(self) -> None:
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.release()
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self, seconds: float) -> None:
        words = f"{self._address} did not begin to answer within {seconds:.3g} s"
        self.fail(EngineTimedOut(words))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self.is_open = True
        if (plug := transport.get_extra_info("socket")) is not None:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._parser = None  # it knows this object, and this object it
        self._forget(self)
        if self._has_head and self._ends_with_connection and exc is None:
            self.has_ended = self.has_ended or self._failure is None
        if not self.has_ended and self._failure is None:
            how = "broke off" if self._has_head else "cannot be asked"
            why = _words(exc) if exc is not None else "the connection was closed"
            self._failure = EngineFailed(f"{self._address} {how}: {why}")
        self._wake()

    def data_received(self, data: bytes) -> None:
        if not self._is_asked or self.has_ended or self._parser is None:
            self.abort()  # it speaks without being asked
            return
        self.heard_at = self.loop.time()
        self._head_bytes += 0 if self._has_head else len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            why = _words(error.__context__ or error)  # the parser wraps what is raised in here
            self.fail(EngineFailed(f"{self._address} does not speak HTTP: {why}"))
            return
        if not self._has_head and self._head_bytes > HEAD_BYTES:
            self.fail(EngineFailed(f"{self._address} sends more than {HEAD_BYTES:,} B of headers"))
        elif self._has_head:
            self._wake()

    def on_message_begin(self) -> None:
        if self.has_ended:
            raise httptools.HttpParserError("a second answer to one request")
        self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:  # behind the body
            return
        self._size += len(name) + len(value)
        if self._size > HEAD_BYTES:
            raise httptools.HttpParserError("the headers are too large")
        self.headers[name.lower().decode("latin-1")] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._size = 0
        self.status = self._parser.get_status_code()
        if self.status < 200:  # the answer itself is still to come
            return
        self._has_head = True
        headers = self.headers
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise httptools.HttpParserError("it compresses its answer, which it was not asked for")
        has_end = "content-length" in headers or "transfer-encoding" in headers
        self._ends_with_connection = not has_end and self.status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._size += len(body)
        if self._size > BUFFER_BYTES and not self.is_paused:
            self.is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._has_head and self._parser is not None:
            self.has_ended = True
            self._is_reusable = self._parser.should_keep_alive()


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
