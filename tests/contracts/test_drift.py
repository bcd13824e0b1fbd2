"""Laws that every drift detector in the folder obeys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import binom
from threadpoolctl import threadpool_limits

from infra.errors import InvalidConfiguration, InvalidRequest
from infra.plugins import available
from monitoring.columns import Column, Kind
from monitoring.detector import (
    SequentialDetector,
    TwoSampleDetector,
    Watch,
    is_sequential,
    open_detector,
)
from monitoring.findings import Finding

PACKAGE = "monitoring.drift"
NAMES = available(PACKAGE)
SEQUENTIAL = [name for name in NAMES if is_sequential(open_detector(name))]
TWO_SAMPLE = [name for name in NAMES if name not in SEQUENTIAL]
SURE = 1e-4
"""A rate is refuted when counts as large have this probability at most."""
LEVEL = 0.05
HORIZON = 2_000
Draw = Callable[[np.random.Generator, int, float], Any]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of several tests would wait for each other's."""
    with threadpool_limits(1):
        yield


def normal(rng: np.random.Generator, rows: int, shift: float) -> Any:
    return rng.normal(loc=shift, size=rows)


def skewed(rng: np.random.Generator, rows: int, shift: float) -> Any:
    return np.exp(rng.normal(loc=shift, scale=1.5, size=rows))


def counts(rng: np.random.Generator, rows: int, shift: float) -> Any:
    return rng.poisson(np.exp(0.7 * shift) * 2, size=rows)


def words(rng: np.random.Generator, rows: int, shift: float) -> Any:
    weights = 1.0 / np.arange(1, 31) ** (1.0 + shift)
    return [f"word {n}" for n in rng.choice(30, size=rows, p=weights / weights.sum())]


def vectors(rng: np.random.Generator, rows: int, shift: float) -> Any:
    found = rng.normal(size=(rows, 8))
    found[:, 3] += shift
    return found


DRAWS: dict[Kind, tuple[Draw, ...]] = {
    "numbers": (normal, skewed, counts),
    "categories": (words,),
    "vectors": (vectors,),
}
EVERY = [
    pytest.param(name, draw, id=f"{name}-{draw.__name__}")
    for name in NAMES
    for kind in sorted(open_detector(name).reads)
    for draw in DRAWS[kind]
]
TWO = [each for each in EVERY if each.values[0] in TWO_SAMPLE]
STREAMS = [each for each in EVERY if each.values[0] in SEQUENTIAL]


def two_sample(name: str, **parameters: Any) -> TwoSampleDetector:
    return cast("TwoSampleDetector", open_detector(name, parameters))


def watch(name: str, reference: Column, **parameters: Any) -> Watch:
    detector = cast("SequentialDetector", open_detector(name, {"horizon": HORIZON, **parameters}))
    found = detector.watch(reference)
    assert not isinstance(found, Finding), found
    return found


def columns(draw: Draw, seed: int, sizes: tuple[int, int], shift: float = 0.0) -> Iterator[Column]:
    rng = np.random.default_rng(seed)
    yield Column.of(draw(rng, sizes[0], 0.0))
    yield Column.of(draw(rng, sizes[1], shift))


def quick(name: str) -> dict[str, Any]:
    """Fewer permutations where each of them costs a product of matrices."""
    return {"draws": 199} if name in {"mmd", "classifier_two_sample"} else {}


def is_refuted(alarms: int, streams: int, level: float = LEVEL) -> bool:
    return bool(binom.sf(alarms - 1, streams, level) < SURE)


def false_alarms(name: str, draw: Draw, streams: int) -> int:
    """Count p-values at most the level, the size of the effect apart, on windows of many sizes."""
    found = 0
    for seed in range(streams):
        sizes = ((200, 60), (1_000, 100), (400, 400))[seed % 3]
        detector = two_sample(name, seed=seed, **quick(name))
        p = detector.compare(*columns(draw, seed, sizes)).p_value
        assert p is not None
        assert 0 < p <= 1
        found += p <= LEVEL
    return found


def stream_alarms(name: str, draw: Draw, streams: int) -> int:
    found = 0
    for seed in range(streams):
        reference, stream = columns(draw, seed, (500, HORIZON))
        found += watch(name, reference, seed=seed).update(stream).is_drift
    return found


