"""An engine that is killed under load comes back with its adapters, and asked to stop it drains."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
import pytest

from infra.artifacts.store import ArtifactStore, open_store
from infra.engine_settings import EngineProcess
from infra.errors import NotFound
from migrated import open_migrated
from published_adapters import publish
from service.gateway.adapter_hosts import HttpHost
from service.gateway.adapters import Adapters, Pace, Place
from service.supervision.engines import Address, Engines, replica_urls
from service.supervision.state import read_plan, read_state
from vllm_server import ENVIRONMENT, INSTALLED, PYTHON, make_model

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]
REFERENCE = "adapter/support@production"
SMALL = Path(__file__).parents[2] / "small_engine.py"
CLIENTS = 8
TOKENS = 6


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ArtifactStore]:
    database = open_migrated(tmp_path / "a.db")
    yield open_store(tmp_path / "store", database)
    database.close()


@dataclass
class Load:
    """Clients that ask without pause, and what they were told."""

    adapters: Adapters
    where: Callable[[], Address | None]
    says: Mapping[str, str]
    """By served name, the sign."""
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """What an engine answered in place of a completion."""
    cut: list[str] = field(default_factory=list)
    """Calls that found no engine, or lost it."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            clients = [asyncio.create_task(self._ask(session)) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                self.stopping.set()
                await asyncio.gather(*clients)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        while not self.stopping.is_set():
            address = self.where()
            lease = self.adapters.lease(REFERENCE, address.url) if address else None
            if lease is None or address is None:
                await asyncio.sleep(0.02)
                continue
            try:
                await self._ask_once(session, address, lease.name)
            finally:
                lease.release()

    async def _ask_once(self, session: aiohttp.ClientSession, address: Address, name: str) -> None:
        body = {"model": name, "prompt": "Who built it?", "max_tokens": TOKENS, "temperature": 1}
        headers = {"Authorization": f"Bearer {address.key}"}
        try:
            async with session.post(
                f"{address.url}/v1/completions", json=body, headers=headers
            ) as response:
                told = await response.json()
                if response.status != 200:
                    self.failed.append(f"{response.status} {told}")
                    return
        except (aiohttp.ClientError, OSError) as error:
            self.cut.append(repr(error))
            return
        text = told["choices"][0]["text"]
        if text != self.says[name] * TOKENS:
            self.wrong.append((name, text))
        self.answered[name] += 1


@dataclass(frozen=True)
class Supervised:
    """An engine that is supervised as the product does it."""

    folder: Path
    is_real: bool
    """vLLM; else one that answers as it does, of which the name of a model is all it says."""


@pytest.fixture(scope="module", params=["small", pytest.param("vllm", marks=pytest.mark.slow)])
def supervised(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Supervised]:
    """A supervised engine of this module's own, which its tests may break."""
    folder = tmp_path_factory.mktemp("supervised")
    is_real = request.param == "vllm"
    if is_real and not INSTALLED.exists():
        pytest.skip("no vLLM here; `make vllm` installs it")
    settings = EngineProcess(
        model=str(make_model(folder / "model")),
        python=str(PYTHON if is_real else SMALL),
        dtype="float32",
        lora=True,
        max_model_len=512,
        flags=("--enforce-eager", "--max-num-seqs", "16"),
        environment=ENVIRONMENT,
        start_seconds=300,
    )
    engines = Engines(folder / "engines", {"tiny": settings})
    engines.start("tiny")
    yield Supervised(folder, is_real)
    with suppress(NotFound):
        engines.stop("tiny", drain=False)


async def test_engine_that_is_killed_comes_back_with_its_adapters(
    supervised: Supervised, store: ArtifactStore, tmp_path: Path
) -> None:
    engine_folder = supervised.folder
    name = publish(store, "A", base=engine_folder / "model", folder=tmp_path)
    store.tag("adapter/support@a", "production")
    hosts: dict[str, HttpHost] = {}

    def where() -> Address | None:
        return next(iter(replica_urls(engine_folder / "engines", "tiny")), None)

    def places() -> dict[str, Place]:
        found = replica_urls(engine_folder / "engines", "tiny")
        for address in found:
            hosts.setdefault(address.url, HttpHost(address.url, key=address.key))
        return {"tiny": Place(frozenset({REFERENCE}), [hosts[each.url] for each in found])}

    adapters = Adapters(store, tmp_path / "out", places=places, pace=Pace(0.2, 0.0))
    adapters.start()
    load = Load(adapters, where, {name: "A" if supervised.is_real else name})
    async with asyncio.timeout(300), load.running():
        while load.answered[name] < 20:
            await asyncio.sleep(0.05)
        replica = read_state(engine_folder / "engines" / "tiny").replicas[0]
        assert replica.pid is not None
        os.kill(replica.pid, signal.SIGKILL)
        while read_state(engine_folder / "engines" / "tiny").replicas[0].restarts == 0:
            await asyncio.sleep(0.05)
        before = load.answered[name]
        while load.answered[name] < before + 20:
            await asyncio.sleep(0.05)
    await adapters.close()
    for host in hosts.values():
        await host.close()
    assert load.wrong == []
    assert load.failed == [], "the engine was asked for an adapter that it had lost"
    assert load.cut, "nobody was there when it died"


def test_engine_is_drained_and_leaves_nothing_behind(supervised: Supervised) -> None:
    engine_folder = supervised.folder
    plan = read_plan(engine_folder / "engines" / "tiny")
    engines = Engines(engine_folder / "engines", {"tiny": plan.engine})
    replica = engines.status("tiny").replicas[0]
    assert replica.load is not None
    first = psutil.Process(replica.state.pid)
    processes = [first, *first.children(recursive=True)]
    assert len(processes) >= (2 if supervised.is_real else 1)
    engines.stop("tiny")
    gone, alive = psutil.wait_procs(processes, timeout=10)
    assert (len(gone), alive) == (len(processes), [])
