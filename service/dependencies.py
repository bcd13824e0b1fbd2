"""What routes are handed: the process's parts, through FastAPI's `Annotated` dependencies."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Depends, Request

from retrieval.collections import Collection
from service.callers import Caller
from service.deadlines import Deadline
from service.gateway.opening import answer_seconds
from service.gateway.outgoing import TIMEOUT_HEADER
from service.limits import in_thread
from service.questions import Questions
from service.readiness import Readiness
from service.seen import Seen
from service.wiring import Components


async def _components(request: Request) -> Components:
    components: Components = request.app.state.components
    return components


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Parts = Annotated[Components, Depends(_components)]
Ready = Annotated[Readiness, Depends(_readiness)]
Asking = Annotated[Caller, Depends(_caller)]


async def _operator(caller: Asking) -> Caller:
    caller.require_operator()
    return caller


Operator = Depends(_operator)
"""Of routes that a tenant's own keys must not reach."""


async def _seen(components: Parts, caller: Asking) -> Seen:
    return Seen(components, caller)


Own = Annotated[Seen, Depends(_seen)]
"""What the caller may see of the collections, documents, files and batches."""


async def _questions(request: Request, seen: Own) -> Questions:
    questions: Questions = request.app.state.questions
    seconds = answer_seconds(request.headers.get(TIMEOUT_HEADER), math.inf)
    return questions.asked_by(seen, until=Deadline.after(seconds))


Asked = Annotated[Questions, Depends(_questions)]
"""Questions in the caller's name: they find what it may see."""


async def _vector_store(vector_store_id: str, seen: Own) -> Collection:
    """The collection that the path names, by public id or name."""
    return await in_thread(lambda: seen.collections.get(vector_store_id))


Store = Annotated[Collection, Depends(_vector_store)]
