from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.declared import Gate
from evals.gates import Claim, Decision, Verdict, check
from evals.planning import needed_cases
from evals.score_tables import ScoreTable
from evals.scores import STATES
from infra.errors import IncomparableBaseline, InvalidConfiguration, InvalidRequest
from score_rows import graded, passes, table

NON_INFERIOR = Gate("correct", "non_inferior", 0.03)
FLOOR = Gate("refused", "floor", 0.99)


def test_judge_that_is_down_is_infrastructure_and_no_pass() -> None:
    """An average of what is left would be perfect."""
    states = ["scored"] * 10 + ["error"] * 290
    found = _one(FLOOR, table(np.ones(300), states=states))
    assert found.verdict is Verdict.INFRASTRUCTURE
    assert found.blocks
    assert "3.3% of 300 cases" in found.reason
    assert found.p_met is None


@pytest.mark.parametrize("state", [state for state in STATES if state != "scored"])
def test_coverage_counts_whatever_has_no_score(state: str) -> None:
    after, before = passes(np.random.default_rng(0), 1_000)
    for missing, verdict in ((20, Verdict.PASS), (21, Verdict.INFRASTRUCTURE)):
        states = ["scored"] * (1_000 - missing) + [state] * missing
        assert _one(NON_INFERIOR, replace(after, states=states), before).verdict is verdict
        assert _one(NON_INFERIOR, after, replace(before, states=states)).verdict is verdict


def test_nothing_scored_at_all_is_infrastructure() -> None:
    found = _one(FLOOR, table([0.0, 0.0], states=["error", "refused"]))
    assert found.verdict is Verdict.INFRASTRUCTURE
    assert (found.planned, found.cases, found.coverage) == (2, 0, 0.0)


def test_value_beside_a_state_is_not_looked_at() -> None:
    after, before = passes(np.random.default_rng(0), 1_000)
    values = np.array(after.values)
    values[:5] = [np.nan, np.inf, -7, 1e300, 0]
    states = ["error"] * 5 + ["scored"] * 995
    found = _one(NON_INFERIOR, replace(after, values=values, states=states), before)
    assert found.verdict is Verdict.PASS
    assert found.cases == 995


def test_empty_slice_is_unscored_and_blocks_where_it_is_protected() -> None:
    rows = table([])
    for protected in (True, False):
        gate = replace(FLOOR, primary=False, protected=protected, slice="Frisian")
        found = _one(gate, rows)
        assert found.verdict is Verdict.UNSCORED
        assert "'Frisian'" in found.reason
        assert found.blocks is protected


def test_safety_claim_of_one_in_a_hundred_needs_299_clean_cases() -> None:
    assert _one(FLOOR, table(np.ones(299))).verdict is Verdict.PASS
    few = _one(FLOOR, table(np.ones(298)))
    assert (few.verdict, few.needed) == (Verdict.UNDERPOWERED, 299)
    assert "299 cases are needed, 298" in few.reason
    spoilt = np.ones(299)
    spoilt[0] = 0
    assert _one(FLOOR, table(spoilt)).verdict is Verdict.INCONCLUSIVE


def test_same_few_cases_twice_prove_nothing() -> None:
    same = table(np.full(60, 0.7))
    found = _one(NON_INFERIOR, same, same)
    assert found.verdict is Verdict.UNDERPOWERED
    assert found.method == "bets"
    assert _one(NON_INFERIOR, table(np.full(400, 0.7)), table(np.full(400, 0.7))).verdict is (
        Verdict.PASS
    )


def test_without_bounds_what_hardly_varies_proves_nothing() -> None:
    gate = Gate("latency_ms", "non_inferior", 50, higher_is_better=False, bounds=None)
    same = table(np.full(500, 120.0))
    found = _one(gate, same, same)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "declare the bounds" in found.reason


