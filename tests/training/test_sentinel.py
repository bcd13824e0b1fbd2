"""The rules that end a training: each at the step that breaks it, and at no other."""

from __future__ import annotations

import math

import pytest

from training.sentinel import SPIKE_MIN_LOSSES, Aborted, Sentinel
from training.specification.schedule import Abort

EVERY = [1.0, 1.2] * (SPIKE_MIN_LOSSES // 2)
"""Mean 1.1, standard deviation 0.1."""


def fed(rules: Abort, losses: list[float]) -> Sentinel:
    sentinel = Sentinel(rules, clock=lambda: 0.0)
    for step, loss in enumerate(losses, start=1):
        sentinel.look(step, loss=loss, grad_norm=1.0)
    return sentinel


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_ends_it_at_once(value: float) -> None:
    with pytest.raises(Aborted, match="Step 1: the loss is"):
        fed(Abort(), []).look(1, loss=value)
    with pytest.raises(Aborted, match="Step 1: the gradient norm is"):
        fed(Abort(), []).look(1, loss=1.0, grad_norm=value)
    fed(Abort(nonfinite=False, spike_sigmas=None), []).look(1, loss=value)


def test_a_learning_rate_is_blamed_only_once_it_has_moved_something() -> None:
    with pytest.raises(Aborted, match=r"no rate is to blame yet: with DoRA no row .* all 0"):
        fed(Abort(), []).look(1, loss=math.nan)
    with pytest.raises(Aborted, match=r"lower schedule\.learning_rate"):
        fed(Abort(), [1.0]).look(2, loss=math.nan)


def test_a_loss_just_within_so_many_deviations_passes_and_one_beyond_does_not() -> None:
    rules = Abort(spike_sigmas=4)
    fed(rules, EVERY).look(21, loss=1.1 + 0.399)
    with pytest.raises(Aborted, match="Step 21: the loss 1.501 is more than 4 standard"):
        fed(rules, EVERY).look(21, loss=1.1 + 0.401)
    fed(Abort(spike_sigmas=None), EVERY).look(21, loss=100.0)


def test_few_losses_and_falling_ones_are_no_spike() -> None:
    fed(Abort(), EVERY[:-1]).look(20, loss=100.0)
    fed(Abort(), [10.0 * 0.9**step for step in range(200)])


def test_a_ripple_on_a_flat_curve_is_no_spike() -> None:
    sentinel = fed(Abort(spike_sigmas=8), [0.5] * 50)
    sentinel.look(51, loss=0.69)
    with pytest.raises(Aborted, match="Step 52"):
        sentinel.look(52, loss=0.8)


def test_it_ends_after_so_many_hours() -> None:
    moments = iter([0.0, 3599.0, 3601.0])
    sentinel = Sentinel(Abort(max_hours=1), clock=lambda: next(moments))
    sentinel.look(1, loss=1.0)
    with pytest.raises(Aborted, match="Step 2: trained for 1.00 hours"):
        sentinel.look(2, loss=1.0)
