from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from threadpoolctl import threadpool_limits

from infra.errors import InvalidRequest, NotFound
from monitoring.columns import Column
from monitoring.comparison import CORRECTIONS, TOGETHER, Plan, adjusted, compare
from monitoring.detector import Chosen, Parameters
from monitoring.findings import Finding
from monitoring.windows import Window

COLUMNS = 20


def numbers(seed: int, rows: int, **shifts: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {f"x{n}": rng.normal(size=rows) for n in range(COLUMNS)}
    for name, shift in shifts.items():
        found[name] = found[name] + shift
    return found


def names(report: Any) -> list[str]:
    return [each.feature for each in report.drifted]


def test_a_feature_that_moved_is_named_among_those_that_did_not() -> None:
    report = compare(Window.of(numbers(0, 2_000)), Window.of(numbers(1, 500, x3=0.5, x7=1.0)))
    assert report.verdict == "drift"
    assert names(report) == ["x7", "x3"]
    assert len(report.findings) == COLUMNS
    for each in report.findings:
        assert each.finding.p_value is not None
        assert each.finding.p_adjusted is not None
        assert each.finding.p_adjusted >= each.finding.p_value


@pytest.mark.parametrize("correction", ["benjamini_hochberg", "holm"])
def test_many_features_together_alarm_no_more_often_than_one(correction: Any) -> None:
    """Without a correction 64 of 100 checks of 20 features would alarm."""
    plan = Plan(correction=correction, parameters={"kolmogorov_smirnov": {"least_effect": 0.0}})
    reference = [Window.of(numbers(seed, 300)) for seed in range(40)]
    alarms = sum(
        compare(one, Window.of(numbers(1_000 + seed, 100)), plan).verdict == "drift"
        for seed, one in enumerate(reference)
    )
    assert binom.sf(alarms - 1, 40, 0.05) > 1e-4


def test_hundreds_of_thousands_of_rows_do_not_alarm_on_nothing() -> None:
    rng = np.random.default_rng(2)
    rows = 400_000
    reference = Window.of({"x": rng.normal(size=rows), "c": rng.integers(5, size=rows)})
    shifted = Window.of(
        {
            "x": rng.normal(loc=0.02, size=rows),
            "c": rng.choice(5, size=rows, p=[0.204, 0.196, 0.2, 0.2, 0.2]),
        }
    )
    plan = Plan(
        by_column={
            "x": ["kolmogorov_smirnov", "wasserstein", "psi", "jensen_shannon"],
            "c": ["chi_squared", "psi", "jensen_shannon"],
        }
    )
    kinds: Any = {"c": "categories"}
    report = compare(replace(reference, kinds=kinds), replace(shifted, kinds=kinds), plan)
    assert report.verdict == "stable"
    sure = [each.finding.p_adjusted or 1 for each in report.findings]
    assert max(sure) < 0.01  # every one of them is sure, and too small to matter
    assert len(sure) == 7


def test_a_column_that_cannot_be_compared_is_named_and_the_rest_is_judged() -> None:
    rng = np.random.default_rng(3)
    reference = Window.of(
        {
            "gone": rng.normal(size=300),
            "null": rng.normal(size=300),
            "kind": rng.normal(size=300),
            "same": np.full(300, 4.0),
            "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 300,
            "v": rng.normal(size=(300, 4)),
        }
    )
    window = Window.of(
        {
            "null": [None] * 300,
            "kind": ["a", "b", "c"] * 100,
            "same": np.full(300, 4.0),
            "at": [datetime(2026, 2, 1, tzinfo=UTC)] * 300,
            "v": rng.normal(size=(300, 8)),
            "extra": rng.normal(size=300),
        }
    )
    found = {each.feature: each.finding for each in compare(reference, window).findings}
    for name in ("gone", "null", "kind", "at", "v", "extra"):
        assert found[name].verdict == "incomparable", name
        assert found[name].explanation
    assert found["same"].verdict == "stable"
    assert found["null (missing)"].verdict == "drift"
    assert found["null (missing)"].explanation.startswith("'present' is 0.0%")


def test_what_could_not_be_compared_is_not_called_stable() -> None:
    rng = np.random.default_rng(14)
    reference = Window.of({"x": rng.normal(size=300), "v": rng.normal(size=(300, 4))})
    x = rng.normal(size=300)
    other = Window.of({"x": x, "v": rng.normal(size=(300, 8))})
    assert compare(reference, other).verdict == "incomparable"
    moved = Window.of({"x": x + 2, "v": rng.normal(size=(300, 8))})
    assert compare(reference, moved).verdict == "drift"


def test_a_column_that_never_has_a_value_spoils_no_verdict() -> None:
    rng = np.random.default_rng(15)
    reference, window = (
        Window.of({"x": rng.normal(size=300), "never": [None] * 300}) for _ in range(2)
    )
    assert compare(reference, window).verdict == "stable"


@pytest.mark.parametrize("whose", ["reference", "window", "both"])
@pytest.mark.parametrize(
    "odd",
    [[None] * 300, [["a", "b"], []] * 150, [1.5] * 300, [timedelta(hours=1)] * 300],
    ids=["null", "lists", "numbers", "spans"],
)
def test_an_odd_column_to_slice_by_is_a_finding_and_no_error(whose: str, odd: Any) -> None:
    rng = np.random.default_rng(16)
    made = [
        Window.of(
            {
                "x": rng.normal(size=300),
                "by": odd if whose in {side, "both"} else ["a", "b", "c"] * 100,
            }
        )
        for side in ("reference", "window")
    ]
    report = compare(*made, Plan(slices=["by"]))
    found = {(each.slice, each.feature): each.finding.verdict for each in report.findings}
    assert found["", "x"] == "stable"
    if isinstance(odd[0], list):
        assert report.verdict == ("stable" if whose == "both" else "drift")
    else:
        assert found["by", "by"] == "incomparable"


def test_windows_without_anything_to_compare_have_no_verdict() -> None:
    rng = np.random.default_rng(4)
    reference = Window.of({"x": rng.normal(size=300)})
    assert compare(reference, Window.of({"x": rng.normal(size=9)})).verdict == "not_enough_data"
    assert compare(reference, Window.of({"y": rng.normal(size=300)})).verdict == "incomparable"
    assert compare(reference, Window.of({"x": []})).verdict == "not_enough_data"
    assert compare(reference, Window.of({})).verdict == "not_enough_data"


def test_a_window_whose_clocks_jumped_is_incomparable_and_no_alarm() -> None:
    rng = np.random.default_rng(5)
    reference = Window.of({"x": rng.normal(size=300)})
    window = Window.of({"x": rng.normal(loc=2, size=300)})
    few, many = (replace(window, set_aside=count) for count in (10, 100))
    assert compare(reference, few).verdict == "drift"
    report = compare(reference, many)
    assert report.verdict == "incomparable"
    assert "100 of 400" in report.findings[0].finding.explanation


def test_new_and_rare_categories_are_named_and_alone_no_alarm() -> None:
    rng = np.random.default_rng(6)
    old = [f"city {n}" for n in rng.choice(40, size=2_000)]
    reference = Window.of({"city": old})
    same = [f"city {n}" for n in rng.choice(40, size=500)]
    few = compare(reference, Window.of({"city": [*same, "Atlantis"]})).findings[0].finding
    assert few.verdict == "stable"
    assert "new: 'Atlantis'" in few.explanation
    many = compare(reference, Window.of({"city": [*same, *["Atlantis"] * 100]}))
    assert many.verdict == "drift"
    assert many.findings[0].finding.causes[0].name == "Atlantis"


def test_a_slice_that_moved_is_found_where_the_whole_did_not() -> None:
    rng = np.random.default_rng(7)
    country = rng.choice(["AT", "BE", "CH", "DE"], size=4_000, p=[0.06, 0.34, 0.3, 0.3])
    values = rng.normal(size=4_000)
    reference = Window.of({"country": list(country), "x": values})
    moved = np.where(country == "AT", values + 1.5, values)[:2_000]
    window = Window.of({"country": list(country[:2_000]), "x": moved})
    whole = compare(reference, window)
    assert whole.verdict == "stable"
    sliced = compare(reference, window, Plan(slices=["country"]))
    assert [(each.slice, each.feature) for each in sliced.drifted] == [("country=AT", "x")]


def test_a_daily_rhythm_is_no_drift_beside_a_seasonal_reference() -> None:
    rng = np.random.default_rng(8)
    start = datetime(2026, 11, 2, tzinfo=UTC)
    minutes = np.arange(0, 6 * 7 * 24 * 60, 2)
    at = start.timestamp() + minutes * 60.0
    load = np.sin(2 * np.pi * minutes / (24 * 60)) * 3 + rng.normal(size=minutes.size)
    reference = Window.of({"at": at, "load": load})
    monday = start + timedelta(weeks=6, hours=3)
    now = np.arange(0, 120) * 60.0 + monday.timestamp()
    hour = (now - start.timestamp()) / 3_600
    values = np.sin(2 * np.pi * hour / 24) * 3 + rng.normal(size=now.size)
    window = replace(
        Window.of({"at": now, "load": values}), start=monday, end=monday + timedelta(hours=2)
    )
    assert compare(reference, window, Plan(leave_out=["at"])).verdict == "drift"
    seasonal = compare(reference, window, Plan(season="at"))
    assert seasonal.verdict == "stable"
    assert seasonal.reference_rows == 6 * 60
    higher = replace(window, read={"at": now, "load": values + 1}.__getitem__)
    assert compare(reference, higher, Plan(season="at")).verdict == "drift"


def test_columns_together_show_what_none_shows_alone() -> None:
    rng = np.random.default_rng(10)
    rows = 6_000

    def mixed(mean: float) -> dict[str, Any]:
        return {
            **{f"x{n}": rng.normal(loc=mean, size=rows) for n in range(40)},
            "c": list(rng.choice(["a", "b"], size=rows)),
        }

    few = {"classifier_two_sample": {"rows": 800}}
    plan = Plan(together="classifier_two_sample", correction="holm", parameters=few)
    with threadpool_limits(1):  # threads of several tests would wait for each other's
        report = compare(Window.of(mixed(0.0)), Window.of(mixed(0.06)), plan)
        assert names(report) == ["all columns"]
        again = compare(Window.of(mixed(0.0)), Window.of(mixed(0.0)), plan)
        assert again.verdict == "stable"


def test_a_plan_that_names_what_is_not_there_is_refused() -> None:
    window = Window.of({"amount": np.arange(100.0)})
    with pytest.raises(NotFound, match="did you mean 'amount'"):
        compare(window, window, Plan(by_column={"amuont": "psi"}))
    with pytest.raises(InvalidRequest, match="watches streams"):
        compare(window, window, Plan(by_column={"amount": "adwin"}))


def test_each_column_has_parameters_of_its_own() -> None:
    rng = np.random.default_rng(0)
    before = Window.of({name: rng.normal(size=500) for name in ("a", "b", "c")})
    now = Window.of({name: rng.normal(loc=1, size=500) for name in ("a", "b", "c")})
    far = Chosen("wasserstein", {"least_effect": 2.0})
    few = Chosen("wasserstein", {"draws": 99})
    report = compare(before, now, Plan(by_column={"a": far, "b": "wasserstein", "c": few}))
    assert set(names(report)) == {"b", "c"}
    p = {each.feature: each.finding.p_value for each in report.findings}
    assert p["c"] == 1 / 100
    assert p["a"] == p["b"] == 1 / 2_000
    seen = compare(before, now, Plan(together=Chosen("mmd", {"rows": 60})))
    assert "60 rows of the window" in next(
        each.finding.explanation for each in seen.findings if each.feature == TOGETHER
    )
    with pytest.raises(InvalidRequest, match="no option 'least'; there are cells, draws, least_e"):
        compare(before, now, Plan(by_column={"a": Chosen("wasserstein", {"least": 1})}))


class Needy(Parameters):
    """A third party's detector, with a parameter that has no default."""

    unit: str

    def compare(self, reference: Column, current: Column) -> Finding:
        rows = reference.data.shape[0] + current.data.shape[0]
        return Finding("needy", "stable", f"{rows} {self.unit}", p_value=1.0)


needy = Needy.model_validate


def test_a_detector_may_have_a_parameter_without_a_default() -> None:
    window = Window.of({"a": np.arange(100.0)})
    asked = Chosen(f"{__name__}.needy", {"unit": "euros"})
    report = compare(window, window, Plan(by_column={"a": asked}, together=asked))
    assert {each.finding.explanation for each in report.findings} == {"200 euros"}


def test_without_a_correction_each_test_has_the_level_for_itself() -> None:
    reference = [Window.of(numbers(seed, 300)) for seed in range(10)]
    some = {"kolmogorov_smirnov": {"least_effect": 0.0}}
    alarms = {
        correction: sum(
            compare(
                one,
                Window.of(numbers(1_000 + seed, 100)),
                Plan(correction=correction, parameters=some),
            ).verdict
            == "drift"
            for seed, one in enumerate(reference)
        )
        for correction in CORRECTIONS
    }
    assert alarms["none"] > 4
    assert alarms["benjamini_yekutieli"] <= alarms["benjamini_hochberg"] <= 2
    with pytest.raises(InvalidRequest, match="'bonferroni'; there are benjamini_hochberg, "):
        compare(reference[0], reference[1], Plan(correction="bonferroni"))  # type: ignore[arg-type]


def test_adjusted_p_values_are_those_of_the_textbooks() -> None:
    assert adjusted([0.01, 0.04, 0.03], "holm") == [0.03, 0.06, 0.06]
    assert adjusted([0.01, 0.04, 0.03], "benjamini_hochberg") == pytest.approx([0.03, 0.04, 0.04])
    assert adjusted([0.01, 0.04, 0.03], "benjamini_yekutieli") == pytest.approx(
        [0.03 * 11 / 6, 0.04 * 11 / 6, 0.04 * 11 / 6]
    )
    assert adjusted([0.01, 0.04, 0.03], "none") == [0.01, 0.04, 0.03]
    assert adjusted([], "holm") == []
