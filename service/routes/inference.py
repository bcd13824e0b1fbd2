"""Open Inference Protocol v2: health, metadata, inference, and the repository of models."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from infra.errors import InvalidRequest, NotReady
from service.bodies import BytesRoute, StrictRoute
from service.callers import Caller
from service.dependencies import Asking, Parts
from service.predicting import Asked
from service.prediction import by_tensors
from service.prediction.door import through
from service.prediction.loading import Loaded
from service.schemas.inference import (
    INDEX,
    INDEX_ANSWER,
    INFER,
    INFER_ANSWER,
    READY_ANSWER,
    REPOSITORY,
    UNLOADED_ANSWER,
    V2_ERRORS,
    IndexBody,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    RepositoryBody,
    ServerMetadata,
    TensorMetadata,
)
from service.wiring import Components

EXTENSIONS = ["binary_tensor_data", "model_repository"]
JSON = "application/json"
Body = TypeVar("Body", IndexBody, RepositoryBody)
PLATFORMS = {"onnx": "onnxruntime_onnx", "skops": "sklearn_skops"}

router = APIRouter(prefix="/v2", tags=["inference"], route_class=StrictRoute, responses=V2_ERRORS)
fast = APIRouter(prefix="/v2", tags=["inference"], route_class=BytesRoute, responses=V2_ERRORS)
"""What is asked often."""


@router.get("")
async def server(request: Request) -> ServerMetadata:
    """Tell what this server is, and which extensions it speaks."""
    return ServerMetadata(name="ragstone", version=request.app.version, extensions=EXTENSIONS)


@router.get("/health/live")
async def live() -> Live:
    """Tell that the process answers."""
    return Live()


@router.get("/health/ready")
async def ready(components: Parts) -> Ready:
    """Tell whether the models that aliases mean were loaded, or found to be of no use."""
    if not components.models.has_looked:
        raise NotReady("The models are being loaded; try again in a moment")
    return Ready()


@router.get("/models/{model_name}")
async def model(model_name: str, caller: Asking, components: Parts) -> ModelMetadata:
    """Describe the inputs and outputs of the version that answers."""
    return await _metadata(components, Asked(caller, model_name))


@router.get("/models/{model_name}/versions/{model_version}")
async def model_version(
    model_name: str, model_version: str, caller: Asking, components: Parts
) -> ModelMetadata:
    """Describe the inputs and outputs of a version."""
    return await _metadata(components, Asked(caller, model_name, model_version))


@router.get("/models/{model_name}/ready")
async def model_ready(model_name: str, caller: Asking, components: Parts) -> ModelReady:
    """Tell that the model can answer; it is loaded if it is not."""
    await components.predictor.find(Asked(caller, model_name))
    return ModelReady(name=model_name)


@router.get("/models/{model_name}/versions/{model_version}/ready")
async def version_ready(
    model_name: str, model_version: str, caller: Asking, components: Parts
) -> ModelReady:
    """Tell that a version can answer; it is loaded if it is not."""
    await components.predictor.find(Asked(caller, model_name, model_version))
    return ModelReady(name=model_name)


@fast.post(
    "/models/{model_name}/infer",
    openapi_extra=INFER,
    responses=INFER_ANSWER,
    response_class=Response,
)
async def infer(request: Request, model_name: str) -> Response:
    """Predict with the version that the alias of the settings means."""
    return await through(request, partial(by_tensors.infer, name=model_name))


@fast.post(
    "/models/{model_name}/versions/{model_version}/infer",
    openapi_extra=INFER,
    responses=INFER_ANSWER,
    response_class=Response,
)
async def infer_version(request: Request, model_name: str, model_version: str) -> Response:
    """Predict with a version."""
    return await through(request, partial(by_tensors.infer, name=model_name, version=model_version))


@fast.post(
    "/repository/index", openapi_extra=INDEX, responses=INDEX_ANSWER, response_class=Response
)
async def index(request: Request) -> Response:
    """List the models that this process serves, and how they stand."""
    body = _given(await request.body(), IndexBody) or IndexBody(ready=False)
    components, caller = _parts(request)
    found = [
        asdict(each)
        for each in components.models.standings()
        if caller.may_use(f"model/{each.name}") and (not body.ready or each.state == "READY")
    ]
    return Response(orjson.dumps(found), media_type=JSON)


@fast.post(
    "/repository/models/{model_name}/load",
    openapi_extra=REPOSITORY,
    responses=READY_ANSWER,
    response_class=Response,
)
async def load(request: Request, model_name: str) -> Response:
    """Load a model in this process, also one that was unloaded or could not be loaded before."""
    components = await _managed(request, model_name)
    await components.models.load(model_name)
    return Response(orjson.dumps({"name": model_name, "ready": True}), media_type=JSON)


@fast.post(
    "/repository/models/{model_name}/unload",
    openapi_extra=REPOSITORY,
    responses=UNLOADED_ANSWER,
    response_class=Response,
)
async def unload(request: Request, model_name: str) -> Response:
    """Have this process answer for a model no more, until it is loaded or the process restarts."""
    components = await _managed(request, model_name)
    await components.models.unload(model_name)
    return Response(orjson.dumps({"name": model_name, "ready": False}), media_type=JSON)


def _parts(request: Request) -> tuple[Components, Caller]:
    components: Components = request.app.state.components
    caller: Caller = request.state.caller
    return components, caller


async def _managed(request: Request, name: str) -> Components:
    """Return the parts for who may load and unload a model.

    Raises:
        Forbidden: the key is a tenant's, or has no scope for it.
        InvalidRequest: the body asks for what is not done here.
    """
    components, caller = _parts(request)
    caller.require_operator()
    caller.require("admin")
    caller.require_model(f"model/{name}")
    body = _given(await request.body(), RepositoryBody)
    given = sorted(set((body and body.parameters) or ()) - {"unload_dependents"})
    if given:
        raise InvalidRequest(
            f"The parameter {given[0][:60]!r} is not taken: models come from the artifact store",
            parameter="parameters",
        )
    return components


def _given(raw: bytes, kind: type[Body]) -> Body | None:
    """Return what a body holds; the protocol's clients send it without a media type, or not."""
    if not raw:
        return None
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "The body"
        raise InvalidRequest(f"{place}: {first['msg']}") from None


async def _metadata(components: Components, asked: Asked) -> ModelMetadata:
    loaded = await components.predictor.find(asked)
    versions = await components.models.versions(asked.name)
    return ModelMetadata(
        name=asked.name,
        versions=versions,
        platform=PLATFORMS.get(loaded.model.format, loaded.model.format),
        inputs=[
            TensorMetadata(name=name, datatype=datatype, shape=[-1, 1])
            for name, datatype in loaded.inputs()
        ],
        outputs=_output_metadata(loaded),
    )


def _output_metadata(loaded: Loaded) -> list[TensorMetadata]:
    if loaded.labels is None:
        return [TensorMetadata(name="prediction", datatype=loaded.number_type, shape=[-1, 1])]
    return [
        TensorMetadata(name="label", datatype=loaded.label_type, shape=[-1]),
        TensorMetadata(
            name="probabilities", datatype=loaded.number_type, shape=[-1, len(loaded.labels)]
        ),
    ]
