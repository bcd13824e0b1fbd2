"""Runs the application: one process, uvicorn, patient with clients up to a limit."""

from __future__ import annotations

import asyncio
import logging
import signal
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from infra.errors import RagstoneError
from infra.settings import Settings
from infra.telemetry import configure_logging
from service.app import create_app
from service.authentication import check_before_start
from service.wiring import Components

logger = logging.getLogger(__name__)

HEADER_BYTES = 64 * 1024
HEADER_SECONDS = 15.0
"""From the connection, or the last answer, until a request's headers are complete."""
KEEP_ALIVE_SECONDS = 30
DRAIN_SECONDS = 30
"""For answers under way once the process is asked to stop."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way, checkpoint and return.

    Raises:
        InvalidConfiguration: the settings do not fit, or nobody could use what was served.
        StorageFailed: the database cannot be reached.
    """
    configure_logging(settings.logging)
    components = Components(settings)
    # uvicorn stops in good order at both, then raises the signal again for whoever called it.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_before_start(settings.server, lambda: components.keys)
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
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


class Prompt(uvicorn.Server):
    """Tells the application that it is about to stop, so that what has no end of its own ends."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.stopping.set()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


class ImpatientProtocol(H11Protocol):
    """Closes a connection whose request headers do not arrive in time."""

    header_seconds = HEADER_SECONDS
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self.header_seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        has_headers = self.cycle is not None and not self.cycle.response_complete
        if has_headers:
            self._forgive()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.header_seconds, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forgive()
        super().connection_lost(exc)

    def _forgive(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
