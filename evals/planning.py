"""Before a run: how many cases a gate needs, so that nobody pays for a run that cannot tell."""

from __future__ import annotations

import math

from evals.declared import Gate
from evals.statistics.power import needed, needed_without_fault

FEW_CHANGE, MORE_CHANGE = 0.10, 0.20
"""Shares of passes and failures that change between two versions alike; where a gate declares none
from its history, cases are planned by the first."""


def needed_cases(
    gate: Gate, *, sd: float | None = None, design: float = 1.0, alpha: float | None = None
) -> int | None:
    """Return how many cases give the gate its power.

    Never fewer than those that would show the threshold if no case was at fault.

    Args:
        gate: what it declares of its history (`sd`, `discordance`, `expected`) comes first.
        sd: the standard deviation seen, where the gate declares none. If nothing was seen either,
            one in ten is thought to change where cases pass or fail beside a baseline.
        design: the design effect of clusters.
        alpha: in place of the gate's, where it shares it with other gates.

    Returns:
        None where there is neither a spread nor a bound to reckon with, or where what is expected
        does not meet the threshold, so that no number of cases is enough.
    """
    level = alpha if alpha is not None else gate.level
    fewest, room = None, _room(gate)
    if room is not None and not gate.anytime:
        fewest = needed_without_fault(rate=room, alpha=level)
    spread, distance = _spread(gate, sd), _distance(gate)
    if distance is None or spread is None:
        return fewest
    if distance <= 0:
        return None
    count = needed(distance=distance, sd=spread, alpha=level, power=gate.power, design=design)
    return max(count, fewest or 0)


def _room(gate: Gate) -> float | None:
    """Return the share of cases at worst fault that brings a faultless mean to the threshold."""
    if gate.bounds is None or gate.kind == "superior":
        return None
    low, high = gate.bounds
    if gate.kind == "non_inferior":
        return gate.limit / (high - low)
    left = high - gate.limit if gate.kind == "floor" else gate.limit - low
    return left / (high - low) if left > 0 else None


def _spread(gate: Gate, sd: float | None) -> float | None:
    if gate.sd is not None:
        return gate.sd
    if gate.discordance is not None:
        return math.sqrt(gate.discordance)
    if sd is None and gate.is_pass_or_fail and gate.kind == "non_inferior":
        return math.sqrt(FEW_CHANGE)
    return sd


def _distance(gate: Gate) -> float | None:
    expected = gate.expected
    if expected is None:
        if gate.kind != "non_inferior":
            return None
        expected = 0.0
    return expected - gate.threshold if gate.upwards else gate.threshold - expected
