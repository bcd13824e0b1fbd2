"""A model server that thinks nothing: canned answers, and streams of 64 chunks, at once."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

CHUNKS = 64
USAGE = {"prompt_tokens": 9, "completion_tokens": CHUNKS, "total_tokens": 9 + CHUNKS}


def _chunk(choices: list[dict[str, object]], **more: object) -> bytes:
    content = {
        "id": "chatcmpl-null",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "null",
        "choices": choices,
        **more,
    }
    event = b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def _choice(text: str, reason: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}]


def _answer(content: object) -> bytes:
    body = json.dumps(content, separators=(",", ":")).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


MESSAGE = {"role": "assistant", "content": "A stone that the tower stands on. " * 8}
COMPLETION = {
    "id": "chatcmpl-null",
    "object": "chat.completion",
    "created": 1,
    "model": "null",
    "choices": [{"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}],
    "usage": USAGE,
}
WHOLE = _answer(COMPLETION)
MODELS = _answer({"object": "list", "data": [{"id": "null", "object": "model"}]})
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
STREAM = (
    *(_chunk(_choice(f"word{number} ")) for number in range(CHUNKS - 1)),
    _chunk(_choice("end", "stop")),
    _chunk([], usage=USAGE),
    b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
)


class Null(asyncio.Protocol):
    """Reads requests just far enough to know where they end and whether they want a stream."""

    def __init__(self) -> None:
        self._transport = cast("asyncio.Transport", None)
        self._received = b""
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._streaming is not None:
            self._streaming.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head, body = self._received[:end].lower(), self._received[end + 4 :]
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self._received = body[length:]
        if head.startswith(b"get"):
            self._transport.write(MODELS)
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._streaming = asyncio.get_running_loop().create_task(self._stream())
        else:
            self._transport.write(WHOLE)

    async def _stream(self) -> None:
        """Write each chunk in a turn of its own, as a server does whose tokens come singly."""
        self._transport.write(HEAD)
        for chunk in STREAM:
            self._transport.write(chunk)
            await asyncio.sleep(0)


async def serve() -> None:
    """Listen on a free port of loopback and print it."""
    server = await asyncio.get_running_loop().create_server(Null, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
