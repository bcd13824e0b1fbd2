"""The rows of one side of a split as estimators take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import text_of

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Encoded columns and what is to be predicted."""

    features: pl.DataFrame
    truth: NDArray[Any]
    """Codes of classes, their places in `classes`, or amounts."""
    classes: tuple[Any, ...] | None
    weights: NDArray[np.float64] | None = None
    groups: NDArray[Any] | None = None
    """Equal for rows that share a value of `data.group`."""
    times: NDArray[Any] | None = None
    """Equal for rows of one time; rows to learn from are in the order of time."""

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def labels(self) -> NDArray[Any]:
        """What estimators are given: amounts, whole numbers or text as the graph returns it."""
        if self.classes is None:
            return self.truth
        found: NDArray[Any] = names_of(self.classes)[self.truth]
        return found

    def take(self, places: NDArray[np.intp]) -> Table:
        """Return some rows."""
        return Table(
            self.features[places],
            self.truth[places],
            self.classes,
            None if self.weights is None else self.weights[places],
            None if self.groups is None else self.groups[places],
            None if self.times is None else self.times[places],
        )


def names_of(classes: tuple[Any, ...]) -> NDArray[Any]:
    """Return classes as estimators take them: whole numbers as they are, all else as text."""
    if all(isinstance(each, int) and not isinstance(each, bool) for each in classes):
        return np.array(classes, dtype=np.int64)
    return np.array([text_of(each) for each in classes], dtype=object)
