"""A client that asks as fast as it can, or at a fixed rate, in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop

from benchmarks.peers.job import answer_lines
from infra.errors import EngineFailed

TIMEOUT_SECONDS = 120.0
"""For one answer."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask, of whom, how much of it."""

    port: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    clients: int = 8
    """Each asks again as soon as it is answered."""
    rate: float | None = None
    """Requests started in a second, however long answers take; instead of `clients`."""
    connections: int = 64
    """Of an open loop; requests that find none free wait, and their wait counts."""
    seconds: float = 5.0
    requests: int | None = None
    """Ends after these, instead of after `seconds`."""
    events: int | None = None
    """That each answer must have at least, if it is a stream."""


@dataclass(slots=True)
class Measured:
    """What became of it; times in milliseconds."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    """Of bodies: the head of a stream comes before its first event."""
    failures: dict[str, int] = field(default_factory=dict)


class _Connection(asyncio.Protocol):
    """One request at a time; reads an answer just far enough to know where it ends."""

    def __init__(self) -> None:
        self._transport = cast("asyncio.Transport", None)
        self._answer: asyncio.Future[bytes] | None = None
        self._received = bytearray()
        self._body_at = -1
        self._length: int | None = None
        self.first_byte = 0.0
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(EngineFailed(f"The connection was closed: {exc}"))

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the future is the whole answer, its head included."""
        self._received.clear()
        self._body_at, self._length, self.first_byte = -1, None, 0.0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._body_at < 0:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._body_at = end + 4
            head = bytes(self._received[:end]).lower()
            at = head.find(b"content-length:")
            self._length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else None
        if not self.first_byte and len(self._received) > self._body_at:
            self.first_byte = time.perf_counter()
        if self._is_complete() and self._answer is not None and not self._answer.done():
            self._answer.set_result(bytes(self._received))

    def close(self) -> None:
        self._transport.close()

    def _is_complete(self) -> bool:
        if self._length is not None:
            return len(self._received) - self._body_at >= self._length
        return self._received.endswith(b"0\r\n\r\n")


def sound(done: Measured) -> Measured:
    """Return what was measured, if every request was answered.

    Raises:
        EngineFailed: figures over failed requests would mean nothing.
    """
    if done.failures or not done.latencies:
        raise EngineFailed(f"Requests failed: {done.failures or 'none was answered'}")
    return done


def at(samples: Sequence[float], share: float) -> float:
    """Return the value that a share of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def drive(load: Load) -> Measured:
    """Ask until time or requests are used up."""
    measured = Measured()
    head = f"POST {load.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    named = "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
    request = f"{head}{named}content-length: {len(load.body)}\r\n\r\n{load.body}".encode()
    start = time.perf_counter()
    if load.rate is None:
        left = deque(range(load.requests)) if load.requests is not None else None
        asking = (_ask_on(load, request, measured, start, left) for _ in range(load.clients))
        await asyncio.gather(*asking)
    else:
        await _ask_at_rate(load, request, measured, start)
    measured.seconds = time.perf_counter() - start
    return measured


async def _ask_on(
    load: Load, request: bytes, measured: Measured, start: float, left: deque[int] | None
) -> None:
    connection = await _connect(load)
    try:
        while left if left is not None else time.perf_counter() - start < load.seconds:
            if left is not None:
                left.popleft()
            if not connection.is_open:
                connection = await _connect(load)
            await _ask(connection, request, measured, load, time.perf_counter())
    finally:
        connection.close()


async def _ask_at_rate(load: Load, request: bytes, measured: Measured, start: float) -> None:
    """Start requests by the clock: a server that stalls is charged for all that wait meanwhile."""
    idle = [await _connect(load) for _ in range(load.connections)]
    free = asyncio.Semaphore(load.connections)
    tasks: set[asyncio.Task[None]] = set()
    rate = load.rate or 1.0

    async def ask(due: float) -> None:
        async with free:
            connection = idle.pop()
            if not connection.is_open:
                connection = await _connect(load)
            try:
                await _ask(connection, request, measured, load, due)
            finally:
                idle.append(connection)

    for number in range(int(load.seconds * rate)):
        due = start + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(ask(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()


async def _ask(
    connection: _Connection, request: bytes, measured: Measured, load: Load, due: float
) -> None:
    try:
        answer = await asyncio.wait_for(connection.ask(request), TIMEOUT_SECONDS)
    except (EngineFailed, TimeoutError) as error:
        _count(measured, type(error).__name__)
        connection.close()
        return
    now = time.perf_counter()
    if failure := _failure(answer, load):
        _count(measured, failure)
    else:
        measured.latencies.append((now - due) * 1e3)
        measured.first_bytes.append((connection.first_byte - due) * 1e3)


def _failure(answer: bytes, load: Load) -> str | None:
    """Return what is wrong with an answer: streams tell their errors behind a 200."""
    status = answer[9:12].decode()
    if status != "200":
        return status
    if load.events is None:
        return None
    if b'data: {"error"' in answer or b"data: [DONE]" not in answer:
        return "broken off"
    count = answer.count(b"data: {")
    return f"{count} events" if count < load.events else None


def _count(measured: Measured, failure: str) -> None:
    measured.failures[failure] = measured.failures.get(failure, 0) + 1


async def _connect(load: Load) -> _Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(_Connection, "127.0.0.1", load.port)
    return connection


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    return asdict(uvloop.run(drive(Load(**request))))


if __name__ == "__main__":
    answer_lines(_answer)
