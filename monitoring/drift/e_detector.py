"""Shiryaev-Roberts e-detector: bets against 'no change'; its budget of alarms holds for ever."""

from __future__ import annotations

import math
from collections import deque
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from infra.plugins import require
from monitoring.columns import EXTRA, Column, Floats
from monitoring.detector import CATEGORIES, NUMBERS, Kinds, Parameters, obstacle, too_few
from monitoring.drift import _scores
from monitoring.drift._scores import Grid
from monitoring.findings import Finding

NAME = "e_detector"
_SHIFTS = (-1.5, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 1.5)
_SPREADS = (0.6, 1.6)
_CHUNK = 256
_KEPT = 4_096
"""Scores that are kept to say when a change began and how large it is."""


class EDetector(Parameters):
    """Shin, Ramdas & Rinaldo (2023) on conformal p-values (Vovk, Nouretdinov & Gammerman 2003).

    Each value's rank among all values so far, the reference among them, is uniform and independent
    of earlier ranks as long as nothing changes. Bets on other distributions of the ranks make
    e-values; M = (1 + M) e is an e-detector, and so is the mean over bets. It reaches c no sooner
    than after c values on average, whatever the data, however long it runs, however often it is
    read. c is `horizon / level`: within any horizon a false alarm has probability `level` at most.

    Ranks among a frozen reference are not independent, and such a detector alarms several times
    too often. To keep memory bounded, values are counted into cells whose edges come from a part of
    the reference that is not counted; so the ranks stay exact for ever.
    """

    reads: ClassVar[Kinds] = NUMBERS | CATEGORIES

    horizon: int = Field(10_000, ge=100)
    """Values within which a false alarm has probability `level` at most."""

    def watch(self, reference: Column) -> EWatch | Finding:
        found = obstacle(
            NAME, reference, reference, reads=self.reads, least_rows=2 * self.least_rows
        )
        if found:
            return found
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(int((~reference.is_missing()).sum()))
        for_edges, counted = np.split(order, [min(order.size // 3, 16 * _scores.CELLS)])
        cells = _scores.grid(reference, for_edges)
        counts = np.bincount(cells.cells_of(reference)[counted], minlength=cells.cells)
        return EWatch(self, reference, cells, counts, rng)


class EWatch:
    """One stream under the e-detector: counts, a number per bet, and some scores are its state."""

    def __init__(
        self,
        detector: EDetector,
        reference: Column,
        grid: Grid,
        counts: npt.NDArray[np.int64],
        rng: np.random.Generator,
    ) -> None:
        self._detector = detector
        self._kind = reference
        self._grid = grid
        self._counts = counts
        self._rng = rng
        self._log_wealth = np.full(len(_SHIFTS) + len(_SPREADS), -np.inf)
        self._limit = math.log(detector.horizon / detector.level)
        self._seen = 0
        self._scores: deque[float] = deque(maxlen=_KEPT)
        self._alarm: Finding | None = None

    def update(self, values: Column) -> Finding:
        if self._alarm is not None:
            return self._alarm
        if not len(values) or values.is_missing().all():
            return too_few(NAME, values, values, 1) or self._finding(None)
        if found := obstacle(NAME, self._kind, values, reads=self._detector.reads, least_rows=1):
            return found
        cells = self._grid.cells_of(values)
        for first in range(0, cells.size, _CHUNK):
            alarm_at = self._advance(cells[first : first + _CHUNK])
            if alarm_at is not None:
                self._alarm = self._finding(alarm_at)
                return self._alarm
        return self._finding(None)

    def _advance(self, cells: npt.NDArray[np.int64]) -> int | None:
        """Take a chunk in; return after how many values of the stream it became an alarm."""
        scores = self._normal_scores(cells)
        gains = _log_bets(scores)
        # M(t) = exp(L(t)) (M(0) + sum over s <= t of exp(-L(s - 1))), L the sums of the gains.
        levels = np.cumsum(gains, axis=0)
        before = np.concatenate([np.zeros((1, gains.shape[1])), levels[:-1]])
        starts = np.concatenate([self._log_wealth[None, :], -before])
        wealth = levels + np.logaddexp.accumulate(starts, axis=0)[1:]
        mean = np.logaddexp.reduce(wealth, axis=1) - math.log(wealth.shape[1])
        reached = np.flatnonzero(mean >= self._limit)
        end = int(reached[0]) + 1 if reached.size else cells.size
        self._log_wealth = wealth[end - 1]
        self._scores.extend(scores[:end].tolist())
        self._seen += end
        return self._seen if reached.size else None

    def _normal_scores(self, cells: npt.NDArray[np.int64]) -> Floats:
        """Return normal scores of the ranks among all before, ties broken at random."""
        greater = self._counts.sum() - np.cumsum(self._counts)
        earlier = np.tri(cells.size, k=-1, dtype=bool)
        above = greater[cells] + ((cells[None, :] > cells[:, None]) & earlier).sum(axis=1)
        equal = self._counts[cells] + ((cells[None, :] == cells[:, None]) & earlier).sum(axis=1) + 1
        total = self._counts.sum() + np.arange(1, cells.size + 1)
        ranks = (above + self._rng.random(cells.size) * equal) / total
        self._counts = self._counts + np.bincount(cells, minlength=self._counts.size)
        special = require("scipy.special", extra=EXTRA)
        scores: Floats = -special.ndtri(np.clip(ranks, 1e-12, 1 - 1e-12))
        return scores

    def _finding(self, alarm_at: int | None) -> Finding:
        log_e = float(np.logaddexp.reduce(self._log_wealth) - math.log(self._log_wealth.size))
        began, effect = self._change()
        words = f"{self._seen} values; evidence {log_e:.1f} of {self._limit:.1f} (logarithms)"
        if alarm_at is not None:
            words += f"; the change began about {began} values before"
        return Finding(
            NAME,
            "drift" if alarm_at is not None else "stable",
            words,
            statistic=log_e,
            e_value=math.exp(min(log_e, 700.0)),
            effect=effect,
            effect_unit="standard deviations of normal scores",
            alarm_at=alarm_at,
        )

    def _change(self) -> tuple[int, float]:
        """Return how many values ago the scores changed, most likely, and their mean since."""
        if not self._scores:
            return 0, 0.0
        sums = np.cumsum(np.array(self._scores)[::-1])
        counts = np.arange(1, sums.size + 1)
        ago = int(np.argmax(np.abs(sums) / np.sqrt(counts)))
        return ago + 1, float(abs(sums[ago]) / counts[ago])


def _log_bets(scores: Floats) -> Floats:
    """Return logarithms of e-values, (n, bets): densities of other normals over the standard."""
    shifts, spreads = np.array(_SHIFTS), np.array(_SPREADS)
    by_shift = scores[:, None] * shifts - shifts**2 / 2
    by_spread = scores[:, None] ** 2 / 2 * (1 - 1 / spreads**2) - np.log(spreads)
    return np.concatenate([by_shift, by_spread], axis=1)


build = EDetector.model_validate
