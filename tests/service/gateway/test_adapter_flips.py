"""Aliases flip under load of real vLLM: nothing fails, nobody is answered by another version."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.artifacts.store import open_store
from infra.errors import RagstoneError
from infra.gateway_settings import Gateway
from migrated import open_migrated
from published_adapters import publish
from relayed import answer, call, opened, until
from service.gateway.adapter_hosts import HttpHost
from service.gateway.adapters import Adapters, Pace, Place
from service.gateway.relay import Relay
from vllm_server import VllmServer

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]
REFERENCE = "adapter/support@production"
SIGNS = "ABCDEF"
"""What the versions say; the engine holds four at a time."""
CLIENTS = 8
TOKENS = 6
DRAINED = 0.5
"""The share of flips that wait for the old version to go; else the next may bring it back."""
WAIT_SECONDS = 120.0
PARTS = [(20, 0), *(pytest.param(250, seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Shelf(HttpHost):
    """A replica whose loads and unloads are noted as well."""

    def __init__(self, url: str, *, key: str) -> None:
        super().__init__(url, key=key)
        self.loads: Counter[str] = Counter()
        self.has: set[str] = set()

    async def load(self, name: str, folder: Path) -> None:
        await super().load(name, folder)
        self.loads[name] += 1
        self.has.add(name)

    async def unload(self, name: str) -> None:
        await super().unload(name)
        self.has.discard(name)


@dataclass
class Callers:
    """Users of the gateway who ask without pause, every second one for a stream."""

    relay: Relay
    flips: list[str]
    """The signs of the versions that were put in force, or are just being, in their order."""
    settled: int = 0
    """The last of `flips` that is in force everywhere: what is asked from now on is said by it."""
    answered: Counter[int] = field(default_factory=Counter)
    """By flip, the answers that were asked for while it was the last that had settled."""
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        stopping = asyncio.Event()
        callers = [
            asyncio.create_task(self._ask(stopping, stream=bool(number % 2)))
            for number in range(CLIENTS)
        ]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*callers)

    async def _ask(self, stopping: asyncio.Event, *, stream: bool) -> None:
        while not stopping.is_set():
            since = self.settled
            asked = call("support", stream=stream, seconds=120, max_tokens=TOKENS, ignore_eos=True)
            try:
                text = _said(await answer(self.relay, asked), stream=stream)
            except (RagstoneError, KeyError) as error:
                self.failed.append(repr(error))
                await asyncio.sleep(0.05)
                continue
            if text not in {sign * TOKENS for sign in self.flips[since:]}:
                self.wrong.append(f"{text!r} where {self.flips[since:]} were in force")
            self.answered[since] += 1


@pytest.mark.thorough
@pytest.mark.parametrize(("flips", "seed"), PARTS)
async def test_flips_under_load_fail_nothing_and_mix_nothing_up(
    vllm_beside: VllmServer, tmp_path: Path, flips: int, seed: int
) -> None:
    chance = random.Random(seed)
    database = open_migrated(tmp_path / "a.db")
    store = open_store(tmp_path / "store", database)
    base = Path(vllm_beside.folder)
    names = {sign: publish(store, sign, base=base, folder=tmp_path) for sign in SIGNS}
    store.tag("adapter/support@a", "production")
    shelf = Shelf(vllm_beside.url, key=vllm_beside.key)
    places = {"tiny": Place(frozenset({REFERENCE}), [shelf])}
    adapters = Adapters(store, tmp_path / "out", places=lambda: places, pace=Pace(0.1, 0.0))
    await adapters.refresh()
    async with opened(settings(vllm_beside), adapters=lambda: adapters) as gate:
        callers = Callers(gate.relay, ["A"])
        async with callers.asking():
            for flip in range(1, flips + 1):
                before = callers.flips[-1]
                sign = chance.choice(sorted(set(SIGNS) - {before}))
                callers.flips.append(sign)
                store.tag(f"adapter/support@{sign.lower()}", "production")
                await adapters.refresh()
                callers.settled = flip
                await until(lambda flip=flip: callers.answered[flip] > 0, seconds=WAIT_SECONDS)
                is_waited_for = chance.random() < DRAINED
                async with asyncio.timeout(WAIT_SECONDS):
                    while is_waited_for and names[before] in shelf.has:
                        await adapters.refresh()
    places["tiny"] = Place(frozenset(), [shelf])
    await adapters.refresh()
    left = (await shelf.models()).adapters
    await shelf.close()
    database.close()
    assert (callers.failed, callers.wrong) == ([], [])
    assert shelf.loads.total() > flips * DRAINED / 2, "most versions had not been let go"
    assert not left & set(names.values())


def settings(server: VllmServer) -> Gateway:
    """One route, to an adapter at one server; a failure is not made good by asking again."""
    return Gateway.model_validate(
        {
            "upstreams": {"tiny": {"urls": [server.url], "api_key": server.key}},
            "routes": {
                "support": {
                    "targets": [{"upstream": "tiny", "adapter": REFERENCE}],
                    "retries": 0,
                }
            },
        }
    )


def _said(body: bytes, *, stream: bool) -> str:
    """Return the text of an answer; raises `KeyError` where it is an error."""
    if not stream:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return "".join(json.loads(each)["choices"][0]["delta"].get("content") or "" for each in events)
