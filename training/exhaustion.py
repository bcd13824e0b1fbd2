"""A device without memory left, told as what to change in the specification."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infra.errors import InvalidRequest
from infra.plugins import require

ON_PROCESSORS = ("not enough memory", "can't allocate memory")
"""What PyTorch says of them, in an error that has no type of its own."""


class OutOfMemory(InvalidRequest):
    """A step does not fit on the device."""


@contextmanager
def told() -> Iterator[None]:
    """Tell that the device is full as what to do about it.

    Raises:
        OutOfMemory: the device is full.
    """
    torch = require("torch", extra="finetune")
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().partition("\n")[0]
        is_it = isinstance(error, torch.OutOfMemoryError)
        if not is_it and not any(words in first for words in ON_PROCESSORS):
            raise
        raise OutOfMemory(
            "The device has not enough memory; lower schedule.rows_per_device or data.max_length, "
            f"or set schedule.gradient_checkpointing: {first}"
        ) from error
