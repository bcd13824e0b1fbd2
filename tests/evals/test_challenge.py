"""Challengers by the rules: surely good ones are promoted, surely bad ones rolled back."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from evals.challenge import Decision, Earlier, Observed, Rules, weigh

RULES = Rules(min_requests=100, level=0.95, margin=0.0, agreement=None, max_failures=0.05)


def seen(wrong: float, *, requests: int = 400, seed: int = 0) -> Observed:
    """Return a challenger that is wrong in another share than the version in use, which is 0.2."""
    rng = np.random.default_rng(seed)
    errors = (rng.random(requests) < wrong).astype(float) - (rng.random(requests) < 0.2)
    return Observed([1.0] * requests, errors.tolist(), [0.0] * requests)


@pytest.mark.parametrize(
    ("wrong", "decision"), [(0.05, "promote"), (0.2, "wait"), (0.4, "roll_back")]
)
def test_error_decides(wrong: float, decision: Decision) -> None:
    weighed = weigh(seen(wrong), RULES)
    assert weighed.decision == decision
    assert "error" in weighed.reason


def test_nothing_is_promoted_before_there_are_enough() -> None:
    weighed = weigh(seen(0.0), replace(RULES, min_requests=401))
    assert weighed.decision == "wait"
    assert weighed.reason == "error: 400 requests are known, and min_requests is 401"
    unlabelled = replace(seen(0.0), errors=[])
    assert "error: 0 requests" in weigh(unlabelled, RULES).reason


def test_one_that_need_not_be_better_is_promoted_within_the_margin() -> None:
    same = Observed([1.0] * 400, [0.0] * 400, [0.0] * 400)
    assert weigh(same, RULES).decision == "wait"
    assert weigh(same, replace(RULES, margin=0.05)).decision == "promote"


def test_one_that_has_to_be_better_is_not_rolled_back_for_being_as_good() -> None:
    assert weigh(seen(0.2), replace(RULES, margin=-0.3)).decision == "wait"


def test_failures_roll_back_before_any_label() -> None:
    failing = Observed([], [], [1.0, 0.0] * 20)
    weighed = weigh(failing, RULES)
    assert weighed.decision == "roll_back"
    assert weighed.reason.startswith("failures is 0.5")


@pytest.mark.parametrize("requests", [*range(20, 60, 4), 200])
@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.6])
def test_bound_that_is_told_says_what_the_verdict_says(wrong: float, requests: int) -> None:
    rules = replace(RULES, agreement=0.5, max_failures=0.2)
    observed = seen(wrong, requests=requests, seed=requests)
    agreement = [1.0 - abs(each) for each in observed.errors]
    for each in weigh(replace(observed, agreement=agreement), rules).measures:
        assert each.bound is not None
        assert each.limit is not None
        sign = -1 if each.name == "agreement" else 1
        past = sign * (each.bound - each.limit)
        assert {"holds": past <= 0, "breaks": past >= 0, "unsure": past >= 0}[each.verdict]


def test_words_tell_the_bound_and_the_rule() -> None:
    holds = weigh(seen(0.0), RULES)
    assert re.match(
        r"error is -0\.\d+, surely at most -0\.\d+; the rule is at most 0, and failures is 0, "
        r"surely at most 0\.0\d+; the rule is at most 0\.05$",
        holds.reason,
    )
    apart = Observed([0.0] * 60, [], [])
    breaks = weigh(apart, replace(RULES, margin=None, agreement=0.5))
    assert re.match(r"agreement is 0, surely at most 0\.\d+; the rule is at least", breaks.reason)


def test_rounds_share_the_error_and_each_begins_anew() -> None:
    shares = [Earlier(rounds).share for rounds in range(2_000)]
    assert shares[0] == 0.8
    assert 0.999 < sum(shares) <= 1
    failing = Observed([], [], [1.0, 0.0] * 60, earlier=Earlier(50, 1_000_000))
    weighed = weigh(failing, RULES)
    assert weighed.decision == "roll_back"
    assert weighed.measures[2].requests == 1_000_120
    first, later = (
        weigh(each, RULES).measures[2].interval
        for each in (replace(failing, earlier=Earlier()), failing)
    )
    assert first is not None
    assert later is not None
    assert later.low < first.low
    assert later.level == first.level == RULES.level


def test_round_of_which_nothing_is_known_yet_waits() -> None:
    unlabelled = replace(seen(0.0), errors=[], earlier_labels=Earlier(1, 400))
    assert weigh(unlabelled, RULES).reason == "error: nothing is known of the present round"


def test_agreement_decides_only_where_it_is_asked_for() -> None:
    apart = Observed([0.5] * 400, [], [0.0] * 400)
    unruled = replace(RULES, margin=None)
    assert [each.verdict for each in weigh(apart, unruled).measures] == ["told", "told", "holds"]
    assert weigh(apart, unruled).decision == "wait"
    assert weigh(apart, replace(unruled, agreement=0.4)).decision == "promote"
    assert weigh(apart, replace(unruled, agreement=0.8)).decision == "roll_back"


def test_looking_after_every_request_rolls_back_no_more_often_than_it_says() -> None:
    rolled = 0
    for seed in range(20):
        whole = seen(0.2, requests=120, seed=seed)
        looks = [replace(whole, errors=whole.errors[:count]) for count in range(10, 121, 10)]
        rolled += any(weigh(look, RULES).decision == "roll_back" for look in looks)
    assert rolled <= 3
