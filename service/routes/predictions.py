"""`POST /v1/predict`: rows by column name to a classical model."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.bodies import BytesRoute
from service.prediction import by_rows
from service.prediction.door import through
from service.schemas.inference import PREDICT, PREDICT_ANSWER
from service.schemas.shared import OPENAI_ERRORS

router = APIRouter(prefix="/v1", tags=["models"], route_class=BytesRoute, responses=OPENAI_ERRORS)


@router.post("/predict", openapi_extra=PREDICT, responses=PREDICT_ANSWER, response_class=Response)
async def predict(request: Request) -> Response:
    """Predict for rows, given as objects by column name; what may be missing may be left out."""
    return await through(request, by_rows.predict)
