"""Stores what a job predicted in the database, answering requests by key, and forgets it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.classical import KIND
from infra.errors import InvalidRequest, NotFound
from infra.jobs.definitions import Options
from infra.plugins import require

if TYPE_CHECKING:
    from infra.jobs.attempt import Attempt
    from infra.model_settings import Cached
    from service.prediction.forgetting import Forgotten, Wanted
    from service.prediction.loading import Loaded
    from service.wiring import Components

EXTRA = "classical"


def settings_of(parts: Components, model: str, names: Sequence[str]) -> Cached:
    """Return by which key requests for a model are answered from what a job predicts.

    Raises:
        InvalidRequest: no settings say so, or the rows lack a column of the key.
    """
    settings = parts.settings.models.cached.get(model)
    if settings is None:
        raise InvalidRequest(f"Set models.cached.{model}.key, by which rows are told apart")
    missing = [name for name in settings.key if name not in names]
    if missing:
        raise InvalidRequest(f"The rows lack {missing[0]!r}, of the key of models.cached.{model}")
    return settings


def fill(
    parts: Components, loaded: Loaded, settings: Cached, *, folder: Path, attempt: Attempt
) -> int:
    """Store the parts of a folder; they answer nobody until the batch is told to go live.

    Raises:
        InvalidRequest: a row has no key, or two have the same.
    """
    parquet = require("pyarrow.parquet", extra=EXTRA)
    said = ["prediction", *(["probabilities"] if loaded.class_names else [])]

    def rows() -> Iterator[dict[str, Any]]:
        for path in sorted(folder.glob("part-*.parquet")):
            yield from parquet.read_table(path, columns=[*settings.key, *said]).to_pylist()

    # Jobs are of `default` where keys have no tenant; a tenant of that name is not meant.
    tenant = None if attempt.tenant == Options().tenant else attempt.tenant
    sweep(parts)
    return parts.cached_predictions.fill(
        loaded, settings, rows(), job=attempt.job_id, tenant=tenant
    )


def sweep(parts: Components) -> None:
    """Remove what jobs stored that ended before it could take over."""

    def is_over(job: str) -> bool:
        try:
            return parts.jobs.get(job).is_finished
        except NotFound:
            return True

    parts.cached_predictions.sweep(is_over)


@dataclass(frozen=True, slots=True)
class Forgot:
    """What was removed, or would be."""

    stored: Sequence[Forgotten]
    logged: int
    """Predictions of the log, whose content is gone; only a key is looked for there."""
    under_way: Sequence[str]
    """Jobs that are storing predictions: what they store is not gone."""
    artifacts: Sequence[str]
    """They hold the same rows, as whoever made them wrote them; expire them."""


def forget(parts: Components, wanted: Wanted, *, dry_run: bool = False) -> Forgot:
    """Remove stored predictions and, of the rows of a key, what the log keeps of them.

    Raises:
        InvalidRequest: as `Forgetter.forget`.
        StorageFailed: what the log holds on disk cannot be read, or the database not be written to.
    """
    from monitoring import prediction_logs
    from monitoring.interactions import Query
    from service.prediction.forgetting import holds

    if wanted.key:
        parts.interactions.drain()
    if not dry_run:
        sweep(parts)
    stored = parts.forgetter.forget(wanted, dry_run=dry_run)
    logged = 0
    if wanted.key:
        model = None if wanted.model is None else f"{KIND}/{wanted.model}"
        made_by = None if wanted.version is None else f"{wanted.model}@v{wanted.version}"
        query = Query(until=wanted.until, model=model, tenant=wanted.tenant, upstream=made_by)
        logged = prediction_logs.erase(
            parts.database, query, lambda row: holds(row, wanted.key), dry_run=dry_run
        )
    under_way = parts.cached_predictions.under_way(wanted.model)
    return Forgot(stored, logged, under_way, sorted({each.artifact for each in stored}))
