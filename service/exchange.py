"""One HTTP exchange: its id, time, count, line in the log, and the headers it always has."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra import telemetry
from infra.security import Ids
from monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
UNANSWERED = 500
LEFT = 499
"""The client closed the connection before the answer began."""
NO_SNIFF = (b"x-content-type-options", b"nosniff")
OWN_ID = b"x-request-id"


class Exchange:
    """Outermost of our middlewares; sees every request, also those refused further in."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._ids = Ids("req_")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = _given_id(scope) or self._ids()
        scope.setdefault("state", {})["request_id"] = number
        # Never reset: each request is a task with a context of its own, and an unexpected error is
        # logged after this function has been left.
        telemetry.request_id.set(number)
        start = time.perf_counter()
        status = UNANSWERED

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own, has_no_sniff = OWN_ID, False
                headers = []
                for item in message.get("headers", ()):
                    name = item[0]
                    if name != own:
                        headers.append(item)
                        has_no_sniff = has_no_sniff or name == NO_SNIFF[0]
                headers.append((own, number.encode("ascii")))
                if not has_no_sniff:
                    headers.append(NO_SNIFF)
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            if status == UNANSWERED and scope["state"].get("has_left"):
                status = LEFT
            self._record(scope, status, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        self._metrics.count_request(scope["method"], route, status=status, seconds=seconds)
        if logger.isEnabledFor(logging.INFO):
            method = scope["method"] if scope["method"].isalpha() else "?"
            logger.handle(_line((method, route, status, seconds * 1e3)))


def record_together(
    metrics: Metrics, route: str, seconds: Sequence[float], request_ids: Sequence[str]
) -> None:
    """Count and log POST requests that were answered together, with 200."""
    metrics.count_requests("POST", route, status=200, seconds=seconds)
    if logger.isEnabledFor(logging.INFO):
        alike = vars(_line(()))
        for request_id, each in zip(request_ids, seconds, strict=True):
            line = logging.LogRecord.__new__(logging.LogRecord)  # which costs more to initialise
            vars(line).update(alike, args=("POST", route, 200, each * 1e3), request_id=request_id)
            logger.handle(line)


def _line(told: tuple[Any, ...]) -> logging.LogRecord:
    """Return what `logger.info` makes, which would look for its line in the source each time."""
    return logging.LogRecord(logger.name, logging.INFO, __file__, 0, _LINE, told, None)


_LINE = "%s %s %d in %.1f ms"


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == OWN_ID:
            return value.decode("ascii") if SANE_ID.fullmatch(value) else None
    return None
