"""Scores for tests of gates: tables of runs that are alike, or worse by a stated amount."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import ttest_1samp

from evals.score_tables import ScoreTable
from evals.statistics.intervals import Interval


def table(
    values: npt.ArrayLike,
    *,
    states: Sequence[str] | None = None,
    clusters: npt.ArrayLike | None = None,
    arrived: npt.ArrayLike | None = None,
    dataset: str = "v1",
) -> ScoreTable:
    """Return a table with a case for each value; whole ones are declared to pass or fail."""
    data = np.asarray(values, dtype=np.float64)
    return ScoreTable(
        [f"case-{i:05d}" for i in range(data.size)],
        data,
        ["scored"] * data.size if states is None else states,
        clusters,
        arrived,
        dataset,
        "answer_match@1",
        is_pass_or_fail=bool(np.isin(data, (0.0, 1.0)).all()),
    )


def t_interval(values: npt.ArrayLike) -> Interval:
    """Return the plain 95 % interval of a mean, for what it gets wrong."""
    data = np.asarray(values, dtype=np.float64)
    bounds = ttest_1samp(data, 0.0).confidence_interval(0.95)
    return Interval(float(data.mean()), float(bounds.low), float(bounds.high))


def passes(
    rng: np.random.Generator, cases: int, *, worse: float = 0.0, discordant: float = 0.1
) -> tuple[ScoreTable, ScoreTable]:
    """Return candidate and baseline that pass or fail; the candidate passes less often by `worse`.

    The shares of cases that change differ by `worse` and add up to `discordant`, or to `worse`.
    """
    discordant = max(discordant, worse)
    down, up = (discordant + worse) / 2, (discordant - worse) / 2
    change = rng.choice(3, p=[down, up, 1 - down - up], size=cases)
    before = np.where(change == 0, 1, np.where(change == 1, 0, rng.random(cases) < 0.8))
    after = np.where(change == 0, 0, np.where(change == 1, 1, before))
    return table(after), table(before)


def graded(
    rng: np.random.Generator, questions: int, *, per_question: int = 1, worse: float = 0.0
) -> tuple[ScoreTable, ScoreTable]:
    """Return candidate and baseline with scores between 0 and 1, alike within a question."""
    ids = np.repeat(np.arange(questions), per_question)
    level = rng.beta(8, 4, size=questions)[ids]
    noise = rng.normal(0, 0.1, size=(2, questions))[:, ids]
    noise += rng.normal(0, 0.05, size=(2, ids.size))
    after, before = np.clip(level + noise[0] - worse, 0, 1), np.clip(level + noise[1], 0, 1)
    return table(after, clusters=ids), table(before, clusters=ids)
