"""Spans sent to a collector by OTLP, each written straight into the message's bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SdkEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from service.spans import SAMPLED, Event, Span

SCOPE = "ragstone"
KINDS = {"internal": 1, "server": 2, "client": 3}
FAILED = 2
FLAGS_LOCAL, FLAGS_REMOTE = 0x100, 0x300
"""Whether the parent is another process's, and that this is known."""
_FIXED32, _FIXED64, _DOUBLE = Struct("<I"), Struct("<Q"), Struct("<d")
INT64 = range(-(2**63), 2**63)
VARINT, BITS64, BYTES, BITS32 = 0, 1, 2, 5
"""How a field of a protobuf message is written."""


class Exporter:
    """Sends with the library's connection, its retries, headers and certificates.

    The library takes 45 microseconds to write a span, in the interpreter that requests wait for.
    """

    def __init__(self, address: str) -> None:
        self._library = OTLPSpanExporter(address)
        self._client = getattr(self._library, "_client", None)
        """None in another release of the library."""
        self._resource = Resource.create({"service.name": "ragstone"})

    def send(self, spans: Sequence[Span]) -> None:
        """Send spans; the library logs what it gives up."""
        if self._client is None:
            self._library.export([readable(span, self._resource) for span in spans])
        else:
            self._client.export(encoded(spans, self._resource))

    def close(self) -> None:
        """Close the connection."""
        self._library.shutdown()  # type: ignore[no-untyped-call]


def readable(span: Span, resource: Resource) -> ReadableSpan:
    """Return a span as the library's own exporters take it."""
    place, flags = span.place, TraceFlags(SAMPLED)
    parent = SpanContext(place.trace_id, place.parent_id, place.is_remote, flags)
    return ReadableSpan(
        span.name,
        context=SpanContext(place.trace_id, place.span_id, False, flags),
        parent=parent if place.parent_id else None,
        resource=resource,
        attributes=span.attributes,
        events=[SdkEvent(event.name, event.attributes, event.at) for event in span.events],
        kind=SpanKind[span.kind.upper()],
        status=Status(StatusCode.ERROR if span.has_failed else StatusCode.UNSET),
        start_time=place.start,
        end_time=span.end,
        instrumentation_scope=InstrumentationScope(SCOPE),
    )


def encoded(spans: Sequence[Span], resource: Resource) -> bytes:
    """Return the `ExportTraceServiceRequest` that the library would make of spans."""
    source = _field(1, _attributes(1, resource.attributes))
    scope = _field(1, _text(1, SCOPE))
    written = b"".join([_field(2, _span(span)) for span in spans])
    return _field(1, source + _field(2, scope + written))


def _span(span: Span) -> bytes:
    place = span.place
    parts = [
        _field(1, place.trace_id.to_bytes(16)),
        _field(2, place.span_id.to_bytes(8)),
        _field(4, place.parent_id.to_bytes(8)) if place.parent_id else b"",
        _field(5, span.name.encode("utf-8", "replace")),
        _number(6, KINDS[span.kind]),
        _tag(7, BITS64) + _FIXED64.pack(place.start),
        _tag(8, BITS64) + _FIXED64.pack(span.end),
        _attributes(9, span.attributes),
        *[_field(11, _event(event)) for event in span.events],
        _field(15, _number(3, FAILED) if span.has_failed else b""),
        _tag(16, BITS32) + _FIXED32.pack(FLAGS_REMOTE if place.is_remote else FLAGS_LOCAL),
    ]
    return b"".join(parts)


def _event(event: Event) -> bytes:
    at = _tag(1, BITS64) + _FIXED64.pack(event.at)
    return at + _text(2, event.name) + _attributes(3, event.attributes)


def _attributes(number: int, attributes: Mapping[str, Any]) -> bytes:
    written = []
    for name, value in attributes.items():
        try:
            written.append(_field(number, _text(1, name) + _field(2, _value(value))))
        except ValueError:  # a number of more than 64 bits, half a character
            continue
    return b"".join(written)


def _value(value: Any) -> bytes:
    """Return an `AnyValue`.

    Raises:
        ValueError: there is none for it.
    """
    if isinstance(value, str):
        return _text(1, value)
    if isinstance(value, bool):
        return _tag(2, VARINT) + (b"\x01" if value else b"\x00")
    if isinstance(value, int):
        if value not in INT64:
            raise ValueError("more than 64 bits")
        return _tag(3, VARINT) + _varint(value & (2**64 - 1))
    if isinstance(value, float):
        return _tag(4, BITS64) + _DOUBLE.pack(value)
    if isinstance(value, list | tuple):
        return _field(5, b"".join([_field(1, _value(each)) for each in value]))
    raise ValueError(f"no value of OpenTelemetry is a {type(value).__name__}")


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, content: bytes) -> bytes:
    return _tag(number, BYTES) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _tag(number, VARINT) + _varint(value)


def _tag(number: int, form: int) -> bytes:
    return _varint(number << 3 | form)


def _varint(value: int) -> bytes:
    if value < 128:
        return _SMALL[value]
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


_SMALL = tuple(bytes([value]) for value in range(128))
