"""Classical models: requests a second, waiting and memory, beside MLServer and BentoML."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import environments, inference_clock, inference_model, processes
from benchmarks.gateway_servers import Client, Server, load_client, null_backend
from benchmarks.inference_servers import NAME, bentoml, mlserver, ours
from benchmarks.load import Load, Measured, at, sound
from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread

CLIENTS = (1, 10, 100)
CONNECTIONS = 50
SECONDS = 4.0
QUICK_SECONDS = 0.3
WARM_REQUESTS = 300
OVER_MLSERVER = Bar(5, at_least=True)
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
        rows += _by_the_clock(client, servers, row, figures, options)
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
            bar=None if options.quick else OVER_MLSERVER,
        )
    )
    return rows


def _by_the_clock(
    client: Client,
    servers: dict[str, Server],
    row: dict[str, Any],
    figures: dict[tuple[str, int], _Figures],
    options: Options,
) -> list[Row]:
    """Ask at fixed rates, too: what is added at half of a server's capacity grows with it."""

    def drive(load: Load) -> Measured:
        return client.drive(_shorter(load) if options.quick else load)

    def loading(name: str, rate: float) -> Load:
        return _load(all_servers[name], name, row, rate=rate)

    tens = {name: figures[name, inference_clock.TOGETHER].requests for name in servers}
    with null_backend(options) as nothing:
        all_servers = {**servers, inference_clock.NOTHING: nothing}
        return inference_clock.measure(
            drive,
            loading,
            inference_clock.capacity_of(tens),
            inference_clock.direct_ms(options.folder / NAME / "model.onnx", row),
            options,
        )


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
