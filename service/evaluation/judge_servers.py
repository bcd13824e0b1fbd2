"""Asks the servers of judges: OpenAI's chat completions, with retries, a deadline and a limit."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import orjson

from evals.judges.question import Question, Reply
from infra.errors import (
    EngineFailed,
    EngineTimedOut,
    InvalidConfiguration,
    Overloaded,
    RagstoneError,
)
from service.engines import ModelServer, ServerContext, open_server
from service.gateway.answers import Refused, read, reason_in, refuse
from service.gateway.retries import RetryBudget

URL_VARIABLE = "JUDGE_URL"
PATH = "/v1/chat/completions"
MAX_BYTES = 2**20
"""Of a reply; a rating has a few hundred."""
ATTEMPTS = 5
RETRY_RATIO = 0.2
"""Retries of all judges' calls of the last ten seconds, as a share of them."""
FIRST_PAUSE_SECONDS = 1.0


class JudgeServers:
    """The judges of a run, each behind its own pool of connections; used in one event loop."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take a clock in seconds, and what waits."""
        self._clock = clock
        self._sleep = sleep
        self._budget = RetryBudget(clock=clock)
        self._servers: dict[tuple[str, str], ModelServer] = {}

    async def __call__(self, question: Question) -> Reply:
        """Return what the judge replied.

        Raises:
            InvalidConfiguration: it is not said where the judge is.
            EngineTimedOut: it had not answered in time, retries included.
            EngineFailed, Overloaded: it refused the request, failed, or was overloaded until the
                retries were spent; or its answer is too long or no chat completion.
        """
        server = self._server(question)
        seconds = question.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(server, question, until=self._clock() + seconds)
        except TimeoutError as error:
            raise EngineTimedOut(
                f"The judge at {server.address} did not answer within {seconds:g} s"
            ) from error

    async def close(self) -> None:
        for server in self._servers.values():
            await server.close()
        self._servers.clear()

    def _server(self, question: Question) -> ModelServer:
        address = question.url or os.environ.get(URL_VARIABLE, "")
        if not address:
            raise InvalidConfiguration(
                f"No address of a judge is given; set {URL_VARIABLE} or the metric's `url`"
            )
        address = address.rstrip("/").removesuffix("/v1")
        key = (address, question.key_variable)
        if key not in self._servers:
            context = ServerContext(
                address,
                os.environ.get(question.key_variable) or None,
                # What a judge thinks about before it answers is silence, too.
                silence_seconds=question.timeout_seconds,
            )
            self._servers[key] = open_server("openai_http", context)
        return self._servers[key]

    async def _ask(self, server: ModelServer, question: Question, *, until: float) -> Reply:
        body = orjson.dumps(question.body())
        self._budget.note_request()
        attempt = 1
        while True:
            try:
                return await _once(server, body, seconds=question.timeout_seconds)
            except (EngineFailed, Overloaded) as error:
                # One that takes no connection in time may take the next; of any other lateness
                # the deadline has passed.
                if isinstance(error, Refused) or attempt == ATTEMPTS:
                    raise
                pause = _pause(error, attempt)
                if self._clock() + pause > until or not self._budget.take(RETRY_RATIO):
                    raise
            await self._sleep(pause)
            attempt += 1


async def _once(server: ModelServer, body: bytes, *, seconds: float) -> Reply:
    reply = await server.send(PATH, body, headers={}, timeout_seconds=seconds)
    try:
        if reply.status != 200:
            refused = await refuse(reply, server.address)
            raise Refused(f"{server.address} answered {refused.status}: {reason_in(refused.body)}")
        return _read(await read(reply, limit=MAX_BYTES), server.address)
    finally:
        await reply.close()


def _read(body: bytes, address: str) -> Reply:
    try:
        return Reply.from_dict(orjson.loads(body)["choices"][0])
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
        said = body[:200].decode("utf-8", "replace")
        raise Refused(f"The judge at {address} sent no chat completion: {said!r}") from error


def _pause(error: RagstoneError, attempt: int) -> float:
    """Return how long to wait: as long as the server says, and ever longer."""
    asked = float(getattr(error, "retry_after_seconds", 0.0))
    return max(asked, FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1))
