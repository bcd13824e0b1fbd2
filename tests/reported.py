"""Evaluations for tests of reports: what a model says is made to break out of them."""

from __future__ import annotations

import random
from typing import Any

from evals.evaluation import Described, Evaluation, MeasuredBy
from evals.metric import open_metric
from evals.scores import Score
from evals.suite import Suite
from evals.trial import Case, Output, Trial
from infra.contracts import Citation, Passage

EVIL = (
    "</style></script><script>window.broken=1</script><img src=x onerror='window.broken=1'>"
    '\x00\x1b[31m\u202e]]> -->|`@all` [a](javascript:alert(1)) & " \U0001f4a5'
)
METRICS = ("contains", "token_f1", "latency", "tokens")
SUITE: dict[str, Any] = {
    "name": "handbook",
    "description": EVIL,
    "dataset": {"file": "cases.jsonl"},
    "target": {"kind": "constant"},
    "metrics": METRICS,
    "slices": [{"name": f"part{number}", "where": {"part": number}} for number in range(4)],
    "gates": [
        {"metric": "contains", "floor": 0.5},
        {"metric": "token_f1", "floor": 0.9},
        {"metric": "latency", "ceiling": 9.0, "action": "warn"},
    ],
}


def evaluation(cases: int, *, failing: float = 0.0, said: str = EVIL, **changes: Any) -> Evaluation:
    """Return a run of `cases`, of which three in four contain what is expected."""
    suite = Suite.model_validate({**SUITE, **changes})
    by = {name: MeasuredBy.of(open_metric(name, {}), name=name, parameters={}) for name in METRICS}
    described = Described(
        suite, suite.digest, f"cases{said}", "sha256:1", {"kind": "constant", "said": said}, by
    )
    chance = random.Random(7)
    return Evaluation(
        described,
        tuple(_trial(number, chance, failing=failing, said=said) for number in range(cases)),
    )


def _trial(number: int, chance: random.Random, *, failing: float, said: str) -> Trial:
    case = Case(
        f"q{number}",
        f"What is {number}? {said}",
        f"It is {number}. {said}",
        cluster=f"q{number}",
        slices=(f"part{number % 4}",),
    )
    if chance.random() < failing:
        none = {name: Score.error("there is no output") for name in METRICS}
        return Trial(case, 0, None, none, f"the target failed: {said}")
    output = Output(
        f"It is so. {said * 40}",
        citations=(Citation("file-1", 1, said, said, 0, 20, said * 20, 0, 8, 0.9),) * 20,
        passages=(Passage(1, "file-1", 1, "c", said, said, 0, 20, said * 20, 0.4),) * 20,
        latency_seconds=chance.expovariate(3),
    )
    scores = {
        "contains": Score.of(float(chance.random() < 0.75), said),
        "token_f1": Score.of(chance.betavariate(4, 2), said),
        "latency": Score.of(output.latency_seconds or 0.0),
        "tokens": Score.of(chance.randrange(100, 900)),
    }
    return Trial(case, 0, output, scores)
