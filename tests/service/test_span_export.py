"""What is sent of spans is what the library would send of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from kept_spans import KeptSpans
from service.span_export import Exporter, encoded, readable
from service.spans import MOST_WAITING, SPANS_AT_ONCE, Event, Span, Spans

RESOURCE = Resource.create({"service.name": "ragstone"})
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
    st.sampled_from(("internal", "server", "client")),
    ATTRIBUTES,
    st.sampled_from([None, PARENT]),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=25)
@given(st.lists(SPAN, min_size=1, max_size=5))
def test_spans_are_written_as_the_library_writes_them(wanted: list[Any]) -> None:
    spans = _made(wanted)
    theirs = encode_spans([readable(span, RESOURCE) for span in spans])
    assert _read(spans) == theirs


def test_an_attribute_that_cannot_be_written_costs_itself_alone() -> None:
    bad = {"huge": 2**70, "half": "\ud800", "good": 1}
    (written,) = (
        _read(_made([("one", "client", bad, None, False, False)]))
        .resource_spans[0]
        .scope_spans[0]
        .spans
    )
    assert [attribute.key for attribute in written.attributes] == ["good"]


def test_the_library_still_sends_the_way_that_is_used() -> None:
    exporter = Exporter("http://127.0.0.1:9/v1/traces")
    try:
        assert callable(exporter._library._client.export)
    finally:
        exporter.close()


def test_what_comes_while_too_many_wait_is_lost_and_told(caplog: pytest.LogCaptureFixture) -> None:
    going = threading.Event()

    class Slow(KeptSpans):
        def send(self, spans: Sequence[Span]) -> None:
            going.wait(30)
            super().send(spans)

    kept = Slow()
    spans = Spans(kept, sample_ratio=1.0)
    for _ in range(2 * MOST_WAITING):
        spans.end(spans.begin(None), "one", "server", {})
    going.set()
    spans.close()
    assert MOST_WAITING <= len(kept.sent) < 2 * MOST_WAITING
    assert [record.message for record in caplog.records] == [
        "spans are lost: the collector does not take them"
    ]


def test_what_comes_while_a_batch_is_sent_waits_for_one_of_its_own() -> None:
    sizes: list[int] = []

    class Busy(KeptSpans):
        def send(self, sent: Sequence[Span]) -> None:
            sizes.append(len(sent))
            if len(sizes) == 1:
                _end_two(spans)

    spans = Spans(Busy(), sample_ratio=1.0)
    _end_two(spans)
    spans.flush()
    assert sizes == [2]
    spans.close()
    assert sizes == [2, 2]


def _end_two(spans: Spans) -> None:
    for _ in range(2):
        spans.end(spans.begin(None), "one", "server", {})


def test_the_end_waits_for_no_collector_that_does_not_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    going = threading.Event()

    class Hung(KeptSpans):
        closed = 0

        def send(self, spans: Sequence[Span]) -> None:
            super().send(spans)
            going.wait(30)

        def close(self) -> None:
            self.closed += 1

    kept = Hung()
    spans = Spans(kept, sample_ratio=1.0, close_seconds=0.01)
    for _ in range(2 * SPANS_AT_ONCE):
        spans.end(spans.begin(None), "one", "server", {})
    spans.close()
    spans.close()
    going.set()
    assert kept.closed == 1
    assert len(kept.sent) <= SPANS_AT_ONCE
    assert "not take the last ones" in caplog.text


def _made(wanted: list[Any]) -> list[Span]:
    kept = KeptSpans()
    spans = Spans(kept, sample_ratio=1.0)
    for name, kind, attributes, parent, remote, has_event in wanted:
        events = [Event("noted", {"a": 1}, time.time_ns())] if has_event else []
        spans.end(spans.begin(parent, remote=remote), name, kind, attributes, events=events)
    spans.close()
    return kept.sent


def _read(spans: Sequence[Span]) -> ExportTraceServiceRequest:
    read: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(encoded(spans, RESOURCE))
    return read
