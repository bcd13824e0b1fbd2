"""Names how a series of windows changed: at once, gradually, in cycles, or not at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from monitoring.columns import Floats

Shape: TypeAlias = Literal["none", "instantaneous", "gradual", "cyclic", "not_enough_data"]
LEAST_WINDOWS = 8
_SIMULATIONS = 999


@dataclass(frozen=True, slots=True)
class Change:
    """How a metric or a distance went over windows of equal length."""

    shape: Shape
    explanation: str
    p_value: float | None = None
    """Of 'the true value is the same in all windows'."""
    start: int | None = None
    """The first window that is different, counted from 0."""
    end: int | None = None
    """The first window in which a gradual change is complete."""
    before: float | None = None
    after: float | None = None
    period: float | None = None
    """In windows, of a cyclic change."""
    swing: float | None = None
    """Of a cyclic change: half the distance from its lowest to its highest."""


@dataclass(frozen=True, slots=True)
class _Fit:
    shape: Shape
    error: float
    parameters: int
    what: tuple[float, ...]


def name_shape(
    values: npt.ArrayLike, errors: npt.ArrayLike, *, level: float = 0.05, seed: int = 0
) -> Change:
    """Return the shape that a series has.

    A step, a ramp and a sine are fitted by weighted least squares, and the one with the smallest
    Bayesian information criterion is named, if it is better than a constant by more than series
    without a change are: those are simulated with the errors given, so a search over all places
    and periods does not find what is not there.

    Args:
        values: of a metric or a distance, one per window, in order, (windows,).
        errors: their standard errors, (windows,).
        level: probability of naming a change where there is none.
        seed: of the simulation.
    """
    series, spread = (np.asarray(each, dtype=np.float64) for each in (values, errors))
    if series.shape != spread.shape or series.ndim != 1 or not (spread > 0).all():
        raise InvalidRequest(
            f"{series.size} values and {spread.size} errors; give one above 0 of each window"
        )
    if series.size < LEAST_WINDOWS:
        return Change(
            "not_enough_data", f"{series.size} windows of the {LEAST_WINDOWS} that are needed"
        )
    gain, best = _gain(series, spread)
    rng = np.random.default_rng(seed)
    reached = 0
    designs = _SIMULATIONS
    for number in range(_SIMULATIONS):
        reached += _gain(rng.normal(scale=spread), spread)[0] >= gain
        if reached > level * _SIMULATIONS:
            designs = number + 1
            break
    p = (1 + reached) / (1 + designs)
    if p > level:
        mean = float(np.average(series, weights=spread**-2))
        return Change("none", f"All windows are compatible with {mean:.4g}", p, before=mean)
    return _described(best, p)


def _gain(series: Floats, spread: Floats) -> tuple[float, _Fit]:
    """Return by how much the best shape's criterion is below that of a constant."""
    penalty = math.log(series.size)
    flat = float((((series - np.average(series, weights=spread**-2)) / spread) ** 2).sum())
    fits = [_step(series, spread), _ramp(series, spread), _cycle(series, spread)]
    best = min(fits, key=lambda fit: fit.error + fit.parameters * penalty)
    return flat - best.error - (best.parameters - 1) * penalty, best


def _solve(designs: Floats, series: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Return weighted residual sums (k,) and coefficients (k, p) of designs (k, windows, p)."""
    scaled = designs / spread[None, :, None]
    target = series / spread
    grams = np.einsum("kwp,kwq->kpq", scaled, scaled)
    sides = np.einsum("kwp,w->kp", scaled, target)
    found = np.linalg.solve(grams + 1e-9 * np.eye(grams.shape[1]), sides[:, :, None])[:, :, 0]
    errors = ((target[None, :] - np.einsum("kwp,kp->kw", scaled, found)) ** 2).sum(axis=1)
    return errors, found


def _step(series: Floats, spread: Floats) -> _Fit:
    places = np.arange(1, series.size)
    after = (np.arange(series.size)[None, :] >= places[:, None]).astype(np.float64)
    errors, found = _solve(np.stack([np.ones_like(after), after], axis=2), series, spread)
    best = int(errors.argmin())
    level, jump = found[best]
    return _Fit("instantaneous", float(errors[best]), 3, (places[best], level, level + jump))


def _ramp(series: Floats, spread: Floats) -> _Fit:
    """Return the best line between two levels; it takes three windows at least."""
    size = series.size
    pairs = np.array([(a, b) for a in range(size - 3) for b in range(a + 4, size + 1)])
    if len(pairs) > 500:
        pairs = pairs[np.linspace(0, len(pairs) - 1, 500).astype(int)]
    start, end = pairs[:, :1], pairs[:, 1:]
    rise = np.clip((np.arange(size)[None, :] - start) / (end - start), 0.0, 1.0)
    errors, found = _solve(np.stack([np.ones_like(rise), rise], axis=2), series, spread)
    best = int(errors.argmin())
    level, jump = found[best]
    what = (pairs[best, 0] + 1, pairs[best, 1], level, level + jump)
    return _Fit("gradual", float(errors[best]), 4, tuple(float(each) for each in what))


def _cycle(series: Floats, spread: Floats) -> _Fit:
    """Return the best sine; two whole periods have to be there."""
    periods = series.size / np.arange(2, series.size / 2 + 0.01, 0.5)
    angle = 2 * math.pi * np.arange(series.size)[None, :] / periods[:, None]
    design = np.stack([np.ones_like(angle), np.sin(angle), np.cos(angle)], axis=2)
    errors, found = _solve(design, series, spread)
    best = int(errors.argmin())
    swing = math.hypot(found[best, 1], found[best, 2])
    return _Fit("cyclic", float(errors[best]), 4, (periods[best], float(found[best, 0]), swing))


def _described(fit: _Fit, p: float) -> Change:
    if fit.shape == "cyclic":
        period, level, swing = fit.what
        words = f"Goes up and down by {swing:.3g} around {level:.4g} every {period:.3g} windows"
        return Change("cyclic", words, p, before=level, period=period, swing=swing)
    if fit.shape == "gradual":
        start, end, before, after = fit.what
        words = f"Went from {before:.4g} to {after:.4g} over windows {start:.0f} to {end:.0f}"
        return Change("gradual", words, p, int(start), int(end), before, after)
    start, before, after = fit.what
    words = f"Jumped from {before:.4g} to {after:.4g} in window {start:.0f}"
    return Change("instantaneous", words, p, int(start), int(start), float(before), float(after))
