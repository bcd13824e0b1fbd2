"""Which scopes open which address: one table, and what is not in it asks for `admin`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.callers import Scope

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HEALTH = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
NO_KEY = HEALTH | {"/"}
"""Health, and the page on which a person enters a key."""


@dataclass(frozen=True, slots=True)
class Permission:
    """The scopes of which one is needed; no scope is any key."""

    reading: tuple[Scope, ...]
    writing: tuple[Scope, ...]


def _any(*scopes: Scope) -> Permission:
    return Permission(scopes, scopes)


_STORED = Permission(reading=("read", "write"), writing=("write",))

PERMISSIONS: Mapping[str, Permission] = {
    "/v1/answers": _any("ask"),
    "/v1/search": _any("ask"),
    # Collections are models too: what was asked for is looked at once the body is read.
    "/v1/chat": _any("ask", "models"),
    "/v1/responses": _any("ask", "models"),
    "/v1/conversations": _any("ask", "models"),
    "/v1/models": _any("ask", "models", "read"),
    "/v1/completions": _any("models"),
    "/v1/embeddings": _any("models"),
    "/v1/rerank": _any("models"),
    "/v1/predict": _any("models"),
    "/v2": _any("models"),
    "/v1/files": _STORED,
    "/v1/vector_stores": _STORED,
    "/v1/collections": _STORED,
    "/v1/artifacts": _STORED,
    "/v1/runs": _STORED,
    "/v1/sources": _STORED,
    "/v1/jobs": _any("admin"),
    "/v1/fine_tuning": _any("admin"),
    "/v1/keys": _any("admin"),
    "/v1/budgets": _any("admin"),
    "/v1/usage": _any("admin"),
    "/v1/gateway": _any("admin"),
    "/v1/interactions": _any("admin"),
    "/v1/comparisons": _any("admin"),
    "/v1/feedback": Permission(reading=("admin",), writing=("ask", "models")),
    "/v1/erasures": _any("admin"),
    "/metrics": _any("read", "admin"),
    "/openapi.json": _any(),
    "/docs": _any(),
}
"""By the beginning of the path: `/v1/NAME`, or the first part elsewhere."""

_SEARCH_IN_STORE = _any("ask", "read", "write")
_REPOSITORY = _any("models", "admin")
"""Listing is anybody's who may ask models; loading asks for `admin` itself."""
_CLOSED = _any("admin")


def is_open(path: str) -> bool:
    """True if nobody needs a key for it."""
    return path in NO_KEY or path.startswith("/console/")


def find(path: str) -> Permission | None:
    """Return the table's line for a path."""
    parts = path.split("/", 3)
    if len(parts) == 4 and parts[2] == "vector_stores" and parts[3].endswith("/search"):
        return _SEARCH_IN_STORE
    if parts[1:3] == ["v2", "repository"]:
        return _REPOSITORY
    prefix = "/".join(parts[:3]) if parts[1:2] == ["v1"] else "/".join(parts[:2])
    return PERMISSIONS.get(prefix)


def scopes_for(method: str, path: str) -> tuple[Scope, ...]:
    """Return the scopes of which a caller needs one; none is any key."""
    permission = find(path) or _CLOSED
    return permission.reading if method in SAFE_METHODS else permission.writing
