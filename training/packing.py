"""Rows of one pack, kept apart by a FlashAttention, or by a mask in known kinds of models."""

from __future__ import annotations

from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require
from training.accelerators import Machine
from training.specification.base import FLASH, Base

MASKED = (
    "gemma2", "gemma3_text", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3",
    "qwen3_moe",
)  # fmt: skip
"""Kinds of models whose rows a mask keeps apart, by the places that tokens count anew from; others
drop the mask (OPT) or keep states (Mamba)."""
PROBE = ([1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 2])
"""Two rows that stand before a third one in turn."""
SEEN = 0.01
"""Of the spread of a row's logits, that they may move by when the row before it is another."""


def is_masked(base: Base, machine: Machine | None) -> bool:
    """Return whether packs are kept apart by a mask: no FlashAttention will be there."""
    if base.attention in FLASH:
        return False
    if base.attention != "auto" or base.dtype == "float32":
        return True
    return machine is not None and (machine.is_cpu or machine.has_flash_attention is False)


def check(model: Any, *, rows_at_once: int, is_shared: bool = False) -> None:
    """Refuse to pack where rows of one pack would see each other.

    What a mask does is tried: the last row of a pack must not tell which row is before it.

    Args:
        model: with its adapter or without.
        rows_at_once: packs that a device reads at once.
        is_shared: whether several processes hold it together.

    Raises:
        InvalidRequest: it does, or a mask would take the memory of several packs at once.
    """
    where = "schedule.packing"
    attention = model.config._attn_implementation
    if attention in FLASH:
        return
    if is_shared:
        raise InvalidRequest(f"{where}: a base that is shared is packed with FlashAttention alone")
    if rows_at_once > 1:
        raise InvalidRequest(
            f"{where}: with {attention!r}, {rows_at_once} packs at once would be one; use "
            "schedule.rows_per_device 1, or install flash-attn"
        )
    one, other = (_last(model, before) for before in PROBE[:2])
    if not one.isfinite().all():
        raise InvalidRequest(
            f"{where}: whether rows are kept apart cannot be seen, for the model's logits are no "
            "numbers; with DoRA no row of a weight may be all 0"
        )
    if not (one - other).abs().max() <= SEEN * one.std():
        kind = model.config.model_type
        raise InvalidRequest(
            f"{where}: with {attention!r} rows of one pack see each other in this {kind}; "
            "install flash-attn, or do not pack"
        )


def _last(model: Any, before: list[int]) -> Any:
    torch = require("torch", extra="finetune")
    ids = torch.tensor([[*before, *PROBE[2]]], device=model.device)
    places = [*range(len(before)), *range(len(PROBE[2]))]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = model(
            input_ids=ids,
            position_ids=torch.tensor([places], device=model.device),
            use_cache=False,
        )
    model.train(was_training)
    return found.logits[0, len(before) :].float()
