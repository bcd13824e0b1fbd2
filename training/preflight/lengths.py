"""Rows that are longer than may be, that teach nothing, or that are mostly not learned from."""

from __future__ import annotations

from collections.abc import Iterable

from training.lengths import Lengths
from training.preflight import Check, Derived, Facts, Silent
from training.problems import Problem


class _Lengths(Silent):
    def __init__(self, facts: Facts) -> None:
        self._data = facts.spec.data
        self._positions = facts.base.shape.positions if facts.base else 0

    def problems(self, derived: Derived) -> Iterable[Problem]:
        if self._positions and self._data.max_length > self._positions:
            yield Problem(
                "lengths",
                "data.max_length",
                f"{self._data.max_length} tokens are more than the {self._positions} that "
                "the base was made for",
            )
        for key, found in derived.lengths.items():
            if found.rows:
                yield from self._source(key, found)

    def _source(self, key: str, found: Lengths) -> Iterable[Problem]:
        limits, longest = self._data.limits, found.quantiles.get("max", 0)
        words = (
            f"{found.longer} of {found.rows} rows are longer than max_length, "
            f"{self._data.max_length} tokens; the longest has {longest}"
        )
        share = found.longer / found.rows
        if found.longer and self._data.overflow == "error":
            yield Problem(
                "lengths", key, f"{words}; raise it, or say what becomes of them: overflow"
            )
        if self._data.overflow == "truncate" and share > limits.max_truncated:
            yield Problem(
                "lengths", key, f"{words}; limits.max_truncated is {limits.max_truncated}"
            )
        dropped = found.empty + (found.longer if self._data.overflow == "drop" else 0)
        if dropped / found.rows > limits.max_dropped:
            yield Problem(
                "lengths",
                key,
                f"{dropped} of {found.rows} rows would be left out, {found.empty} because nothing "
                f"in them is learned; limits.max_dropped is {limits.max_dropped}",
            )
        if found.kept and found.median_supervised < limits.min_supervised:
            yield Problem(
                "lengths",
                key,
                f"half of the rows carry a loss on at most {found.median_supervised:.1%} of "
                f"their tokens; limits.min_supervised is {limits.min_supervised:.1%}",
            )


def build(facts: Facts) -> Check:
    return _Lengths(facts)
