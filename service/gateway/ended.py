"""What is noted of a call while its caller waits, and the interactions that are made of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import sub
from typing import Any, Literal, NamedTuple, TypeAlias

from infra.contracts import Interaction, Usage
from monitoring.canary_calls import miss_of
from service.callers import Caller
from service.gateway.calls import LEFT, Asked, Source
from service.gateway.routing import share_of

Kept: TypeAlias = Literal["answered", "failed", "cancelled"]
Terms: TypeAlias = Literal["pinned", "hurried"]
DIGITS = 5
"""Of where a user's target was drawn."""
NANO = 1_000_000_000
MISSED = 502
"""The status of a target that failed where another one answered."""


class Ended(NamedTuple):
    """What is noted of an outcome; a tuple, because `zip` makes columns of many at once."""

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

    @property
    def content_bytes(self) -> int:
        return 0

    @classmethod
    def columns(cls, batch: Sequence[Ended]) -> dict[str, Sequence[Any]]:
        """Return the columns of the interactions of a batch; what is left out is null."""
        of: Any = cls._make(zip(*batch, strict=True))
        kept = {status: _kept(status) for status in set(of.status)}
        drawn = {pair: _draw(*pair) for pair in set(zip(of.model, of.user, strict=True))}
        return {
            "id": of.id,
            "request_id": of.request_id,
            "kind": ["completion"] * len(batch),
            "at": [datetime.fromtimestamp(at, UTC) for at in of.at],
            "model": of.model,
            "outcome": [kept[status] for status in of.status],
            "status": of.status,
            "error": of.error,
            "tenant": [caller.tenant for caller in of.caller],
            "key_id": [caller.key_id for caller in of.caller],
            "upstream": of.upstream,
            "tag": of.tag,
            "source": of.source,
            "served": [served or None for served in of.served],
            "terms": list(map(_terms, of.target, of.is_hurried)),
            "draw": [drawn[pair] for pair in zip(of.model, of.user, strict=True)],
            "prompt_tokens": [usage.prompt_tokens for usage in of.usage],
            "completion_tokens": [usage.completion_tokens for usage in of.usage],
            "cached_tokens": of.cached_tokens,
            "cost_nano": [round(cost * NANO) for cost in of.cost],
            "first_byte_seconds": list(map(first_byte_seconds, of.started, of.first_byte)),
            "seconds": list(map(sub, of.ended, of.started)),
        }

    def interaction(self) -> Interaction:
        """Return the interaction of the call, without its content."""
        values = {name: value for name, (value,) in self.columns([self]).items()}
        usage = Usage(values.pop("prompt_tokens"), values.pop("completion_tokens"))
        return Interaction(**values, usage=usage)

    def miss(self, number: int, asked: Asked) -> Interaction:
        """Return the interaction of another target that failed the call."""
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
            terms=_terms(self.target, self.is_hurried),
            draw=_draw(self.model, self.user),
        )


def first_byte_seconds(started: float, first_byte: float | None) -> float | None:
    """Return how long the first byte took."""
    return None if first_byte is None else first_byte - started


def _terms(target: str | None, is_hurried: bool) -> Terms | None:
    if target is not None:
        return "pinned"
    return "hurried" if is_hurried else None


def _draw(model: str, user: str | None) -> float | None:
    return None if user is None else round(share_of(model, user), DIGITS)


def _kept(status: int) -> Kept:
    if status == LEFT:
        return "cancelled"
    return "failed" if status >= 400 else "answered"
