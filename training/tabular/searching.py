"""Tries estimators and their parameters in folds, after a constant and a linear model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import Column
from training.tabular import fitting, pipelines, proposing, scoring, splitting
from training.tabular.names import DUMMY
from training.tabular.specification import Classical
from training.tabular.table import Table

BASELINE = "constant"
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One estimator with its parameters, and what it came to in the folds."""

    estimator: str
    parameters: Mapping[str, Any]
    folds: tuple[float, ...]
    """The metric of the search in each."""
    seconds: float
    said: NDArray[np.float64] = field(repr=False)
    """Of each row, by the model that was not trained on it; NaN where no fold measured it."""

    @property
    def score(self) -> float:
        return float(np.mean(self.folds))

    @property
    def spread(self) -> float:
        """The standard error of the score; folds share rows, so that it is rather too small."""
        return float(np.std(self.folds, ddof=1) / np.sqrt(len(self.folds)))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is."""

    done: int
    total: int
    words: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    baseline: Trial
    trials: tuple[Trial, ...]
    """In the order in which they were tried; the linear one first."""
    best: Trial


def search(
    table: Table,
    spec: Classical,
    columns: Sequence[Column],
    *,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Found:
    """Compare all candidates in the same folds.

    Of trials with equal scores the earlier wins, which is the simpler where candidates are listed
    from simple to complex.

    Raises:
        InvalidRequest: an estimator refuses its parameters or the rows.
        TooLarge: a grid has too many points.
        MissingDependency: the package of an estimator, or of the sampler, is not installed.
    """
    planned = proposing.plan(spec)
    folds = splitting.folds(table, spec)
    baseline = _try(
        BASELINE,
        {},
        lambda: pipelines.assemble(
            columns,
            spec.features,
            pipelines.construct(DUMMY[spec.task], {}, _plain(spec)),
        ),
        (table, spec, folds),
    )
    trials: list[Trial] = []
    best: Trial | None = None
    for proposal in planned:
        estimator, parameters = proposal.estimator, proposal.ask()
        make = partial(pipelines.build, spec, columns, estimator, parameters)
        trial = _try(estimator, parameters, make, (table, spec, folds))
        proposal.tell(trial.score)
        trials.append(trial)
        if best is None or scoring.is_better(spec.metric, trial.score, best.score):
            best = trial
        words = f"{estimator} {trial.score:.4g}, best {best.estimator} {best.score:.4g}"
        tell(Progress(len(trials), len(planned), words))
    assert best is not None
    return Found(baseline, tuple(trials), best)


def nested(table: Table, spec: Classical, columns: Sequence[Column]) -> tuple[float, ...]:
    """Return what the search itself comes to: in each fold, the best of a search without it.

    Raises as `search` does.
    """
    found = []
    for train, test in splitting.folds(table, spec):
        inner, outer = table.take(train), table.take(test)
        best = search(inner, spec, columns).best
        pipeline = pipelines.build(spec, columns, best.estimator, best.parameters)
        fitting.fit(pipeline, inner, spec)
        said = fitting.ask(pipeline, outer.features, outer.classes)
        found.append(scoring.score(spec.metric, outer.truth, said, outer.weights))
    return tuple(found)


def _try(
    estimator: str,
    parameters: Mapping[str, Any],
    make: Callable[[], Any],
    where: tuple[Table, Classical, Sequence[tuple[Places, Places]]],
) -> Trial:
    table, spec, folds = where
    began = time.perf_counter()
    wide = () if table.classes is None else (len(table.classes),)
    said = np.full((len(table), *wide), np.nan)
    figures = []
    for train, test in folds:
        outer = table.take(test)
        pipeline = fitting.fit(make(), table.take(train), spec)
        said[test] = fitting.ask(pipeline, outer.features, outer.classes)
        figures.append(scoring.score(spec.metric, outer.truth, said[test], outer.weights))
    return Trial(estimator, dict(parameters), tuple(figures), time.perf_counter() - began, said)


def _plain(spec: Classical) -> Classical:
    """Return a specification under which a constant is what it says: the shares of the classes."""
    return spec.model_copy(
        update={"imbalance": spec.imbalance.model_copy(update={"class_weight": "none"})}
    )
