"""The rows of a run as the trainer takes them: tokens and labels, by the code that checked them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require
from training.encoding import Encoded, Encoder
from training.examples import Sequence, Shape, Wrong, sequences, shape_of
from training.preflight import Batch
from training.preflight._reading import shape_in
from training.row_source import Row, Rows, Unreadable
from training.specification.data import Data


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Rows that are learned from."""

    ids: list[list[int]]
    labels: list[list[int]]
    each: int = 1
    """Sequences of a row: two of a pair, the better one first."""
    marks: list[bool] = field(default_factory=list)
    """Of each row, whether its answer is good; empty where rows do not say."""

    @property
    def rows(self) -> int:
        return len(self.ids) // self.each

    def __add__(self, other: Tokenized) -> Tokenized:
        return Tokenized(
            self.ids + other.ids, self.labels + other.labels, self.each, self.marks + other.marks
        )

    def sample(self, count: int, *, seed: int) -> Tokenized:
        """Return `count` rows, in a random order; more than there are repeat them."""
        whole, rest = divmod(count, max(1, self.rows))
        order = list(range(self.rows)) * whole
        return self.at(order + random.Random(seed).sample(range(self.rows), rest))

    def shuffled(self, seed: int) -> Tokenized:
        """Return all rows, in a random order."""
        return self.at(random.Random(seed).sample(range(self.rows), self.rows))

    def at(self, places: Iterable[int]) -> Tokenized:
        """Return the rows at these places."""
        order = list(places)
        flat = [place * self.each + side for place in order for side in range(self.each)]
        return Tokenized(
            [self.ids[at] for at in flat],
            [self.labels[at] for at in flat],
            each=self.each,
            marks=[self.marks[place] for place in order] if self.marks else [],
        )

    def dataset(self) -> Any:
        """Return them as the trainer takes them."""
        datasets = require("datasets", extra="finetune")
        return datasets.Dataset.from_dict({"input_ids": self.ids, "labels": self.labels})


@dataclass(slots=True)
class _Rows:
    """Rows that are gathered, each with all of its sequences or not at all."""

    rows: list[list[Encoded]] = field(default_factory=list)
    marks: list[bool] = field(default_factory=list)

    def add(self, row: list[Encoded | None], mark: bool | None) -> None:
        """Add a row if something is learned from each of its sequences; its texts are let go of."""
        whole = [
            Encoded(each.ids, each.spans, texts=())
            for each in row
            if each is not None and each.supervised
        ]
        if len(whole) == len(row) and not _are_same(whole):
            self.rows.append(whole)
            self.marks += [] if mark is None else [mark]

    def tokenized(self) -> Tokenized:
        flat = [each for row in self.rows for each in row]
        return Tokenized(
            [each.ids for each in flat],
            [each.labels for each in flat],
            len(self.rows[0]) if self.rows else 1,
            self.marks,
        )


class Kept:
    """Keeps what is trained on while a plan reads it, so that no row is read twice."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._read: dict[str, _Rows] = {}

    @property
    def rows(self) -> dict[str, Tokenized]:
        """By the key of the source."""
        return {key: found.tokenized() for key, found in self._read.items() if found.rows}

    def take(self, batch: Batch) -> None:
        """Take what a plan has read; what it refuses is not asked for afterwards."""
        found = self._read.setdefault(batch.key, _Rows())
        for row in batch.rows:
            if not row.encoded:  # there was no tokenizer
                continue
            fitting = [_within(each, self._data) for each in row.encoded]
            found.add(fitting, row.sequences[0].mark)


def tokenize(
    rows: Rows,
    encoder: Encoder,
    data: Data,
    *,
    method: str = "sft",
    batches: int | None = None,
) -> Tokenized:
    """Return the tokens of a source; how many rows may be left out is the preflight's to judge.

    With `batches`, only so many are read.

    Raises:
        InvalidRequest: a row is longer than it may be and `overflow` is `error`, or none is left.
    """
    kept, number = _Rows(), 0
    shape: Shape | None = None
    for batch in islice(rows.batches(), batches):
        shape = shape or shape_in(batch, method)
        found = list(_readable(batch, shape, method))
        encoded = iter(encoder.encode([each for row in found for each in row]))
        for row in found:
            number += 1
            fitting = [_fitting(next(encoded), data, number) for _ in row]
            kept.add(fitting, row[0].mark)
    if not kept.rows:
        raise InvalidRequest(f"{rows.source!r} holds no row that can be learned from")
    return kept.tokenized()


def mixed(train: Tokenized, replays: Iterable[tuple[Tokenized, float]], *, seed: int) -> Tokenized:
    """Return rows with older ones mixed in, so many for each of the new ones."""
    whole = train
    for number, (older, ratio) in enumerate(replays):
        whole = whole + older.sample(round(ratio * train.rows), seed=seed + number)
    return whole


def _readable(batch: list[Row], shape: Shape | None, method: str) -> Iterator[list[Sequence]]:
    for row in batch:
        if isinstance(row, Unreadable):
            continue
        try:
            yield sequences(row, shape or shape_of(row, method))
        except Wrong:
            continue


def _fitting(found: Encoded | Wrong, data: Data, number: int) -> Encoded | None:
    if isinstance(found, Wrong):
        return None
    if len(found.ids) > data.max_length and data.overflow == "error":
        raise InvalidRequest(
            f"Readable row {number} has {len(found.ids)} tokens, and data.max_length is "
            f"{data.max_length}; raise it, or set data.overflow to 'drop' or 'truncate'"
        )
    return _within(found, data)


def _within(found: Encoded, data: Data) -> Encoded | None:
    if len(found.ids) <= data.max_length:
        return found
    return found.cut(data.max_length) if data.overflow == "truncate" else None


def _are_same(row: list[Encoded]) -> bool:
    """Whether two answers are one once they are cut, so that neither can be the better."""
    return len(row) > 1 and row[0].ids == row[1].ids
