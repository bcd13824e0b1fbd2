"""Which sources a request may name: web and buckets below the addresses that the settings list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from starlette.exceptions import HTTPException

from retrieval.sources import Spec, parse_spec

_KINDS = frozenset({"web", "s3"})


def check_remote(place: str, options: Mapping[str, str], *, allowed: Sequence[str]) -> Spec:
    """Return the spec of a place that a stranger named, if it is one of those listed.

    Raises:
        HTTPException: 403, it is none; nothing was asked of it.
    """
    spec = parse_spec(place)
    # A list would lead to any host, and with it to what only the operator may reach.
    is_list = spec.kind == "web" and options.get("as") == "list"
    may_be = spec.kind in _KINDS and spec.place == place and not is_list
    if may_be and any(_is_below(place, prefix) for prefix in allowed):
        return spec
    raise HTTPException(
        403, f"{place!r} may not be made a source over HTTP; the setting sources.remote lists those"
    )


def _is_below(place: str, prefix: str) -> bool:
    try:
        wanted, limit = urlsplit(place), urlsplit(prefix)
    except ValueError:
        return False
    path, root = unquote(wanted.path), limit.path.rstrip("/")
    if ".." in path.split("/") or "\\" in path:
        return False
    same = (wanted.scheme, wanted.netloc.lower()) == (limit.scheme, limit.netloc.lower())
    return same and bool(limit.netloc) and (path == root or path.startswith(f"{root}/"))
