"""Time limits where nobody else keeps them to the second: `timeout`, of every Linux."""

from __future__ import annotations

import signal

from training.launchers import Spec

TIMED_OUT = 124
"""What `timeout` returns when the program ended at its request."""


def timeout(spec: Spec) -> list[str]:
    """Return what to put before a command."""
    if spec.time_limit_seconds is None:
        return []
    return ["timeout", f"--kill-after={spec.grace_seconds}", str(spec.time_limit_seconds)]


def was_reached(limit_seconds: float, *, code: int, seconds: float) -> bool:
    """Whether a program that ran so long was ended by `timeout`; a killed one takes it along."""
    return code == TIMED_OUT or (code == -signal.SIGKILL and seconds >= limit_seconds)
