"""Names how a series of windows changed: at once, gradually, in cycles, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from monitoring.columns import Floats

Shape: TypeAlias = Literal["none", "instantaneous", "gradual", "cyclic", "not_enough_data"]
LEAST_WINDOWS = 8
_SIMULATIONS = 999
_RAMPS = 500
"""At most, evenly among all of them."""


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


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """All curves of one shape, each as an orthonormal basis of what it can be."""

    shape: Shape
    parameters: int
    choices: Floats
    """What tells the curves apart, (curves, 1 or 2): where they begin and end, or their period."""
    designs: Floats
    """Shape (curves, windows, coefficients)."""
    bases: Floats
    """Of the designs over the errors, of the same shape."""


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
    families = _families(spread)
    gains, best = _gains((series / spread)[None, :], spread, families)
    noise = np.random.default_rng(seed).normal(size=(_SIMULATIONS, series.size))
    reached = int((_gains(noise, spread, families)[0] >= gains[0]).sum())
    p = (1 + reached) / (1 + _SIMULATIONS)
    if p > level:
        mean = float(np.average(series, weights=spread**-2))
        return Change("none", f"All windows are compatible with {mean:.4g}", p, before=mean)
    return _described(families[best], series, spread, p)


def _families(spread: Floats) -> tuple[_Family, ...]:
    """Return steps at every place, ramps over four windows or more, and sines of two periods."""
    size = spread.size
    at = np.arange(size)
    places = np.arange(1, size)
    steps = (at[None, :] >= places[:, None]).astype(np.float64)
    pairs = np.array([(a, b) for a in range(size - 3) for b in range(a + 4, size + 1)])
    pairs = pairs[np.unique(np.linspace(0, len(pairs) - 1, _RAMPS).astype(int))]
    ramps = np.clip((at[None, :] - pairs[:, :1]) / np.diff(pairs, axis=1), 0.0, 1.0)
    periods = size / np.arange(2, size / 2 - 0.01, 0.5)
    angles = 2 * math.pi * at[None, :] / periods[:, None]
    return (
        _family("instantaneous", 3, places[:, None].astype(np.float64), [steps], spread),
        _family("gradual", 4, pairs.astype(np.float64), [ramps], spread),
        _family("cyclic", 4, periods[:, None], [np.sin(angles), np.cos(angles)], spread),
    )


def _family(
    shape: Shape, parameters: int, choices: Floats, curves: Sequence[Floats], spread: Floats
) -> _Family:
    designs = np.stack([np.ones_like(curves[0]), *curves], axis=2)
    bases = np.linalg.qr(designs / spread[None, :, None])[0]
    return _Family(shape, parameters, choices, designs, bases)


def _gains(targets: Floats, spread: Floats, families: Sequence[_Family]) -> tuple[Floats, int]:
    """Return by how much the best criterion is below that of a constant, for series over errors.

    Args:
        targets: shape (series, windows).
        spread: the errors, (windows,).
        families: of curves.

    Returns:
        The gains, (series,), and which family is best for the first series.
    """
    penalty = math.log(spread.size)
    flat = (1 / spread) / np.linalg.norm(1 / spread)
    explained = (targets @ flat) ** 2
    gains = np.stack(
        [
            _explained(family, targets).max(axis=1) - explained - (family.parameters - 1) * penalty
            for family in families
        ]
    )
    return gains.max(axis=0), int(gains[:, 0].argmax())


def _explained(family: _Family, targets: Floats) -> Floats:
    """Return the sum of squares that each curve explains of each series, (series, curves)."""
    curves, windows, coefficients = family.bases.shape
    flat = family.bases.transpose(1, 0, 2).reshape(windows, curves * coefficients)
    parts = (targets @ flat).reshape(len(targets), curves, coefficients)
    found: Floats = (parts**2).sum(axis=2)
    return found


def _described(family: _Family, series: Floats, spread: Floats, p: float) -> Change:
    target = series / spread
    best = int(_explained(family, target[None, :])[0].argmax())
    fitted = np.linalg.lstsq(family.designs[best] / spread[:, None], target, rcond=None)[0]
    level, choice = float(fitted[0]), [float(each) for each in family.choices[best]]
    if family.shape == "cyclic":
        swing = math.hypot(fitted[1], fitted[2])
        words = f"Goes up and down by {swing:.3g} around {level:.4g} every {choice[0]:.3g} windows"
        return Change("cyclic", words, p, before=level, period=choice[0], swing=swing)
    after = level + float(fitted[1])
    if family.shape == "gradual":
        start, end = int(choice[0]) + 1, int(choice[1])
        words = f"Went from {level:.4g} to {after:.4g} over windows {start} to {end}"
        return Change("gradual", words, p, start, end, level, after)
    start = int(choice[0])
    words = f"Jumped from {level:.4g} to {after:.4g} in window {start}"
    return Change("instantaneous", words, p, start, start, level, after)
