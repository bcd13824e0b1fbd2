"""The section `method`: the loss, and the adapter whose weights it moves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from training.specification.part import Part

Targets = Literal["all-linear"] | tuple[str, ...]
"""Modules that get an adapter: all linear layers but the head, or names such as `q_proj`."""


class Lora(Part):
    """Low-rank adaptation, https://arxiv.org/abs/2106.09685: W + (alpha / r) B A."""

    type: Literal["lora"] = "lora"
    r: int = Field(default=16, ge=1, le=4096)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Targets = "all-linear"
    dora: bool = False
    """Weight-decomposed, https://arxiv.org/abs/2402.09353; servers cannot host it beside a base."""
    rslora: bool = False
    """Scaled by alpha / sqrt(r), https://arxiv.org/abs/2312.03732."""
    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained whole; servers cannot host them beside a base."""
    trainable_tokens: tuple[int, ...] = ()
    """Ids of tokens whose embeddings are trained, such as of tokens that were added."""


class Osf(Part):
    """Orthogonal subspace fine-tuning, https://arxiv.org/abs/2504.07097, which forgets less."""

    type: Literal["osf"]
    effective_rank: int | None = Field(default=None, ge=1)
    """Of the directions that are kept; half of them by default."""
    targets: Targets = "all-linear"


class Peft(Part):
    """Any other adapter of the package peft."""

    type: Literal["peft"]
    config: dict[str, Any]
    """What the adapter's configuration takes, with its `peft_type`, such as `VERA`."""

    @model_validator(mode="after")
    def _has_type(self) -> Peft:
        if not isinstance(self.config.get("peft_type"), str):
            raise ValueError("config has no 'peft_type'; name one of peft's, such as 'VERA'")
        return self


Adapter = Annotated[Lora | Osf | Peft, Field(discriminator="type")]


class Method(Part):
    """How it is learned."""

    type: Literal["sft", "dpo", "kto", "reward"] = "sft"
    """Supervised, by pairs of answers, by answers marked good or bad, or a model of rewards."""
    adapter: Adapter = Lora()
    beta: float = Field(default=0.1, gt=0)
    """Of `dpo` and `kto`: how much a move away from the base costs."""
