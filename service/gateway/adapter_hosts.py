"""Replicas as those that hold adapters: asked what they have, told to load and to let go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import aiohttp
import orjson

from infra.addresses import shown
from infra.errors import EngineFailed
from service.engines import Reply

LOOK_SECONDS = 5.0
LOAD_SECONDS = 120.0
TRIAL_PATH = "/v1/completions"


@dataclass(frozen=True, slots=True)
class Models:
    """What a replica says that it serves."""

    base: frozenset[str]
    """The model's names."""
    adapters: frozenset[str]


class Unreachable(EngineFailed):
    """Nobody answers at a replica's address: whatever it had is lost."""


class AdapterHost(Protocol):
    """One replica."""

    @property
    def address(self) -> str:
        """The same as that of its `ModelServer`."""
        ...

    async def models(self) -> Models:
        """Ask what it has.

        Raises:
            Unreachable: there is nobody.
            EngineFailed: it does not answer as it should.
        """
        ...

    async def load(self, name: str, folder: Path) -> None:
        """Have it load an adapter; one that it has is no error. Raises as `models` does."""
        ...

    async def unload(self, name: str) -> None:
        """Have it let an adapter go; one that it has not is no error. Raises as `models` does."""
        ...

    async def try_out(self, name: str) -> None:
        """Have it answer one tiny request with an adapter. Raises as `models` does."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Holder(Protocol):
    """A `ModelServer` in this process that takes adapters."""

    @property
    def address(self) -> str: ...

    async def send(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float
    ) -> Reply: ...

    async def base(self) -> frozenset[str]: ...

    async def adapters(self) -> frozenset[str]: ...

    async def load(self, name: str, folder: Path) -> None: ...

    async def unload(self, name: str) -> None: ...


class InProcessHost:
    """A model in this process; it is closed by whoever opened it."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    @property
    def address(self) -> str:
        return self._holder.address

    async def models(self) -> Models:
        return Models(await self._holder.base(), await self._holder.adapters())

    async def load(self, name: str, folder: Path) -> None:
        await self._holder.load(name, folder)

    async def unload(self, name: str) -> None:
        await self._holder.unload(name)

    async def try_out(self, name: str) -> None:
        reply = await self._holder.send(
            TRIAL_PATH, orjson.dumps(_trial(name)), headers={}, timeout_seconds=LOAD_SECONDS
        )
        body = b"".join([piece async for piece in reply.pieces()])
        if reply.status != 200:
            raise EngineFailed(f"{self.address} answered {reply.status}: {body[:500]!r}")

    async def close(self) -> None:
        """Do nothing."""


class HttpHost:
    """vLLM, or what answers as it does."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> str:
        return shown(self._url)

    @property
    def is_open(self) -> bool:
        """Whether it may hold connections."""
        return self._session is not None

    async def models(self) -> Models:
        answer = await self._ask("/v1/models", seconds=LOOK_SECONDS)
        try:
            cards = orjson.loads(answer)["data"]
            own = [card for card in cards if not card.get("parent")]
            named = [card.get(key) for card in own for key in ("id", "root")]
            adapters = [card["id"] for card in cards if card.get("parent")]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineFailed(
                f"{self.address} answered '/v1/models' with {answer[:200]!r}, no list of them"
            ) from error
        return Models(frozenset(map(str, filter(None, named))), frozenset(map(str, adapters)))

    async def load(self, name: str, folder: Path) -> None:
        if name in (await self.models()).adapters:
            return
        await self._ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    async def unload(self, name: str) -> None:
        if name in (await self.models()).adapters:
            await self._ask("/v1/unload_lora_adapter", {"lora_name": name})

    async def try_out(self, name: str) -> None:
        await self._ask(TRIAL_PATH, _trial(name))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = LOAD_SECONDS
    ) -> bytes:
        method = "GET" if body is None else "POST"
        try:
            async with (
                asyncio.timeout(seconds),
                self._opened().request(method, self._url + path, json=body) as response,
            ):
                answer = await response.read()
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"{self.address} cannot be reached: {error}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            words = str(error) or type(error).__name__
            raise EngineFailed(f"{self.address} did not answer {path!r}: {words}") from error
        if response.status != 200:
            words = answer.decode("utf-8", "replace")[:500]
            raise EngineFailed(f"{self.address} answered {path!r} with {response.status}: {words}")
        return answer

    def _opened(self) -> aiohttp.ClientSession:
        """Open at the first use: a session belongs to the event loop that makes it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                # vLLM closes idle connections after 5 s; one that is about to be is not taken up.
                connector=aiohttp.TCPConnector(keepalive_timeout=3.0),
            )
        return self._session


def _trial(name: str) -> dict[str, Any]:
    return {"model": name, "prompt": ".", "max_tokens": 1, "temperature": 0}
