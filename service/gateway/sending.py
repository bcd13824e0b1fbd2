"""Gets a call begun: a target, a replica, tries and fallbacks, all before the first byte."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from infra.errors import EngineFailed, EngineTimedOut, Overloaded, RagstoneError
from service.engines import Reply
from service.gateway import answers, estimate
from service.gateway.adapters import Lease
from service.gateway.answers import Refused, Whole
from service.gateway.calls import Call, Outcome
from service.gateway.events import Events
from service.gateway.naming import Naming
from service.gateway.outgoing import headers_for, is_refusable, outgoing, wants_usage
from service.gateway.routing import Adapted, Route, Table, Target
from service.gateway.upstreams import Replica

logger = logging.getLogger(__name__)

BUDGET_SECONDS = 10
FREE_RETRIES = 10
"""In that time, also where hardly anything is asked."""
PAUSE_SECONDS = 0.05
"""Before a replica is tried again, doubled each time; half of it by chance."""


@dataclass(slots=True)
class Begun:
    """A call that a server has begun to answer: a whole body, or a stream's first events."""

    target: Target
    replica: Replica
    started: float
    whole: Whole | None = None
    reply: Reply | None = None
    pieces: AsyncGenerator[bytes, None] | None = None
    events: Events | None = None
    first: bytes = b""
    lease: Lease | None = None
    """Of the adapter's version that answers, if it is an adapter."""

    def end(self) -> None:
        """Give the place at the replica back, and the adapter's version."""
        if self.lease is not None:
            self.lease.release()
        self.target.upstream.release(self.replica, seconds=time.monotonic() - self.started)


class NotServed(EngineFailed):
    """No server of a target, or not this one, has the adapter; `reason` is what to tell."""

    def __init__(self, reason: RagstoneError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class RetryBudget:
    """Allows retries as a share of the requests of the last ten seconds.

    When everything fails, retries multiply the load on servers that cannot bear it; so they are
    only for the exceptions.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[list[float]] = deque()
        """Second, requests, retries."""

    def note_request(self) -> None:
        self._now()[1] += 1

    def take(self, ratio: float) -> bool:
        """Take one retry, if there is one."""
        now = self._now()
        requests = sum(item[1] for item in self._seconds)
        retries = sum(item[2] for item in self._seconds)
        if retries >= max(FREE_RETRIES, ratio * requests):
            return False
        now[2] += 1
        return True

    def _now(self) -> list[float]:
        second = int(self._clock())
        while self._seconds and self._seconds[0][0] <= second - BUDGET_SECONDS:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]


class Sender:
    """Finds who begins to answer a call."""

    def __init__(self) -> None:
        self._budget = RetryBudget()

    async def begin(self, call: Call, table: Table, outcome: Outcome) -> Begun:
        """Try the call's route, then its fallbacks; `outcome` notes who answered.

        Raises:
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
                return await self._try(_Search(call, each, table), outcome)
            except (EngineFailed, Overloaded) as error:
                logger.warning("%s", error)
                problem = problem or error
                if number < len(names):
                    logger.info("%r falls back to %r", route.name, names[number])
        if isinstance(problem, NotServed):
            raise problem.reason
        raise cast("Exception", problem)

    async def _try(self, search: _Search, outcome: Outcome) -> Begun:
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
            outcome.attempts += 1
            outcome.upstream, outcome.tag = target.upstream.name, target.tag
            try:
                return await send(search.call, target, replica)
            except (EngineFailed, Overloaded) as error:
                problem = problem or error
                search.note(error, replica)
        raise cast("Exception", problem)


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

    async def next(self) -> tuple[Target, Replica]:
        """Occupy the best place that was not tried; the same again only if there is no other.

        Raises:
            EngineFailed: there is none.
            Overloaded: there is none now.
        """
        if all(r in self._tried for target in self._targets for r in target.upstream.replicas):
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
                    without=[*self._tried, *_unserved(target)],
                    deadline=self.call.deadline,
                )
            except (EngineFailed, Overloaded) as error:
                problem = problem or error
        raise cast("Exception", problem)

    def note(self, error: Exception, replica: Replica) -> None:
        """Remember a failure; one that took its time is not asked for again."""
        self._tried.append(replica)
        self._may_repeat = not isinstance(error, EngineTimedOut | Refused | Overloaded)


async def send(call: Call, target: Target, replica: Replica) -> Begun:
    """Send a call to the replica whose place is taken; the place is given back if it fails.

    Raises:
        EngineFailed: the server failed before the first byte.
        Overloaded: it has too much to do.
    """
    begun = Begun(target, replica, time.monotonic())
    breaker = replica.breaker
    try:
        await _begin(begun, call)
    except Overloaded as error:
        replica.busy_until = time.monotonic() + error.retry_after_seconds
        breaker.abandon()
        begun.end()
        raise
    except Refused:
        breaker.succeed()
        begun.end()
        raise
    except NotServed:
        breaker.abandon()
        begun.end()
        raise
    except EngineFailed:
        replica.note_failure()
        begun.end()
        raise
    except BaseException:
        breaker.abandon()
        begun.end()
        raise
    breaker.succeed()
    return begun


