"""What monitoring costs calls of models: the interaction log on and off, and the series alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.gateway import WARM_REQUESTS, Figures, load_of, measure
from benchmarks.gateway_servers import load_client, null_backend, ours
from benchmarks.null_backend import CHUNKS
from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread
from infra.contracts import Usage
from monitoring.metrics import Metrics
from service.callers import Caller
from service.gateway.calls import Call, Outcome
from service.gateway.recording import MetricsRecorder

SECONDS, QUICK_SECONDS = 4.0, 0.5
RECORDED, QUICK_RECORDED = 50_000, 1_000
BATCH = 50
"""Calls between two readings of the clock: short, so that some batches are not interrupted."""
BAR = Bar(0.03, at_least=False)
ON, OFF = "on", "off"


def run(options: Options) -> list[Row]:
    """Measure two servers that differ in the interaction log alone, in turns, each first half."""
    with ExitStack() as stack:
        client = stack.enter_context(load_client(options))
        backend = stack.enter_context(null_backend(options))
        url = f"http://127.0.0.1:{backend.port}"
        servers = {
            name: stack.enter_context(ours(options, url, name=name, interactions=name == ON))
            for name in (ON, OFF)
        }
        for server in servers.values():
            client.drive(load_of(server, requests=WARM_REQUESTS))
        figures = {name: Figures() for name in servers}
        seconds = QUICK_SECONDS if options.quick else SECONDS
        for number in range(options.repeats):
            options.say(f"round {number + 1} of {options.repeats}")
            for name in (ON, OFF) if number % 2 else (OFF, ON):
                measure(client, servers[name], figures[name], seconds=seconds)
    return list(_rows(figures[ON], figures[OFF], options))


def _rows(on: Figures, off: Figures, options: Options) -> Iterator[Row]:
    bar = None if options.quick else BAR
    for what, unit in (("requests", "/s"), ("streams", f"/s of {CHUNKS} chunks")):
        kept, lost = getattr(on, what), getattr(off, what)
        name = f"{what}, interactions kept"
        yield Row(name, Spread(tuple(kept)), Spread(tuple(lost)), "none kept", unit)
        share = tuple(1 - a / b for a, b in zip(kept, lost, strict=True))
        yield Row(f"share of {what} that interactions cost", Spread(share), bar=bar)
    cpu, without = Spread(tuple(on.cpu)), Spread(tuple(off.cpu))
    yield Row("CPU of a request, interactions kept", cpu, without, "none kept", "ms")
    each = _series_microseconds(QUICK_RECORDED if options.quick else RECORDED)
    yield Row("series of a call, alone", Spread((each,)), unit="us", note="median of batches")
    yield Row("share of a request's CPU", Spread((each / cpu.median / 1e3,)), bar=bar)


def _series_microseconds(calls: int) -> float:
    """Return the time that counting one request and one call takes: of the median batch."""
    from prometheus_client import CollectorRegistry

    metrics = Metrics(CollectorRegistry())
    recorder = MetricsRecorder(metrics.gateway)
    caller = Caller(key_id="key_benchmark", name="benchmark")
    call = Call("", caller, "/v1/chat/completions", "model", {}, deadline=0.0)
    usage = Usage(prompt_tokens=500, completion_tokens=100)
    outcome = Outcome(call, 200, usage, upstream="backend", tag="live", started=1.0, ended=1.1)
    batches = []
    for _ in range(calls // BATCH):
        start = time.perf_counter()
        for _ in range(BATCH):
            recorder.record(outcome)
            metrics.count_request("POST", call.path, status=200, seconds=0.1)
        batches.append((time.perf_counter() - start) / BATCH * 1e6)
    return statistics.median(batches)
