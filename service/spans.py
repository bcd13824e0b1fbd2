"""Spans of what is over, for OpenTelemetry's exporters, in one step where live spans take many."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext, SpanKind

SPANS_AT_ONCE = 256
"""Encoding so many takes 3 ms of the interpreter, which requests wait for."""
HEADER = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""Of W3C's trace context: version, trace, span, flags, and what a later version may add."""
SAMPLED = 1


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


class Spans:
    """Makes spans of what is over and hands them, in batches, to an exporter's own thread.

    A live span of the SDK costs a request 40 microseconds: locks, copies and checks of attributes
    that only pay while others may still change it. Here a request carries no more than a `Place`.
    """

    def __init__(self, exporter: SpanExporter, *, resource: Resource, sample_ratio: float) -> None:
        """Take where spans go.

        Args:
            exporter: of OpenTelemetry.
            resource: what every span is said to come from.
            sample_ratio: of the traces that begin here; others follow their caller.
        """
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        self._processor = BatchSpanProcessor(exporter, max_export_batch_size=SPANS_AT_ONCE)
        self._resource = resource
        self._bound = TraceIdRatioBased.get_bound_for_rate(sample_ratio)
        self._limit = TraceIdRatioBased.TRACE_ID_LIMIT
        self._scope = InstrumentationScope("ragstone")
        self._span, self._context, self._flags = ReadableSpan, SpanContext, TraceFlags(SAMPLED)
        self._unset, self._error = Status(), Status(StatusCode.ERROR)

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
            is_sampled = trace_id & self._limit < self._bound
            return Place(trace_id, span_id, 0, is_sampled, False, begun)
        is_sampled = bool(int(found[4], 16) & SAMPLED)
        return Place(trace_id, span_id, parent_id, is_sampled, remote, begun)

    def end(
        self,
        place: Place,
        name: str,
        kind: SpanKind,
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
        above = place.parent_id
        self._processor.on_end(
            self._span(
                name,
                context=self._at(place.trace_id, place.span_id, False),
                parent=self._at(place.trace_id, above, place.is_remote) if above else None,
                resource=self._resource,
                attributes=attributes,
                events=events,
                kind=kind,
                status=self._error if "error.type" in attributes else self._unset,
                start_time=place.start,
                end_time=time.time_ns() if end is None else end,
                instrumentation_scope=self._scope,
            )
        )

    def flush(self) -> None:
        """Wait until what was handed over is sent."""
        self._processor.force_flush()

    def close(self) -> None:
        """Send what is left."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _at(self, trace_id: int, span_id: int, is_remote: bool) -> SpanContext:
        return self._context(trace_id, span_id, is_remote, self._flags)
