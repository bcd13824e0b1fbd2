"""A model server on loopback that says what a test tells it to, over real HTTP."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | Callable[[dict[str, Any]], str]


class ChatServer:
    """What it answers with, and what it was asked."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.status = 200
        self.word_seconds = 0.0
        self.asked: list[dict[str, Any]] = []
        self.counted = 0
        self.broken_off = threading.Event()
        self.url = ""

    def text(self, body: dict[str, Any]) -> str:
        return self.reply if isinstance(self.reply, str) else self.reply(body)


@contextmanager
def serving(reply: Reply) -> Iterator[ChatServer]:
    """Serve until the block ends."""
    state = ChatServer(reply)
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ChatServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/tokenize":
            self.state.counted += 1
            words = sum(len(message["content"].split()) for message in body["messages"])
            self._send(200, {"count": words})
            return
        self.state.asked.append(body)
        if self.state.status != 200:
            self._send(self.state.status, {"error": {"message": "out of memory"}})
        else:
            self._stream(self.state.text(body))

    def _send(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, text: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        pieces = [text[at : at + 5] for at in range(0, len(text), 5)]
        try:
            for piece in pieces:
                time.sleep(self.state.word_seconds)
                self._event({"choices": [_choice(piece)]})
            self._event({"choices": [_choice("", "stop")]})
            usage = {"prompt_tokens": 321, "completion_tokens": len(pieces)}
            self._event({"choices": [], "usage": usage})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except (BrokenPipeError, ConnectionResetError):
            self.state.broken_off.set()
            self.close_connection = True

    def _event(self, value: dict[str, Any]) -> None:
        whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        self._chunk(b"data: " + json.dumps({**whole, **value}).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def _choice(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}
