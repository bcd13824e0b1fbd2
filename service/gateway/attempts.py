"""One try of a call at one replica, up to the first byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import cast

from infra.errors import EngineFailed, EngineTimedOut, Overloaded, RagstoneError
from service.engines import Reply
from service.gateway import answers, outgoing
from service.gateway.adapters import Lease
from service.gateway.answers import Refused, Whole
from service.gateway.calls import Call
from service.gateway.events import Events
from service.gateway.naming import Naming
from service.gateway.outgoing import Bound
from service.gateway.routing import Adapted, Target
from service.gateway.upstreams import Replica

SLACK_SECONDS = 1.0
"""Past the deadline, so that a server's failure is never one of the caller's deadline."""


@dataclass(slots=True)
class Begun:
    """A call that a server has begun to answer: a whole body, or a stream's first events."""

    target: Target
    replica: Replica
    started: float
    model: str = ""
    """What the server calls it: of an adapter the version."""
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


async def send(
    call: Call, target: Target, replica: Replica, *, note: Callable[[], None] = lambda: None
) -> Begun:
    """Send a call to the replica whose place is taken; the place is given back if it fails.

    `note` is called before; if it raises, nothing is sent. A stream that has begun says nothing of
    the replica yet: how it ends does.

    Raises:
        EngineFailed: the server failed before the first byte.
        Overloaded: it has too much to do.
    """
    begun = Begun(target, replica, time.monotonic())
    breaker = replica.breaker
    try:
        note()
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
    if begun.whole is not None:
        breaker.succeed()
    else:
        breaker.abandon()
    return begun


async def _begin(begun: Begun, call: Call) -> None:
    begun.lease = _lease(begun)
    begun.model = begun.lease.name if begun.lease else begun.target.model
    rename = Naming(begun.model, call.model)
    reply = await _ask(begun, call)
    tried: list[Bound] = ["usual"]
    while reply.status == 400:
        begun.whole = await _refusal(begun, reply)
        again = answers.asks_otherwise(begun.whole, is_bound_ours=outgoing.is_refusable(call))
        if again is None or again in tried:
            return
        tried.append(again)
        begun.whole = None
        reply = await _ask(begun, call, bound=again)
    try:
        if reply.status == 404 and begun.target.adapter is not None:
            # It was started anew since it was last looked at.
            begun.target.adapter.served.lost(begun.replica.server.address)
            raise _not_served(begun.target)
        if reply.status != 200:
            begun.whole = await _refusal(begun, reply)
        elif call.is_stream:
            events = Events(strip_usage=not outgoing.wants_usage(call.body), rename=rename)
            await _begin_stream(begun, reply, events)
        else:
            whole = await answers.read_whole(reply)
            begun.whole = replace(whole, body=rename(whole.body))
    except BaseException:
        await reply.close()
        raise


async def _refusal(begun: Begun, reply: Reply) -> Whole:
    try:
        return await answers.refuse(reply, begun.replica.server.address)
    except BaseException:
        await reply.close()
        raise


async def _ask(begun: Begun, call: Call, *, bound: Bound = "usual") -> Reply:
    """Send the request; return when the head of the answer is here.

    Raises:
        EngineTimedOut: it took longer than a stream may, or was late and did not look well.
        EngineFailed: the server failed.
    """
    # Of a stream the deadline is not looked at: a caller who gives little time is not the server's
    # failure. Of a whole answer the deadline is all there is, and the relay's to keep.
    patience = begun.target.first_byte_seconds
    left = max(0.0, call.deadline - time.monotonic()) + SLACK_SECONDS
    sending = begun.replica.server.send(
        call.path,
        outgoing.body(
            call,
            begun.model,
            provider=begun.target.upstream.settings.provider,
            bound=bound,
        ),
        headers=outgoing.headers(call, begun.started),
        timeout_seconds=patience if call.is_stream else left,
    )
    return await (sending if call.is_stream else _unless_dead(sending, begun))


async def _unless_dead(sending: Awaitable[Reply], begun: Begun) -> Reply:
    """Wait for the head of a whole answer, which comes when all of it is written.

    That may take long: a server that is late is asked for its health, again and again, and is given
    up when that is not answered either.
    """
    server, patience = begun.replica.server, begun.target.first_byte_seconds
    loop = asyncio.get_running_loop()
    looking: list[asyncio.Task[None]] = []

    async def look() -> None:
        while await server.probe():
            await asyncio.sleep(patience)
        limit.reschedule(loop.time())

    timer = loop.call_later(patience, lambda: looking.append(loop.create_task(look())))
    try:
        async with asyncio.timeout(None) as limit:
            return await sending
    except TimeoutError as error:
        words = f"{server.address} did not answer within {patience:g} s, nor is it well"
        raise EngineTimedOut(words) from error
    finally:
        timer.cancel()
        for task in looking:
            task.cancel()


def unserved(target: Target) -> list[Replica]:
    """Return the replicas that cannot be asked for want of the adapter.

    Raises:
        NotServed: that are all of them.
    """
    if target.adapter is None or not target.upstream.replicas:
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


async def _begin_stream(begun: Begun, reply: Reply, events: Events) -> None:
    """Wait for the first events: until they are here, another server can take over."""
    address, patience = begun.replica.server.address, begun.target.first_byte_seconds
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
