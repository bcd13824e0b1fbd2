"""Reads CSV some whole rows at a time, and says on which line it is not CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from infra.datasets import plain
from infra.errors import InvalidRequest, TooLarge
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.datasets.data_file import DataFile

MAX_ROW_BYTES = 64 << 20
_BLOCK_BYTES = 4 << 20
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_MARK = b"\xef\xbb\xbf"
_ROW = re.compile(r"Row #([0-9]+)")
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Dialect:
    """How CSV is written."""

    delimiter: str | None = None
    """One ASCII character; by default a comma, and a tab in files that end in `.tsv`."""
    nulls: tuple[str, ...] = ("",)
    """What stands for a missing value where it is not in quotes."""

    def __post_init__(self) -> None:
        given = self.delimiter
        if given is not None and (len(given) != 1 or given in '"\r\n' or not given.isascii()):
            raise InvalidRequest(
                f"{given!r} cannot delimit columns; give one character such as ';'",
                parameter="delimiter",
            )

    def between(self, path: str) -> str:
        """Return what delimits the columns of a file."""
        tabs = path.lower().removesuffix(".gz").endswith(".tsv")
        return self.delimiter or ("\t" if tabs else ",")


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some whole rows as they stand in a file."""

    data: bytes
    line: int
    """The number of their first line, from 1."""


def header(file: DataFile, dialect: Dialect) -> list[str]:
    """Return the names of the columns.

    Raises:
        InvalidRequest: there are none, or they are not text in UTF-8.
    """
    with file.opened() as stream:
        first = next(_whole_rows(stream, file, dialect), _Rows(b"", 1))
    names, _ = _header_in(first, file, dialect)
    return names


def tables(file: DataFile, dialect: Dialect, types: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
    """Return the rows of one file with columns of the given types. Raises as `files.batches`."""
    pa = require("pyarrow", extra="data")
    reading = require("pyarrow.csv", extra="data")
    parsing = reading.ParseOptions(delimiter=dialect.between(file.path), newlines_in_values=True)
    conversion = reading.ConvertOptions(
        column_types=dict(types),
        null_values=list(dialect.nulls),
        true_values=list(TRUE),
        false_values=list(FALSE),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    names: list[str] = []
    with file.opened() as stream:
        for rows in _whole_rows(stream, file, dialect):
            if not names:
                names, rows = _header_in(rows, file, dialect)
            if not rows.data.strip(b"\r\n"):
                continue
            options = reading.ReadOptions(
                use_threads=False, block_size=len(rows.data) + 1, column_names=names
            )
            try:
                # Arrow's own streaming reader reads ahead in a thread, which may wait for Python
                # forever when it is told to stop.
                table = reading.read_csv(pa.BufferReader(rows.data), options, parsing, conversion)
            except pa.ArrowException as error:
                raise _refused(rows, names, file, dialect=dialect, error=error) from error
            yield from table.to_batches()


def batches(
    file: DataFile, schema: pa.Schema, *, dialect: Dialect, rows: int
) -> Iterator[pa.RecordBatch]:
    """Return the rows of one file. Raises as `files.batches` does."""
    pa = require("pyarrow", extra="data")
    types = {column.name: column.type for column in schema}
    known = {name: types.get(name, pa.string()) for name in header(file, dialect)}
    for batch in tables(file, dialect, known):
        wanted = batch.select([name for name in batch.schema.names if name in types])
        whole = plain.conform(wanted, schema, source=file.path)
        for start in range(0, whole.num_rows, rows):
            yield whole.slice(start, rows)


def _whole_rows(stream: BinaryIO, file: DataFile, dialect: Dialect) -> Iterator[_Rows]:
    """Divide a file between rows, into parts of about 4 MiB."""
    delimiter = re.escape(dialect.between(file.path)).encode()
    quoted = re.compile(rb"(?:^|(?<=[\r\n]|" + delimiter + rb'))"[^"]*+(?:""[^"]*+)*+"?')
    line, rest = 1, b""
    while block := stream.read(_BLOCK_BYTES):
        data = rest + block if line > 1 or rest else block.removeprefix(_MARK)
        end = _last_end(data, quoted)
        rest = data[end:]
        if len(rest) > MAX_ROW_BYTES:
            raise TooLarge(
                f"{file.path!r}, line {line + data.count(bytes([10]), 0, end)}: a row of more than "
                f"{MAX_ROW_BYTES:,} bytes, or a quote that is not closed"
            )
        if end:
            yield _Rows(data[:end], line)
            line += data.count(b"\n", 0, end)
    if rest:
        yield _Rows(rest, line)


def _last_end(data: bytes, quoted: re.Pattern[bytes]) -> int:
    """Return where the last whole row ends: behind a line break that no quotes hold."""
    end = len(data)
    spans = [match.span() for match in quoted.finditer(data)] if b'"' in data else []
    for start, stop in reversed(spans):
        found = data.rfind(b"\n", stop, end)
        if found >= 0:
            return found + 1
        end = start
    return data.rfind(b"\n", 0, end) + 1


def _header_in(rows: _Rows, file: DataFile, dialect: Dialect) -> tuple[list[str], _Rows]:
    """Return the names in the first row, and the rows behind it."""
    try:
        reader = _read(rows.data, file, dialect)
        names: list[str] = next(reader, [])
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{file.path!r} is not text in UTF-8 ({error.reason}); convert it"
        ) from error
    except csv.Error as error:
        raise InvalidRequest(f"{file.path!r}, line 1: {error}") from error
    if not names:
        raise InvalidRequest(f"{file.path!r} is empty; its first line must name the columns")
    lines = io.StringIO(rows.data.decode(), newline="")
    skipped = sum(len(line.encode()) for line in islice(lines, reader.line_num))
    return names, _Rows(rows.data[skipped:], rows.line + reader.line_num)


def _read(data: bytes, file: DataFile, dialect: Dialect) -> Any:
    """Read as the standard library does, which knows the number of each line."""
    text = io.StringIO(data.decode("utf-8"), newline="")
    return csv.reader(text, delimiter=dialect.between(file.path), strict=True)


def _refused(
    rows: _Rows, names: list[str], file: DataFile, *, dialect: Dialect, error: Exception
) -> InvalidRequest:
    """Return the error in words that name the line."""
    found = _ROW.search(str(error))
    wrong = int(found[1]) if found else 0
    with suppress(UnicodeDecodeError, csv.Error):
        reader = _read(rows.data, file, dialect)
        for number, row in enumerate(filter(None, reader), 1):
            line = rows.line + reader.line_num - 1
            if len(row) != len(names):
                return InvalidRequest(
                    f"{file.path!r}, line {line}: {len(row)} values for {len(names)} "
                    f"columns in {dialect.between(file.path).join(row)[:_SHOWN]!r}"
                )
            if number == wrong:
                return InvalidRequest(f"{file.path!r}, line {line}: {error}")
    return InvalidRequest(f"{file.path!r}, line {rows.line} or later: {error}")
