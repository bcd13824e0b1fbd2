"""What becomes of calls that ended: metrics, a span, and a row of the interaction log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from infra.security import Ids, drawn
from monitoring.gateway_metrics import GatewayMetrics
from monitoring.interaction_queue import Taken
from monitoring.prediction_pairs import copy_of
from service.gateway.calls import Outcome, Recorder
from service.gateway.ended import Ended, first_byte_seconds
from service.gateway.transcripts import MAX_CHARACTERS


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
                first_byte=first_byte_seconds(outcome.started, outcome.first_byte),
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
        content_share: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take where interactions go.

        Args:
            add: takes one, or what it is made of later, without waiting.
            has_content: keep question and answer, too.
            content_share: of the requests; of the others neither is kept.
            clock: seconds since 1970.
        """
        self._add = add
        self._has_content = has_content
        self._content_share = content_share
        self._clock = clock
        self._ids = Ids("call-")

    def record(self, outcome: Outcome) -> None:
        """Make an interaction of a call that ended, and of each other target that failed it."""
        call = outcome.call
        id_ = self._ids()
        ended = Ended(
            copy_of(id_) if outcome.is_copy else id_,
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
        keeps = self._has_content and call.keeps_content
        if not keeps or drawn(call.request_id) >= self._content_share:
            self._add(ended)
            return
        item = ended.interaction()
        item.documents = call.documents
        item.content = {"request": _cut(call.body), "answer": outcome.text}
        self._add(item)


def _cut(value: Any) -> Any:
    """Return a body without what is too long to keep, such as images."""
    if isinstance(value, str):
        return value if len(value) <= MAX_CHARACTERS else f"{value[:MAX_CHARACTERS]}..."
    if isinstance(value, dict):
        return {name: _cut(part) for name, part in value.items()}
    return [_cut(part) for part in value] if isinstance(value, list) else value
