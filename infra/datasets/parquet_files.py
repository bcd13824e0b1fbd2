"""Reads and writes Parquet, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.datasets import plain
from infra.errors import InvalidRequest
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.datasets.data_file import DataFile

GROUP_ROWS = 131_072
GROUP_BYTES = 64 << 20
"""Of rows that are written at once."""
BATCH_BYTES = 16 << 20
"""Of rows that are read at once, as far as the file tells how large they are."""
_BUFFER_BYTES = 1 << 20
_MAX_FOOTER_BYTES = 64 << 20


def infer(files: Sequence[DataFile]) -> pa.Schema:
    """Return the plain schema of all files. Raises as `files.infer` does."""
    found = []
    for file in files:
        with _opened(file) as table:
            found.append((file.path, plain.plain_schema(table.schema_arrow, source=file.path)))
    return plain.unify(found)


def batches(file: DataFile, schema: pa.Schema, *, rows: int) -> Iterator[pa.RecordBatch]:
    """Return the rows of one file. Raises as `files.batches` does."""
    with _opened(file) as table:
        names = [name for name in table.schema_arrow.names if name in schema.names]
        fitting = _fitting(table.metadata, rows)
        for batch in table.iter_batches(fitting, columns=names, use_threads=False):
            yield plain.conform(batch, schema, source=file.path)


def write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches to a new file."""
    pa = require("pyarrow", extra="data")
    parquet = require("pyarrow.parquet", extra="data")
    rows = size = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting: list[Any] = []
        for batch in batches:
            waiting.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting, schema), GROUP_ROWS)
                waiting.clear()
                rows = size = 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema), GROUP_ROWS)


def _fitting(metadata: Any, rows: int) -> int:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(rows, int(BATCH_BYTES / size))) if size else rows


@contextmanager
def _opened(file: DataFile) -> Iterator[Any]:
    pa = require("pyarrow", extra="data")
    parquet = require("pyarrow.parquet", extra="data")
    with file.opened() as stream:
        try:
            # Without a buffer of its own Arrow would hold whole row groups.
            with parquet.ParquetFile(
                pa.PythonFile(stream, mode="r"),
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
                thrift_string_size_limit=_MAX_FOOTER_BYTES,
                thrift_container_size_limit=_MAX_FOOTER_BYTES,
            ) as table:
                yield table
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(f"{file.path!r} is not a whole Parquet file: {error}") from error
