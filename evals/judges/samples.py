"""Self-consistency: what a judge says several times over, the middle of it, and how far apart."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Generic, TypeVar

from evals.judges.asking import JudgeRefused, Unusable
from evals.scores import Score
from infra.errors import RagstoneError

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Samples(Generic[Value]):
    """What came of asking n times, in the order of the seeds."""

    values: tuple[Value, ...]
    """Of the answers that could be used."""
    refusals: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    """Why the others could not."""

    @property
    def count(self) -> int:
        return len(self.values) + len(self.refusals) + len(self.unusable)

    def lacking(self) -> Score | None:
        """Return why there is no score, where not more than half of the answers can be used."""
        if len(self.values) * 2 > self.count:
            return None
        why = (*self.unusable, *self.refusals)[0]
        if self.count > 1:
            why = f"{len(self.values)} of {self.count} answers of the judge can be used; {why}"
        return Score.error(why) if self.unusable else Score.refused(why)


async def take(count: int, seed: int, sample: Callable[[int], Awaitable[Value]]) -> Samples[Value]:
    """Sample at once with the seeds `seed`, `seed + 1` and so on.

    Raises:
        RagstoneError: the judge cannot be asked. What it answered badly is kept and would come
            again; a server that is down would not, so that it makes no part of a score.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_one(sample, seed + each)) for each in range(count)]
    except BaseExceptionGroup as found:
        raise found.exceptions[0] from None
    outcomes = [task.result() for task in tasks]
    return Samples(
        tuple(each for each in outcomes if not isinstance(each, RagstoneError)),
        tuple(each.message for each in outcomes if isinstance(each, JudgeRefused)),
        tuple(each.message for each in outcomes if isinstance(each, Unusable)),
    )


def middle(values: Sequence[int]) -> int:
    """Return the median; of an even number the lower of the two, which is on the scale.

    >>> middle([5, 1, 4, 4])
    4
    """
    return median_low(values)


def majority(values: Sequence[str], *, otherwise: str) -> str:
    """Return what most say, or `otherwise` where no answer is ahead.

    >>> majority(["answer", "other"], otherwise="tie")
    'tie'
    """
    (first, most), *rest = Counter(values).most_common()
    return otherwise if any(count == most for _, count in rest) else first


async def _one(
    sample: Callable[[int], Awaitable[Value]], seed: int
) -> Value | JudgeRefused | Unusable:
    try:
        return await sample(seed)
    except (JudgeRefused, Unusable) as error:
        return error
