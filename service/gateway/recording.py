"""What becomes of calls that ended: metrics, a span, and a row of the interaction log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from infra.contracts import Interaction, Usage
from infra.security import Ids
from monitoring.canary_calls import miss_of
from monitoring.gateway_metrics import GatewayMetrics
from monitoring.interaction_queue import Taken
from service.callers import Caller
from service.gateway.calls import LEFT, Asked, Outcome, Recorder, Source
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
        add: Callable[[Taken], None],
        *,
        has_content: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take where interactions go.

        Args:
            add: takes one, or what it is made of later, without waiting.
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
        ended = Ended(
            self._ids(),
            self._clock(),
            call.request_id,
            call.caller,
            call.model,
            call.user,
            call.target,
            call.is_hurried,
            outcome.status,
            outcome.usage,
            outcome.cached_tokens,
            outcome.upstream,
            outcome.served,
            outcome.tag,
            outcome.started,
            outcome.first_byte,
            outcome.ended,
            outcome.source,
            outcome.cost,
            outcome.error,
        )
        if outcome.missed:
            others = dict.fromkeys(each for each in outcome.missed if each != outcome.asked)
            for number, asked in enumerate(others):
                self._add(ended.miss(number, asked))
        if not (self._has_content and call.keeps_content):
            self._add(ended)
            return
        item = ended.interaction()
        item.documents = call.documents
        item.content = {"request": _cut(call.body), "answer": outcome.text}
        self._add(item)


@dataclass(slots=True)
class Ended:
    """What is noted of an outcome while its caller waits; an interaction is made of it later."""

    id: str
    at: float
    request_id: str
    caller: Caller
    model: str
    user: str | None
    target: str | None
    is_hurried: bool
    status: int
    usage: Usage
    cached_tokens: int
    upstream: str
    served: str
    tag: str
    started: float
    first_byte: float | None
    ended: float
    source: Source
    cost: float
    error: str | None

    def interaction(self) -> Interaction:
        """Make the interaction of the call, without its content."""
        return Interaction(
            id=self.id,
            request_id=self.request_id,
            kind="completion",
            at=datetime.fromtimestamp(self.at, UTC),
            model=self.model,
            outcome=_kept(self.status),
            status=self.status,
            error=self.error,
            tenant=self.caller.tenant,
            key_id=self.caller.key_id,
            upstream=self.upstream,
            tag=self.tag,
            source=self.source,
            served=self.served or None,
            terms=self._terms,
            draw=self._draw,
            usage=self.usage,
            cached_tokens=self.cached_tokens,
            cost_nano=round(self.cost * NANO),
            first_byte_seconds=_first_byte(self),
            seconds=self.ended - self.started,
        )

    def miss(self, number: int, asked: Asked) -> Interaction:
        """Make the interaction of another target that failed the call."""
        return Interaction(
            id=miss_of(self.id, number),
            request_id=self.request_id,
            kind="completion",
            at=datetime.fromtimestamp(self.at, UTC),
            model=self.model,
            outcome="failed",
            status=MISSED,
            error="engine_failed",
            tenant=self.caller.tenant,
            key_id=self.caller.key_id,
            upstream=asked.upstream,
            tag=asked.tag,
            served=asked.served,
            terms=self._terms,
            draw=self._draw,
        )

    @property
    def _terms(self) -> Terms | None:
        if self.target is not None:
            return "pinned"
        return "hurried" if self.is_hurried else None

    @property
    def _draw(self) -> float | None:
        return None if self.user is None else round(share_of(self.model, self.user), DIGITS)


def _cut(value: Any) -> Any:
    """Return a body without what is too long to keep, such as images."""
    if isinstance(value, str):
        return value if len(value) <= MAX_CHARACTERS else f"{value[:MAX_CHARACTERS]}..."
    if isinstance(value, dict):
        return {name: _cut(part) for name, part in value.items()}
    return [_cut(part) for part in value] if isinstance(value, list) else value


def _first_byte(outcome: Outcome | Ended) -> float | None:
    return None if outcome.first_byte is None else outcome.first_byte - outcome.started


def _kept(status: int) -> Kept:
    if status == LEFT:
        return "cancelled"
    return "failed" if status >= 400 else "answered"
