"""Scores: a number, or the reason why there is none; never NaN, and never a zero in its place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

State: TypeAlias = Literal["scored", "unscored", "refused", "error"]
STATES: tuple[State, ...] = get_args(State)

MAX_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Score:
    """What one metric says of one output.

    >>> Score.of(0.5).value
    0.5
    >>> Score.of(float("nan"))
    Traceback (most recent call last):
    ValueError: A score is a finite number, not nan; where there is none, use Score.unscored
    """

    state: State
    value: float | None = None
    """Finite where the state is `scored`, else None."""
    reason: str = ""
    """Why there is no number; beside a number, what it rests on."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the report, such as the claims that no passage carries."""
    is_temporary: bool = False
    """Of an error: whether scoring again may do better, since a server or a setting failed and not
    the metric. `--resume` does."""

    def __post_init__(self) -> None:
        if self.state == "scored":
            if self.value is None or not math.isfinite(self.value):
                raise ValueError(
                    f"A score is a finite number, not {self.value!r}; where there is none, use "
                    "Score.unscored"
                )
        elif self.value is not None or not self.reason:
            raise ValueError(f"A score that is {self.state!r} has a reason and no value")

    @classmethod
    def of(cls, value: float, reason: str = "", **details: Any) -> Score:
        """Return a number. Raises `ValueError` where it is NaN or infinite."""
        return cls("scored", float(value), reason, details)

    @classmethod
    def unscored(cls, reason: str) -> Score:
        """Say that the metric does not apply, such as for want of a reference."""
        return cls("unscored", reason=_short(reason))

    @classmethod
    def refused(cls, reason: str) -> Score:
        """Say that the judge declined to judge."""
        return cls("refused", reason=_short(reason))

    @classmethod
    def error(cls, reason: str, *, is_temporary: bool = False) -> Score:
        """Say that there should be a number, and that something failed instead."""
        return cls("error", reason=_short(reason), is_temporary=is_temporary)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values, without what is empty."""
        found: dict[str, Any] = {"state": self.state}
        if self.value is not None:
            found["value"] = self.value
        if self.reason:
            found["reason"] = self.reason
        if self.details:
            found["details"] = dict(self.details)
        if self.is_temporary:
            found["is_temporary"] = True
        return found

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Score:
        """Return what `as_dict` wrote."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many scores are in which state."""

    scored: int = 0
    unscored: int = 0
    refused: int = 0
    error: int = 0

    @classmethod
    def of(cls, scores: Iterable[Score]) -> Counts:
        found = Counter(score.state for score in scores)
        return cls(*(found[state] for state in STATES))

    @property
    def coverage(self) -> float:
        """The share that has a number; 0 of nothing."""
        total = self.scored + self.unscored + self.refused + self.error
        return self.scored / total if total else 0.0


def _short(reason: str) -> str:
    text = " ".join(reason.split()) or "no reason was given"
    return text if len(text) <= MAX_REASON_CHARACTERS else text[:MAX_REASON_CHARACTERS] + "..."
