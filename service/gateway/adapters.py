"""Keeps LoRA adapters loaded where they are routed to, and moves traffic when an alias moves."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.artifacts.store import ArtifactStore
from infra.errors import EngineFailed, NotFound, NotReady, RagstoneError
from service.gateway.adapter_files import VERSIONED, Adapter, Base, check, fetch, prune
from service.gateway.adapter_hosts import AdapterHost, Unreachable
from service.work.rounds import Rounds

logger = logging.getLogger(__name__)

TIDY_SECONDS = 600.0
"""Between two looks for files that nobody needs any more."""


@dataclass(frozen=True, slots=True)
class Place:
    """The replicas of one upstream, and the adapters that routes lead to there."""

    references: frozenset[str]
    hosts: Sequence[AdapterHost]
    base: Base = field(default_factory=lambda: Base(frozenset()))
    """What is known of the model beside what the replicas say."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look, and how long to wait."""

    watch_seconds: float = 1.0
    """Between two looks at aliases and replicas."""
    grace_seconds: float = 10.0
    """A version that was replaced stays loaded at least so long: other processes may use it."""
    drain_seconds: float = 600.0
    """After which it goes even if requests are under way; these are not broken off."""
    keep_seconds: float = 3600.0
    """The files of a version that no replica has stay on the disk at least so long."""


@dataclass(slots=True)
class Lease:
    """The right to use one version at one replica until it is given back."""

    name: str
    """What the request has to ask for as its model."""
    _address: str
    _counts: Counter[tuple[str, str]]
    _is_held: bool = True

    def release(self) -> None:
        """Give it back; later calls do nothing."""
        if self._is_held:
            self._is_held = False
            key = (self._address, self.name)
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]


