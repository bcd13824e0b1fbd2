"""The server's protocol: bounded and patient with what arrives, told when a client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.bodies import IS_WHOLE
from service.errors import Failure, as_object
from service.gateway.door import WATCH_LEAVING
from service.prediction.exchange import UNDER_WAY

TOO_LARGE = "The headers are too large; send fewer and shorter ones"
HEADER_BYTES = 64 * 1024
HEADERS = 256
HEADER_SECONDS = 15.0
"""From the connection, or the last answer, until a request's headers are complete."""
LINGER_SECONDS = 0.5
"""That a kept connection stays when the server stops: a request may be on its way over it."""


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection whose request headers do not arrive in time, or do not end.

    The parser itself has no limits and is lenient about hosts, so both are kept here. To it, what
    stands behind a body in chunks are headers, too: they are bounded as well, and told to nobody.
    """

    header_seconds = HEADER_SECONDS
    _timer: asyncio.TimerHandle | None = None
    _waits_since = 0.0
    _is_head = True
    """The next bytes are a request's line or headers."""
    _head_bytes = 0
    _idle_bytes = 0
    """Since a body's last: of what frames its chunks, and of headers behind it."""
    _is_between = True
    """The parser has read a message to its end, and nothing of another."""
    _leave: Callable[[], None] | None = None
    _why = ""
    """Of what the parser is told to refuse; it has words of its own for all that it refuses."""
    _is_last = False
    """The server stops: the next answer, if there is one, is the connection's last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._timer = self.loop.call_later(self.header_seconds, self._check_patience)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_head:
            if self._head_bytes == 0 and self._is_idle():
                self._waits_since = self.loop.time()
            self._head_bytes += len(data)
        self._idle_bytes += len(data)
        super().data_received(data)
        flood_bytes = self._head_bytes if self._is_head else self._idle_bytes
        if flood_bytes > HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response(TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, in the shape of our other errors, and close."""
        if self._is_idle() or not self.cycle.response_started:
            self.transport.write(_refusal(self._why or msg))
        self.transport.close()

    def on_message_begin(self) -> None:
        self._is_between = False
        super().on_message_begin()
        state = self.scope["state"]
        state[WATCH_LEAVING], state[IS_WHOLE] = self._watch, self._has_whole_body
        state[UNDER_WAY] = self.tasks

    def _has_whole_body(self) -> bool:
        return not self.cycle.more_body

    def _watch(self, leave: Callable[[], None] | None) -> None:
        """Call `leave` should the client leave before its answer is complete."""
        self._leave = leave
        if leave is not None:
            self.flow.resume_reading()  # or its leaving would not be seen
            if self.cycle.disconnected:
                self.loop.call_soon(leave)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._is_head, self._head_bytes, self._idle_bytes = False, 0, 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEADER_BYTES or len(self.headers) > HEADERS:
            self._why = TOO_LARGE
        elif hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            self._why = "A request names its host once"
        if self._why:
            raise httptools.HttpParserError(self._why)
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._is_head = self._is_between = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._waits_since = self.loop.time()
        super().on_response_complete()
        if self._is_last:
            self.loop.call_later(LINGER_SECONDS, self._close_unless_asked)

    def shutdown(self) -> None:
        """Answer what is under way, or on its way, and have the client told that it is the last."""
        self._is_last = True
        if self._is_idle():
            self.loop.call_later(LINGER_SECONDS, self._close_unless_asked)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _close_unless_asked(self) -> None:
        if self._is_idle() and not self._head_bytes and not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)
        if self._leave is not None and self.cycle.disconnected:
            self._leave()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _check_patience(self) -> None:
        """Look whether headers are overdue; one timer a connection, set anew when it fires."""
        left = self.header_seconds
        if self._is_idle() and self._is_head and (self._head_bytes or self.cycle is None):
            left = self._waits_since + self.header_seconds - self.loop.time()
            if left <= 0:
                self.transport.close()
                return
        self._timer = self.loop.call_later(left, self._check_patience)


def _refusal(words: str) -> bytes:
    body = orjson.dumps(as_object(Failure(400, "invalid_request", words)))
    head = (
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
