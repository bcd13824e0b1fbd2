"""Posts JSON to an address of the web and nowhere else; what is not taken is an error."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

import orjson

from infra.addresses import shown
from infra.errors import InvalidConfiguration

TIMEOUT_SECONDS = 10.0
MOST_BYTES = 2**20


class _Staying(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the body would be lost, and the headers, keys among them, told."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def checked(url: str) -> str:
    """Return an address of the web.

    Raises:
        InvalidConfiguration: it is another.
    """
    if not url.startswith(("http://", "https://")):
        raise InvalidConfiguration(
            f"{shown(url)!r} is no address of the web; begin it with https://"
        )
    return url


def post(
    url: str,
    value: Any,
    headers: Mapping[str, str],
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> bytes:
    """Post a value; returns what is answered, up to `MOST_BYTES`.

    Raises:
        OSError: nobody answers, or anything but a 2xx of HTTP.
        ValueError: a header or the address has what none may have.
    """
    named = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, orjson.dumps(value), named, method="POST")
    opener = urllib.request.build_opener(_Staying)
    try:
        with opener.open(request, timeout=timeout_seconds) as answer:
            return bytes(answer.read(MOST_BYTES))
    except OSError:
        raise
    except HTTPException as error:  # whose words may hold the path, a key in it
        raise OSError(f"no answer of HTTP: {type(error).__name__}") from None
