"""A thousand clients spend one budget over HTTP, also of a service that is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import httpx
import pytest

import model_server
import relayed
from migrated import open_migrated
from model_server import Misbehaving
from running_server import RunningServer, start
from service.gateway.budgets import Budgets
from service.gateway.prices import parse_amount

CLIENTS = 1000
CALLS = 1600
"""That the budget pays for: some clients are answered twice, and all are refused in the end."""
RUNNING = 64
"""Calls that are sent at a time; the others wait in the gateway, and cost nothing there."""
AMOUNT = "1.00"
PRICE = 125.0
"""For a million tokens of answer; an answer has five."""
BODY = {
    "model": "small",
    "messages": [{"role": "user", "content": "Who built it?"}],
    "max_tokens": model_server.TOKENS,
}


SOCKETS = 2 * CLIENTS
"""Of one process at most: the clients', and those of what they ask."""


@pytest.fixture
def many_sockets() -> Iterator[None]:
    """For this process and the service, its child: often 1,024 are allowed unless one asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = [each for each in (4 * CLIENTS, hard) if each != resource.RLIM_INFINITY]
    if min(allowed) < SOCKETS:
        pytest.skip(f"a process may open {hard:,} files here, and {CLIENTS:,} clients need more")
    if soft != resource.RLIM_INFINITY and soft < min(allowed):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(allowed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def backend() -> Iterator[Misbehaving]:
    with model_server.serving(behaviour=model_server.paced(0.02)) as server:
        yield server


@dataclass
class Spending:
    """Clients that ask until they are refused, whatever becomes of the service meanwhile."""

    url: str
    ended: Counter[int | str] = field(default_factory=Counter)

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(self._ask_until_refused(session) for _ in range(CLIENTS)))

    async def _ask_until_refused(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.post(f"{self.url}/v1/chat/completions", json=BODY) as response:
                    told = await response.json()
            except (aiohttp.ClientError, OSError):
                self.ended["lost"] += 1
                await asyncio.sleep(0.5)
                continue
            self.ended[response.status] += 1
            if response.status == 429:
                assert told["error"]["code"] == "insufficient_quota", told
                return
            assert response.status == 200, told


@pytest.fixture
def serve(
    many_sockets: None, backend: Misbehaving, tmp_path: Path
) -> Iterator[Callable[[], RunningServer]]:
    """Starts a service, which is new or the next one on the same database."""
    del many_sockets
    upstream = {"urls": [backend.url], "max_running": RUNNING}
    route = {"targets": [{"upstream": "u", "model": "tiny"}]}

    def serve_() -> RunningServer:
        running = start(
            tmp_path,
            RAGSTONE_GATEWAY__UPSTREAMS=json.dumps({"u": upstream}),
            RAGSTONE_GATEWAY__ROUTES=json.dumps({"small": route}),
            RAGSTONE_GATEWAY__PRICES=json.dumps({"small": {"output_per_million": PRICE}}),
        )
        stack.callback(running.stop)
        running.wait_until_ready()
        return running

    with ExitStack() as stack:
        yield serve_


def standing(server: RunningServer) -> dict[str, str]:
    (budget,) = httpx.get(f"{server.url}/v1/budgets").json()["data"]
    return dict(budget)


@pytest.mark.parametrize("is_killed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_budget_is_spent_to_its_end_and_no_further(
    serve: Callable[[], RunningServer], backend: Misbehaving, tmp_path: Path, is_killed: bool
) -> None:
    (tmp_path / "data").mkdir()
    database = open_migrated(tmp_path / "data" / "ragstone.db")
    Budgets(database).put("all", "", period="total", amount=parse_amount(AMOUNT))
    database.close()
    server = serve()
    spending = Spending(server.url)

    async def spend() -> RunningServer:
        clients = asyncio.create_task(spending.run())
        running = server
        if is_killed:
            await relayed.until(
                lambda: clients.done() or len(backend.asked) >= CALLS // 3, seconds=240
            )
            running.process.kill()
            running.process.wait()
            running = await asyncio.to_thread(serve)
            spending.url = running.url
        await clients
        return running

    left = standing(asyncio.run(spend()))
    assert len(backend.asked) <= CALLS, "more was asked for than the budget pays"
    assert spending.ended[429] == CLIENTS
    assert (left["spent"], left["held"]) == (AMOUNT, "0.00"), "money remains, and all were refused"
    if is_killed:
        assert spending.ended["lost"] > 0
        # What was about to be sent may have been: that many calls are charged and were never made.
        assert CALLS - len(backend.asked) <= RUNNING
    else:
        assert len(backend.asked) == spending.ended[200] == CALLS
