"""Puts runs side by side: what they were told, what came out, on which data, code and packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from infra.errors import InvalidRequest
from infra.tracking.parameters import encode, flatten
from infra.tracking.records import Link, RunRecord, Series
from infra.tracking.runs import Runs

MAX_RUNS = 20
Section: TypeAlias = Literal["run", "parameters", "metrics", "data", "environment", "packages"]


@dataclass(frozen=True, slots=True)
class Row:
    """One fact about every run."""

    section: Section
    name: str
    values: tuple[Any, ...]
    """In the order of the runs; `None` where a run has none."""
    differs: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    runs: tuple[RunRecord, ...]
    rows: tuple[Row, ...]


def compare(runs: Runs, run_ids: Sequence[str]) -> Comparison:
    """Compare some runs.

    Of a metric there is the last value and, where they are others, the lowest and the highest. Of
    packages only those that differ are there.

    Raises:
        InvalidRequest: there are fewer than two, or too many.
        NotFound: one of them does not exist.
    """
    if not 2 <= len(run_ids) <= MAX_RUNS:
        raise InvalidRequest(f"Compare 2 to {MAX_RUNS} runs, not {len(run_ids)}", parameter="id")
    found = tuple(runs.get(run_id) for run_id in run_ids)
    tables: list[tuple[Section, Sequence[Mapping[str, Any]]]] = [
        ("run", [_facts(each) for each in found]),
        ("parameters", [flatten(each.parameters) for each in found]),
        ("metrics", _metrics([runs.series(each.id) for each in found])),
        ("data", [_data(runs.links(each.id)) for each in found]),
        ("environment", [_environment(each) for each in found]),
    ]
    rows = [row for section, columns in tables for row in _rows(section, columns)]
    if len({each.packages for each in found}) > 1:
        installed = [_packages(runs.packages, each.packages) for each in found]
        rows += [row for row in _rows("packages", installed) if row.differs]
    return Comparison(found, tuple(rows))


def _rows(section: Section, columns: Sequence[Mapping[str, Any]]) -> Iterable[Row]:
    for name in dict.fromkeys(name for column in columns for name in column):
        values = tuple(column.get(name) for column in columns)
        yield Row(section, name, values, len({encode(value) for value in values}) > 1)


def _facts(each: RunRecord) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "state": each.state,
        "seconds": round(each.duration_seconds, 3),
        "git revision": each.git_revision,
        "git dirty": each.git_dirty,
        "command": " ".join(each.command),
        **{f"tag {key}": value for key, value in each.tags.items()},
    }


def _metrics(found: Sequence[Sequence[Series]]) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = [{} for _ in found]
    by_name = [{series.name: series for series in each} for each in found]
    for name in sorted({name for each in by_name for name in each}):
        known = [each.get(name) for each in by_name]
        is_flat = all(s is None or s.count == 1 for s in known)
        for column, series in zip(columns, known, strict=True):
            if series is not None:
                column[name] = series.last
                if not is_flat:
                    column[f"{name} (lowest)"] = series.low
                    column[f"{name} (highest)"] = series.high
    return columns


def _data(links: Iterable[Link]) -> dict[str, Any]:
    by_role: dict[str, list[str]] = {}
    for link in links:
        shown = link.reference if link.digest in link.reference else None
        text = shown or f"{link.reference} {link.digest[:19]}"
        by_role.setdefault(f"{link.direction} as {link.role}", []).append(text)
    return {role: ", ".join(sorted(texts)) for role, texts in sorted(by_role.items())}


def _environment(each: RunRecord) -> dict[str, Any]:
    described = each.environment
    gpus = [gpu.get("name", "") for gpu in described.get("gpus") or ()]
    return {
        **{name: described.get(name) for name in ("python", "platform", "host", "cpus")},
        "gpus": ", ".join(gpus) or "none",
        "packages": each.packages,
        **{f"variable {name}": value for name, value in described.get("variables", {}).items()},
    }


def _packages(read: Callable[[str], tuple[str, ...]], digest: str | None) -> dict[str, str]:
    lines = read(digest) if digest else ()
    parts = (line.partition("==") for line in lines)
    return {name: version for name, _, version in parts}
