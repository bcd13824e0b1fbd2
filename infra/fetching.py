"""Fetches URLs that a stranger may have written: pinned public addresses, bounded answers."""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

from infra.addresses import shown
from infra.artifacts.files import storage_errors
from infra.errors import (
    ExceedsLimit,
    FetchFailed,
    FetchRefused,
    InvalidConfiguration,
    Unsupported,
)

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Sequence[str]]

PIECE_BYTES = 1 << 16
MAX_URL_CHARACTERS = 4096
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOT_MODIFIED = 304
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""NAT64 (RFC 6052): the IPv4 address stands in the last 32 bits."""
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",
        "::/96",  # unspecified, loopback, IPv4-compatible
        "64:ff9b:1::/48",  # NAT64 of one's own
        "100::/64",
        "2001::/23",  # Teredo among others
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local, as it was
    )
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one fetch may take."""

    max_bytes: int = 64 << 20
    """Of the body, unpacked."""
    timeout_seconds: float = 60.0
    """From the first connection to the last byte, all redirects included."""
    max_redirects: int = 5
    allowed_addresses: tuple[str, ...] = ()
    """Networks that are not public and may be reached all the same, each with a port or without."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a URL gave; its body went to the file."""

    url: str
    """Where the last redirect led."""
    status: int
    """200, or 304 where `known` still holds."""
    media_type: str
    """In lower case, without parameters; empty if the server does not tell."""
    size: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""


def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, in the order in which to try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class _Wish:
    headers: Mapping[str, str]
    media_types: tuple[str, ...]


