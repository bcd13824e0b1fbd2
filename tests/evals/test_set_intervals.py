"""How often intervals of metrics of the set hold the truth, over sets drawn again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
from scipy.stats import binom

from evals.evidence import weigh
from evals.metric import SetMetric, open_metric
from evals.pseudo_values import pseudo_values
from evals.score_tables import ScoreTable, single
from evals.trial import Case, Output, Trial

SHORT, LONG = 3, 200


@dataclass(frozen=True)
class Setting:
    """A metric, what it truly is, and how a case is drawn: expected, prediction, group."""

    metric: str
    truth: float
    draw: Callable[[np.random.Generator], tuple[str, object, str]]
    clusters: int
    """Of two to thirteen cases, so that groups differ in size; fewer where the library is slow."""


def overconfident(rng: np.random.Generator) -> tuple[str, object, str]:
    """Sure at 0.65, 0.75 and 0.95 of what is right at 0.55, 0.55 and 0.75: a gap of 0.1 or 0.2."""
    sure, right = ((0.65, 0.55), (0.75, 0.55), (0.95, 0.75))[rng.integers(3)]
    return ("ham" if rng.random() < right else "spam"), {"ham": sure, "spam": 1 - sure}, "a"


def unlike(rng: np.random.Generator) -> tuple[str, object, str]:
    """Of group a, 60 in 100 are taken for spam, of group b 35, whatever they are."""
    group = "a" if rng.random() < 0.5 else "b"
    expected = "spam" if rng.random() < 0.5 else "ham"
    return expected, "spam" if rng.random() < {"a": 0.60, "b": 0.35}[group] else "ham", group


def missed(rng: np.random.Generator) -> tuple[str, object, str]:
    """Spam of group a is found 9 in 10 times, of group b 6 in 10; false alarms are 1 and 2."""
    group = "a" if rng.random() < 0.5 else "b"
    expected = "spam" if rng.random() < 0.5 else "ham"
    rates = {("a", "spam"): 0.9, ("b", "spam"): 0.6, ("a", "ham"): 0.1, ("b", "ham"): 0.2}
    return expected, "spam" if rng.random() < rates[group, expected] else "ham", group


SETTINGS = [
    Setting("calibration_error", (0.1 + 0.2 + 0.2) / 3, overconfident, 120),
    Setting("demographic_parity", 0.25, unlike, 28),
    Setting("equalised_odds", 0.3, missed, 28),
]


def drawn(setting: Setting, rng: np.random.Generator) -> list[Trial]:
    sizes = rng.integers(2, 14, size=setting.clusters)
    trials = []
    for number, cluster in enumerate(np.repeat(np.arange(setting.clusters), sizes)):
        expected, prediction, group = setting.draw(rng)
        case = Case(f"q{number}", {}, expected, cluster=f"c{cluster}", metadata={"group": group})
        trials.append(Trial(case, 0, Output(prediction=prediction)))
    return trials


def covered(setting: Setting, runs: int) -> int:
    metric, inside = cast("SetMetric", open_metric(setting.metric, {})), 0
    for run in range(runs):
        rows = pseudo_values(metric, drawn(setting, np.random.default_rng(run)))
        table = ScoreTable(
            [row.case for row in rows],
            [row.value for row in rows],
            [row.state for row in rows],
            [row.group for row in rows],
        )
        found = weigh(single(table), pairs=False, bounds=None, resamples=499, seed=run)
        assert found is not None
        interval = found[1].interval(0.95)
        inside += interval.low <= setting.truth <= interval.high
    return inside


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.metric)
def test_interval_of_a_set_holds_the_truth_as_often_as_it_says(setting: Setting) -> None:
    assert covered(setting, SHORT) >= binom.ppf(0.01, SHORT, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.metric)
def test_interval_of_a_set_holds_the_truth_over_many_sets(setting: Setting) -> None:
    found = covered(setting, LONG)
    print(f"\n{setting.metric}: {found} of {LONG}")
    assert found >= binom.ppf(0.01, LONG, 0.94)
