"""A collector in memory: keeps the spans that it is sent."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from service.span_export import readable
from service.spans import Span


class KeptSpans:
    """What was sent, as it was and as OpenTelemetry's own."""

    def __init__(self) -> None:
        self.sent: list[Span] = []

    def send(self, spans: Sequence[Span]) -> None:
        self.sent += spans

    def close(self) -> None:
        """Nothing is open."""

    def readable(self) -> list[ReadableSpan]:
        return [readable(span, Resource({})) for span in self.sent]
