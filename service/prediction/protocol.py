"""The server's protocol, where predictions that are as most are leave it before the application."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.prediction.express import BEGIN, Express, Plan
from service.protocol import ImpatientProtocol

MOST_HEADS = 32
"""Of one connection that are remembered; they differ by the length of the body."""
MOST_HEAD_BYTES = 4_096
"""Of a head that is remembered: whoever sends it need not have shown a key yet."""


class ExpressProtocol(ImpatientProtocol):
    """Compares a request's head with those that the parser has read on the same connection.

    The parser sees nothing of a request that is taken: it begins and ends in one piece of data,
    between two messages, and its head is one, byte for byte, that the parser accepted before.
    """

    is_waiting = False
    """For the answer to `_data`, which was taken."""
    _data = b""
    _express: Express | None = None
    _answered_at = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heads: dict[bytes, Plan] = {}
        self._express = self.config.app.state.components.express  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        if self.is_waiting:  # more came before its answer, which the parser has to see in order
            self.go_the_long_way()
        if (
            self._express is None
            or not data.startswith(BEGIN)
            or not self._is_between
            or self._head_bytes  # blank lines, which the parser skips and patience counts
            or not (self.cycle is None or self.cycle.response_complete)
        ):
            super().data_received(data)
            return
        at = data.find(b"\r\n\r\n") + 4
        head = data[:at]
        plan = self._heads.get(head)
        if (
            plan is not None
            and plan.size == len(data)
            and not self.flow.write_paused
            and not self.transport.is_closing()
            and self._express.take(self, plan, data, at=at)
        ):
            self._data, self.is_waiting = data, True
            return
        super().data_received(data)
        if plan is None and self._is_between:
            self._learn(head, len(data))

    def _learn(self, head: bytes, size: int) -> None:
        if len(head) > MOST_HEAD_BYTES or self.pipeline:  # a head of the last one, of several
            return
        plan = Plan.of(self.scope, len(head))
        if plan is not None and plan.size == size and self.cycle.keep_alive:
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            self._heads[head] = plan

    @property
    def default_headers(self) -> Sequence[tuple[bytes, bytes]]:
        return self.server_state.default_headers

    def answer(self, data: bytes) -> None:
        self.is_waiting, self._data = False, b""
        self._answered_at = self.loop.time()
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.transport.write(data)

    def go_the_long_way(self) -> None:
        data, self._data, self.is_waiting = self._data, b"", False
        if not self.transport.is_closing():
            super().data_received(data)

    def shutdown(self) -> None:
        if self.is_waiting:
            self.go_the_long_way()
        self._express = None  # which does not tell the client that its answer is the last
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_waiting, self._data = False, b""
        self._heads.clear()  # keys are among them, and plans know this connection
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is idle; requests that are taken do not touch its timer."""
        now = self.loop.time()
        left = (now if self.is_waiting else self._answered_at) + self.timeout_keep_alive - now
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(
                left, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()
