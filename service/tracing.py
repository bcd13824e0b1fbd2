"""Traces and metrics by OpenTelemetry, with the names of its GenAI conventions, sent by OTLP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra import telemetry
from infra.contracts import Answer
from infra.plugins import require
from service.bodies import header
from service.gateway.calls import Outcome
from service.histograms import Histogram, Sending
from service.spans import Event, Place, Sends, Span, Spans

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

    from infra.gateway_settings import Upstream
    from infra.settings import Settings

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
}
REQUESTED = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "stream": "gen_ai.request.stream",
}
TOKEN_BUCKETS = tuple(4**power for power in range(14))
SECONDS_BUCKETS = tuple(0.01 * 2**power for power in range(14))
NAMES = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
"""Attributes of whatever is told of a call."""
ANSWER = "gen_ai.output.messages"
QUESTION = "gen_ai.retrieval.query.text"
SUPPORT = "citation_support"
"""The name under which the support of an answer's citations is told as an evaluation."""


class Tracing:
    """Spans of HTTP requests, model calls and answers, and what they add up to."""

    def __init__(
        self,
        *,
        spans: Sends,
        metrics: MetricExporter | None = None,
        sample_ratio: float = 1.0,
        has_content: bool = False,
        mask: Callable[[str], str] | None = None,
        provider_of: Callable[[str], str] = lambda upstream: upstream,
    ) -> None:
        """Take where spans and metrics go.

        Args:
            spans: receives finished spans, in batches, from a thread of its own.
            metrics: receives the metrics now and then, from a thread of its own.
            sample_ratio: of the requests that begin here; others follow their caller.
            has_content: put questions and answers into spans.
            mask: takes personal data out of these, in the thread that sends.
            provider_of: what `gen_ai.provider.name` is for an upstream.
        """
        sender = spans if mask is None else _Masked(spans, mask)
        self.spans = Spans(sender, sample_ratio=sample_ratio)
        self._duration = Histogram(
            "gen_ai.client.operation.duration",
            "s",
            "How long a call of a model took.",
            attributes=(*NAMES, "error.type"),
            bounds=SECONDS_BUCKETS,
        )
        self._first_chunk = Histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Until the first piece of an answer.",
            attributes=NAMES,
            bounds=SECONDS_BUCKETS,
        )
        self._tokens = Histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of a call, by type.",
            attributes=(*NAMES, "gen_ai.token.type"),
            bounds=TOKEN_BUCKETS,
        )
        measured = (self._duration, self._first_chunk, self._tokens)
        self._sending = Sending(metrics, measured) if metrics else None
        self._has_content = has_content
        self._provider_of = provider_of

    def begin(self, traceparent: str | None) -> Place:
        """Return the place of the span of an HTTP request that begins now."""
        return self.spans.begin(traceparent, remote=True)

    def end(self, place: Place, method: str, path: str, *, route: str | None, status: int) -> None:
        """Send the span of an HTTP request that is over."""
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": path[:200],
            "http.response.status_code": status,
        }
        if route:
            attributes["http.route"] = route
        name = f"{method} {route}" if route else method
        self.spans.end(place, name, "server", attributes)

    def record(self, outcome: Outcome) -> None:
        """Make a span of a call that ended, below the request that it came with."""
        names = self._names(outcome)
        self._measure(outcome, names)
        now, monotonic = time.time_ns(), time.monotonic()
        place = self.spans.begin(
            outcome.call.headers.get("traceparent") or telemetry.traceparent.get(),
            start=now - _nano(monotonic - outcome.started),
        )
        attributes = dict(zip(NAMES, names, strict=True)) | _request(outcome) | _response(outcome)
        if self._has_content and outcome.text is not None:
            attributes[ANSWER] = outcome.text
        self.spans.end(
            place,
            f"{names[0]} {outcome.call.model}",
            "client",
            attributes,
            end=now - _nano(monotonic - outcome.ended),
        )

    def record_answer(self, answer: Answer) -> None:
        """Make spans of an answer and of the retrieval in it, with its support as an evaluation."""
        end = time.time_ns()
        start = end - _nano(answer.timings_ms.get("total", 0.0) / 1e3)
        parent = telemetry.traceparent.get()
        self._record_retrieval(answer, start, parent)
        attributes = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": "answer",
            "gen_ai.response.id": answer.id,
            "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
            "ragstone.engine": answer.engine,
            "ragstone.answerable": answer.answerable,
        }
        events = [
            Event(
                "gen_ai.evaluation.result",
                {
                    "gen_ai.evaluation.name": SUPPORT,
                    "gen_ai.evaluation.score.value": citation.support,
                    "gen_ai.response.id": answer.id,
                },
                end,
            )
            for citation in answer.citations
        ]
        self.spans.end(
            self.spans.begin(parent, start=start),
            f"invoke_workflow rag/{answer.collection}",
            "internal",
            attributes,
            end=end,
            events=events,
        )

    def close(self) -> None:
        """Send what is left."""
        self.spans.close()
        if self._sending is not None:
            self._sending.close()

    def _record_retrieval(self, answer: Answer, start: int, parent: str | None) -> None:
        milliseconds = answer.timings_ms.get("embed", 0.0) + answer.timings_ms.get("search", 0.0)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": answer.collection,
            "gen_ai.retrieval.documents": [
                f'{{"id":"{passage.document_id}","score":{passage.score:.4f}}}'
                for passage in answer.passages
            ],
        }
        if self._has_content:
            attributes[QUESTION] = answer.question
        self.spans.end(
            self.spans.begin(parent, start=start),
            f"retrieval {answer.collection}",
            "internal",
            attributes,
            end=start + _nano(milliseconds / 1e3),
        )

    def _names(self, outcome: Outcome) -> tuple[str, str, str]:
        """Return the values of `NAMES`."""
        operation = OPERATIONS.get(outcome.call.path, "chat")
        return operation, self._provider_of(outcome.upstream), outcome.call.model

    def _measure(self, outcome: Outcome, names: tuple[str, str, str]) -> None:
        error = (outcome.error or str(outcome.status)) if outcome.status >= 400 else ""
        self._duration.record(outcome.ended - outcome.started, *names, error)
        if outcome.first_byte is not None:
            self._first_chunk.record(outcome.first_byte - outcome.started, *names)
        for kind, count in (
            ("input", outcome.usage.prompt_tokens),
            ("output", outcome.usage.completion_tokens),
        ):
            if count:
                self._tokens.record(count, *names, kind)


