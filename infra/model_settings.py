"""Settings of classical models: which are served, and what a request to one may take."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from infra.section import Section

Alias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Challenger(Section):
    """A version that is compared, in production, with the one that answers."""

    alias: Alias = "challenger"
    """Of the version; without it nothing is compared."""
    weight: float = Field(default=0.0, ge=0, le=1)
    """The share of callers whom it answers, as a canary."""
    shadow: float = Field(default=1.0, ge=0, le=1)
    """The share of requests that the version which did not answer is asked too, aside."""
    min_requests: int = Field(default=500, ge=1)
    """That both have answered, and that have a label where `margin` decides, before a promotion."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """How surely a rule has to hold, or to be broken, however often one looks."""
    margin: float | None = Field(default=0.0, gt=-1, lt=1)
    """By how much its error may be higher than that of the version in use; 0 asks for a lower
    one. Without it labels decide nothing."""
    agreement: float | None = Field(default=None, gt=0, lt=1)
    """The share of predictions in which both have to agree."""
    max_failures: float = Field(default=0.01, gt=0, lt=1)
    """The share of requests that it may fail."""
    max_seconds: float | None = Field(default=None, gt=0)
    """That it may take; a request that takes longer counts as failed."""
    roll_back: bool = True
    """Take the alias away where a rule is surely broken."""
    promote: bool = False
    """Let it take over where all rules surely hold."""

    @model_validator(mode="after")
    def _says_what_is_better(self) -> Self:
        if self.promote and self.margin is None and self.agreement is None:
            raise ValueError("promote needs margin or agreement, which say what is good enough")
        return self


class Cached(Section):
    """Predictions of a job that requests are answered from, by key."""

    key: tuple[Pattern, ...] = Field(min_length=1, max_length=8)
    """Columns that tell rows apart, in what the job reads and in requests. Dates and times are the
    same however they are written; where the job reads text, requests have the same text."""
    max_age_seconds: float | None = Field(default=None, gt=0)
    """Of predictions, since their job began to store them; older ones answer nobody."""
    unknown: Literal["compute", "refuse"] = "compute"
    """A request with a key that has no prediction: computed from its columns, or a 404."""
    other_versions: bool = False
    """Whether predictions by another version than the one that is asked answer as well."""


class Models(Section):
    """Classical models that are served from the artifact store."""

    names: tuple[Pattern, ...] = ("*",)
    """Patterns of the names `model/NAME` that are served; `[]` serves none."""
    alias: Alias = "production"
    """Of the version that answers where a request names none."""
    watch_seconds: float = Field(default=1.0, gt=0)
    """Between two looks at aliases and feature views: how soon a version that was promoted answers,
    and a new version of a view is joined."""
    cache_bytes: int = Field(default=512 * 2**20, ge=1)
    """Of model files that stay loaded; those that were used least recently go first."""
    view_bytes: int = Field(default=512 * 2**20, ge=1)
    """Of feature views in memory, all together; a version for which there is no room is refused,
    and tried again every 30 seconds. While one is replaced, both are there."""
    max_model_bytes: int = Field(default=256 * 2**20, ge=1)
    """Of one model's file; larger ones are refused."""
    max_rows: int = Field(default=10_000, ge=1)
    """Of one request."""
    max_batch_rows: int = Field(default=1024, ge=1)
    """Of requests that are answered together; a single larger request is a batch by itself."""
    concurrency: int = Field(default=1, ge=1, le=256)
    """Batches of one model at a time; requests that come meanwhile make up the next."""
    threads: int = Field(default=4, ge=1, le=256)
    """Batches of all models at a time."""
    max_waiting: int = Field(default=1024, ge=1)
    """Requests that wait for one model; more are refused."""
    deadline_seconds: float = Field(default=10.0, gt=0)
    """For one request; it may ask for less."""
    unknown: Literal["warn", "refuse"] = "warn"
    """Values of a category that training never saw: answered with a warning, or refused."""
    keep: Literal["inputs", "predictions", "nothing"] = "predictions"
    """Of each row in the interactions, beside that it was answered; drift of inputs needs them."""
    trusted_types: tuple[str, ...] = ()
    """Beginnings of dotted names that skops files may load, beside scikit-learn's and ours."""
    challengers: dict[str, Challenger] = Field(default_factory=dict)
    """By the name of a model, without `model/`."""
    cached: dict[str, Cached] = Field(default_factory=dict)
    """By the name of a model, without `model/`."""
    keep_stored_days: float = Field(default=90.0, gt=0)
    """Predictions of jobs that requests are answered from, where `max_age_seconds` says no less."""
    max_shadows: int = Field(default=64, ge=1)
    """Copies of requests that wait for the other version, with `max_rows` in all; more are left
    out, and counted."""

    @model_validator(mode="after")
    def _keeps_what_is_compared(self) -> Self:
        if self.challengers and self.keep == "nothing":
            raise ValueError(
                "models.challengers compares predictions, and models.keep = 'nothing' keeps none"
            )
        return self
