"""Predictions for whole tables: part by part, taken up where it stopped, as a job or a command."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from infra import classical
from infra.artifacts import refs
from infra.artifacts.publishing import Made
from infra.errors import InvalidRequest, NotFound
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry, Resources, Retries
from infra.plugins import require
from service.models import batch_caching
from service.models.batch_scoring import check_times, scored

if TYPE_CHECKING:
    import pyarrow as pa

    from service.prediction.loading import Loaded
    from service.wiring import Components

PREDICT = "predict"
KIND = "predictions"
EXTRA = "classical"
PART_ROWS = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows that are predicted together, and written as one file."""

    number: int
    first: int
    """The place of its first row in the table."""
    batch: pa.RecordBatch


Score: TypeAlias = "Callable[[Iterable[Part]], Iterator[tuple[Part, pa.Table]]]"
"""Yields parts with their predictions; in whatever order."""


def define(registered: Registry, parts: Components) -> None:
    """Register the job of this file; what it has written is not predicted again."""

    @registered.job(PREDICT, resources=Resources(cpu=1), behaviour=Behaviour(remote=True))
    def predict(
        attempt: Attempt,
        *,
        model: str,
        data: str,
        name: str,
        cache: bool = False,
        workers: int = 0,
    ) -> dict[str, Any]:
        """Predict for the rows of a dataset; they become the artifact `predictions/NAME`.

        With `cache` requests are answered from them by key, as `models.cached` says; with
        `workers` so many processes of a Ray cluster predict, and not this one.
        """
        check_name(name)
        pinned: dict[str, Any] = attempt.step("pin", lambda: _pin(parts, model, data))
        _sweep(parts)
        with _kept_to_go_on(_folder(parts) / attempt.job_id) as folder:
            views = pinned.get("views", {})
            loaded = opened(parts, pinned["model"], views)
            score = scoring(parts, loaded, views, workers=workers)
            read = partial(_datasets(parts).iterate, pinned["data"], rows=PART_ROWS)
            names = _datasets(parts).describe(pinned["data"]).columns
            settings = batch_caching.settings_of(parts, loaded.name, names) if cache else None
            check_times(loaded, read, names)
            total = _datasets(parts).profile(pinned["data"]).rows

            def tell(rows: int) -> None:
                attempt.progress(min(1.0, rows / max(1, total)), f"{rows:,} of {total:,} rows")

            rows = write_parts(score, read(), folder, tell=tell)
            batch = (
                None
                if settings is None
                else batch_caching.fill(parts, loaded, settings, folder=folder, attempt=attempt)
            )
            reference = _publish(parts, folder, name, pinned=pinned, job=attempt.job_id)
            if batch is not None:
                parts.cached_predictions.go_live(batch, reference)
        return {"artifact": reference, "model": pinned["model"], "rows": rows}


def check_name(name: str) -> None:
    """Refuse what cannot be the name of an artifact, before anything is predicted.

    Raises:
        InvalidRequest: says what a name is.
    """
    refs.split(f"{KIND}/{name}")


def opened(parts: Components, model: str, pins: Mapping[str, str] | None = None) -> Loaded:
    """Load a version: `NAME` by the alias of the settings, `NAME@v3` or `NAME@ALIAS`.

    Args:
        parts: of the process.
        model: the version.
        pins: of views, the versions to join; by default the newest.
    """
    from service.prediction import loading

    reference = full_reference(parts, model)
    return loading.read(parts.artifacts, reference, parts.settings.models, pins=pins)


def full_reference(parts: Components, model: str) -> str:
    """Return a model's name as the artifact store has it."""
    name = model if "/" in model.partition("@")[0] else f"{classical.KIND}/{model}"
    return name if "@" in name else f"{name}@{parts.settings.models.alias}"


def scoring(
    parts: Components,
    loaded: Loaded,
    views: Mapping[str, str] | None = None,
    *,
    workers: int = 0,
) -> Score:
    """Return what predicts parts: that many processes of a Ray cluster, or with none this one.

    Args:
        parts: of the process.
        loaded: the version.
        views: of it, the versions that are joined; by default those of `loaded`.
        workers: processes on Ray.
    """
    if not workers:
        return partial(_scored_here, loaded)
    from service.models.ray_predicting import OnRay

    joins = loaded.reader.joins
    if views is None and joins is not None:
        views = {each.view.followed: each.version.reference.pinned for each in joins.views}
    return OnRay(parts.settings, loaded.reference.pinned, views or {}, workers=workers)


