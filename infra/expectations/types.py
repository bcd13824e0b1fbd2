"""Names of column types: families such as `integer`, and the types of polars by their own name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from infra.errors import NotFound

if TYPE_CHECKING:
    import polars as pl

_SIGNED = ("Int8", "Int16", "Int32", "Int64", "Int128")
_UNSIGNED = ("UInt8", "UInt16", "UInt32", "UInt64", "UInt128")
_FLOATS = ("Float16", "Float32", "Float64")
_OTHERS = (
    "String",
    "Categorical",
    "Enum",
    "Boolean",
    "Date",
    "Datetime",
    "Time",
    "Duration",
    "Decimal",
    "Binary",
    "List",
    "Array",
    "Struct",
    "Null",
)
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "integer": (*_SIGNED, *_UNSIGNED),
    "float": _FLOATS,
    "number": (*_SIGNED, *_UNSIGNED, *_FLOATS, "Decimal"),
    "string": ("String", "Categorical", "Enum"),
    "boolean": ("Boolean",),
    "date": ("Date",),
    "datetime": ("Datetime",),
    "time": ("Time",),
    "duration": ("Duration",),
    "binary": ("Binary",),
    "list": ("List", "Array"),
    "struct": ("Struct",),
    "null": ("Null",),
}
EXACT = frozenset((*_SIGNED, *_UNSIGNED, *_FLOATS, *_OTHERS))


def check_type(name: str) -> str:
    """Return the name of a type.

    Raises:
        ValueError: there is none of that name; the nearest are suggested.
    """
    if name not in FAMILIES and name not in EXACT:
        raise ValueError(NotFound("type", name, among=[*FAMILIES, *EXACT]).message)
    return name


def is_of(dtype: pl.DataType, name: str) -> bool:
    """Say whether a column's type is the one named, or of its family."""
    return str(dtype.base_type()) in FAMILIES.get(name, (name,))


def family(dtype: pl.DataType) -> str | None:
    """Return the narrowest family of a column's type; `None` where it has none of its own."""
    own = str(dtype.base_type())
    if own == "Decimal":
        return "number"
    return next((name for name, members in FAMILIES.items() if own in members), None)
