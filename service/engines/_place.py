"""Where a model server is, and what every request to it begins with."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from infra.addresses import shown
from infra.errors import EngineFailed, InvalidConfiguration

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and what every request to it begins with."""

    address: str
    """As logs and errors call it: the URL without a password."""
    host: str
    port: int
    prefix: str
    """Of every path."""
    head: bytes = field(repr=False)
    """Headers of every request; a key may be among them."""
    security: ssl.SSLContext | None = field(repr=False)

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str]) -> Place:
        """Read a URL.

        Raises:
            InvalidConfiguration: it is none that HTTP can be spoken to, or a header cannot be sent.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS[parts.scheme]
            host = parts.hostname or ""
            name = host if host.isascii() else host.encode("idna").decode()
        except (ValueError, KeyError):  # which may say a part of the password
            raise _no_address(url) from None
        if not name or " " in name or not name.isprintable():
            raise _no_address(url)
        address = shown(url)
        bracketed = f"[{name}]" if ":" in name else name
        where = bracketed if port == PORTS[parts.scheme] else f"{bracketed}:{port}"
        every = {"Host": where, **headers}
        if parts.username is not None and "Authorization" not in every:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            every["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        try:
            head = _lines(every)
        except ValueError:  # which says what could not be encoded: perhaps the key
            raise InvalidConfiguration(
                f"The key of {address} cannot be sent: it holds a line break, or what is no "
                "Latin letter"
            ) from None
        security = ssl.create_default_context() if parts.scheme == "https" else None
        prefix = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        return cls(address, name, port, prefix, head, security)

    def request(self, method: str, path: str, headers: Mapping[str, str], size: int) -> bytes:
        """Return the head of a request with a body of `size` bytes.

        Raises:
            EngineFailed: a header cannot be sent.
        """
        try:
            more = _lines(headers)
        except ValueError as error:
            raise EngineFailed(f"{self.address} cannot be asked: {error}") from error
        line = f"{method} {self.prefix}{path} HTTP/1.1\r\n".encode("ascii")
        return b"%b%b%bcontent-length: %d\r\n\r\n" % (line, self.head, more, size)


def _lines(headers: Mapping[str, str]) -> bytes:
    """Return headers as they are sent.

    Raises:
        ValueError: one of them would be more than a line, or is not of Latin letters.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\r") != len(headers) or text.count("\n") != len(headers) or "\0" in text:
        raise ValueError("a header holds a line break")
    return text.encode("latin-1")


def _no_address(url: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"{shown(url)!r} is no address of a model server; write http://HOST:PORT"
    )
