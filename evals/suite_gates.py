"""The gates of a suite as the statistics want them; refused before a run where they cannot hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evals import declared
from evals.declared import ALPHA, FALSE_DISCOVERIES
from evals.evaluation import MeasuredBy
from evals.planning import FEW_CHANGE, MORE_CHANGE, needed_cases
from evals.statistics.power import design_effect
from evals.suite import ALL, Gate, Suite
from infra.errors import InvalidRequest


def require_sound(suite: Suite, metrics: Mapping[str, MeasuredBy]) -> None:
    """See, before anything is run, that each gate of a suite suits its metric.

    Raises:
        InvalidRequest: a gate asks for what no score can show; names the key, and what it may be.
    """
    for number, gate in enumerate(suite.gates):
        if wrong := _wrong(gate, metrics[gate.metric]):
            field, words = wrong
            raise InvalidRequest(f"Suite {suite.name!r}, gates.{number}.{field}: {words}")


def shortages(
    suite: Suite, metrics: Mapping[str, MeasuredBy], clusters: Mapping[str, Sequence[int]]
) -> list[str]:
    """Say which gates can hardly pass, because there are too few cases, before anything is run.

    Args:
        suite: with the gates.
        metrics: as `Described` has them.
        clusters: how many cases each cluster has, by slice.
    """
    deciding = [
        declare(gate, one, suite, metrics)
        for gate, one in on_slices(suite)
        if gate.action == "block"
    ]
    found = []
    for each in deciding:
        sizes = clusters[each.slice or ALL]
        design = 1.0 if each.correlation is None else design_effect(sizes, each.correlation)
        level = each.level / len(deciding)
        needed, there = needed_cases(each, design=design, alpha=level), sum(sizes)
        if needed is None or there >= needed:
            continue
        words = f"Gate {each.name!r} needs {needed:,} cases"
        bolder = replace(each, discordance=MORE_CHANGE)
        more = needed_cases(bolder, design=design, alpha=level)
        if _is_guess(each) and more is not None and more > needed:
            words += (
                f" if {FEW_CHANGE:.0%} of them change, {more:,} if {MORE_CHANGE:.0%} "
                "(`discordance` says how many do)"
            )
        found.append(f"{words}, and has {there:,}")
    return found


def declare(
    gate: Gate, slice_name: str, suite: Suite, metrics: Mapping[str, MeasuredBy]
) -> declared.Gate:
    """Return a suite's gate on one slice as the statistics want it."""
    by = metrics[gate.metric]
    low, high = by.bounds
    kind: declared.Kind
    if gate.margin is not None:
        kind, limit = ("non_inferior" if gate.margin else "superior"), gate.margin
    elif gate.gain is not None:
        kind, limit = "superior", gate.gain
    elif gate.drop is not None:
        kind, limit = "non_inferior", gate.drop
    elif gate.floor is not None:
        kind, limit = "floor", gate.floor
    else:
        kind, limit = "ceiling", float(gate.ceiling or 0.0)
    decides = gate.action == "block"
    return declared.Gate(
        gate.metric,
        kind,
        limit,
        alpha=gate.alpha or (ALPHA if decides else FALSE_DISCOVERIES),
        power=gate.power,
        primary=decides,
        slice=None if slice_name == ALL else slice_name,
        higher_is_better=by.higher_is_better,
        # A pseudo-value may lie beyond the bounds of the metric itself.
        bounds=None if by.is_of_set or low is None or high is None else (low, high),
        is_pass_or_fail=by.is_pass_or_fail,
        coverage=suite.min_coverage if gate.coverage is None else gate.coverage,
        sd=gate.sd,
        discordance=gate.discordance,
        correlation=gate.correlation,
        expected=gate.expected,
        anytime=gate.anytime,
        looks=gate.looks,
        beside="baseline" if gate.drop is None else "original",
    )


def declared_gates(suite: Suite, metrics: Mapping[str, MeasuredBy]) -> list[declared.Gate]:
    """Return every gate, also of each protected slice, in the order in which they are judged."""
    return [declare(gate, one, suite, metrics) for gate, one in on_slices(suite)]


def on_slices(suite: Suite) -> list[tuple[Gate, str]]:
    """Return each gate with its slice; one on all cases also with every protected slice."""
    protected = [each.name for each in suite.slices if each.protected]
    return [
        (gate, name)
        for gate in suite.gates
        for name in (gate.slice, *(protected if gate.slice == ALL else ()))
    ]


def _is_guess(gate: declared.Gate) -> bool:
    """Whether what is planned by is neither declared nor a bound."""
    is_told = gate.sd is not None or gate.discordance is not None
    return gate.is_pass_or_fail and gate.kind == "non_inferior" and not is_told


def _wrong(gate: Gate, by: MeasuredBy) -> tuple[str, str] | None:
    """Return the key of a gate that cannot be held against its metric, and why not."""
    low, high = by.bounds
    better = by.higher_is_better
    if (gate.floor is not None and not better) or (gate.ceiling is not None and better):
        key, wanted = ("ceiling", "floor") if gate.floor is None else ("floor", "ceiling")
        side = "larger" if better else "smaller"
        return key, f"{gate.metric!r} is better when {side}; give a `{wanted}`"
    if gate.discordance is not None and not by.is_pass_or_fail:
        return "discordance", f"{gate.metric!r} does not pass or fail; give `sd`"
    if gate.anytime and (by.is_of_set or low is None or high is None):
        return "anytime", f"{gate.metric!r} has no least and most for a case, which bets need"
    return _beyond(gate, by)


def _beyond(gate: Gate, by: MeasuredBy) -> tuple[str, str] | None:
    """Return the key and the fault of a limit that every score meets, or none can."""
    low, high = by.bounds
    least = -float("inf") if low is None else low
    most = float("inf") if high is None else high
    fault = f"and {gate.metric!r} is {_within(by)}"
    if gate.floor is not None and not least <= gate.floor < most:
        return "floor", f"it is {gate.floor!r}, {fault}; its mean must be able to be above"
    if gate.ceiling is not None and not least < gate.ceiling <= most:
        return "ceiling", f"it is {gate.ceiling!r}, {fault}; its mean must be able to be below"
    for key, most_lost in (("margin", gate.margin), ("drop", gate.drop)):
        if most_lost is not None and most_lost >= most - least:
            return key, (
                f"it is {most_lost!r}, {fault}: nothing can be worse by so much; "
                f"give less than {most - least:g}"
            )
    if gate.gain is not None and gate.gain >= most - least:
        return "gain", f"it is {gate.gain!r}, {fault}: nothing can be better by so much"
    return None


def _within(by: MeasuredBy) -> str:
    low, high = by.bounds
    if low is None:
        return f"never above {high:g}" if high is not None else "any number"
    return f"never below {low:g}" if high is None else f"between {low:g} and {high:g}"
