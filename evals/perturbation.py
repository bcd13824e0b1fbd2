"""What a perturbation is: another way to put a case's input, under which its label stays true."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeAlias, TypeGuard, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from evals import problems
from evals.trial import Case
from infra.errors import InvalidConfiguration, InvalidRequest
from infra.plugins import load

PACKAGE = "evals.perturbations"


@dataclass(frozen=True, slots=True)
class Changed:
    """The input of a perturbed copy; nothing else of a case can change, least of all its label."""

    input: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Columns that the copy has besides, such as the canary of an injection."""


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """There is nothing to change, such as letters in a number; the case has no copy."""

    reason: str


Perturbed: TypeAlias = Changed | NotApplicable


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the numbers of one column are like in all cases."""

    low: float
    high: float
    whole: int | None
    """How many different ones there are, if all are whole numbers."""


@dataclass(frozen=True)
class Surroundings:
    """All cases of the dataset: where foreign passages come from, and the ranges of columns."""

    cases: Sequence[Case]

    @cached_property
    def numbers(self) -> Mapping[str, Numbers]:
        """The columns of rows that hold finite numbers."""
        found: dict[str, set[float]] = {}
        for case in self.cases:
            if isinstance(case.input, Mapping):
                for name, value in case.input.items():
                    if is_number(value):
                        found.setdefault(name, set()).add(value)
        return {
            name: Numbers(
                min(values),
                max(values),
                len(values) if all(isinstance(each, int) for each in values) else None,
            )
            for name, values in found.items()
        }


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number; a truth value is none."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value)


class Perturbation(Protocol):
    """Puts the input of a case otherwise."""

    version: ClassVar[int]
    """Raised when the same case and seed would be changed in another way."""

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        """Return an input that differs from the case's, or why there is none.

        Args:
            case: not changed.
            draw: seeded by suite, case and copy; all chance comes from it.
            around: the other cases, and what they have in common.
        """
        ...


class Parameters(BaseModel):
    """A perturbation whose fields are its parameters. An unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: ClassVar[int] = 1


def open_perturbation(name: str, parameters: Mapping[str, Any], *, label: str = "") -> Perturbation:
    """Build the perturbation of plug-in `name`.

    Args:
        name: a file of `evals/perturbations`, or a dotted path from a suite of the operator's.
        parameters: as the suite gives them.
        label: what the suite calls it; said in errors.

    Raises:
        InvalidRequest: a parameter is unknown or has a wrong value.
        InvalidConfiguration: there is no such perturbation, or it has no `perturb`.
    """
    try:
        built = load(PACKAGE, name)(parameters)
    except ValidationError as error:
        # `build` is mostly the method of a model, which knows the names that there are.
        model = cast("type[BaseModel]", getattr(load(PACKAGE, name), "__self__", BaseModel))
        words = problems.of_model(error, model)
        raise InvalidRequest(f"Perturbation {label or name!r}: {words}") from None
    if not callable(getattr(built, "perturb", None)):
        raise InvalidConfiguration(f"The plug-in {name!r} in {PACKAGE} has no `perturb`")
    return cast("Perturbation", built)