def test_lower_is_better_turns_the_gate_around() -> None:
    rng = np.random.default_rng(1)
    before = rng.gamma(9, 100, size=400)
    gate = Gate("latency_ms", "non_inferior", 50, higher_is_better=False, bounds=None)
    slower = _one(gate, table(before + rng.normal(150, 60, size=400)), table(before))
    faster = _one(gate, table(before - rng.normal(150, 60, size=400)), table(before))
    assert (slower.verdict, faster.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert slower.threshold == 50
    assert slower.interval is not None
    assert slower.interval.low > 50
    better = replace(gate, kind="superior", limit=100)
    assert _one(better, table(before - 150), table(before + rng.normal(0, 9, 400))).verdict is (
        Verdict.PASS
    )


def test_ceiling_is_a_floor_upside_down() -> None:
    few = table((np.arange(500) < 3).astype(float))
    assert _one(Gate("toxic", "ceiling", 0.03), few).verdict is Verdict.PASS
    assert _one(Gate("toxic", "ceiling", 0.001), few).verdict is Verdict.FAIL


def test_copies_of_a_question_are_one_case_of_evidence() -> None:
    """Sixty questions asked ten times in other words are sixty, not six hundred."""
    ids = np.repeat(np.arange(60), 10)
    values = (np.arange(60) < 52).astype(float)[ids]
    gate = Gate("correct", "floor", 0.8, expected=0.9)
    naive, honest = _one(gate, table(values)), _one(gate, table(values, clusters=ids))
    assert naive.verdict is Verdict.PASS
    assert honest.verdict is not Verdict.PASS
    assert (honest.cases, honest.clusters) == (600, 60)
    assert honest.design_effect == pytest.approx(10)
    assert honest.needed is not None
    assert naive.needed is not None
    assert honest.needed == pytest.approx(10 * naive.needed, abs=10)


def test_repeats_are_averaged_and_not_counted_as_cases() -> None:
    rng = np.random.default_rng(3)
    names = [f"case-{i:03d}" for i in range(150)]
    once = rng.beta(8, 4, size=150)
    thrice = np.concatenate([once + shift for shift in (-0.01, 0.0, 0.01)])
    before = ScoreTable(names, once - 0.001 * rng.random(150), ["scored"] * 150)
    after = ScoreTable(names * 3, thrice, ["scored"] * 450)
    found = _one(replace(NON_INFERIOR, bounds=(-1, 2)), after, before)
    assert (found.cases, found.repeats, found.planned) == (150, 3, 150)
    states = ["scored"] * 450
    states[:12] = ["error"] * 12  # of 150 cases, 12 lack one of three repeats
    assert _one(
        replace(NON_INFERIOR, bounds=(-1, 2)), replace(after, states=states), before
    ).coverage == pytest.approx(1 - 12 / 450)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dataset": "v2"}, "dataset 'v2'"),
        ({"metric": "answer_match@2"}, "metric 'answer_match@2'"),
        ({"cases": ["other", *(f"case-{i:05d}" for i in range(1, 50))]}, "2 cases .* 'case-00000'"),
    ],
)
def test_baseline_of_something_else_is_refused(change: dict[str, str], told: str) -> None:
    rows = table(np.ones(50))
    with pytest.raises(IncomparableBaseline, match=told):
        _one(NON_INFERIOR, rows, replace(rows, **change))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (table([1.0, np.nan]), "'case-00001' is no number"),
        (table([1.0, 0.0], states=["scored", "good"]), "No state 'good'"),
        (table([1.0, 0.0], states=["scored"]), "shape"),
        (ScoreTable(["a", "a"], [1, 1], ["scored"] * 2, ["q1", "q2"]), "two clusters"),
        (table([1.0, 7.0]), "outside the bounds"),
    ],
)
def test_scores_that_make_no_sense_are_refused(rows: ScoreTable, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        _one(FLOOR, rows)


def test_comparison_without_a_baseline_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="baseline"):
        _one(NON_INFERIOR, table([1.0]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"power": 1.0},
        {"coverage": 1.1},
        {"limit": -0.1},
        {"limit": 0.0},
        {"looks": 0},
        {"bounds": (1.0, 0.0)},
        {"sd": -1.0},
        {"limit": float("nan")},
    ],
)
def test_gate_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidConfiguration, match=next(iter(wrong))):
        replace(NON_INFERIOR, **wrong)


def test_primary_gates_share_their_alpha_by_holm() -> None:
    """Three floors with p of 0.03 each: alone each passes, together none does."""
    rows = table((np.arange(300) < 279).astype(float))
    gate = Gate("correct", "floor", 0.90)
    alone = _one(gate, rows)
    assert alone.verdict is Verdict.PASS
    together = check([Claim(gate, rows)] * 3)
    assert alone.p_met is not None
    assert [d.adjusted_met for d in together] == pytest.approx([3 * alone.p_met] * 3)
    assert {d.verdict for d in together} == {Verdict.INCONCLUSIVE} or alone.p_met < 0.05 / 3


def test_secondary_gates_do_not_weigh_on_primary_ones_and_only_warn() -> None:
    rows, bad = table(np.ones(299)), table(np.zeros(299))
    warns = replace(FLOOR, primary=False, slice="long")
    found = check([Claim(FLOOR, rows), *[Claim(warns, bad)] * 9])
    assert found[0].verdict is Verdict.PASS
    assert {d.verdict for d in found[1:]} == {Verdict.FAIL}
    assert not any(d.blocks for d in found)
    guarded = check([Claim(FLOOR, rows), Claim(replace(warns, protected=True), bad)])
    assert guarded[1].blocks
    assert guarded[0].adjusted_met == pytest.approx(2 * (guarded[0].p_met or 0))


def test_gate_that_could_not_be_judged_still_counts() -> None:
    down = table(np.ones(299), states=["error"] * 299)
    found = check([Claim(FLOOR, table(np.ones(299))), Claim(FLOOR, down)])
    assert found[0].verdict is not Verdict.PASS


