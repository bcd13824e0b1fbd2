"""A model server on loopback that answers, or misbehaves, as a test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson

Write = Callable[[bytes], Awaitable[None]]
TOKENS = 5
USAGE = {"prompt_tokens": 7, "completion_tokens": TOKENS, "total_tokens": 7 + TOKENS}


@dataclass
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Behaviour = Callable[["Misbehaving", Asked, Write], Awaitable[None]]


class Misbehaving:
    """What it does, what it was asked, and what of its work was cut off."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = well
        self.asked: list[Asked] = []
        self.running = 0
        self.cut_off = 0
        """Answers whose connection the client closed before their end."""
        self.port = 0
        self.name = "tiny"
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            while asked := await _read(reader):
                if asked.path == "/health":
                    await write(json_answer({}, status=200 if self.is_healthy else 503))
                    continue
                self.asked.append(asked)
                self.running += 1
                work = asyncio.create_task(self._do(asked, write))
                leaving = asyncio.create_task(reader.read(1))
                await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
                self.running -= 1
                if not work.done():
                    self.cut_off += 1
                    work.cancel()
                    break
                if work.result() is False or leaving.done():
                    break
                leaving.cancel()
                with suppress(asyncio.CancelledError):
                    await leaving
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    is_healthy = True

    async def _do(self, asked: Asked, write: Write) -> bool:
        try:
            await self.behaviour(self, asked, write)
        except _HangUp:
            return False
        except ConnectionError:
            self.cut_off += 1
            return False
        return True


class _HangUp(Exception):
    pass


async def well(server: Misbehaving, asked: Asked, write: Write) -> None:
    """Answer as OpenAI's servers do."""
    await paced(0.0)(server, asked, write)


def paced(seconds: float, *, tokens: int = TOKENS) -> Behaviour:
    """Answer well, waiting before each token; a whole answer waits for all of them."""

    async def answer(server: Misbehaving, asked: Asked, write: Write) -> None:
        if not asked.body.get("stream"):
            await asyncio.sleep(seconds * tokens)
            is_chat = asked.path != "/v1/completions"
            await write(json_answer((completion if is_chat else text_completion)(server.name)))
            return
        await write(EVENTS_HEAD)
        for number in range(tokens):
            await asyncio.sleep(seconds)
            await write(chunked(event(server.name, number, last=number == tokens - 1)))
        if (asked.body.get("stream_options") or {}).get("include_usage"):
            await write(chunked(data({"id": "c", "choices": [], "usage": USAGE})))
        await write(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    return answer


async def hang(server: Misbehaving, asked: Asked, write: Write) -> None:
    """Take the request and say nothing."""
    await asyncio.sleep(60)


async def freeze(server: Misbehaving, asked: Asked, write: Write) -> None:
    """Hang, and be unwell from now on."""
    server.is_healthy = False
    await hang(server, asked, write)


async def hang_after_head(server: Misbehaving, asked: Asked, write: Write) -> None:
    await write(EVENTS_HEAD)
    await asyncio.sleep(60)


async def hang_midway(server: Misbehaving, asked: Asked, write: Write) -> None:
    await write(EVENTS_HEAD + chunked(event(server.name, 0)))
    await asyncio.sleep(60)


async def half_a_stream(server: Misbehaving, asked: Asked, write: Write) -> None:
    """Break off without an end to the chunks."""
    await write(EVENTS_HEAD + chunked(event(server.name, 0)) + chunked(event(server.name, 1)))
    raise _HangUp


async def fail_midway(server: Misbehaving, asked: Asked, write: Write) -> None:
    """Say in good order that it failed, as vLLM does when its engine dies."""
    error = data(
        {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}
    )
    await write(EVENTS_HEAD + chunked(event(server.name, 0)))
    await asyncio.sleep(0.05)
    await write(chunked(error))
    await write(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def early_end(server: Misbehaving, asked: Asked, write: Write) -> None:
    """End in good order before the answer is complete."""
    await write(EVENTS_HEAD + chunked(event(server.name, 0)) + b"0\r\n\r\n")


async def half_a_body(server: Misbehaving, asked: Asked, write: Write) -> None:
    await write(json_answer(completion(server.name))[:-10])
    raise _HangUp


async def die(server: Misbehaving, asked: Asked, write: Write) -> None:
    raise _HangUp


async def garbage(server: Misbehaving, asked: Asked, write: Write) -> None:
    await write(bytes(range(256)) * 8)
    raise _HangUp


async def garbage_events(server: Misbehaving, asked: Asked, write: Write) -> None:
    head = EVENTS_HEAD if asked.body.get("stream") else json_answer({})[:-2]
    body = b"\x00\xff\xfe nonsense\n\n"
    await write(head + chunked(body) + b"0\r\n\r\n")
    raise _HangUp


async def huge_headers(server: Misbehaving, asked: Asked, write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 1_000_000 + b"\r\n\r\n")
    raise _HangUp


async def endless_event(server: Misbehaving, asked: Asked, write: Write) -> None:
    await write(EVENTS_HEAD)
    while True:
        await write(chunked(b"data: " + b"a" * 100_000))


def failing(status: int, content: Any = None, **headers: str) -> Behaviour:
    """Answer with an error; of what is given as bytes the server says just that."""
    body = content if content is not None else {"error": {"message": "broken", "type": "server"}}

    async def fail(server: Misbehaving, asked: Asked, write: Write) -> None:
        await write(json_answer(body, status=status, **headers))

    return fail


EVENTS_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def completion(name: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"I am {name}."}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": name,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def text_completion(name: str) -> dict[str, Any]:
    choice = {"index": 0, "text": f"I am {name}.", "finish_reason": "stop"}
    return {**completion(name), "object": "text_completion", "choices": [choice]}


def event(name: str, number: int, *, last: bool = False) -> bytes:
    choice = {
        "index": 0,
        "delta": {"content": f"{name}{number} "},
        "finish_reason": "stop" if last else None,
    }
    return data({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})


def data(content: Any) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def chunked(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def json_answer(content: Any, *, status: int = 200, **headers: str) -> bytes:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    named = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in headers.items())
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{named}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def serving(*, behaviour: Behaviour = well, name: str = "tiny") -> Iterator[Misbehaving]:
    """Run one in a thread of its own."""
    server = Misbehaving()
    server.behaviour, server.name = behaviour, name
    ready = threading.Event()
    server.thread = threading.Thread(target=lambda: asyncio.run(_run(server, ready)), name=name)
    server.thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        stop(server)


def stop(server: Misbehaving) -> None:
    """Kill it: connections break, new ones are refused."""
    loop, server.loop = server.loop, None
    if loop is not None:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
    if server.thread is not None:
        server.thread.join()


async def _run(server: Misbehaving, ready: threading.Event) -> None:
    with suppress(asyncio.CancelledError):
        listening = await asyncio.start_server(server.serve, "127.0.0.1", server.port)
        server.port = listening.sockets[0].getsockname()[1]
        server.loop = asyncio.get_running_loop()
        ready.set()
        async with listening:
            await listening.serve_forever()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(first.split(" ")[1], headers, orjson.loads(body or b"{}"))
