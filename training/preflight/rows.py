"""Rows that cannot be read as what the method learns from, and sources without any."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from training.preflight import Batch, Check, Derived, Facts
from training.problems import SHOWN_ROWS, Problem, at_rows


class _Rows:
    def __init__(self, facts: Facts) -> None:
        self._limit = facts.spec.data.limits.max_invalid
        self._sources = ["data.train"]
        if facts.spec.data.eval is not None:
            self._sources.append("data.eval")
        self._sources += [f"data.replay.{n}" for n, _ in enumerate(facts.spec.data.replay)]
        self._seen: Counter[str] = Counter()
        self._faulty: Counter[str] = Counter()
        self._faults: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._counts: Counter[tuple[str, str]] = Counter()

    def take(self, batch: Batch) -> None:
        self._seen[batch.key] += len(batch.rows) + len(batch.faults)
        self._faulty[batch.key] += len(batch.faults)
        for number, why in batch.faults:
            rows = self._faults[batch.key, why]
            self._counts[batch.key, why] += 1
            if len(rows) <= SHOWN_ROWS:
                rows.append(number)

    def problems(self, derived: Derived) -> Iterable[Problem]:
        for key in self._sources:
            if key in derived.lengths and not self._seen[key]:
                yield Problem("rows", key, "there are no rows in it")
        for (key, why), rows in self._faults.items():
            # A broken row of eval would shift what is measured, so that none is left out there.
            if self._faulty[key] > self._limit * self._seen[key] or key == "data.eval":
                total = self._counts[key, why]
                yield Problem("rows", at_rows(key, rows, total=total), why)


def build(facts: Facts) -> Check:
    return _Rows(facts)
