"""What a server calls its model is its own matter: answers name it as the caller did."""

from __future__ import annotations

import orjson


class Naming:
    """Replaces the server's name of a model by the route's, in bytes, without parsing them.

    A quotation mark inside a JSON string is escaped, so `"model":"NAME"` cannot stand in a text.
    """

    def __init__(self, server: str, route: str) -> None:
        """`server` is the name in what arrives, `route` the one in what is passed on."""
        self._is_needed = server != route
        told, wanted = orjson.dumps(server), orjson.dumps(route)
        self._pairs = tuple(
            (b'"model":' + space + told, b'"model":' + space + wanted) for space in (b"", b" ")
        )

    def __call__(self, data: bytes) -> bytes:
        """Return the same with the route's name."""
        if self._is_needed:
            for told, wanted in self._pairs:
                data = data.replace(told, wanted)
        return data
