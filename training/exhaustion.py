"""A device without memory left, or a disk without room, told as what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import InvalidRequest, StorageFailed
from infra.plugins import require

ON_PROCESSORS = ("not enough memory", "can't allocate memory")
"""What PyTorch says of them, in an error that has no type of its own."""


class OutOfMemory(InvalidRequest):
    """A step does not fit on the device."""


TRAINING = (
    "lower schedule.rows_per_device or data.max_length, or set schedule.gradient_checkpointing"
)
GOES_ON = "run it again: it goes on from the last checkpoint that is whole"


@contextmanager
def told(advice: str = TRAINING) -> Iterator[None]:
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
        raise OutOfMemory(f"The device has not enough memory; {advice}: {first}") from error


@contextmanager
def storing(folder: Path, advice: str = GOES_ON) -> Iterator[None]:
    """Tell what goes wrong while a library writes files as what it is.

    Each library has an error of its own for a disk that is full, and torch a `RuntimeError`.

    Raises:
        StorageFailed: files could not be written.
    """
    errors = require("safetensors", extra="finetune")
    try:
        yield
    except (OSError, RuntimeError, errors.SafetensorError) as error:
        raise StorageFailed(
            f"{str(folder)!r} could not be written ({error}); make room and {advice}"
        ) from error
