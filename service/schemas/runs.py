"""Runs over HTTP: what they were told, how their metrics stand, runs side by side."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from infra.tracking import description
from infra.tracking.comparison import Comparison
from infra.tracking.points import Bucket
from infra.tracking.records import RunRecord, Series
from infra.tracking.runs import Runs

MAX_METRICS = 50
MAX_BUCKETS = 10_000
State = Literal["running", "finished", "failed", "killed", "lost"]
Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"]
"""JSON has no other way to write the last three."""


class RunOut(BaseModel):
    id: str
    object: Literal["run"] = "run"
    kind: str
    name: str
    state: State
    exit_reason: str | None
    parent: str | None
    parameters: dict[str, Any]
    tags: dict[str, str]
    command: list[str]
    environment: dict[str, Any]
    packages: str | None
    git_revision: str | None
    git_dirty: bool | None
    dropped_points: int
    started_at: datetime
    seen_at: datetime
    finished_at: datetime | None
    duration_seconds: float

    @classmethod
    def of(cls, record: RunRecord) -> RunOut:
        return cls(**description.describe(record))


class SeriesOut(BaseModel):
    count: int
    last: Number
    last_step: int
    last_at: float = Field(description="Seconds since 1970.")
    low: Number | None
    low_step: int | None
    high: Number | None
    high_step: int | None


class LinkOut(BaseModel):
    direction: Literal["used", "made"]
    role: str
    reference: str
    digest: str
    at: datetime


class MirrorOut(BaseModel):
    mirror: str
    state: Literal["pending", "done"]
    remote_id: str | None
    error: str | None


class FullRun(RunOut):
    metrics: dict[str, SeriesOut]
    artifacts: list[LinkOut]
    children: list[str]
    mirrors: list[MirrorOut]

    @classmethod
    def read(cls, runs: Runs, record: RunRecord) -> FullRun:
        return cls(**description.describe_fully(runs, record))


class RunList(BaseModel):
    object: Literal["list"] = "list"
    data: list[RunOut]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BucketOut(BaseModel):
    """A stretch of neighbouring points, as one."""

    first_step: int
    last_step: int
    at: float
    count: int
    nan: int
    low: Number
    high: Number
    last: Number


class MetricOut(SeriesOut):
    name: str
    buckets: list[BucketOut]

    @classmethod
    def of(cls, series: Series, buckets: list[Bucket]) -> MetricOut:
        return cls(
            name=series.name,
            buckets=[BucketOut(**description.describe_bucket(bucket)) for bucket in buckets],
            **description.describe_series(series),
        )


class MetricList(BaseModel):
    object: Literal["list"] = "list"
    data: list[MetricOut]


class ComparedRun(BaseModel):
    id: str
    name: str


class RowOut(BaseModel):
    section: str
    name: str
    values: list[Any]
    differs: bool


class ComparisonOut(BaseModel):
    object: Literal["run.comparison"] = "run.comparison"
    runs: list[ComparedRun]
    rows: list[RowOut]

    @classmethod
    def of(cls, comparison: Comparison, *, only_differences: bool) -> ComparisonOut:
        described = description.describe_comparison(comparison, only_differences=only_differences)
        return cls(**described)
