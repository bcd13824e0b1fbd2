"""Any server that speaks OpenAI's HTTP, vLLM first: pooled connections, bytes as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields

import aiohttp

from infra.errors import EngineFailed, EngineTimedOut, InvalidConfiguration
from service.engines import ServerContext

HEADER_BYTES = 16 * 1024
"""Of one line of an answer's head."""
BUFFER_BYTES = 64 * 1024
"""Of an answer that is read ahead; beyond twice this the server is made to wait."""


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
        self._context = context
        self._options = options
        self._url = context.url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if context.api_key:
            self._headers["Authorization"] = f"Bearer {context.api_key}"
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> str:
        return self._url

    async def send(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float
    ) -> HttpReply:
        """Send a request and return when the head of the answer is there.

        Raises:
            EngineTimedOut: it was not there in time.
            EngineFailed: the server cannot be reached, or does not speak HTTP.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                response = await self._opened().post(
                    self._url + path,
                    data=body,
                    headers={**self._headers, **headers},
                    allow_redirects=False,
                )
        except TimeoutError as error:
            raise EngineTimedOut(
                f"{self._url} did not begin to answer within {timeout_seconds:g} s"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EngineFailed(f"{self._url} cannot be asked: {_words(error)}") from error
        return HttpReply(response, self._url, silence_seconds=self._context.silence_seconds)

    async def probe(self) -> bool:
        """Whether the server answers its health check."""
        try:
            async with (
                asyncio.timeout(self._options.probe_seconds),
                self._opened().get(
                    self._url + self._options.health_path, headers=self._headers
                ) as response,
            ):
                return response.status < 500
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            # Connections close in the loop's next turn, which may be its last.
            await asyncio.sleep(0)

    def _opened(self) -> aiohttp.ClientSession:
        """Open at the first use: a session belongs to the event loop that makes it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How much runs at once is the gateway's to say.
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=self._options.keep_alive_seconds
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._context.connect_seconds
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
                read_bufsize=BUFFER_BYTES,
                max_line_size=HEADER_BYTES,
                max_field_size=HEADER_BYTES,
            )
        return self._session


class HttpReply:
    """An answer that has begun."""

    def __init__(
        self, response: aiohttp.ClientResponse, url: str, *, silence_seconds: float
    ) -> None:
        self._response = response
        self._url = url
        self._silence_seconds = silence_seconds
        self._loop = asyncio.get_running_loop()
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_silent = False

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self._response.headers.items()}

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            EngineTimedOut: nothing came for too long.
            EngineFailed: the connection broke before the end.
        """
        content = self._response.content
        self._listen()
        try:
            while piece := await content.readany():
                self._heard_at = self._loop.time()
                yield piece
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if self._is_silent:
                seconds = f"{self._silence_seconds:g} s"
                raise EngineTimedOut(f"{self._url} fell silent for {seconds}") from error
            raise EngineFailed(f"{self._url} broke off: {_words(error)}") from error
        finally:
            await self.close()

    async def close(self) -> None:
        """Give the connection up, unless the answer has ended: then it serves the next request."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.close()

    def _listen(self) -> None:
        """Watch for silence with one timer that is set anew when it fires, not for each piece."""
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(self._silence_seconds, self._check_silence)

    def _check_silence(self) -> None:
        left = self._heard_at + self._silence_seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_silence)
            return
        self._is_silent = True
        self._timer = None
        self._response.close()


def build_server(context: ServerContext) -> OpenAIServer:
    if not context.url.startswith(("http://", "https://")):
        raise InvalidConfiguration(
            f"{context.url!r} is no address of a model server; write http://HOST:PORT"
        )
    known = [field.name for field in fields(Options)]
    for name in context.options:
        if name not in known:
            raise InvalidConfiguration(
                f"Unknown option {name!r} of openai_http; there are {', '.join(known)}"
            )
    return OpenAIServer(context, Options(**context.options))


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
