"""Starts a real Prometheus and a real Alertmanager on loopback, where the Debian packages are."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

START_SECONDS = 60.0


def required(program: str) -> str:
    """Return the path of a program; the test is skipped where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program}: install the packages prometheus and prometheus-alertmanager")
    return found


@contextmanager
def prometheus(folder: Path, config: str) -> Iterator[str]:
    """Run a server with a configuration; yields its address."""
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    command = [
        required("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with _running(command, folder / "prometheus.log"):
        url = f"http://127.0.0.1:{port}"
        _await(f"{url}/-/ready", folder / "prometheus.log")
        yield url


@contextmanager
def alertmanager(folder: Path, config: str) -> Iterator[str]:
    """Run an Alertmanager with a configuration; yields its address."""
    (folder / "alertmanager.yml").write_text(config)
    port = free_port()
    command = [
        required("prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with _running(command, folder / "alertmanager.log"):
        url = f"http://127.0.0.1:{port}"
        _await(f"{url}/-/ready", folder / "alertmanager.log")
        yield url


def firing(url: str) -> set[str]:
    """Return the names of the alerts that a Prometheus has firing."""
    found: list[dict[str, Any]] = httpx.get(f"{url}/api/v1/alerts").json()["data"]["alerts"]
    return {each["labels"]["alertname"] for each in found if each["state"] == "firing"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


def _await(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not ready in time: {log.read_text('utf-8')}")
