"""Casing: all letters small, large, large at the beginning of words, or the other way about."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Literal

from evals.perturbation import Parameters, Perturbed, Surroundings
from evals.perturbations._texts import rewrite
from evals.trial import Case

_WAYS: Mapping[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "swap": str.swapcase,
}


class Casing(Parameters):
    """Where letters have no case, as in Chinese, there is nothing to change."""

    to: Literal["lower", "upper", "title", "swap", "any"] = "lower"
    """`any` draws one of those that make a difference."""
    columns: tuple[str, ...] = ()
    """Of a row; without them, every text of more than one word."""

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        del around
        return rewrite(
            case,
            lambda text: self._recase(text, draw),
            columns=self.columns,
            why="the text is written so already, or its letters have no case",
        )

    def _recase(self, text: str, draw: random.Random) -> str | None:
        names = list(_WAYS) if self.to == "any" else [self.to]
        found = [new for new in (_WAYS[name](text) for name in names) if new != text]
        return draw.choice(found) if found else None


build = Casing.model_validate
