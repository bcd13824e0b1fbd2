"""Other routes take their place under load; wrong ones change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import model_server
from infra.errors import EngineFailed, InvalidConfiguration
from infra.gateway_settings import Gateway
from model_server import Misbehaving
from relayed import Kept, Unmetered, answer, call, gateway, opened, run, until
from service.engines.openai_http import OpenAIServer
from service.gateway import reloading
from service.gateway.calls import Call
from service.gateway.meters import Ticket
from service.gateway.relay import Relay
from service.gateway.reloading import Tables

Serve = Callable[..., Misbehaving]
ROUTE = {"targets": [{"upstream": "u"}]}


def test_reloading_under_load_fails_no_request(serve: Serve) -> None:
    old, new = serve(model_server.paced(0.005), name="old"), serve(name="new")
    served: set[str] = set()

    async def ask() -> None:
        async with opened(gateway(old)) as gate:
            is_over = False

            async def client(number: int) -> None:
                while not is_over:
                    body = await answer(gate.relay, call(stream=bool(number % 2)))
                    assert b"error" not in body
                    served.add("old" if b"old" in body else "new")

            clients = [asyncio.create_task(client(number)) for number in range(8)]
            for number in range(30):
                gate.tables.replace(gateway(new if number % 2 else old))
                await asyncio.sleep(0.01)
            is_over = True
            await asyncio.gather(*clients)
            assert {outcome.status for outcome in gate.outcomes} == {200}
            assert all(outcome.error is None for outcome in gate.outcomes)
            assert len(gate.outcomes) > 15

    run(ask())
    assert served == {"old", "new"}


def test_a_request_ends_where_it_began(serve: Serve) -> None:
    old, new = serve(model_server.paced(0.05), name="old"), serve(name="new")

    async def ask() -> None:
        async with opened(gateway(old)) as gate:
            task = asyncio.create_task(answer(gate.relay, call(stream=True)))
            await until(lambda: old.running == 1)
            changes = gate.tables.replace(gateway(new, route={"retries": 0}))
            assert (changes.added, changes.changed, changes.removed) == ((), ("m",), ())
            assert b"new" in await answer(gate.relay, call(stream=True))
            body = await task
            assert b"old4" in body
            assert body.endswith(b"data: [DONE]\n\n")

    run(ask())


def test_what_stays_keeps_its_breaker(serve: Serve) -> None:
    bad = serve(model_server.die)

    async def ask() -> None:
        settings = gateway(bad, route={"retries": 0}, breaker_failures=1)
        async with opened(settings) as gate:
            await asyncio.gather(answer(gate.relay, call()), return_exceptions=True)
            assert gate.breakers == ["open"]
            more = settings.model_dump()
            more["routes"]["n"] = more["routes"]["m"]
            assert gate.tables.replace(Gateway.model_validate(more)).added == ("n",)
            assert gate.breakers == ["open"]

    run(ask())


def test_wrong_settings_change_nothing_and_say_why(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    told: list[Gateway] = []

    def broken() -> Gateway:
        content = gateway(server).model_dump()
        content["routes"]["m"]["targets"] = [{"upstream": "nowhere"}]
        return Gateway.model_validate(content)

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            gate.tables.subscribe(told.append)
            await gate.tables.start(read=broken)
            before = gate.tables.current
            with pytest.raises(InvalidConfiguration, match="'nowhere'"):
                await gate.tables.reload()
            assert gate.tables.current is before
            assert told == []
            assert b"tiny" in await answer(gate.relay, call())

    run(ask())


def test_looks_at_model_servers_go_on_after_one_that_failed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an engine's state is read in the moment in which its disk is full."""
    monkeypatch.setattr(reloading, "PROBE_SECONDS", 0.005)
    old, new = serve(name="old"), serve(name="new")
    places, is_readable = [(old.url, None)], True

    def locate(name: str) -> list[tuple[str, str | None]]:
        if not is_readable:
            raise OSError("the state cannot be read")
        return places

    async def ask() -> None:
        nonlocal places, is_readable
        settings = {"upstreams": {"u": {"engine": "e"}}, "routes": {"m": ROUTE}}
        tables = Tables(Gateway.model_validate(settings), locate=locate)
        await tables.start(read=lambda: tables.current.settings)
        is_readable = False
        await asyncio.sleep(0.05)
        places, is_readable = [(new.url, None)], True
        await until(lambda: [each.replica for each in tables.current.snapshot()] == [new.url])
        await tables.close()

    run(ask())


def test_a_change_of_the_file_is_noticed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "WATCH_SECONDS", 0.02)
    old, new = serve(name="old"), serve(name="new")
    file = tmp_path / "ragstone.toml"
    told: list[Gateway] = []

    async def ask() -> None:
        async with opened(gateway(old)) as gate:
            gate.tables.subscribe(told.append)
            await gate.tables.start(read=lambda: gateway(new), file=file)
            await asyncio.sleep(0.05)
            file.write_text("changed", "utf-8")
            await until(lambda: len(told) == 1, seconds=10)
            assert b"new" in await answer(gate.relay, call())

    run(ask())


