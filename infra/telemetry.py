"""Structured logs: a JSON object or a readable line per event, never with content."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from infra.settings import Logging

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Set for the length of one request; every line logged meanwhile carries it."""


def configure_logging(settings: Logging, *, stream: TextIO | None = None) -> None:
    """Send this process's logs to `stream`, standard error by default; called once, at the edge."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_add_request_id)
    if settings.format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(
            logging.Formatter("{asctime} {levelname:<7} {name}: {message}", style="{")
        )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for noisy in ("faiss.loader", "uvicorn.access", "sentence_transformers", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _add_request_id(record: logging.LogRecord) -> bool:
    current = request_id.get()
    if current is not None:
        record.request_id = current
    return True
