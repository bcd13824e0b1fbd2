"""A clock that stands still, and a short way to run one rule on a few rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from infra.expectations import Result, check
from infra.expectations.suite import build_suite

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def judge() -> Callable[..., Result]:
    """Run one rule on columns."""

    def run(data: Any, /, **rule: Any) -> Result:
        frame = data if isinstance(data, pl.DataFrame | pl.LazyFrame) else pl.DataFrame(data)
        suite = build_suite({"name": "one", "checks": [rule]})
        return check(suite, frame, now=NOW).results[0]

    return run
