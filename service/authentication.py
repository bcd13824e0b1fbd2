"""Who may come in: a Bearer key, or, while none is asked for, this machine's own pages only."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.errors import InvalidConfiguration, RagstoneError, Unauthenticated
from infra.settings import Server
from service.bodies import header
from service.callers import Caller
from service.errors import describe, respond
from service.keyring import Keyring
from service.keys import Keys
from service.permissions import HEALTH, SAFE_METHODS, is_open, scopes_for

logger = logging.getLogger(__name__)


def is_required(server: Server) -> bool:
    """True if callers must show a key."""
    if server.authentication == "auto":
        return not is_loopback(server.host)
    return server.authentication == "on"


def is_loopback(host: str) -> bool:
    """True if nobody outside this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_before_start(server: Server, keys: Callable[[], Keys]) -> None:
    """Refuse to open a service that nobody could use, and warn of one that anybody could.

    Raises:
        InvalidConfiguration: the network can reach this, so keys are asked for, and none exists.
    """
    if not is_required(server):
        if not is_loopback(server.host):
            logger.warning("authentication is off: whoever reaches %s can read it all", server.host)
        return
    now = datetime.now(UTC)
    if server.authentication == "auto" and not keys().has_valid(now):
        raise InvalidConfiguration(
            f"Listening on {server.host!r} asks callers for a key, and there is none; "
            "run: ragstone keys create NAME"
        )


class Gate:
    """Lets requests in or refuses them, before anything of theirs is read."""

    def __init__(self, app: ASGIApp, *, server: Server, keyring: Callable[[], Keyring]) -> None:
        self._app = app
        self._keyring = keyring
        self._is_required = is_required(server)
        self._hosts = {host.lower() for host in (*server.allowed_hosts, server.host)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._check(scope)
            except (RagstoneError, HTTPException) as error:
                await respond(scope["path"], describe(error))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        path = scope["path"]
        state = scope.setdefault("state", {})
        if path in HEALTH:
            state["caller"] = Caller()
        elif not self._is_required:
            state["caller"] = Caller()
            headers = Headers(scope=scope)
            self._check_host(headers)
            if scope["method"] not in SAFE_METHODS:
                _check_origin(headers)
        elif is_open(path):
            state["caller"] = Caller()
        else:
            caller = await self._check_key(scope)
            if scopes := scopes_for(scope["method"], path):
                caller.require(*scopes)
            state["caller"] = caller

    def _check_host(self, headers: Headers) -> None:
        """Keep a web page from reaching in through a name that its owner points at this machine."""
        host = _without_port(headers.get("host", ""))
        if host not in self._hosts:
            raise HTTPException(
                403,
                f"Host {host[:100]!r} is not served while no key is asked for; "
                "add it to server.allowed_hosts or turn server.authentication on",
            )

    async def _check_key(self, scope: Scope) -> Caller:
        given = header(scope, b"authorization")
        scheme, _, text = given.decode("latin-1").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise Unauthenticated("No API key; send it as: Authorization: Bearer KEY")
        keyring = self._keyring()
        return keyring.find(text) or await keyring.check(text)


def _check_origin(headers: Headers) -> None:
    """Keep a web page of another site from writing here through its visitor's browser."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise HTTPException(403, f"Origin {origin[:100]!r} may not write here without a key")


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() and not name.endswith(":") else host.lower()
