from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from monitoring.columns import Column
from monitoring.detector import open_detector
from monitoring.drift import _scores, e_detector
from monitoring.drift.e_detector import EDetector, EWatch


def watch(reference: Any, **parameters: Any) -> EWatch:
    detector = cast("EDetector", open_detector("e_detector", parameters))
    found = detector.watch(Column.of(reference))
    assert isinstance(found, EWatch)
    return found


def scores(watching: EWatch, values: Any) -> Any:
    cells = watching._grid.cells_of(Column.of(values))
    return np.concatenate(
        [watching._normal_scores(cells[at : at + 256]) for at in range(0, cells.size, 256)]
    )


@pytest.mark.parametrize("kind", ["normal", "ties"])
def test_normal_scores_of_a_long_stream_are_standard_normal_and_independent(kind: str) -> None:
    """Ranks among a frozen reference of 300 rows are neither."""
    rng = np.random.default_rng(0)

    def draw(size: int) -> Any:
        return rng.normal(size=size) if kind == "normal" else rng.integers(4, size=size)

    sums = []
    for seed in range(150):
        found = scores(watch(draw(300), seed=seed), draw(2_000))
        sums.append(found.sum() / np.sqrt(found.size))
    # With a frozen reference the variance of these would be 1 + 2,000 / 300.
    assert np.var(sums) < 1.5
    assert stats.kstest(sums, "norm").pvalue > 0.001


def test_every_bet_is_an_e_value() -> None:
    rng = np.random.default_rng(1)
    gains = np.exp(e_detector._log_bets(rng.normal(size=1_000_000)))
    assert gains.mean(axis=0) == pytest.approx(1.0, abs=0.02)


def test_evidence_is_the_sum_that_shiryaev_and_roberts_wrote() -> None:
    rng = np.random.default_rng(2)
    watching = watch(rng.normal(size=500), horizon=10**9)
    stream = rng.normal(size=600)
    twin = watch(np.random.default_rng(2).normal(size=500), horizon=10**9)
    gains = np.exp(e_detector._log_bets(scores(twin, stream)))
    wealth = np.zeros(gains.shape[1])
    for gain in gains:
        wealth = (1 + wealth) * gain
    found = watching.update(Column.of(stream))
    assert found.e_value == pytest.approx(wealth.mean(), rel=1e-9)
    assert found.statistic == pytest.approx(np.log(wealth.mean()))


def test_alarm_says_when_the_change_began_and_how_large_it_is() -> None:
    rng = np.random.default_rng(3)
    watching = watch(rng.normal(size=2_000))
    stream = np.concatenate([rng.normal(size=1_000), rng.normal(loc=1.0, size=500)])
    found = watching.update(Column.of(stream))
    assert found.alarm_at is not None
    assert 1_005 < found.alarm_at < 1_080
    began = int(found.explanation.rpartition("about ")[2].split()[0])
    assert found.alarm_at - began == pytest.approx(1_000, abs=40)
    assert found.effect == pytest.approx(0.8, abs=0.3)


def test_a_spread_that_grows_is_found_while_the_mean_stays() -> None:
    rng = np.random.default_rng(4)
    watching = watch(rng.normal(size=2_000))
    assert watching.update(Column.of(rng.normal(size=500))).verdict == "stable"
    assert watching.update(Column.of(rng.normal(scale=2.0, size=1_000))).verdict == "drift"


def test_a_category_that_nobody_knew_is_evidence() -> None:
    rng = np.random.default_rng(5)
    watching = watch(list(rng.choice(["a", "b", "c"], size=1_000)))
    assert watching.update(Column.of(list(rng.choice(["a", "b", "c"], size=300)))).e_value
    found = watching.update(Column.of(list(rng.choice(["a", "b", "new"], size=500))))
    assert found.verdict == "drift"


def test_memory_does_not_grow_with_the_stream() -> None:
    rng = np.random.default_rng(6)
    watching = watch(rng.normal(size=20_000))
    for _ in range(3):
        watching.update(Column.of(rng.normal(size=10_000)))
    assert watching._counts.size <= _scores.CELLS
    assert len(watching._scores) <= e_detector._KEPT


@pytest.mark.slow
def test_budget_of_false_alarms_holds_on_streams_much_longer_than_the_reference() -> None:
    """At most horizon / (horizon / level): 5 of 100 streams of 10,000 after 300 rows."""
    alarms = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        watching = watch(rng.normal(size=300), horizon=10_000, seed=seed)
        alarms += watching.update(Column.of(rng.normal(size=10_000))).is_drift
    assert stats.binom.sf(alarms - 1, 300, 0.05) > 1e-4
