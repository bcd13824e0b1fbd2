"""Verdicts: gates of a suite over what a run scored, alone and beside a baseline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals import comparison, suite_gates, verdicts
from evals.check import Finding
from evals.evaluation import Evaluation
from evals.gates import Verdict
from evals.trial import Case, Output
from infra.errors import EngineFailed, IncomparableBaseline
from scripted_evals import Scripted, carry_out, make_plan, right, write_rows

NUMBER = 300
ROWS = [
    {"id": f"q{n}", "question": f"What is {n}?", "answer": f"It is {n}.", "half": n % 2}
    for n in range(NUMBER)
]
ODD = {"name": "odd", "where": {"half": 1}, "protected": True}


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., Evaluation]:
    write_rows(tmp_path, ROWS)

    def run(wrong: int = 0, *, only_odd: bool = False, **changes: Any) -> Evaluation:
        """Have the first cases, or the first odd ones, answered wrongly."""

        def reply(case: Case, seed: int) -> Output:
            number = int(case.id[1:])
            is_wrong = number < wrong and (not only_odd or number % 2)
            return Output("No." if is_wrong else str(case.expected))

        return carry_out(make_plan(tmp_path, Scripted(reply), **changes), tmp_path)

    return run


def test_suite_without_gates_decides_nothing(evaluate: Any) -> None:
    judged = verdicts.judge(evaluate())
    assert (judged.verdict, judged.exit_code) == ("ungated", 0)


def test_suite_that_only_warns_promises_nothing(evaluate: Any) -> None:
    gates = [{"metric": "exact_match", "floor": 0.5, "action": "warn"}]
    warns, blocks = (Finding(Verdict.PASS, "fine", decides=each) for each in (False, True))
    judged = verdicts.judge(evaluate(gates=gates), findings=[warns])
    assert judged.decisions[0].verdict is Verdict.PASS
    assert (judged.verdict, judged.exit_code) == ("ungated", 0)
    assert verdicts.judge(evaluate(gates=gates), findings=[warns, blocks]).verdict == "pass"


@pytest.mark.parametrize(
    ("wrong", "verdict", "code"),
    [(0, "pass", 0), (15, "inconclusive", 2), (28, "inconclusive", 2), (80, "fail", 1)],
)
def test_floor_is_held_against_what_is_sure(
    evaluate: Any, wrong: int, verdict: str, code: int
) -> None:
    judged = verdicts.judge(evaluate(wrong, gates=[{"metric": "exact_match", "floor": 0.93}]))
    assert judged.decisions[0].interval is not None
    assert judged.decisions[0].interval.estimate == pytest.approx(1 - wrong / NUMBER)
    assert (judged.verdict, judged.exit_code) == (verdict, code)


def test_too_few_cases_are_said_before_the_run_and_after(tmp_path: Path) -> None:
    plan = make_plan(
        tmp_path,
        Scripted(right),
        gates=[{"metric": "exact_match", "floor": 0.95}],
    )
    clusters = {"all": [1] * len(plan.cases.cases)}
    said = suite_gates.shortages(plan.suite, plan.described.metrics, clusters)
    assert said == ["Gate 'exact_match floor' needs 59 cases, and has 12"]
    judged = verdicts.judge(carry_out(plan, tmp_path))
    assert (judged.verdict, judged.exit_code) == ("underpowered", 2)


def test_candidate_is_compared_with_the_baseline_case_by_case(evaluate: Any) -> None:
    gates = [{"metric": "exact_match", "margin": 0.05}]
    baseline = evaluate(3, gates=gates)
    for wrong, verdict in ((3, "pass"), (4, "pass"), (60, "fail")):
        judged = verdicts.judge(evaluate(wrong, gates=gates), baseline, name="evaluation/n@v1")
        assert judged.verdict == verdict
    assert judged.baseline == "evaluation/n@v1"


def test_protected_slice_must_hold_what_all_cases_must(evaluate: Any) -> None:
    gates = [{"metric": "exact_match", "margin": 0.1}]
    baseline = evaluate(gates=gates, slices=[ODD])
    candidate = evaluate(60, only_odd=True, gates=gates, slices=[ODD])
    judged = verdicts.judge(candidate, baseline)
    assert [(each.gate.slice, each.verdict.value) for each in judged.decisions] == [
        (None, "inconclusive"),
        ("odd", "fail"),
    ]
    assert judged.verdict == "fail"


def test_without_a_baseline_a_margin_is_not_a_pass(evaluate: Any) -> None:
    judged = verdicts.judge(evaluate(gates=[{"metric": "exact_match", "margin": 0.05}]))
    assert (judged.verdict, judged.exit_code) == ("inconclusive", 2)
    assert judged.unjudged == ("exact_match non_inferior",)


def test_gate_that_warns_does_not_decide(evaluate: Any) -> None:
    gates = [
        {"metric": "exact_match", "floor": 0.99, "action": "warn"},
        {"metric": "exact_match", "floor": 0.3},
    ]
    judged = verdicts.judge(evaluate(60, gates=gates))
    assert judged.decisions[0].verdict.value == "fail"
    assert judged.verdict == "pass"


def test_gate_may_be_read_at_any_time_in_the_order_of_the_dataset(evaluate: Any) -> None:
    gates = [{"metric": "exact_match", "floor": 0.8, "anytime": True}]
    judged = verdicts.judge(evaluate(0, gates=gates))
    assert (judged.decisions[0].method, judged.verdict) == ("bets", "pass")
    # Had it been read before the first 60 cases were spoilt, it would have been sure of less.
    spoilt = verdicts.judge(evaluate(60, gates=gates))
    assert spoilt.decisions[0].p_met is not None
    assert judged.decisions[0].p_met is not None
    assert spoilt.decisions[0].p_met > judged.decisions[0].p_met


def test_metric_of_the_set_that_raises_costs_its_score_and_no_more(evaluate: Any) -> None:
    metrics = ["scripted_evals.broken_set", "exact_match"]
    for how in ("raises", "nan", "number", "beyond", "predicate"):
        broken = {"metric": metrics[0], "with": {"how": how}}
        gates = [{"metric": "broken_set", "floor": 0.5}]
        done = evaluate(metrics=[broken, "exact_match"], gates=gates)
        judged = verdicts.judge(done)
        assert (judged.verdict, judged.exit_code) == ("infrastructure", 3)
        assert done.mean("exact_match") == 1.0
        rows = {row["metric"]: row for row in done.summary(measured=False)}
        assert (rows["broken_set"]["mean"], rows["broken_set"]["error"]) == (None, NUMBER)


def test_metric_that_fails_on_more_than_the_set_share_is_no_pass(evaluate: Any) -> None:
    broken = {"metric": "scripted_evals.broken", "with": {"how": "nan"}}
    gates = [{"metric": "broken", "floor": 0.5}]
    judged = verdicts.judge(evaluate(metrics=[broken, "exact_match"], gates=gates))
    assert (judged.verdict, judged.exit_code) == ("infrastructure", 3)


def test_target_that_is_down_is_neither_pass_nor_fail(tmp_path: Path) -> None:
    def down(case: Case, seed: int) -> Output:
        raise EngineFailed("connection refused")

    gates = [{"metric": "latency", "ceiling": 60}]
    for chosen in ([], gates):
        plan = make_plan(tmp_path, Scripted(down), retries=0, gates=chosen)
        judged = verdicts.judge(carry_out(plan, tmp_path))
        assert (judged.verdict, judged.exit_code) == ("infrastructure", 3)


def test_baseline_of_other_cases_or_another_metric_is_refused(
    evaluate: Any, tmp_path: Path
) -> None:
    gates = [{"metric": "exact_match", "margin": 0.05}]
    candidate = evaluate(gates=gates)
    others = [evaluate(metrics=["token_f1"])]
    others.append(
        evaluate(metrics=[{"metric": "exact_match", "with": {"normalise": "none"}}], gates=gates)
    )
    write_rows(tmp_path, [{**row, "answer": "Another."} for row in ROWS])
    others.append(evaluate(gates=gates))
    for other in others:
        with pytest.raises(IncomparableBaseline):
            verdicts.judge(candidate, other)


def test_same_scores_give_the_same_judgement(evaluate: Any) -> None:
    gates = [{"metric": "token_f1", "margin": 0.05}]
    changes: dict[str, Any] = {"metrics": ["token_f1"], "gates": gates}
    pairs = [(evaluate(5, **changes), evaluate(9, **changes)) for _ in range(2)]
    first, second = (verdicts.judge(after, before).as_dict() for before, after in pairs)
    assert first == second


def test_comparison_says_what_changed_worst_first(evaluate: Any) -> None:
    before, after = evaluate(2, slices=[ODD]), evaluate(40, slices=[ODD])
    rows = {(row.metric, row.slice): row for row in comparison.compare(before, after)}
    row = rows["exact_match", "all"]
    assert (row.before, row.after) == pytest.approx((1 - 2 / NUMBER, 1 - 40 / NUMBER))
    assert row.difference == pytest.approx(-38 / NUMBER)
    assert row.low is not None
    assert row.high is not None
    assert row.low < row.difference < row.high < 0
    assert row.p is not None
    assert row.p < 0.01
    assert rows["exact_match", "odd"].cases == NUMBER // 2
    changed = comparison.changes(before, after)
    assert {change.case for change in changed} == {f"q{n}" for n in range(2, 40)}
    assert {(change.before, change.after) for change in changed} == {(1.0, 0.0)}
