"""Batch numbers: from what one step of the optimiser is to learn from, to what a device holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.specification.schedule import Schedule

MOST_ROWS = 16
"""At once on one device, if the specification leaves it open: more gain little speed."""


class Indivisible(ValueError):
    """No whole number of batches makes up a step."""


@dataclass(frozen=True, slots=True)
class Batches:
    """What the trainer is told."""

    rows_per_device: int
    accumulation: int
    """Batches between two steps of the optimiser."""
    data_ranks: int
    rows_per_step: int
    """Sequences of one step: rows or, with packing, packs of rows."""
    tokens_per_step: int
    """Of real text, on average."""
    steps: int
    """In all."""
    epochs: float


def derive(
    schedule: Schedule,
    *,
    data_ranks: int,
    sequences: int,
    mean_tokens: float,
    most_rows: int = MOST_ROWS,
) -> Batches:
    """Return the batches of a run.

    Rows of a step are `tokens_per_step / mean_tokens`, rounded to what the ranks can share, where
    the specification does not give them. Rows of a device are the largest divisor of a rank's
    share that is at most `most_rows`, where it does not give those.

    Args:
        schedule: what is asked for.
        data_ranks: processes that see different rows.
        sequences: to train on in an epoch; packs, with packing.
        mean_tokens: of a sequence.
        most_rows: that fit on a device.

    Raises:
        Indivisible: the rows of a step are no multiple of the ranks, or of the rows of a device.

    >>> from training.specification.schedule import Schedule
    >>> asked = Schedule(tokens_per_step=65536, epochs=2)
    >>> derive(asked, data_ranks=8, sequences=10_000, mean_tokens=512.0)
    ... # doctest: +NORMALIZE_WHITESPACE
    Batches(rows_per_device=16, accumulation=1, data_ranks=8, rows_per_step=128,
            tokens_per_step=65536, steps=157, epochs=2)
    """
    rows = schedule.rows_per_step
    if rows is None:
        unit = data_ranks * (schedule.rows_per_device or 1)
        rows = max(1, round((schedule.tokens_per_step or 1) / max(mean_tokens, 1.0) / unit)) * unit
    if rows % data_ranks:
        raise Indivisible(f"{rows} rows cannot be shared by {data_ranks} processes")
    share = rows // data_ranks
    micro = schedule.rows_per_device
    if micro is None:
        micro = max(each for each in range(1, min(share, most_rows) + 1) if share % each == 0)
    if share % micro:
        raise Indivisible(
            f"{rows} rows are {share} for each of {data_ranks} processes, and no multiple of "
            f"{micro} rows at once"
        )
    each_epoch = math.ceil(sequences / rows)
    steps = schedule.steps or math.ceil(each_epoch * (schedule.epochs or 1.0))
    return Batches(
        rows_per_device=micro,
        accumulation=share // micro,
        data_ranks=data_ranks,
        rows_per_step=rows,
        tokens_per_step=round(rows * mean_tokens),
        steps=steps,
        epochs=schedule.epochs or round(steps / max(1, each_epoch), 3),
    )
