"""Predictions for whole tables: part by part, taken up where it stopped, as a job or a command."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infra import classical
from infra.artifacts import refs
from infra.artifacts.publishing import Made
from infra.classical_rows import Values
from infra.errors import InvalidRequest, NotFound
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry, Resources, Retries
from infra.plugins import require
from infra.point_in_time import moments_of
from service import batch_caching
from service.prediction.batching import checked
from service.prediction.columns import Reader

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from service.prediction.loading import Loaded
    from service.wiring import Components

PREDICT = "predict"
KIND = "predictions"
EXTRA = "classical"
PART_ROWS = 16_384
ADDED = ("prediction", "probability", "probabilities", "warnings")


def define(registered: Registry, parts: Components) -> None:
    """Register the job of this file; what it has written is not predicted again."""

    @registered.job(PREDICT, resources=Resources(cpu=1), behaviour=Behaviour(remote=True))
    def predict(
        attempt: Attempt, *, model: str, data: str, name: str, cache: bool = False
    ) -> dict[str, Any]:
        """Predict for the rows of a dataset; they become the artifact `predictions/NAME`.

        With `cache` requests are answered from them by key, as `models.cached` says.
        """
        check_name(name)
        pinned: dict[str, Any] = attempt.step("pin", lambda: _pin(parts, model, data))
        _sweep(parts)
        with _kept_to_go_on(_folder(parts) / attempt.job_id) as folder:
            loaded = opened(parts, pinned["model"], pinned.get("views"))
            read = partial(_datasets(parts).iterate, pinned["data"], rows=PART_ROWS)
            names = _datasets(parts).describe(pinned["data"]).columns
            settings = batch_caching.settings_of(parts, loaded.name, names) if cache else None
            check_times(loaded, read, names)
            batches = read()
            total = _datasets(parts).profile(pinned["data"]).rows

            def tell(rows: int) -> None:
                attempt.progress(min(1.0, rows / max(1, total)), f"{rows:,} of {total:,} rows")

            rows = write_parts(loaded, batches, folder, tell=tell)
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


def predict_file(
    loaded: Loaded, source: Path, output: Path, *, tell: Callable[[int], object] = lambda _: None
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
        rows = write_parts(loaded, read(), folder, tell=tell)
        _join(folder, output)
    return rows


def check_times(
    loaded: Loaded, read: Callable[..., Iterable[pa.RecordBatch]], names: Sequence[str]
) -> None:
    """Refuse rows without a time, where views are joined as of it, before any is predicted.

    A request without one is of the moment in which it is answered. Rows of a table are not: its
    parts are answered at other moments, and once more after a failure.

    Args:
        loaded: the model.
        read: returns the rows, of the columns that it is given.
        names: of the columns.

    Raises:
        InvalidRequest: the column is missing, or a row of it holds no time.
    """
    joins = loaded.reader.joins
    if joins is None:
        return
    time, first = joins.time, 0
    why = f"as of which {loaded.reference} joins {joins.views[0].view.followed}"
    if time not in names:
        raise InvalidRequest(f"The rows have no column {time!r}, {why}")
    for batch in read(columns=[time]):
        with _counted(batch.num_rows, first):
            values: Any = _values(time, batch.column(0), is_time=True)
            values = values.tolist() if isinstance(values, np.ndarray) else values
            moments = moments_of(values, source=f"The column {time!r}").microseconds
            if None in moments:
                raise InvalidRequest(f"Row {moments.index(None)} has no time in {time!r}, {why}")
        first += batch.num_rows


def write_parts(
    loaded: Loaded,
    batches: Iterable[pa.RecordBatch],
    folder: Path,
    *,
    tell: Callable[[int], object],
) -> int:
    """Write a file of each batch with its predictions, but for those that are there."""
    parquet = require("pyarrow.parquet", extra=EXTRA)
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    for number, batch in enumerate(batches):
        path = folder / f"part-{number:06}.parquet"
        if not path.exists():
            partial = path.with_suffix(".partial")
            parquet.write_table(scored(loaded, batch, first=done), partial, compression="zstd")
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.rename(path)
        done += batch.num_rows
        tell(done)
    if not done:
        raise InvalidRequest("There is no row to predict for")
    return done


def scored(loaded: Loaded, batch: pa.RecordBatch, *, first: int = 0) -> pa.Table:
    """Return a batch with its predictions beside it.

    Raises:
        InvalidRequest: a column is missing, or holds what the model's cannot; rows are counted
            from `first` in the message.
    """
    pa = require("pyarrow", extra=EXTRA)
    taken = [name for name in ADDED if name in batch.schema.names]
    if taken:
        raise InvalidRequest(f"The rows have a column {taken[0]!r} already; rename it")
    model, reader = loaded.model, _sized(loaded.reader, batch.num_rows)
    time = None if reader.joins is None else reader.joins.time
    with _counted(batch.num_rows, first):
        given = {
            each.name: _values(each.name, batch.column(each.name), is_time=each.name == time)
            for each in reader.asked
            if each.name in batch.schema.names
        }
        table = reader.of_values(batch.num_rows, given)
    values = checked(loaded.runtime.run, table.columns, table.rows)
    found = pa.Table.from_batches([batch])
    if model.classes is None or loaded.labels is None:
        found = found.append_column("prediction", pa.array(values.astype(np.float64)))
    else:
        chosen = classical.decide(values, model)
        best = values[np.arange(len(values)), chosen].astype(np.float64)
        rows = pa.array(values.astype(np.float64).tolist(), pa.list_(pa.float64()))
        found = found.append_column("prediction", pa.array(loaded.labels[chosen].tolist()))
        found = found.append_column("probability", pa.array(best))
        found = found.append_column("probabilities", rows)
    warnings = np.zeros(table.rows, np.int32)
    for each in table.warnings:
        warnings[each.row] += 1
    return found.append_column("warnings", pa.array(warnings))


@contextmanager
def _counted(rows: int, first: int) -> Iterator[None]:
    """Have a refusal say from where its rows are counted."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"In the {rows:,} rows from {first:,} on: {error}") from error


def _sized(reader: Reader, rows: int) -> Reader:
    """Return a reader that takes so many rows."""
    return Reader(reader.model, max(1, rows), reader.refuses_unknown, reader.joins)


def _values(name: str, column: pa.Array, *, is_time: bool) -> Values | pl.Series:
    pa = require("pyarrow", extra=EXTRA)
    kind = column.type
    if is_time and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        moments: pl.Series = require("polars", extra=EXTRA).from_arrow(column)
        return moments
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if is_number and (pa.types.is_floating(kind) or not column.null_count):
        array: Values = column.to_numpy(zero_copy_only=False)
        return array
    if pa.types.is_temporal(kind) and column.null_count < len(column):
        raise InvalidRequest(f"{name!r} holds {kind}, which no column of a model is")
    values: Values = column.to_pylist()
    return values


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
