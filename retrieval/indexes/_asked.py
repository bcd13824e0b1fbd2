"""Questions that were asked last, as vectors and in memory alone, to measure recall by."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

KEPT = 300
"""As many as recall is measured with."""
ENOUGH = 100
"""From here on they tell more than questions made of stored vectors do."""


class Asked:
    """The last `KEPT` different questions; safe to share between threads."""

    def __init__(self) -> None:
        self._noting = threading.Lock()
        self._vectors: dict[bytes, NDArray[np.float32]] = {}
        """By their bytes: one that is asked all the time, as by a probe, counts once."""

    def __len__(self) -> int:
        return len(self._vectors)

    def note(self, vector: NDArray[np.float32]) -> None:
        """Take the vector of a question that is being answered."""
        key = vector.tobytes()
        with self._noting:
            if key in self._vectors:
                return
            if len(self._vectors) == KEPT:
                del self._vectors[next(iter(self._vectors))]
            self._vectors[key] = np.frombuffer(key, dtype=np.float32)

    def tells_more_than(self, measured_with: int) -> bool:
        """Whether to measure again what was measured with so many of them."""
        count = len(self)
        return measured_with < ENOUGH <= count or measured_with < KEPT <= count

    def questions(self) -> NDArray[np.float32] | None:
        """Return them, `(count, dimension)`, or None while they are too few."""
        with self._noting:
            if len(self._vectors) < ENOUGH:
                return None
            return np.stack(list(self._vectors.values()))
