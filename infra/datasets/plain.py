"""Makes Arrow's tables plain: one type for each meaning, and one schema over all files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infra.datasets.schema import known_types, parametric_type
from infra.errors import InvalidRequest, TooLarge
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

MAX_COLUMNS = 10_000
MAX_DEPTH = 64
"""Of lists and structs within each other."""


def plain_schema(schema: pa.Schema, *, source: str) -> pa.Schema:
    """Return the schema with one type for each meaning: no encodings, views or extensions.

    Raises:
        InvalidRequest: there are no columns, two of one name, or one of a type that is not read.
        TooLarge: there are more than 10,000, or they are nested too deep.
    """
    pa = require("pyarrow", extra="data")
    check_names(schema.names, source=source)
    for field in schema:
        if _is_deeper(field.type, MAX_DEPTH):
            raise TooLarge(
                f"Column {field.name!r} of {source!r} is nested more than {MAX_DEPTH} deep; "
                "flatten it"
            )
    return pa.schema([pa.field(field.name, _plain_type(pa, field, source)) for field in schema])


def check_names(names: Sequence[str], *, source: str) -> None:
    """Refuse columns that could not be told apart.

    Raises:
        InvalidRequest: there are none, one has no name, or two have the same.
        TooLarge: there are more than 10,000.
    """
    if not names:
        raise InvalidRequest(f"{source!r} has no columns")
    if len(names) > MAX_COLUMNS:
        raise TooLarge(
            f"{source!r} has {len(names):,} columns, more than {MAX_COLUMNS:,}; "
            "put what belongs together into lists"
        )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InvalidRequest(f"{source!r} has {times} columns named {name!r}; rename them")
    if "" in names:
        position = list(names).index("") + 1
        raise InvalidRequest(f"Column {position} of {source!r} has no name; give it one")


def unify(schemas: Sequence[tuple[str, pa.Schema]]) -> pa.Schema:
    """Return the schema that holds the rows of all files: `(file, its plain schema)`.

    A column that a file lacks is null there; integers become fractions where a file has some.

    Raises:
        InvalidRequest: a column has types in two files that have nothing in common.
    """
    pa = require("pyarrow", extra="data")
    first, unified = schemas[0]
    for name, schema in schemas[1:]:
        try:
            unified = pa.unify_schemas([unified, schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise InvalidRequest(f"{name!r} does not go with {first!r}: {error}") from error
    return unified


def conform(
    batch: pa.RecordBatch, schema: pa.Schema, *, source: str, exact: bool = True
) -> pa.RecordBatch:
    """Return the batch with the columns and types of a plain schema.

    Unless `exact`, a number may be rounded to its type.

    Raises:
        InvalidRequest: a value does not fit the type.
    """
    pa = require("pyarrow", extra="data")
    if batch.schema.equals(schema):
        return batch
    positions = {name: position for position, name in enumerate(batch.schema.names)}
    columns = []
    for field in schema:
        if field.name not in positions:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(positions[field.name])
        try:
            columns.append(_cast(pa, column, field.type, exact=exact))
        except (pa.ArrowException, OverflowError) as error:
            raise InvalidRequest(f"{source!r}, column {field.name!r}: {error}") from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return one mapping for each row; times that Python has no type for are text.

    Raises:
        InvalidRequest: such a time is part of a list or struct.
    """
    pa = require("pyarrow", extra="data")
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        try:
            columns.append(column.to_pylist())
        except (ValueError, OverflowError) as error:
            if not pa.types.is_temporal(field.type):
                raise InvalidRequest(f"Column {field.name!r} cannot be shown: {error}") from error
            columns.append(column.cast(pa.string()).to_pylist())
    if not columns:
        return [{} for _ in range(batch.num_rows)]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _is_deeper(kind: Any, limit: int) -> bool:
    level = [kind]
    for _ in range(limit):
        level = [outer.field(index).type for outer in level for index in range(outer.num_fields)]
        if not level:
            return False
    return True


def _cast(pa: Any, column: Any, target: Any, *, exact: bool) -> Any:
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if column.type.equals(target) else column.cast(target, safe=exact)


def _plain_type(pa: Any, field: Any, source: str) -> Any:
    is_, kind = pa.types, field.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(pa, pa.field(field.name, kind.storage_type), source)
    if is_.is_dictionary(kind) or is_.is_run_end_encoded(kind):
        return _plain_type(pa, pa.field(field.name, kind.value_type), source)
    if is_.is_nested(kind):
        return _plain_nested(pa, field, source)
    meanings = (
        (is_.is_large_string(kind) or is_.is_string_view(kind), pa.string()),
        (is_.is_large_binary(kind) or is_.is_binary_view(kind), pa.binary()),
        (is_.is_fixed_size_binary(kind) and not is_.is_decimal(kind), pa.binary()),
        (is_.is_float16(kind), pa.float32()),
        (is_.is_date64(kind), pa.timestamp("ms")),
    )
    for holds, meaning in meanings:
        if holds:
            return meaning
    if is_.is_decimal(kind) and kind.bit_width < 128:
        return pa.decimal128(kind.precision, kind.scale)
    if str(kind) not in known_types(pa) and not parametric_type(pa, str(kind)):
        raise InvalidRequest(
            f"Column {field.name!r} of {source!r} has type {str(kind)!r}, which is not read; "
            "cast it to a number, text, time or list"
        )
    return kind


def _plain_nested(pa: Any, field: Any, source: str) -> Any:
    is_, kind = pa.types, field.type

    def inner(part: Any) -> Any:
        return _plain_type(pa, pa.field(f"{field.name}.{part.name}", part.type), source)

    if is_.is_struct(kind):
        members = [kind.field(index) for index in range(kind.num_fields)]
        if members:
            check_names([part.name for part in members], source=f"{source}: {field.name}")
        return pa.struct([pa.field(part.name, inner(part)) for part in members])
    if is_.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field))
    if is_.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if is_.is_union(kind):
        raise InvalidRequest(
            f"Column {field.name!r} of {source!r} is a union; give all its values one type"
        )
    return pa.list_(inner(kind.value_field))
