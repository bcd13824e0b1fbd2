"""Gets a call begun: a target, a replica, tries and fallbacks, all before the first byte."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import cast

from infra.errors import EngineFailed, EngineTimedOut, EngineUnreachable, Overloaded
from service.gateway import estimate
from service.gateway.answers import Refused
from service.gateway.attempts import Begun, NotServed, send, unserved
from service.gateway.calls import Call, Outcome
from service.gateway.retries import RetryBudget
from service.gateway.routing import Route, Table, Target
from service.gateway.upstreams import Replica

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.05
"""Before a replica is tried again, doubled each time; half of it by chance."""


class Sender:
    """Finds who begins to answer a call."""

    def __init__(self) -> None:
        self._budget = RetryBudget()

    async def begin(
        self, call: Call, table: Table, outcome: Outcome, *, note: Callable[[], None]
    ) -> Begun:
        """Try the call's route, then its fallbacks; `outcome` notes who answered.

        `note` is called each time that the call has a place at a server and is about to be sent.

        Raises:
            StorageFailed: what it costs cannot be written down.
            EngineFailed: nobody answered, for the reason that the first had.
            Overloaded: nobody had a place.
            InvalidRequest: no target has the tag that was asked for.
        """
        self._budget.note_request()
        route = table.find(call.model)
        problem: EngineFailed | Overloaded | None = None
        # Whoever asks for a target by its tag wants that one or none.
        names = () if call.target is not None else route.settings.fallback
        for number, each in enumerate((route, *map(table.find, names))):
            try:
                return await self._try(_Search(call, each, table), outcome, note)
            except (EngineFailed, Overloaded) as error:
                logger.warning("%s", error)
                problem = problem or error
                if number < len(names):
                    logger.info("%r falls back to %r", route.name, names[number])
        if isinstance(problem, NotServed):
            raise problem.reason
        raise cast("Exception", problem)

    async def _try(self, search: _Search, outcome: Outcome, note: Callable[[], None]) -> Begun:
        problem: EngineFailed | Overloaded | None = None
        for number in range(search.route.settings.retries + 1):
            if number and not self._budget.take(search.table.settings.retry_budget_ratio):
                logger.warning("the budget of retries is spent")
                break
            try:
                target, replica = await search.next()
            except (EngineFailed, Overloaded) as error:
                problem = problem or error
                break
            asked = partial(_note, outcome, note, target, replica)
            try:
                begun = await send(search.call, target, replica, note=asked)
            except (EngineFailed, Overloaded) as error:
                problem = problem or error
                if isinstance(error, Overloaded | NotServed):
                    outcome.served = ""  # it says nothing of the version
                else:
                    outcome.missed.append(outcome.asked)
                search.note(error, replica)
            else:
                outcome.served = begun.model
                return begun
        raise cast("Exception", problem)


def _note(outcome: Outcome, note: Callable[[], None], target: Target, replica: Replica) -> None:
    """Note whom the call is about to be sent to."""
    note()
    outcome.attempts += 1
    outcome.upstream, outcome.tag = target.upstream.name, target.tag
    outcome.served = target.name_at(replica) or ""


class _Search:
    """Which replicas of which targets are left to try."""

    def __init__(self, call: Call, route: Route, table: Table) -> None:
        self.call = call
        self.route = route
        self.table = table
        tag = call.target if route.name == call.model else None
        self._targets = route.order(call.user, tag=tag)
        is_choice = any(len(target.upstream.replicas) > 1 for target in self._targets)
        self._prefix = estimate.prefix(call.body) if is_choice else 0
        self._tried: list[Replica] = []
        self._pause = PAUSE_SECONDS
        self._may_repeat = False
        self._was_silent = False

    async def next(self) -> tuple[Target, Replica]:
        """Occupy the best place that was not tried; the same again only if there is no other.

        Raises:
            EngineFailed: there is none.
            Overloaded: there is none now.
        """
        if self._tried and all(
            r in self._tried for target in self._targets for r in target.upstream.replicas
        ):
            if not self._may_repeat:
                raise EngineFailed(f"No other server of {self.route.name!r} is left to try")
            self._tried.clear()
            await asyncio.sleep(self._pause * (1 + random.random()) / 2)
            self._pause *= 2
        problem: EngineFailed | Overloaded | None = None
        for target in self._targets:
            try:
                return target, await target.upstream.acquire(
                    self._prefix,
                    without=[*self._tried, *unserved(target)],
                    deadline=self.call.deadline,
                )
            except (EngineFailed, Overloaded) as error:
                problem = problem or error
        raise cast("Exception", problem)

    def note(self, error: Exception, replica: Replica) -> None:
        """Remember a failure; one that took its time is not asked for again.

        A server that took no connection has not begun anything: it has a second chance, as a
        connection may be lost on its way, and not a third.
        """
        self._tried.append(replica)
        if isinstance(error, EngineUnreachable):
            self._may_repeat, self._was_silent = not self._was_silent, True
        else:
            self._may_repeat = not isinstance(error, EngineTimedOut | Refused | Overloaded)


async def send_aside(call: Call, target: Target) -> Begun:
    """Send a copy of a call to a replica that is free now; it waits for none.

    Raises:
        Overloaded: none is free.
        EngineFailed: the server failed.
    """
    replica = target.upstream.take(estimate.prefix(call.body), without=unserved(target))
    if replica is None:
        raise Overloaded(f"No server of {target.upstream.name!r} is free for a copy")
    return await send(call, target, replica)
