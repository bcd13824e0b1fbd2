"""The rule of duplicates: texts that stand twice, or nearly."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import lru_cache

import polars as pl

from infra.expectations.evaluation import Judged, Table
from infra.expectations.text_rules import Duplicates
from infra.expectations.texts import column_of_text
from infra.plugins import require

_PERMUTATIONS = 128
_SURE = 0.995
"""How likely a pair just as similar as asked for must be found, at least."""
_SHINGLE_WORDS = 3
_SHINGLE_CHARACTERS = 5


def evaluate_duplicates(rule: Duplicates, table: Table) -> Judged:
    """Find texts that stand twice, or nearly."""
    texts = [
        _normal(text) if text is not None else None for text in column_of_text(table, rule.column)
    ]
    first: dict[str, int] = {}
    twins: list[int | None] = []
    for place, text in enumerate(texts):
        twin = None if text is None else first.setdefault(text, place)
        twins.append(None if twin == place else twin)
    exact = sum(twin is not None for twin in twins)
    if rule.similarity is not None:
        twins = _with_near_twins(texts, twins, rule.similarity)
    near = sum(twin is not None for twin in twins) - exact
    good = pl.Series("good", [twin is None for twin in twins], dtype=pl.Boolean)
    return Judged(
        good,
        sum(text is not None for text in texts),
        {"exact": exact, "near": near},
        lambda position: f"as row {table.row(twins[position] or 0)}",
    )


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _with_near_twins(
    texts: list[str | None], twins: list[int | None], similarity: float
) -> list[int | None]:
    """Add, for texts that have no twin yet, an earlier text that is nearly the same."""
    datasketch = require("datasketch", extra="data")
    index = datasketch.MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(similarity))
    found = list(twins)
    pieces = lru_cache(maxsize=4_096)(lambda place: _shingles(texts[place] or ""))
    empty = datasketch.MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
    for place, text in enumerate(texts):
        if not text or found[place] is not None:
            continue
        sketch = empty.copy()
        sketch.update_batch(piece.encode() for piece in pieces(place))
        near = (
            twin
            for twin in sorted(index.query(sketch))
            if _overlap(pieces(place), pieces(twin)) >= similarity
        )
        found[place] = next(near, None)
        # Only a text without a twin is compared with later ones: of a thousand copies, one is.
        if found[place] is None:
            index.insert(place, sketch, check_duplication=False)
    return found


def _shingles(text: str) -> frozenset[str]:
    """Return a text's pieces: three words in a row or, where few words are parted, characters."""
    words = text.split()
    if len(words) > _SHINGLE_WORDS and len(text) < 20 * len(words):
        return frozenset(
            " ".join(words[start : start + _SHINGLE_WORDS])
            for start in range(len(words) - _SHINGLE_WORDS + 1)
        )
    width = _SHINGLE_CHARACTERS
    return frozenset(text[start : start + width] for start in range(max(1, len(text) - width + 1)))


def _overlap(some: frozenset[str], others: frozenset[str]) -> float:
    """Return the Jaccard similarity of two sets."""
    shared = len(some & others)
    return shared / (len(some) + len(others) - shared)


def _bands(similarity: float) -> tuple[int, int]:
    """Return bands and rows of the index: the fewest candidates that miss hardly a pair."""
    sizes = _band_sizes()
    return next(
        (bands, rows) for bands, rows in sizes if 1 - (1 - similarity**rows) ** bands >= _SURE
    )


def _band_sizes() -> Iterator[tuple[int, int]]:
    for rows in range(_PERMUTATIONS // 2, 0, -1):
        yield _PERMUTATIONS // rows, rows
