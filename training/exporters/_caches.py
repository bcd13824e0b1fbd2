"""Keys and values that a written model keeps of what it read, and how it is then asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest
from infra.plugins import require
from training.parity import Row

STEPS = 16
"""Tokens at the end of a row that are read one by one; those before them are read at once."""
WHOLE = "DynamicLayer"
"""What transformers keeps of layers that attend to all tokens before: their keys and values."""
WINDOW = "DynamicSlidingWindowLayer"
"""The same of the last tokens alone."""

Read: TypeAlias = Callable[[Row, Any], tuple[NDArray[np.float32], Any]]
"""Read tokens that follow what is kept, or the first of a row with None; return their logits,
`(tokens, vocabulary)`, and what is kept now."""


def check(model: Any, *kinds: str) -> None:
    """See that a cache of these kinds is all that a model keeps of what it read.

    Raises:
        InvalidRequest: there are layers of another kind.
    """
    transformers = require("transformers", extra="finetune")
    layers = transformers.DynamicCache(config=model.config).layers
    others = sorted({type(layer).__name__ for layer in layers} - {*kinds})
    if others:
        raise InvalidRequest(
            f"The model has layers whose cache is {', '.join(others)}, and only "
            f"{' and '.join(kinds)} can be written in this format; ask for it without a cache"
        )


class Reader:
    """Asks a written model for logits of whole rows, through what it keeps.

    A row that begins with the one before is read on from there, as when tokens are added to it.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._row: tuple[int, ...] = ()
        self._logits: list[NDArray[np.float32]] = []
        self._kept: Any = None

    def __call__(self, rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        return [self._ask(tuple(row)) for row in rows]

    def _ask(self, row: tuple[int, ...]) -> NDArray[np.float32]:
        if not self._row or row[: len(self._row)] != self._row or row == self._row:
            self._row, self._logits, self._kept = (), [], None
        at_once = max(len(row) - STEPS, 1)
        while len(self._row) < len(row):
            after = max(at_once, len(self._row) + 1)
            new = row[len(self._row) : after]
            found, self._kept = self._read(new, self._kept)
            self._logits.append(found)
            self._row += new
        return np.concatenate(self._logits)
