"""From a model's name to the servers that may answer: weights, tags, fallbacks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from infra.artifacts.refs import check_alias
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound, RagstoneError
from infra.gateway_settings import Gateway
from infra.gateway_settings import Route as RouteSettings
from infra.gateway_settings import Target as TargetSettings
from service.callers import Caller
from service.engines import ModelServer
from service.gateway.adapters import Lease
from service.gateway.upstreams import Replica, ReplicaState, Upstream, states


class Served(Protocol):
    """Knows which adapters are loaded where; see `service.gateway.adapters`."""

    def served_name(self, reference: str, address: str) -> str | None: ...

    def lease(self, reference: str, address: str) -> Lease | None: ...

    def problem(self, reference: str, upstream: str) -> RagstoneError: ...

    def lost(self, address: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter that a target asks for in place of the model."""

    reference: str
    served: Served


@dataclass(frozen=True, slots=True)
class Target:
    """One of the places a route leads to."""

    upstream: Upstream
    model: str
    """As the server calls it."""
    tag: str
    weight: float
    first_byte_seconds: float
    """As long as a server may take to begin: well before the route's deadline, so that one that
    hangs is known to hang, and another can answer."""
    adapter: Adapted | None = None

    @property
    def unserved(self) -> list[Replica]:
        """The replicas that do not have the adapter, if it is one that is asked for."""
        return [replica for replica in self.upstream.replicas if self.name_at(replica) is None]

    @property
    def version(self) -> str | None:
        """What the servers call the model or the adapter's version now; None if none has it."""
        names = map(self.name_at, self.upstream.replicas)
        return next((name for name in names if name is not None), None)

    def name_at(self, replica: Replica) -> str | None:
        """Return what a replica calls it now; None if it does not have the adapter."""
        if self.adapter is None:
            return self.model
        return self.adapter.served.served_name(self.adapter.reference, replica.server.address)


@dataclass(frozen=True, slots=True)
class Variant:
    """Where a call would go: what beside its body decides the answer."""

    upstream: str
    model: str
    """As the server calls it."""
    tag: str
    opening: int = 0
    """The number of the upstream: behind another URL there may be another model."""


