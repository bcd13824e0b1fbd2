"""Whether time and money that a run is estimated to take are within its budget."""

from __future__ import annotations

from collections.abc import Iterable

from training.preflight import Check, Derived, Facts, Silent
from training.problems import Problem

CHECK = "budget"


class _Budget(Silent):
    def __init__(self, facts: Facts) -> None:
        self._budget = facts.spec.runtime.budget
        self._abort = facts.spec.schedule.abort.max_hours

    def problems(self, derived: Derived) -> Iterable[Problem]:
        budget = self._budget
        if budget.max_cost is not None and budget.price_per_device_hour is None:
            yield Problem(
                CHECK, "runtime.budget.price_per_device_hour", "missing; max_cost needs it"
            )
        limits = {
            "runtime.budget.max_hours": budget.max_hours,
            "schedule.abort.max_hours": self._abort,
        }
        for key, limit in limits.items():
            if limit is not None and derived.hours is not None and derived.hours > limit:
                yield Problem(
                    CHECK,
                    key,
                    f"the run is estimated to take {derived.hours:.1f} hours, not {limit}",
                )
        if budget.max_cost is not None and (derived.cost or 0.0) > budget.max_cost:
            yield Problem(
                CHECK,
                "runtime.budget.max_cost",
                f"the run is estimated to cost {derived.cost:.2f}, not {budget.max_cost:.2f}",
            )


def build(facts: Facts) -> Check:
    return _Budget(facts)
