"""A leaky bucket in exact whole numbers, and how its times are written."""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 10**9
MINUTE = 60 * SECOND
"""Nanoseconds. A bucket's level counts `MINUTE` for each token, and a limit of `n` a minute drains
`n` of the level in each nanosecond: so both are whole numbers, and nothing is rounded."""


@dataclass(slots=True)
class Bucket:
    """Holds a minute's worth and drains evenly (GCRA, or a leaky bucket used as a meter).

    In any stretch of `t` minutes no more than `(1 + t) * limit` is let through.
    """

    limit: int
    level: int = 0
    at: int = 0

    def drain(self, now: int) -> None:
        """Let time pass; a clock that stands or steps back drains nothing."""
        if now > self.at:
            self.level = max(0, self.level - (now - self.at) * self.limit)
            self.at = now

    def wait(self, amount: int, now: int) -> int:
        """Return the nanoseconds until `amount` fits; 0 if it does now."""
        self.drain(now)
        over = self.level + amount * MINUTE - self.limit * MINUTE
        return 0 if over <= 0 else -(-over // self.limit)

    def take(self, amount: int) -> None:
        self.level += amount * MINUTE

    def give_back(self, amount: int, *, taken_at: int, now: int) -> None:
        """Undo a part of what was taken at a moment, as far as it cannot have drained since.

        To give back more could let through what a limit forbids.
        """
        self.drain(now)
        left = amount * MINUTE - max(0, now - taken_at) * self.limit
        if left > 0:
            self.level = max(0, self.level - left)

    def remaining(self, now: int) -> int:
        self.drain(now)
        return max(0, (self.limit * MINUTE - self.level) // MINUTE)

    def reset(self, now: int) -> int:
        """Return the nanoseconds until it is empty."""
        self.drain(now)
        return -(-self.level // self.limit)


def format_duration(nanoseconds: int) -> str:
    """Return a time as OpenAI's headers have it: `17ms`, `8.64s`, `6m0s`, `1h2m3s`; rounded up.

    >>> format_duration(360 * SECOND), format_duration(8_640_000_000), format_duration(17_000_000)
    ('6m0s', '8.64s', '17ms')
    """
    milliseconds = -(-nanoseconds // 10**6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{milliseconds:03d}".rstrip("0").rstrip(".")
    text = f"{seconds}{fraction}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
