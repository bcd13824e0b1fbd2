"""HTTP as model servers really speak it: kept connections, odd endings, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from infra.errors import EngineFailed, EngineTimedOut, EngineUnreachable, InvalidConfiguration
from relayed import run, until
from service.engines import ServerContext
from service.engines._connections import BUFFER_BYTES, Connection
from service.engines._place import Place
from service.engines.openai_http import HttpReply, OpenAIServer, build_server
from service.gateway.adapter_hosts import HttpHost

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
PATH = "/v1/chat/completions"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Backend:
    """Answers each request with the next of what it was told to say; the last again and again."""

    def __init__(self, answers: Sequence[bytes | Answer]) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                await reader.readexactly(length)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def opened(
    *answers: bytes | Answer, **options: Any
) -> AsyncIterator[tuple[OpenAIServer, Backend]]:
    backend = Backend(answers)
    listening = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    backend.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    server = build_server(ServerContext(backend.url, options=options))
    try:
        yield server, backend
    finally:
        await server.close()
        listening.close()


async def send(server: OpenAIServer, *, seconds: float = 10.0, **headers: str) -> HttpReply:
    return await server.send(PATH, b"{}", headers=headers, timeout_seconds=seconds)


async def ask(server: OpenAIServer, **more: Any) -> bytes:
    reply = await send(server, **more)
    return b"".join([piece async for piece in reply.pieces()])


async def end(writer: asyncio.StreamWriter) -> None:
    """Answer without a length: the end of the connection is the end of the answer."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello ")
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.write(b"you")
    writer.close()


def test_a_connection_serves_one_request_after_the_other() -> None:
    async def work() -> None:
        async with opened(WHOLE) as (server, backend):
            for _ in range(3):
                assert await ask(server) == b"hi"
            assert (backend.connections, len(server.connections)) == (1, 1)
            assert await asyncio.gather(*(ask(server) for _ in range(3))) == [b"hi"] * 3
            assert backend.connections == 3

    run(work())


def test_closing_an_answer_twice_takes_no_connection_from_the_next() -> None:
    async def work() -> None:
        async with opened(WHOLE) as (server, backend):
            first = await send(server)
            assert [piece async for piece in first.pieces()] == [b"hi"]
            second = await send(server)
            await first.close()
            assert [piece async for piece in first.pieces()] == []
            assert [piece async for piece in second.pieces()] == [b"hi"]
            assert backend.connections == 1

    run(work())


def test_idle_connections_are_closed_in_time() -> None:
    async def work() -> None:
        async with opened(WHOLE, keep_alive_seconds=0.05) as (server, backend):
            await ask(server)
            await until(lambda: not server.connections)
            assert await ask(server) == b"hi"
            assert backend.connections == 2

    run(work())


def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async def close(writer: asyncio.StreamWriter) -> None:
        writer.write(WHOLE)
        writer.close()

    async def work() -> None:
        async with opened(close) as (server, backend):
            for number in range(1, 4):
                assert await ask(server) == b"hi"
                await until(lambda: not server.connections)
                assert backend.connections == number

    run(work())


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (end, b"hello you"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: y\r\n\r\n",
            b"hi",
        ),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
    ],
)
def test_every_end_of_an_answer_is_known(answer: bytes | Answer, body: bytes) -> None:
    async def work() -> None:
        async with opened(answer) as (server, _):
            assert await ask(server) == body
            assert await ask(server) == body

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %b\r\n" % (n, b"a" * 999) for n in range(99)),
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 99_999 + b"\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_a_failure(answer: bytes) -> None:
    async def work() -> None:
        async with opened(answer) as (server, backend):
            with pytest.raises(EngineFailed, match=backend.url):
                await ask(server)
            await until(lambda: not server.connections)

    run(work())


def test_a_failure_says_what_the_gateway_does_not_take() -> None:
    async def work() -> None:
        packed = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi"
        async with opened(packed) as (server, _):
            with pytest.raises(EngineFailed, match="compresses its answer"):
                await ask(server)

    run(work())


def test_more_than_one_answer_to_a_request_spoils_the_connection() -> None:
    async def work() -> None:
        async with opened(WHOLE + WHOLE) as (server, backend):
            for number in range(1, 3):
                assert await ask(server) == b"hi"
                await until(lambda: not server.connections)
                assert backend.connections == number

    run(work())


