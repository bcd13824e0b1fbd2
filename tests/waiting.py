"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], object], *, seconds: float = 60.0) -> float:
    """Wait until something holds; returns how long it took, in seconds."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, f"it did not come to hold within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - start
