"""Settings of fine-tuning over HTTP: which models may be tuned, on what, how many at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from infra.section import Section

TunableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]


class Tunable(Section):
    """A model that may be tuned over HTTP."""

    model: str = Field(min_length=1)
    """A folder, an artifact such as `model/qwen@v1`, or `OWNER/NAME@REVISION` in the hub cache."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What the model must be; jobs are refused if it is another."""
    template: str | None = None
    """A file with the chat template to train with; by default the tokenizer's own."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What it is trained on."""
    route: str | None = None
    """The route to the model: what is tuned is served where that leads, at its price; by default
    the route of the same name, if there is one."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the specifications of its jobs say besides, such as `{data = {max_length = 4096}}`."""


class FineTuning(Section):
    """Fine-tuning over HTTP; off until a model is named."""

    models: dict[TunableName, Tunable] = Field(default_factory=dict)
    """By the name that clients use, the models that may be tuned."""
    launcher: str = "local"
    """Where jobs run: a file of `training/launchers/`, which has to see the data folder."""
    max_running: int = Field(default=1, ge=1, le=1000)
    """Jobs that train at once, over all workers; the others wait."""
    max_waiting: int = Field(default=50, ge=1)
    """Jobs of one tenant that are not finished; more are refused."""
    max_served: int = Field(default=32, ge=0)
    """Tuned models of one tenant that are kept loaded, the newest; checkpoints take what room is
    left, and one that is deleted makes room."""
    smoke: bool = True
    """Try a few steps before each run."""
    grace_seconds: float = Field(default=60.0, ge=0)
    """For a run that is paused or cancelled to write a checkpoint and end."""
