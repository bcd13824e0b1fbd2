"""Rows of a fine-tuning: read in batches from a dataset or a file, unreadable ones told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from infra.datasets.datasets import KIND, Datasets
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from infra.plugins import require
from training.specification.data import Source

BATCH_ROWS = 1_000
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
MAX_LINE_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that is no mapping of columns."""

    why: str


Row = dict[str, Any] | Unreadable


@dataclass(frozen=True, slots=True)
class Rows:
    """A source that was found."""

    source: str
    """As the specification names it."""
    digest: str
    """Of the artifact, or of the file's bytes."""
    _path: Path | None = None
    _datasets: Datasets | None = None
    _split: str | None = None

    def batches(self) -> Iterator[list[Row]]:
        """Return the rows in their order, at most `BATCH_ROWS` at a time, in bounded memory.

        Raises:
            StorageFailed: a file of the store is missing or damaged.
        """
        if self._datasets is not None:
            found = self._datasets.rows(self.source, split=self._split)
            return _batched(found)
        assert self._path is not None
        if self._path.suffix == PARQUET:
            return _parquet(self._path)
        return _batched(_json_lines(self._path))


def open_rows(source: Source, *, folder: Path, datasets: Datasets | None) -> Rows:
    """Find a source; a path is taken from `folder`.

    Raises:
        NotFound: there is no such file, dataset or split.
        InvalidRequest: it is no format that rows are read from.
        InvalidConfiguration: it is a dataset, and there is no store.
    """
    if source.rows.startswith(f"{KIND}/"):
        if datasets is None:
            raise InvalidConfiguration(f"{source.rows!r} is in the store, and none is open")
        found = datasets.find(source.rows)
        if source.split is not None:
            datasets.describe(source.rows).check_split(source.split)
        pinned = f"{KIND}/{found.name}@{found.digest}"
        return Rows(pinned, found.digest, _datasets=datasets, _split=source.split)
    path = folder / Path(source.rows).expanduser()
    if not path.is_file():
        raise NotFound("file of rows", source.rows)
    if path.suffix not in {*JSON_LINES, PARQUET}:
        raise InvalidRequest(
            f"{source.rows!r} is neither JSON Lines ({', '.join(JSON_LINES)}) nor {PARQUET}; put "
            "it in the store with 'ragstone datasets put'"
        )
    if source.split is not None:
        raise InvalidRequest(f"{source.rows!r} is a file and has no splits; drop 'split'")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Rows(source.rows, f"sha256:{digest}", _path=path)


def _batched(rows: Iterator[Row] | Iterator[dict[str, Any]]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _json_lines(path: Path) -> Iterator[Row]:
    """Lines that are blank hold no row; the number of a row is that of its line without them."""
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            if line.isspace():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Unreadable(f"not JSON: {error}")
                continue
            yield row if isinstance(row, dict) else Unreadable("no mapping of columns")


def _parquet(path: Path) -> Iterator[list[Row]]:
    parquet = require("pyarrow.parquet", extra="finetune")
    arrow = require("pyarrow", extra="finetune")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield batch.to_pylist()
    except (arrow.ArrowInvalid, OSError) as error:
        raise InvalidRequest(f"{str(path)!r} is no Parquet that can be read: {error}") from None
