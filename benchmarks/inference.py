"""Classical models: requests a second, waiting and memory, beside MLServer and BentoML."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environments, inference_model, processes
from benchmarks.gateway_servers import Client, Server, load_client
from benchmarks.inference_servers import NAME, bentoml, mlserver, ours
from benchmarks.load import Load, at, sound
from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread
from infra.plugins import require

CLIENTS = (1, 10, 100)
CONNECTIONS = 50
SECONDS = 4.0
QUICK_SECONDS = 0.3
WARM_REQUESTS = 300
DIRECT_RUNS = 500
BARS: dict[str, Bar] = {
    "over MLServer": Bar(5, at_least=True),
    "p50": Bar(1.0, at_least=False),
    "p99": Bar(4.0, at_least=False),
}
Start = Callable[[Options, Path], AbstractContextManager[Server]]
PEERS: dict[str, Start] = {"mlserver": mlserver, "bentoml": bentoml}
V2 = f"/v2/models/{NAME}/infer"


@dataclass(slots=True)
class _Figures:
    """Of one server and number of clients, a sample for each round."""

    requests: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


def run(options: Options) -> list[Row]:
    """Ask one row at a time, of all servers in turn, round by round."""
    row = inference_model.row()
    with ExitStack() as stack:
        client = stack.enter_context(load_client(options))
        servers = {"ours": stack.enter_context(ours(options))}
        for name, start in PEERS.items():
            if options.peers and (python := processes.find(name, options)):
                servers[name] = stack.enter_context(start(options, python))
        figures: dict[tuple[str, int], _Figures] = {}
        for name, server in servers.items():
            client.drive(_load(server, name, row, requests=WARM_REQUESTS))
        for number in range(options.repeats):
            for name, server in servers.items():
                options.say(f"round {number + 1} of {options.repeats}: {name}")
                for clients in CLIENTS:
                    found = figures.setdefault((name, clients), _Figures())
                    _measure(client, _load(server, name, row, clients=clients), found, options)
        rows = _throughput(figures, servers, options)
        rows += _overhead(client, servers["ours"], row, figures, options)
        rows.append(_memory(servers))
        return rows


def _measure(client: Client, load: Load, figures: _Figures, options: Options) -> None:
    done = sound(client.drive(load if not options.quick else _shorter(load)))
    figures.requests.append(len(done.latencies) / done.seconds)
    figures.p50.append(at(done.latencies, 0.5))
    figures.p99.append(at(done.latencies, 0.99))


def _throughput(
    figures: dict[tuple[str, int], _Figures], servers: dict[str, Server], options: Options
) -> list[Row]:
    rows = []
    for clients in CLIENTS:
        mine = figures["ours", clients]
        for peer in PEERS:
            theirs = figures.get((peer, clients))
            note = "" if peer in servers else environments.NOT_INSTALLED
            for what, unit in (("requests", "/s"), ("p50", "ms"), ("p99", "ms")):
                other = _spread(getattr(theirs, what)) if theirs else None
                own = _spread(getattr(mine, what))
                rows.append(Row(f"{what}, {clients} clients", own, other, peer, unit, note))
    mine, theirs = figures["ours", CLIENTS[-1]], figures.get(("mlserver", CLIENTS[-1]))
    pairs = zip(mine.requests, theirs.requests, strict=True) if theirs else ()
    ratios = [one / other for one, other in pairs]
    rows.append(
        Row(
            f"requests over MLServer's, {CLIENTS[-1]} clients",
            _spread(ratios) if ratios else None,
            unit="x",
            note="" if ratios else environments.NOT_INSTALLED,
            bar=None if options.quick else BARS["over MLServer"],
        )
    )
    return rows


def _overhead(
    client: Client,
    server: Server,
    row: dict[str, Any],
    figures: dict[tuple[str, int], _Figures],
    options: Options,
) -> list[Row]:
    """Ask by the clock, at half of what we can answer, and take off what the graph itself takes."""
    rate = statistics.median(figures["ours", CLIENTS[1]].requests) / 2
    direct = _direct_ms(options.folder / NAME / "model.onnx", row)
    added: dict[str, list[float]] = {"p50": [], "p99": []}
    for number in range(options.repeats):
        options.say(f"half load, round {number + 1} of {options.repeats}")
        load = _load(server, "ours", row, rate=rate)
        done = sound(client.drive(load if not options.quick else _shorter(load)))
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            added[name].append(at(done.latencies, share) - direct)
    note = f"{rate:,.0f} requests/s over {CONNECTIONS} connections; the graph takes {direct:.3f} ms"
    return [
        Row(
            f"added to the graph's own time, {name}",
            _spread(samples),
            unit="ms",
            note=note,
            bar=None if options.quick else BARS[name],
        )
        for name, samples in added.items()
    ]


def _memory(servers: dict[str, Server]) -> Row:
    peer = servers.get("mlserver")
    return Row(
        "memory after it all",
        _spread([servers["ours"].resident_mb()]),
        _spread([peer.resident_mb()]) if peer else None,
        "mlserver",
        "MB",
        note="" if peer else environments.NOT_INSTALLED,
    )


def _direct_ms(graph: Path, row: dict[str, Any]) -> float:
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


def _load(
    server: Server,
    name: str,
    row: dict[str, Any],
    *,
    clients: int = CLIENTS[1],
    rate: float | None = None,
    requests: int | None = None,
) -> Load:
    is_v2 = name != "bentoml"
    body = {"inputs": inference_model.tensors(row)} if is_v2 else {"rows": [row]}
    return Load(
        server.port,
        json.dumps(body),
        server.headers,
        path=V2 if is_v2 else "/predict",
        clients=clients,
        rate=rate,
        connections=CONNECTIONS,
        seconds=SECONDS,
        requests=requests,
    )


def _shorter(load: Load) -> Load:
    return replace(load, seconds=QUICK_SECONDS)


def _spread(samples: Sequence[float]) -> Spread:
    return Spread(tuple(samples))
