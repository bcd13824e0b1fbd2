"""The section `base`: the model that is tuned, its precision, how it attends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.specification.part import Part

FLASH = ("flash_attention_2", "flash_attention_3")
"""Those that keep the rows of one pack apart without a mask."""


class Quantization(Part):
    """How the frozen weights are stored; with it and a LoRA adapter, this is QLoRA."""

    method: Literal["nf4", "int8"] = "nf4"
    """`nf4`: four bits a weight, `int8`: eight; both by bitsandbytes, on GPUs."""
    double: bool = True
    """Whether the scales of `nf4` are themselves stored in eight bits."""


class Base(Part):
    """The model that is tuned."""

    model: str = Field(min_length=1)
    """A folder, an artifact such as `model/qwen@v1`, or a model of the hub, `OWNER/NAME@REVISION`.

    A model of the hub is only read from this machine's cache; nothing is downloaded by a plan."""
    described_by: str | None = None
    """A folder with its `config.json` and tokenizer, to plan where the model itself is not."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What the model must be; a plan is refused if it is another."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of weights and arithmetic; adapters are trained in float32."""
    quantization: Quantization | None = None
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = "auto"
    """`auto`: FlashAttention where it is installed, on GPUs in half precision; PyTorch's own
    otherwise."""
    template: str | None = None
    """A file with the chat template in Jinja to train with; by default the tokenizer's own."""
