"""Waiting for runs, and seeing that nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from training.launchers import Handle, Launcher, Status
from waiting import until


@pytest.fixture
def ended() -> Callable[[Launcher, Handle], Status]:
    def wait(launcher: Launcher, handle: Handle) -> Status:
        until(lambda: launcher.poll(handle).is_finished)
        return launcher.poll(handle)

    return wait
