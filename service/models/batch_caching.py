"""Stores what a job predicted in the database, from which requests are answered by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidRequest, NotFound
from infra.jobs.definitions import Options
from infra.plugins import require

if TYPE_CHECKING:
    from infra.jobs.attempt import Attempt
    from infra.model_settings import Cached
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

    def is_over(job: str) -> bool:
        try:
            return parts.jobs.get(job).is_finished
        except NotFound:
            return True

    # Jobs are of `default` where keys have no tenant; a tenant of that name is not meant.
    tenant = None if attempt.tenant == Options().tenant else attempt.tenant
    parts.cached_predictions.sweep(is_over)
    return parts.cached_predictions.fill(
        loaded, settings, rows(), job=attempt.job_id, tenant=tenant
    )
