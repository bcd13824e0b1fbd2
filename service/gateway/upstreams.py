"""Replicas of one model: who gets the next call, how many run and wait, which are left alone."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from zlib import crc32

from infra.errors import EngineFailed, Overloaded
from infra.gateway_settings import Upstream as UpstreamSettings
from service.engines import ModelServer
from service.gateway.breaker import Breaker, State

logger = logging.getLogger(__name__)

AFFINITY_SLACK = 4
"""Calls by which the replica that knows a prefix may be busier than the idlest one."""
LONGEST_RETRY_AFTER = 60.0
DRAIN_SECONDS = 600.0
"""For the calls under way at replicas that a reload took out."""
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What metrics show of one replica."""

    upstream: str
    replica: str
    """Its address."""
    running: int
    waiting: int
    """For any replica of the upstream."""
    breaker: State
    is_up: bool
    """Not left alone for its failures."""
    failures: int
    """Since the start."""


class Replica:
    """One model server, how much it has to do, and whether it is well."""

    def __init__(self, server: ModelServer, breaker: Breaker) -> None:
        self.server = server
        self.breaker = breaker
        self.running = 0
        self.failures = 0
        self.busy_until = 0.0
        """It asked to be left alone until then, on the monotonic clock."""
        self.seed = crc32(server.address.encode())

    def note_failure(self) -> None:
        self.failures += 1
        before = self.breaker.state
        self.breaker.fail()
        if before == "closed" and self.breaker.state == "open":
            logger.warning("%s failed too often and is left alone", self.server.address)


