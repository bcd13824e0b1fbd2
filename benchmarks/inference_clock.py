"""Classical models asked by the clock: what is added to the graph's own time, at several rates."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environments
from benchmarks.load import Load, Measured, at, sound
from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread
from infra.plugins import require

RATES = (500.0, 1_000.0, 2_000.0)
"""Requests a second that servers of several speeds can be compared at."""
TOGETHER = 10
"""Clients whose requests a second are a server's capacity here. More of them get more answers where
many are made together, for which each waits longer."""
KEEPING_UP = 0.8
"""Of a server's capacity: beyond that it measures how long its queue has grown."""
DIRECT_RUNS = 500
BARS = {"p50": Bar(1.0, at_least=False), "p99": Bar(4.0, at_least=False)}
SHARES = {"p50": 0.5, "p99": 0.99}
OURS, NOTHING = "ours", "nothing"
"""The latter reads a request to its end and answers at once: what is left is the client's own."""

Drive = Callable[[Load], Measured]
"""Has the client do it; shorter where only a slice is measured."""
Loading = Callable[[str, float], Load]
"""Returns what to ask of a server by its name, at a rate."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many requests a second `TOGETHER` clients got of each server."""

    requests: dict[str, float]

    @property
    def half(self) -> float:
        return self.requests[OURS] / 2

    def keeps_up(self, name: str, rate: float) -> bool:
        return rate <= KEEPING_UP * self.requests.get(name, 0.0)


@dataclass(slots=True)
class _Added:
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


def measure(
    drive: Drive, loading: Loading, capacity: Capacity, direct_ms: float, options: Options
) -> list[Row]:
    """Ask every server that keeps up at each rate, in turns; ours at half of its capacity, too."""
    found: dict[tuple[str, float], _Added] = {}
    rates = (*RATES, capacity.half)
    for number in range(options.repeats):
        for rate in rates:
            options.say(f"{rate:,.0f} requests/s, round {number + 1} of {options.repeats}")
            for name in (*capacity.requests, NOTHING):
                if name not in {OURS, NOTHING} and not capacity.keeps_up(name, rate):
                    continue
                done = sound(drive(loading(name, rate)))
                own = 0.0 if name == NOTHING else direct_ms
                added = found.setdefault((name, rate), _Added())
                for what, share in SHARES.items():
                    getattr(added, what).append(at(done.latencies, share) - own)
    return [
        row
        for rate in rates
        for row in _rows(found, capacity, rate, direct_ms=direct_ms, options=options)
    ]


def _rows(
    found: dict[tuple[str, float], _Added],
    capacity: Capacity,
    rate: float,
    *,
    direct_ms: float,
    options: Options,
) -> list[Row]:
    rows = []
    is_half = rate == capacity.half
    at_rate = (
        f"half of what {TOGETHER} clients get ({rate:,.0f}/s)" if is_half else f"{rate:,.0f}/s"
    )
    peers = [name for name in capacity.requests if name != OURS]
    for what in SHARES:
        mine = getattr(found[OURS, rate], what)
        for peer in peers or ["mlserver"]:
            theirs = found.get((peer, rate))
            note = f"the graph takes {direct_ms:.3f} ms"
            if theirs is None:
                note = "it does not keep up" if peers else environments.NOT_INSTALLED
            rows.append(
                Row(
                    f"added by the clock, {at_rate}, {what}",
                    Spread(tuple(mine)),
                    Spread(tuple(getattr(theirs, what))) if theirs else None,
                    peer,
                    "ms",
                    note,
                    bar=None if options.quick else BARS[what],
                )
            )
        client = Spread(tuple(getattr(found[NOTHING, rate], what)))
        rows.append(
            Row(f"the client's own, {at_rate}, {what}", client, unit="ms", note="no server thinks")
        )
    return rows


def direct_ms(graph: Path, row: dict[str, Any]) -> float:
    """Return the median milliseconds of the graph alone, called as the service calls it."""
    library = require("onnxruntime", extra="classical")
    options = library.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = library.InferenceSession(str(graph), options)
    feed = {
        name: np.array([[value]], dtype=object if isinstance(value, str) else np.float32)
        for name, value in row.items()
    }
    taken = []
    for _ in range(DIRECT_RUNS):
        start = time.perf_counter()
        session.run(["probabilities"], feed)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def capacity_of(samples: Mapping[str, Sequence[float]]) -> Capacity:
    """Return what servers can answer, by rounds in which clients asked as fast as they could."""
    return Capacity({name: statistics.median(each) for name, each in samples.items()})
