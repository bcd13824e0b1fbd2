"""Which adapters belong where: from routes, upstreams and engines to replicas that take them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from infra.engine_settings import EngineProcess
from infra.gateway_settings import Gateway, Upstream
from service.engines import ModelServer
from service.gateway.adapter_files import Base
from service.gateway.adapter_hosts import AdapterHost, Holder, HttpHost, InProcessHost
from service.gateway.adapters import Place
from service.supervision.engines import Engines


class Places:
    """Looks anew at every call: routes are reloaded, and engines come and go."""

    def __init__(
        self,
        gateway: Callable[[], Gateway],
        *,
        engines: Engines,
        servers: Callable[[str], Sequence[ModelServer]] = lambda _: (),
    ) -> None:
        """`servers` returns those of an upstream whose model lives in this process."""
        self._gateway = gateway
        self._engines = engines
        self._servers = servers
        self._http: dict[tuple[str, str | None], HttpHost] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def __call__(self) -> Mapping[str, Place]:
        """Return, by upstream, the adapters that routes lead to there and the replicas."""
        settings = self._gateway()
        found = {
            name: Place(
                frozenset(references),
                self._hosts(name, settings.upstreams[name]),
                self._base(settings.upstreams[name]),
            )
            for name, references in _wanted(settings).items()
            if name in settings.upstreams
        }
        self._part_with_others(found.values())
        return found

    async def close(self) -> None:
        """Give the connections up."""
        closing = [*self._leaving, *(host.close() for host in self._http.values())]
        self._http.clear()
        await asyncio.gather(*closing, return_exceptions=True)

    def _part_with_others(self, places: Iterable[Place]) -> None:
        """Close connections to replicas that nothing leads to any more."""
        kept = {id(host) for place in places for host in place.hosts}
        for key, host in list(self._http.items()):
            if id(host) not in kept:
                del self._http[key]
                task = asyncio.get_running_loop().create_task(host.close())
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    def _hosts(self, name: str, upstream: Upstream) -> list[AdapterHost]:
        if upstream.engine is not None:
            addresses = self._engines.addresses(upstream.engine)
            return [self._host(address.url, address.key) for address in addresses]
        if upstream.urls:
            key = upstream.api_key.get_secret_value() if upstream.api_key else None
            return [self._host(url, key) for url in upstream.urls]
        return [
            InProcessHost(server) for server in self._servers(name) if isinstance(server, Holder)
        ]

    def _host(self, url: str, key: str | None) -> AdapterHost:
        return self._http.setdefault((url, key), HttpHost(url, key=key))

    def _base(self, upstream: Upstream) -> Base:
        known = self._engines.settings.get(upstream.engine or "")
        return base_of(known) if known is not None else Base(frozenset())


def base_of(engine: EngineProcess) -> Base:
    """Return what the settings say of an engine's model."""
    return Base(
        frozenset({engine.model}),
        digest=engine.model_digest,
        max_rank=engine.max_lora_rank if engine.lora else None,
    )


def _wanted(settings: Gateway) -> dict[str, set[str]]:
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for route in settings.routes.values():
        for target in (*route.targets, *route.shadow):
            if target.adapter is not None:
                wanted[target.upstream].add(target.adapter)
    return wanted
