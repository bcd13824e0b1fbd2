"""Fixtures of the end-to-end tests: real server processes on free loopback ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from running_server import RunningServer, start


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for tests that leave nothing behind that another would mind."""
    running = start(tmp_path_factory.mktemp("server"))
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with the packaged model; each test has a collection of its own."""
    running = start(
        tmp_path_factory.mktemp("model-server"),
        RAGSTONE_RETRIEVAL__EMBEDDER="onnx",
    )
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start a server of one's own; keyword arguments are environment variables."""
    started: list[RunningServer] = []

    def start_one(**variables: str) -> RunningServer:
        running = start(tmp_path, **variables)
        started.append(running)
        running.wait_until_ready()
        return running

    yield start_one
    for running in started:
        running.stop()


@pytest.fixture(scope="module")
def start_in() -> Iterator[Callable[[Path], RunningServer]]:
    """Start a server in a folder, with the `ragstone.toml` there, for the tests of one module."""
    started: list[RunningServer] = []

    def start_one(folder: Path) -> RunningServer:
        running = start(folder)
        started.append(running)
        running.wait_until_ready()
        return running

    yield start_one
    for running in started:
        running.stop()
