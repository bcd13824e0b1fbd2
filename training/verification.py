"""A trained adapter, read back from its files and held against what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.plugins import require
from training import adapted_model
from training.sentinel import Aborted

WEIGHTS = "adapter_model.safetensors"
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.05}
"""How far a logit may be off, by the precision of the base: sums are formed in another order."""
PROBE_TOKENS = 256
"""Of a row that is asked: logits take a number for each of them and each word of the vocabulary."""


class Unsound(Aborted):
    """An adapter on the disk is not the one that was trained; nothing of it may be registered."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a model says of some rows, with the weights that it was trained to."""

    rows: tuple[tuple[int, ...], ...]
    logits: tuple[Any, ...]
    dtype: str


def probe(model: Any, rows: Sequence[Sequence[int]], *, dtype: str) -> Probe:
    """Ask a trained model how rows begin, before it is let go of."""
    kept = tuple(tuple(row[:PROBE_TOKENS]) for row in rows)
    return Probe(kept, tuple(adapted_model.logits(model, kept)), dtype)


def verify(base_model: Any, folder: Path, asked: Probe) -> float:
    """Put an adapter from its files on a freshly loaded base, and ask again.

    Return the largest difference of a logit between what was trained and what was read back.

    Args:
        base_model: the base, without any adapter; it is changed.
        folder: of the adapter.
        asked: what the trained model said.

    Raises:
        Unsound: a weight is missing, unknown or no number, the answers differ, or the adapter
            changes none.
    """
    stored = _read(folder)
    _check_finite(stored)
    without = adapted_model.logits(base_model, asked.rows)
    model = adapted_model.read_adapter(base_model, folder)
    _check_names(stored, model)
    again = adapted_model.logits(model, asked.rows)
    difference = _largest(asked.logits, again)
    if not difference <= TOLERANCE[asked.dtype]:
        raise Unsound(
            f"The adapter in {str(folder)!r} answers otherwise than the one that was trained: "
            f"a logit differs by {difference:.3g}, and {TOLERANCE[asked.dtype]:g} is rounding"
        )
    if not _largest(without, again) > 0:
        raise Unsound(
            f"The adapter in {str(folder)!r} changes no answer; look at method.adapter.targets"
        )
    return difference


def require_whole(model: Any, folder: Path) -> None:
    """Hold the files of an adapter against the base that they were put on: peft only warns.

    Raises:
        Unsound: a weight is missing, unknown or no number.
    """
    stored = _read(folder)
    _check_finite(stored)
    _check_names(stored, model)


def _read(folder: Path) -> dict[str, Any]:
    safetensors = require("safetensors.torch", extra="finetune")
    errors = require("safetensors", extra="finetune")
    try:
        stored: dict[str, Any] = safetensors.load_file(folder / WEIGHTS)
    except (OSError, errors.SafetensorError) as error:
        raise Unsound(f"{str(folder / WEIGHTS)!r} cannot be read back: {error}") from error
    if not stored:
        raise Unsound(f"{str(folder / WEIGHTS)!r} holds no weight")
    return stored


def _check_finite(stored: dict[str, Any]) -> None:
    for name, tensor in stored.items():
        if not bool(tensor.isfinite().all()):
            raise Unsound(f"The weight {name!r} holds values that are no numbers")


def _check_names(found: dict[str, Any], model: Any) -> None:
    peft = require("peft", extra="finetune")
    stored, wanted = set(found), set(peft.get_peft_model_state_dict(model))
    if missing := sorted(wanted - stored):
        raise Unsound(f"{len(missing)} weights of the adapter are missing, such as {missing[0]!r}")
    if unknown := sorted(stored - wanted):
        raise Unsound(f"{len(unknown)} weights fit nowhere in the base, such as {unknown[0]!r}")


def _largest(some: Sequence[Any], others: Sequence[Any]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(some, others, strict=True))
