"""`POST /v1/predict`: rows by column name to a classical model."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.exceptions import HTTPException

from infra import classical
from infra.errors import InvalidRequest
from service.bodies import refuse_nul
from service.predicting import Asked, Predictor
from service.prediction.exchange import JSON, USER_HEADER, Given, Reply
from service.prediction.recording import Predicted

FIELDS = frozenset({"model", "rows", "explain"})


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
        user=given.header(USER_HEADER),
        is_alone=given.is_alone,
    )
    answer = await predictor.predict(asked, lambda loaded: loaded.reader.of_rows(body["rows"]))
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
    if type(body.get("explain", False)) is not bool:
        raise InvalidRequest("explain is true or false", parameter="explain")
    return body


def _name(text: str) -> tuple[str, str | None]:
    name, mark, selector = text.removeprefix(f"{classical.KIND}/").partition("@")
    if not name or (mark and not selector):
        raise InvalidRequest(
            f"{text[:100]!r} is no model; write NAME, NAME@v3 or NAME@ALIAS", parameter="model"
        )
    return name, selector or None


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
