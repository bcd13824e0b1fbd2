"""Addresses as logs and errors may tell them: without the name and the password in them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def shown(url: str) -> str:
    """Return a URL without the name and the password in it, also where it is none.

    >>> shown("https://ada:secret@models.example:8443/base")
    'https://models.example:8443/base'
    >>> shown("http://ada:sec/ret@models.example")
    'models.example'
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # of what is cut wrongly, a part of the password
    except ValueError:
        return url.rpartition("@")[2]
    _, at, where = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=where)) if at else url
