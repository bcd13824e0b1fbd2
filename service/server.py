"""Runs the application: one process, uvicorn, patient with clients up to a limit."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from infra.errors import RagstoneError
from infra.settings import Settings
from infra.telemetry import configure_logging
from service.app import create_app
from service.authentication import check_before_start
from service.bodies import IS_WHOLE
from service.gateway.door import WATCH_LEAVING
from service.prediction.exchange import UNDER_WAY
from service.wiring import Components

logger = logging.getLogger(__name__)

HEADER_BYTES = 64 * 1024
HEADER_SECONDS = 15.0
"""From the connection, or the last answer, until a request's headers are complete."""
KEEP_ALIVE_SECONDS = 30
SWITCH_SECONDS = 0.0001
"""After which a thread that works hands the interpreter to the loop that answers requests; Python's
own 5 ms add up, because a request asks for it several times."""
GARBAGE_THRESHOLDS = (10_000, 20, 20)
"""Requests leave hardly any cycles; looking for them after every 700 objects found what waits to be
written down, over and over."""
DRAIN_SECONDS = 30
"""For answers under way once the process is asked to stop."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way, checkpoint and return.

    Raises:
        InvalidConfiguration: the settings do not fit, or nobody could use what was served.
        StorageFailed: the database cannot be reached.
    """
    with configure_logging(settings.logging).gathering():
        _serve(settings)


def configure(components: Components) -> uvicorn.Config:
    """Return how uvicorn is run: our logs only, bounded headers, no hurry for answers under way."""
    settings = components.settings.server
    return uvicorn.Config(
        create_app(components),
        host=settings.host.strip("[]"),
        port=settings.port,
        http=ImpatientProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        loop="uvloop",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def _serve(settings: Settings) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    components = Components(settings)
    # uvicorn stops in good order at both, then raises the signal again for whoever called it.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_before_start(settings.server, lambda: components.keys)
        components.routes  # noqa: B018 - what is wrong with them is told here, in one line
        server = Prompt(configure(components))
        server.run()
        if not server.started:
            address = f"{settings.server.host}:{settings.server.port}"
            raise RagstoneError(f"The server did not start on {address}; its log says why")
    except KeyboardInterrupt:
        logger.info("stopped")
    finally:
        components.close()
        signal.signal(signal.SIGTERM, before)


class Prompt(uvicorn.Server):
    """Tells the application that it is about to stop, so that what has no end of its own ends."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and let the collector of garbage look no more at what stays to the end.

        A full collection over all of it would stop every request for a tenth of a second.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.stopping.set()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection whose request headers do not arrive in time, or do not end.

    The parser itself has no limits and is lenient about hosts, so both are kept here.
    """

    header_seconds = HEADER_SECONDS
    _timer: asyncio.TimerHandle | None = None
    _waits_since = 0.0
    _is_head = True
    """The next bytes are a request's line or headers."""
    _head_bytes = 0
    _leave: Callable[[], None] | None = None

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
        super().data_received(data)
        if self._is_head and self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers are too large.")

    def on_message_begin(self) -> None:
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

    def on_headers_complete(self) -> None:
        self._is_head, self._head_bytes = False, 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEADER_BYTES:
            raise httptools.HttpParserError("The headers are too large")
        if hosts != 1 and (hosts or self.parser.get_http_version() == "1.1"):
            raise httptools.HttpParserError("A request names its host once")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._waits_since = self.loop.time()
        super().on_response_complete()

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
