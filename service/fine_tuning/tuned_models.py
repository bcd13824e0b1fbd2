"""Tuned models as routes of the gateway: served where their base is, at its price, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import select

from infra.database.engine import Database
from infra.database.fine_tuning_tables import tuned_model
from infra.fine_tuning_settings import FineTuning
from infra.gateway_settings import Gateway, Route
from service.gateway.reloading import Tables
from service.rounds import Rounds

Value = TypeVar("Value")
WATCH_SECONDS = 1.0
"""Between two looks for models that other processes tuned or deleted."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A model that came out of a fine-tuning."""

    name: str
    base: str
    """As the settings name what it was made from."""
    tenant: str | None
    adapter: str
    """A reference to one version."""


class TunedModels:
    """Adds the newest tuned models to the routes of the settings.

    `refresh`, `start` and `close` are for one event loop.
    """

    def __init__(
        self,
        database: Callable[[], Database],
        settings: FineTuning,
        *,
        hurry: Callable[[], None] = lambda: None,
    ) -> None:
        """Take where models are written down.

        Args:
            database: is opened if a model may be tuned at all.
            settings: name the models and how many are served.
            hurry: is called when there are others than before, to have them loaded at once.
        """
        self._database = database
        self._settings = settings
        self._hurry = hurry
        self._plain = Gateway()
        self._known: tuple[Tuned, ...] = ()
        self._round = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def extended(self, plain: Gateway) -> Gateway:
        """Return the gateway of the settings with the routes of tuned models."""
        self._known, self._plain = self._read(), plain
        return extended(plain, self._known, self._settings)

    async def refresh(self, tables: Tables) -> None:
        """Have models that are new served, and those that were deleted not."""
        async with self._round:
            found = await asyncio.to_thread(self._read)
            if found == self._known:
                return
            tables.replace(extended(self._plain, found, self._settings))
            self._known = found
            self._hurry()

    def start(self, tables: Tables) -> None:
        """Look again and again, from now on, if a model may be tuned."""
        if self._settings.models:
            self._task = asyncio.get_running_loop().create_task(self._watch(tables))

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self, tables: Tables) -> None:
        rounds = Rounds("the tuned models")
        while True:
            await rounds.attempt(lambda: self.refresh(tables))
            await asyncio.sleep(WATCH_SECONDS)

    def _read(self) -> tuple[Tuned, ...]:
        """Return the newest, the oldest of them first."""
        if not self._settings.models:
            return ()
        table = tuned_model.c
        query = (
            select(table.name, table.base, table.tenant, table.adapter)
            .where(table.base.in_(self._settings.models))
            .order_by(table.number.desc())
            .limit(self._settings.max_served)
        )
        with self._database().read() as connection:
            return tuple(Tuned(*row) for row in reversed(connection.execute(query).all()))


def extended(plain: Gateway, tuned: tuple[Tuned, ...], settings: FineTuning) -> Gateway:
    """Return a gateway with a route for each tuned model whose base has one.

    A name that the settings give to a route stays theirs.
    """
    routes: dict[str, Route] = {}
    prices, limits = dict(plain.prices), dict(plain.model_limits)
    for model in tuned:
        base = settings.models[model.base].route or model.base
        route = plain.routes.get(base)
        found = None if route is None else _route(route, model)
        if found is None or model.name in plain.routes:
            continue
        routes[model.name] = found
        _inherit(prices, model.name, base)
        _inherit(limits, model.name, base)
    if not routes:
        return plain
    return plain.model_copy(
        update={
            "routes": {**plain.routes, **routes},
            "prices": prices,
            "model_limits": limits,
        }
    )


def _route(base: Route, model: Tuned) -> Route | None:
    """Return the route of a base, with an adapter in place of the model; None if it has none.

    Nor has it one where the base is another tenant's. It falls back to nothing: another model's
    answer would pass for its own.
    """
    if base.tenant is not None and model.tenant not in {None, base.tenant}:
        return None
    targets = tuple(
        target.model_copy(update={"model": None, "adapter": model.adapter})
        for target in base.targets
        if target.adapter is None
    )
    if base.kind != "chat" or not any(target.weight > 0 for target in targets):
        return None
    whose = base.tenant if model.tenant is None else model.tenant
    changes = {"targets": targets, "shadow": (), "fallback": (), "tenant": whose}
    return base.model_copy(update=changes)


def _inherit(values: dict[str, Value], name: str, base: str) -> None:
    if base in values and name not in values:
        values[name] = values[base]
