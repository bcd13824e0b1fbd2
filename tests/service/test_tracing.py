"""Spans and metrics carry OpenTelemetry's GenAI names, hang together, and hold no content."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from gateway_outcomes import made_call, made_outcome
from infra.contracts import Answer, Citation, Usage
from infra.expectations.recognizers import mask
from infra.settings import load_settings
from kept_spans import KeptSpans
from model_server import serving
from relayed import call, gateway, outcome_of
from service.app import create_app
from service.gateway.transcripts import Transcript
from service.spans import Spans
from service.tracing import Traced, Tracing, open_tracing
from service.wiring import Components

TRACE = "0af7651916cd43dd8448eb211c80319c"
HELLO = {"role": "user", "content": "Hello"}
GIVEN = f"00-{TRACE}-b7ad6b7169203331-01"
KNOWN = {
    value
    for name, value in vars(gen_ai_attributes).items()
    if name.startswith("GEN_AI_") and isinstance(value, str)
}

KNOWN_METRICS = {
    value
    for name, value in vars(gen_ai_metrics).items()
    if name.startswith("GEN_AI_") and isinstance(value, str)
}


class KeptMetrics(MetricExporter):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, *_: Any, **__: Any) -> MetricExportResult:
        self.sent.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, *_: Any) -> bool:
        return True

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


class Kept:
    def __init__(self, **options: Any) -> None:
        self.exporter = KeptSpans()
        self.metrics = KeptMetrics()
        self.tracing = Tracing(spans=self.exporter, metrics=self.metrics, **options)

    def spans(self) -> dict[str, Any]:
        self.tracing.spans.flush()
        return {span.name: span for span in self.exporter.readable()}


def said(text: str) -> Transcript:
    transcript = Transcript()
    transcript.add_body(orjson.dumps({"choices": [{"index": 0, "text": text}]}))
    return transcript


def answered(*, question: str) -> Answer:
    citation = Citation("file-a", 1, "a.md", "A", 0, 4, "Rain", 0, 4, support=0.75)
    return Answer(
        id="answer-1",
        question=question,
        collection="handbook",
        text="Rain",
        answerable=True,
        reason=None,
        citations=(citation,),
        passages=(),
        engine="extractive",
        usage=Usage(5, 1),
        timings_ms={"embed": 2.0, "search": 3.0, "total": 40.0},
    )


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.tracing.close()


def test_a_call_is_a_span_with_genai_names(kept: Kept) -> None:
    kept.tracing.record(made_outcome(made_call(temperature=0.5), started=0.0, ended=1.25))
    span = kept.spans()["chat small"]
    assert span.attributes["gen_ai.provider.name"] == "gpu"
    assert span.attributes["gen_ai.request.temperature"] == 0.5
    assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 8
    assert span.end_time - span.start_time == pytest.approx(1.25e9, abs=1e3)
    ours = {name for name in span.attributes if name.startswith("gen_ai.")}
    assert ours <= KNOWN
    assert len(ours) >= 8


@pytest.mark.parametrize("keeps_text", [False, True])
def test_nothing_of_the_content_is_in_a_span(kept: Kept, keeps_text: bool) -> None:
    with serving() as server:
        asked = call(stream=True)
        asked.body["messages"][0]["content"] = "canary-question"
        kept.tracing.record(outcome_of(gateway(server), asked, keeps_text=keeps_text))
    told = kept.spans()["chat m"].to_json()
    assert "canary" not in told
    assert "tiny0" not in told


def test_content_is_in_it_where_the_settings_ask_for_it() -> None:
    kept = Kept(has_content=True)
    with serving() as server:
        kept.tracing.record(outcome_of(gateway(server), call(stream=True)))
    assert "tiny0 tiny1" in kept.spans()["chat m"].to_json()
    kept.tracing.close()


def test_content_is_masked_where_personal_data_is() -> None:
    kept = Kept(has_content=True, mask=mask)
    kept.tracing.record(made_outcome(transcript=said("Write to ada@example.org")))
    kept.tracing.record_answer(answered(question="Who is ada@example.org?"))
    told = "".join(span.to_json() for span in kept.spans().values())
    assert "Write to <email>" in told
    assert "Who is <email>?" in told
    assert "ada@" not in told
    kept.tracing.close()


def test_a_failure_has_a_type_and_a_status(kept: Kept) -> None:
    kept.tracing.record(made_outcome(status=502, error="engine_failed"))
    span = kept.spans()["chat small"]
    assert span.attributes["error.type"] == "engine_failed"
    assert not span.status.is_ok


def test_the_call_is_a_child_of_the_request_which_is_a_child_of_its_caller(kept: Kept) -> None:
    async def answer(request: Request) -> PlainTextResponse:
        headers = {"traceparent": request.state.traceparent}
        kept.tracing.record(made_outcome(made_call(headers=headers)))
        return PlainTextResponse("yes")

    app = Starlette(routes=[Route("/ask", answer)])
    app.add_middleware(Traced, tracing=kept.tracing)
    TestClient(app).get("/ask", headers={"traceparent": GIVEN})
    spans = kept.spans()
    request = next(span for name, span in spans.items() if name.startswith("GET"))
    assert f"{request.context.trace_id:032x}" == TRACE
    assert spans["chat small"].parent.span_id == request.context.span_id
    assert request.attributes["http.response.status_code"] == 200


MALFORMED = [
    "",
    "nonsense",
    "00-0-0-01",
    "\x00",
    GIVEN + "-more",
    "ff" + GIVEN[2:],
    GIVEN.upper(),
    GIVEN.replace(TRACE, "0" * 32),
    GIVEN.replace("b7ad6b7169203331", "0" * 16),
]


@pytest.mark.parametrize("header", MALFORMED)
def test_a_malformed_parent_starts_a_trace_of_its_own(kept: Kept, header: str) -> None:
    place = kept.tracing.begin(header)
    kept.tracing.end(place, "GET", "/", route=None, status=200)
    span = kept.spans()["GET"]
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" not in {TRACE, "0" * 32}


def test_a_later_version_of_the_header_may_hold_more(kept: Kept) -> None:
    assert kept.tracing.begin("01" + GIVEN[2:] + "-more").trace_id == int(TRACE, 16)


@settings(max_examples=25)
@given(st.binary(max_size=80).map(lambda sent: sent.decode("latin-1")))
def test_headers_are_read_as_the_standard_propagator_reads_them(header: str) -> None:
    _agrees(header)


@settings(max_examples=25)
@given(st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.?)?", fullmatch=True))
def test_headers_of_the_right_form_are_read_as_the_standard_propagator_reads_them(
    header: str,
) -> None:
    _agrees(header)


def test_an_answer_has_its_retrieval_and_the_support_of_its_citations(kept: Kept) -> None:
    async def ask(request: Request) -> PlainTextResponse:
        kept.tracing.record_answer(answered(question="canary?"))
        return PlainTextResponse("yes")

    app = Starlette(routes=[Route("/ask", ask)])
    app.add_middleware(Traced, tracing=kept.tracing)
    TestClient(app).get("/ask", headers={"traceparent": GIVEN})
    spans = kept.spans()
    retrieval, whole = spans["retrieval handbook"], spans["invoke_workflow rag/handbook"]
    assert retrieval.end_time - retrieval.start_time == 5_000_000
    assert f"{whole.context.trace_id:032x}" == TRACE
    (event,) = whole.events
    assert event.name == "gen_ai.evaluation.result"
    assert event.attributes["gen_ai.evaluation.score.value"] == 0.75
    assert "canary" not in whole.to_json() + retrieval.to_json()


def test_durations_and_tokens_are_measured_under_genai_names() -> None:
    kept = Kept()
    kept.tracing.record(made_outcome())
    kept.tracing.record(made_outcome(status=502, error="engine_failed", ended=3.0))
    kept.tracing.close()
    (data,) = kept.metrics.sent
    found: dict[str, Any] = {
        metric.name: metric
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }
    assert found.keys() <= KNOWN_METRICS
    good, failed = found["gen_ai.client.operation.duration"].data.data_points
    assert good.sum == 1.25
    assert good.attributes.keys() <= KNOWN
    assert failed.attributes["error.type"] == "engine_failed"
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in found["gen_ai.client.token.usage"].data.data_points
    }
    assert tokens == {"input": 40, "output": 20}


def test_only_the_asked_share_is_traced() -> None:
    kept = Kept(sample_ratio=0.25)
    for _ in range(1000):
        kept.tracing.record(made_outcome())
    kept.tracing.spans.flush()
    assert 180 < len(kept.exporter.readable()) < 320
    kept.tracing.close()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_caller_decides_whether_its_trace_is_kept(ratio: float, flags: str) -> None:
    kept = Kept(sample_ratio=ratio)
    place = kept.tracing.begin(GIVEN[:-2] + flags)
    assert place.header.endswith(flags)
    kept.tracing.end(place, "GET", "/", route=None, status=200)
    assert len(kept.spans()) == (flags == "01")
    kept.tracing.close()


def test_without_an_endpoint_nothing_is_traced() -> None:
    assert open_tracing(load_settings(), upstreams=dict) is None


def test_spans_reach_a_collector_over_http() -> None:
    bodies: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        tracing = open_tracing(
            load_settings(
                telemetry={"otlp_endpoint": endpoint, "content": True},
                guards={"personal_data": "log"},
            ),
            upstreams=dict,
        )
        assert tracing is not None
        tracing.record(made_outcome(transcript=said("Write to ada@example.org")))
        tracing.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    paths = {path for path, _ in bodies}
    assert paths == {"/v1/traces", "/v1/metrics"}
    assert b"Write to <email>" in dict(bodies)["/v1/traces"]
    sent = ExportTraceServiceRequest.FromString(dict(bodies)["/v1/traces"])
    assert sent.resource_spans[0].scope_spans[0].spans[0].name == "chat small"


def span_ids(kept: Kept) -> set[str]:
    return {f"{span.context.span_id:016x}" for span in kept.exporter.readable()}


def test_model_servers_are_sent_a_span_of_ours_within_the_caller_s_trace(
    kept: Kept, fast_settings: Any, add_text: Any
) -> None:
    bodies = {
        "/v1/chat/completions": {"model": "m", "messages": [HELLO]},
        "/v1/responses": {"model": "m", "input": "Hello"},
        "/v1/answers": {"question": "What is the wall made of?", "collection": "walls"},
    }
    with serving() as server:
        gateway_ = {
            "upstreams": {"u": {"urls": [server.url]}},
            "routes": {"m": {"targets": [{"upstream": "u", "model": "tiny"}]}},
        }
        components = Components(
            fast_settings(gateway=gateway_, generation={"engine": "echo", "model": "m"})
        )
        components.__dict__["tracing"] = kept.tracing
        with TestClient(create_app(components), base_url="http://127.0.0.1") as client:
            client.post("/v1/vector_stores", json={"name": "walls"})
            add_text(client, "walls", "wall.txt", "The wall is made of ragstone.")
            headers = {"traceparent": GIVEN, "tracestate": "vendor=1"}
            for path, body in bodies.items():
                assert client.post(path, json=body, headers=headers).status_code == 200, path
        sent = [asked.headers["traceparent"] for asked in server.asked if asked.body["messages"]]
    assert len(sent) == len(bodies)
    parents = {each.split("-")[2] for each in sent}
    assert {each.split("-")[1] for each in sent} == {TRACE}
    assert len(parents) == len(bodies)
    assert parents <= span_ids(kept) - {GIVEN.split("-")[2]}


def _agrees(header: str) -> None:
    """Hold what is read of a header against OpenTelemetry's own reading of it."""
    spans = Spans(KeptSpans(), sample_ratio=1.0)
    try:
        ours = spans.begin(header)
    finally:
        spans.close()
    context = TraceContextTextMapPropagator().extract({"traceparent": header}, Context())
    theirs = get_current_span(context).get_span_context()
    assert (ours.parent_id == 0) == (not theirs.is_valid)
    if theirs.is_valid:
        assert (ours.trace_id, ours.parent_id) == (theirs.trace_id, theirs.span_id)
        assert ours.is_sampled == theirs.trace_flags.sampled