async def _begin(begun: Begun, call: Call) -> None:
    # The deadline is not looked at: a caller who gives little time is not the server's failure.
    patience = begun.target.first_byte_seconds
    begun.lease = _lease(begun)
    name = begun.lease.name if begun.lease else begun.target.model
    rename = Naming(name, call.model)
    reply = await _ask(begun, call, name)
    if reply.status == 400 and is_refusable(call):
        begun.whole = await _refusal(begun, reply)
        if not answers.is_about_length(begun.whole):
            return
        # It has room for less than our bound, so that it needs none.
        begun.whole = None
        reply = await _ask(begun, call, name, is_bounded=False)
    try:
        if reply.status == 404 and begun.target.adapter is not None:
            # It was started anew since it was last looked at.
            begun.target.adapter.served.lost(begun.replica.server.address)
            raise _not_served(begun.target)
        if reply.status != 200:
            begun.whole = await _refusal(begun, reply)
        elif call.is_stream:
            events = Events(strip_usage=not wants_usage(call.body), rename=rename)
            await _begin_stream(begun, reply, events, patience=patience)
        else:
            whole = await answers.read_whole(reply)
            begun.whole = replace(whole, body=rename(whole.body))
    except BaseException:
        await reply.close()
        raise


async def _ask(begun: Begun, call: Call, model: str, *, is_bounded: bool = True) -> Reply:
    return await begun.replica.server.send(
        call.path,
        outgoing(
            call,
            model,
            provider=begun.target.upstream.settings.provider,
            is_bounded=is_bounded,
        ),
        headers=headers_for(call, begun.started),
        timeout_seconds=begun.target.first_byte_seconds,
    )


async def _refusal(begun: Begun, reply: Reply) -> Whole:
    return await answers.refuse(reply, begun.replica.server.address)


def _unserved(target: Target) -> list[Replica]:
    """Return the replicas that cannot be asked for want of the adapter.

    Raises:
        NotServed: that are all of them.
    """
    if target.adapter is None:
        return []
    unserved = target.unserved
    if len(unserved) == len(target.upstream.replicas):
        raise _not_served(target)
    return unserved


def _lease(begun: Begun) -> Lease | None:
    adapter = begun.target.adapter
    if adapter is None:
        return None
    lease = adapter.served.lease(adapter.reference, begun.replica.server.address)
    if lease is None:
        raise _not_served(begun.target)
    return lease


def _not_served(target: Target) -> NotServed:
    adapter = cast("Adapted", target.adapter)
    return NotServed(adapter.served.problem(adapter.reference, target.upstream.name))


async def _begin_stream(begun: Begun, reply: Reply, events: Events, *, patience: float) -> None:
    """Wait for the first events: until they are here, another server can take over."""
    address = begun.replica.server.address
    media_type = reply.headers.get("content-type", "")
    if not media_type.startswith("text/event-stream"):
        raise EngineFailed(f"{address} answered a stream with {media_type[:100]!r}")
    pieces = cast("AsyncGenerator[bytes, None]", reply.pieces())
    try:
        async with asyncio.timeout(begun.started + patience - time.monotonic()):
            while not begun.first and not events.is_done:
                begun.first = events.feed(await anext(pieces))
    except TimeoutError as error:
        raise EngineTimedOut(f"{address} sent no event within {patience:g} s") from error
    except StopAsyncIteration as error:
        raise EngineFailed(f"{address} ended the stream before its first event") from error
    if events.error is not None:
        words = begun.first[:300].decode("utf-8", "replace")
        raise EngineFailed(f"{address} failed: {words}")
    begun.reply, begun.pieces, begun.events = reply, pieces, events


async def send_aside(call: Call, target: Target, outcome: Outcome) -> None:
    """Send a copy of a call to a replica that is free now, and read the answer to its end.

    Raises:
        Overloaded: none is free.
        EngineFailed: the server failed.
    """
    replica = target.upstream.take(estimate.prefix(call.body))
    if replica is None:
        raise Overloaded(f"No server of {target.upstream.name!r} is free for a copy")
    begun = await send(call, target, replica)
    outcome.first_byte = time.monotonic()
    try:
        if begun.whole is not None:
            _note_whole(outcome, begun.whole)
            return
        events = cast("Events", begun.events)
        outcome.listen(begun.first)
        async with aclosing(cast("AsyncGenerator[bytes, None]", begun.pieces)) as pieces:
            async for piece in pieces:
                outcome.listen(events.feed(piece))
        outcome.usage = events.usage or outcome.usage
        outcome.pieces, outcome.finish_reason = events.count, events.finish_reason
    finally:
        begun.end()


def _note_whole(outcome: Outcome, whole: Whole) -> None:
    outcome.status = whole.status
    outcome.usage = whole.usage or outcome.usage
    outcome.finish_reason = whole.finish_reason
    if outcome.transcript is not None:
        outcome.transcript.add_body(whole.body)
