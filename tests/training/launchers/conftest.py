"""Waiting for runs, and seeing that nothing of them is left."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from training.launchers import Handle, Launcher, Status

PATIENCE_SECONDS = 60.0


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)

    return wait


@pytest.fixture
def ended(until: Callable[[Callable[[], object]], None]) -> Callable[[Launcher, Handle], Status]:
    def wait(launcher: Launcher, handle: Handle) -> Status:
        until(lambda: launcher.poll(handle).is_finished)
        return launcher.poll(handle)

    return wait
