"""The sections `evaluate`, `register`, `compress` and `serve`: what must hold, where it goes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from training.specification.part import Part

FOUR_BITS = "w4a16"
GROUP = 128
BASE = "base"
"""What a tuned model is held against where no alias is named: the model without an adapter."""


class SuiteGate(Part):
    """A suite in which the tuned model must be better than what it is held against."""

    suite: str = Field(min_length=1)
    """A path of a suite, or the name of a shipped one; it asks a model."""
    metric: str = Field(min_length=1)
    min_gain: float = Field(default=0.0, ge=0)
    """The lower end of the paired interval of the gain must be above it."""


class Regression(Part):
    """An earlier suite in which it must not be worse."""

    suite: str = Field(min_length=1)
    metric: str = Field(min_length=1)
    max_loss: float = Field(default=0.02, gt=0)
    """The lower end of the paired interval of the change must be above its negative."""


class Evaluate(Part):
    """What the tuned model must show."""

    suites: tuple[SuiteGate, ...] = ()
    """Gates that the suites' files declare must hold as well."""
    regressions: tuple[Regression, ...] = ()
    against: str = Field(default=BASE, pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")
    """`base`, the model without an adapter; or an alias of `adapter/NAME` that `register` names,
    such as `production`, and the base as long as it points at nothing."""
    max_eval_loss_ratio: float | None = Field(default=1.0, gt=0)
    """Of the loss on `data.eval` after training to that before."""


class Register(Part):
    """What the adapter is called in the store."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """It becomes the next version of `adapter/NAME`."""
    alias: str | None = "candidate"
    """That points at it if its gates have passed, and else stays where it is."""


class Compress(Part):
    """How `ragstone train compress` stores the whole model; planned for, and not done by a run."""

    scheme: Literal["int8", "w8a8", "w4a16"] = "int8"
    """`int8`: weights of linear modules in eight bits; `w8a8`: what they multiply as well; `w4a16`:
    weights in four bits."""
    group_size: Literal[32, 64, 128] | None = None
    """Inputs of a module that share a scale in `w4a16`; 128 if left out."""
    max_perplexity_ratio: float = Field(default=1.05, ge=1)
    """Of the rows' perplexity after to that before."""

    @model_validator(mode="after")
    def _has_groups(self) -> Compress:
        if self.group_size is not None and self.scheme != FOUR_BITS:
            raise ValueError(f"group_size is of {FOUR_BITS}; {self.scheme} has a scale an output")
        return self

    @property
    def inputs_a_scale(self) -> int | None:
        """That share one; None where all inputs of an output do."""
        return (self.group_size or GROUP) if self.scheme == FOUR_BITS else None


class Canary(Part):
    """How traffic is moved to a new version."""

    percent: float = Field(default=5.0, gt=0, le=100)
    minutes: float = Field(default=30.0, gt=0)


class Serve(Part):
    """The server that is to host the adapter."""

    engine: Literal["vllm", "transformers_local"] = "vllm"
    upstream: str | None = None
    """The engine of the settings that hosts it; what they say of its model and ranks is held
    against this."""
    max_rank: int = Field(default=16, ge=1)
    """vLLM's `--max-lora-rank`; 16 is its default. The other engine has no such limit."""
    base_digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """Of the model that it serves."""
    quantization: str | None = None
    """In which it serves the base, such as `fp8`; a plan tells if that is another."""
    canary: Canary | None = None