class Route:
    """A name that clients know, and where requests for it may go."""

    def __init__(
        self,
        name: str,
        settings: RouteSettings,
        upstreams: Mapping[str, Upstream],
        adapters: Callable[[], Served] | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.targets, self.shadow = (
            tuple(
                _target(
                    name,
                    item,
                    upstreams[item.upstream],
                    deadline_seconds=settings.deadline_seconds,
                    adapters=adapters,
                )
                for item in items
            )
            for items in (settings.targets, settings.shadow)
        )
        self._total = sum(target.weight for target in self.targets)

    def order(self, user: str | None, *, tag: str | None = None) -> tuple[Target, ...]:
        """Return the targets in the order in which they are tried.

        The first is drawn by weight, the same for the same user as long as the weights are; the
        others follow by weight. One that has none is only reached by its tag.

        Raises:
            InvalidRequest: no target has this tag.
        """
        if tag is not None:
            found = tuple(target for target in self.targets if target.tag == tag)
            if not found:
                known = ", ".join(sorted({target.tag for target in self.targets}))
                raise InvalidRequest(f"No target {tag[:60]!r} of {self.name!r}; there are {known}")
            return found
        if len(self.targets) == 1:
            return self.targets
        first = self._draw(user)
        others = (item for item in self.targets if item is not first and item.weight > 0)
        return (first, *sorted(others, key=lambda item: -item.weight))

    def variant(self, user: str | None, *, tag: str | None = None) -> Variant | None:
        """Return where a call would go; None where chance decides, or answers are not kept."""
        is_by_chance = user is None and tag is None and len(self.targets) > 1
        if is_by_chance or not self.settings.cache:
            return None
        target = self.order(user, tag=tag)[0]
        if (version := target.version) is None:
            return None
        return Variant(target.upstream.name, version, target.tag, target.upstream.number)

    def _draw(self, user: str | None) -> Target:
        point = self._total * (random.random() if user is None else share_of(self.name, user))
        for target in self.targets:
            point -= target.weight
            if point < 0:
                return target
        return max(self.targets, key=lambda target: target.weight)


class Table:
    """All routes and the upstreams they lead to; replaced as a whole, never changed."""

    def __init__(
        self,
        settings: Gateway,
        upstreams: Mapping[str, Upstream],
        adapters: Callable[[], Served] | None = None,
    ) -> None:
        """Connect the routes of `settings`; `adapters` is called where one of them names one.

        The settings were checked.
        """
        self.settings = settings
        self.upstreams = upstreams
        self.made_at = int(time.time())
        """In seconds since 1970."""
        self.users = 0
        """Calls that may yet ask any of its servers; these stay open for them."""
        self.routes = {
            name: Route(name, route, upstreams, adapters) for name, route in settings.routes.items()
        }

    def find(self, model: str) -> Route:
        """Return the route of this name.

        Raises:
            NotFound: there is none.
        """
        route = self.routes.get(model)
        if route is None:
            raise NotFound("model", model[:200])
        return route

    def names(self, caller: Caller) -> list[str]:
        """Return the names of the routes that a caller may use."""
        return [name for name in self.routes if self.is_open(name, caller)]

    def is_open(self, model: str, caller: Caller) -> bool:
        """Whether there is a route of this name that the caller may use."""
        route = self.routes.get(model)
        if route is None or not caller.may_use(model):
            return False
        return caller.tenant is None or route.settings.tenant in {None, caller.tenant}

    def servers(self, upstream: str) -> list[ModelServer]:
        """Return the servers of an upstream."""
        return [replica.server for replica in self.upstreams[upstream].replicas]

    def snapshot(self) -> list[ReplicaState]:
        """Return every replica with what runs and waits there, and its breaker's state."""
        return states(list(self.upstreams.values()))


def check(settings: Gateway) -> None:
    """Refuse routes that name what there is not, or could reach nothing.

    Raises:
        InvalidConfiguration: names the route and what is wrong with it.
    """
    for name, route in settings.routes.items():
        for target in (*route.targets, *route.shadow):
            if target.upstream not in settings.upstreams:
                raise InvalidConfiguration(
                    f"gateway.routes.{name} leads to the upstream {target.upstream!r}, which is "
                    f"not there; there are {', '.join(settings.upstreams) or 'none'}"
                )
        if not any(target.weight > 0 for target in route.targets):
            raise InvalidConfiguration(f"gateway.routes.{name}: no target has a weight above 0")
        for target in route.shadow:
            if target.weight > 1:
                raise InvalidConfiguration(
                    f"gateway.routes.{name}.shadow has the weight {target.weight:g}; there it is "
                    "the share of requests that are copied, 0 to 1"
                )
        _check_fallback(name, route, settings)
    for name in settings.canaries:
        canary_aliases(settings, name)


def canary_aliases(settings: Gateway, route: str) -> tuple[str, str, str]:
    """Return the adapter of a canary, the alias in use, and that of the canary.

    Raises:
        InvalidConfiguration: there are no two targets of that kind.
    """
    canary, where = settings.canaries[route], f"gateway.canaries.{route}"
    if route not in settings.routes:
        raise InvalidConfiguration(f"{where}: there is no such route")
    found = []
    for tag in (canary.live, canary.canary):
        named = [each.adapter for each in settings.routes[route].targets if each.tag == tag]
        reference = named[0] if len(named) == 1 and named[0] is not None else ""
        adapter, _, alias = reference.partition("@")
        try:
            found.append((adapter, check_alias(alias)))
        except InvalidRequest as error:
            raise InvalidConfiguration(
                f"{where}: one target of the route has the tag {tag!r} and names an adapter by "
                f"its alias, such as adapter/NAME@production, not {reference!r}"
            ) from error
    (name, used), (other, apart) = found
    if name != other or used == apart:
        raise InvalidConfiguration(
            f"{where}: the targets name {name}@{used} and {other}@{apart}; they name two "
            "aliases of one adapter"
        )
    return name, used, apart


def _check_fallback(name: str, route: RouteSettings, settings: Gateway) -> None:
    for other in route.fallback:
        if other not in settings.routes:
            raise InvalidConfiguration(
                f"gateway.routes.{name} falls back to {other!r}, which is no route"
            )
        if settings.routes[other].kind != route.kind:
            raise InvalidConfiguration(
                f"gateway.routes.{name} falls back to {other!r}, which does something else: "
                f"{settings.routes[other].kind!r}, not {route.kind!r}"
            )


def _target(
    route: str,
    settings: TargetSettings,
    upstream: Upstream,
    *,
    deadline_seconds: float,
    adapters: Callable[[], Served] | None,
) -> Target:
    model = settings.adapter or settings.model or route
    patience = min(upstream.settings.first_byte_seconds, deadline_seconds / 2)
    adapted = None
    if settings.adapter is not None:
        if adapters is None:
            raise InvalidConfiguration(
                f"gateway.routes.{route} names the adapter {settings.adapter!r}, and this gateway "
                "has no artifacts to take it from"
            )
        adapted = Adapted(settings.adapter, adapters())
    return Target(upstream, model, settings.tag, settings.weight, patience, adapted)


def share_of(route: str, user: str) -> float:
    """Return a point in [0, 1) that is the same for the same user of the same route."""
    digest = blake2b(f"{route}\0{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
