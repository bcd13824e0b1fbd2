"""Settings of classical models: which are served, and what a request to one may take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from infra.section import Section

Alias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Models(Section):
    """Classical models that are served from the artifact store."""

    names: tuple[Pattern, ...] = ("*",)
    """Patterns of the names `model/NAME` that are served; `()` serves none."""
    alias: Alias = "production"
    """Of the version that answers where a request names none."""
    watch_seconds: float = Field(default=1.0, gt=0)
    """Between two looks at aliases and feature views: how soon a version that was promoted answers,
    and a new version of a view is joined."""
    cache_bytes: int = Field(default=512 * 2**20, ge=1)
    """Of model files that stay loaded; those that were used least recently go first."""
    view_bytes: int = Field(default=512 * 2**20, ge=1)
    """Of feature views in memory, all together; a version for which there is no room is refused.
    While one is replaced, both are there."""
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
