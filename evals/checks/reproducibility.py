"""Reproducibility: the same suite, data and target give the same metrics, run again or trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from evals.check import PACKAGE, Finding, Parameters, Subject
from evals.evaluation import Evaluation
from evals.gates import Verdict
from evals.suite import Suite
from infra.errors import InvalidRequest
from infra.plugins import load


class Reproducibility(Parameters):
    """Compares this run with a stored one of the same, or two calls of a function."""

    again: str = ""
    """The other evaluation, such as `evaluation/faq@v3`."""
    call: str = Field(default="", pattern=r"^(\w+(\.\w+)+)?$")
    """The dotted path of a function that is called twice with the suite's seed, such as one that
    trains and evaluates; it returns a number, or numbers by name."""
    metrics: tuple[str, ...] = ()
    """Those that are compared; all but times and costs if none is named."""
    tolerance: float = Field(default=0.0, ge=0)
    """By which two values may differ, whichever is larger."""

    def require(self, suite: Suite) -> None:
        del suite
        if bool(self.again) == bool(self.call):
            raise InvalidRequest("needs either `again`, an evaluation, or `call`, a function")

    def check(self, subject: Subject) -> Finding:
        if self.call:
            function = load(PACKAGE, self.call)
            values = [_numbers(function(subject.suite.seed)) for _ in range(2)]
            return self._compared(values[0], values[1], ())
        other = subject.find_evaluation(self.again)
        differs = _differences(subject.evaluation, other)
        if differs:
            return Finding(
                Verdict.INFRASTRUCTURE,
                f"{self.again} is no run of the same: {', '.join(differs)} differ",
            )
        ours = [trial.output and trial.output.as_dict() for trial in subject.evaluation.trials]
        theirs = [trial.output and trial.output.as_dict() for trial in other.trials]
        same = sum(mine == its for mine, its in zip(ours, theirs, strict=True))
        evidence = (("same outputs", f"{same:,} of {len(ours):,}"),)
        return self._compared(_means(subject.evaluation), _means(other), evidence)

    def _compared(
        self,
        one: Mapping[str, float | None],
        other: Mapping[str, float | None],
        evidence: tuple[tuple[str, str], ...],
    ) -> Finding:
        names = list(self.metrics) or sorted({*one, *other})
        rows, failing = [], []
        for name in names:
            first, second = one.get(name), other.get(name)
            rows.append((name, f"{_shown(first)} and {_shown(second)}"))
            if first is None or second is None:
                failing.append(
                    f"{name}: there is no value in {'both' if first == second else 'one'}"
                )
            elif not abs(first - second) <= self.tolerance:
                failing.append(f"{name}: {_shown(first)} and {_shown(second)} are apart")
        found = (("tolerance", f"{self.tolerance:g}"), *evidence, *rows)
        if failing:
            reason = f"{len(failing)} of {len(names)} values did not come out the same"
            return Finding(Verdict.FAIL, reason, found, tuple(failing))
        if not names:
            return Finding(Verdict.UNSCORED, "there is nothing to compare", found)
        return Finding(Verdict.PASS, f"{len(names)} values came out the same", found)


def _differences(one: Evaluation, other: Evaluation) -> list[str]:
    """Return what is not the same of two runs; what is locked has the same digest."""
    mine, its = one.described, other.described
    pairs = {
        "suite": (mine.suite_digest, its.suite_digest),
        "dataset": (mine.dataset_digest, its.dataset_digest),
        "copies": (mine.copies_digest, its.copies_digest),
        "target": (dict(mine.target), dict(its.target)),
        "metrics": (
            {name: by.identity for name, by in mine.metrics.items()},
            {name: by.identity for name, by in its.metrics.items()},
        ),
    }
    found = [name for name, (ours, theirs) in pairs.items() if ours != theirs]
    if not found and [each.key for each in one.trials] != [each.key for each in other.trials]:
        found.append("trials")
    return found


def _means(evaluation: Evaluation) -> dict[str, float | None]:
    return {
        name: evaluation.mean(name)
        for name, by in evaluation.described.metrics.items()
        if not by.is_measured
    }


def _numbers(said: Any) -> dict[str, float | None]:
    values = said if isinstance(said, Mapping) else {"value": said}
    found: dict[str, float | None] = {}
    for name, value in values.items():
        number = float(value)
        found[str(name)] = number if math.isfinite(number) else None
    return found


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.10g}"


build = Reproducibility.model_validate
