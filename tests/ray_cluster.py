"""A real Ray of one node on a loopback address, with its dashboard, for a test session."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

PROGRAM = """
import sys, ray
context = ray.init(
    num_cpus=4, object_store_memory=80 * 2**20, include_dashboard=True, log_to_driver=False,
    dashboard_host="127.0.0.1", dashboard_port=int(sys.argv[2]), _node_ip_address="127.0.0.1",
    _temp_dir=sys.argv[1],
)
print(context.dashboard_url, flush=True)
sys.stdin.read()
"""


class Unavailable(Exception):
    """Ray is not installed."""


@contextlib.contextmanager
def running_cluster() -> Iterator[dict[str, Any]]:
    """Yield the launcher's options for a fresh cluster, which is gone at the end."""
    if importlib.util.find_spec("ray") is None:
        raise Unavailable("the extra `ray` is not installed")
    folder = Path(tempfile.mkdtemp(prefix="ragstone-ray-"))  # a socket's path must be short
    token = secrets.token_hex(32)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    with (folder / "out").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder / "r"), str(_free_port())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = process.stdout.readline().strip()
        if not line:
            raise Unavailable(f"Ray did not start: {(folder / 'out').read_text()[-2000:]}")
        yield {"address": f"http://{line}", "headers": {"Authorization": f"Bearer {token}"}}
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: subprocess.Popen[str]) -> None:
    everything = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(BrokenPipeError):
        process.communicate(timeout=20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for each in everything:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
