"""The processes of the benchmark of inference: ours, MLServer and BentoML, on the same graph."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import inference_model
from benchmarks.gateway_servers import ENOUGH, Server, free_port, started, wait_until_ready
from benchmarks.options import Options
from infra.settings import load_settings
from service.callers import Limits
from service.keys import Opens
from service.wiring import Components

NAME = "income"
MANY = 10**9
BENTO = "benchmarks.peers.bentoml:Income"


@contextmanager
def ours(options: Options) -> Iterator[Server]:
    """Run the service with a key, limits, metrics and a record of every prediction."""
    data = options.folder / "data"
    port = free_port()
    components = Components(load_settings(data_folder=data, retrieval={"embedder": "hashing"}))
    try:
        limits = Limits(requests_per_minute=MANY, max_concurrent=10_000)
        _, key = components.keys.create("benchmark", opens=Opens(limits=limits))
        folder = options.folder / NAME
        inference_model.write(folder)
        reference = components.artifacts.put(folder, f"model/{NAME}")
        components.artifacts.tag(str(reference), "production")
    finally:
        components.close()
    file = options.folder / "ragstone.toml"
    file.write_text(_settings(data, port), encoding="utf-8")
    command = [sys.executable, "-c", "from service.cli import main; main()", "serve"]
    with started(command, options, "ours", variables={"RAGSTONE_CONFIG": str(file)}) as process:
        wait_until_ready(port, "/v2/health/ready", process, options.folder / "ours.log")
        yield Server(port, process, key)


@contextmanager
def mlserver(options: Options, python: Path) -> Iterator[Server]:
    """Run MLServer in one process, as ours is."""
    port = free_port()
    folder = options.folder / "mlserver"
    folder.mkdir()
    graph = str(options.folder / NAME / "model.onnx")
    subprocess.run(
        [str(python), "-m", "benchmarks.peers.mlserver", str(folder), graph, str(port)], check=True
    )
    command = [str(python.parent / "mlserver"), "start", str(folder)]
    paths = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with started(command, options, "mlserver", variables=paths) as process:
        wait_until_ready(port, "/v2/health/ready", process, options.folder / "mlserver.log")
        yield Server(port, process)


@contextmanager
def bentoml(options: Options, python: Path) -> Iterator[Server]:
    """Run BentoML with one worker; its own reports home are off."""
    port = free_port()
    command = [str(python.parent / "bentoml"), "serve", BENTO, "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    variables = {
        "BENCHMARK_GRAPH": str(options.folder / NAME / "model.onnx"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(options.folder / "bentoml"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    with started(command, options, "bentoml", variables=variables) as process:
        wait_until_ready(port, "/readyz", process, options.folder / "bentoml.log")
        yield Server(port, process)


def _settings(data: Path, port: int) -> str:
    return f"""data_folder = {json.dumps(str(data))}
[server]
port = {port}
authentication = "on"
[retrieval]
embedder = "hashing"
[gateway.model_limits."model/{NAME}"]
{ENOUGH}
"""
