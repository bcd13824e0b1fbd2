"""What is noted of a prediction while its caller waits, and the interactions made of many later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from service.prediction.quick import Row

NUMBER_BYTES = 32
"""Of a float and its place in a list."""


class Turn(NamedTuple):
    """What rows that were answered together have in common."""

    at: datetime
    model: str
    upstream: str
    tag: str
    tenant: str | None
    key_id: str | None
    class_names: Sequence[str]
    has_content: bool


class Noted(NamedTuple):
    """What is noted of a row; a tuple, because `zip` makes columns of many at once."""

    turn: Turn
    prediction_id: str
    request_id: str
    seconds: float
    label: Any
    """None where no content is kept."""
    chosen: int | None
    """The place of the class; None of a regression."""
    probabilities: Sequence[float] | None
    row: Row | None
    """None where features are not kept."""

    @property
    def id(self) -> str:
        return f"{self.prediction_id}-0"

    @property
    def content_bytes(self) -> int:
        """About what it takes in memory beside what every interaction does."""
        probabilities = NUMBER_BYTES * len(self.probabilities or ())
        return probabilities + (0 if self.row is None else self.row.size_bytes)

    @classmethod
    def columns(cls, batch: Sequence[Noted]) -> dict[str, Sequence[Any]]:
        """Return the columns of the interactions of a batch; what is left out is null."""
        of: Any = cls._make(zip(*batch, strict=True))
        turns: Any = Turn._make(zip(*of.turn, strict=True))
        nothing = [0] * len(batch)
        return {
            "id": [f"{each}-0" for each in of.prediction_id],
            "request_id": of.request_id,
            "kind": ["prediction"] * len(batch),
            "at": turns.at,
            "model": turns.model,
            "outcome": ["answered"] * len(batch),
            "status": [200] * len(batch),
            "tenant": turns.tenant,
            "key_id": turns.key_id,
            "upstream": turns.upstream,
            "tag": turns.tag,
            "source": ["upstream"] * len(batch),
            "prompt_tokens": nothing,
            "completion_tokens": nothing,
            "cached_tokens": nothing,
            "cost_nano": nothing,
            "seconds": of.seconds,
            "content": list(map(_content, of.turn, of.label, of.chosen, of.probabilities, of.row)),
        }


def _content(
    turn: Turn, label: Any, chosen: int | None, probabilities: Any, row: Row | None
) -> dict[str, Any] | None:
    if not turn.has_content:
        return None
    content: dict[str, Any] = {"prediction": label}
    if chosen is not None:
        content["probability"] = probabilities[chosen]
        content["probabilities"] = dict(zip(turn.class_names, probabilities, strict=True))
    if row is not None:
        content["features"] = row.given
    return content
