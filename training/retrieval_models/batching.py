"""Batches in which no passage is held against a question that it answers."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import count

from training.retrieval_models.mining import Example


def batches(examples: Sequence[Example], size: int, *, seed: int) -> Iterator[list[int]]:
    """Yield batches by the numbers of their examples, one epoch after the other, without end."""
    for epoch in count():
        yield from of_epoch(examples, size, seed=seed, epoch=epoch)


def steps(examples: Sequence[Example], size: int, *, epochs: float, seed: int) -> int:
    """Return how many batches so many epochs have; of a part of one, the first ones."""
    if not examples:
        return 1
    found = 0.0
    for epoch in range(math.ceil(epochs)):
        share = min(1.0, epochs - epoch)
        found += share * sum(1 for _ in of_epoch(examples, size, seed=seed, epoch=epoch))
    return max(1, math.ceil(found))


def of_epoch(
    examples: Sequence[Example], size: int, *, seed: int, epoch: int
) -> Iterator[list[int]]:
    """Yield batches that have every example once, in an order drawn anew for each epoch.

    The loss holds every passage of a batch but its own against a question. So the questions of a
    batch are different, and the positive of one is no passage of another. That two have the same
    negative does no harm. What cannot be in a batch comes in a later one, which may be smaller.

    Args:
        examples: to be learned from.
        size: of a batch, at most.
        seed: of the order.
        epoch: counted from 0.
    """
    left = list(range(len(examples)))
    random.Random(f"{seed}/{epoch}").shuffle(left)
    while left:
        batch: list[int] = []
        own: set[str] = set()  # questions and positives
        everything: set[str] = set()
        later: list[int] = []
        for place, number in enumerate(left):
            if len(batch) == size:
                later += left[place:]
                break
            each = examples[number]
            mine = {each.question, each.positive}
            if everything.isdisjoint(mine) and own.isdisjoint(each.negatives):
                batch.append(number)
                own |= mine
                everything |= mine
                everything.update(each.negatives)
            else:
                later.append(number)
        yield batch
        left = later
