"""The rows of a run as the trainer takes them: tokens and labels, by the code that checked them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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

    def __add__(self, other: Tokenized) -> Tokenized:
        return Tokenized(self.ids + other.ids, self.labels + other.labels)

    def sample(self, count: int, *, seed: int) -> Tokenized:
        """Return `count` rows, in a random order; more than there are repeat them."""
        whole, rest = divmod(count, max(1, len(self.ids)))
        chance = random.Random(seed)
        order = list(range(len(self.ids))) * whole
        order += chance.sample(range(len(self.ids)), rest)
        return Tokenized([self.ids[at] for at in order], [self.labels[at] for at in order])

    def dataset(self) -> Any:
        """Return them as the trainer takes them."""
        datasets = require("datasets", extra="finetune")
        return datasets.Dataset.from_dict({"input_ids": self.ids, "labels": self.labels})


class Kept:
    """Keeps what is trained on while a plan reads it, so that no row is read twice."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.rows: dict[str, Tokenized] = {}
        """By the key of the source."""

    def take(self, batch: Batch) -> None:
        """Take what a plan has read; what it refuses is not asked for afterwards."""
        kept = self.rows.setdefault(batch.key, Tokenized([], []))
        for row in batch.rows:
            for encoded in row.encoded:
                found = _within(encoded, self._data)
                if found is not None and found.supervised:
                    kept.ids.append(found.ids)
                    kept.labels.append(found.labels)


def tokenize(rows: Rows, encoder: Encoder, data: Data) -> Tokenized:
    """Return the tokens of a source; how many rows may be left out is the preflight's to judge.

    Raises:
        InvalidRequest: a row is longer than it may be and `overflow` is `error`, or none is left.
    """
    ids, labels, number = [], [], 0
    shape: Shape | None = None
    for batch in rows.batches():
        shape = shape or shape_in(batch, "sft")
        for found in encoder.encode(list(_readable(batch, shape))):
            number += 1
            kept = None if isinstance(found, Wrong) else _fitting(found, data, number)
            if kept is not None and kept.supervised:
                ids.append(kept.ids)
                labels.append(kept.labels)
    if not ids:
        raise InvalidRequest(f"{rows.source!r} holds no row that can be learned from")
    return Tokenized(ids, labels)


def mixed(train: Tokenized, replays: Iterable[tuple[Tokenized, float]], *, seed: int) -> Tokenized:
    """Return rows with older ones mixed in, so many for each of the new ones."""
    whole = train
    for number, (older, ratio) in enumerate(replays):
        whole = whole + older.sample(round(ratio * len(train.ids)), seed=seed + number)
    return whole


def _readable(batch: list[Row], shape: Shape | None) -> Iterator[Sequence]:
    for row in batch:
        if isinstance(row, Unreadable):
            continue
        try:
            yield from sequences(row, shape or shape_of(row, "sft"))
        except Wrong:
            continue


def _fitting(found: Encoded, data: Data, number: int) -> Encoded | None:
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