def test_folder_holds_the_detectors_we_ship() -> None:
    assert set(TWO_SAMPLE) >= {
        *("kolmogorov_smirnov", "chi_squared", "psi", "jensen_shannon", "wasserstein"),
        *("mmd", "classifier_two_sample"),
    }
    assert set(SEQUENTIAL) >= {"adwin", "page_hinkley", "e_detector"}
    assert len(NAMES) >= 10


@pytest.mark.parametrize(("name", "draw"), TWO)
def test_no_more_false_alarms_than_the_level_says(name: str, draw: Draw) -> None:
    streams = 30 if quick(name) else 60
    assert not is_refuted(false_alarms(name, draw, streams), streams)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "draw"), TWO)
def test_no_more_false_alarms_in_a_thousand_streams(name: str, draw: Draw) -> None:
    assert not is_refuted(false_alarms(name, draw, 1_000), 1_000)


@pytest.mark.parametrize(("name", "draw"), STREAMS)
def test_no_more_false_alarms_along_a_stream_than_the_level_says(name: str, draw: Draw) -> None:
    assert not is_refuted(stream_alarms(name, draw, 40), 40)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "draw"), STREAMS)
def test_no_more_false_alarms_along_a_thousand_streams(name: str, draw: Draw) -> None:
    assert not is_refuted(stream_alarms(name, draw, 1_000), 1_000)


def test_the_count_of_false_alarms_can_fail() -> None:
    assert is_refuted(12, 60)
    assert is_refuted(80, 1_000)
    assert not is_refuted(60, 1_000)


@pytest.mark.parametrize(("name", "draw"), TWO)
def test_planted_shift_is_found(name: str, draw: Draw) -> None:
    found = two_sample(name).compare(*columns(draw, 1, (1_000, 500), shift=0.8))
    assert found.verdict == "drift", found
    assert found.effect is not None
    assert found.least_effect is not None
    assert found.effect > found.least_effect
    assert found.effect_unit
    assert found.explanation


@pytest.mark.parametrize(("name", "draw"), STREAMS)
def test_planted_shift_is_found_along_a_stream(name: str, draw: Draw) -> None:
    rng = np.random.default_rng(2)
    watching = watch(name, Column.of(draw(rng, 1_000, 0.0)))
    assert watching.update(Column.of(draw(rng, 500, 0.0))).verdict == "stable"
    found = watching.update(Column.of(draw(rng, 1_000, 0.8)))
    assert found.verdict == "drift", found
    assert found.alarm_at is not None
    assert 500 < found.alarm_at <= 1_500
    assert watching.update(Column.of(draw(rng, 50, 0.0))) == found


@pytest.mark.parametrize(("name", "draw"), TWO)
def test_same_rows_give_the_same_finding(name: str, draw: Draw) -> None:
    reference, current = columns(draw, 3, (300, 200), shift=0.2)
    first = two_sample(name, seed=4, **quick(name)).compare(reference, current)
    assert two_sample(name, seed=4, **quick(name)).compare(reference, current) == first


@pytest.mark.parametrize(("name", "draw"), STREAMS)
def test_a_stream_gives_the_same_finding_in_any_pieces(name: str, draw: Draw) -> None:
    rng = np.random.default_rng(5)
    reference = Column.of(draw(rng, 500, 0.0))
    values = draw(rng, 1_500, 0.5)
    whole = watch(name, reference, seed=1).update(Column.of(values))
    pieces = watch(name, reference, seed=1)
    found = [pieces.update(Column.of(values[at : at + 100])) for at in range(0, 1_500, 100)][-1]
    assert found.verdict == whole.verdict
    assert found.alarm_at == whole.alarm_at


@pytest.mark.parametrize(("name", "draw"), TWO)
def test_too_few_rows_are_not_enough_data_on_either_side(name: str, draw: Draw) -> None:
    for sizes in ((20, 500), (500, 20), (500, 0), (0, 500)):
        found = two_sample(name).compare(*columns(draw, 6, sizes, shift=3.0))
        assert found.verdict in {"not_enough_data", "incomparable"}
        assert found.verdict == "not_enough_data" or 0 in sizes
        assert found.p_value is None
        assert found.explanation


