"""Structured logs: a JSON object or a readable line per event, never with content."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import TextIO

import orjson

from infra.settings import Logging

GATHER_SECONDS = 0.1
"""What a crash can lose of the log's quieter lines."""
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Set for the length of one request; every line logged meanwhile carries it."""
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""W3C's header for what the request at hand calls: the place of the request's own span."""


def configure_logging(settings: Logging, *, stream: TextIO | None = None) -> Lines:
    """Send this process's logs to `stream`, standard error by default; called once, at the edge."""
    # Nothing here is told of them, and each line would pay for them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = Lines(stream or sys.stderr)
    handler.addFilter(_add_request_id)
    if settings.format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(
            logging.Formatter("{asctime} {levelname:<7} {name}: {message}", style="{")
        )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for noisy in ("faiss.loader", "uvicorn.access", "sentence_transformers", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # What is imported wherever it is installed, and says at each import what it lacks on a CPU.
    for noisier in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisier).setLevel(logging.ERROR)
    return handler


class Lines(logging.StreamHandler[TextIO]):
    """Writes a line for each record: at once, or while gathering some together with others.

    A write lets another thread have the interpreter, and whoever logs waits to have it back.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._written = stream
        self._gathered: io.StringIO | None = None

    @contextmanager
    def gathering(self, seconds: float = GATHER_SECONDS) -> Iterator[None]:
        """Write every `seconds`; what warns is written at once, with all before it."""
        stopping = threading.Event()

        def write() -> None:
            while not stopping.wait(seconds):
                self.write_out()

        thread = threading.Thread(target=write, name="logs", daemon=True)
        with self.lock or nullcontext():
            self.stream = self._gathered = io.StringIO()
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
            self.write_out()
            with self.lock or nullcontext():
                self.stream, self._gathered = self._written, None

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if record.levelno >= logging.WARNING:
            self.write_out()

    def write_out(self) -> None:
        """Write what was gathered."""
        with self.lock or nullcontext():
            if self._gathered is None or not (lines := self._gathered.getvalue()):
                return
            self.stream = self._gathered = io.StringIO()
            with suppress(OSError):  # nobody reads it: it is lost, and must not pile up
                self._written.write(lines)
                self._written.flush()


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON, with what it carries beside its message."""

    _second = -1
    _time = ""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self._moment(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {
            name: value
            for name, value in vars(record).items()
            if name not in _ITS_OWN and not name.startswith("_")  # other packages' own marks
        }
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack_info"] = record.stack_info
        try:
            return orjson.dumps(line, default=str).decode()
        except orjson.JSONEncodeError:  # half a character, or a key that is no text
            return json.dumps(line, default=str, skipkeys=True)

    def _moment(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
        return self._time


_ITS_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
"""What every record has, and uvicorn's second text of it."""


def _add_request_id(record: logging.LogRecord) -> bool:
    current = request_id.get()
    if current is not None:
        record.request_id = current
    return True
