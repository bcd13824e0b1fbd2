"""Gates of a suite: what no score can show is refused before anything is asked or paid for."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from evals import declared, suite_gates
from evals.suite import Gate, parse
from evals.trial import Case, Output
from infra.errors import InvalidRequest
from scripted_evals import SUITE, Scripted, make_plan


def never(case: Case, seed: int) -> Output:
    raise AssertionError("nothing may be asked")


def planned(folder: Path, gate: dict[str, Any], *metrics: Any, **changes: Any) -> Any:
    given = [*metrics, *({gate["metric"]} - set(metrics))]
    return make_plan(folder, Scripted(never), metrics=given, gates=[gate], **changes)


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"metric": "injection_success", "ceiling": 5}, "ceiling: it is 5.0.* between 0 and 1"),
        ({"metric": "exact_match", "floor": -1}, "floor: it is -1.0.* between 0 and 1"),
        ({"metric": "exact_match", "floor": 1}, "floor: it is 1.0.* able to be above"),
        ({"metric": "latency", "ceiling": 0}, "ceiling: it is 0.0.* never below 0"),
        ({"metric": "macro_f1", "floor": 65}, "floor: it is 65.0.* between 0 and 1"),
        ({"metric": "r2", "floor": 1.1}, "floor: it is 1.1.* never above 1"),
        ({"metric": "token_f1", "margin": 3}, "margin: it is 3.0.* less than 1"),
        ({"metric": "exact_match", "margin": 1}, "margin: it is 1.0.* less than 1"),
        ({"metric": "token_f1", "gain": 1}, "gain: it is 1.0.* better by so much"),
        ({"metric": "exact_match", "ceiling": 0.5}, "ceiling: .* better when larger"),
        ({"metric": "latency", "floor": 0.5}, "floor: .* better when smaller"),
        ({"metric": "token_f1", "margin": 0.1, "discordance": 0.1}, "discordance: .* give `sd`"),
        ({"metric": "macro_f1", "floor": 0.5, "anytime": True}, "anytime: .* no least and most"),
    ],
)
def test_threshold_that_every_or_no_score_meets_is_refused_before_the_run(
    tmp_path: Path, gate: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"^Suite 'numbers', gates\.0\.{told}[^\n]*$"):
        planned(tmp_path, gate)


@pytest.mark.parametrize(
    "gate",
    [
        {"metric": "exact_match", "floor": 0},
        {"metric": "injection_success", "ceiling": 1},
        {"metric": "token_f1", "margin": 0.99},
        {"metric": "latency", "margin": 60},
        {"metric": "token_f1", "gain": 0.02},
        {"metric": "latency", "ceiling": 60},
        {"metric": "latency", "ceiling": 60, "coverage": 0, "power": 0.999},
    ],
)
def test_threshold_within_the_bounds_is_taken(tmp_path: Path, gate: dict[str, Any]) -> None:
    plan = planned(tmp_path, gate)
    assert suite_gates.declared_gates(plan.suite, plan.described.metrics)


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"discordance": 0.1}, "`discordance` is for a `margin`"),
        ({"discordance": 0.1, "sd": 0.2, "margin": 0.1}, "`discordance` is for a `margin`"),
        ({"anytime": True, "looks": 2}, "`anytime` takes no `looks`"),
        ({"looks": 0}, "gates.0.looks"),
        ({"sd": -1}, "gates.0.sd"),
    ],
)
def test_history_that_makes_no_sense_is_refused(gate: dict[str, Any], told: str) -> None:
    demand = {} if "margin" in gate else {"floor": 0.5}
    content = {**SUITE, "gates": [{"metric": "exact_match", **demand, **gate}]}
    with pytest.raises(InvalidRequest, match=told):
        parse(json.dumps(content))


def test_what_a_suite_says_of_a_gate_reaches_the_statistics(tmp_path: Path) -> None:
    said = {"discordance": 0.2, "correlation": 0.3, "expected": 0.01, "looks": 3, "alpha": 0.02}
    plan = planned(tmp_path, {"metric": "exact_match", "margin": 0.05, **said})
    (gate,) = suite_gates.declared_gates(plan.suite, plan.described.metrics)
    assert {name: getattr(gate, name) for name in said} == said
    assert gate.is_pass_or_fail
    plan = planned(tmp_path, {"metric": "token_f1", "floor": 0.5, "sd": 0.2, "anytime": True})
    (gate,) = suite_gates.declared_gates(plan.suite, plan.described.metrics)
    assert (gate.sd, gate.anytime, gate.is_pass_or_fail) == (0.2, True, False)


def test_nothing_of_a_gate_can_be_said_to_the_statistics_alone() -> None:
    of_metric = {"higher_is_better", "bounds", "is_pass_or_fail"}
    written_otherwise = {"kind", "limit", "primary", "protected", "beside"}
    settable = set(Gate.model_fields)
    assert {each.name for each in fields(declared.Gate)} - of_metric - written_otherwise <= settable


@pytest.mark.parametrize(("given", "alpha"), [({}, 0.10), ({"alpha": 0.01}, 0.01)])
def test_gate_that_warns_has_an_alpha_of_its_own(
    tmp_path: Path, given: dict[str, float], alpha: float
) -> None:
    plan = planned(tmp_path, {"metric": "exact_match", "floor": 0.5, "action": "warn", **given})
    (gate,) = suite_gates.declared_gates(plan.suite, plan.described.metrics)
    assert gate.alpha == alpha


def short(folder: Path, gate: dict[str, Any], clusters: list[int]) -> list[str]:
    plan = planned(folder, gate)
    return suite_gates.shortages(plan.suite, plan.described.metrics, {"all": clusters})


def test_margin_of_three_points_needs_687_cases_or_1374_of_which_more_change(
    tmp_path: Path,
) -> None:
    gate = {"metric": "exact_match", "margin": 0.03}
    (told,) = short(tmp_path, gate, [1] * 200)
    assert "needs 687 cases if 10% of them change, 1,374 if 20%" in told
    assert told.endswith("and has 200")
    assert short(tmp_path, gate, [1] * 687) == []
    (told,) = short(tmp_path, {**gate, "discordance": 0.2}, [1] * 687)
    assert told == "Gate 'exact_match non_inferior' needs 1,374 cases, and has 687"


def test_cases_that_have_something_in_common_count_for_less(tmp_path: Path) -> None:
    gate = {"metric": "exact_match", "margin": 0.03, "correlation": 0.5}
    assert short(tmp_path, gate, [1] * 700) == []
    (told,) = short(tmp_path, gate, [7] * 100)  # a design effect of 4
    assert "needs 2,748 cases" in told
