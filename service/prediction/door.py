"""The way in for predictions: raw ASGI before the router, so that it is short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.errors import RagstoneError
from service.bodies import read_whole
from service.errors import describe, respond
from service.gateway.door import Operation
from service.predicting import Predictor
from service.prediction.by_rows import predict
from service.prediction.by_tensors import infer
from service.prediction.exchange import AT_THE_DOOR, Given, Reply

Face: TypeAlias = Callable[[Predictor, Given], Awaitable[Reply]]

ROWS = "/v1/predict"
_MODELS, _INFER = "/v2/models/", "/infer"
_NAME, _VERSION = 5, 7
"""Parts of a path that names a model, and of one that names a version of it."""


_PREDICT = Operation(ROWS)
OF_NAME = Operation("/v2/models/{model_name}/infer")
OF_VERSION = Operation("/v2/models/{model_name}/versions/{model_version}/infer")


class Door:
    """Answers requests for predictions, and passes every other one on as it came."""

    def __init__(self, app: ASGIApp, *, predictor: Callable[[], Predictor]) -> None:
        self._app = app
        self._predictor = predictor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = None
        if scope["type"] == "http" and scope["method"] == "POST":
            found = _find(scope["path"])
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], face = found
        try:
            body = await read_whole(receive)
            if body is None:  # the caller left midway
                return
            scope["state"][AT_THE_DOOR] = True
            reply = await face(self._predictor(), Given.of(scope, body))
        except (RagstoneError, HTTPException) as error:
            await respond(scope["path"], describe(error))(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": reply.encoded()})
        await send({"type": "http.response.body", "body": reply.body})


def _find(path: str) -> tuple[Operation, Face] | None:
    if path == ROWS:
        return _PREDICT, predict
    if not path.startswith(_MODELS) or not path.endswith(_INFER):
        return None
    parts = path.split("/")
    if len(parts) == _NAME and parts[3]:
        return OF_NAME, partial(infer, name=parts[3])
    if len(parts) == _VERSION and parts[3] and parts[4] == "versions" and parts[5]:
        return OF_VERSION, partial(infer, name=parts[3], version=parts[5])
    return None


async def through(request: Request, face: Face) -> Response:
    """Answer a request that came by the router after all, as where a proxy adds to its path."""
    predictor: Predictor = request.app.state.components.predictor
    reply = await face(predictor, Given.of(request.scope, await request.body()))
    return Response(reply.body, headers=dict(reply.headers), media_type=reply.media_type)
