"""Runs the application: one process, uvicorn, patient with clients up to a limit."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from infra.errors import RagstoneError
from infra.settings import Settings
from infra.telemetry import configure_logging
from service.app import create_app
from service.authentication import check_before_start
from service.prediction.protocol import ExpressProtocol
from service.wiring import Components

logger = logging.getLogger(__name__)

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
        http=ExpressProtocol,
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
