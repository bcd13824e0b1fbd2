"""What the gateway gives back for a call: a status, headers, and the body as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from service.gateway.calls import Outcome


class Pieces(Protocol):
    """A body: read to its end, or closed, which stops the work that makes it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class GatewayReply:
    """An answer on its way to the caller; closing the pieces stops the work."""

    status: int
    headers: Mapping[str, str]
    """Lower case, `content-type` among them; `content-length` only where the body is known."""
    pieces: Pieces
    outcome: Outcome | None = None
    """What is known of the call so far; complete once the pieces have ended."""

    @property
    def is_whole(self) -> bool:
        """Whether the body is there already; else it is a stream."""
        return "content-length" in self.headers


async def whole(body: bytes) -> AsyncGenerator[bytes, None]:
    """Yield a body that is known."""
    yield body
