"""Limits of requests and tokens in a minute and of calls at once, in exact whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from infra.errors import RateLimited, TooLarge
from service.callers import Limits
from service.gateway.buckets import SECOND, Bucket, format_duration

BUSY_SECONDS = 1.0
"""What a client that has too many calls at once is told to wait."""


@dataclass(slots=True)
class Gate:
    """The limits of one key, tenant or model, and how far they are used."""

    kind: str
    """`key`, `tenant` or `model`."""
    name: str
    limits: Limits
    requests: Bucket | None = None
    tokens: Bucket | None = None
    running: int = 0

    @property
    def title(self) -> str:
        """As a person is told."""
        return f"The {self.kind} {self.name!r}"

    def adopt(self, limits: Limits, now: int) -> None:
        """Go by other limits from now on; what was used stays used."""
        self.limits = limits
        self.requests = _resized(self.requests, limits.requests_per_minute, now)
        self.tokens = _resized(self.tokens, limits.tokens_per_minute, now)

    def check(self, tokens: int, now: int, *, calls: int = 1) -> None:
        """Refuse calls that do not all fit.

        Raises:
            RateLimited: it would later.
            TooLarge: it would never.
        """
        most = self.limits.max_concurrent
        if most is not None and self.running + calls > most:
            raise RateLimited(
                f"{self.title} has {self.running} calls under way, {most} are allowed at once",
                retry_after_seconds=BUSY_SECONDS,
            )
        if self.requests is not None and (wait := self.requests.wait(calls, now)):
            raise RateLimited(
                f"{self.title} may send {self.requests.limit} requests a minute; "
                f"the next one in {format_duration(wait)}",
                retry_after_seconds=wait / SECOND,
            )
        if self.tokens is not None:
            self._check_tokens(self.tokens, tokens, now)

    def _check_tokens(self, bucket: Bucket, tokens: int, now: int) -> None:
        if tokens > bucket.limit:
            raise TooLarge(
                f"{self.title} may use {bucket.limit:,} tokens a minute, and the request alone "
                f"may use {tokens:,}; shorten the prompt or lower max_tokens"
            )
        if wait := bucket.wait(tokens, now):
            raise RateLimited(
                f"{self.title} may use {bucket.limit} tokens a minute; "
                f"{tokens} are free in {format_duration(wait)}",
                retry_after_seconds=wait / SECOND,
            )

    def take(self, tokens: int, *, calls: int = 1) -> None:
        self.running += calls
        if self.requests is not None:
            self.requests.take(calls)
        if self.tokens is not None:
            self.tokens.take(tokens)

    def is_idle(self, now: int) -> bool:
        """True if forgetting it changes nothing."""
        buckets = (self.requests, self.tokens)
        return self.running == 0 and all(each is None or not each.reset(now) for each in buckets)


@dataclass(slots=True)
class Pass:
    """What one call took of its gates, or several together."""

    gates: tuple[Gate, ...]
    tokens: int
    at: int
    calls: int = 1


class Rates:
    """All gates of this process; each process counts for itself."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._now = monotonic_ns
        self._gates: dict[tuple[str, str], Gate] = {}

    def gate(self, kind: str, name: str, *, shown: str, limits: Limits) -> Gate:
        """Return the gate of a key, tenant or model, going by `limits`."""
        found = self._gates.get((kind, name))
        if found is None:
            found = self._gates[kind, name] = Gate(kind, shown, limits)
            found.adopt(limits, self._now())
        elif found.limits is not limits and found.limits != limits:
            found.adopt(limits, self._now())
        return found

    def check(self, gates: Iterable[Gate], tokens: int, *, calls: int = 1) -> None:
        """Refuse calls that one of the gates does not let through; takes nothing."""
        now = self._now()
        for gate in gates:
            gate.check(tokens, now, calls=calls)

    def take(self, gates: tuple[Gate, ...], tokens: int, *, calls: int = 1) -> Pass:
        """Count calls that were checked in the same breath."""
        for gate in gates:
            gate.take(tokens, calls=calls)
        return Pass(gates, tokens, self._now(), calls)

    def release(self, taken: Pass, *, used_tokens: int) -> None:
        """End a call that used so many tokens."""
        now = self._now()
        for gate in taken.gates:
            gate.running -= taken.calls
            if gate.tokens is not None:
                unused = taken.tokens - used_tokens
                if unused >= 0:
                    gate.tokens.give_back(unused, taken_at=taken.at, now=now)
                else:
                    gate.tokens.take(-unused)

    def undo(self, taken: Pass) -> None:
        """End a call that was sent nowhere: its request is given back, too."""
        self.release(taken, used_tokens=0)
        for gate in taken.gates:
            if gate.requests is not None:
                gate.requests.give_back(taken.calls, taken_at=taken.at, now=self._now())

    def headers(self, gates: Collection[Gate]) -> dict[str, str]:
        """Return `x-ratelimit-*` as OpenAI writes them, of the gates that have least left."""
        now = self._now()
        headers: dict[str, str] = {}
        for name in ("requests", "tokens"):
            tightest, least = None, 0
            for gate in gates:
                bucket = gate.requests if name == "requests" else gate.tokens
                if bucket is not None:
                    left = bucket.remaining(now)
                    if tightest is None or left < least:
                        tightest, least = bucket, left
            if tightest is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(tightest.limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(least)
                headers[f"x-ratelimit-reset-{name}"] = format_duration(tightest.reset(now))
        return headers

    def forget_idle(self) -> None:
        """Drop the gates that hold nothing, so that their number follows the traffic."""
        now = self._now()
        # Listed first: whoever admits may add one meanwhile.
        for name, gate in list(self._gates.items()):
            if gate.is_idle(now):
                self._gates.pop(name, None)

    def __len__(self) -> int:
        return len(self._gates)


def _resized(bucket: Bucket | None, limit: int | None, now: int) -> Bucket | None:
    if limit is None:
        return None
    if bucket is None:
        return Bucket(limit, at=now)
    bucket.drain(now)
    bucket.limit = limit
    return bucket
