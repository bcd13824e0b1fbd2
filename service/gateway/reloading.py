"""The routes in force, and how others take their place while requests are under way."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from infra.errors import InvalidConfiguration, RagstoneError
from infra.gateway_settings import Gateway
from infra.gateway_settings import Upstream as UpstreamSettings
from service.engines import ModelServer, ServerContext, open_server
from service.gateway.routing import Served, Table, check
from service.gateway.upstreams import DRAIN_SECONDS, Upstream
from service.work.rounds import Rounds

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0
"""Between two looks at the file of settings."""
PROBE_SECONDS = 2.0
"""Between two looks at replicas that are left alone."""


Location = tuple[str, str | None]
"""A replica's URL and key."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reload did, by name."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Tables:
    """Holds the table of routes in force.

    A call keeps the table that it began with; upstreams that the next one has no more are closed
    once nothing runs there.
    """

    def __init__(
        self,
        settings: Gateway,
        *,
        locate: Callable[[str], Sequence[Location]] | None = None,
        adapters: Callable[[], Served] | None = None,
        check: Callable[[Gateway], None] = lambda _: None,
    ) -> None:
        """Open the servers that the settings name.

        Args:
            settings: of the routes.
            locate: tells where an engine that runs on this machine is.
            adapters: knows what targets that name an adapter are to ask for.
            check: raises what else speaks against settings, such as a route that others need.

        Raises:
            InvalidConfiguration: the settings do not fit together.
        """
        self._locate = locate or _no_engine
        self._adapters = adapters
        self._check = check
        self._past: list[Table] = []
        """No more in force, and calls may yet ask their servers."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[Callable[[Gateway], None]] = []
        self._read: Callable[[], Gateway] | None = None
        self.current = self._build(settings, {})

    def subscribe(self, listener: Callable[[Gateway], None]) -> None:
        """Have `listener` told of the settings that are in force after each reload."""
        self._listeners.append(listener)

    def replace(self, settings: Gateway) -> Changes:
        """Put other routes in force; those that stay keep their servers, connections and breakers.

        Raises:
            InvalidConfiguration: they do not fit together; what was in force stays so.
        """
        before = self.current
        self.current = self._build(settings, before.upstreams)
        self._past = [table for table in (*self._past, before) if table.users]
        for name, upstream in before.upstreams.items():
            if self.current.upstreams.get(name) is not upstream:
                self._retire(upstream)
        for listener in self._listeners:
            listener(settings)
        changes = _compare(before.settings, settings)
        logger.info(
            "routes reloaded: %d added, %d changed, %d removed",
            len(changes.added),
            len(changes.changed),
            len(changes.removed),
        )
        return changes

    async def reload(self) -> Changes:
        """Read the settings anew and put their routes in force.

        Raises:
            InvalidConfiguration: says why; what was in force stays so.
        """
        if self._read is None:
            raise InvalidConfiguration("This gateway was started without settings to read again")
        return self.replace(await asyncio.to_thread(self._read))

    async def start(self, *, read: Callable[[], Gateway], file: Path | None = None) -> None:
        """Watch over replicas that are left alone, over the file of settings, and for SIGHUP."""
        self._read = read
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_signal)
        self._tasks.append(asyncio.create_task(self._probe()))
        if file is not None:
            self._tasks.append(asyncio.create_task(self._watch(file)))

    async def close(self) -> None:
        """Close every server."""
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        for task in (*self._tasks, *self._leaving):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._leaving, return_exceptions=True)
        async with AsyncExitStack() as stack:  # one that fails to close keeps no other open
            for upstream in self.current.upstreams.values():
                stack.push_async_callback(upstream.close)

    def _build(self, settings: Gateway, known: Mapping[str, Upstream]) -> Table:
        check(settings)
        self._check(settings)
        upstreams = {}
        opened: list[ModelServer] = []
        try:
            for name, options in settings.upstreams.items():
                before = known.get(name)
                places = self._locations(name, options)
                if before is not None and _is_same(before, options, places):
                    upstreams[name] = before
                    continue
                servers = []
                for place in places:
                    servers.append(_open(name, options, place))
                    opened.append(servers[-1])
                upstreams[name] = Upstream(name, options, servers, locations=places)
            return Table(settings, upstreams, self._adapters)
        except BaseException:
            self._give_up(opened)
            raise

    def _give_up(self, servers: Sequence[ModelServer]) -> None:
        """Close servers that no table leads to; the first table is made before a loop runs."""

        async def close() -> None:
            for server in servers:
                await server.close()

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(close())
            return
        self._watch_over(loop.create_task(close()))

    def _watch_over(self, task: asyncio.Task[None]) -> None:
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _locations(self, name: str, options: UpstreamSettings) -> Sequence[Location]:
        if options.engine is not None:
            if options.urls:
                raise InvalidConfiguration(
                    f"gateway.upstreams.{name} has urls and an engine; leave one of them out"
                )
            return tuple(self._locate(options.engine))
        key = options.api_key.get_secret_value() if options.api_key else None
        return tuple((url, key) for url in options.urls or ("",))

    def _retire(self, upstream: Upstream) -> None:
        """Close an upstream once no call runs there, waits there or may yet come from a past table.

        One that waits to try again, or to fall back, is with no upstream at all.
        """
        past = [table for table in self._past if upstream in table.upstreams.values()]
        closing = upstream.close(
            patience_seconds=DRAIN_SECONDS,
            is_held=lambda: any(table.users for table in past),
        )
        self._watch_over(asyncio.get_running_loop().create_task(closing))

    async def _probe(self) -> None:
        rounds = Rounds("the model servers")
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            await rounds.attempt(self._look_at_servers)

    async def _look_at_servers(self) -> None:
        self._follow_engines()
        for upstream in self.current.upstreams.values():
            await upstream.probe()

    def _follow_engines(self) -> None:
        """Take engines in that were started, stopped or moved to other ports meanwhile."""
        table = self.current
        for name, upstream in table.upstreams.items():
            if upstream.settings.engine is None:
                continue
            if upstream.locations != tuple(self._locations(name, upstream.settings)):
                self.replace(table.settings)
                return

    async def _watch(self, file: Path) -> None:
        rounds = Rounds("the settings")
        seen = _stamp(file)
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = _stamp(file)
            if now != seen:
                seen = now
                await rounds.attempt(self._reload_or_say_why)

    async def _reload_or_say_why(self) -> None:
        """Reload where nobody waits for the answer: a failure is logged, and changes nothing."""
        try:
            await self.reload()
        except (RagstoneError, OSError) as error:
            logger.error("the routes stay as they are: %s", error)

    def _on_signal(self) -> None:
        self._watch_over(asyncio.get_running_loop().create_task(self._reload_or_say_why()))


def _open(name: str, options: UpstreamSettings, location: Location) -> ModelServer:
    url, key = location
    context = ServerContext(
        url=url,
        api_key=key,
        connect_seconds=options.connect_seconds,
        silence_seconds=options.silence_seconds,
        options=options.options,
    )
    try:
        return open_server(options.plugin, context)
    except InvalidConfiguration as error:
        raise InvalidConfiguration(f"gateway.upstreams.{name}: {error}") from error


def _is_same(upstream: Upstream, options: UpstreamSettings, locations: Sequence[Location]) -> bool:
    return upstream.settings == options and upstream.locations == tuple(locations)


def _compare(before: Gateway, after: Gateway) -> Changes:
    old, new = before.routes, after.routes
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _no_engine(name: str) -> Sequence[Location]:
    raise InvalidConfiguration(f"No engine {name!r} is run by this service; give its urls instead")
