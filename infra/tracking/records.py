"""What can be read about runs: what they are, what they used and made, how their metrics stand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Row

from infra.jobs.processes import Process
from infra.tracking.parameters import decode

State = Literal["running", "finished", "failed", "killed", "lost"]
"""`lost`: it never said how it ended, and its process is gone or silent."""
STATES: tuple[State, ...] = ("running", "finished", "failed", "killed", "lost")
LOST_SECONDS = 60.0
"""Silence after which a run counts as lost; one that is heard of again was only slow."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it stood when it was read."""

    id: str
    kind: str
    name: str
    state: State
    exit_reason: str | None
    """Why it ended, unless it ended well."""
    parent: str | None
    """Id of the run it is part of."""
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    command: tuple[str, ...]
    environment: Mapping[str, Any]
    packages: str | None
    """Digest of what was installed; `Runs.packages` has the list."""
    git_revision: str | None
    git_dirty: bool | None
    dropped: int
    """Points that fell because the database could not be reached for long."""
    started_at: datetime
    seen_at: datetime
    finished_at: datetime | None

    @property
    def is_over(self) -> bool:
        return self.state != "running"

    @property
    def duration_seconds(self) -> float:
        """Until its end, or until it was last heard of."""
        return ((self.finished_at or self.seen_at) - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Link:
    """An artifact that a run used or made."""

    direction: Literal["used", "made"]
    role: str
    """What it was used as, such as `train`, `base` or `eval`."""
    reference: str
    digest: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Series:
    """How a metric stands."""

    name: str
    count: int
    last_step: int
    last_at: float
    """Seconds since 1970."""
    last: float
    low: float | None
    """The smallest, NaN aside; `None` if there was nothing else."""
    low_step: int | None
    high: float | None
    high_step: int | None


@dataclass(frozen=True, slots=True)
class MirrorState:
    """How far a mirror has followed a run."""

    mirror: str
    state: Literal["pending", "done"]
    remote_id: str | None
    error: str | None
    """Why it lags, as far as is known."""


def read_run(row: Row[Any], *, tags: Mapping[str, str], now: datetime) -> RunRecord:
    """Build a record from a row of the table `run`; `now` is the database's."""
    return RunRecord(
        id=row.id,
        kind=row.kind,
        name=row.name,
        state="lost" if is_lost(row, now=now) else row.state,
        exit_reason=row.exit_reason,
        parent=row.parent_id,
        parameters=decode(row.parameters),
        tags=tags,
        command=tuple(decode(row.command)),
        environment=row.environment,
        packages=row.packages,
        git_revision=row.git_revision,
        git_dirty=row.git_dirty,
        dropped=row.dropped,
        started_at=row.started_at,
        seen_at=row.seen_at,
        finished_at=row.finished_at,
    )


def is_lost(row: Row[Any], *, now: datetime) -> bool:
    """True if a run never said how it ended and its process is gone or silent."""
    if row.state != "running":
        return False
    is_silent = now - row.seen_at > timedelta(seconds=LOST_SECONDS)
    return is_silent or Process.parse(row.process).is_gone


def read_series(row: Row[Any]) -> Series:
    return Series(
        name=row.name,
        count=row.length,
        last_step=row.last_step,
        last_at=row.last_at,
        last=math.nan if row.last is None else row.last,
        low=row.low,
        low_step=row.low_step,
        high=row.high,
        high_step=row.high_step,
    )
