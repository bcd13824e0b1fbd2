"""The processes of the gateway's benchmark: null backend, load client, ours, LiteLLM's proxy."""

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
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import Load, Measured
from benchmarks.options import Options
from benchmarks.processes import PeerProcess
from infra.errors import NotReady
from infra.settings import load_settings
from service.gateway.prices import NANOS
from service.wiring import Components

ROOT = Path(__file__).parent.parent
START_SECONDS = 180.0
MODEL = "null"
PEER_KEY = "sk-benchmark"
AMOUNT = 10**6 * NANOS
"""Of each budget: enough to refuse nothing."""
ENOUGH = (
    "requests_per_minute = 1000000000\ntokens_per_minute = 1000000000000\nmax_concurrent = 10000"
)


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers on a port of loopback."""

    port: int
    process: subprocess.Popen[bytes]
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    def cpu_seconds(self) -> float:
        """Of the process, in its own code and in the kernel's."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")")[1]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Memory that the process holds, in MB (10^6 bytes)."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Client:
    """The load client's process."""

    def __init__(self, process: PeerProcess) -> None:
        self._process = process

    def drive(self, load: Load) -> Measured:
        return Measured(**self._process.ask(asdict(load)))


@contextmanager
def null_backend(options: Options, *, name: str = "backend") -> Iterator[Server]:
    """Run the backend that thinks nothing; it prints its port, and takes traces in as well."""
    command = [sys.executable, "-m", "benchmarks.null_backend"]
    with started(command, options, name, tells=True) as process:
        line = process.stdout.readline() if process.stdout else b""
        yield Server(int(line), process)


@contextmanager
def load_client(options: Options) -> Iterator[Client]:
    with (options.folder / "client.log").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
        )
    try:
        yield Client(PeerProcess("client", process, options.folder / "client.log"))
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()


@contextmanager
def ours(
    options: Options, url: str, *, model: str = MODEL, name: str = "ours", interactions: bool = True
) -> Iterator[Server]:
    """Run the service with everything that it does for a request switched on.

    Args:
        options: of the benchmark.
        url: of the model server.
        model: that it serves.
        name: of the process among those of the benchmark.
        interactions: keep them; without, it is what this costs that is looked for.
    """
    data = options.folder / f"{name}-data"
    port = free_port()
    components = Components(load_settings(data_folder=data, retrieval={"embedder": "hashing"}))
    try:
        made, key = components.keys.create("benchmark")
        components.budgets.put("key", made.id, period="month", amount=AMOUNT)
        components.budgets.put("all", "", period="month", amount=AMOUNT)
    finally:
        components.close()
    with (
        null_backend(options, name=f"{name}-collector") as collector,
        _serving(
            options,
            _settings(data, port, url, model, collector.port)
            + f"interactions = {json.dumps(interactions)}\n",
            name,
        ) as process,
    ):
        wait_until_ready(port, "/health/ready", process, options.folder / f"{name}.log")
        yield Server(port, process, key)


@contextmanager
def _serving(options: Options, settings: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    file = options.folder / f"{name}.toml"
    file.write_text(settings, encoding="utf-8")
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve"]
    with started(command, options, name, variables={"RAGSTONE_CONFIG": str(file)}) as process:
        yield process


@contextmanager
def litellm(options: Options, python: Path, url: str) -> Iterator[Server]:
    """Run LiteLLM's proxy: one worker, a master key, no database, no reports home."""
    port = free_port()
    config = options.folder / "litellm.json"  # JSON is YAML
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none"}
    content = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": PEER_KEY},
    }
    config.write_text(json.dumps(content), encoding="utf-8")
    command = [str(python.parent / "litellm"), "--config", str(config), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False"]
    alone = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with started(command, options, "litellm", variables=alone) as process:
        wait_until_ready(port, "/health/liveliness", process, options.folder / "litellm.log")
        yield Server(port, process, PEER_KEY)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def started(
    command: Sequence[str],
    options: Options,
    name: str,
    *,
    tells: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {key: value for key, value in os.environ.items() if "RAGSTONE_" not in key}
    with (options.folder / f"{name}.log").open("ab") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, **(variables or {})},
            stdout=subprocess.PIPE if tells else errors,
            stderr=errors,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _settings(data: Path, port: int, url: str, model: str, collector: int) -> str:
    """Return settings under which a request has all to pass that there is, and is let through."""
    name = json.dumps(MODEL)
    return f"""data_folder = {json.dumps(str(data))}
[server]
port = {port}
authentication = "on"
[retrieval]
embedder = "hashing"
[gateway.upstreams.backend]
urls = [{json.dumps(url)}]
[gateway.routes.{name}]
targets = [{{ upstream = "backend", model = {json.dumps(model)} }}]
cache = false
[gateway.prices.{name}]
input_per_million = 0.5
output_per_million = 1.5
[gateway.key_limits]
{ENOUGH}
[gateway.model_limits.{name}]
{ENOUGH}
[telemetry]
otlp_endpoint = "http://127.0.0.1:{collector}"
"""


def wait_until_ready(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until the server says that it is ready."""
    start = time.monotonic()
    while time.monotonic() - start < START_SECONDS and process.poll() is None:
        if _status(port, path) == 200:
            return
        time.sleep(0.05)
    words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise NotReady(f"The server did not become ready; its log ends with {words!r}")


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:  # not listening yet
        return 0
    finally:
        connection.close()
