"""What predictions add to the graph's own time is compared where every server keeps up."""

from __future__ import annotations

from pathlib import Path

from benchmarks import inference_clock
from benchmarks.inference_clock import Capacity
from benchmarks.load import Load, Measured
from benchmarks.options import Options

DIRECT_MS = 0.25
TAKES_MS = {"ours": 1.0, "mlserver": 3.0, "nothing": 0.5}


def test_servers_are_asked_at_rates_that_they_keep_up_with(tmp_path: Path) -> None:
    asked: list[tuple[str, float | None]] = []
    ports = {name: number for number, name in enumerate(TAKES_MS, 1)}

    def loading(name: str, rate: float) -> Load:
        return Load(ports[name], "{}", rate=rate)

    def drive(load: Load) -> Measured:
        name = next(name for name, port in ports.items() if port == load.port)
        asked.append((name, load.rate))
        return Measured(seconds=1.0, latencies=[TAKES_MS[name]] * 98 + [TAKES_MS[name] + 1] * 2)

    capacity = Capacity({"ours": 8_000.0, "mlserver": 1_500.0})
    options = Options(tmp_path, repeats=2)
    rows = {
        each.metric: each
        for each in inference_clock.measure(drive, loading, capacity, DIRECT_MS, options)
    }
    every = [500.0, 1_000.0, 2_000.0, 4_000.0] * 2
    assert [rate for name, rate in asked if name == "ours"] == every
    assert [rate for name, rate in asked if name == "nothing"] == every
    assert [rate for name, rate in asked if name == "mlserver"] == [500.0, 1_000.0] * 2
    slow, fast = rows["added by the clock, 1,000/s, p99"], rows["added by the clock, 2,000/s, p99"]
    assert slow.ours is not None
    assert slow.ours.samples == (1.75, 1.75)
    assert slow.peer is not None
    assert slow.peer.samples == (3.75, 3.75)
    assert slow.bar is not None
    assert slow.bar.is_met(slow.ours.median)
    assert (fast.peer, fast.note) == (None, "it does not keep up")
    own = rows["the client's own, half of what 10 clients get (4,000/s), p50"].ours
    assert own is not None
    assert own.samples == (0.5, 0.5)
