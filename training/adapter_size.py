"""What an adapter adds to its base: numbers that are trained, held, copied and kept for backward.

Plain LoRA is counted from the shapes of the base. Any other adapter is put on a base of which
numbers have sizes and no values, and counted there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require
from training import adapted_model
from training.base_model import BaseModel
from training.model_shape import ModelShape
from training.specification.method import Lora, Method

DEFAULT_RANK = 16
"""Taken for adapters that have none, for what they keep of each token."""


@dataclass(frozen=True, slots=True)
class AdapterSize:
    """Sizes that memory is estimated from."""

    rank: int
    trained: int
    """Numbers in float32."""
    trained_as_base: int = 0
    """Numbers of modules that are trained whole, in the precision of the base."""
    held_bytes: int = 0
    """Of what is not trained."""
    kept_outputs: int = 0
    """Values of each token, over all layers, that are kept beyond those of LoRA."""
    copied: int = 0
    """Numbers of the base that are copied on the way through it."""
    is_whole: bool = True
    """Whether that is all: `False` for adapters of which it is not known what they keep."""


def measure(method: Method, base: BaseModel, *, dtype: str) -> AdapterSize | None:
    """Return the size of an adapter; `None` where it cannot be told without a device.

    Raises:
        InvalidRequest: peft does not take it, or not on this base.
    """
    adapter, shape = method.adapter, base.shape
    if not isinstance(adapter, Lora):
        return _counted(method, base, dtype, AdapterSize(DEFAULT_RANK, 0, is_whole=False))
    if not shape.targeted(adapter.targets):
        return AdapterSize(adapter.r, 0)  # a problem of its own, told by module
    if adapter.dora or adapter.modules_to_save or adapter.trainable_tokens:
        return _counted(method, base, dtype, _of_lora(adapter, shape))
    return AdapterSize(adapter.r, shape.lora_parameters(adapter.targets, adapter.r))


def _of_lora(adapter: Lora, shape: ModelShape) -> AdapterSize:
    """DoRA keeps outputs of base and adapter; trained tokens are put into a copied embedding."""
    outputs = sum(outs for _, outs in shape.targeted(adapter.targets).values())
    return AdapterSize(
        adapter.r,
        0,
        kept_outputs=2 * outputs if adapter.dora else 0,
        copied=shape.vocabulary * shape.hidden if adapter.trainable_tokens else 0,
    )


def _counted(method: Method, base: BaseModel, dtype: str, known: AdapterSize) -> AdapterSize | None:
    torch = require("torch", extra="finetune")
    transformers = require("transformers", extra="finetune")
    peft = require("peft", extra="finetune")
    config = adapted_model.adapter_config(method)
    with torch.device("meta"):
        kind = transformers.AutoModelForCausalLM
        if method.type == "reward":
            kind = transformers.AutoModelForSequenceClassification
        model = kind.from_config(base.config, dtype=getattr(torch, dtype))
        before = _bytes([*model.parameters(), *model.buffers()])
        try:
            adapted = peft.get_peft_model(model, config)
        except (ValueError, KeyError, TypeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise InvalidRequest(f"peft does not put it on this base: {first}") from None
        except (NotImplementedError, RuntimeError):  # it looks at numbers, and there are none
            return None
    trained = [each for each in adapted.parameters() if each.requires_grad]
    wide = sum(each.numel() for each in trained if each.dtype == torch.float32)
    narrow = sum(each.numel() for each in trained) - wide
    frozen = [each for each in adapted.parameters() if not each.requires_grad]
    return AdapterSize(
        known.rank,
        wide,
        narrow,
        max(0, _bytes([*frozen, *adapted.buffers()]) - before),
        known.kept_outputs,
        known.copied,
        known.is_whole,
    )


def _bytes(weights: list[Any]) -> int:
    return sum(each.numel() * each.element_size() for each in weights)