@pytest.mark.parametrize(("name", "draw"), STREAMS)
def test_a_stream_needs_a_reference_and_takes_any_pieces(name: str, draw: Draw) -> None:
    reference, stream = columns(draw, 7, (20, 10))
    detector = cast("SequentialDetector", open_detector(name))
    found = detector.watch(reference)
    assert isinstance(found, Finding)
    assert found.verdict == "not_enough_data"
    reference, _ = columns(draw, 7, (500, 10))
    watching = watch(name, reference)
    assert watching.update(stream).verdict == "stable"
    assert watching.update(Column.of(np.empty(0))).verdict in {"stable", "not_enough_data"}
    assert watching.update(Column.of([None, None])).verdict == "not_enough_data"
    assert watching.update(Column.of(np.zeros((3, 2)))).verdict == "incomparable"


@pytest.mark.parametrize(("name", "draw"), TWO)
def test_columns_without_a_value_are_incomparable(name: str, draw: Draw) -> None:
    reference, _ = columns(draw, 8, (300, 10))
    nothing = Column.of([None] * 300)
    for pair in ((reference, nothing), (nothing, reference), (nothing, nothing)):
        found = two_sample(name).compare(*pair)
        assert found.verdict == "incomparable"
        assert "no value" in found.explanation


@pytest.mark.parametrize("name", TWO_SAMPLE)
def test_constant_columns_are_stable_when_they_stay_the_same(name: str) -> None:
    constant: dict[Kind, Any] = {
        "numbers": np.full(300, 7.0),
        "categories": ["same"] * 300,
        "vectors": np.ones((300, 4)),
    }
    for kind in open_detector(name).reads:
        column = Column.of(constant[kind])
        found = two_sample(name).compare(column, column)
        assert found.verdict == "stable", found
        assert found.p_value == 1.0


@pytest.mark.parametrize("name", TWO_SAMPLE)
def test_a_constant_that_becomes_another_is_drift(name: str) -> None:
    pairs: dict[Kind, tuple[Any, Any]] = {
        "numbers": (np.full(300, 7.0), np.full(300, 8.0)),
        "categories": (["old"] * 300, ["new"] * 300),
        "vectors": (np.ones((300, 4)), np.zeros((300, 4))),
    }
    for kind in open_detector(name).reads:
        found = two_sample(name).compare(*map(Column.of, pairs[kind]))
        assert found.verdict == "drift", found


@pytest.mark.parametrize("name", TWO_SAMPLE)
def test_other_kinds_and_dimensions_are_incomparable(name: str) -> None:
    rng = np.random.default_rng(9)
    of_kind: dict[Kind, Any] = {kind: draws[0](rng, 300, 0.0) for kind, draws in DRAWS.items()}
    reads = open_detector(name).reads
    for kind in reads:
        for other in set(of_kind) - {kind}:
            found = two_sample(name).compare(Column.of(of_kind[kind]), Column.of(of_kind[other]))
            assert found.verdict == "incomparable"
    if "vectors" in reads:
        pair = Column.of(rng.normal(size=(300, 8))), Column.of(rng.normal(size=(300, 16)))
        found = two_sample(name).compare(*pair)
        assert found.verdict == "incomparable"
        assert "8" in found.explanation
        assert "16" in found.explanation


@pytest.mark.parametrize("name", [name for name in TWO_SAMPLE if name != "chi_squared"])
def test_what_is_not_finite_is_missing_and_no_crash(name: str) -> None:
    if "numbers" not in open_detector(name).reads:
        pytest.skip("reads no numbers")
    rng = np.random.default_rng(10)
    values = rng.normal(size=(2, 400))
    values[1, ::4] = np.inf
    values[1, 1::4] = np.nan
    found = two_sample(name, **quick(name)).compare(*map(Column.of, values))
    assert found.is_judged
    assert found.statistic is not None
    assert math.isfinite(found.statistic)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="thresold"):
        open_detector(name, {"thresold": 0.1})
    with pytest.raises(InvalidRequest, match="level"):
        open_detector(name, {"level": 2})


def test_a_detector_that_nobody_wrote_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidConfiguration, match="kolmogorov_smirnov"):
        open_detector("deep_learning")
    with pytest.raises(InvalidConfiguration, match="neither"):
        open_detector("builtins.dict")
