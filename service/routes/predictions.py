"""`POST /v1/predict`: rows by column name to a classical model."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from infra import classical
from infra.errors import InvalidRequest
from service.bodies import BytesRoute, refuse_nul
from service.gateway.opening import answer_seconds
from service.gateway.outgoing import TIMEOUT_HEADER
from service.predicting import MANY_ROWS, USER_HEADER, Asked, Stored
from service.prediction.cached import without_keys
from service.prediction.recording import Predicted
from service.schemas.inference import PREDICT, PREDICT_ANSWER
from service.schemas.shared import OPENAI_ERRORS
from service.wiring import Components

FIELDS = frozenset({"model", "rows", "explain", "stored"})
FLAGS = ("explain", "stored")
MEDIA_TYPE = "application/json"

router = APIRouter(prefix="/v1", tags=["models"], route_class=BytesRoute, responses=OPENAI_ERRORS)


@router.post("/predict", openapi_extra=PREDICT, responses=PREDICT_ANSWER, response_class=Response)
async def predict(request: Request) -> Response:
    """Predict for rows, given as objects by column name; what may be missing may be left out."""
    components: Components = request.app.state.components
    given = _parse(await request.body(), request.headers.get("content-type", ""))
    name, selector = _name(given["model"])
    timeout = request.headers.get(TIMEOUT_HEADER)
    seconds = None if timeout is None else answer_seconds(timeout, float("inf"))
    asked = Asked(
        request.state.caller,
        name,
        selector,
        seconds,
        explain=given.get("explain", False),
        is_large=len(given["rows"]) >= MANY_ROWS,
        user=request.headers.get(USER_HEADER),
    )
    rows, settings = given["rows"], components.settings.models.cached.get(name)
    if given.get("stored", True):
        stored = await components.predictor.stored(asked, rows, components.cached_predictions)
        if stored is not None:
            told = orjson.dumps(_told_again(stored))
            return Response(told, headers=dict(stored.headers), media_type=MEDIA_TYPE)
    answer = await components.predictor.predict(
        asked, lambda loaded: loaded.reader.of_rows(without_keys(rows, settings, loaded))
    )
    told = orjson.dumps(_told(answer.predicted))
    return Response(told, headers=dict(answer.headers), media_type=MEDIA_TYPE)


def _parse(body: bytes, content_type: str) -> dict[str, Any]:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE and not media_type.endswith("+json"):
        raise HTTPException(415, f"Content-Type is {media_type[:100]!r}; send {MEDIA_TYPE}")
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from None
    if type(given) is not dict:
        raise InvalidRequest("The body is no JSON object")
    if b"\\u0000" in body:
        refuse_nul(given)
    if strange := sorted(given.keys() - FIELDS):
        raise InvalidRequest(
            f"{strange[0][:60]}: Extra inputs are not permitted", parameter=strange[0][:60]
        )
    for field, kind, word in (("model", str, "a text"), ("rows", list, "a list of objects")):
        if type(given.get(field)) is not kind:
            raise InvalidRequest(f"{field} is needed, {word}", parameter=field)
    for flag in FLAGS:
        if type(given.get(flag, False)) is not bool:
            raise InvalidRequest(f"{flag} is true or false", parameter=flag)
    return given


def _name(text: str) -> tuple[str, str | None]:
    name, mark, selector = text.removeprefix(f"{classical.KIND}/").partition("@")
    if not name or (mark and not selector):
        raise InvalidRequest(
            f"{text[:100]!r} is no model; write NAME, NAME@v3 or NAME@ALIAS", parameter="model"
        )
    return name, selector or None


def _told_again(stored: Stored) -> dict[str, Any]:
    kept = stored.kept
    return {
        "id": stored.id,
        "object": "prediction",
        "model": kept.model,
        "stored": {"predictions": kept.artifact, "at": kept.at.isoformat()},
        "predictions": [{"id": f"{stored.id}-{at}", **row} for at, row in enumerate(kept.rows)],
        "warnings": [],
    }


def _told(predicted: Predicted) -> dict[str, Any]:
    loaded, labels = predicted.loaded, predicted.labels.tolist()
    rows: list[dict[str, Any]] = [
        {"id": predicted.row_id(at), "prediction": label} for at, label in enumerate(labels)
    ]
    if loaded.class_names:
        for row, probabilities in zip(rows, predicted.values.tolist(), strict=True):
            row["probabilities"] = dict(zip(loaded.class_names, probabilities, strict=True))
    if predicted.explanations is not None:
        for row, explanation in zip(rows, predicted.explanations, strict=True):
            row["explanation"] = explanation
    versions = predicted.table.versions
    return {
        "id": predicted.id,
        "object": "prediction",
        "model": str(loaded.reference),
        **({"views": versions} if versions else {}),
        "predictions": rows,
        "warnings": [
            {"row": each.row, "column": each.column, "kind": each.kind}
            for each in predicted.table.warnings
        ],
    }
