"""Metric points on their way to the database: taken in at once, bounded, handed over in batches."""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from infra.errors import InvalidRequest, TooLarge
from infra.tracking.limits import MAX_SERIES, STEPS, check_key
from infra.tracking.points import Points, pack

CAPACITY = 1_000_000
"""Points; 24 MB."""
ROOM_SECONDS = 1.0
"""How often a caller that waits for room looks whether there is still hope."""
Batch: TypeAlias = Mapping[str, bytes]
"""By metric, its points as `points.pack` writes them."""


class _Column:
    """What came of one metric since the last batch."""

    __slots__ = ("next_step", "steps", "times", "values")

    def __init__(self) -> None:
        self.next_step = 0
        self.clear()

    def clear(self) -> None:
        self.steps, self.times, self.values = array("q"), array("d"), array("d")

    def packed(self) -> bytes:
        return pack(
            Points(
                np.frombuffer(self.steps, np.int64),
                np.frombuffer(self.times, np.float64),
                np.frombuffer(self.values, np.float64),
            )
        )


class Buffer:
    """Points of one run; any thread adds, one thread takes.

    A full buffer makes its callers wait as long as batches are written, and lets points fall, and
    counts them, while the database cannot be reached: a run neither dies nor stands still over it.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._columns: dict[str, _Column] = {}
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._count = 0
        self._is_failing = False
        self._process = os.getpid()
        self._dropped = 0

    @property
    def is_half_full(self) -> bool:
        return 2 * self._count >= self._capacity

    def add(self, metrics: Mapping[str, Any], *, step: int | None, at: float) -> None:
        """Take in one point of each metric.

        Args:
            metrics: a number, or what `float` makes one of, by name.
            step: of all; by default one more than each metric's last.
            at: seconds since 1970.

        Raises:
            InvalidRequest: a name or a value is none; none of the metrics is taken in.
            TooLarge: the run has too many metrics.
        """
        checked = [(self._column(name), _number(name, value)) for name, value in metrics.items()]
        if step is not None:
            step = _step(step)
        with self._lock:
            if self._count >= self._capacity and not self._wait_for_room():
                self._dropped += len(checked)
                return
            for column, value in checked:
                at_step = column.next_step if step is None else step
                column.steps.append(at_step)
                column.times.append(at)
                column.values.append(value)
                column.next_step = min(at_step + 1, STEPS[-1])
            self._count += len(checked)

    def take(self) -> Batch:
        """Return what has come since the last time; it counts until `written` says so."""
        with self._lock:
            taken = [(name, column) for name, column in self._columns.items() if column.steps]
            full = [(name, _moved(column)) for name, column in taken]
        return {name: column.packed() for name, column in full}

    def written(self, points: int) -> None:
        """Make room: so many points are in the database, or are given up."""
        with self._room:
            self._count -= points
            self._is_failing = False
            self._room.notify_all()

    def failed(self) -> None:
        """Say that a batch could not be written; whoever waits for room waits no longer."""
        with self._room:
            self._is_failing = True
            self._room.notify_all()

    def take_dropped(self) -> int:
        """Return how many points fell since the last time."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped

    def continue_at(self, steps: Mapping[str, int]) -> None:
        """Let metrics without a step go on after those that another process logged."""
        for name, step in steps.items():
            self._column(name).next_step = min(step + 1, STEPS[-1])

    def _column(self, name: str) -> _Column:
        if os.getpid() != self._process:
            raise InvalidRequest(
                "This run was started in another process, before a fork; "
                "log from there, or use tracker.join(run.id) here"
            )
        column = self._columns.get(name)
        if column is None:
            check_key(name, what="metric")
            with self._lock:
                if len(self._columns) >= MAX_SERIES:
                    raise TooLarge(
                        f"More than {MAX_SERIES} metrics in one run; {name!r} is refused: "
                        "put what varies into the value or the step"
                    )
                column = self._columns.setdefault(name, _Column())
        return column

    def _wait_for_room(self) -> bool:
        while self._count >= self._capacity and not self._is_failing:
            self._room.wait(ROOM_SECONDS)
        return self._count < self._capacity


def _moved(column: _Column) -> _Column:
    full = _Column()
    full.steps, full.times, full.values = column.steps, column.times, column.values
    column.clear()
    return full


def _number(name: str, value: Any) -> float:
    if isinstance(value, str | bytes | bytearray):
        raise InvalidRequest(f"Metric {name!r} is the text {value[:80]!r}, not a number")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InvalidRequest(
            f"Metric {name!r} is {repr(value)[:80]}, not a number ({error})"
        ) from None


def _step(step: Any) -> int:
    try:
        number = step.__index__()
    except (AttributeError, TypeError):
        raise InvalidRequest(f"Step {step!r} is not a whole number", parameter="step") from None
    if number not in STEPS:
        raise InvalidRequest(f"Step {step!r} does not fit in 64 bits", parameter="step")
    return int(number)
