"""Reads and writes JSON Lines, one object per line, and says which line is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from infra.errors import InvalidRequest, TooLarge
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.datasets.data_file import DataFile

MAX_LINE_BYTES = 64 << 20
_CHUNK_BYTES = 8 << 20
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
"""What orjson would read as a fraction where it is an integer of more than 64 bits."""
_LONGEST_INTEGER = 20
_SHOWN = 80


@dataclass(slots=True)
class Chunk:
    """Neighbouring lines."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """Their numbers, from 1."""
    size: int = 0
    """Bytes."""


def batches(file: DataFile, schema: pa.Schema, *, rows: int) -> Iterator[pa.RecordBatch]:
    """Return the rows of one file. Raises as `files.batches` does."""
    pa = require("pyarrow", extra="data")

    for chunk in chunks(file, rows):
        columns = []
        for column in schema:
            build = partial(array_of, pa, column.name, column.type)
            try:
                columns.append(build(chunk.rows))
            except (pa.ArrowException, OverflowError) as error:
                line = first_bad(chunk, build, pa=pa)
                raise unfit(file, line, column.name, error) from error
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to a new file.

    Raises:
        InvalidRequest: a row is not an object of JSON values; tells which.
    """
    with path.open("wb") as stream:
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise InvalidRequest(f"Row {number} is {row!r:.80}, not a mapping of columns")
            try:
                stream.write(orjson.dumps(dict(row), option=orjson.OPT_APPEND_NEWLINE))
            except TypeError as error:
                raise InvalidRequest(f"Row {number} is not JSON: {error}") from error


def chunks(file: DataFile, rows: int) -> Iterator[Chunk]:
    with file.opened() as stream:
        chunk = Chunk()
        for number, line in enumerate(_lines(stream, file), 1):
            if not line.strip():
                continue
            chunk.rows.append(_row(line, number, file))
            chunk.lines.append(number)
            chunk.size += len(line)
            if len(chunk.rows) >= rows or chunk.size >= _CHUNK_BYTES:
                yield chunk
                chunk = Chunk()
        if chunk.rows:
            yield chunk


def _lines(stream: BinaryIO, file: DataFile) -> Iterator[bytes]:
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), 1):
        if len(line) > MAX_LINE_BYTES:
            raise TooLarge(
                f"{file.path!r}, line {number}: more than {MAX_LINE_BYTES:,} bytes; "
                "put large values into files of their own"
            )
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _row(line: bytes, number: int, file: DataFile) -> dict[str, Any]:
    try:
        if _LONG_NUMBER.search(line):
            json.loads(line, parse_int=_checked)
        row = orjson.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line[:_SHOWN].decode(errors="replace").strip()
        raise InvalidRequest(f"{file.path!r}, line {number}: {error} in {shown!r}") from error
    if not isinstance(row, dict):
        raise InvalidRequest(
            f"{file.path!r}, line {number}: {row!r:.80} is not an object; write one per line"
        )
    return row


def _checked(digits: str) -> int:
    # Python refuses to read integers of thousands of digits.
    if len(digits) > _LONGEST_INTEGER or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"integer {digits[:_SHOWN]} needs more than 64 bits; write it as text")
    return int(digits)


def array_of(pa: Any, name: str, kind: Any, rows: Sequence[dict[str, Any]]) -> Any:
    return pa.array([row.get(name) for row in rows], type=kind)


def first_bad(chunk: Chunk, build: Callable[[Sequence[dict[str, Any]]], Any], *, pa: Any) -> int:
    """Return the number of the line with which `build` begins to fail."""
    good, bad = 0, len(chunk.rows)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            build(chunk.rows[:middle])
            good = middle
        except (pa.ArrowException, OverflowError):
            bad = middle
    return chunk.lines[bad - 1]


def unfit(file: DataFile, line: int, column: str, error: Exception) -> InvalidRequest:
    return InvalidRequest(
        f"{file.path!r}, line {line}: {column!r} does not go with the lines before: {error}"
    )
