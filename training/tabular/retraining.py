"""The specification of a retraining: which rows, when labels are final, what must hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from infra.errors import InvalidRequest
from training.specification.part import Part
from training.tabular.specification import NAME, TableSource

CANDIDATE = "candidate"
"""The alias of every challenger that was trained."""


class Log(Part):
    """What came in since the model was put to work."""

    rows: str | None = Field(default=None, min_length=1)
    """A dataset such as `dataset/loans-log`, or a path; its newest version is read. Without it,
    what the model was asked, which `models.keep = "inputs"` keeps, and the labels that came."""
    split: str | None = None
    time: str = "at"
    """A column of moments, or of numbers that rise; without `rows`, when the model was asked."""
    key: str | None = None
    """A column that tells rows apart; of several rows with one key, the latest label counts."""
    labelled_at: str | None = None
    """A column that says when a label came, by which the latest of a key is told; else `time`."""

    @model_validator(mode="after")
    def _is_of_rows(self) -> Log:
        for name in ("split", "key", "labelled_at"):
            if self.rows is None and getattr(self, name) is not None:
                raise ValueError(f"{name} is of rows; name them, or leave it out")
        return self

    @property
    def source(self) -> TableSource:
        """Where rows are. Raises `InvalidRequest` where the log is what the model was asked."""
        if self.rows is None:
            raise InvalidRequest("log.rows names no rows, and predictions are read by the service")
        return TableSource(rows=self.rows, split=self.split)


class Formation(Part):
    """Which rows of the log become the dataset."""

    method: Literal["all", "expanding", "rolling", "stratified"] = "all"
    """`expanding`: all since `start`. `rolling`: the latest `rows`, or those of the latest
    `length`. `stratified`: `rows` of all, with the shares of `by` kept."""
    start: float | str | None = None
    rows: int | None = Field(default=None, ge=20)
    length: float | None = Field(default=None, gt=0)
    """In hours, or in the unit of a column of numbers."""
    by: str | None = None
    replay: float = Field(default=0.0, ge=0, le=1)
    """Rows from before the window, drawn at random, for each row of it, so that what they taught is
    not forgotten."""
    compare: float = Field(default=0.2, gt=0, lt=1)
    """The share of the rows, the latest, on which old and new model are compared; never trained
    on."""

    @model_validator(mode="after")
    def _is_whole(self) -> Formation:
        if self.method == "expanding" and self.start is None:
            raise ValueError("method 'expanding' needs 'start'")
        if self.method == "rolling" and (self.rows is None) == (self.length is None):
            raise ValueError("method 'rolling' needs 'rows' or 'length', not both")
        if self.method == "stratified" and (self.rows is None or self.by is None):
            raise ValueError("method 'stratified' needs 'rows' and 'by'")
        if self.replay and self.method in {"all", "stratified"}:
            raise ValueError(f"replay: method {self.method!r} leaves no older rows out")
        return self


class Labels(Part):
    """When labels can be relied on."""

    delay: float = Field(default=0.0, ge=0)
    """How long after a row its label is final: hours, or in the unit of a column of numbers."""
    min_share: float = Field(default=0.9, gt=0, le=1)
    """Of rows old enough that must have a label; with fewer, nothing is promoted by itself."""
    min_rows: int = Field(default=100, ge=20)
    """With a label, to compare on."""


class Promotion(Part):
    """What a challenger must show, and whether it then takes over by itself."""

    automatic: bool = True
    """Otherwise a challenger that passes waits for a person."""
    to: str | None = Field(default=None, pattern=NAME)
    """An alias that a challenger which passes gets instead of the champion's, such as `challenger`:
    it is compared in production then, and takes over by those rules."""
    min_gain: float = Field(default=0.0, ge=0)
    """By how much its error on the latest rows must be lower than the champion's, surely."""
    max_loss: float = Field(default=0.02, gt=0)
    """By how much its error may be higher on what earlier models were measured on; more, or not
    surely less, is forgetting."""
    earlier: int = Field(default=50, ge=0, le=50)
    """Versions whose held-out rows are asked again at most, the champion's and those before it."""


class Retraining(Part):
    """All that decides what becomes of a model whose world moved on."""

    version: Literal[1] = 1
    name: str = Field(pattern=NAME)
    """Of the model, `model/NAME`, and of the evidence, `retraining/NAME`."""
    spec: str = Field(min_length=1)
    """A path of the specification by which the model is trained; its `data.train`, `data.test` and
    `register` are set here."""
    alias: str = Field(default="production", pattern=NAME)
    """Of the champion."""
    log: Log
    formation: Formation = Formation()
    labels: Labels = Labels()
    promotion: Promotion = Promotion()

    @model_validator(mode="after")
    def _goes_elsewhere(self) -> Retraining:
        if self.promotion.to in {self.alias, CANDIDATE}:
            raise ValueError(f"promotion.to: {self.promotion.to!r} is taken; name another alias")
        return self
