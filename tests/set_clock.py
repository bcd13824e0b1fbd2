"""Clocks that are set by hand."""

from __future__ import annotations

from datetime import UTC, datetime


class Clock:
    """Seconds, of which only differences mean something."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class TimeOfDay:
    """A date and time."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def timestamp(self) -> float:
        return self.now.timestamp()
