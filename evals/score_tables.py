"""Scores of one metric over one run, and what a candidate's say beside a baseline's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from evals.scores import STATES
from evals.statistics.intervals import Floats
from infra.errors import IncomparableBaseline, InvalidRequest

Names = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class OfSet:
    """What is known of a metric of the whole set, of which a table has pseudo-values of groups."""

    clusters: int
    """That stand alone; several may be in one group."""
    width: float | None
    """How far the least and the most that it can be are apart; pseudo-values may lie beyond."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """One metric of one run: a row for every case that was planned, and for each of its repeats."""

    cases: npt.ArrayLike
    """Ids, shape (n,)."""
    values: npt.ArrayLike
    """Shape (n,); what stands where nothing was scored is not looked at."""
    states: npt.ArrayLike
    """One of `scores.STATES` each, shape (n,)."""
    clusters: npt.ArrayLike | None = None
    """Ids of what cases share (a question, a document), shape (n,); None: each stands alone."""
    arrived: npt.ArrayLike | None = None
    """When each row came, shape (n,); only gates that may be read at any time ask for it."""
    dataset: str = ""
    """Version of the dataset."""
    metric: str = ""
    """Name and version of the metric, and of its judge."""
    is_pass_or_fail: bool = False
    """Whether the metric says that every score is 0 or 1; what was seen says nothing of it."""
    of_set: OfSet | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A value for each case that has one: its score, or its difference from the baseline's."""

    values: Floats
    """Shape (n,), means over repeats."""
    clusters: Names
    """Shape (n,)."""
    arrived: Floats | None
    planned: int
    """Cases."""
    coverage: float
    """Share of what was planned, cases and repeats, that was scored; in both runs, if two."""
    repeats: int
    """The most that a case has."""
    outcomes: tuple[Floats, Floats]
    """Baseline's and candidate's scores, shape (n,) each; of one run, the two are the same."""
    is_pass_or_fail: bool
    """As the table says."""
    of_set: OfSet | None = None
    """As the table says, of two the one with fewer clusters."""

    @property
    def can_be_counted(self) -> bool:
        """Whether each case stands alone, was run once, and passes or fails."""
        alone = self.repeats == 1 and np.unique(self.clusters).size == self.clusters.size
        return alone and self.is_pass_or_fail


@dataclass(frozen=True, slots=True, eq=False)
class _Cases:
    """Rows summed up by case, in the order of the ids, so that no order of rows matters."""

    ids: Names
    means: Floats
    """Over the repeats that were scored; 0 where none was."""
    scored: Floats
    """Share of the repeats."""
    clusters: Names
    arrived: Floats | None
    repeats: int


def single(table: ScoreTable) -> Sample:
    """Return the scores of one run.

    Raises:
        InvalidRequest: columns of different lengths, an unknown state, a score that is no number,
            a case in two clusters.
    """
    cases = _by_case(table)
    sample = _sample(cases, cases, cases.means, is_pass_or_fail=table.is_pass_or_fail)
    return replace(sample, of_set=table.of_set)


def paired(candidate: ScoreTable, baseline: ScoreTable) -> Sample:
    """Return the candidate's scores less the baseline's, of the cases that both scored.

    Raises:
        IncomparableBaseline: the baseline is of another version of the dataset or metric, or has
            other cases.
        InvalidRequest: as for `single`.
    """
    for what in ("dataset", "metric"):
        ours, theirs = getattr(candidate, what), getattr(baseline, what)
        if ours != theirs:
            raise IncomparableBaseline(
                f"The baseline is of {what} {theirs!r}, the candidate of {ours!r}; run the "
                "baseline again"
            )
    after, before = _by_case(candidate), _by_case(baseline)
    if not np.array_equal(after.ids, before.ids):
        apart = np.setxor1d(after.ids, before.ids)
        raise IncomparableBaseline(
            f"{apart.size} cases are in one run only, such as {str(apart[0])!r}; run the baseline "
            "again over the same cases"
        )
    counted = candidate.is_pass_or_fail and baseline.is_pass_or_fail
    sample = _sample(after, before, after.means - before.means, is_pass_or_fail=counted)
    known = [each.of_set for each in (candidate, baseline) if each.of_set is not None]
    return replace(sample, of_set=min(known, key=lambda each: each.clusters, default=None))


def _sample(after: _Cases, before: _Cases, values: Floats, *, is_pass_or_fail: bool) -> Sample:
    shares = np.minimum(after.scored, before.scored)
    has = shares > 0
    return Sample(
        values[has],
        after.clusters[has],
        None if after.arrived is None else after.arrived[has],
        planned=after.ids.size,
        coverage=float(shares.mean()) if shares.size else 0.0,
        repeats=max(after.repeats, before.repeats),
        outcomes=(before.means[has], after.means[has]),
        is_pass_or_fail=is_pass_or_fail,
    )


def _by_case(table: ScoreTable) -> _Cases:
    names = np.asarray(table.cases, dtype=np.str_)
    values = np.asarray(table.values, dtype=np.float64)
    states = np.asarray(table.states, dtype=np.str_)
    groups = names if table.clusters is None else np.asarray(table.clusters, dtype=np.str_)
    arrived = None if table.arrived is None else np.asarray(table.arrived, dtype=np.float64)
    for column in (values, states, groups, *(() if arrived is None else (arrived,))):
        if column.shape != names.shape or names.ndim != 1:
            raise InvalidRequest(f"{names.shape!r} cases have a column of shape {column.shape!r}")
    if unknown := sorted(set(states.tolist()) - set(STATES)):
        raise InvalidRequest(f"No state {unknown[0]!r}; there are {', '.join(STATES)}")
    scored = states == "scored"
    if not np.isfinite(values[scored]).all():
        wrong = names[scored & ~np.isfinite(values)][0]
        raise InvalidRequest(f"The score of case {str(wrong)!r} is no number; it is unscored")
    if table.is_pass_or_fail and not np.isin(values[scored], (0.0, 1.0)).all():
        wrong = values[scored][~np.isin(values[scored], (0.0, 1.0))][0]
        raise InvalidRequest(f"A score is {float(wrong)!r}, and the metric passes or fails: 0 or 1")
    ids, first, codes = np.unique(names, return_index=True, return_inverse=True)
    if (groups != groups[first][codes]).any():
        wrong = names[groups != groups[first][codes]][0]
        raise InvalidRequest(f"Case {str(wrong)!r} is in two clusters; give all its repeats one")
    counts, rows = np.bincount(codes[scored], minlength=ids.size), np.bincount(codes)
    # Summed in an order of their own, repeats give the same mean to the last bit in any order.
    order = np.lexsort((values, codes))
    order = order[scored[order]]
    sums = np.bincount(codes[order], weights=values[order], minlength=ids.size)
    came = None
    if arrived is not None:
        came = np.full(ids.size, np.inf)
        np.minimum.at(came, codes, arrived)
    shares = counts / np.maximum(rows, 1)
    most = int(rows.max(initial=0))
    return _Cases(ids, sums / np.maximum(counts, 1), shares, groups[first], came, most)
