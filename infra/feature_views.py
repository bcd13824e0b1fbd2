"""Feature views: values of an entity by time, and what a fitted model remembers of them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from infra.section import Section

KeyType = Literal["int64", "string"]
_NAME = r"^[^\x00-\x1f\x7f]{1,128}$"


class FeatureView(Section):
    """Columns of another table, joined to each row by key as of the row's time."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    rows: str = Field(min_length=1)
    """A dataset such as `dataset/accounts`, or a path, from which no model can be registered.
    Requests are answered from its newest version, or from what an alias means."""
    key: str = Field(pattern=_NAME)
    """Its column of text or whole numbers that says whose values they are."""
    row_key: str | None = Field(default=None, pattern=_NAME)
    """The rows' column with the key, where it is called otherwise. The model is not given it."""
    time: str = Field(pattern=_NAME)
    """Its column of the moment from which the values hold; a date is its first moment."""
    columns: tuple[str, ...] = Field(min_length=1)
    """What is joined."""
    prefix: str = ""
    """Before the names of the columns in the model."""
    ttl_seconds: float | None = Field(default=None, gt=0, le=1e10)
    """After which values are too old to be joined."""
    lag_seconds: float = Field(default=0.0, ge=0, le=1e10)
    """How long after their moment values become known; before, none is joined."""
    required: bool = False
    """Whether a row without values is refused; otherwise they are missing, and counted."""

    @property
    def asked_key(self) -> str:
        """The rows' column with the key."""
        return self.row_key or self.key

    @property
    def features(self) -> tuple[str, ...]:
        """What the columns are called in the model."""
        return tuple(f"{self.prefix}{each}" for each in self.columns)

    @property
    def followed(self) -> str:
        """What requests are answered from: the alias that is named, or the newest version."""
        name, _, selector = self.rows.partition("@")
        is_fixed = ":" in selector or (selector[:1] == "v" and selector[1:].isdecimal())
        return name if is_fixed else self.rows

    @model_validator(mode="after")
    def _fits_together(self) -> FeatureView:
        if len({self.key, self.time, *self.columns}) < 2 + len(self.columns):
            raise ValueError("columns: one is named twice, or is the key or the time")
        return self


class JoinedView(FeatureView):
    """A view that a model was trained with; `columns` are those that the model is given."""

    version: str = Field(min_length=1)
    """What was joined in training, such as `dataset/accounts@v3`."""
    key_type: KeyType
    is_zoned: bool
    """Whether its moments have a time zone; without, they are taken for UTC."""