class Upstream:
    """A set of replicas with one bounded queue before them."""

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        servers: Sequence[ModelServer],
        *,
        locations: Sequence[tuple[str, str | None]] = (),
    ) -> None:
        self.name = name
        self.number = next(_numbers)
        """Of this opening: one that takes its place, elsewhere or otherwise, has another."""
        self.settings = settings
        self.locations = tuple(locations)
        """URLs and keys that the servers were opened with."""
        self.replicas = tuple(
            Replica(
                server,
                Breaker(failures=settings.breaker_failures, seconds=settings.breaker_seconds),
            )
            for server in servers
        )
        self._waiting: deque[_Place] = deque()
        self._mean_seconds: float | None = None
        """Of a call, the latest weighing most; None before the first."""

    @property
    def running(self) -> int:
        return sum(replica.running for replica in self.replicas)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def snapshot(self) -> list[ReplicaState]:
        return [
            ReplicaState(
                self.name,
                replica.server.address,
                replica.running,
                self.waiting,
                replica.breaker.state,
                replica.breaker.state != "open",
                replica.failures,
            )
            for replica in self.replicas
        ]

    def take(self, prefix: int, *, without: Collection[Replica] = ()) -> Replica | None:
        """Occupy a place at the best replica that has one now; None if there is none.

        Args:
            prefix: a hash of how the prompt begins: calls that begin alike meet at the same
                replica, whose cache knows the beginning, unless it is much busier than another.
            without: replicas that are not wanted.
        """
        if self._waiting:  # those who wait are first
            return None
        return self._occupy(prefix, without)

    async def acquire(
        self, prefix: int, *, without: Collection[Replica] = (), deadline: float
    ) -> Replica:
        """Occupy a place at a replica, waiting for one if need be.

        Raises:
            Overloaded: as many as may wait are waiting, or the wait would outlast the deadline.
            EngineFailed: every replica is left alone for now, or not wanted.
        """
        if replica := self.take(prefix, without=without):
            return replica
        self._refuse_if_hopeless(without, deadline)
        place = _Place(prefix, without, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            return await place.future
        except asyncio.CancelledError:
            # The place may have been given in the moment in which its owner left.
            if place.future.done() and not place.future.cancelled():
                self.release(place.future.result())
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)

    def release(self, replica: Replica, *, seconds: float | None = None) -> None:
        """Give the place back; the next who waits has it. `seconds` is what the call took."""
        replica.running -= 1
        if seconds is not None:
            mean = seconds if self._mean_seconds is None else self._mean_seconds
            self._mean_seconds = mean + 0.1 * (seconds - mean)
        self.wake()

    def wake(self) -> None:
        """Hand free places to those who wait, in their order."""
        for place in tuple(self._waiting):
            if place.future.done():
                continue
            replica = self._occupy(place.prefix, place.without)
            if replica is not None:
                place.future.set_result(replica)
                self._waiting.remove(place)
            elif not self._usable(place.without):
                place.future.set_exception(self._nobody())
            elif not place.without:  # then there is none for those behind it either
                return

    async def probe(self) -> None:
        """Ask the replicas that are left alone whether they are well again."""
        for replica in self.replicas:
            if replica.breaker.state == "open" and await replica.server.probe():
                logger.info("%s is up again", replica.server.address)
                replica.breaker.half_open()
        self.wake()

    async def close(
        self, *, patience_seconds: float = 0.0, is_held: Callable[[], bool] = lambda: False
    ) -> None:
        """Close the servers once nothing runs at them and nobody may yet ask, or patience ends."""
        until = time.monotonic() + patience_seconds
        try:
            while (self.running or self.waiting or is_held()) and time.monotonic() < until:
                await asyncio.sleep(0.05)
        finally:
            for replica in self.replicas:
                await replica.server.close()

    def _occupy(self, prefix: int, without: Collection[Replica]) -> Replica | None:
        free = [
            replica
            for replica in self._usable(without)
            if replica.running < self.settings.max_running and replica.breaker.is_ready
        ]
        if not free:
            return None
        chosen = free[0] if len(free) == 1 else _choose(free, prefix)
        chosen.running += 1
        chosen.breaker.begin()
        return chosen

    def _usable(self, without: Collection[Replica]) -> list[Replica]:
        """Return those that are not left alone; a half-open one may be busy with its trial."""
        now = time.monotonic()
        return [
            replica
            for replica in self.replicas
            if replica not in without
            and replica.busy_until <= now
            and replica.breaker.state != "open"
        ]

    def _refuse_if_hopeless(self, without: Collection[Replica], deadline: float) -> None:
        usable = self._usable(without)
        if not usable:
            raise self._nobody()
        places = self.settings.max_running * len(usable)
        wait = (self._mean_seconds or 0.0) * (self.waiting + 1) / places
        if self.waiting >= self.settings.max_waiting:
            raise Overloaded(
                f"{self.running} requests run at {self.name!r} and {self.waiting} wait; "
                "try again later",
                retry_after_seconds=min(max(1.0, wait), LONGEST_RETRY_AFTER),
            )
        if time.monotonic() + wait > deadline and self.waiting:
            raise Overloaded(
                f"A place at {self.name!r} would be free in about {wait:.0f} s, past the deadline",
                retry_after_seconds=min(max(1.0, wait), LONGEST_RETRY_AFTER),
            )

    def _nobody(self) -> EngineFailed | Overloaded:
        if not self.replicas:
            engine = self.settings.engine
            hint = f"; start it with `ragstone engine start {engine}`" if engine else ""
            return EngineFailed(f"No server of {self.name!r} runs{hint}")
        now = time.monotonic()
        busy = [item.busy_until - now for item in self.replicas if item.busy_until > now]
        if len(busy) == len(self.replicas):
            return Overloaded(
                f"Every server of {self.name!r} asks to be left alone for now",
                retry_after_seconds=math.ceil(min(busy)),
            )
        return EngineFailed(f"No server of {self.name!r} is well at the moment; try again later")


@dataclass(slots=True, eq=False)
class _Place:
    """In the queue."""

    prefix: int
    without: Collection[Replica]
    future: asyncio.Future[Replica]


def _choose(free: Sequence[Replica], prefix: int) -> Replica:
    """Take the replica that the prefix belongs to, unless another has far less to do.

    Rendezvous hashing: each prefix ranks the replicas in its own order, so that nothing is
    remembered, and one replica more or less moves only that one's share.
    """
    least = min(replica.running for replica in free)
    home = max(free, key=lambda replica: _mix(prefix, replica.seed))
    if home.running <= least + AFFINITY_SLACK:
        return home
    return min(free, key=lambda replica: replica.running)


def _mix(prefix: int, seed: int) -> int:
    """Hash two numbers into one: the finalizer of MurmurHash3, in 32 bits."""
    mixed = (prefix ^ seed) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return mixed ^ (mixed >> 16)


def states(upstreams: Sequence[Upstream]) -> list[ReplicaState]:
    """Return the state of every replica of `upstreams`."""
    return list(itertools.chain.from_iterable(item.snapshot() for item in upstreams))
