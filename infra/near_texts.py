"""Texts that are nearly the same: found by MinHash, then held against each other piece by piece."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from infra.plugins import require
from infra.words import UNSPACED

_PERMUTATIONS = 128
_SURE = 0.995
"""How likely a pair just as similar as asked for must be found, at least."""
_SHINGLE_WORDS = 3
_SHINGLE_CHARACTERS = 5
_KEPT = 4_096
_UNSPACED = re.compile(f"[{UNSPACED}]")


class NearTexts:
    """An index over some of a sequence of texts.

    Similarity is Jaccard's: the share of pieces of three words, or of five characters where few
    words are parted, as in Chinese, that two texts have in common. Sketches are kept, and the
    pieces of what is added; what only `twin` puts there keeps none.
    """

    def __init__(self, texts: Sequence[str | None], similarity: float) -> None:
        """Take the texts, of which none is in the index yet.

        Args:
            texts: as they are to be compared; normalise them before.
            similarity: above 0, at most 1.

        Raises:
            MissingDependency: the extra `data` is not installed.
        """
        datasketch = require("datasketch", extra="data")
        self._similarity = similarity
        self._index = datasketch.MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(similarity))
        self._empty = datasketch.MinHash(num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
        self._pieces = lru_cache(maxsize=_KEPT)(lambda place: _cut(texts[place] or "").pieces())
        self._added: set[str] = set()

    def add(self, place: int) -> None:
        """Put the text at a place into the index."""
        pieces = self._pieces(place)
        self._added |= pieces
        self._index.insert(place, self._sketch(pieces), check_duplication=False)

    def near(self, text: str) -> Iterator[tuple[int, float]]:
        """Yield the places that were added whose texts are as similar as asked for, in order."""
        cut = _cut(text)
        # Of a text that is near another, this share is in that one. Where too much of its
        # beginning is nowhere, the rest is not cut; a sketch costs far more than either.
        spared = cut.count - self._similarity * cut.count + 1  # one more, for rounding
        if len(cut.pieces(int(1.5 * spared) + 1) - self._added) > spared:
            return
        pieces = cut.pieces()
        if len(pieces & self._added) >= self._similarity * len(pieces):
            yield from self._near(pieces, self._sketch(pieces))

    def twin(self, place: int) -> int | None:
        """Return the first in the index that is near the text at a place; else put it there.

        So only a text without a twin is compared with later ones: of a thousand copies, one is.
        """
        pieces = self._pieces(place)
        sketch = self._sketch(pieces)
        found = next(self._near(pieces, sketch), None)
        if found is not None:
            return found[0]
        self._index.insert(place, sketch, check_duplication=False)
        return None

    def _near(self, pieces: frozenset[str], sketch: object) -> Iterator[tuple[int, float]]:
        for place in sorted(self._index.query(sketch)):
            similarity = _overlap(pieces, self._pieces(place))
            if similarity >= self._similarity:
                yield place, similarity

    def _sketch(self, pieces: frozenset[str]) -> object:
        sketch = self._empty.copy()
        sketch.update_batch(piece.encode("utf-8", "surrogatepass") for piece in pieces)
        return sketch


@dataclass(frozen=True, slots=True)
class _Cut:
    """A text on its way to pieces: words or characters, so many in a row."""

    parts: Sequence[str]
    width: int

    @property
    def count(self) -> int:
        """How many pieces there are, equal ones counted each."""
        return max(1, len(self.parts) - self.width + 1)

    def pieces(self, first: int | None = None) -> frozenset[str]:
        """Return the pieces, or those that begin first."""
        parts, joint = self.parts, "" if isinstance(self.parts, str) else " "
        if len(parts) <= self.width:
            return frozenset((joint.join(parts),))
        starts = self.count if first is None else min(first, self.count)
        return frozenset(
            map(joint.join, zip(*(parts[n : starts + n] for n in range(self.width)), strict=True))
        )


def _cut(text: str) -> _Cut:
    """Return how a text is cut: three words in a row or, where few words are parted, characters."""
    words = text.split()
    parts_words = len(text) < 20 * len(words) and (
        text.isascii() or 2 * len(_UNSPACED.findall(text)) < len(text)
    )
    if len(words) > _SHINGLE_WORDS and parts_words:
        return _Cut(words, _SHINGLE_WORDS)
    return _Cut(text, _SHINGLE_CHARACTERS)


def _overlap(some: frozenset[str], others: frozenset[str]) -> float:
    """Return the Jaccard similarity of two sets."""
    shared = len(some & others)
    return shared / (len(some) + len(others) - shared)


def _bands(similarity: float) -> tuple[int, int]:
    """Return bands and rows of the index: the fewest candidates that miss hardly a pair."""
    sizes = _band_sizes()
    sure = ((bands, rows) for bands, rows in sizes if 1 - (1 - similarity**rows) ** bands >= _SURE)
    return next(sure, (_PERMUTATIONS, 1))  # next to nothing in common cannot be sure to be found


def _band_sizes() -> Iterator[tuple[int, int]]:
    for rows in range(_PERMUTATIONS // 2, 0, -1):
        yield _PERMUTATIONS // rows, rows
