"""Any server that speaks OpenAI's HTTP, vLLM first: pooled connections, bytes as they come."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields

from infra.errors import EngineFailed, EngineTimedOut, InvalidConfiguration
from service.engines import ServerContext
from service.engines._connections import Connection, Connections
from service.engines._place import Place

PATH = re.compile(r"/[!-~]*")
"""Of a request: what needs quoting is to be quoted."""


@dataclass(frozen=True, slots=True)
class Options:
    keep_alive_seconds: float = 4.0
    """How long an idle connection is kept; less than the server does, which is 5 s for vLLM."""
    health_path: str = "/health"
    """Asked by probes; any answer below 500 is good."""
    probe_seconds: float = 2.0
    """For the answer to a probe."""


class OpenAIServer:
    """One replica behind a URL."""

    def __init__(self, context: ServerContext, options: Options) -> None:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if context.api_key:
            headers["Authorization"] = f"Bearer {context.api_key}"
        self._place = Place.of(context.url.rstrip("/"), headers)
        self._silence_seconds = context.silence_seconds
        self._options = options
        self.connections = Connections(
            self._place,
            connect_seconds=context.connect_seconds,
            keep_alive_seconds=options.keep_alive_seconds,
        )

    @property
    def address(self) -> str:
        return self._place.address

    async def send(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float
    ) -> HttpReply:
        """Send a request and return when the head of the answer is there.

        Raises:
            EngineUnreachable: there was no connection in time; nothing was asked.
            EngineTimedOut: it was not there in time.
            EngineFailed: the server cannot be reached, or does not speak HTTP.
        """
        head = self._place.request("POST", path, headers, len(body))
        until = time.monotonic() + timeout_seconds
        connection = self.connections.kept() or await self.connections.made(timeout_seconds)
        connection.ask(head, body)
        await connection.wait(until - time.monotonic(), of=timeout_seconds)
        return HttpReply(connection, self.address, silence_seconds=self._silence_seconds)

    async def probe(self) -> bool:
        """Whether the server answers its health check, over a connection that it takes now.

        One that was kept may be closed by the time it is used, which says nothing of the server.
        """
        head = self._place.request("GET", self._options.health_path, {}, 0)
        try:
            async with asyncio.timeout(self._options.probe_seconds):
                connection = await self.connections.made(self._options.probe_seconds)
                connection.ask(head, b"")
                await connection.wait(self._options.probe_seconds)
        except (TimeoutError, EngineFailed):
            return False
        connection.release()
        return connection.status < 500

    async def close(self) -> None:
        await self.connections.close()


class HttpReply:
    """An answer that has begun."""

    def __init__(self, connection: Connection, address: str, *, silence_seconds: float) -> None:
        self._connection: Connection | None = connection
        """None once it is given up: it may serve another request."""
        self._address = address
        self._silence_seconds = silence_seconds
        self._timer: asyncio.TimerHandle | None = None
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            EngineTimedOut: nothing came for too long.
            EngineFailed: the connection broke before the end.
        """
        connection = self._connection
        if connection is None:
            return
        if not connection.has_ended:
            connection.heard_at = connection.loop.time()
            self._listen(connection, self._silence_seconds)
        try:
            while self._connection is connection and (piece := await connection.read()):
                yield piece
        finally:
            await self.close()

    async def close(self) -> None:
        """Give the connection up, unless the answer has ended: then it serves the next request."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is not None:
            self._connection.release()
            self._connection = None

    def _listen(self, connection: Connection, seconds: float) -> None:
        """Watch for silence with one timer that is set anew when it fires, not for each piece."""
        self._timer = connection.loop.call_later(seconds, self._check_silence, connection)

    def _check_silence(self, connection: Connection) -> None:
        self._timer = None
        left = connection.heard_at + self._silence_seconds - connection.loop.time()
        if connection.is_paused:  # it is we who do not listen
            left = self._silence_seconds
        if left > 0:
            self._listen(connection, left)
            return
        words = f"{self._address} fell silent for {self._silence_seconds:g} s"
        connection.fail(EngineTimedOut(words))


def build_server(context: ServerContext) -> OpenAIServer:
    known = [field.name for field in fields(Options)]
    for name in context.options:
        if name not in known:
            raise InvalidConfiguration(
                f"Unknown option {name!r} of openai_http; there are {', '.join(known)}"
            )
    options = Options(**context.options)
    if not PATH.fullmatch(str(options.health_path)):
        raise InvalidConfiguration(
            f"health_path of openai_http is {options.health_path!r}; write a path such as '/health'"
        )
    return OpenAIServer(context, options)
