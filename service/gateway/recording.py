"""What becomes of calls that ended: metrics, a span, and a row of the interaction log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from infra.contracts import Interaction
from infra.security import Ids
from monitoring.canary_calls import miss_of
from monitoring.gateway_metrics import GatewayMetrics
from service.gateway.calls import LEFT, Call, Outcome, Recorder
from service.gateway.routing import share_of
from service.gateway.transcripts import MAX_CHARACTERS

Kept: TypeAlias = Literal["answered", "failed", "cancelled"]
Terms: TypeAlias = Literal["pinned", "hurried"]
DIGITS = 5
"""Of where a user's target was drawn."""
NANO = 1_000_000_000
MISSED = 502
"""The status of a target that failed where another one answered."""


class Recorders:
    """Hands each outcome to several."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._recorders = tuple(recorders)

    def record(self, outcome: Outcome) -> None:
        """Take note of a call that ended."""
        for recorder in self._recorders:
            recorder.record(outcome)


class MetricsRecorder:
    """Counts outcomes for Prometheus."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics

    def record(self, outcome: Outcome) -> None:
        """Count a call that ended."""
        model, tag, metrics = outcome.call.model, outcome.tag, self._metrics
        upstream = outcome.upstream or outcome.source
        metrics.count_call(model, upstream=upstream, tag=tag, status=outcome.status)
        if outcome.source != "upstream":
            metrics.count_cache(outcome.source)
            return
        if outcome.call.was_looked_up:
            metrics.count_cache("miss")
        metrics.count_retries(model, outcome.attempts - 1)
        if outcome.status < 400:  # how long others waited says nothing of the model
            metrics.observe_call(
                model,
                tag=tag,
                seconds=outcome.ended - outcome.started,
                first_byte=_first_byte(outcome),
                pieces=outcome.pieces,
            )
        metrics.count_use(
            model,
            tag=tag,
            usage=outcome.usage,
            cached_tokens=outcome.cached_tokens,
            cost=outcome.cost,
        )


class InteractionRecorder:
    """Writes outcomes to the interaction log."""

    def __init__(
        self,
        add: Callable[[Interaction], None],
        *,
        has_content: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take where interactions go.

        Args:
            add: takes one without waiting.
            has_content: keep question and answer, too.
            clock: seconds since 1970.
        """
        self._add = add
        self._has_content = has_content
        self._clock = clock
        self._ids = Ids("call-")

    def record(self, outcome: Outcome) -> None:
        """Make an interaction of a call that ended, and of each other target that failed it."""
        call = outcome.call
        others = [each for each in outcome.missed if each != outcome.asked]
        terms, draw = _terms(call), _draw(call)
        id_ = self._ids()
        for number, asked in enumerate(dict.fromkeys(others)):
            self._add(
                Interaction(
                    id=miss_of(id_, number),
                    request_id=call.request_id,
                    kind="completion",
                    at=datetime.fromtimestamp(self._clock(), UTC),
                    model=call.model,
                    outcome="failed",
                    status=MISSED,
                    error="engine_failed",
                    tenant=call.caller.tenant,
                    key_id=call.caller.key_id,
                    upstream=asked.upstream,
                    tag=asked.tag,
                    served=asked.served,
                    terms=terms,
                    draw=draw,
                )
            )
        has_content = self._has_content and call.keeps_content
        content = {"request": _cut(call.body), "answer": outcome.text} if has_content else None
        self._add(
            Interaction(
                id=id_,
                request_id=call.request_id,
                kind="completion",
                at=datetime.fromtimestamp(self._clock(), UTC),
                model=call.model,
                outcome=_kept(outcome.status),
                status=outcome.status,
                error=outcome.error,
                tenant=call.caller.tenant,
                key_id=call.caller.key_id,
                upstream=outcome.upstream,
                tag=outcome.tag,
                source=outcome.source,
                served=outcome.served or None,
                terms=terms,
                draw=draw,
                usage=outcome.usage,
                cached_tokens=outcome.cached_tokens,
                cost_nano=round(outcome.cost * NANO),
                first_byte_seconds=_first_byte(outcome),
                seconds=outcome.ended - outcome.started,
                documents=call.documents if has_content else (),
                content=content,
            )
        )


def _terms(call: Call) -> Terms | None:
    if call.target is not None:
        return "pinned"
    return "hurried" if call.is_hurried else None


def _draw(call: Call) -> float | None:
    return None if call.user is None else round(share_of(call.model, call.user), DIGITS)


def _cut(value: Any) -> Any:
    """Return a body without what is too long to keep, such as images."""
    if isinstance(value, str):
        return value if len(value) <= MAX_CHARACTERS else f"{value[:MAX_CHARACTERS]}..."
    if isinstance(value, dict):
        return {name: _cut(part) for name, part in value.items()}
    return [_cut(part) for part in value] if isinstance(value, list) else value


def _first_byte(outcome: Outcome) -> float | None:
    return None if outcome.first_byte is None else outcome.first_byte - outcome.started


def _kept(status: int) -> Kept:
    if status == LEFT:
        return "cancelled"
    return "failed" if status >= 400 else "answered"
