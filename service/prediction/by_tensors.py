"""`POST /v2/models/NAME/infer`: tensors of the Open Inference Protocol to a classical model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException

from infra.errors import InvalidRequest, NotFound
from service.predicting import MANY_BYTES, Asked, Predictor
from service.prediction import tensors
from service.prediction.columns import Table
from service.prediction.exchange import JSON, USER_HEADER, Given, Reply
from service.prediction.loading import Loaded
from service.prediction.recording import Predicted
from service.prediction.tensors import Output

BINARY = "application/octet-stream"
MOST_DIGITS = 12


async def infer(predictor: Predictor, given: Given, name: str, version: str | None = None) -> Reply:
    """Predict with a version, or with the one that the alias of the settings means.

    Raises:
        HTTPException: the body is of another media type.
        RagstoneError: as `Predictor.predict`.
    """
    json_bytes = _json_bytes(given)
    read_as: tensors.Request | None = None

    def read(loaded: Loaded) -> Table:
        nonlocal read_as
        reader = loaded.reader
        read_as = tensors.parse(given.body, json_bytes, loaded.kinds, quick=reader.quick)
        _check_outputs(read_as, loaded)
        return read_as.table or reader.of_values(read_as.rows, read_as.values)

    asked = Asked(
        given.caller,
        name,
        version,
        given.seconds,
        is_large=len(given.body) >= MANY_BYTES,
        user=given.header(USER_HEADER),
        is_alone=given.is_alone,
    )
    answer = await predictor.predict(asked, read)
    assert read_as is not None
    return _told(answer.predicted, read_as, dict(answer.headers))


def _json_bytes(given: Given) -> int | None:
    """Return how many bytes of the body are JSON; None are all of them."""
    if given.header("content-encoding") not in {None, "identity"}:
        raise HTTPException(415, "The body is compressed; send it as it is")
    size, media_type = given.header(tensors.HEADER), given.media_type
    if size is None:
        if media_type not in {"", JSON}:  # the protocol's clients do not name it
            raise HTTPException(415, f"Content-Type is {media_type[:100]!r}; send {JSON}")
        return None
    if media_type not in {"", JSON, BINARY}:
        raise HTTPException(415, f"Content-Type is {media_type[:100]!r}; send {BINARY}")
    if not size.isascii() or not size.isdecimal() or len(size) > MOST_DIGITS:
        raise InvalidRequest(f"{tensors.HEADER} is {size[:40]!r}; it is a number of bytes")
    return int(size)


def _check_outputs(given: tensors.Request, loaded: Loaded) -> None:
    if given.outputs is None:
        return
    known = ["prediction"] if loaded.labels is None else ["label", "probabilities"]
    names = [each.name for each in given.outputs]
    for at, name in enumerate(names):
        if name not in known:
            raise NotFound("output", name[:100], among=known, are_few=True)
        if name in names[:at]:
            raise InvalidRequest(f"Output {name!r} is asked for twice", parameter="outputs")


def _told(predicted: Predicted, given: tensors.Request, headers: dict[str, str]) -> Reply:
    loaded = predicted.loaded
    head: dict[str, Any] = {"model_name": loaded.name, "model_version": loaded.version}
    if given.id is not None:
        head["id"] = given.id
    head["parameters"] = {"prediction_id": predicted.id}
    if predicted.table.warnings:
        head["parameters"]["warnings"] = len(predicted.table.warnings)
    outputs = _outputs(predicted)
    if given.outputs is None:
        wanted = [(each, given.is_binary) for each in outputs]
    else:
        made = {each.name: each for each in outputs}
        wanted = [(made[each.name], each.is_binary) for each in given.outputs]
    body, json_bytes = tensors.write(head, wanted)
    if json_bytes is None:
        return Reply(body, headers)
    headers[tensors.HEADER] = str(json_bytes)
    return Reply(body, headers, BINARY)


def _outputs(predicted: Predicted) -> Sequence[Output]:
    loaded, values = predicted.loaded, predicted.values
    if loaded.labels is None:
        return [Output("prediction", loaded.number_type, values.reshape(-1, 1))]
    return [
        Output("label", loaded.label_type, predicted.labels),
        Output("probabilities", loaded.number_type, values),
    ]
