"""Tuned models as routes of the gateway: served where their base is, at its price, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import Field
from sqlalchemy import func, select

from infra.database.engine import Database
from infra.database.fine_tuning_tables import tuned_model
from infra.fine_tuning_settings import FineTuning
from infra.gateway_settings import Gateway, Route
from service.fine_tuning.records import CHECKPOINT
from service.gateway.reloading import Tables
from service.work.rounds import Rounds

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


class Extended(Gateway):
    """A gateway's settings with the routes of tuned models; knows what it was made of."""

    plain: Gateway = Field(exclude=True, repr=False)
    tuned: tuple[Tuned, ...] = Field(exclude=True, repr=False)


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
        self._round = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def extended(self, plain: Gateway) -> Gateway:
        """Return the gateway of the settings with the routes of tuned models."""
        return extended(plain, self._read(), self._settings)

    async def refresh(self, tables: Tables) -> None:
        """Have models that are new served, and those that were deleted not."""
        async with self._round:
            found = await asyncio.to_thread(self._read)
            current = tables.current.settings
            plain, known = (
                (current.plain, current.tuned) if isinstance(current, Extended) else (current, ())
            )
            if found != known:
                tables.replace(extended(plain, found, self._settings))
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
        """Return the newest of each tenant, the oldest of them first.

        Checkpoints come after models: those of one long run displace no model.
        """
        if not self._settings.models:
            return ()
        table = tuned_model.c
        order = (table.name.contains(CHECKPOINT), table.number.desc())
        ranked = (
            select(
                tuned_model,
                func.row_number().over(partition_by=table.tenant, order_by=order).label("rank"),
            )
            .where(table.base.in_(self._settings.models))
            .subquery()
        ).c
        query = (
            select(ranked.name, ranked.base, ranked.tenant, ranked.adapter)
            .where(ranked.rank <= self._settings.max_served)
            .order_by(ranked.number)
        )
        with self._database().read() as connection:
            return tuple(Tuned(*row) for row in connection.execute(query))


def extended(plain: Gateway, tuned: tuple[Tuned, ...], settings: FineTuning) -> Gateway:
    """Return a gateway with a route for each tuned model whose base has one.

    A name that the settings give to a route stays theirs.
    """
    if not tuned:
        return plain
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
    values = {**dict(plain), "routes": {**plain.routes, **routes}}
    values |= {"prices": prices, "model_limits": limits}
    return Extended.model_construct(**values, plain=plain, tuned=tuned)


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
