"""A reranker for tests: the share of a question's words that a text holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class SharedWords:
    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        words = set(question.lower().split())
        shares = [len(words & set(text.lower().split())) / len(words) for text in texts]
        return np.array(shares, dtype=np.float32)


def by_shared_words() -> SharedWords:
    return SharedWords()
