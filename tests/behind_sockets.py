"""The application behind real sockets in this process, and clients that send and read bytes."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from service.server import configure
from service.wiring import Components
from waiting import until


class Served:
    """The application behind a real socket, in a thread of this process."""

    def __init__(self, components: Components, server: uvicorn.Server) -> None:
        self.components = components
        self.server = server

    @property
    def port(self) -> int:
        return int(self.server.servers[0].sockets[0].getsockname()[1])

    @property
    def express(self) -> Any:
        return self.components.express

    def load(self, *models: str, headers: str = "") -> None:
        """Load models, which take no time from then on: what a busy machine takes says nothing."""
        with self.connected() as client:
            for name in models:
                path = f"/v2/repository/models/{name}/load"
                head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: 0"
                assert b" 200 " in client.ask(head.encode() + b"\r\n\r\n")
        for hosted in self.components.models._shelf:
            hosted.batcher._clock = lambda: 0.0
            hosted.batcher._seconds = 0.0

    @contextmanager
    def connected(self) -> Iterator[Client]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            yield Client(connection)

    @property
    def connections(self) -> list[Any]:
        """Those that have asked for predictions."""
        every: list[Any] = [*self.server.server_state.connections]
        return [each for each in every if each._heads]

    def on_loop(self, function: Callable[[], object]) -> None:
        """Call a function where the connections live, within one turn."""

        async def call() -> object:
            return function()

        asyncio.run_coroutine_threadsafe(call(), self.connections[0].loop).result(10)

    def send_together(self, data: bytes) -> None:
        """Have a request arrive from every connection within one turn of the loop."""
        connections = self.connections

        def arrive() -> None:
            for each in connections:
                each.data_received(data)
            assert all(each.is_waiting for each in connections)

        self.on_loop(arrive)


class Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = b""

    def ask(self, data: bytes) -> bytes:
        self.connection.sendall(data)
        return self.read()

    def read(self) -> bytes:
        """Return the next answer, or what came before the server closed."""
        while True:
            head, mark, rest = self._received.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if mark and head.startswith(b"HTTP/1.1 100"):
                self._received = rest
                continue
            if mark and length and len(rest) >= int(length[1]):
                size = int(length[1])
                self._received = rest[size:]
                return head + mark + rest[:size]
            piece = self.connection.recv(65536)
            if not piece:
                return self._received
            self._received += piece


@contextmanager
def serving(components: Components) -> Iterator[Served]:
    config = configure(components)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, seconds=60)
        yield Served(components, server)
    finally:
        server.should_exit = True
        thread.join(60)