class _Masked:
    """Sends spans without the personal data in their content."""

    def __init__(self, sender: Sends, mask: Callable[[str], str]) -> None:
        self._sender = sender
        self._mask = mask

    def send(self, spans: Sequence[Span]) -> None:
        self._sender.send([self._masked(span) for span in spans])

    def close(self) -> None:
        self._sender.close()

    def _masked(self, span: Span) -> Span:
        content = {
            name: self._mask(span.attributes[name])
            for name in (QUESTION, ANSWER)
            if name in span.attributes
        }
        return replace(span, attributes={**span.attributes, **content}) if content else span


class Traced:
    """Middleware: a span for each HTTP request; what is called further in becomes its children."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(scope, b"traceparent")
        place = self._tracing.begin(given.decode("latin-1"))
        parent = place.header
        scope.setdefault("state", {})["traceparent"] = parent
        telemetry.traceparent.set(
            parent
        )  # never reset: each request is a task with a context of its own
        status = 500

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            route = getattr(scope.get("route"), "path", None)
            self._tracing.end(place, scope["method"], scope["path"], route=route, status=status)


def open_tracing(
    settings: Settings, *, upstreams: Callable[[], Mapping[str, Upstream]]
) -> Tracing | None:
    """Return tracing as the settings ask for it, or None where they do not.

    Args:
        settings: where to, how much.
        upstreams: returns those in force, which have names of providers.

    Raises:
        MissingDependency: the extra `otel` is not installed.
    """
    options = settings.telemetry
    if options.otlp_endpoint is None:
        return None
    require("opentelemetry.exporter.otlp.proto.http", extra="otel")
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    from infra.expectations.recognizers import mask
    from service.span_export import Exporter

    address = options.otlp_endpoint.rstrip("/")

    def provider_of(name: str) -> str:
        found = upstreams().get(name)
        return found.provider if found is not None else "ragstone"

    return Tracing(
        spans=Exporter(f"{address}/v1/traces"),
        metrics=OTLPMetricExporter(f"{address}/v1/metrics"),
        sample_ratio=options.sample_ratio,
        has_content=options.content,
        mask=None if settings.guards.personal_data == "off" else mask,
        provider_of=provider_of,
    )


def _request(outcome: Outcome) -> dict[str, Any]:
    body = outcome.call.body
    found = {
        name: body[key]
        for key, name in REQUESTED.items()
        if isinstance(body.get(key), str | int | float)
    }
    return {**found, "ragstone.target": outcome.tag, "ragstone.upstream": outcome.upstream}


def _response(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {
        "gen_ai.usage.input_tokens": outcome.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": outcome.usage.completion_tokens,
        "ragstone.answer.source": outcome.source,
        "ragstone.attempts": outcome.attempts,
    }
    if outcome.cached_tokens:
        found["gen_ai.usage.cache_read.input_tokens"] = outcome.cached_tokens
    if outcome.finish_reason:
        found["gen_ai.response.finish_reasons"] = [outcome.finish_reason]
    if outcome.first_byte is not None:
        found["gen_ai.response.time_to_first_chunk"] = outcome.first_byte - outcome.started
    if outcome.status >= 400:
        found["error.type"] = outcome.error or str(outcome.status)
    return found


def _nano(seconds: float) -> int:
    return round(seconds * 1e9)
