"""Feature hashing of words and word pairs: vectors without a model; the shipped fake."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infra.contracts import Vectors

WORD = re.compile(r"\w+|[^\w\s]")


class HashingEmbedder:
    """Texts that share words get similar vectors (signed hashing, Weinberger et al. 2009)."""

    def __init__(self, dimension: int, max_tokens: int) -> None:
        self._dimension = dimension
        self._max_tokens = max_tokens

    @property
    def identity(self) -> str:
        return f"hashing-{self._dimension}"

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        """Return `(len(texts), dimension)` unit rows; a text without a word gets the first axis."""
        del kind
        rows = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            words = WORD.findall(text.lower())[: self._max_tokens]
            for feature in (*words, *(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))):
                position, sign = _place(feature, self._dimension)
                row[position] += sign
            norm = float(np.linalg.norm(row))
            if norm == 0:
                row[0] = 1
            else:
                row /= norm
        return rows

    def token_spans(self, text: str) -> NDArray[np.int32]:
        """Words and single punctuation marks."""
        spans = [match.span() for match in WORD.finditer(text)]
        return np.array(spans, dtype=np.int32).reshape(-1, 2)


@lru_cache(maxsize=65_536)
def _place(feature: str, dimension: int) -> tuple[int, int]:
    value = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest())
    return (value >> 1) % dimension, 1 if value & 1 else -1


def build(*, dimension: int = 256, max_tokens: int = 256) -> HashingEmbedder:
    return HashingEmbedder(dimension, max_tokens)
