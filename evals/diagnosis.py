"""Where error comes from: bias, variance, shift, validation overfitting; and what helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from evals.statistics.clusters import bootstrap, totals
from evals.statistics.intervals import Interval, at_least_two, difference, wilson
from infra.errors import InvalidRequest


class Source(StrEnum):
    """A part of the error, in the order in which one looks at them."""

    IRREDUCIBLE = "irreducible"
    """What the best there is (people, noise of the labels) gets wrong as well."""
    AVOIDABLE_BIAS = "avoidable bias"
    """More on what the model was trained on than the best there is."""
    VARIANCE = "variance"
    """More on unseen cases like those of training than on those of training."""
    SHIFT = "shift"
    """More on cases like those that will come than on unseen ones like those of training."""
    VALIDATION_OVERFITTING = "validation overfitting"
    """More on cases that nobody looked at than on those by which the model was chosen."""


ADVICE: Mapping[Source, str] = MappingProxyType(
    {
        Source.IRREDUCIBLE: "mend the labels or the inputs: the best there is is wrong as well",
        Source.AVOIDABLE_BIAS: "a larger model, longer training, better features, less "
        "regularisation: it does not even learn what it is shown",
        Source.VARIANCE: "more data like that of training, augmentation, regularisation, early "
        "stopping, a smaller model or an ensemble",
        Source.SHIFT: "train on cases like those that will come: collect or weigh them, adapt the "
        "domain, and look at which slices differ",
        Source.VALIDATION_OVERFITTING: "a larger or a fresh validation set; fewer rounds of "
        "choosing by it",
    }
)
"""What helps against each, after Ng, Machine Learning Yearning (2018), chapters 20 to 42."""


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """The error of each case of one set: 1 or 0 for wrong or right, or any loss."""

    values: npt.ArrayLike
    """Shape (n,)."""
    clusters: npt.ArrayLike | None = None
    """Ids of what cases share, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Part:
    """How much of the error comes from one source."""

    source: Source
    share: Interval
    """In units of the error; together, all the intervals hold with their level."""
    advice: str

    @property
    def is_sure(self) -> bool:
        """Whether it is surely more than nothing."""
        return self.share.low > 0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The error on the test set, taken apart; the parts add up to it exactly."""

    error: Interval
    parts: tuple[Part, ...]
    knows_the_best: bool
    """Whether an error of the best there is was given; else avoidable bias includes it."""

    @property
    def findings(self) -> tuple[Part, ...]:
        """The parts that are surely there and can be acted on, the largest first."""
        sure = [part for part in self.parts if part.is_sure]
        return tuple(sorted(sure, key=lambda part: -part.share.estimate))

    @property
    def summary(self) -> str:
        """One sentence: what to do first."""
        if not self.findings:
            return (
                f"Of an error of {self.error.estimate:.3g}, no part is surely above 0; measure on "
                "more cases before acting"
            )
        first = self.findings[0]
        return (
            f"Of an error of {self.error.estimate:.3g}, {first.share.estimate:.3g} "
            f"({first.share.low:.3g} to {first.share.high:.3g}) is {first.source}: {first.advice}"
        )


def diagnose(
    *,
    train: Losses,
    train_validation: Losses,
    validation: Losses,
    test: Losses,
    best: Losses | float | None = None,
    level: float = 0.95,
) -> Diagnosis:
    """Take the error on a test set apart into where it comes from.

    Args:
        train: what the model was trained on.
        train_validation: held out, of the distribution of training.
        validation: held out, of the distribution that will come; the model was chosen by it.
        test: of the same distribution as `validation`, looked at once.
        best: of the best there is, such as people on the same cases, or its error if known.
        level: at which the intervals of all parts hold together (Bonferroni).

    Raises:
        InvalidRequest: a set of fewer than two cases, or losses that are no numbers.
    """
    each = 1 - (1 - level) / len(Source)
    sets = {"train": train, "train_validation": train_validation, "validation": validation}
    steps = [_best(best, each)]
    steps += [_mean(name, losses, each) for name, losses in {**sets, "test": test}.items()]
    shares = [steps[0], *(difference(*pair) for pair in zip(steps, steps[1:], strict=False))]
    parts = tuple(
        Part(source, share, ADVICE[source]) for source, share in zip(Source, shares, strict=True)
    )
    return Diagnosis(_mean("test", test, level), parts, knows_the_best=best is not None)


def _best(best: Losses | float | None, level: float) -> Interval:
    if isinstance(best, Losses):
        return _mean("best", best, level)
    known = 0.0 if best is None else float(best)
    return Interval(known, known, known, level)


def _mean(name: str, losses: Losses, level: float) -> Interval:
    """Return the mean loss: counted where cases stand alone and are right or wrong, else drawn."""
    try:
        values = at_least_two(losses.values)
    except InvalidRequest as error:
        raise InvalidRequest(f"The losses of {name!r}: {error.message}") from error
    _, sizes = totals(values, losses.clusters)
    if sizes.max() == 1 and np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), values.size, level=level)
    if np.ptp(values) == 0:
        mean = float(values[0])
        return Interval(mean, mean, mean, level)
    return bootstrap(values, losses.clusters).interval(level)
