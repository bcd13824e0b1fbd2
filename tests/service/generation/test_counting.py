"""Tokens are counted by what the server calls the model, where there is one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from infra.errors import NotReady, RagstoneError
from infra.gateway_settings import Gateway
from infra.settings import load_settings
from model_server import Misbehaving, failing, serving
from service.callers import Caller
from service.gateway.adapters import Lease
from service.gateway.reloading import Tables
from service.generating import Generators
from service.generation.routed import Asker

REFERENCE = "adapter/support@production"
MESSAGES = [{"role": "user", "content": "Hello"}]


class Loaded:
    """Says what the second of two replicas serves an adapter as."""

    def __init__(self, address: str) -> None:
        self._address = address

    def served_name(self, reference: str, address: str) -> str | None:
        is_served = reference == REFERENCE and address == self._address
        return "support@0123" if is_served else None

    def lease(self, reference: str, address: str) -> Lease | None:
        raise AssertionError(f"counting needs no lease of {reference!r} at {address!r}")

    def problem(self, reference: str, upstream: str) -> RagstoneError:
        return NotReady(f"{reference} at {upstream}")

    def lost(self, address: str) -> None:
        raise AssertionError(address)


def counted(settings: Gateway, **more: Any) -> int | None:
    async def count() -> int | None:
        tables = Tables(settings, **more)
        generators = Generators(
            load_settings(),
            engine=cast("Any", None),
            routes=lambda: tables,
            within=cast("Any", None),
            prompts=cast("Any", None),
            screening=cast("Any", None),
        )
        try:
            route = tables.current.find("writer")
            return await generators.model(route, Asker(Caller())).count(MESSAGES)
        finally:
            await tables.close()

    return asyncio.run(count())


def settings_of(*servers: Misbehaving) -> Gateway:
    target = {"upstream": "here", "adapter": REFERENCE}
    return Gateway.model_validate(
        {
            "upstreams": {"here": {"urls": [server.url for server in servers]}},
            "routes": {"writer": {"targets": [target]}},
        }
    )


def test_an_adapter_is_counted_with_where_it_is_served_under_its_name_there() -> None:
    told = failing(200, {"count": 42})
    with serving(behaviour=told) as first, serving(behaviour=told) as second:
        adapters = Loaded(second.url)
        assert counted(settings_of(first, second), adapters=lambda: adapters) == 42
        assert first.asked == []
        (asked,) = second.asked
        assert (asked.path, asked.body["model"]) == ("/tokenize", "support@0123")


def test_nobody_counts_for_an_engine_that_is_stopped() -> None:
    settings = Gateway.model_validate(
        {
            "upstreams": {"here": {"engine": "gpu"}},
            "routes": {"writer": {"targets": [{"upstream": "here"}]}},
        }
    )
    assert counted(settings, locate=lambda _: ()) is None
