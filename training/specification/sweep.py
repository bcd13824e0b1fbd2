"""The section `sweep`: keys that are tried with several values, and how values are chosen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from training.specification.part import Part

MOST_WHOLE = 2**53
"""Beyond it, not every whole number can be told from its neighbours."""


class Range(Part):
    """Numbers between two."""

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False
    """Whether orders of magnitude are equally likely."""
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    whole: bool = False
    """Whether only whole numbers are meant."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low {self.low!r} must be below high {self.high!r}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low!r} has no logarithm; begin above 0 or drop 'log'")
        if self.log and self.step is not None:
            raise ValueError("a range with 'log' takes no step; drop one of them, or list values")
        if self.whole:
            self._check_whole()
        return self

    def _check_whole(self) -> None:
        given = {"low": self.low, "high": self.high, "step": self.step}
        for name, number in given.items():
            if number is not None and not (number.is_integer() and abs(number) <= MOST_WHOLE):
                raise ValueError(f"{name} {number!r} is no whole number up to {MOST_WHOLE:,}")


def _kind(value: Any) -> str:
    return "values" if isinstance(value, list | tuple) else "range"


Choice = Annotated[
    Annotated[tuple[Any, ...], Field(min_length=1), Tag("values")] | Annotated[Range, Tag("range")],
    Discriminator(_kind),
]
"""Values to choose from, or a range of numbers."""


class Sweep(Part):
    """Trials of one specification."""

    sampler: Literal["grid", "random", "tpe"] = "tpe"
    """Every combination, any, or those that promise most by what came out so far."""
    pruner: Literal["none", "hyperband", "median"] = "hyperband"
    """`hyperband`: trials that do worse than others so far are ended, in brackets of more and less
    patience, https://arxiv.org/abs/1603.06560."""
    trials: int = Field(default=20, ge=1, le=10_000)
    """In all; a grid has no more than its points."""
    parallel: int = Field(default=1, ge=1)
    """Trials at once."""
    metric: str = "eval_loss"
    """What the run measures of itself last: `eval_loss`, `eval_rewards/margins`, ..., or without
    `data.eval` `loss` and the like, of the last step."""
    direction: Literal["minimize", "maximize"] = "minimize"
    parameters: dict[str, Choice] = Field(min_length=1)
    """By the dotted key of the specification, such as `schedule.learning_rate`."""
