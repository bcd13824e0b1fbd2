"""What is sent of spans is what the library would send of them."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from service.span_export import Exporter, encoded
from service.spans import Spans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SINGLE = st.one_of(
    st.text(max_size=20),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)
ATTRIBUTES = st.dictionaries(
    st.text(min_size=1, max_size=20), SINGLE | st.lists(st.text(max_size=5), min_size=1, max_size=3)
)
SPAN = st.tuples(
    st.text(min_size=1, max_size=20),
    st.sampled_from(SpanKind),
    ATTRIBUTES,
    st.sampled_from([None, PARENT]),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(SPAN, min_size=1, max_size=5))
def test_spans_are_written_as_the_library_writes_them(wanted: list[Any]) -> None:
    spans = _made(wanted)
    assert encoded(spans) == encode_spans(spans)


def test_an_attribute_that_cannot_be_written_costs_itself_alone() -> None:
    bad = {"huge": 2**70, "half": "\ud800", "good": 1}
    first, second = _made(
        [
            ("one", SpanKind.CLIENT, {}, None, False, False),
            ("two", SpanKind.CLIENT, bad, None, False, False),
        ]
    )
    (written,) = encoded([first, second]).resource_spans[0].scope_spans[0].spans[1:]
    assert [attribute.key for attribute in written.attributes] == ["good"]


def test_the_library_still_sends_the_way_that_is_used() -> None:
    exporter = Exporter("http://127.0.0.1:9/v1/traces")
    try:
        assert callable(exporter._client.export)
    finally:
        exporter.shutdown()


def _made(wanted: list[Any]) -> list[ReadableSpan]:
    kept = InMemorySpanExporter()
    spans = Spans(kept, resource=Resource({"service.name": "ragstone"}), sample_ratio=1.0)
    for name, kind, attributes, parent, remote, has_event in wanted:
        events = [Event("noted", {"a": 1}, time.time_ns())] if has_event else []
        spans.end(spans.begin(parent, remote=remote), name, kind, attributes, events=events)
    spans.close()
    return list(kept.get_finished_spans())
