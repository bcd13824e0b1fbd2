"""What a request for predictions brings, and what it is answered with, whoever carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from service.callers import Caller
from service.gateway.opening import answer_seconds
from service.gateway.outgoing import TIMEOUT_HEADER

JSON = "application/json"
UNDER_WAY = "under_way"
"""In the state of a request, from our own server: all that it has begun to answer and not ended."""
AT_THE_DOOR = "at_the_door"
"""In the state of a request whose head was let in: by key or host, and by the size it names."""
USER_HEADER = "x-ragstone-user"
"""In a request whom it is for: the same version answers the same user."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A request whose body has come whole."""

    caller: Caller
    headers: Mapping[bytes, bytes]
    body: bytes
    is_alone: bool = False
    """Nothing else is under way in this process."""

    @classmethod
    def of(cls, scope: Scope, body: bytes) -> Given:
        state = scope["state"]
        is_alone = len(state.get(UNDER_WAY, "??")) <= 1
        # Of a header that comes twice the first counts.
        return cls(state["caller"], dict(reversed(scope["headers"])), body, is_alone)

    def header(self, name: str) -> str | None:
        """Return a header by its name in lower case."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    @property
    def media_type(self) -> str:
        given = self.headers.get(b"content-type", b"")
        if given == b"application/json":
            return JSON
        return given.decode("latin-1").partition(";")[0].strip().lower()

    @property
    def seconds(self) -> float | None:
        """That the answer may take, where the request says so.

        Raises:
            InvalidRequest: it says what is no time.
        """
        given = self.header(TIMEOUT_HEADER)
        return None if given is None else answer_seconds(given, float("inf"))


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """An answer with status 200."""

    body: bytes
    headers: Mapping[str, str]
    media_type: str = JSON

    def encoded(self) -> list[tuple[bytes, bytes]]:
        """Return all headers as ASGI has them."""
        named: Any = self.headers.items()
        return [
            *[(name.encode("latin-1"), value.encode("latin-1")) for name, value in named],
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", self.media_type.encode("latin-1")),
        ]
