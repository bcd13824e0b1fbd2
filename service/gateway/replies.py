"""What the gateway gives back for a call: a status, headers, and the body as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewayReply:
    """An answer on its way to the caller; closing the pieces stops the work."""

    status: int
    headers: Mapping[str, str]
    """Lower case, `content-type` among them."""
    pieces: AsyncGenerator[bytes, None]


async def whole(body: bytes) -> AsyncGenerator[bytes, None]:
    """Yield a body that is known."""
    yield body