class Adapters:
    """Loads each version under a name of its own, so that a name never changes its meaning.

    Used from one event loop. `served_name` and `lease` answer from memory.
    """

    def __init__(
        self,
        store: ArtifactStore,
        folder: Path,
        *,
        places: Callable[[], Mapping[str, Place]],
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`places` tells, by upstream, what is wanted where; it is asked at every look."""
        self._store = store
        self._folder = folder
        self._places = places
        self._pace = pace or Pace()
        self._clock = clock
        self._serving: dict[tuple[str, str], str] = {}
        """By address and reference, the name in force."""
        self._loaded: defaultdict[str, set[str]] = defaultdict(set)
        """By address, the names that were confirmed there."""
        self._listed: dict[str, frozenset[str]] = {}
        """By address, the names that it said it has, whoever had it load them."""
        self._leaving: dict[tuple[str, str], float] = {}
        """By address and name, since when nothing new goes there."""
        self._known: set[str] = set()
        """Addresses that were looked at before."""
        self._failing: set[str] = set()
        """Addresses whose last answer made no sense."""
        self._leases: Counter[tuple[str, str]] = Counter()
        self._problems: dict[tuple[str, str], RagstoneError] = {}
        self._fetched: dict[str, Adapter] = {}
        self._tidied_at = -math.inf
        self._round = asyncio.Lock()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By address: upstreams may share a replica, which is asked or told one thing at a time."""
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def served_name(self, reference: str, address: str) -> str | None:
        """Return what a replica serves a reference as; None if it does not, or not now."""
        return self._serving.get((address, reference))

    def lease(self, reference: str, address: str) -> Lease | None:
        """Return the name for one request, which is not unloaded until the lease is released."""
        name = self.served_name(reference, address)
        if name is None:
            return None
        self._leases[address, name] += 1
        return Lease(name, address, self._leases)

    def problem(self, reference: str, upstream: str) -> RagstoneError:
        """Return why no replica of an upstream serves a reference: `NotFound`, ..."""
        known = self._problems.get((upstream, reference))
        return known or NotReady(f"{reference!r} is being loaded; try again in a moment")

    def lost(self, address: str) -> None:
        """Note that a replica said that it does not know a name: it must have started anew."""
        self._forget(address)
        self._due.set()

    def hurry(self) -> None:
        """Look at once, as where a route leads to an adapter that none led to before."""
        self._due.set()

    def start(self) -> None:
        """Look again and again, from now on."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Stop looking; what is loaded stays so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Bring every replica to where it should be; failures are kept as problems.

        Upstreams are looked after side by side, so that one that is broken keeps no other from its
        adapters. The round lasts as long as the slowest, which its hosts' time limits bound; only
        then comes the next.
        """
        async with self._round:
            places = self._places()
            outcomes = await asyncio.gather(
                *(self._tend(upstream, place) for upstream, place in places.items()),
                return_exceptions=True,
            )
            self._drop_unwanted(places)
            await self._let_go(places)
            self._forget_gone(places)
            _raise_first(outcomes)
            if all(outcomes):
                await self._tidy()

    async def _watch(self) -> None:
        rounds = Rounds("the adapters")
        while True:
            self._due.clear()
            await rounds.attempt(self.refresh)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.watch_seconds):
                    await self._due.wait()

    async def _tend(self, upstream: str, place: Place) -> bool:
        """Look after one upstream; return whether all its replicas said what they have."""
        present = await self._look(place)
        for reference in sorted(place.references):
            await self._bring(upstream, reference, place, present)
        return len(present) == len(place.hosts)

    async def _look(self, place: Place) -> dict[AdapterHost, Base]:
        """Ask the replicas what they have; return those that answer, with what they serve."""
        found = await asyncio.gather(
            *(self._look_at(host, place.base) for host in place.hosts), return_exceptions=True
        )
        _raise_first(found)
        return {
            host: base
            for host, base in zip(place.hosts, found, strict=True)
            if isinstance(base, Base)
        }

    async def _look_at(self, host: AdapterHost, base: Base) -> Base | None:
        address = host.address
        async with self._turns[address]:
            try:
                answer = await host.models()
            except Unreachable:
                self._forget(address)
                return None
            except EngineFailed as error:
                if address not in self._failing:
                    logger.warning("%s", error.message)
                self._failing.add(address)
                return None
            self._failing.discard(address)
            self._listed[address] = answer.adapters
            self._reconcile(address, answer.adapters)
            self._take_over(address, answer.adapters)
            return replace(base, names=base.names | answer.base)

    def _reconcile(self, address: str, adapters: frozenset[str]) -> None:
        """Believe the replica: what it does not list is not served there."""
        gone = self._loaded[address] - adapters
        if gone:
            logger.warning("%s has lost %s", address, ", ".join(sorted(gone)))
        self._loaded[address] -= gone
        for key, name in list(self._serving.items()):
            if key[0] == address and name in gone:
                del self._serving[key]

    def _take_over(self, address: str, adapters: frozenset[str]) -> None:
        """Let go, in time, of what a process before this one loaded and nobody uses."""
        if address not in self._known:
            self._known.add(address)
            for name in filter(VERSIONED.fullmatch, adapters - self._loaded[address]):
                self._leaving.setdefault((address, name), self._clock())

    def _forget(self, address: str) -> None:
        self._reconcile(address, frozenset())

    async def _bring(
        self, upstream: str, reference: str, place: Place, present: Mapping[AdapterHost, Base]
    ) -> None:
        """Have what a reference means served by all replicas that answer, or leave it as it is."""
        try:
            adapter = await asyncio.to_thread(self._fetch, reference)
            for base in present.values():
                check(adapter, base)
            _raise_first(
                await asyncio.gather(
                    *(self._load(host, adapter) for host in present), return_exceptions=True
                )
            )
        except RagstoneError as error:
            if str(self._problems.get((upstream, reference))) != str(error):
                logger.error("%r is not served as it should be: %s", reference, error.message)
            self._problems[upstream, reference] = error
            if isinstance(error, NotFound):  # as where a canary was rolled back
                self._withdraw(reference, place)
            return
        self._problems.pop((upstream, reference), None)
        self._flip(reference, adapter.name, place)

    def _fetch(self, reference: str) -> Adapter:
        digest = self._store.find(reference).digest
        known = self._fetched.get(digest)
        if known is None or not known.folder.is_dir():
            known = self._fetched[digest] = fetch(self._store, reference, self._folder)
        return known

    async def _load(self, host: AdapterHost, adapter: Adapter) -> None:
        address, name = host.address, adapter.name
        async with self._turns[address]:
            if name in self._loaded[address]:
                return
            await host.load(name, adapter.folder)
            if name not in (await host.models()).adapters:
                raise EngineFailed(f"{address} loaded {name!r} and does not list it")
            await host.try_out(name)
            self._loaded[address].add(name)
        logger.info("%s has loaded %s", address, name)

    def _flip(self, reference: str, name: str, place: Place) -> None:
        """Send what comes from now on to a version, at all replicas in the same moment."""
        for host in place.hosts:
            key = (host.address, reference)
            before = self._serving.get(key)
            if name in self._loaded[host.address]:
                self._serving[key] = name
            elif before is not None:
                del self._serving[key]
            if before is not None and before != name:
                self._leaving[host.address, before] = self._clock()
            self._leaving.pop((host.address, name), None)

    def _withdraw(self, reference: str, place: Place) -> None:
        """Send nothing more to what a reference meant that means nothing any more."""
        for host in place.hosts:
            name = self._serving.pop((host.address, reference), None)
            if name is not None:
                self._leaving[host.address, name] = self._clock()

    def _drop_unwanted(self, places: Mapping[str, Place]) -> None:
        """Stop serving what no route leads to any more."""
        wanted = {
            (host.address, reference)
            for place in places.values()
            for host in place.hosts
            for reference in place.references
        }
        for key in self._serving.keys() - wanted:
            self._leaving[key[0], self._serving.pop(key)] = self._clock()

    async def _let_go(self, places: Mapping[str, Place]) -> None:
        """Unload versions that nothing is sent to, once what was sent has been answered."""
        hosts = {host.address: host for place in places.values() for host in place.hosts}
        in_force = {(address, name) for (address, _), name in self._serving.items()}
        unloading = []
        for (address, name), since in list(self._leaving.items()):
            host, waited = hosts.get(address), self._clock() - since
            is_busy = self._leases[address, name] > 0 and waited < self._pace.drain_seconds
            if host is not None and (is_busy or waited < self._pace.grace_seconds):
                continue
            del self._leaving[address, name]
            if host is None or (address, name) in in_force:
                continue
            self._loaded[address].discard(name)
            unloading.append(self._unload(host, name))
        _raise_first(await asyncio.gather(*unloading, return_exceptions=True))

    async def _unload(self, host: AdapterHost, name: str) -> None:
        with suppress(EngineFailed):  # it is gone then, with all that it had
            async with self._turns[host.address]:
                await host.unload(name)
            logger.info("%s has unloaded %s", host.address, name)

    def _forget_gone(self, places: Mapping[str, Place]) -> None:
        """Let go of what is known of replicas and routes that there are no more.

        What is still lent to requests under way is given back by them.
        """
        here = {host.address for place in places.values() for host in place.hosts}
        wanted = {(name, each) for name, place in places.items() for each in place.references}
        by_address: tuple[dict[str, Any], ...] = (self._loaded, self._listed, self._turns)
        for known in by_address:
            for address in known.keys() - here:
                del known[address]
        self._known &= here
        self._failing &= here
        for key in self._problems.keys() - wanted:
            del self._problems[key]

    async def _tidy(self) -> None:
        """Remove files of versions that no replica has; one that has them may read them again."""
        if self._clock() - self._tidied_at < min(self._pace.keep_seconds, TIDY_SECONDS):
            return
        self._tidied_at = self._clock()
        needed = frozenset(self._serving.values()).union(
            *self._listed.values(), *self._loaded.values()
        )
        await asyncio.to_thread(
            prune, self._folder, needed=needed, keep_seconds=self._pace.keep_seconds
        )
        self._fetched = {
            digest: each for digest, each in self._fetched.items() if each.folder.is_dir()
        }


def _raise_first(outcomes: Iterable[object]) -> None:
    """Raise what the first that failed did, once all of them have ended."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