def test_a_header_cannot_become_two() -> None:
    async def work() -> None:
        async with opened(WHOLE) as (server, backend):
            for value in ("a\r\nx: y", "a\nb", "a\rb", "\0", "塔"):
                with pytest.raises(EngineFailed, match="cannot be asked"):
                    await ask(server, traceparent=value)
            assert backend.connections == 0
            await ask(server, tracestate="a=é")
            assert "tracestate: a=é\r\n".encode("latin-1") in backend.heads[0]

    run(work())


class Wire(asyncio.Transport):
    """What a connection is told to do, in place of a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read = True
        self.is_closed = False
        self.unsent = 0

    def write(self, data: Any) -> None:
        """Nobody is there."""

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def abort(self) -> None:
        self.is_closed = True


LARGE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * BUFFER_BYTES + 3)
REST = b"a" * (BUFFER_BYTES + 2)


def wired(kept: list[Connection]) -> tuple[Connection, Wire]:
    """Return a connection that is asked, and has read ahead as much as it may."""
    made, wire = Connection("wire", keep=kept.append, forget=lambda _: None), Wire()
    made.connection_made(wire)
    made.ask(b"", b"")
    made.data_received(LARGE + b"a" * (BUFFER_BYTES + 1))
    return made, wire


def test_a_slow_reader_makes_the_server_wait() -> None:
    async def work() -> None:
        kept: list[Connection] = []
        made, wire = wired(kept)
        assert not wire.is_read
        assert len(await made.read()) == BUFFER_BYTES + 1
        assert wire.is_read
        made.data_received(REST)
        assert len(await made.read()) == len(REST)
        assert await made.read() == b""
        made.release()
        assert kept == [made]

    run(work())


def test_a_connection_that_is_not_listened_to_serves_nobody_else() -> None:
    async def work() -> None:
        kept: list[Connection] = []
        made, wire = wired(kept)
        made.data_received(REST)
        assert made.has_ended
        made.release()
        assert not kept
        assert wire.is_closed

    run(work())


@pytest.mark.parametrize("unsent", [0, 1])
def test_a_connection_whose_request_was_answered_before_it_was_sent_serves_nobody_else(
    unsent: int,
) -> None:
    async def work() -> None:
        kept: list[Connection] = []
        made, wire = wired(kept)
        await made.read()
        made.data_received(REST)
        await made.read()
        wire.unsent = unsent
        made.release()
        assert (len(kept), wire.is_closed) == (1 - unsent, unsent == 1)

    run(work())


def test_the_silence_of_a_server_that_is_made_to_wait_is_no_failure() -> None:
    async def work() -> None:
        made, wire = wired([])
        reply = HttpReply(made, "wire", silence_seconds=0.02)
        pieces = reply.pieces()
        assert len(await anext(pieces)) == BUFFER_BYTES + 1
        made.data_received(REST[:-1])
        assert not wire.is_read
        await asyncio.sleep(0.05)
        assert not wire.is_closed
        with pytest.raises(EngineTimedOut, match="fell silent"):
            async for _ in pieces:
                pass

    run(work())


def test_a_stream_of_pieces_reads_nothing_of_the_next_answer() -> None:
    async def work() -> None:
        async with opened(WHOLE) as (server, backend):
            first = await send(server)
            pieces = first.pieces()
            assert await anext(pieces) == b"hi"
            await first.close()
            second = await send(server)
            assert [piece async for piece in pieces] == []
            assert [piece async for piece in second.pieces()] == [b"hi"]
            assert backend.connections == 1

    run(work())


def test_a_server_that_cannot_be_reached_is_a_failure_and_not_the_deadline() -> None:
    async def work() -> None:
        server = build_server(ServerContext("http://127.0.0.1:1"))
        with pytest.raises(EngineFailed, match="cannot be asked") as failure:
            await ask(server)
        assert not isinstance(failure.value, EngineTimedOut)

    run(work())


class Resolved(asyncio.SelectorEventLoop):
    """Knows a host of two addresses, of which the first takes no connection and refuses none."""

    async def getaddrinfo(self, _: Any, port: Any, **__: Any) -> Any:
        return [(0, 0, 0, "", (each, port)) for each in ("10.255.255.1", "127.0.0.1")]

    async def create_connection(self, factory: Any, host: Any = None, *more: Any, **_: Any) -> Any:
        if host == "10.255.255.1":
            await asyncio.sleep(60)
        return await super().create_connection(factory, host, *more)


def test_a_host_is_asked_at_its_next_address_where_the_first_is_silent() -> None:
    async def work() -> None:
        async with opened(WHOLE) as (_, backend):
            url = backend.url.replace("127.0.0.1", "models.example")
            server = build_server(ServerContext(url, connect_seconds=0.05))
            assert await ask(server) == b"hi"
            await server.close()

    with asyncio.Runner(loop_factory=Resolved) as runner:
        runner.run(work())


@pytest.mark.parametrize(
    ("connecting", "beginning", "told"),
    [(50, 0.01, "0.01"), (0.02, 50, "0.02"), (0.004, 9, "0.004")],
)
def test_a_server_that_takes_no_connection_is_waited_for_as_long_as_is_set(
    connecting: float, beginning: float, told: str
) -> None:
    async def work() -> None:
        server = build_server(ServerContext("http://10.255.255.1:1", connect_seconds=connecting))
        with pytest.raises(EngineUnreachable, match=f"no connection within {told} s"):
            await send(server, seconds=beginning)

    with asyncio.Runner(loop_factory=Resolved) as runner:
        runner.run(work())


def test_what_connecting_took_is_taken_from_the_time_to_begin_an_answer() -> None:
    """As long as is set, both together; and this is the time that is told."""

    waits: list[float] = []

    class Slow(asyncio.SelectorEventLoop):
        async def create_connection(self, *given: Any, **how: Any) -> Any:
            await asyncio.sleep(0.05)
            return await super().create_connection(*given, **how)

        def call_later(self, delay: float, callback: Any, *given: Any, **how: Any) -> Any:
            if isinstance(getattr(callback, "__self__", None), Connection):
                waits.append(delay)
            return super().call_later(delay, callback, *given, **how)

    async def hang(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def work() -> None:
        async with opened(hang) as (server, _):
            with pytest.raises(EngineTimedOut, match=r"begin to answer within 0\.1 s"):
                await send(server, seconds=0.1)
            (left,) = waits
            assert left < 0.06

    with asyncio.Runner(loop_factory=Slow) as runner:
        runner.run(work())


def test_a_probe_asks_for_a_connection_and_takes_none_that_was_kept() -> None:
    async def work() -> None:
        async with opened(WHOLE) as (server, backend):
            await ask(server)
            assert await server.probe()
            assert backend.connections == 2

    run(work())


def test_an_address_says_where_to_and_who() -> None:
    place = Place.of("http://ada:pass%20word@[::1]/base", {})
    assert (place.host, place.port, place.prefix, place.security) == ("::1", 80, "/base", None)
    assert place.address == HttpHost("http://ada:pass%20word@[::1]/base/").address
    assert place.address == "http://[::1]/base"
    pair = base64.b64encode(b"ada:pass word").decode()
    assert (
        place.request("GET", "/x", {"a": "b"}, 0)
        == (
            f"GET /base/x HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Basic {pair}\r\n"
            "a: b\r\ncontent-length: 0\r\n\r\n"
        ).encode()
    )
    secure = Place.of("https://models.example:8443", {"Authorization": "Bearer k"})
    assert secure.port == 8443
    assert secure.security is not None
    assert secure.security.verify_mode == ssl.CERT_REQUIRED
    assert b"Host: models.example:8443\r\n" in secure.request("GET", "/", {}, 0)
    assert "Bearer" not in repr(secure)


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "http://", "http://x:99999", "http://[::1", "http://a b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfiguration, match="http://HOST:PORT"):
        Place.of(url, {})


@pytest.mark.parametrize("url", ["http://ada:pass/word@x", "http://ada:word@[x", "ftp://a:word@x"])
def test_no_password_is_told_of_an_address_that_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        Place.of(url, {})
    told = "".join(traceback.format_exception(refused.value, limit=0))
    assert "word" not in told
    assert "pass" not in told


@pytest.mark.parametrize("key", ["secret\n", "secret\r\nx: y", "塔secret"])
def test_a_key_that_cannot_be_sent_is_refused_before_the_first_call(key: str) -> None:
    with pytest.raises(InvalidConfiguration, match="key of http://x") as refused:
        build_server(ServerContext("http://ada:word@x", api_key=key))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("path", ["", "health", "/a b", "/\n", "/塔", None])
def test_a_health_path_that_cannot_be_asked_for_is_refused(path: Any) -> None:
    with pytest.raises(InvalidConfiguration, match="health_path"):
        build_server(ServerContext("http://x", options={"health_path": path}))
