"""Which gates a single case is on the wrong side of; the gate itself allows for some of them."""

from __future__ import annotations

from evals.evaluation import Described
from evals.suite import ALL, Gate
from evals.trial import Trial


def misses(trial: Trial, described: Described) -> list[str]:
    """Return in words each floor or ceiling that one trial does not meet by itself.

    Gates that compare with a baseline say nothing of one case.
    """
    found = []
    for gate in described.suite.gates:
        slices = trial.case.slices if trial.case.original else (ALL, *trial.case.slices)
        if gate.slice not in slices:
            continue
        score = trial.scores.get(gate.metric)
        if score is None or described.metrics[gate.metric].is_of_set:
            continue
        if score.state == "error":
            found.append(f"{gate.metric} has no score: {score.reason}")
        elif score.value is not None and (wanted := _missed(gate, score.value)):
            why = f" ({score.reason})" if score.reason else ""
            found.append(f"{gate.metric} is {score.value:.4g}, {wanted}{why}")
    return list(dict.fromkeys(found))


def _missed(gate: Gate, value: float) -> str:
    if gate.floor is not None and value < gate.floor:
        return f"below {gate.floor:g}"
    if gate.ceiling is not None and value > gate.ceiling:
        return f"above {gate.ceiling:g}"
    return ""
