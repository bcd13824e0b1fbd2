"""Finds the types of JSON Lines by reading all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from infra.datasets import plain
from infra.datasets.json_lines import Chunk, array_of, chunks, first_bad, unfit
from infra.errors import InvalidRequest
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.datasets.data_file import DataFile

_CHUNK_ROWS = 10_000


def infer(files: Sequence[DataFile]) -> pa.Schema:
    """Return the plain schema of all files. Raises as `files.infer` does."""
    pa = require("pyarrow", extra="data")
    found = pa.schema([])
    for file in files:
        for chunk in chunks(file, _CHUNK_ROWS):
            found = _widened(pa, found, chunk, file)
    source = ", ".join(file.path for file in files)
    if not found.names:
        raise InvalidRequest(f"{source!r} holds no rows, so its columns are unknown")
    return plain.plain_schema(found, source=source)


def _widened(pa: Any, found: Any, chunk: Chunk, file: DataFile) -> Any:
    names = list(dict.fromkeys(name for row in chunk.rows for name in row))
    fields = []
    for name in names:
        if not name:
            raise InvalidRequest(f"{file.path!r}, line {chunk.lines[0]} or later: a key is empty")
        before = found.field(name).type if name in found.names else pa.null()
        kind = partial(_kind, pa, name, before)
        try:
            fields.append(pa.field(name, kind(chunk.rows)))
        except (pa.ArrowException, OverflowError) as error:
            raise unfit(file, first_bad(chunk, kind, pa=pa), name, error) from error
    missing = [column for column in found if column.name not in names]
    order = {column.name: place for place, column in enumerate(found)}
    fields = sorted([*missing, *fields], key=lambda item: order.get(item.name, len(order)))
    return pa.schema(fields)


def _kind(pa: Any, name: str, before: Any, rows: Sequence[dict[str, Any]]) -> Any:
    """Return the type that holds the values of a column and those that came `before`."""
    after = array_of(pa, name, None, rows).type
    if "double" in str(after) and any(_mixes(pa, row.get(name), after) for row in rows):
        raise pa.ArrowInvalid("true and false are no fractions")
    if before.equals(after):
        return after
    both = [pa.schema([pa.field("value", kind)]) for kind in (before, after)]
    return pa.unify_schemas(both, promote_options="permissive").field("value").type


def _mixes(pa: Any, value: Any, kind: Any) -> bool:
    """Tell whether a boolean stands where Arrow read a fraction, and would make it 0 or 1."""
    match value:
        case bool():
            return bool(pa.types.is_floating(kind))
        case list():
            return any(_mixes(pa, item, kind.value_type) for item in value)
        case dict():
            return any(_mixes(pa, item, kind.field(name).type) for name, item in value.items())
        case _:
            return False
