"""A real server process of its own on a free loopback port, for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from migrated import put_schema

ROOT = Path(__file__).parent.parent
START_SECONDS = 60.0
SERVE = (
    "from infra.settings import load_settings; from service.server import run; run(load_settings())"
)


@dataclass(slots=True)
class RunningServer:
    """A server process of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]
    url: str = ""
    seconds_to_ready: float = 0.0

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def wait_until_ready(self) -> None:
        """Learn the port from the log, then ask until it is ready; if it never is, it is ended."""
        try:
            self._wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _wait_until_ready(self) -> None:
        start = time.monotonic()
        while time.monotonic() - start < START_SECONDS:
            assert self.process.poll() is None, self.log.read_text("utf-8")
            found = re.search(r"running on (http://127\.0\.0\.1:\d+)", self.log.read_text("utf-8"))
            if found:
                self.url = found.group(1)
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    self.seconds_to_ready = time.monotonic() - start
                    return
            time.sleep(0.02)
        raise AssertionError(f"not ready in time: {self.log.read_text('utf-8')}")

    def stop(self, *, timeout_seconds: float = 30.0) -> int:
        """Ask it to end; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_seconds)
        finally:
            self.process.kill()


def start(folder: Path, **variables: str) -> RunningServer:
    """Start a server on `folder` with the fakes, unless RAGSTONE_ variables say otherwise."""
    if not (database := folder / "data" / "ragstone.db").exists():
        put_schema(database)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAGSTONE_")},
        "PYTHONPATH": str(ROOT),
        "RAGSTONE_DATA_FOLDER": str(folder / "data"),
        "RAGSTONE_SERVER__PORT": "0",
        "RAGSTONE_RETRIEVAL__EMBEDDER": "hashing",
        "RAGSTONE_GENERATION__ENGINE": "extractive",
        **variables,
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return RunningServer(process, log, environment)


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[httpx.Client]:
    """Serve on `folder`; the process is killed in the middle of what it does at the block's end."""
    running = start(folder, **variables)
    try:
        running.wait_until_ready()
        with httpx.Client(base_url=f"{running.url}/v1", timeout=60) as client:
            yield client
    finally:
        running.process.kill()
        running.process.wait(10)
