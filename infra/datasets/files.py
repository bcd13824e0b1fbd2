"""The files of a dataset: which format each has, and how its rows are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from infra.datasets import (
    arrow_files,
    csv_files,
    csv_types,
    json_lines,
    json_types,
    parquet_files,
)
from infra.datasets.data_file import COMPRESSED, DataFile

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.datasets.csv_files import Dialect

Format = Literal["parquet", "jsonl", "csv", "arrow"]

BATCH_ROWS = 16_384
_ENDINGS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}


def format_of(path: str) -> Format | None:
    """Return the format that the ending of a path tells, `None` if it tells none."""
    name = PurePosixPath(path.lower())
    if name.suffix == COMPRESSED:
        found = _ENDINGS.get(PurePosixPath(name.stem).suffix)
        return found if found in ("jsonl", "csv") else None
    return _ENDINGS.get(name.suffix)


def infer(form: Format, files: Sequence[DataFile], dialect: Dialect) -> pa.Schema:
    """Return the plain schema that holds the rows of all files.

    Parquet and Arrow files say theirs; text is read to the end to find it.

    Raises:
        InvalidRequest: a file is damaged, or the files do not go together; names file and line.
        TooLarge: a line or the number of columns exceeds its limit.
    """
    match form:
        case "parquet":
            return parquet_files.infer(files)
        case "arrow":
            return arrow_files.infer(files)
        case "jsonl":
            return json_types.infer(files)
        case "csv":
            return csv_types.infer(files, dialect)


def batches(
    form: Format, file: DataFile, schema: pa.Schema, *, dialect: Dialect, rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Return the rows of one file with the columns of `schema`, at most `rows` at a time.

    Raises as `infer` does, and `InvalidRequest` for a value that does not fit its column.
    """
    match form:
        case "parquet":
            return parquet_files.batches(file, schema, rows=rows)
        case "arrow":
            return arrow_files.batches(file, schema, rows=rows)
        case "jsonl":
            return json_lines.batches(file, schema, rows=rows)
        case "csv":
            return csv_files.batches(file, schema, dialect=dialect, rows=rows)
