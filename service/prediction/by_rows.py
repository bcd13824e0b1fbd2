"""`POST /v1/predict`: rows by column name to a classical model."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.exceptions import HTTPException

from infra import classical
from infra.errors import InvalidRequest
from service.bodies import refuse_nul
from service.predicting import MANY_ROWS, Asked, Predictor, Stored
from service.prediction.cached import without_keys
from service.prediction.exchange import JSON, USER_HEADER, Given, Reply
from service.prediction.recording import Predicted

FIELDS = frozenset({"model", "rows", "explain", "stored"})
FLAGS = ("explain", "stored")


async def predict(predictor: Predictor, given: Given) -> Reply:
    """Predict for rows, given as objects by column name.

    Raises:
        HTTPException: the body is of another media type.
        RagstoneError: as `Predictor.predict`.
    """
    body = _parse(given)
    name, selector = _name(body["model"])
    asked = Asked(
        given.caller,
        name,
        selector,
        given.seconds,
        explain=body.get("explain", False),
        is_large=len(body["rows"]) >= MANY_ROWS,
        user=given.header(USER_HEADER),
        is_alone=given.is_alone,
    )
    rows = body["rows"]
    if body.get("stored", True) and (stored := await predictor.stored(asked, rows)) is not None:
        return Reply(orjson.dumps(_told_again(stored)), stored.headers)
    settings = predictor.models.options.cached.get(name)
    answer = await predictor.predict(
        asked, lambda loaded: loaded.reader.of_rows(without_keys(rows, settings, loaded))
    )
    return Reply(orjson.dumps(_told(answer.predicted)), answer.headers)


def _parse(given: Given) -> dict[str, Any]:
    media_type = given.media_type
    if media_type != JSON and not media_type.endswith("+json"):
        raise HTTPException(415, f"Content-Type is {media_type[:100]!r}; send {JSON}")
    try:
        body = orjson.loads(given.body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from None
    if type(body) is not dict:
        raise InvalidRequest("The body is no JSON object")
    if b"\\u0000" in given.body:
        refuse_nul(body)
    if not body.keys() <= FIELDS:
        strange = sorted(body.keys() - FIELDS)[0][:60]
        raise InvalidRequest(f"{strange}: Extra inputs are not permitted", parameter=strange)
    for field, kind, word in (("model", str, "a text"), ("rows", list, "a list of objects")):
        if type(body.get(field)) is not kind:
            raise InvalidRequest(f"{field} is needed, {word}", parameter=field)
    for flag in FLAGS:
        if type(body.get(flag, False)) is not bool:
            raise InvalidRequest(f"{flag} is true or false", parameter=flag)
    return body


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