class Fetcher:
    """Fetches by GET; safe to share between threads.

    A host is resolved once for each request and all its addresses are judged; the connection goes
    to the judged address itself, so that a name that resolves to another one a moment later gains
    nothing. Proxies of the environment are not used: they would resolve the name again.
    """

    def __init__(
        self,
        bounds: Bounds,
        *,
        user_agent: str = "ragstone",
        resolve: Resolve = resolve_by_system,
    ) -> None:
        self._bounds = bounds
        self._allowed = [_parse_allowed(text) for text in bounds.allowed_addresses]
        self._agent = user_agent
        self._resolve = resolve
        self._tls = ssl.create_default_context()

    def fetch(
        self,
        url: str,
        into: BinaryIO,
        *,
        headers: Mapping[str, str] | None = None,
        media_types: tuple[str, ...] = (),
    ) -> Answer:
        """Write what a URL gives to a file.

        Args:
            url: `http` or `https`.
            into: where the body goes, unpacked.
            headers: sent along, such as `If-None-Match`.
            media_types: beginnings of those that are wanted; all if none is given.

        Raises:
            FetchRefused: it, or where it redirects to, must not be fetched.
            FetchFailed: no answer in time, or another than 200 or 304.
            Unsupported: its media type is none of those; the body was not read.
            ExceedsLimit: the body is longer than the bounds allow.
        """
        deadline = time.monotonic() + self._bounds.timeout_seconds
        seen: list[str] = []
        while True:
            seen.append(url)
            answer = self._get(url, into, _Wish(headers or {}, media_types), deadline)
            if isinstance(answer, Answer):
                return answer
            if len(seen) > self._bounds.max_redirects:
                raise FetchFailed(f"{seen[0]!r} redirects more than {len(seen) - 1} times")
            if answer in seen:
                raise FetchFailed(f"{seen[0]!r} redirects in a circle")
            url = answer

    def _get(self, url: str, into: BinaryIO, wish: _Wish, deadline: float) -> Answer | str:
        parts = _split(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        address = self._judge(host, port, url)
        with _failures(url), _watched(url, deadline) as watch:
            connection = _Pinned(
                host, port, address, self._tls if parts.scheme == "https" else None
            )
            watch(connection)
            try:
                target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
                connection.request("GET", target, headers=self._headers(wish.headers))
                with closing(connection.getresponse()) as response:
                    if response.status in _REDIRECTS:
                        return _follow(url, response)
                    return self._read(url, response, into, wish)
            finally:
                connection.close()

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "User-Agent": self._agent,
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            "Connection": "close",
            **more,
        }

    def _judge(self, host: str, port: int, url: str) -> str:
        """Resolve a host, once, and return the address to connect to."""
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise FetchFailed(f"{url!r}: {host!r} cannot be resolved: {error}") from None
        if not found:
            raise FetchFailed(f"{url!r}: {host!r} has no address")
        for text in found:
            try:
                address = ipaddress.ip_address(text.partition("%")[0])
            except ValueError:
                raise FetchRefused(f"{url!r}: {text!r} is no address") from None
            if "%" in text or not (is_public(address) or self._is_allowed(address, port)):
                raise FetchRefused(
                    f"{url!r} leads to {text}, which is not a public address; if it is meant, add"
                    f" '{text}:{port}' to sources.allowed_addresses"
                )
        return found[0]

    def _is_allowed(self, address: Address, port: int) -> bool:
        return any(
            address.version == network.version and address in network and only in (None, port)
            for network, only in self._allowed
        )

    def _read(
        self, url: str, response: http.client.HTTPResponse, into: BinaryIO, wish: _Wish
    ) -> Answer:
        status, size = response.status, 0
        headers = {name.lower(): value for name, value in response.getheaders()}
        if status not in (200, _NOT_MODIFIED):
            raise FetchFailed(f"{url!r} answers {status} {response.reason}", status=status)
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if status == 200:
            if wish.media_types and media_type and not media_type.startswith(wish.media_types):
                raise Unsupported(f"{url!r} is {media_type!r}, which is not read")
            for piece in self._unpacked(url, response, headers.get("content-encoding", "")):
                size += len(piece)
                if size > self._bounds.max_bytes:
                    raise self._too_long(url)
                with storage_errors("store what was fetched"):
                    into.write(piece)
        return Answer(url, status, media_type, size, headers)

    def _unpacked(
        self, url: str, response: http.client.HTTPResponse, encoding: str
    ) -> Iterator[bytes]:
        length = response.length
        if length is not None and length > self._bounds.max_bytes:
            raise self._too_long(url)
        pieces = iter(lambda: response.read1(PIECE_BYTES), b"")
        if encoding.strip().lower() in ("", "identity"):
            received = 0
            for piece in pieces:
                received += len(piece)
                yield piece
            if length is not None and received < length:
                raise FetchFailed(f"{url!r} broke off after {received:,} of {length:,} bytes")
        elif encoding.strip().lower() in ("gzip", "x-gzip"):
            yield from gunzip(pieces, what=url)
        else:
            raise FetchFailed(f"{url!r} is packed as {encoding!r}, which was not asked for")

    def _too_long(self, url: str) -> ExceedsLimit:
        return ExceedsLimit(f"{url!r} has more than {self._bounds.max_bytes:,} bytes")


def is_public(address: Address) -> bool:
    """Whether anybody's machine may stand there: no private, local, shared or reserved address.

    An IPv6 address that stands for an IPv4 one is as public as that.

    >>> [is_public(ipaddress.ip_address(text)) for text in ("8.8.8.8", "::ffff:127.0.0.1")]
    [True, False]
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _TRANSLATED:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    refused = any(address.version == each.version and address in each for each in _NEVER_PUBLIC)
    return (
        address.is_global and not address.is_multicast and not address.is_reserved and not refused
    )


def gunzip(pieces: Iterator[bytes], *, what: str) -> Iterator[bytes]:
    """Unpack gzip piece by piece; never more than a piece is held, whatever it unpacks to.

    Raises:
        FetchFailed: it is not gzip, or breaks off.
    """
    unpacker = zlib.decompressobj(wbits=31)
    try:
        for piece in pieces:
            waiting = piece
            while waiting:
                if unpacker.eof:  # one member after the other is one file
                    unpacker = zlib.decompressobj(wbits=31)
                unpacked = unpacker.decompress(waiting, PIECE_BYTES)
                waiting = unpacker.unconsumed_tail or unpacker.unused_data
                if unpacked:
                    yield unpacked
    except zlib.error as error:
        raise FetchFailed(f"{what!r} is not the gzip that it says it is: {error}") from None
    if not unpacker.eof:
        raise FetchFailed(f"{what!r} broke off")


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was judged, in the name of its host."""

    def __init__(self, host: str, port: int, address: str, tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port)
        # Without the port where it is the usual one, as other clients do.
        self.default_port = _PORTS["https" if tls else "http"]
        self._address = address
        self._tls = tls
        self.wire: socket.socket | None = None
        self.remaining: Callable[[], float] = lambda: 1.0

    def connect(self) -> None:
        self.sock = self.wire = socket.create_connection(
            (self._address, self.port), self.remaining()
        )
        if self._tls is not None:
            self.sock = self.wire = self._tls.wrap_socket(self.wire, server_hostname=self.host)


