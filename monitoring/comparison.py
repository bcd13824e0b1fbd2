"""Compares a measurement window with its reference, feature by feature, in all their slices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from infra.errors import InvalidRequest, NotFound
from infra.plugins import require
from monitoring.columns import EXTRA, Column
from monitoring.detector import Chosen, TwoSampleDetector, is_sequential, open_detector
from monitoring.findings import Finding, Verdict, incomparable, not_enough_data
from monitoring.matrices import together
from monitoring.windows import Window, same_hours

Correction: TypeAlias = Literal["benjamini_hochberg", "benjamini_yekutieli", "holm", "none"]
CORRECTIONS: tuple[Correction, ...] = get_args(Correction)
MOST_SET_ASIDE = 0.1
"""Of the rows: with more whose clock is wrong, the rest is no fair sample of its time."""
MISSING = "missing"
EVERYTHING = ""
SLICES = 20
"""Values of a column that have a slice, the most frequent ones."""
MOST_DRAWS = 10_000
TOGETHER = "all columns"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared by which detectors, and how sure and how large a change has to be."""

    by_kind: Mapping[str, str] = field(
        default_factory=lambda: {
            "numbers": "kolmogorov_smirnov",
            "categories": "chi_squared",
            "vectors": "mmd",
        }
    )
    by_column: Mapping[str, str | Chosen | Sequence[str]] = field(default_factory=dict)
    """For columns that want another detector, or several."""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of detectors, by their names."""
    level: float = 0.05
    correction: Correction = "benjamini_hochberg"
    """Benjamini-Hochberg: of what is called drift, at most `level` is none, on average, where tests
    depend on one another positively; Benjamini-Yekutieli: however they do; Holm: with probability
    `level` at most, anything is called drift that is none. None: `level` is that of each test."""
    slices: Sequence[str] = ()
    """Columns of categories; every one of their frequent values is compared for itself too."""
    leave_out: Sequence[str] = ()
    """Columns that are no features: ids, times."""
    together: str | Chosen | None = None
    """A detector of vectors that sees all numbers and categories at once; none by default."""
    season: str | None = None
    """The reference's column of times: only its rows of the same hours of the week count."""
    zone: tzinfo = UTC
    """Whose hours of the week those are."""


@dataclass(frozen=True, slots=True)
class FeatureFinding:
    """What was found of one feature."""

    feature: str
    finding: Finding
    slice: str = EVERYTHING
    """`column=value`, or the column alone where it has no slices; empty for all rows."""

    @property
    def order(self) -> tuple[bool, float]:
        """By which the one that moved most is the largest."""
        return self.finding.is_drift, self.finding.weight


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of one check, corrected for one another."""

    findings: tuple[FeatureFinding, ...]
    level: float
    correction: Correction
    reference_rows: int
    window_rows: int

    @property
    def verdict(self) -> Verdict:
        """Drift if any feature drifted, of all rows or in a slice; else what is said of all rows.

        What could not be compared may have moved, so that beside it nothing reads `stable`.
        """
        if self.drifted:
            return "drift"
        verdicts = {each.finding.verdict for each in self.findings if each.slice == EVERYTHING}
        order: tuple[Verdict, ...] = ("incomparable", "stable", "not_enough_data")
        return next((each for each in order if each in verdicts), "incomparable")

    @property
    def drifted(self) -> tuple[FeatureFinding, ...]:
        """What drifted, the largest effect in units of its own least effect first."""
        found = [each for each in self.findings if each.finding.is_drift]
        return tuple(sorted(found, key=lambda each: -each.finding.weight))


def compare(reference: Window, window: Window, plan: Plan | None = None) -> Report:
    """Compare every column of the reference with that of the window, one at a time.

    Where a column has missing values in either, whether values are missing is a feature too.
    Nothing that is wrong with a window is raised: it is a finding.

    Raises:
        InvalidRequest: the plan names columns that the reference does not have, or a detector that
            watches streams.
    """
    plan = plan or Plan()
    _check(plan, reference)
    if plan.season is not None:
        reference = same_hours(reference, plan.season, window, zone=plan.zone)
        plan = replace(plan, leave_out=(*plan.leave_out, plan.season))
    plan = _fine_enough(plan, reference)
    found = [*_of_window(reference, window, plan, EVERYTHING)]
    for column in plan.slices:
        found += _of_slices(reference, window, plan, column)
    return Report(
        tuple(_corrected(found, plan)), plan.level, plan.correction, reference.rows, window.rows
    )


def adjusted(p_values: Sequence[float], correction: Correction) -> list[float]:
    """Return p-values corrected for one another, or, by `none`, as they are.

    >>> adjusted([0.01, 0.04, 0.03], "holm")
    [0.03, 0.06, 0.06]
    """
    if not p_values or correction == "none":
        return list(p_values)
    if correction != "holm":
        method = "bh" if correction == "benjamini_hochberg" else "by"
        stats = require("scipy.stats", extra=EXTRA)
        return [float(p) for p in stats.false_discovery_control(p_values, method=method)]
    p = np.asarray(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return [float(each) for each in np.minimum(steps, 1.0)[np.argsort(order, kind="stable")]]


def _check(plan: Plan, reference: Window) -> None:
    for name in (*plan.by_column, *plan.slices):
        if name not in reference.names:
            raise NotFound("column", name, among=reference.names)
    if plan.correction not in CORRECTIONS:
        raise InvalidRequest(
            f"No correction {plan.correction!r}; there are {', '.join(CORRECTIONS)}"
        )


def _fine_enough(plan: Plan, reference: Window) -> Plan:
    """Have permutations enough that one feature's p-value can stand out among all the tests."""
    tests = (len(reference.names) + 1) * (1 + len(plan.slices) * SLICES)
    draws = min(math.ceil(2 * tests / plan.level), MOST_DRAWS)
    chosen = [plan.by_column.get(name, ()) for name in reference.names]
    chosen += [plan.together or ()]
    named = [
        *map(Chosen, plan.by_kind.values()),
        *(each for some in chosen for each in _each(some)),
    ]
    fewer = {each.name for each in named if draws > _draws(each, plan, default=draws)}
    parameters = {name: {"draws": draws, **plan.parameters.get(name, {})} for name in fewer}
    return replace(plan, parameters={**plan.parameters, **parameters})


