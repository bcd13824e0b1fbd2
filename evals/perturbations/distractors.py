"""Distractors: passages of other cases among those that a case brings along, or before its text."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from evals.perturbation import Changed, NotApplicable, Parameters, Perturbed, Surroundings
from evals.trial import Case

_FRAME = "{}\n\n{}"


class Distractors(Parameters):
    """For targets that are handed their passages; a collection finds its own."""

    column: str = "contexts"
    """Of the dataset: a passage, or a list of them. Where it is part of the input, others are put
    among its own; else they are put before the question."""
    count: int = Field(default=2, ge=1, le=20)

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        given = case.input
        own = _passages(case, self.column)
        others = self._foreign(case, own, around, draw=draw)
        if not others:
            return NotApplicable(f"no other case has a passage in {self.column!r}")
        if isinstance(given, Mapping) and self.column in given:
            mixed = _mixed(own, others, draw)
            is_text = isinstance(given[self.column], str)
            return Changed({**given, self.column: "\n\n".join(mixed) if is_text else mixed})
        if isinstance(given, str) and given.strip():
            return Changed(_FRAME.format("\n\n".join(others), given))
        return NotApplicable(f"the input is no text, and has no {self.column!r}")

    def _foreign(
        self, case: Case, own: list[str], around: Surroundings, *, draw: random.Random
    ) -> list[str]:
        """Draw passages of other clusters; a few cases are tried, not the whole dataset."""
        found: list[str] = []
        count = min(len(around.cases), 8 * self.count + 8)
        for other in draw.sample(around.cases, count):
            if other.cluster == case.cluster or set(other.relevant) & set(case.relevant):
                continue
            for passage in _passages(other, self.column)[:1]:
                if passage.strip() and passage not in own and passage not in found:
                    found.append(passage)
            if len(found) == self.count:
                break
        return found


def _passages(case: Case, column: str) -> list[str]:
    held: Any = case.metadata.get(column)
    if isinstance(case.input, Mapping) and column in case.input:
        held = case.input[column]
    many = held if isinstance(held, list) else [held]
    return [each for each in many if isinstance(each, str)]


def _mixed(own: list[str], others: list[str], draw: random.Random) -> list[str]:
    """Put passages between others, whose order stays."""
    mixed = list(own)
    for each in others:
        mixed.insert(draw.randint(0, len(mixed)), each)
    return mixed


build = Distractors.model_validate
