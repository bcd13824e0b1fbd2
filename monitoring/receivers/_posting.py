"""Posts JSON to an address; what is not taken is an error."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from typing import Any

import orjson

from infra.errors import InvalidConfiguration

TIMEOUT_SECONDS = 10.0


def checked(url: str) -> str:
    """Return an address of the web.

    Raises:
        InvalidConfiguration: it is another.
    """
    if not url.startswith(("http://", "https://")):
        raise InvalidConfiguration(f"{url!r} is no address of the web; begin it with https://")
    return url


def post(url: str, value: Any, headers: Mapping[str, str]) -> None:
    """Post a value. Raises OSError where nobody answers, or anything but a 2xx."""
    named = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, orjson.dumps(value), named, method="POST")
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
        pass
