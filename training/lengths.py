"""How long rows are in tokens, how much of them is learned, what is cut, how they pack."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of one source."""

    rows: int
    """In the source, with those that are left out."""
    kept: int
    tokens: int
    """Of the rows that are kept, after they are cut."""
    supervised: int
    """Of those tokens, how many carry a loss."""
    quantiles: dict[str, int]
    """`p50`, `p95`, `p99` and `max` of the rows as they are."""
    longer: int
    """Rows over `max_length`."""
    empty: int
    """Rows in which nothing is learned within `max_length`."""
    median_supervised: float
    """Share of a row's tokens."""
    packs: int
    """Sequences of `max_length` that the kept rows fit in."""

    @property
    def mean(self) -> float:
        return self.tokens / self.kept if self.kept else 0.0


class Measured:
    """Gathers lengths row by row, four bytes for each number."""

    def __init__(self, *, max_length: int, drops_longer: bool) -> None:
        self._max = max_length
        self._drops = drops_longer
        self._whole = array("i")
        self._learned = array("i")
        self._beside = array("i")
        self._learned_beside = array("i")
        self.empty_rows = array("q")
        """Numbers of rows in which nothing is learned."""
        self.longer_rows = array("q")
        self.faulty = 0

    def add(
        self, number: int, length: int, learned: int, *, beside: int = 0, learned_beside: int = 0
    ) -> None:
        """Take a row: its whole length, and the tokens learned within `max_length`.

        Of two sequences, these are the greater length and the fewer learned; `beside` and
        `learned_beside` are what the other has, within `max_length`.
        """
        self._whole.append(length)
        self._learned.append(learned)
        self._beside.append(beside)
        self._learned_beside.append(learned_beside)
        if length > self._max:
            self.longer_rows.append(number)
        elif not learned:
            self.empty_rows.append(number)
        if length > self._max and not learned and not self._drops:
            self.empty_rows.append(number)

    def result(self) -> Lengths:
        """Return what was gathered."""
        whole, learned, beside, learned_beside = (
            np.array(each, np.int32)
            for each in (self._whole, self._learned, self._beside, self._learned_beside)
        )
        kept = learned > 0
        if self._drops:
            kept &= whole <= self._max
        cut = np.minimum(whole[kept], self._max)
        shares = (learned + learned_beside)[kept] / np.maximum(cut + beside[kept], 1)
        return Lengths(
            rows=len(whole) + self.faulty,
            kept=int(kept.sum()),
            tokens=int(cut.sum() + beside[kept].sum()),
            supervised=int(learned[kept].sum() + learned_beside[kept].sum()),
            quantiles=_quantiles(whole),
            longer=len(self.longer_rows),
            empty=len(self.empty_rows),
            median_supervised=float(np.median(shares)) if len(shares) else 0.0,
            packs=packs(cut.tolist(), self._max),
        )


def packs(lengths: Iterable[int], size: int) -> int:
    """Return how many sequences of `size` hold these rows, by best-fit decreasing.

    >>> packs([6, 5, 4, 3, 2], 10)
    2
    """
    room: list[int] = []
    """Of the packs that are not full, sorted."""
    count = 0
    for length in sorted(lengths, reverse=True):
        place = bisect.bisect_left(room, length)
        if place < len(room):
            left = room.pop(place) - length
        else:
            count += 1
            left = size - length
        if left:
            bisect.insort(room, left)
    return count


def _quantiles(whole: np.ndarray) -> dict[str, int]:
    if not len(whole):
        return {}
    found = np.quantile(whole, [0.5, 0.95, 0.99, 1.0], method="higher")
    return {
        name: int(value) for name, value in zip(("p50", "p95", "p99", "max"), found, strict=True)
    }
