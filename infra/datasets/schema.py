"""The columns of a dataset as they are written in JSON, and read back as Arrow's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.errors import StorageFailed
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

_SIMPLE = (
    *("null", "bool", "string", "binary", "float32", "float64", "date32"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"duration[{unit}]" for unit in ("s", "ms", "us", "ns")),
    *("time32[s]", "time32[ms]", "time64[us]", "time64[ns]"),
)
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, tz=(.+))?\]")
_DECIMAL = re.compile(r"decimal128\((\d+), (-?\d+)\)")
_FIXED_LIST = re.compile(r"fixed_size_list<.*>\[(\d+)\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or a part of a nested one."""

    name: str
    type: str
    """Arrow's name of it, such as `int64`, `string`, `timestamp[us]` or `list<item: string>`."""
    fields: tuple[Field, ...] = ()
    """Of a list its items, of a map key and value, of a struct its members."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        inner = {"fields": [field.as_dict() for field in self.fields]} if self.fields else {}
        return {"name": self.name, "type": self.type, **inner}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Field:
        inner = tuple(cls.from_dict(field) for field in value.get("fields", ()))
        return cls(value["name"], value["type"], inner)


def describe(schema: pa.Schema) -> tuple[Field, ...]:
    """Return a plain schema as fields."""
    return tuple(_field(field) for field in schema)


def to_arrow(fields: Iterable[Field]) -> pa.Schema:
    """Return the schema that `describe` described.

    Raises:
        StorageFailed: a type is not one that `describe` writes.
    """
    pa = require("pyarrow", extra="data")
    return pa.schema([pa.field(field.name, _arrow_type(pa, field)) for field in fields])


def _field(field: Any) -> Field:
    kind = field.type
    parts = [kind.field(index) for index in range(kind.num_fields)]
    # Of a map Arrow's only part is the struct of its entries.
    if str(kind).startswith("map<"):
        parts = [kind.key_field, kind.item_field]
    return Field(field.name, str(kind), tuple(_field(part) for part in parts))


def _arrow_type(pa: Any, field: Field) -> Any:
    name = field.type
    parts = [pa.field(part.name, _arrow_type(pa, part)) for part in field.fields]
    if name.startswith("struct<"):
        return pa.struct(parts)
    if name.startswith("map<"):
        return pa.map_(parts[0].type, parts[1].type)
    if name.startswith("list<"):
        return pa.list_(parts[0])
    if match := _FIXED_LIST.fullmatch(name):
        return pa.list_(parts[0], int(match[1]))
    known = known_types(pa).get(name) or parametric_type(pa, name)
    if known is None:
        raise StorageFailed(f"Column {field.name!r} has the unknown type {name!r}")
    return known


def known_types(pa: Any) -> dict[str, Any]:
    return {str(kind): kind for kind in map(pa.type_for_alias, _SIMPLE)}


def parametric_type(pa: Any, name: str) -> Any:
    if match := _TIMESTAMP.fullmatch(name):
        return pa.timestamp(match[1], tz=match[2])
    if match := _DECIMAL.fullmatch(name):
        return pa.decimal128(int(match[1]), int(match[2]))
    return None
