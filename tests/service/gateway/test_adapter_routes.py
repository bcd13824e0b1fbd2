"""Routes lead to adapters: the version in force answers, and what is missing is said clearly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from migrated import open_migrated

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

from infra.artifacts.store import open_store
from infra.errors import InvalidConfiguration, NotFound, NotReady
from infra.gateway_settings import Gateway
from relayed import Kept, Unmetered, answer, call
from service.engines.transformers_local import LocalServer
from service.gateway.adapter_places import Places
from service.gateway.adapters import Adapters, Pace
from service.gateway.relay import Relay
from service.gateway.reloading import Tables
from service.supervision.engines import Engines
from tiny_llm import write_adapter, write_llm

pytestmark = pytest.mark.anyio
REFERENCE = "adapter/support@production"
CANDIDATE = "adapter/support@candidate"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Routed:
    """A gateway with one local model, one route to an adapter, and one to the plain model."""

    def __init__(self, folder: Path) -> None:
        self.model = write_llm(folder / "model")
        self.database = open_migrated(folder / "a.db")
        self.store = open_store(folder / "store", self.database)
        self.settings = Gateway.model_validate(
            {
                "upstreams": {
                    "tiny": {
                        "plugin": "transformers_local",
                        "options": {"model": str(self.model), "served_name": "tiny"},
                    }
                },
                "routes": {
                    "support": {
                        "targets": [{"upstream": "tiny", "adapter": REFERENCE}],
                        "cache": True,
                    },
                    "tried": {
                        "targets": [
                            {"upstream": "tiny", "adapter": REFERENCE},
                            {"upstream": "tiny", "adapter": CANDIDATE, "tag": "canary"},
                        ]
                    },
                    "plain": {"targets": [{"upstream": "tiny", "model": "tiny"}]},
                    "careful": {
                        "targets": [{"upstream": "tiny", "adapter": "adapter/none"}],
                        "fallback": ["plain"],
                    },
                },
            }
        )
        places = Places(
            lambda: self.tables.current.settings,
            engines=Engines(folder / "engines", {}),
            servers=lambda name: self.tables.current.servers(name),
        )
        self.adapters = Adapters(self.store, folder / "out", places=places, pace=Pace(3600.0, 0.0))
        self.tables = Tables(self.settings, adapters=lambda: self.adapters)
        self.relay = Relay(self.tables, meter=Unmetered(), recorder=Kept())
        self._folder = folder

    @property
    def server(self) -> LocalServer:
        [server] = self.tables.current.servers("tiny")
        assert isinstance(server, LocalServer)
        return server

    async def publish(self, sign: str, alias: str = "production") -> None:
        folder = write_adapter(self._folder / f"says-{sign}", self.model, sign)
        self.store.tag(str(self.store.put(folder, "adapter/support")), alias)
        await self.adapters.refresh()

    async def refresh(self) -> None:
        await self.adapters.refresh()

    async def ask(self, model: str = "support", user: str | None = None) -> str:
        body = await answer(
            self.relay,
            call(model, user=user, seconds=60, max_tokens=4, temperature=0, ignore_eos=True),
        )
        return str(json.loads(body)["choices"][0]["message"]["content"])


@pytest.fixture
async def routed(tmp_path: Path) -> AsyncIterator[Routed]:
    made = Routed(tmp_path)
    yield made
    await made.relay.close()
    await made.tables.close()
    made.database.close()


async def test_route_is_answered_by_the_version_in_force(routed: Routed) -> None:
    await routed.publish("A")
    assert await routed.ask() == "AAAA"
    await routed.publish("B")
    assert await routed.ask() == "BBBB"
    assert await routed.ask("plain") not in {"AAAA", "BBBB"}


async def test_an_alias_that_is_taken_away_takes_the_traffic_away(routed: Routed) -> None:
    await routed.publish("A")
    assert await routed.ask() == "AAAA"
    routed.store.untag("adapter/support", "production")
    await routed.refresh()
    with pytest.raises(NotFound, match="production"):
        await routed.ask()
    routed.store.tag("adapter/support@v1", "production")
    await routed.refresh()
    assert await routed.ask() == "AAAA"


async def test_a_canary_answers_its_share_of_callers_until_its_alias_goes(routed: Routed) -> None:
    await routed.publish("A")
    users = [f"user-{number}" for number in range(12)]
    assert {await routed.ask("tried", each) for each in users} == {"AAAA"}
    await routed.publish("B", "candidate")
    first = [await routed.ask("tried", each) for each in users]
    assert set(first) == {"AAAA", "BBBB"}
    assert [await routed.ask("tried", each) for each in users] == first, "a caller keeps to one"
    routed.store.untag("adapter/support", "candidate")
    await routed.refresh()
    assert {await routed.ask("tried", each) for each in users} == {"AAAA"}


async def test_unknown_adapter_is_not_found_and_one_that_loads_is_not_ready(
    routed: Routed,
) -> None:
    with pytest.raises(NotReady):
        await routed.ask()
    await routed.refresh()
    with pytest.raises(NotFound, match="adapter"):
        await routed.ask()


async def test_route_whose_adapter_is_missing_falls_back(routed: Routed) -> None:
    await routed.refresh()
    assert await routed.ask("careful") == await routed.ask("plain")


async def test_replica_that_has_lost_its_adapter_gets_it_back(routed: Routed) -> None:
    await routed.publish("A")
    for name in await routed.server.adapters():
        await routed.server.unload(name)
    with pytest.raises(NotReady):
        await routed.ask()
    await routed.refresh()
    assert await routed.ask() == "AAAA"


async def test_cached_answers_are_of_one_version(routed: Routed) -> None:
    route = routed.tables.current.find("support")
    assert route.variant(None) is None
    seen = set()
    for sign in "AB":
        await routed.publish(sign)
        variant = route.variant(None)
        assert variant is not None
        seen.add(variant.model)
    assert len(seen) == 2


def test_gateway_without_artifacts_refuses_a_route_to_an_adapter(tmp_path: Path) -> None:
    settings = Gateway.model_validate(
        {
            "upstreams": {"u": {"urls": ["http://127.0.0.1:1"]}},
            "routes": {"m": {"targets": [{"upstream": "u", "adapter": REFERENCE}]}},
        }
    )
    with pytest.raises(InvalidConfiguration, match="no artifacts"):
        Tables(settings)
