"""Rows of `eval` that are trained on: the same, nearly so by MinHash, or the same question."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from infra.plugins import require
from training.preflight import Batch, Check, Derived, Facts, Read
from training.problems import Problem
from training.row_text import asked, digest, said, shingles

PERMUTATIONS = 128
MIN_WORDS = 5
"""Of a question that tells a row; `And then?` may stand in both."""
SHOWN = 20


class _Leakage:
    """Knows the rows of `eval`, which are read first, and looks for each row of training there."""

    def __init__(self, facts: Facts) -> None:
        self._similarity = facts.spec.data.limits.near_duplicate
        self._whole: dict[bytes, int] = {}
        self._questions: dict[bytes, int] = {}
        self._pieces: dict[int, frozenset[tuple[str, ...]]] = {}
        self._known: set[tuple[str, ...]] = set()
        self._index: Any = None
        self._found: list[tuple[str, int, int, str]] = []
        self._count = 0

    def take(self, batch: Batch) -> None:
        if not batch.is_trained:
            for row in batch.rows:
                self._learn(row)
        elif self._whole:
            for row in batch.rows:
                self._look(batch.key, row)

    def problems(self, _: Derived) -> Iterable[Problem]:
        for key, number, twin, how in self._found:
            yield Problem("leakage", f"{key} row {number}", f"{how} as data.eval row {twin}")
        if self._count > SHOWN:
            more = self._count - SHOWN
            yield Problem("leakage", "data.eval", f"{more:,} more rows of training are in it")

    def _learn(self, row: Read) -> None:
        datasketch = require("datasketch", extra="finetune")
        text = said(list(row.sequences))
        self._whole.setdefault(digest(text), row.number)
        question = asked(row.sequences[0])
        if len(question.split()) >= MIN_WORDS:
            self._questions.setdefault(digest(question), row.number)
        pieces = shingles(text)
        if self._index is None:
            # More bands than the threshold asks for: pairs that are not near are sorted out below.
            self._index = datasketch.MinHashLSH(
                threshold=max(0.1, self._similarity - 0.1), num_perm=PERMUTATIONS
            )
        self._index.insert(row.number, _sketch(datasketch, pieces))
        self._pieces[row.number] = pieces
        self._known |= pieces

    def _look(self, key: str, row: Read) -> None:
        text = said(list(row.sequences))
        twin = self._whole.get(digest(text))
        how = "says the same"
        if twin is None:
            twin, how = self._questions.get(digest(asked(row.sequences[0]))), "asks the same"
        if twin is None:
            twin, how = self._near(shingles(text)), "says nearly the same"
        if twin is not None:
            self._count += 1
            if len(self._found) < SHOWN:
                self._found.append((key, row.number, twin, how))

    def _near(self, pieces: frozenset[tuple[str, ...]]) -> int | None:
        # A row cannot be that near to one of `eval` if fewer of its pieces are in all of them.
        if sum(map(self._known.__contains__, pieces)) < self._similarity * len(pieces):
            return None
        datasketch = require("datasketch", extra="finetune")
        for twin in sorted(self._index.query(_sketch(datasketch, pieces))):
            others = self._pieces[twin]
            shared = len(pieces & others)
            if shared >= self._similarity * (len(pieces) + len(others) - shared):
                return int(twin)
        return None


def _sketch(datasketch: Any, pieces: frozenset[tuple[str, ...]]) -> Any:
    sketch = datasketch.MinHash(num_perm=PERMUTATIONS, hashfunc=zlib.crc32)
    sketch.update_batch([" ".join(piece).encode() for piece in pieces])
    return sketch


def build(facts: Facts) -> Check:
    return _Leakage(facts)
