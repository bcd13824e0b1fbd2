"""Runs as JSON and CSV; the numbers that JSON lacks are the texts NaN, Infinity, -Infinity."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from infra.tracking.comparison import Comparison
from infra.tracking.parameters import as_json
from infra.tracking.points import Bucket, Points
from infra.tracking.records import Link, MirrorState, RunRecord, Series
from infra.tracking.runs import Runs


def describe(record: RunRecord) -> dict[str, Any]:
    """Return what the table of runs says of one; times are `datetime`."""
    return {
        "id": record.id,
        "kind": record.kind,
        "name": record.name,
        "state": record.state,
        "exit_reason": record.exit_reason,
        "parent": record.parent,
        "parameters": as_json(record.parameters),
        "tags": dict(record.tags),
        "command": list(record.command),
        "environment": as_json(record.environment),
        "packages": record.packages,
        "git_revision": record.git_revision,
        "git_dirty": record.git_dirty,
        "dropped_points": record.dropped,
        "started_at": record.started_at,
        "seen_at": record.seen_at,
        "finished_at": record.finished_at,
        "duration_seconds": record.duration_seconds,
    }


def describe_fully(runs: Runs, record: RunRecord) -> dict[str, Any]:
    """Return a run with its metrics' state, artifacts, children and mirrors."""
    return {
        **describe(record),
        "metrics": {each.name: describe_series(each) for each in runs.series(record.id)},
        "artifacts": [describe_link(link) for link in runs.links(record.id)],
        "children": list(runs.children(record.id)),
        "mirrors": [_mirror(each) for each in runs.mirrors(record.id)],
    }


def describe_series(series: Series) -> dict[str, Any]:
    return {
        "count": series.count,
        "last": as_json(series.last),
        "last_step": series.last_step,
        "last_at": series.last_at,
        "low": as_json(series.low),
        "low_step": series.low_step,
        "high": as_json(series.high),
        "high_step": series.high_step,
    }


def describe_link(link: Link) -> dict[str, Any]:
    return asdict(link)


def describe_bucket(bucket: Bucket) -> dict[str, Any]:
    return {name: as_json(value) for name, value in asdict(bucket).items()}


def export(runs: Runs, record: RunRecord) -> dict[str, Any]:
    """Return everything that is known of a run, every point included."""
    whole = describe_fully(runs, record)
    whole["packages_list"] = list(runs.packages(record.packages)) if record.packages else []
    for name, metric in whole["metrics"].items():
        points = runs.points(record.id, name)
        metric["points"] = [
            {"step": step, "at": at, "value": as_json(value)} for step, at, value in _rows(points)
        ]
    return whole


def export_csv(runs: Runs, record: RunRecord) -> str:
    """Return every point as a line: metric, step, time, value."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(("metric", "step", "time", "value"))
    for series in runs.series(record.id):
        for step, at, value in _rows(runs.points(record.id, series.name)):
            time = datetime.fromtimestamp(at, UTC).isoformat()
            writer.writerow((series.name, step, time, as_json(value)))
    return written.getvalue()


def describe_comparison(
    comparison: Comparison, *, only_differences: bool = False
) -> dict[str, Any]:
    """Return which runs were compared, and a row per fact with a value of each run."""
    return {
        "runs": [{"id": each.id, "name": each.name} for each in comparison.runs],
        "rows": [
            {
                "section": row.section,
                "name": row.name,
                "values": as_json(row.values),
                "differs": row.differs,
            }
            for row in comparison.rows
            if row.differs or not only_differences
        ],
    }


def _rows(points: Points) -> Iterator[tuple[int, float, float]]:
    return zip(points.steps.tolist(), points.times.tolist(), points.values.tolist(), strict=True)


def _mirror(state: MirrorState) -> dict[str, Any]:
    return asdict(state)
