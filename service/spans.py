"""Spans of what is over: made in one step where live ones take many, sent by a thread."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

logger = logging.getLogger(__name__)

SPANS_AT_ONCE = 256
"""Encoding so many takes 2 ms of the interpreter, which requests wait for."""
MOST_WAITING = 8 * SPANS_AT_ONCE
"""Those that come while so many wait for a collector that does not answer are lost."""
WAIT_SECONDS = 5.0
"""For a batch to become full."""
CLOSE_SECONDS = 5.0
"""For what is left at the end; a collector that takes longer loses it."""
TOLD_SECONDS = 60.0
"""Between two warnings that spans are lost."""
HEADER = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""Of W3C's trace context: version, trace, span, flags, and what a later version may add."""
SAMPLED = 1
LOWER_HALF = 2**64 - 1
"""Of a trace's id, by which OpenTelemetry's sampler decides."""

Kind: TypeAlias = Literal["internal", "server", "client"]


@dataclass(slots=True)
class Place:
    """Where a span stands in its trace, and when it began."""

    trace_id: int
    span_id: int
    parent_id: int
    """0: it is the first of its trace."""
    is_sampled: bool
    is_remote: bool
    """Whether what is above it is another process's."""
    start: int
    """Nanoseconds since 1970."""

    @property
    def header(self) -> str:
        """W3C's `traceparent` for what is called from here."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.is_sampled:02x}"


@dataclass(frozen=True, slots=True)
class Event:
    """What happened in the course of a span."""

    name: str
    attributes: Mapping[str, Any]
    at: int
    """Nanoseconds since 1970."""


@dataclass(slots=True)
class Span:
    """What was done, where it stands in its trace, and what is said of it."""

    place: Place
    name: str
    kind: Kind
    attributes: Mapping[str, Any]
    end: int
    """Nanoseconds since 1970."""
    events: Sequence[Event] = ()

    @property
    def has_failed(self) -> bool:
        return "error.type" in self.attributes


class Sends(Protocol):
    """Takes spans to where they are looked at."""

    def send(self, spans: Sequence[Span]) -> None:
        """Send some; what cannot be sent is lost."""
        ...

    def close(self) -> None: ...


class Spans:
    """Makes spans of what is over and hands them, in batches, to a thread that sends them.

    A live span of the SDK costs a request 40 microseconds: locks, copies and checks of attributes
    that only pay while others may still change it. Here a request carries no more than a `Place`.
    """

    def __init__(
        self, sender: Sends, *, sample_ratio: float, close_seconds: float = CLOSE_SECONDS
    ) -> None:
        """Take where spans go; `sample_ratio` is of traces that begin here, others follow theirs.

        The share is decided as OpenTelemetry's `TraceIdRatioBased` does.
        """
        self._sender = sender
        self._close_seconds = close_seconds
        self._bound = round(sample_ratio * (LOWER_HALF + 1))
        self._waiting: deque[Span] = deque()
        self._is_full = threading.Event()
        self._is_stopping = False
        self._sending = threading.Lock()
        self._told_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def begin(self, parent: str | None, *, start: int | None = None, remote: bool = False) -> Place:
        """Return the place of a span below what a `traceparent` names.

        Args:
            parent: the header; what is absent or malformed starts a trace.
            start: nanoseconds since 1970; now by default.
            remote: the header came from another process.
        """
        found = HEADER.fullmatch(parent) if parent else None
        trace_id = parent_id = 0
        if found is not None and not (found[1] == "00" and found[5]):
            trace_id, parent_id = int(found[2], 16), int(found[3], 16)
        begun = time.time_ns() if start is None else start
        span_id = random.getrandbits(64) or 1
        if found is None or not trace_id or not parent_id:
            trace_id = random.getrandbits(128) or 1
            is_sampled = trace_id & LOWER_HALF < self._bound
            return Place(trace_id, span_id, 0, is_sampled, False, begun)
        is_sampled = bool(int(found[4], 16) & SAMPLED)
        return Place(trace_id, span_id, parent_id, is_sampled, remote, begun)

    def end(
        self,
        place: Place,
        name: str,
        kind: Kind,
        attributes: Mapping[str, Any],
        *,
        end: int | None = None,
        events: Sequence[Event] = (),
    ) -> None:
        """Send a span that is over; one that was not sampled costs nothing more.

        Args:
            place: from `begin`.
            name: of what was done.
            kind: on which side of a call.
            attributes: by OpenTelemetry's names; not changed afterwards. `error.type` says that
                it failed.
            end: nanoseconds since 1970; now by default.
            events: on the way.
        """
        if not place.is_sampled:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._tell_lost()
            return
        ended = time.time_ns() if end is None else end
        self._waiting.append(Span(place, name, kind, attributes, ended, events))
        if len(self._waiting) >= SPANS_AT_ONCE and not self._is_full.is_set():
            self._is_full.set()

    def flush(self) -> None:
        """Send what was handed over; what comes meanwhile waits for a batch of its own."""
        with self._sending:
            left = len(self._waiting)
            while batch := self._next_batch(min(left, SPANS_AT_ONCE)):
                left -= len(batch)
                self._sender.send(batch)

    def close(self) -> None:
        """Send what is left, as far as there is time; a second call does nothing."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._is_full.set()
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            logger.warning("spans are lost: the collector does not take the last ones")
            self._waiting.clear()
        self._sender.close()

    def _run(self) -> None:
        is_stopping = False
        while not is_stopping:
            self._is_full.wait(WAIT_SECONDS)
            self._is_full.clear()
            is_stopping = self._is_stopping
            self.flush()

    def _next_batch(self, size: int) -> list[Span]:
        batch: list[Span] = []
        with suppress(IndexError):  # there are no more, or they were given up meanwhile
            while len(batch) < size:
                batch.append(self._waiting.popleft())
        return batch

    def _tell_lost(self) -> None:
        now = time.monotonic()
        if now - self._told_at > TOLD_SECONDS:
            self._told_at = now
            logger.warning("spans are lost: the collector does not take them")
