"""The section `schedule`: how much is learned from at once, how fast, how long, when to stop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from training.specification.part import Part


class Abort(Part):
    """When a run is ended as failed."""

    nonfinite: bool = True
    """A loss or a gradient that is no number."""
    spike_sigmas: float | None = Field(default=8.0, gt=0)
    """A loss so many standard deviations above its running mean."""
    max_hours: float | None = Field(default=None, gt=0)


class Saving(Part):
    """When a run can be taken up again."""

    every_steps: int | None = Field(default=None, ge=1)
    """By default ten times a run, and at its end."""
    keep: int = Field(default=3, ge=1)
    on_sigterm: bool = True
    """A checkpoint when the machine asks the run to go."""


class Schedule(Part):
    """How the optimiser goes through the rows."""

    tokens_per_step: int | None = Field(default=None, ge=1)
    """Tokens of one step of the optimiser, over all devices; see `training.batching`."""
    rows_per_step: int | None = Field(default=None, ge=1)
    """Instead of `tokens_per_step`: rows of one step, or packs of them."""
    rows_per_device: int | None = Field(default=None, ge=1)
    """At once on one device; by default as many as its memory is estimated to hold, up to 16."""
    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    """Instead of `epochs`."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """The share of all steps in which the rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    packing: bool = False
    """Several rows in one sequence, kept apart by FlashAttention or, where that is not there, by a
    mask in known kinds of models."""
    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Less memory for a third more arithmetic; `auto`: where the estimate needs it."""
    compile: bool = False
    """By torch.compile: the first step takes a minute or more."""
    eval_every_steps: int | None = Field(default=None, ge=1)
    """By default at each checkpoint."""
    log_every_steps: int = Field(default=10, ge=1)
    saving: Saving = Saving()
    abort: Abort = Abort()

    @model_validator(mode="after")
    def _is_definite(self) -> Schedule:
        if self.tokens_per_step is not None and self.rows_per_step is not None:
            raise ValueError("give tokens_per_step or rows_per_step, not both")
        if self.tokens_per_step is None and self.rows_per_step is None:
            raise ValueError("give tokens_per_step, such as 65536, or rows_per_step")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self
