"""Rows that say the same as an earlier one of their source."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from training.preflight import Batch, Check, Derived, Facts
from training.problems import SHOWN_ROWS, Problem, at_rows


class _Duplicates:
    def __init__(self, facts: Facts) -> None:
        self._limit = facts.spec.data.limits.max_duplicates
        self._seen: defaultdict[str, set[bytes]] = defaultdict(set)
        self._rows: Counter[str] = Counter()
        self._again: Counter[str] = Counter()
        self._shown: defaultdict[str, list[int]] = defaultdict(list)

    def take(self, batch: Batch) -> None:
        seen = self._seen[batch.key]
        self._rows[batch.key] += len(batch.rows)
        for row in batch.rows:
            if row.said_digest in seen:
                self._again[batch.key] += 1
                if len(self._shown[batch.key]) <= SHOWN_ROWS:
                    self._shown[batch.key].append(row.number)
            seen.add(row.said_digest)

    def problems(self, _: Derived) -> Iterable[Problem]:
        for key, count in self._again.items():
            share = count / self._rows[key]
            if share > self._limit:
                yield Problem(
                    "duplicates",
                    at_rows(key, self._shown[key], total=count),
                    f"the same as earlier rows, {share:.1%} of all; limits.max_duplicates is "
                    f"{self._limit:.1%}",
                )


def build(facts: Facts) -> Check:
    return _Duplicates(facts)
