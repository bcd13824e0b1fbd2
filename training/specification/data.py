"""The section `data`: the rows, what of them is learned, how long they may be."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from training.specification.part import Part

Supervise = Literal["assistant", "last_assistant", "completion", "all"]
"""Which tokens carry a loss: all turns of the assistant, its last one, the completion, every one.

Of rows that are no messages, `all` is everything, and anything else the completion or the text.
"""


class Source(Part):
    """Where rows are."""

    rows: str = Field(min_length=1)
    """A dataset such as `dataset/support@v12`, or a path of JSON Lines or Parquet."""
    split: str | None = None
    """Of a dataset; by default all of its rows."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What the rows must be; a plan is refused if they are others."""


class Replay(Source):
    """Older rows that are mixed in, so that what they taught is not forgotten."""

    ratio: float = Field(gt=0, le=10)
    """Rows of this source for each row of `train`; drawn anew with the seed of the run."""


class Limits(Part):
    """How much may be wrong with the rows, as fractions of them."""

    max_dropped: float = Field(default=0.005, ge=0, le=1)
    """Rows that are left out, for their length or because nothing in them is learned."""
    max_truncated: float = Field(default=0.02, ge=0, le=1)
    max_duplicates: float = Field(default=0.05, ge=0, le=1)
    """Rows that say the same as an earlier one, up to case and white space."""
    max_invalid: float = Field(default=0.0, ge=0, le=1)
    """Rows that cannot be read as what the method needs; they are left out."""
    min_supervised: float = Field(default=0.02, ge=0, le=1)
    """The median share of a row's tokens that carries a loss."""
    near_duplicate: float = Field(default=0.8, gt=0, le=1)
    """The Jaccard similarity from which a row of `eval` counts as one of `train`."""


class Data(Part):
    """What is learned from."""

    train: Source
    eval: Source | None = None
    """Rows that are never trained on; their loss is followed."""
    replay: tuple[Replay, ...] = ()
    supervise: Supervise = "assistant"
    max_length: int = Field(default=2048, ge=8, le=1_048_576)
    """Of a row, in tokens."""
    overflow: Literal["error", "drop", "truncate"] = "error"
    """What becomes of longer rows: refused, left out, or cut at their end."""
    serving_template: str | None = None
    """A file with the chat template of the server, if it is not the tokenizer's own."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _sources_differ(self) -> Data:
        if self.eval is not None and (self.eval.rows, self.eval.split) == (
            self.train.rows,
            self.train.split,
        ):
            raise ValueError(
                f"eval and train are both {self.eval.rows!r}; a loss on rows that were trained on "
                "says nothing"
            )
        return self