def test_a_file_that_cannot_be_read_is_tried_again(
    serve: Serve,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reloading, "WATCH_SECONDS", 0.02)
    old, new = serve(name="old"), serve(name="new")
    file = tmp_path / "ragstone.toml"
    reads = iter([PermissionError("not now"), gateway(new)])

    def read() -> Gateway:
        found = next(reads)
        if isinstance(found, Exception):
            raise found
        return found

    async def ask() -> None:
        async with opened(gateway(old)) as gate:
            await gate.tables.start(read=read, file=file)
            await asyncio.sleep(0.05)
            file.write_text("changed", "utf-8")
            await until(lambda: "not now" in caplog.text, seconds=10)
            file.write_text("changed again", "utf-8")
            await until(lambda: gate.tables.current.settings == gateway(new), seconds=10)

    run(ask())


def test_an_engine_that_cannot_be_located_does_not_end_the_looking_after(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "PROBE_SECONDS", 0.02)
    server = serve()
    settings = Gateway.model_validate(
        {
            "upstreams": {"u": {"engine": "e", "breaker_failures": 1}},
            "routes": {"m": {"targets": [{"upstream": "u", "model": "tiny"}], "retries": 0}},
        }
    )
    problem: list[Exception] = []

    def locate(engine: str) -> list[tuple[str, str | None]]:
        if problem:
            raise problem[0]
        return [(server.url, None)]

    async def ask() -> None:
        tables = Tables(settings, locate=locate)
        relay = Relay(tables, meter=Unmetered(), recorder=Kept())
        await tables.start(read=lambda: settings)
        problem.append(OSError("no list of engines"))
        await until(lambda: "no list of engines" in caplog.text)
        server.behaviour = model_server.die
        await asyncio.gather(answer(relay, call()), return_exceptions=True)
        assert tables.current.snapshot()[0].breaker == "open"
        problem.clear()
        await until(lambda: tables.current.snapshot()[0].breaker != "open")
        await relay.close()
        await tables.close()

    run(ask())


class Slow(Unmetered):
    """Has every call wait until it is let in."""

    def __init__(self) -> None:
        self.waiting = 0
        self.opens = asyncio.Event()

    def try_admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Have it waited for."""
        del call, prompt_tokens, completion_tokens

    async def admit(self, call: Call, *, prompt_tokens: int, completion_tokens: int) -> Ticket:
        self.waiting += 1
        await self.opens.wait()
        return Unmetered().try_admit(
            call, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
        )


def test_servers_of_a_past_table_stay_open_for_who_may_yet_ask_them(serve: Serve) -> None:
    old, new = serve(name="old"), serve(name="new")
    meter = Slow()

    async def ask() -> None:
        async with opened(gateway(old), meter=meter) as gate:
            (server,) = gate.tables.current.servers("u")
            assert isinstance(server, OpenAIServer)
            task = asyncio.create_task(answer(gate.relay, call()))
            await until(lambda: meter.waiting == 1)
            gate.tables.replace(gateway(new))
            await asyncio.sleep(0.2)
            meter.opens.set()
            assert b"old" in await task
            await until(lambda: not server.connections)  # closed after it, not opened anew

    run(ask())


def test_what_a_wrong_reload_had_opened_is_closed(serve: Serve, tmp_path: Path) -> None:
    server, file = serve(), tmp_path / "open"
    wrong = gateway(server).model_dump()
    noted = {"plugin": "noted_server.build_server", "options": {"file": str(file)}}
    wrong["upstreams"] = {"a": noted, **wrong["upstreams"], "b": {"urls": ["nowhere"]}}
    settings = Gateway.model_validate(wrong)

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            with pytest.raises(InvalidConfiguration, match=r"upstreams\.b"):
                gate.tables.replace(settings)
            await until(lambda: not file.exists())
            assert b"tiny" in await answer(gate.relay, call())

    run(ask())
    with pytest.raises(InvalidConfiguration, match=r"upstreams\.b"):
        Tables(settings)
    assert not file.exists()


def engine(server: Misbehaving, **target: float) -> Gateway:
    settings = gateway(server).model_dump()
    settings["upstreams"]["gpu"] = {"engine": "big"}
    targets = settings["routes"]["m"]["targets"]
    settings["routes"]["m"]["targets"] = [{"upstream": "gpu", **target}, *targets]
    settings["routes"]["alone"] = {"targets": [{"upstream": "gpu"}], "retries": 0}
    return Gateway.model_validate(settings)


def stopped(_: str) -> Sequence[tuple[str, str | None]]:
    return ()


@pytest.mark.parametrize("stream", [False, True])
def test_a_stopped_engine_is_named_and_others_answer_for_it(serve: Serve, stream: bool) -> None:
    server = serve()

    async def ask() -> None:
        async with opened(engine(server, weight=1000), locate=stopped) as gate:
            assert b"tiny" in await answer(gate.relay, call(stream=stream))
            with pytest.raises(EngineFailed, match="'gpu' runs; .*ragstone engine start big"):
                await answer(gate.relay, call("alone", stream=stream))
            assert [outcome.status for outcome in gate.outcomes] == [200, 502]
            assert gate.is_idle

    run(ask())
