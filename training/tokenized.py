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
from training.preflight._reading import shape_in
from training.row_source import Row, Rows, Unreadable
from training.specification.data import Data


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Rows that are learned from."""

    ids: list[list[int]]
    labels: list[list[int]]
    dropped: int = 0
    """Rows that were left out: unreadable, too long, or with nothing to learn."""

    @property
    def mean_tokens(self) -> float:
        return sum(map(len, self.ids)) / max(1, len(self.ids))

    def __add__(self, other: Tokenized) -> Tokenized:
        return Tokenized(
            self.ids + other.ids, self.labels + other.labels, self.dropped + other.dropped
        )

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


def tokenize(rows: Rows, encoder: Encoder, data: Data) -> Tokenized:
    """Return the tokens of a source; how many rows may be left out is the preflight's to judge.

    Raises:
        InvalidRequest: a row is longer than it may be and `overflow` is `error`, or none is left.
    """
    ids, labels, dropped, number = [], [], 0, 0
    shape: Shape | None = None
    for batch in rows.batches():
        shape = shape or shape_in(batch, "sft")
        for found in encoder.encode(list(_readable(batch, shape))):
            number += 1
            kept = None if isinstance(found, Wrong) else _fitting(found, data, number)
            if kept is not None and kept.supervised:
                ids.append(kept.ids)
                labels.append(kept.labels)
        dropped += len(batch)
    if not ids:
        raise InvalidRequest(f"{rows.source!r} holds no row that can be learned from")
    return Tokenized(ids, labels, dropped - len(ids))


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
    if len(found.ids) <= data.max_length:
        return found
    if data.overflow == "error":
        raise InvalidRequest(
            f"Readable row {number} has {len(found.ids)} tokens, and data.max_length is "
            f"{data.max_length}; raise it, or set data.overflow to 'drop' or 'truncate'"
        )
    return found.cut(data.max_length) if data.overflow == "truncate" else None
