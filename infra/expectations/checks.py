"""Checks a table against a suite, loading what that takes only then."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from infra.errors import InvalidRequest
from infra.expectations.report import Report
from infra.expectations.suite import Suite
from infra.plugins import require

if TYPE_CHECKING:
    import polars as pl

    Data: TypeAlias = pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame]

SAMPLES = 5
"""Failing rows of a rule that a report keeps."""
MOST_SAMPLES = 100


def check(suite: Suite, data: Data, *, now: datetime, samples: int = SAMPLES) -> Report:
    """Evaluate every rule of a suite on a table.

    A rule that cannot be evaluated, because a column is missing or holds another type, fails with
    the reason; the others go on. Of a lazy frame no more is held in memory than one rule needs:
    a column of text or of conversations, one bit for each row otherwise.

    Args:
        suite: the rules.
        data: a table, or its batches, which are put together first.
        now: what freshness is measured against; with its time zone.
        samples: failing rows to keep of each rule, at most 100; what identifies a person is masked.

    Raises:
        InvalidRequest: `now` has no time zone, or the batches are not of one table.
    """
    for package in ("polars", "pandera.polars"):
        require(package, extra="data")
    from infra.expectations import checking

    if now.tzinfo is None:
        raise InvalidRequest(f"The clock says {now!r} without a time zone; give one, such as UTC")
    if not 0 <= samples <= MOST_SAMPLES:
        raise InvalidRequest(f"{samples!r} rows to keep of each rule; from 0 to {MOST_SAMPLES}")
    return checking.run(suite, checking.as_frame(data), now=now, samples=samples)
