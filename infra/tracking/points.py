"""Metric points: packed in blocks, read back as they were, thinned without losing extremes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POINT = np.dtype([("step", "<i8"), ("at", "<f8"), ("value", "<f8")])
"""24 bytes; NaN keeps even its bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points of one metric, in the order they were logged; three arrays of equal length."""

    steps: NDArray[np.int64]
    times: NDArray[np.float64]
    """Seconds since 1970."""
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A stretch of neighbouring points, as one."""

    first_step: int
    last_step: int
    at: float
    """When the last of them was logged, in seconds since 1970."""
    count: int
    nan: int
    """How many of them are not a number."""
    low: float
    """The smallest that is a number; NaN if none is."""
    high: float
    last: float


def pack(points: Points) -> bytes:
    """Return the points as bytes, in no particular need of the machine they were made on."""
    packed = np.empty(len(points), POINT)
    packed["step"], packed["at"], packed["value"] = points.steps, points.times, points.values
    return packed.tobytes()


def unpack(blocks: Iterable[bytes]) -> Points:
    """Read what `pack` wrote, block after block."""
    packed = np.frombuffer(b"".join(blocks), POINT)
    return Points(
        packed["step"].astype(np.int64),
        packed["at"].astype(np.float64),
        packed["value"].astype(np.float64),
    )


def downsample(points: Points, buckets: int) -> list[Bucket]:
    """Return at most `buckets` buckets of about equally many points each, by step.

    Every point is in one of them: the smallest `low` is the smallest value of all, the largest
    `high` the largest, the last `last` the value at the highest step.
    """
    if not len(points):
        return []
    order = np.argsort(points.steps, kind="stable")
    steps, times, values = points.steps[order], points.times[order], points.values[order]
    number = max(1, min(buckets, len(points)))
    starts = np.arange(number) * len(points) // number
    ends = np.append(starts[1:], len(points)) - 1
    low = np.fmin.reduceat(values, starts)
    high = np.fmax.reduceat(values, starts)
    nan = np.add.reduceat(np.isnan(values).astype(np.int64), starts)
    return [
        Bucket(*fields)
        for fields in zip(
            steps[starts].tolist(),
            steps[ends].tolist(),
            times[ends].tolist(),
            (ends - starts + 1).tolist(),
            nan.tolist(),
            low.tolist(),
            high.tolist(),
            values[ends].tolist(),
            strict=True,
        )
    ]
