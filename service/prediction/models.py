"""Which models are served: by name, version and alias, loaded when needed, swapped when moved."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal

from infra.artifacts.store import ArtifactStore
from infra.classical import KIND
from infra.errors import (
    InvalidRequest,
    MissingDependency,
    NotFound,
    NotReady,
    RagstoneError,
    StorageFailed,
)
from infra.model_settings import Models as Options
from service.limits import in_thread
from service.prediction import loading
from service.prediction.batching import Batcher, Bounds
from service.prediction.loading import Key, Loaded
from service.prediction.shelf import Shelf
from service.prediction.views import Views
from service.runtimes import Runtime
from service.work.rounds import Rounds

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""Until a version that could not be loaded is tried again."""
_VERSION = re.compile(r"v?([1-9][0-9]{0,8})")
State = Literal["READY", "LOADING", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True, eq=False)
class Hosted(Loaded):
    """A version that answers requests of a loop."""

    batcher: Batcher

    @classmethod
    def of(cls, loaded: Loaded, batcher: Batcher) -> Hosted:
        values = {each.name: getattr(loaded, each.name) for each in fields(Loaded)}
        return cls(**values, batcher=batcher)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a name stands in the repository."""

    name: str
    version: str
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    is_other: bool
    """It is no classical model, such as a language model under the same kind."""
    at: float

    def error(self, name: str) -> RagstoneError:
        return NotFound("model", name) if self.is_other else NotReady(self.reason)


class Models:
    """Used from one event loop; what is loaded answers from memory, without the database."""

    def __init__(
        self,
        store: Callable[[], ArtifactStore],
        options: Options,
        *,
        observe: Callable[[str, int], None] = lambda _name, _rows: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the store, the settings, and who is told the name and rows of each batch."""
        self._store = store
        self.options = options
        self._observe = observe
        self._clock = clock
        self._shelf: Shelf[Hosted] = Shelf(options.cache_bytes)
        self.views = Views(store, options.view_bytes)
        self._threads = ThreadPoolExecutor(options.threads, "predict")
        self._targets: Mapping[tuple[str, str], str] = {}
        """By name and alias, the digest that is meant."""
        self._in_force: dict[tuple[str, str], str] = {}
        """By name and alias, the digest that answers: one that was loaded and tried."""
        self._versions: dict[tuple[str, int], str] = {}
        self._loading: dict[Key, asyncio.Task[Hosted]] = {}
        self._failures: dict[Key, _Failure] = {}
        """Versions that cannot be loaded: they are not tried again with every request."""
        self._reads: dict[Key, tuple[float, int]] = {}
        """When a version was loaded, and its bytes."""
        self._unloaded: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.has_looked = False
        """Whether what aliases mean was looked up, and loaded or refused."""

    @property
    def loaded(self) -> int:
        return len(self._shelf)

    @property
    def loaded_bytes(self) -> int:
        return self._shelf.bytes

    def start(self) -> None:
        """Follow the aliases, from now on."""
        if self.options.names:
            self._task = asyncio.get_running_loop().create_task(self._watch())
        else:
            self.has_looked = True

    async def close(self) -> None:
        """Stop following; batches under way end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def at_hand(self, name: str, selector: str | None) -> Hosted | None:
        """Return what answers, if it is loaded."""
        if name in self._unloaded:
            return None
        if selector is None:
            digest = self._in_force.get((name, self.options.alias))
        elif number := _VERSION.fullmatch(selector):
            digest = self._versions.get((name, int(number[1])))
        else:
            digest = self._in_force.get((name, selector))
        return None if digest is None else self._shelf.get((name, digest))

    def challenger(self, live: Loaded) -> Hosted | None:
        """Return the version that is compared with the one that answers, if it is loaded.

        One that answers something else, such as numbers in place of classes, never takes its place.
        """
        settings = self.options.challengers.get(live.name)
        found = None if settings is None else self.at_hand(live.name, settings.alias)
        if found is None or found.key == live.key:
            return None
        is_alike = (found.model.task, found.label_type) == (live.model.task, live.label_type)
        return found if is_alike else None

    async def find(self, name: str, selector: str | None = None) -> Hosted:
        """Return what answers, loading it if need be.

        Args:
            name: without `model/`.
            selector: a version such as `3` or `v3`, or an alias; the settings' alias by default.

        Raises:
            NotFound: there is none, or it is not served.
            InvalidRequest: it is there, and cannot be loaded.
        """
        found = self.at_hand(name, selector)
        if found is not None:
            return found
        self._require_served(name)
        number = _VERSION.fullmatch(selector) if selector is not None else None
        if number is not None:
            return await self._find_version(name, int(number[1]))
        alias = self.options.alias if selector is None else selector
        if (name, alias) not in self._targets:
            await self._look_up()
        digest = self._in_force.get((name, alias)) or self._targets.get((name, alias))
        if digest is None:
            raise self._no_model(name, alias)
        loaded = await self._load(name, digest)
        self._in_force.setdefault((name, alias), digest)
        return loaded

    async def versions(self, name: str) -> list[str]:
        """Return the numbers of the versions that may be asked for, oldest first."""
        self._require_served(name)
        found = await in_thread(lambda: self._store().versions(f"{KIND}/{name}"))
        return [str(each.reference.version) for each in reversed(found)]

    def standings(self) -> list[Standing]:
        """Return every classical model that the settings' alias has a version of, by name."""
        found = []
        for (name, alias), digest in sorted(self._targets.items()):
            if alias != self.options.alias or not self._is_served(name):
                continue
            failure = self._failures.get((name, digest))
            reason = failure.reason if failure else ""
            held = self.at_hand(name, None)
            if failure is not None and failure.is_other and held is None:
                continue  # as `find` says, there is no such model
            if name in self._unloaded:
                found.append(Standing(name, "", "UNAVAILABLE", "unloaded"))
            elif held is not None:
                joins = held.reader.joins
                reason = reason or (joins and joins.problem) or ""
                found.append(Standing(name, held.version, "READY", reason))
            elif (name, digest) in self._loading:
                found.append(Standing(name, "", "LOADING"))
            else:
                found.append(
                    Standing(name, "", "UNAVAILABLE", reason or "it is loaded when it is asked for")
                )
        return found

    async def load(self, name: str) -> Hosted:
        """Load a name, also one that was unloaded, or whose version failed; raises as `find`."""
        self._require_served(name, also_unloaded=True)
        await self._look_up()
        key = (name, self.options.alias)
        if (digest := self._targets.get(key)) is None:
            raise self._no_model(*key)
        self._failures.pop((name, digest), None)
        loaded = await self._load(name, digest)
        self._unloaded.discard(name)
        self._in_force[key] = digest
        return loaded

    async def unload(self, name: str) -> None:
        """Answer for a name no more, until it is loaded again or the process starts anew."""
        self._require_served(name, also_unloaded=True)
        await self._look_up()
        if (name, self.options.alias) not in self._targets:
            raise self._no_model(name, self.options.alias)
        self._unloaded.add(name)
        for key in [key for key in self._in_force if key[0] == name]:
            del self._in_force[key]  # or a challenger would count as loaded ever after
        for held in self._shelf:
            if held.name == name:
                self._shelf.remove(held.key)

    async def refresh(self) -> None:
        """Look at aliases and views, and put in force what they mean now once it is loaded."""
        await self._look_up()
        for key in [key for key in self._in_force if key not in self._targets]:
            del self._in_force[key]
        wanted = {*self._in_force, *filter(self._is_followed, self._targets)}
        for name, alias in sorted(wanted, key=lambda key: (key[1] != self.options.alias, key)):
            if self._is_served(name) and name not in self._unloaded:
                await self._follow(name, alias)
        self._prune()
        self.has_looked = True
        if len(self.views):
            await in_thread(self.views.refresh)

    async def _watch(self) -> None:
        rounds = Rounds("the models")
        while True:
            await rounds.attempt(self.refresh)
            await asyncio.sleep(self.options.watch_seconds)

    def _is_followed(self, key: tuple[str, str]) -> bool:
        name, alias = key
        challenger = self.options.challengers.get(name)
        return alias == self.options.alias or bool(challenger and challenger.alias == alias)

    async def _look_up(self) -> None:
        self._targets = await in_thread(lambda: self._store().targets(KIND))

    async def _follow(self, name: str, alias: str) -> None:
        """Have an alias answered by what it means now; until that is loaded, by what it meant."""
        digest, before = self._targets.get((name, alias)), self._in_force.get((name, alias))
        if digest is None or (digest == before and not self._has_to_return(name, alias, digest)):
            return
        if before is None and self._shelf.is_full:
            return  # it is loaded when it is asked for
        try:
            loaded = await self._load(name, digest)
        except RagstoneError:  # noted, and told of in the repository's index
            return
        self._in_force[name, alias] = digest
        logger.info("%s@%s is answered by version %s", name, alias, loaded.version)

    def _has_to_return(self, name: str, alias: str, digest: str) -> bool:
        """Whether a challenger made room for others, and what it is compared with leaves it some.

        No request loads it, as it does the version in use. It does not return with every look, or
        those that have no room for each other would be loaded all the time.
        """
        if alias == self.options.alias or not self._is_followed((name, alias)):
            return False
        when, size = self._reads.get((name, digest), (-math.inf, 0))
        if (name, digest) in self._shelf or self._clock() - when < RETRY_SECONDS:
            return False
        live = self.at_hand(name, None)
        return live is not None and live.runtime.size_bytes + size <= self.options.cache_bytes

    def _prune(self) -> None:
        """Forget versions that are not loaded, and failures that nothing means any more."""
        meant = {(name, digest) for (name, _), digest in self._targets.items()}
        now = self._clock()
        self._versions = {
            (name, number): digest
            for (name, number), digest in self._versions.items()
            if (name, digest) in self._shelf
        }
        self._reads = {key: read for key, read in self._reads.items() if key in meant}
        self._failures = {
            key: failure
            for key, failure in self._failures.items()
            if key in meant or now - failure.at < RETRY_SECONDS
        }

    async def _find_version(self, name: str, number: int) -> Hosted:
        reference = f"{KIND}/{name}@v{number}"
        found = await in_thread(lambda: self._store().find(reference))
        loaded = await self._load(name, found.digest)
        self._versions[name, number] = found.digest
        return loaded

    async def _load(self, name: str, digest: str) -> Hosted:
        """Load once, however many ask for it meanwhile; one that leaves breaks nothing off."""
        key = (name, digest)
        if (held := self._shelf.get(key)) is not None:
            return held
        failure = self._failures.get(key)
        if failure is not None and self._clock() - failure.at < RETRY_SECONDS:
            raise failure.error(name)
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._read(name, digest))
            self._loading[key] = task
            task.add_done_callback(partial(self._forget, key))
        return await asyncio.shield(task)

    def _forget(self, key: Key, done: asyncio.Task[Hosted]) -> None:
        del self._loading[key]
        with suppress(asyncio.CancelledError):
            done.exception()  # or it is told of as never looked at, where everybody has left

    async def _read(self, name: str, digest: str) -> Hosted:
        reference = f"{KIND}/{name}@{digest}"
        try:
            read = await in_thread(
                lambda: loading.read(self._store(), reference, self.options, views=self.views)
            )
        except (InvalidRequest, MissingDependency, NotFound, StorageFailed) as error:
            failure = self._failed(name, error)
            self._failures[name, digest] = failure
            raise failure.error(name) from error
        self._failures.pop((name, digest), None)
        loaded = Hosted.of(read, self._batcher(name, read.runtime))
        self._reads[loaded.key] = (self._clock(), read.runtime.size_bytes)
        self._shelf.put(loaded)
        return loaded

    def _batcher(self, name: str, runtime: Runtime) -> Batcher:
        bounds = Bounds(
            self.options.max_batch_rows, self.options.concurrency, self.options.max_waiting
        )
        return Batcher(runtime.run, self._threads, bounds, observe=partial(self._observe, name))

    def _failed(self, name: str, error: RagstoneError) -> _Failure:
        is_other = isinstance(error, NotFound) and error.kind == "classical model"
        reason = f"Model {name!r} cannot be loaded: {error.message}"
        if is_other:
            reason = f"{KIND}/{name} is no classical model"
        if not is_other or any(name == held for held, _ in self._in_force):
            logger.error("%s", reason)
        return _Failure(reason, is_other, self._clock())

    def _is_served(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.options.names)

    def _require_served(self, name: str, *, also_unloaded: bool = False) -> None:
        if not self._is_served(name) or (name in self._unloaded and not also_unloaded):
            raise NotFound("model", name)

    def _no_model(self, name: str, alias: str) -> NotFound:
        known = [each for each, other in self._targets if other == alias and self._is_served(each)]
        if name in {known for known, _ in self._targets}:
            return NotFound("model", f"{name}@{alias}")
        return NotFound("model", name, among=known)
