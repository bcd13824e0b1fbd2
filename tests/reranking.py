"""Rerankers for tests: by the share of a question's words that a text holds, and broken ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration


class SharedWords:
    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        words = set(question.lower().split())
        shares = [len(words & set(text.lower().split())) / len(words) for text in texts]
        return np.array(shares, dtype=np.float32)


def by_shared_words() -> SharedWords:
    return SharedWords()


class Broken:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def score(self, *_: object) -> NDArray[np.float32]:
        raise self._error


def with_several_outputs() -> Broken:
    return Broken(InvalidConfiguration("it has 3 outputs"))


def with_half_a_file() -> Broken:
    """Return what raises an error of somebody else's library."""
    return Broken(RuntimeError("incomplete metadata\nin line 1"))
