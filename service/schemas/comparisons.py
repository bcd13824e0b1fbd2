"""Comparisons over HTTP: how a challenger stands beside the version in use."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from service.models.comparing import Comparison, told


class LatencyOut(BaseModel):
    requests: int
    median: float | None
    p95: float | None


class StandingOut(BaseModel):
    version: str
    loss: float | None
    told: LatencyOut
    aside: LatencyOut


class IntervalOut(BaseModel):
    estimate: float
    low: float
    high: float
    level: float


class MeasureOut(BaseModel):
    name: Literal["agreement", "error", "failures"]
    requests: int
    interval: IntervalOut | None
    limit: float | None
    verdict: Literal["holds", "breaks", "unsure", "told"]
    bound: float | None


class ComparisonOut(BaseModel):
    object: Literal["model.comparison"] = "model.comparison"
    model: str
    live: StandingOut
    challenger: StandingOut
    since: datetime
    requests: int
    labelled: int
    weight: float
    measures: list[MeasureOut]
    decision: Literal["promote", "roll_back", "wait"]
    reason: str

    @classmethod
    def of(cls, comparison: Comparison) -> ComparisonOut:
        return cls.model_validate(told(comparison))