def _draws(chosen: Chosen, plan: Plan, *, default: int) -> int:
    """Return how many permutations a detector makes where nobody says how many."""
    others = {name: value for name, value in chosen.parameters.items() if name != "draws"}
    return int(getattr(_open(replace(chosen, parameters=others), plan), "draws", default))


def _of_window(
    reference: Window, window: Window, plan: Plan, slice_: str
) -> Iterator[FeatureFinding]:
    for name in reference.names:
        if name not in plan.leave_out:
            before = reference.column(name)
            for finding, feature in _of_column(before, window, plan, name):
                yield FeatureFinding(feature, finding, slice_)
    if slice_ == EVERYTHING:
        if plan.together is not None:
            names = [n for n in reference.names if n in window.names and n not in plan.leave_out]
            before, now = together(reference, window, names)
            yield FeatureFinding(
                TOGETHER, _open(_each(plan.together)[0], plan).compare(before, now)
            )
        for name in window.names:
            if name not in reference.names and name not in plan.leave_out:
                reason = "The reference has no such column; pin a new one that has"
                yield FeatureFinding(name, incomparable("", reason))


def _of_column(
    before: Column, window: Window, plan: Plan, name: str
) -> Iterator[tuple[Finding, str]]:
    if name not in window.names:
        if window.rows + window.set_aside:
            yield incomparable("", "The window has no such column"), name
        else:
            yield not_enough_data("", "The window has no rows"), name
        return
    now = window.column(name)
    if before.kind == now.kind == "nothing":
        yield not_enough_data("", "Neither the reference nor the window holds a value"), name
        return
    total = window.rows + window.set_aside
    if total and window.set_aside > MOST_SET_ASIDE * total:
        reason = f"A clock jumped: {window.set_aside} of {total} rows have a time that cannot be"
        yield incomparable("", reason), name
        return
    for each in _chosen(plan, name, before, now):
        yield _open(each, plan).compare(before, now), name
    if before.is_missing().any() or now.is_missing().any():
        each = Chosen(plan.by_kind.get("categories", "chi_squared"))
        finding = _open(each, plan).compare(before.missingness(), now.missingness())
        yield finding, f"{name} ({MISSING})"


def _of_slices(
    reference: Window, window: Window, plan: Plan, column: str
) -> Iterator[FeatureFinding]:
    if column not in window.names or not window.rows:
        return
    for what, side in (("reference", reference), ("window", window)):
        kind = side.column(column).kind
        if kind != "categories":
            reason = f"The {what} has no slices by {column!r}: the column holds {kind}"
            yield FeatureFinding(column, incomparable("", reason), column)
            return
    rest = replace(plan, leave_out=(*plan.leave_out, column))
    current = window.slices(column, most=2 * SLICES)
    for value, part in reference.slices(column, most=SLICES).items():
        named = f"{column}={value}"
        if value in current:
            yield from _of_window(part, current[value], rest, named)


def _chosen(plan: Plan, name: str, before: Column, now: Column) -> tuple[Chosen, ...]:
    if name in plan.by_column:
        return _each(plan.by_column[name])
    kind = now.kind if before.kind == "nothing" else before.kind
    return _each(plan.by_kind.get(kind, plan.by_kind.get("numbers", "kolmogorov_smirnov")))


def _each(chosen: str | Chosen | Sequence[str]) -> tuple[Chosen, ...]:
    if isinstance(chosen, Chosen):
        return (chosen,)
    return tuple(Chosen(name) for name in ((chosen,) if isinstance(chosen, str) else chosen))


def _open(chosen: Chosen, plan: Plan) -> TwoSampleDetector:
    name, own = chosen.name, chosen.parameters
    built = open_detector(name, {"level": plan.level, **plan.parameters.get(name, {}), **own})
    if is_sequential(built):
        raise InvalidRequest(f"{name!r} watches streams; choose a detector that compares windows")
    return built  # type: ignore[return-value]


def _corrected(found: Sequence[FeatureFinding], plan: Plan) -> Iterator[FeatureFinding]:
    """Judge again, each beside all others; what could not be tested is no test."""
    tested = [each.finding.p_value for each in found if each.finding.is_judged]
    corrected = iter(adjusted([p for p in tested if p is not None], plan.correction))
    for each in found:
        if each.finding.is_judged and each.finding.p_value is not None:
            finding = each.finding.judged(plan.level, p_adjusted=next(corrected))
            yield replace(each, finding=finding)
        else:
            yield each
