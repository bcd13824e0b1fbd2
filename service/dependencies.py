"""What routes are handed: the process's parts, through FastAPI's `Annotated` dependencies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from retrieval.collections import Collection
from service.callers import Caller
from service.limits import in_thread
from service.questions import Questions
from service.readiness import Readiness
from service.wiring import Components


async def _components(request: Request) -> Components:
    components: Components = request.app.state.components
    return components


async def _questions(request: Request) -> Questions:
    questions: Questions = request.app.state.questions
    return questions


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Parts = Annotated[Components, Depends(_components)]
Asked = Annotated[Questions, Depends(_questions)]
Ready = Annotated[Readiness, Depends(_readiness)]
Asking = Annotated[Caller, Depends(_caller)]


async def _operator(caller: Asking) -> Caller:
    caller.require_operator()
    return caller


Operator = Depends(_operator)
"""Of routes that a tenant's own keys must not reach."""


async def _vector_store(vector_store_id: str, components: Parts) -> Collection:
    """The collection that the path names, by public id or name."""
    return await in_thread(lambda: components.collections.get(vector_store_id))


Store = Annotated[Collection, Depends(_vector_store)]
