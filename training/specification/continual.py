"""The specification of an adapter's retraining: what it learns from, what it must not forget."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from training.specification.data import Replay, Source
from training.specification.part import Part

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CANDIDATE = "candidate"
"""The alias of every challenger that was trained."""


class Said(Part):
    """What people said of answers, as conversations that end with the answer that is right."""

    model: str | None = Field(default=None, min_length=1)
    """The model that was asked, a route or `rag/COLLECTION`, as its interactions name it."""
    tenant: str | None = None
    """Whose answers are meant; those of all where it is left out."""
    rows: Source | None = None
    """Or rows of `messages` that somebody laid out, the latest last."""

    @model_validator(mode="after")
    def _names_one(self) -> Said:
        if (self.model is None) == (self.rows is None):
            raise ValueError("name a model or rows, and not both")
        return self


class Formation(Part):
    """Which of them become the dataset."""

    compare: float = Field(default=0.2, gt=0, lt=1)
    """The share, the latest, on which old and new adapter are compared; never trained on."""
    min_rows: int = Field(default=20, ge=5)
    """To compare on; with fewer, nothing is promoted without a person."""


class Promotion(Part):
    """What a challenger must show, and whether it then takes over by itself."""

    automatic: bool = True
    """Otherwise a challenger that passes waits for a person."""
    to: str | None = Field(default=None, pattern=NAME)
    """An alias that a challenger which passes gets instead of the champion's, such as `canary`."""
    min_gain: float = Field(default=0.0, ge=0)
    """By how much its loss on the latest rows must be lower than the champion's, surely: 1 less the
    probability that a token of the right answer has, on average."""
    max_loss: float = Field(default=0.05, gt=0)
    """By how much its loss may be higher on an earlier suite; more, or not surely less, is
    forgetting."""
    earlier: int = Field(default=50, ge=0, le=50)
    """Retrainings that were promoted before, whose rows to compare on are asked again, at most."""


class Continual(Part):
    """All that decides what becomes of an adapter that people corrected."""

    version: Literal[1] = 1
    name: str = Field(pattern=NAME)
    """Of the adapter, `adapter/NAME`, and of the evidence, `retraining/NAME`."""
    spec: str = Field(min_length=1)
    """A path of the fine-tuning's specification; its `data.train`, `data.eval`, `data.replay` and
    `register` are set here."""
    alias: str = Field(default="production", pattern=NAME)
    """Of the champion; where it points nowhere, the base stands for one."""
    log: Said
    formation: Formation = Formation()
    replay: tuple[Replay, ...] = ()
    """Older rows that are mixed in, so that what they taught is not forgotten."""
    suites: tuple[Source, ...] = ()
    """Rows that are asked again each time; name what the first adapter was measured on."""
    promotion: Promotion = Promotion()

    @model_validator(mode="after")
    def _goes_elsewhere(self) -> Continual:
        if self.promotion.to in {self.alias, CANDIDATE}:
            raise ValueError(f"promotion.to: {self.promotion.to!r} is taken; name another alias")
        return self
