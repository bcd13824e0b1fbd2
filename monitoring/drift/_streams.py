"""Streams of ranks under a detector of river: fed value by value until it sees a change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from monitoring.columns import Column, Floats
from monitoring.detector import CATEGORIES, NUMBERS, obstacle, too_few
from monitoring.drift import _scores
from monitoring.drift._scores import Grid
from monitoring.findings import Finding


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Maps every value to its rank in the reference, between 0 and 1: a rule that never changes.

    The variance of ranks is at most that of a uniform variable, 1 / 12, and reaches it where no
    two values are equal. So what holds for uniform values holds for any.
    """

    grid: Grid
    ranks: Floats

    def of(self, values: Column) -> Floats:
        found: Floats = self.ranks[self.grid.cells_of(values)]
        return found


def ranking(reference: Column) -> Ranking:
    """Return the ranks that a reference gives."""
    found = _scores.grid(reference)
    return Ranking(found, _scores.middle_ranks(found, reference))


class RankWatch:
    """One stream under a detector of river, which has `update(x)` and `drift_detected`."""

    def __init__(self, name: str, detector: Any, ranks: Ranking, reference: Column) -> None:
        self._name = name
        self._detector = detector
        self._ranks = ranks
        self._reference = reference
        self._seen, self._sum = 0, 0.0
        self._recent: Floats = np.empty(0)
        self._alarm: Finding | None = None

    def update(self, values: Column) -> Finding:
        if self._alarm is not None:
            return self._alarm
        if not len(values) or values.is_missing().all():
            return too_few(self._name, values, values, 1) or self._finding(is_alarm=False)
        reads = NUMBERS | CATEGORIES
        if found := obstacle(self._name, self._reference, values, reads=reads, least_rows=1):
            return found
        ranks = self._ranks.of(values)
        for place, rank in enumerate(ranks.tolist()):
            self._detector.update(rank)
            if self._detector.drift_detected:
                self._take(ranks[: place + 1])
                self._alarm = self._finding(is_alarm=True)
                return self._alarm
        self._take(ranks)
        return self._finding(is_alarm=False)

    def _take(self, ranks: Floats) -> None:
        self._seen += ranks.size
        self._sum += float(ranks.sum())
        self._recent = np.concatenate([self._recent, ranks])[-_scores.CELLS :]

    def _finding(self, *, is_alarm: bool) -> Finding:
        began, gap = self._change()
        words = f"{self._seen} values, their mean rank {self._sum / max(1, self._seen):.3f}"
        if is_alarm:
            words += f"; it moved by {gap:+.3f} about {began} values ago"
        return Finding(
            self._name,
            "drift" if is_alarm else "stable",
            words,
            statistic=gap,
            effect=abs(gap),
            effect_unit="mean rank in the reference, 0 to 1",
            alarm_at=self._seen if is_alarm else None,
        )

    def _change(self) -> tuple[int, float]:
        """Return how many values ago the ranks changed, most likely, and by how much."""
        if self._seen < 2:
            return 0, 0.0
        tail = np.cumsum(self._recent[::-1])
        counts = np.arange(1, tail.size + 1)
        rest = self._seen - counts
        after = tail / counts
        before = np.where(rest > 0, (self._sum - tail) / np.maximum(rest, 1), after)
        ago = int(np.argmax(np.abs(after - before) * np.sqrt(counts * rest / self._seen)))
        return ago + 1, float(after[ago] - before[ago])
