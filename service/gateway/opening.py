"""Calls before they run: the route, what it is for, what may be asked, and until when."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.errors import InvalidRequest, NotFound
from service.callers import Caller
from service.gateway import checking
from service.gateway.calls import Call
from service.gateway.outgoing import TIMEOUT_HEADER
from service.gateway.routing import Route, Table

IDEMPOTENCY_HEADER = "idempotency-key"
PASSED_ON = frozenset({"traceparent", "tracestate"})


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that a call is made for."""

    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower case; `PASSED_ON` go with the call, its deadline and its name are read from others."""
    parent: str | None = None
    """Our own span, if there is one: the `traceparent` of the call in place of the caller's."""
    documents: tuple[str, ...] = ()
    """Public ids of those that the body may quote."""
    keeps_content: bool = True
    """False where the body is made of documents, and the answer has a record of its own."""


def open_call(
    table: Table, path: str, body: dict[str, Any], *, caller: Caller, origin: Origin
) -> Call:
    """Return the call that a request's body asks for.

    Raises:
        Forbidden: the caller's key is not for models.
        NotFound: no such model, or not for this caller.
        InvalidRequest: the model is for something else, or no server could take the body.
    """
    caller.require("models")
    route = _find(table, body["model"], caller)
    kind, _ = checking.KINDS[path]
    if route.settings.kind != kind:
        fit = next(p for p, (each, _) in checking.KINDS.items() if each == route.settings.kind)
        raise InvalidRequest(f"{route.name!r} is for {fit}, not {path}", parameter="model")
    checking.check(path, body)
    headers = {name: value for name, value in origin.headers.items() if name in PASSED_ON}
    if origin.parent is not None:
        headers["traceparent"] = origin.parent
    seconds = answer_seconds(origin.headers.get(TIMEOUT_HEADER), route.settings.deadline_seconds)
    return Call(
        request_id=origin.request_id,
        caller=caller,
        path=path,
        model=route.name,
        body=body,
        deadline=time.monotonic() + seconds,
        is_hurried=seconds < route.settings.deadline_seconds,
        user=body.get("user") or caller.key_id or origin.request_id,
        headers=headers,
        idempotency_key=origin.headers.get(IDEMPOTENCY_HEADER),
        documents=origin.documents,
        keeps_content=origin.keeps_content,
    )


def _find(table: Table, model: str, caller: Caller) -> Route:
    if not table.is_open(model, caller):
        raise NotFound("model", model[:200], among=table.names(caller))
    return table.routes[model]


def answer_seconds(given: str | None, limit: float) -> float:
    """Return how long the answer may take: what was asked for, at most what the route gives."""
    if given is None:
        return limit
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidRequest(f"{TIMEOUT_HEADER} is {given[:40]!r}; it must be a number above 0")
    return min(seconds, limit)
