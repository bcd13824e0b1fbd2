"""Rows of tokens as tensors: padded on the right, with a mask of what an answer is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.plugins import require
from training.encoding import IGNORED

Ids = Sequence[Sequence[int]]


def padded(rows: Ids, filler: int) -> Any:
    """Return `(rows, longest)` whole numbers."""
    torch = require("torch", extra="finetune")
    width = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def batch(ids: Ids, labels: Ids, *, pad: int) -> dict[str, Any]:
    """Return the tensors that trl's trainers of preferences take."""
    return {
        "input_ids": padded(ids, pad),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "completion_mask": padded([[int(label != IGNORED) for label in row] for row in labels], 0),
    }


def tile_losses(model: Any) -> None:
    """Have a model with its adapter compute log-probabilities in tiles, as trl's trainers do."""
    require("trl.trainer.utils", extra="finetune").add_fused_lm_head(model.get_base_model())


def log_probabilities(model: Any, ids: Ids, labels: Ids) -> Any:
    """Return, for each row, the summed log-probability of its tokens that carry a loss."""
    found = model(
        input_ids=padded(ids, 0).to(model.device),
        attention_mask=padded([[1] * len(row) for row in ids], 0).to(model.device),
        labels=padded(labels, IGNORED).to(model.device),
        fused_lm_head=True,
    )
    return found.log_probs.sum(-1)


def against_base(model: Any, ids: Ids, labels: Ids) -> Any:
    """Return how much likelier each row's answer is with the adapter than without, in nats."""
    torch = require("torch", extra="finetune")
    with torch.no_grad(), model.disable_adapter():
        reference = log_probabilities(model, ids, labels)
    return log_probabilities(model, ids, labels) - reference
