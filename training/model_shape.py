"""The matrices of a model, from its configuration alone: built on no device, without weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""By which a configuration says how many experts a layer has."""
HEADS = ("lm_head", "score", "embed_out")
"""Modules after the last layer, which `all-linear` leaves out."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes that memory and time are estimated from."""

    parameters: int
    embedding_parameters: int
    """Of the embeddings and the head, which quantisation leaves alone."""
    idle_parameters: int
    """Of experts that a token does not use; 0 of a model that is no mixture."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    """Rows of the embeddings."""
    positions: int
    """The longest sequence it was made for; 0 if its configuration does not say."""
    linear: Mapping[str, tuple[int, int]]
    """Inputs and outputs of each linear module, by its path."""
    split: Mapping[str, str]
    """How transformers splits modules that several processes share, by paths with `*` for numbers.
    """
    attends_causally: bool
    """Whether every layer sees all that was before, through the interface that transformers has."""

    @property
    def head_parameters(self) -> int:
        """Of the head, where it has a matrix of its own."""
        return max(0, self.embedding_parameters - self.vocabulary * self.hidden)

    def targeted(self, targets: str | tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """Return the linear modules that an adapter with these targets is put on."""
        if targets == "all-linear":
            return {
                path: sizes
                for path, sizes in self.linear.items()
                if path.rpartition(".")[2] not in HEADS
            }
        return {
            path: sizes
            for path, sizes in self.linear.items()
            if any(path == name or path.endswith(f".{name}") for name in targets)
        }

    def lora_parameters(self, targets: str | tuple[str, ...], rank: int) -> int:
        """Return how many weights LoRA of a rank trains: rank x (inputs + outputs) a module."""
        return sum(rank * (ins + outs) for ins, outs in self.targeted(targets).values())


def measure(config: Any) -> ModelShape:
    """Return the sizes of a causal language model.

    Args:
        config: of transformers.

    Raises:
        InvalidRequest: transformers knows no causal language model of this kind.
    """
    torch = require("torch", extra="finetune")
    transformers = require("transformers", extra="finetune")
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InvalidRequest(f"not a causal language model that is known: {first}") from None
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    ends = {
        id(weight): weight.numel()
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
        if module is not None
        for weight in module.parameters()
    }
    heads = text.num_attention_heads
    return ModelShape(
        parameters=sum(weight.numel() for weight in model.parameters()),
        embedding_parameters=sum(ends.values()),
        idle_parameters=_idle(model, text),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=model.get_input_embeddings().weight.shape[0],
        positions=getattr(text, "max_position_embeddings", None) or 0,
        linear={
            path: (module.in_features, module.out_features)
            for path, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        },
        split=dict(model.tp_plan),
        attends_causally=model.is_backend_compatible() and _sees_all(text),
    )


def _idle(model: Any, text: Any) -> int:
    """Count what a token does not meet of the experts it is led to some of; those of all stay."""
    many = next((found for name in EXPERTS if (found := getattr(text, name, None))), None)
    used = getattr(text, "num_experts_per_tok", None)
    if not isinstance(many, int) or not isinstance(used, int):
        return 0
    experts: int = sum(
        weight.numel() for path, weight in model.named_parameters() if "experts" in path.split(".")
    )
    return experts - experts * used // many


def _sees_all(text: Any) -> bool:
    layers = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    window = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    capped = getattr(text, "attn_logit_softcapping", None)
    return not (layers or window or capped)


def block_of(path: str) -> str:
    """Return the path of the layer that a module is in; empty if it is in none.

    >>> block_of("model.layers.12.self_attn.q_proj")
    'model.layers.12'
    """
    found = re.match(r".*?\.\d+(?=\.)", path)
    return found[0] if found else ""
