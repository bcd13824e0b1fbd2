"""The most frequent of the values that stream by, with a bound on what was missed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Frequent:
    """The most frequent values, counted with a bounded error (Manku and Motwani 2002)."""

    capacity: int
    error: int = 0
    """A count may be too low by at most this; 0 if all are exact."""
    _counts: dict[Any, int] = field(default_factory=dict)

    def add(self, counted: Iterable[tuple[Any, int]], *, error: int = 0) -> None:
        """Take values with their counts, each of which may be too low by `error`."""
        for value, count in counted:
            self._counts[value] = self._counts.get(value, 0) + count
        self.error += error
        if len(self._counts) > 2 * self.capacity:
            self._drop()

    def merge(self, other: Frequent) -> None:
        self.add(other._counts.items(), error=other.error)

    def top(self, limit: int) -> list[tuple[Any, int]]:
        """Return the most frequent first; of equally frequent ones the smaller value."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], _order(item[0])))[:limit]

    def _drop(self) -> None:
        counts = sorted(self._counts.values(), reverse=True)
        least = counts[self.capacity]
        self._counts = {value: count for value, count in self._counts.items() if count > least}
        self.error += least


def _order(value: Any) -> tuple[bool, Any]:
    return (isinstance(value, str), value)
