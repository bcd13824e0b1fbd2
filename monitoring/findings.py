"""What a drift detector found: statistic, p-value or e-value, effect with its unit, a verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["stable", "drift", "not_enough_data", "incomparable"]


@dataclass(frozen=True, slots=True)
class Cause:
    """A part of a finding: a feature, a category, a dimension, and how much of it is its."""

    name: str
    share: float
    """Of the effect; signed where it has a direction."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison of a measurement window with its reference, or one look at a stream."""

    detector: str
    verdict: Verdict
    explanation: str
    """For a person: what moved, from where to where, or why there is no verdict."""
    statistic: float | None = None
    p_value: float | None = None
    """Of 'both windows are of one distribution'; never 0."""
    p_adjusted: float | None = None
    """Corrected for the other tests of the same check; equals `p_value` where it stood alone."""
    e_value: float | None = None
    """Of a sequential detector: the evidence since its start, which may be read at any time."""
    effect: float | None = None
    """How much moved, less what chance alone would show in windows of this size."""
    effect_unit: str = ""
    least_effect: float | None = None
    """A change below this is no drift, however sure it is."""
    alarm_at: int | None = None
    """Of a sequential detector: how many rows it had seen when it was sure, counted from 1."""
    causes: tuple[Cause, ...] = ()
    """What explains it most, the largest first."""
    examples: tuple[int, ...] = ()
    """Rows of the measurement window that moved most."""

    @property
    def is_drift(self) -> bool:
        return self.verdict == "drift"

    @property
    def weight(self) -> float:
        """The effect in units of the least that counts, by which findings are compared."""
        return (self.effect or 0.0) / (self.least_effect or 1.0)

    @property
    def is_judged(self) -> bool:
        """Whether there was enough to compare."""
        return self.verdict in {"stable", "drift"}

    def judged(self, level: float, *, p_adjusted: float | None = None) -> Finding:
        """Return the finding with its verdict: drift is both sure and large enough to matter."""
        if self.p_value is None or not self.is_judged:
            return self
        p = self.p_value if p_adjusted is None else p_adjusted
        is_large = self.effect is None or self.effect >= (self.least_effect or 0.0)
        verdict: Verdict = "drift" if p <= level and is_large else "stable"
        return replace(self, verdict=verdict, p_adjusted=p)


def not_enough_data(detector: str, explanation: str) -> Finding:
    """Return the finding of windows that are too small to say anything."""
    return Finding(detector, "not_enough_data", explanation)


def incomparable(detector: str, explanation: str) -> Finding:
    """Return the finding of two windows that no test can set side by side."""
    return Finding(detector, "incomparable", explanation)
