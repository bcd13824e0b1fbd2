"""A whole model with weights of eight bits, by torchao, if it still says nearly the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.plugins import require
from training import adapted_model, merging, parity
from training.base_model import BaseModel
from training.parity import Bounds, Parity, Row
from training.specification.base import Base

SCHEMES: Mapping[str, str] = {
    "int8": "Int8WeightOnlyConfig",
    "w8a8": "Int8DynamicActivationInt8WeightConfig",
}
"""By torchao's names: weights alone; or activations as well, by the largest of each token."""


@dataclass(frozen=True, slots=True)
class Compression:
    """What is stored in eight bits, and what that may cost."""

    scheme: str
    """One of `SCHEMES`."""
    max_perplexity_ratio: float
    """Of the rows' perplexity after to that before."""


def compress(
    asked: Base,
    whole: BaseModel,
    how: Compression,
    rows: Sequence[Row],
    *,
    into: Path,
    device: str,
) -> Parity:
    """Write a compressed model as safetensors, read it back, and compare it with the whole one.

    Args:
        asked: how the whole one is loaded.
        whole: with all its weights, such as a merged one.
        how: what is stored in eight bits.
        rows: of tokens, that both are asked.
        into: a folder that does not exist.
        device: where both are asked.

    Raises:
        MissingDependency: torchao is not installed.
        Unlike: perplexity grew by more.
    """
    torchao = require("torchao.quantization", extra="export")
    transformers = require("transformers", extra="finetune")
    plain = asked.model_copy(update={"quantization": None})
    model = adapted_model.load_base(plain, whole.folder, device=device)
    before = parity.ask(parity.of_model(model), rows)
    del model
    adapted_model.let_go()
    config = transformers.TorchAoConfig(getattr(torchao, SCHEMES[how.scheme])())
    merging.save(_load(whole.folder, plain, device, quantization_config=config), whole, into)
    adapted_model.let_go()
    again = _load(into, plain, device)
    found = parity.compare(before, parity.ask(parity.of_model(again), rows))
    bounds = Bounds(perplexity_ratio=how.max_perplexity_ratio)
    return found.check(bounds, what=f"The model in {how.scheme}")


def _load(folder: Path, asked: Base, device: str, **options: Any) -> Any:
    transformers = require("transformers", extra="finetune")
    torch = require("torch", extra="finetune")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, asked.dtype),
        device_map=device,
        local_files_only=True,
        **options,
    )
