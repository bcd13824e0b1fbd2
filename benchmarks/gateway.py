"""What the gateway costs: beside no gateway and LiteLLM, before a server that thinks nothing."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from benchmarks import environments, processes
from benchmarks.gateway_servers import (
    MODEL,
    Client,
    Server,
    litellm,
    load_client,
    null_backend,
    ours,
)
from benchmarks.load import Load, at, sound
from benchmarks.null_backend import CHUNKS
from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread

CLIENTS = 8
MODEL_CLIENTS = 16
SECONDS = 5.0
QUICK_SECONDS = 0.5
SOAK_REQUESTS = 200_000
QUICK_SOAK_REQUESTS = 500
SOAK_PARTS = 20
WARM_REQUESTS = 400
PEER = "litellm"

REQUESTS_BAR = Bar(20, at_least=True)
STREAMS_BAR = Bar(50, at_least=True)
P50_BAR = Bar(1.5, at_least=False)
P99_BAR = Bar(8.0, at_least=False)
MEMORY_BAR = Bar(200, at_least=False)
SHARE_BAR = Bar(0.97, at_least=True)


@dataclass(slots=True)
class Figures:
    """Of one server, a sample for each round."""

    requests: list[float] = field(default_factory=list)
    """A second."""
    streams: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Milliseconds for a request."""


def run(options: Options) -> list[Row]:
    """Measure ours, LiteLLM's and none, in turn, round by round."""
    with ExitStack() as stack:
        client = stack.enter_context(load_client(options))
        if options.url is not None:
            return _beside_direct(options, client)
        backend = stack.enter_context(null_backend(options))
        url = f"http://127.0.0.1:{backend.port}"
        servers = {"direct": backend, "ours": stack.enter_context(ours(options, url))}
        if options.peers and (python := processes.find(PEER, options)):
            servers[PEER] = stack.enter_context(litellm(options, python, url))
        figures = {name: Figures() for name in servers}
        for server in servers.values():
            client.drive(load_of(server, requests=WARM_REQUESTS))
        seconds = QUICK_SECONDS if options.quick else SECONDS
        for number in range(options.repeats):
            for name, server in servers.items():
                options.say(f"round {number + 1} of {options.repeats}: {name}")
                measure(client, server, figures[name], seconds=seconds)
        rows = _throughput(figures, options)
        rows += _latency(client, servers, figures, options)
        rows += _soak(client, servers, options)
        return rows


def measure(client: Client, server: Server, figures: Figures, *, seconds: float) -> None:
    """Add a round's requests and streams of a server to its figures."""
    before = server.cpu_seconds()
    done = sound(client.drive(load_of(server, seconds=seconds)))
    figures.requests.append(len(done.latencies) / done.seconds)
    figures.cpu.append((server.cpu_seconds() - before) / len(done.latencies) * 1e3)
    done = sound(client.drive(load_of(server, stream=True, seconds=seconds)))
    figures.streams.append(len(done.latencies) / done.seconds)


def _throughput(figures: dict[str, Figures], options: Options) -> list[Row]:
    mine, direct, peer = figures["ours"], figures["direct"], figures.get(PEER)
    note = "" if peer else environments.NOT_INSTALLED
    rows = []
    for what, bar in (("requests", REQUESTS_BAR), ("streams", STREAMS_BAR)):
        samples: list[float] = getattr(mine, what)
        theirs: list[float] = getattr(peer, what) if peer else []
        unit = "/s" if what == "requests" else f"/s of {CHUNKS} chunks"
        other = Spread(tuple(theirs)) if theirs else None
        rows.append(Row(f"{what}, {CLIENTS} clients", _spread(samples), other, PEER, unit, note))
        rows.append(
            Row(
                f"{what} over LiteLLM's",
                _spread([a / b for a, b in zip(samples, theirs, strict=True)]) if theirs else None,
                unit="x",
                note=note,
                bar=None if options.quick else bar,
            )
        )
        rows.append(Row(f"{what}, no gateway", _spread(getattr(direct, what)), unit=unit))
    other = _spread(peer.cpu) if peer else None
    rows.append(Row("CPU of a request", _spread(mine.cpu), other, PEER, "ms", note))
    return rows


