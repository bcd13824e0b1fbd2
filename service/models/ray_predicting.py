"""Batch prediction on a Ray cluster: workers predict parts, the process that asks writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from infra.errors import RagstoneError
from infra.plugins import require
from service.models.batch_predicting import Part
from service.models.batch_scoring import scored
from service.work.ray_connection import RETRIES, WorkersDied, connected

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.settings import Settings

WAITING_PER_WORKER = 2
"""Parts on the way to a worker: one that it predicts, one that is there when it has done so."""


class OnRay:
    """Predicts parts with `workers` processes of a Ray cluster, each with the model.

    Connects to the cluster that `RAY_ADDRESS` names, or starts one on this machine. A part whose
    worker died is predicted again, `RETRIES` times at most; it is written once, by whoever takes
    what this yields.
    """

    def __init__(
        self, settings: Settings, model: str, views: Mapping[str, str], *, workers: int
    ) -> None:
        """Take the pinned version, and of its views the pinned ones.

        Workers open the same settings: on several machines the artifact store must be one that all
        of them reach, and the database PostgreSQL.
        """
        self._settings = settings
        self._model = model
        self._views = dict(views)
        self._workers = workers

    def __call__(self, parts: Iterable[Part]) -> Iterator[tuple[Part, pa.Table]]:
        """Yield parts with their predictions, in the order in which they are done.

        Raises:
            MissingDependency: Ray is not installed.
            InvalidConfiguration: the cluster's nodes could not share an SQLite file.
            InvalidRequest: the rows are not the model's.
            WorkersDied: a worker did, more often than it is begun anew.
        """
        with connected(self._settings):
            ray = require("ray", extra="ray")
            again = {"max_restarts": RETRIES, "max_task_retries": RETRIES}
            made = ray.remote(_Worker).options(num_cpus=1, **again)
            workers = [
                made.remote(self._settings, self._model, self._views) for _ in range(self._workers)
            ]
            idle = workers * WAITING_PER_WORKER
            under_way: dict[Any, tuple[Any, Part]] = {}
            for part in parts:
                while not idle:
                    yield _first_done(ray, under_way, idle)
                worker = idle.pop()
                under_way[worker.predict.remote(part.batch, part.first)] = (worker, part)
            while under_way:
                yield _first_done(ray, under_way, idle)


def _first_done(
    ray: Any, under_way: dict[Any, tuple[Any, Part]], idle: list[Any]
) -> tuple[Part, pa.Table]:
    (done,), _ = ray.wait(list(under_way), num_returns=1)
    worker, part = under_way.pop(done)
    idle.append(worker)
    try:
        return part, ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RagstoneError):
            raise error.cause from None
        raise
    except ray.exceptions.RayActorError as error:
        last = part.first + part.batch.num_rows
        raise WorkersDied(
            f"a worker died {RETRIES + 1} times, at rows {part.first + 1:,} to {last:,} or those "
            "before them; give it more memory or fewer workers, and run it again: it goes on with "
            "the parts that are left"
        ) from error


class _Worker:
    """One process with the model, kept for all its parts."""

    def __init__(self, settings: Settings, model: str, views: Mapping[str, str]) -> None:
        from service.models.batch_predicting import opened
        from service.wiring import Components

        self._parts = Components(settings)
        self._loaded = opened(self._parts, model, views)

    def predict(self, batch: pa.RecordBatch, first: int) -> pa.Table:
        return scored(self._loaded, batch, first=first)
