"""The features of a row that a perturbation may change, and rows with some of them changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.perturbation import Changed, NotApplicable, Perturbed
from evals.trial import Case

NO_ROW = NotApplicable("the input is no row of features")


def features(case: Case, columns: Sequence[str]) -> list[str]:
    """Return the names of the features that have a value, of those chosen or of all."""
    if not isinstance(case.input, Mapping):
        return []
    return [
        name
        for name, value in case.input.items()
        if value is not None and (not columns or name in columns)
    ]


def changed(case: Case, values: Mapping[str, Any], *, why: str) -> Perturbed:
    """Return the row with some features changed, or why there is nothing to change."""
    new = {**case.input, **values}
    return Changed(new) if new != case.input else NotApplicable(why)