def _latency(
    client: Client, servers: dict[str, Server], figures: dict[str, Figures], options: Options
) -> list[Row]:
    """Ask at half of what we can answer, by the clock, with and without the gateway between."""
    rates = {
        False: statistics.median(figures["ours"].requests) / 2,
        True: statistics.median(figures["ours"].streams) / 2,
    }
    added: dict[str, list[float]] = {"p50": [], "p99": [], "first": []}
    for number in range(options.repeats):
        options.say(f"half load, round {number + 1} of {options.repeats}")
        seconds = QUICK_SECONDS if options.quick else SECONDS
        through, past = (
            sound(client.drive(load_of(servers[name], rate=rates[False], seconds=seconds)))
            for name in ("ours", "direct")
        )
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            added[name].append(at(through.latencies, share) - at(past.latencies, share))
        through, past = (
            sound(
                client.drive(load_of(servers[name], stream=True, rate=rates[True], seconds=seconds))
            )
            for name in ("ours", "direct")
        )
        added["first"].append(at(through.first_bytes, 0.5) - at(past.first_bytes, 0.5))
    note = f"{rates[False]:,.0f} requests/s, {rates[True]:,.0f} streams/s"
    p50, p99 = (None, None) if options.quick else (P50_BAR, P99_BAR)
    return [
        Row("added at half load, p50", _spread(added["p50"]), unit="ms", note=note, bar=p50),
        Row("added at half load, p99", _spread(added["p99"]), unit="ms", note=note, bar=p99),
        Row("added to the first chunk, p50", _spread(added["first"]), unit="ms", note=note),
    ]


def _soak(client: Client, servers: dict[str, Server], options: Options) -> list[Row]:
    """Ask many times, a third of them streams, and watch the memory."""
    total = options.requests or (QUICK_SOAK_REQUESTS if options.quick else SOAK_REQUESTS)
    server = servers["ours"]
    counts, sizes = [], []
    for part in range(SOAK_PARTS):
        options.say(f"soak: {part * total // SOAK_PARTS:,} of {total:,}")
        each = total // SOAK_PARTS
        sound(client.drive(load_of(server, requests=each - each // 3)))
        sound(client.drive(load_of(server, stream=True, requests=each // 3)))
        counts.append((part + 1) * each / 1e5)
        sizes.append(server.resident_mb())
    slope, half = _slope(counts[SOAK_PARTS // 4 :], sizes[SOAK_PARTS // 4 :])
    peer = servers.get(PEER)
    theirs = Spread((peer.resident_mb(),)) if peer else None
    flat = "flat" if slope - half <= 0 <= slope + half else "not flat"
    return [
        Row(
            f"memory after {total:,} requests",
            Spread((sizes[-1],)),
            theirs,
            PEER,
            "MB",
            note="LiteLLM's after its rounds above" if peer else environments.NOT_INSTALLED,
            bar=None if options.quick else MEMORY_BAR,
        ),
        Row(
            "growth of memory",
            Spread((slope,)),
            unit="MB per 100,000 requests",
            note=f"95 % interval {slope - half:.3g}..{slope + half:.3g}: {flat}",
        ),
    ]


def _beside_direct(options: Options, client: Client) -> list[Row]:
    """Measure a real model server through the gateway and without it."""
    url, model = options.url or "", options.model or ""
    with ours(options, url, model=model) as server:
        port = int(url.rstrip("/").rsplit(":", 1)[1])
        through: list[float] = []
        past: list[float] = []
        for number in range(options.repeats):
            options.say(f"round {number + 1} of {options.repeats}")
            direct = _streams(port, model)
            mine = replace(_streams(server.port, MODEL), headers=server.headers)
            for load, samples in ((direct, past), (mine, through)):
                seconds = QUICK_SECONDS if options.quick else 6 * SECONDS
                done = sound(client.drive(replace(load, seconds=seconds)))
                samples.append(len(done.latencies) / done.seconds)
    share = [a / b for a, b in zip(through, past, strict=True)]
    unit = f"/s of {CHUNKS} tokens"
    return [
        Row(f"streams, {MODEL_CLIENTS} clients", _spread(through), _spread(past), "direct", unit),
        Row("share of direct", _spread(share), bar=None if options.quick else SHARE_BAR),
    ]


def _streams(port: int, model: str) -> Load:
    # A model may end before it has written all that it may, but not without a word.
    return Load(port, _body(stream=True, model=model), clients=MODEL_CLIENTS, events=1)


def load_of(
    server: Server,
    *,
    stream: bool = False,
    rate: float | None = None,
    seconds: float = SECONDS,
    requests: int | None = None,
) -> Load:
    """Return a chat of the null model, asked by `CLIENTS` or at a rate."""
    return Load(
        server.port,
        _body(stream=stream),
        server.headers,
        clients=CLIENTS,
        rate=rate,
        seconds=seconds,
        requests=requests,
        events=CHUNKS if stream else None,
    )


def _body(*, stream: bool, model: str = MODEL, tokens: int = CHUNKS) -> str:
    content = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You answer from what you are given. " * 4},
            {"role": "user", "content": "What does the Tower of London stand on?"},
        ],
        "max_tokens": tokens,
        "temperature": 0.7,
    }
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return json.dumps({**content, **more})


def _spread(samples: Sequence[float]) -> Spread:
    return Spread(tuple(samples))


def _slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return the slope of the line through the points, and half of its 95 % interval."""
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((each - mean_x) ** 2 for each in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True)) / (
        len(x) - 2
    )
    return slope, STUDENT * math.sqrt(rest / spread)


STUDENT = 2.16
"""Student's t at 97.5 % for the 13 degrees of freedom of 15 points."""
