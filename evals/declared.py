"""A gate on one slice as the statistics want it: with what its metric says of itself filled in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from infra.errors import InvalidConfiguration

Kind = Literal["non_inferior", "superior", "floor", "ceiling"]
ALPHA = 0.05
MOST = 0.999
"""Of alpha and power: nothing is ever sure."""
FALSE_DISCOVERIES = 0.10
"""Share of the findings on gates that only warn that may be false."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A promise about the mean of a metric, alone or beside a baseline.

    Raises:
        InvalidConfiguration: a number out of its range.
    """

    metric: str
    kind: Kind
    limit: float
    """`non_inferior`: the margin, by how much the candidate may be worse; `superior`: by how much
    it must be better, 0 or more; `floor`, `ceiling`: what the mean must be above, or below."""
    alpha: float = ALPHA
    """The chance of a pass that is not deserved, and of a fail that is not; of a gate that warns,
    the share of such findings that are not."""
    power: float = 0.8
    """The chance of a pass that is deserved, for which cases are planned."""
    primary: bool = True
    """Whether it decides; a secondary gate warns."""
    slice: str | None = None
    protected: bool = False
    """Whether it decides although it is secondary."""
    higher_is_better: bool = True
    """For comparisons; a floor or ceiling says it itself."""
    bounds: tuple[float, float] | None = (0.0, 1.0)
    """Between which every score must be; None where there are none, as for latencies."""
    is_pass_or_fail: bool = False
    """Whether every score is 0 or 1."""
    coverage: float = 0.98
    """The share of what was planned that must be scored."""
    beside: Literal["baseline", "original"] = "baseline"
    """What a comparison is with: another run, or, of perturbed copies, the cases as they stand."""
    sd: float | None = None
    """Standard deviation of a case's value or difference, from history, to plan cases by."""
    discordance: float | None = None
    """For pass or fail beside a baseline, in place of `sd`: the share of cases that change."""
    correlation: float | None = None
    """Intraclass correlation of cases in a cluster, from history."""
    expected: float | None = None
    """The true mean, or mean difference, to plan cases by; a difference is 0 if not given."""
    anytime: bool = False
    """Whether the verdict may be read after every new case, and acted on at once."""
    looks: int = 1
    """How often the verdict may be read in all, reruns included; alpha is divided by it."""

    def __post_init__(self) -> None:
        for name in ("alpha", "power"):
            if not 0 < getattr(self, name) <= MOST:
                raise self._wrong(name, "a share of 1")
        if not 0 <= self.coverage <= 1:
            raise self._wrong("coverage", "a share of 1")
        for name in ("sd", "discordance", "correlation"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise self._wrong(name, "0 or more")
        if not math.isfinite(self.limit) or (self.compares and self.limit < 0):
            raise self._wrong("limit", "a number, for comparisons 0 or more")
        if self.kind == "non_inferior" and self.limit == 0:
            raise self._wrong("limit", "a margin above 0, or the kind 'superior'")
        if self.looks < 1:
            raise self._wrong("looks", "1 or more")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise self._wrong("bounds", "the lower first")

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.metric} {self.kind}{f' on {self.slice}' if self.slice else ''}"

    @property
    def compares(self) -> bool:
        """Whether it is about differences."""
        return self.kind in {"non_inferior", "superior"}

    @property
    def needs_baseline(self) -> bool:
        """Whether another run is what it compares with."""
        return self.compares and self.beside == "baseline"

    @property
    def decides(self) -> bool:
        return self.primary or self.protected

    @property
    def level(self) -> float:
        """That p-values of one look are compared with."""
        return self.alpha / self.looks

    @property
    def upwards(self) -> bool:
        """Whether the mean must be above the threshold, not below."""
        return self.higher_is_better if self.compares else self.kind == "floor"

    @property
    def threshold(self) -> float:
        """That the mean of the scores, or of their differences, is compared with."""
        if not self.compares:
            return self.limit
        return -self.limit if (self.kind == "non_inferior") is self.higher_is_better else self.limit

    @property
    def value_bounds(self) -> tuple[float, float] | None:
        """Between which the scores, or their differences, must be."""
        if self.bounds is None or not self.compares:
            return self.bounds
        width = self.bounds[1] - self.bounds[0]
        return -width, width

    def _wrong(self, name: str, wanted: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"Gate {self.name!r}: {name} is {getattr(self, name)!r}; give {wanted}"
        )
