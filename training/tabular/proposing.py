"""What a search tries: a linear model, then points of candidates: of a grid, drawn, or by TPE."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from infra.errors import InvalidRequest, TooLarge
from infra.plugins import require
from training.specification.sweep import Range
from training.tabular.names import LINEAR, METRICS
from training.tabular.specification import Candidate, Classical, Search

MAX_GRID = 10_000
GRID_STEPS = 5
"""Values that a grid takes of a range without steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A trial to come; those of one search are asked for and told of one after the other."""

    estimator: str
    ask: Callable[[], dict[str, Any]]
    """Returns the parameters, which may hang on the trials before."""
    tell: Callable[[float], None] = lambda _: None
    """Takes the score."""


def plan(spec: Classical) -> list[Proposal]:
    """Return what is tried.

    Raises:
        InvalidRequest: a grid has more points than there are trials.
        TooLarge: a grid has too many points.
        MissingDependency: TPE is asked for, and optuna is not installed.
    """
    found = [Proposal(LINEAR[spec.task], dict)]
    for place, candidate in enumerate(spec.candidates):
        if spec.search.sampler == "tpe" and candidate.parameters:
            study = _Study(spec, candidate, seed=(spec.seed + place) % 2**32)
            found += [Proposal(candidate.estimator, study.ask, study.tell)] * spec.search.trials
            continue
        draw = np.random.default_rng([spec.seed, place])
        for point in _points(candidate, spec.search, draw):
            found.append(Proposal(candidate.estimator, partial(dict, candidate.fixed, **point)))
    return found


class _Study:
    """Points of one candidate that promise most by the scores so far.

    The tree-structured Parzen estimator, https://papers.nips.cc/paper/4443, of optuna; its first
    ten points are drawn at random.
    """

    def __init__(self, spec: Classical, candidate: Candidate, *, seed: int) -> None:
        optuna = require("optuna", extra="finetune")
        optuna.logging.disable_default_handler()
        is_higher = METRICS[spec.metric].higher_is_better
        self._optuna, self._candidate = optuna, candidate
        self._study = optuna.create_study(
            direction="maximize" if is_higher else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
        self._spaces = {
            name: _distribution(optuna.distributions, choice)
            for name, choice in candidate.parameters.items()
        }
        self._trial: Any = None

    def ask(self) -> dict[str, Any]:
        self._trial = self._study.ask(self._spaces)
        given = self._candidate.parameters
        drawn = {name: _told(given[name], self._trial.params[name]) for name in given}
        return {**self._candidate.fixed, **drawn}

    def tell(self, score: float) -> None:
        if np.isfinite(score):
            self._study.tell(self._trial, score)
        else:
            self._study.tell(self._trial, state=self._optuna.trial.TrialState.FAIL)


def _distribution(kinds: Any, choice: Any) -> Any:
    """Return what TPE draws: a number, or the place of a value."""
    if not isinstance(choice, Range):
        return kinds.CategoricalDistribution(list(range(len(choice))))
    if choice.step is not None:
        return kinds.IntDistribution(0, len(_axis(choice)) - 1)
    if choice.whole:
        return kinds.IntDistribution(int(choice.low), int(choice.high), log=choice.log)
    return kinds.FloatDistribution(choice.low, choice.high, log=choice.log)


def _told(choice: Any, drawn: Any) -> Any:
    if not isinstance(choice, Range):
        return choice[drawn]
    return drawn if choice.step is None else _axis(choice)[drawn]


def _points(
    candidate: Candidate, search: Search, draw: np.random.Generator
) -> Iterator[dict[str, Any]]:
    names = list(candidate.parameters)
    if search.sampler == "random" and names:
        for _ in range(search.trials):
            yield {name: _drawn(candidate.parameters[name], draw) for name in names}
        return
    axes = [_axis(candidate.parameters[name]) for name in names]
    size = int(np.prod([len(axis) for axis in axes])) if axes else 1
    if size > MAX_GRID:
        raise TooLarge(
            f"candidates: the grid of {candidate.estimator!r} has {size:,} points; use sampler "
            "'random'"
        )
    if size > search.trials:
        raise InvalidRequest(
            f"candidates: the grid of {candidate.estimator!r} has {size:,} points, and "
            f"search.trials is {search.trials}; raise it or use sampler 'random'"
        )
    for values in itertools.product(*axes):
        yield dict(zip(names, values, strict=True))


def _axis(choice: Any) -> list[Any]:
    if not isinstance(choice, Range):
        return list(choice)
    if choice.step is not None:
        values = np.arange(choice.low, choice.high + choice.step / 2, choice.step)
    elif choice.log:
        values = np.geomspace(choice.low, choice.high, GRID_STEPS)
    else:
        values = np.linspace(choice.low, choice.high, GRID_STEPS)
    found = [round(float(each)) if choice.whole else float(each) for each in values]
    return list(dict.fromkeys(found))


def _drawn(choice: Any, draw: np.random.Generator) -> Any:
    if not isinstance(choice, Range):
        return choice[int(draw.integers(len(choice)))]
    if choice.step is not None:
        axis = _axis(choice)
        return axis[int(draw.integers(len(axis)))]
    if choice.log:
        value = float(np.exp(draw.uniform(np.log(choice.low), np.log(choice.high))))
    else:
        value = float(draw.uniform(choice.low, choice.high))
    return round(value) if choice.whole else value
