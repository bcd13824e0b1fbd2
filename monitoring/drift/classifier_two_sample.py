"""Classifier two-sample test: can a model tell the windows apart, and by which features."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from infra.plugins import require
from monitoring.columns import EXTRA, Column, Floats
from monitoring.detector import NUMBERS, VECTORS, Kinds, Parameters, obstacle
from monitoring.drift.mmd import drawn
from monitoring.findings import Cause, Finding

NAME = "classifier_two_sample"
_EXAMPLES = 5
_CAUSES = 5
_BLOCK = 500
"""Permutations at once."""
_FARTHEST = 5.0
"""Standard deviations; what lies farther away is taken to lie there."""


class ClassifierTwoSample(Parameters):
    """A cross-fitted linear classifier of standardised values and their squares.

    The squares show changes of spread. Least squares with a ridge give Fisher's direction, and
    scores of all permuted labels in one product of matrices, so the p-value is by permutation and
    exact (Kim, Ramdas, Singh & Wasserman, Annals of Statistics 2021) and not by a formula that
    takes cross-fitted scores for independent.
    """

    reads: ClassVar[Kinds] = VECTORS | NUMBERS

    least_effect: float = 0.55
    """Area under the ROC curve; 0.5 is chance."""
    rows: int = Field(2_000, ge=50, le=20_000)
    """Drawn from each window at most."""
    draws: int = Field(999, ge=99)
    folds: int = Field(5, ge=2, le=20)
    directions: int = Field(32, ge=1)
    """Vectors of more than twice as many dimensions are turned to so many principal components."""

    def compare(self, reference: Column, current: Column) -> Finding:
        found = obstacle(NAME, reference, current, reads=self.reads, least_rows=self.least_rows)
        if found:
            return found
        rng = np.random.default_rng(self.seed)
        before, _ = drawn(reference, self.rows, rng)
        now, places = drawn(current, self.rows, rng)
        points, names = self._features(np.concatenate([before, now]), reference.labels)
        is_now = np.zeros((len(points), 1))
        is_now[len(before) :] = 1
        fold = rng.permutation(len(points)) % self.folds
        areas, scores = self._areas(points, is_now, fold)
        above = 0
        for first in range(0, self.draws, _BLOCK):
            size = min(_BLOCK, self.draws - first)
            labels = rng.permuted(np.repeat(is_now, size, axis=1), axis=0)
            above += int((self._areas(points, labels, fold)[0] >= areas[0] - 1e-12).sum())
        causes = _causes(points, is_now[:, 0], names)
        strangest = np.argsort(-scores[len(before) :], kind="stable")[:_EXAMPLES]
        return Finding(
            NAME,
            "stable",
            "A classifier tells the windows apart most by "
            + ", ".join(f"{cause.name} ({cause.share:.0%})" for cause in causes[:3]),
            statistic=float(areas[0]),
            p_value=(1 + above) / (1 + self.draws),
            effect=float(areas[0]),
            effect_unit="area under the ROC curve",
            least_effect=self.least_effect,
            causes=causes,
            examples=tuple(int(place) for place in places[strangest]),
        ).judged(self.level)

    def _features(self, points: Floats, labels: tuple[str, ...]) -> tuple[Floats, tuple[str, ...]]:
        """Return standardised values and their squares, and the names of the values."""
        names = labels or tuple(f"dimension {n}" for n in range(points.shape[1]))
        if points.shape[1] > 2 * self.directions:
            decomposition = require("sklearn.decomposition", extra=EXTRA)
            turn = decomposition.PCA(self.directions, random_state=self.seed)
            points = turn.fit_transform(points)
            names = tuple(f"principal component {n + 1}" for n in range(points.shape[1]))
        spread = points.std(axis=0)
        scaled = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        scaled = np.clip(scaled, -_FARTHEST, _FARTHEST)
        return np.concatenate([scaled, scaled**2 - 1], axis=1), names

    def _areas(
        self, points: Floats, labels: Floats, fold: npt.NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Return the mean area over folds of each labelling, (draws,), and scores of the first."""
        linear = require("sklearn.linear_model", extra=EXTRA)
        areas, scores = np.zeros(labels.shape[1]), np.zeros(len(points))
        for number in range(self.folds):
            held = fold == number
            model = linear.Ridge(alpha=points.shape[1]).fit(points[~held], labels[~held])
            found = model.predict(points[held]).reshape(int(held.sum()), -1)
            areas += _area(found, labels[held]) / self.folds
            scores[held] = found[:, 0]
        return areas, scores


def _area(scores: Floats, labels: Floats) -> Floats:
    """Return the area under the ROC curve of each column; 0.5 where a class is absent."""
    ranks = require("scipy.stats", extra=EXTRA).rankdata(scores, axis=0)
    ones = labels.sum(axis=0)
    pairs = ones * (len(labels) - ones)
    wins = (ranks * labels).sum(axis=0) - ones * (ones + 1) / 2
    area: Floats = np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5)
    return area


def _causes(points: Floats, is_now: Floats, names: tuple[str, ...]) -> tuple[Cause, ...]:
    """Return which values carry the distance of the mean scores; their shares add up to 1."""
    linear = require("sklearn.linear_model", extra=EXTRA)
    weights = linear.Ridge(alpha=points.shape[1]).fit(points, is_now).coef_.reshape(-1)
    gap = points[is_now == 1].mean(axis=0) - points[is_now == 0].mean(axis=0)
    parts = (weights * gap).reshape(2, -1).sum(axis=0)
    total = float(parts.sum()) or 1.0
    order = np.argsort(-parts, kind="stable")[:_CAUSES]
    return tuple(Cause(names[place], float(parts[place] / total)) for place in order)


build = ClassifierTwoSample.model_validate
