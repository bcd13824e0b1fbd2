"""How long the command and the server take to start, with 100,000 chunks on disk."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import populated
from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread
from infra.errors import NotReady
from infra.settings import load_settings
from service.wiring import Components

CHUNKS = 100_000
QUICK_CHUNKS = 1_000
COLLECTION = "benchmark"
HELP_BAR = Bar(0.3, at_least=False)
READY_BAR = Bar(3.0, at_least=False)
HELP_RUNS = 10
QUICK_HELP_RUNS = 2
TIMEOUT_SECONDS = 120.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Server:
    process: subprocess.Popen[bytes]
    port: int
    launched: float
    """On the performance counter, just before the process was started."""
    log: Path


def run(options: Options) -> list[Row]:
    """Time `ragstone --help`, then a server from its launch until it is ready and has searched."""
    size = QUICK_CHUNKS if options.quick else CHUNKS
    options.say("ragstone --help")
    rows = [_help_row(options)]
    options.say(f"filling {size:,} chunks")
    data = options.folder / "data"
    _fill(data, options, size=size)
    ready, searched = [], []
    for number in range(options.repeats):
        options.say(f"server start {number + 1} of {options.repeats}")
        with _server(data, options) as server:
            _wait_until_ready(server)
            ready.append(time.perf_counter() - server.launched)
            _search(server)
            searched.append(time.perf_counter() - server.launched)
    rows.append(
        Row(
            f"server ready with {size:,} chunks",
            Spread(tuple(ready)),
            unit="s",
            bar=None if options.quick else READY_BAR,
        )
    )
    rows.append(
        Row("server launch until the first search is answered", Spread(tuple(searched)), unit="s")
    )
    return rows


def _help_row(options: Options) -> Row:
    """Beside a Python that starts and does nothing: the floor under any command in Python."""
    runs = QUICK_HELP_RUNS if options.quick else HELP_RUNS
    ours = [_seconds([_command(), "--help"], options.folder) for _ in range(runs)]
    bare = [_seconds([sys.executable, "-c", "pass"], options.folder) for _ in range(runs)]
    return Row(
        "ragstone --help",
        Spread(tuple(ours)),
        Spread(tuple(bare)),
        "python -c pass",
        "s",
        bar=None if options.quick else HELP_BAR,
    )


def _seconds(command: Sequence[str], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - start


def _command() -> str:
    return str(Path(sys.executable).parent / "ragstone")


def _fill(data: Path, options: Options, *, size: int) -> None:
    components = Components(
        load_settings(data_folder=data, retrieval={"embedder": options.embedder})
    )
    try:
        count = 500 if options.quick else populated.MAX_PIECES
        pieces = populated.cut(components.embedder, options, count=count)
        into = populated.fill(components, pieces, name=COLLECTION, count=size)
        view = components.views.get(into)
        view.refresh()
        view.checkpoint(at_least=1)
    finally:
        components.close()


@contextmanager
def _server(data: Path, options: Options) -> Iterator[_Server]:
    port = _free_port()
    environment = {key: value for key, value in os.environ.items() if "RAGSTONE_" not in key}
    environment |= _settings(data, options, port=port)
    log = options.folder / "server.log"
    with log.open("ab") as output:
        launched = time.perf_counter()
        process = subprocess.Popen(
            [_command(), "serve"],
            cwd=options.folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield _Server(process, port, launched, log)
    finally:
        process.terminate()
        process.wait(timeout=TIMEOUT_SECONDS)


def _settings(data: Path, options: Options, *, port: int) -> Mapping[str, str]:
    return {
        "RAGSTONE_DATA_FOLDER": str(data),
        "RAGSTONE_SERVER__PORT": str(port),
        "RAGSTONE_RETRIEVAL__EMBEDDER": options.embedder,
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_ready(server: _Server) -> None:
    """Ask until the server says that it is ready."""
    while time.perf_counter() - server.launched < TIMEOUT_SECONDS and server.process.poll() is None:
        try:
            if _request(server.port, "GET", "/health/ready") == 200:
                return
        except OSError:  # not listening yet
            pass
        time.sleep(POLL_SECONDS)
    words = server.log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise NotReady(f"The server did not become ready; its log ends with {words!r}")


def _search(server: _Server) -> None:
    body = json.dumps({"collection": COLLECTION, "query": "Who came to the soirée?"})
    status = _request(server.port, "POST", "/v1/search", body)
    if status != 200:
        raise NotReady(f"The first search was answered with status {status}")


def _request(port: int, method: str, path: str, body: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()