def test_looks_divide_alpha() -> None:
    rows = table(np.ones(299))
    assert _one(FLOOR, rows).alpha == 0.05
    twice = _one(replace(FLOOR, looks=2), rows)
    assert (twice.alpha, twice.verdict) == (0.025, Verdict.UNDERPOWERED)
    assert twice.needed == 368


def test_anytime_gate_needs_to_know_what_came_when() -> None:
    gate = replace(FLOOR, anytime=True)
    with pytest.raises(InvalidRequest, match="arrival"):
        _one(gate, table(np.ones(10)))
    found = _one(gate, table(np.ones(900), arrived=np.arange(900)))
    assert (found.method, found.verdict) == ("bets", Verdict.PASS)


def test_cases_are_planned_by_history_first_and_else_by_one_change_in_ten() -> None:
    assert needed_cases(replace(NON_INFERIOR, discordance=0.2)) == 1_374
    assert needed_cases(replace(NON_INFERIOR, discordance=0.1), design=4.0) == 2_748
    passes_or_fails = replace(NON_INFERIOR, is_pass_or_fail=True)
    assert needed_cases(passes_or_fails) == 687
    assert needed_cases(replace(passes_or_fails, discordance=0.2)) == 1_374
    assert needed_cases(NON_INFERIOR) == 99  # nothing is known of its spread: the least there is
    assert needed_cases(Gate("m", "superior", 0.02, expected=0.01, sd=0.3)) is None


def test_what_is_counted_is_what_the_metric_says_and_not_what_was_seen() -> None:
    """Grades that happen to be whole are no passes: others between them may come."""
    rows = table(np.ones(299))
    assert _one(FLOOR, rows).method == "rate"
    assert _one(FLOOR, replace(rows, is_pass_or_fail=False)).method == "bets"
    rng = np.random.default_rng(0)
    after, before = passes(rng, 400)
    assert _one(NON_INFERIOR, after, before).method == "matched pairs"
    grades = (replace(rows, is_pass_or_fail=False) for rows in (after, before))
    assert _one(NON_INFERIOR, *grades).method == "cluster bootstrap"


def test_grade_of_what_passes_or_fails_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"A score is 0\.5, .* 0 or 1"):
        _one(FLOOR, replace(table([1.0, 0.5]), is_pass_or_fail=True))


def test_alpha_of_a_gate_that_warns_is_its_own() -> None:
    rows = table((np.arange(300) < 279).astype(float))  # a p of 0.03
    warns = Gate("correct", "floor", 0.90, primary=False, alpha=0.10)
    found = check([Claim(warns, rows), Claim(replace(warns, alpha=0.01), rows)])
    assert [each.alpha for each in found] == [0.10, 0.01]
    assert [each.verdict for each in found] == [Verdict.PASS, Verdict.INCONCLUSIVE]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_order_of_rows_means_nothing(seed: int, by_cluster: bool, anytime: bool) -> None:
    rng = np.random.default_rng(seed)
    after, before = graded(rng, 30, per_question=3 if by_cluster else 1)
    n = len(np.asarray(after.values))
    states = rng.choice(STATES, p=[0.97, 0.01, 0.01, 0.01], size=n)
    after = replace(after, states=states, arrived=rng.permutation(n))
    gate = replace(NON_INFERIOR, coverage=0.5, anytime=anytime)
    order = rng.permutation(n)
    assert _one(gate, after, before, 99) == _one(
        gate, _in(after, order), _in(before, order[::-1]), 99
    )


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from(["floor", "non_inferior"]))
def test_every_number_of_a_decision_is_sound(seed: int, n: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 0.3, 1.0], size=(2, n))
    gate = Gate("m", kind, 0.1)  # type: ignore[arg-type]
    found = _one(gate, table(values[0]), table(values[1]), 99)
    for p in (found.p_met, found.p_missed, found.adjusted_met, found.adjusted_missed):
        assert p is not None
        assert 0 < p <= 1
    assert found.interval is not None
    assert found.interval.low <= found.interval.estimate <= found.interval.high
    assert (found.verdict is Verdict.PASS) == ((found.adjusted_met or 1) <= found.alpha)
    assert found.blocks == (found.verdict is not Verdict.PASS)


def test_same_scores_and_seed_give_the_same_decision() -> None:
    pair = graded(np.random.default_rng(5), 100)
    claim = Claim(NON_INFERIOR, *pair)
    assert check([claim], seed=1) == check([claim], seed=1)
    assert check([claim], seed=1) != check([claim], seed=2)


def _one(
    gate: Gate, candidate: ScoreTable, baseline: ScoreTable | None = None, resamples: int = 999
) -> Decision:
    return check([Claim(gate, candidate, baseline)], resamples=resamples)[0]


def _in(rows: ScoreTable, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> ScoreTable:
    columns = ("cases", "values", "states", "clusters", "arrived")
    moved = {
        name: np.asarray(column)[order]
        for name in columns
        if (column := getattr(rows, name)) is not None
    }
    return replace(rows, **moved)
