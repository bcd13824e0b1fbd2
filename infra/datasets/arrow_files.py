"""Reads and writes streams of Arrow batches, which is how Hugging Face datasets lie on a disk."""

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


def infer(files: Sequence[DataFile]) -> pa.Schema:
    """Return the plain schema of all files. Raises as `files.infer` does."""
    found = []
    for file in files:
        with _opened(file) as stream:
            found.append((file.path, plain.plain_schema(stream.schema, source=file.path)))
    return plain.unify(found)


def batches(file: DataFile, schema: pa.Schema, *, rows: int) -> Iterator[pa.RecordBatch]:
    """Return the rows of one file. Raises as `files.batches` does."""
    with _opened(file) as stream:
        for batch in stream:
            # Unlike a Parquet file's, the offsets in these bytes are followed as they stand.
            batch.validate(full=True)
            known = batch.select([name for name in batch.schema.names if name in schema.names])
            whole = plain.conform(known, schema, source=file.path)
            for start in range(0, whole.num_rows, rows):
                yield whole.slice(start, rows)


def write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches to a new file."""
    pa = require("pyarrow", extra="data")
    with pa.ipc.new_stream(str(path), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


@contextmanager
def _opened(file: DataFile) -> Iterator[Any]:
    pa = require("pyarrow", extra="data")
    with file.opened() as stream:
        try:
            with pa.ipc.open_stream(pa.PythonFile(stream, mode="r")) as reader:
                yield reader
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(f"{file.path!r} is not a whole Arrow file: {error}") from error