def predict_file(
    loaded: Loaded,
    source: Path,
    output: Path,
    *,
    score: Score | None = None,
    tell: Callable[[int], object] = lambda _: None,
) -> int:
    """Predict for the rows of a table, and write them with the predictions as Parquet.

    Parts that an earlier run wrote of the same file with the same model and the same versions of
    its views are taken as they are.
    Returns how many rows there are.

    Raises:
        NotFound: there is no such file, or no folder to write to.
        InvalidRequest: it is no table, its rows are not the model's, or `output` is what is read.
    """
    if not source.is_file():
        raise NotFound("file of rows", str(source))
    if not output.parent.is_dir():
        raise NotFound("folder", str(output.parent))
    if output.is_dir() or output.resolve() == source.resolve():
        raise InvalidRequest(f"{str(output)!r} cannot be written to; name another file")
    status = source.stat()
    digests = [loaded.reference.digest, *loaded.joined_digests]
    made_by = hashlib.sha256("".join(digests).encode()).hexdigest()[:12]
    stamp = f"{status.st_size:x}-{status.st_mtime_ns:x}-{made_by}"
    read, names = _reading(source)
    check_times(loaded, read, names)
    with _kept_to_go_on(output.with_name(f".{output.name}.{stamp}.parts")) as folder:
        score = score or partial(_scored_here, loaded)
        rows = write_parts(score, read(), folder, tell=tell)
        _join(folder, output)
    return rows


def write_parts(
    score: Score,
    batches: Iterable[pa.RecordBatch],
    folder: Path,
    *,
    tell: Callable[[int], object],
) -> int:
    """Write a file of each batch with its predictions, but for those that are there."""
    parquet = require("pyarrow.parquet", extra=EXTRA)
    folder.mkdir(parents=True, exist_ok=True)
    done = 0

    def end(rows: int) -> None:
        nonlocal done
        done += rows
        tell(done)

    def missing() -> Iterator[Part]:
        first = 0
        for number, batch in enumerate(batches):
            if _path(folder, number).exists():
                end(batch.num_rows)
            else:
                yield Part(number, first, batch)
            first += batch.num_rows

    for part, table in score(missing()):
        path = _path(folder, part.number)
        unfinished = path.with_suffix(".partial")
        parquet.write_table(table, unfinished, compression="zstd")
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(path)
        end(part.batch.num_rows)
    if not done:
        raise InvalidRequest("There is no row to predict for")
    return done


def _path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06}.parquet"


def _scored_here(loaded: Loaded, parts: Iterable[Part]) -> Iterator[tuple[Part, pa.Table]]:
    for part in parts:
        yield part, scored(loaded, part.batch, first=part.first)


def _reading(source: Path) -> tuple[Callable[..., Iterator[pa.RecordBatch]], Sequence[str]]:
    """Return what reads a file, of all columns or of some, and their names."""
    from infra.datasets import files
    from infra.datasets.csv_files import Dialect
    from infra.datasets.data_file import DataFile

    form = files.format_of(source.name)
    if form is None:
        raise InvalidRequest(f"{str(source)!r} is neither CSV, JSON Lines nor Parquet by its name")
    file = DataFile.at(source, source.name)
    schema = files.infer(form, [file], Dialect())

    def read(columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        wanted = schema
        if columns is not None:
            wanted = require("pyarrow", extra=EXTRA).schema(
                [schema.field(name) for name in columns]
            )
        return files.batches(form, file, wanted, dialect=Dialect(), rows=PART_ROWS)

    return read, schema.names


def _join(folder: Path, output: Path) -> None:
    parquet = require("pyarrow.parquet", extra=EXTRA)
    paths = sorted(folder.glob("part-*.parquet"))
    partial = output.with_name(f".{output.name}.partial")
    schema = parquet.read_schema(paths[0])
    try:
        with parquet.ParquetWriter(partial, schema, compression="zstd") as out:
            for path in paths:
                out.write_table(parquet.read_table(path))
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _kept_to_go_on(folder: Path) -> Iterator[Path]:
    """Keep what was written only where the work broke off and may be taken up again."""
    try:
        yield folder
    except Retries().permanent:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _folder(parts: Components) -> Path:
    return parts.settings.data_folder / "predicting"


def _sweep(parts: Components) -> None:
    """Remove what jobs left that were cancelled or given up."""
    for place in _folder(parts).glob("*"):
        try:
            if not parts.jobs.get(place.name).is_finished:
                continue
        except NotFound:
            pass
        shutil.rmtree(place, ignore_errors=True)


def _pin(parts: Components, model: str, data: str) -> dict[str, Any]:
    from service.prediction import loading

    found = parts.artifacts.find(full_reference(parts, model))
    rows = _datasets(parts).find(data)
    views = loading.described(parts.artifacts, found.pinned).views
    return {
        "model": found.pinned,
        "data": rows.pinned,
        "views": {each.followed: parts.artifacts.find(each.followed).pinned for each in views},
    }


def _publish(
    parts: Components, folder: Path, name: str, *, pinned: dict[str, Any], job: str
) -> str:
    from infra.datasets.datasets import Options

    views = [("features", each) for each in pinned.get("views", {}).values()]
    made = Made(
        metadata={"model": pinned["model"]},
        parents=(("model", pinned["model"]), ("rows", pinned["data"]), *views),
        job=job,
    )
    return str(_datasets(parts).put(folder, f"{KIND}/{name}", Options(made=made)))


def _datasets(parts: Components) -> Any:
    from infra.datasets.datasets import Datasets

    return Datasets(parts.artifacts)