@contextmanager
def _watched(url: str, deadline: float) -> Iterator[Callable[[_Pinned], None]]:
    """Shut a connection down at the deadline: a server that drips must not keep us."""
    opened: list[_Pinned] = []
    late = threading.Event()

    def cut() -> None:
        late.set()
        for connection in opened:
            # Kept beside `sock`, which is dropped once the answer is to be read to its end.
            if connection.wire is not None:
                try:
                    connection.wire.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed by itself in the meantime

    def watch(connection: _Pinned) -> None:
        connection.remaining = lambda: max(0.01, deadline - time.monotonic())
        opened.append(connection)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield watch
        if late.is_set():
            raise FetchFailed(f"{url!r} takes longer than sources.timeout_seconds allows")
    except (OSError, http.client.HTTPException, FetchFailed) as error:
        if late.is_set():
            raise FetchFailed(
                f"{url!r} takes longer than sources.timeout_seconds allows"
            ) from error
        raise
    finally:
        timer.cancel()


@contextmanager
def _failures(url: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise FetchRefused(f"{url!r} does not prove who it is: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchFailed(f"{url!r} does not answer: {error or type(error).__name__}") from error


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # which may say a part of a password
        raise FetchRefused(f"{shown(url)!r} is not a URL") from None
    if parts.scheme not in _PORTS:
        raise FetchRefused(f"{shown(url)!r} is not fetched; only http and https are")
    if not parts.hostname or port == 0:
        raise FetchRefused(f"{shown(url)!r} names no host")
    if "@" in parts.netloc:
        raise FetchRefused(f"{parts.hostname!r} is addressed with a user or password; leave it out")
    if len(url) > MAX_URL_CHARACTERS or re.search(r"[\x00-\x20\x7f-\uffff\\]", url):
        raise FetchRefused(f"{url[:200]!r} holds what a URL cannot, or is too long")
    return parts


def _follow(url: str, response: http.client.HTTPResponse) -> str:
    where = response.getheader("Location")
    if not where:
        raise FetchFailed(f"{url!r} redirects to nowhere", status=response.status)
    # Servers write it in whatever letters they like; a fragment is for the reader of the page.
    target = urljoin(url, quote(where, safe="%/:=&?~#+!$,;'@()*[]")).partition("#")[0]
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
        raise FetchRefused(f"{url!r} redirects from https to {target!r}")
    return target


def _parse_allowed(text: str) -> tuple[Network, int | None]:
    bracketed = re.fullmatch(r"\[(?P<host>[^\]]+)\](?::(?P<port>\d+))?", text)
    plain = re.fullmatch(r"(?P<host>[^:]+)(?::(?P<port>\d+))?", text)
    found = bracketed or plain
    host, port = (found["host"], found["port"]) if found else (text, None)
    try:
        return ipaddress.ip_network(host), int(port) if port else None
    except ValueError as error:
        raise InvalidConfiguration(
            f"sources.allowed_addresses: {text!r} is no network: {error}"
        ) from None
