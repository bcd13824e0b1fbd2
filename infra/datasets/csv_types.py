"""Finds the types of CSV by reading every value, so that no value changes on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infra.datasets import plain
from infra.datasets import schema as schemas
from infra.datasets.csv_files import FALSE, TRUE, Dialect, header, tables
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

    from infra.datasets.data_file import DataFile

_INTEGER = r"-?(?:0|[1-9][0-9]{0,17})"
_FRACTION = (
    r"-?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|0|[1-9][0-9]{0,14})(?:[eE][+-]?[0-9]{1,3})?"
    r"|-?(?:nan|NaN|inf)"
)
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_MOMENT = _DAY + r"[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
_TYPES = {
    "bool": "|".join((*TRUE, *FALSE)),
    "int64": _INTEGER,
    "double": _FRACTION,
    "date32[day]": _DAY,
    "timestamp[us]": _MOMENT,
    "timestamp[us, tz=UTC]": _MOMENT + r"(?:Z|[+-][0-9]{2}:?[0-9]{2})",
}
"""Types in the order they are preferred in, and what every value must look like.

Numbers with leading zeros, integers of 19 and more digits, and fractions mixed with integers that a
float does not hold stay text.
"""
_CAST = frozenset({"date32[day]", "timestamp[us]", "timestamp[us, tz=UTC]"})
"""What looks right and may still not exist, such as 30 February."""


@dataclass(slots=True)
class _Guess:
    """The types that fit all values so far."""

    types: dict[str, str] = field(default_factory=lambda: dict(_TYPES))
    seen: bool = False

    def add(self, values: Any, pa: Any, compute: Any) -> None:
        values = values.drop_null()
        if not len(values) or (self.seen and not self.types):
            return
        self.seen = True
        for name, pattern in list(self.types.items()):
            like = compute.match_substring_regex(values, f"^(?:{pattern})$")
            if not compute.all(like).as_py() or (name in _CAST and not _casts(pa, values, name)):
                del self.types[name]

    @property
    def best(self) -> str:
        return next(iter(self.types), "string") if self.seen else "string"


def infer(files: Sequence[DataFile], dialect: Dialect) -> pa.Schema:
    """Return the plain schema of all files. Raises as `files.infer` does."""
    pa = require("pyarrow", extra="data")
    compute = require("pyarrow.compute", extra="data")
    guesses: dict[str, _Guess] = {}
    for file in files:
        names = header(file, dialect)
        plain.check_names(names, source=file.path)
        for batch in tables(file, dialect, dict.fromkeys(names, pa.string())):
            for name, column in zip(names, batch.columns, strict=True):
                guesses.setdefault(name, _Guess()).add(column, pa, compute)
        for name in names:
            guesses.setdefault(name, _Guess())
    return schemas.to_arrow(schemas.Field(name, guess.best) for name, guess in guesses.items())


def _casts(pa: Any, values: Any, name: str) -> bool:
    try:
        values.cast(schemas.to_arrow([schemas.Field("", name)]).field(0).type)
    except pa.ArrowInvalid:
        return False
    return True
