"""Metadata filters in the shape of OpenAI's vector stores: parsed once, matched many times."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, TypeGuard

from infra.contracts import Metadata
from infra.errors import InvalidFilter

Scalar: TypeAlias = str | int | float | bool
Kind: TypeAlias = Literal["text", "number", "boolean"]

MAX_DEPTH = 8
MAX_FILTERS = 100
"""Comparisons and combinations in one filter."""
MAX_VALUES = 1_000
"""In one list."""
MAX_CHARACTERS = 1_000
"""In one key or text value."""

_ORDERINGS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_EQUALITIES = ("eq", "ne")
_MEMBERSHIPS = ("in", "nin")
_COMBINATIONS = ("and", "or")
TYPES = (*_EQUALITIES, *_ORDERINGS, *_MEMBERSHIPS, *_COMBINATIONS, "not")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One key against one value; numbers are compared with numbers, texts by code point."""

    type: str
    """eq, ne, gt, gte, lt or lte."""
    key: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class Membership:
    """One key against a list of values."""

    type: str
    """in or nin."""
    key: str
    values: frozenset[tuple[Kind, Scalar]]
    """With their kinds, because Python takes 1 and True for the same."""


@dataclass(frozen=True, slots=True)
class Combination:
    """All of some filters, or any of them."""

    type: str
    """and or or."""
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """Whatever a filter does not match."""

    filter: Filter


Filter: TypeAlias = Comparison | Membership | Combination | Negation


def parse(raw: object) -> Filter:
    """Check a filter as it comes from JSON.

    A comparison is `{"type": "eq", "key": ..., "value": ...}` with eq, ne, gt, gte, lt, lte, in or
    nin; a combination `{"type": "and", "filters": [...]}` with and or or; a negation
    `{"type": "not", "filter": {...}}`.

    >>> year = parse({"type": "gte", "key": "year", "value": 2020})
    >>> matches(year, {"year": 2021}), matches(year, {"year": "2021"}), matches(year, {})
    (True, False, False)

    Raises:
        InvalidFilter: with the place in the filter, such as `filters[1].key`.
    """
    return _Parser().parse(raw, path="", depth=1)


def matches(chosen: Filter, metadata: Metadata) -> bool:
    """Tell whether a document's metadata pass the filter.

    A missing key, like a value of another kind, is equal to nothing and neither more nor less
    than anything: of the comparisons only `ne` and `nin` match it.
    """
    match chosen:
        case Comparison():
            return _compares(chosen, metadata.get(chosen.key))
        case Membership():
            value = metadata.get(chosen.key)
            held = _is_scalar(value) and (kind_of(value), value) in chosen.values
            return held == (chosen.type == "in")
        case Combination():
            results = (matches(part, metadata) for part in chosen.filters)
            return all(results) if chosen.type == "and" else any(results)
        case Negation():
            return not matches(chosen.filter, metadata)


def check_fields(chosen: Filter, known: Mapping[str, Collection[Kind]]) -> None:
    """Refuse a filter that can only be a mistake.

    >>> known = {"year": ["number"]}
    >>> check_fields(parse({"type": "eq", "key": "year", "value": 2020}), known)
    >>> check_fields(parse({"type": "ne", "key": "yaer", "value": 2020}), known)
    Traceback (most recent call last):
    infra.errors.InvalidFilter: No document has a field 'yaer'; did you mean 'year'?

    Args:
        chosen: the filter.
        known: the fields of the documents that may be read, with the kinds of their values.

    Raises:
        InvalidFilter: none of them has a field of that name, or none a value of that kind in it.
    """
    match chosen:
        case Comparison():
            _check_field(chosen.key, {kind_of(chosen.value)}, known)
        case Membership():
            _check_field(chosen.key, {kind for kind, _ in chosen.values}, known)
        case Combination():
            for part in chosen.filters:
                check_fields(part, known)
        case Negation():
            check_fields(chosen.filter, known)


def _check_field(key: str, wanted: Collection[Kind], known: Mapping[str, Collection[Kind]]) -> None:
    if key not in known:
        near = get_close_matches(key, known, n=1)
        hint = (
            f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known)[:20])}"
        )
        raise InvalidFilter(f"No document has a field {_shown(key)}; {hint}", parameter="filters")
    for kind in sorted(wanted):
        if kind not in known[key]:
            held = " or ".join(f"a {each}" for each in sorted(known[key]))
            raise InvalidFilter(
                f"The field {_shown(key)} holds {held}, never a {kind}; compare it with {held}",
                parameter="filters",
            )


def _compares(chosen: Comparison, value: object) -> bool:
    same_kind = _is_scalar(value) and kind_of(value) == kind_of(chosen.value)
    if chosen.type in _EQUALITIES:
        return (same_kind and value == chosen.value) == (chosen.type == "eq")
    return same_kind and _ORDERINGS[chosen.type](value, chosen.value)


def _is_scalar(value: object) -> TypeGuard[Scalar]:
    return isinstance(value, str | int | float)


def kind_of(value: Scalar) -> Kind:
    """Return what a value can be compared with."""
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


class _Parser:
    """Walks one filter and counts its parts."""

    def __init__(self) -> None:
        self._parts = 0

    def parse(self, raw: object, *, path: str, depth: int) -> Filter:
        self._parts += 1
        if self._parts > MAX_FILTERS:
            raise _invalid(path, f"more than {MAX_FILTERS} parts; split the filter")
        if depth > MAX_DEPTH:
            raise _invalid(path, f"nested deeper than {MAX_DEPTH}; flatten the filter")
        if not isinstance(raw, Mapping):
            raise _invalid(path, f"must be an object, not {_shown(raw)}")
        chosen = raw.get("type")
        if not isinstance(chosen, str) or chosen not in TYPES:
            allowed = ", ".join(TYPES)
            raise _invalid(_under(path, "type"), f"must be one of {allowed}, not {_shown(chosen)}")
        if chosen in _COMBINATIONS:
            return self._combination(chosen, raw, path=path, depth=depth)
        if chosen == "not":
            _only(raw, ("type", "filter"), path)
            inner = self.parse(raw.get("filter"), path=_under(path, "filter"), depth=depth + 1)
            return Negation(inner)
        _only(raw, ("type", "key", "value"), path)
        return _comparison(chosen, raw, path)

    def _combination(
        self, chosen: str, raw: Mapping[str, object], *, path: str, depth: int
    ) -> Combination:
        _only(raw, ("type", "filters"), path)
        place = _under(path, "filters")
        filters = raw.get("filters")
        if not isinstance(filters, list | tuple) or not filters:
            raise _invalid(place, f"must be a list of filters, not {_shown(filters)}")
        return Combination(
            chosen,
            tuple(
                self.parse(part, path=f"{place}[{number}]", depth=depth + 1)
                for number, part in enumerate(filters)
            ),
        )


def _comparison(chosen: str, raw: Mapping[str, object], path: str) -> Comparison | Membership:
    key, value, place = raw.get("key"), raw.get("value"), _under(path, "value")
    if not isinstance(key, str) or not key or len(key) > MAX_CHARACTERS:
        raise _invalid(_under(path, "key"), f"must be the name of a field, not {_shown(key)}")
    if chosen not in _MEMBERSHIPS:
        checked = _scalar(value, place)
        if chosen in _ORDERINGS and isinstance(checked, bool):
            raise _invalid(place, f"{checked!r} has no order; use eq or ne")
        return Comparison(chosen, key, checked)
    if not isinstance(value, list | tuple) or len(value) > MAX_VALUES:
        raise _invalid(place, f"must be a list of up to {MAX_VALUES} values, not {_shown(value)}")
    scalars = [_scalar(part, f"{place}[{number}]") for number, part in enumerate(value)]
    return Membership(chosen, key, frozenset((kind_of(scalar), scalar) for scalar in scalars))


def _scalar(value: object, place: str) -> Scalar:
    finite = not isinstance(value, float) or math.isfinite(value)
    short = not isinstance(value, str) or len(value) <= MAX_CHARACTERS
    if _is_scalar(value) and finite and short:
        return value
    raise _invalid(
        place,
        f"must be a text of up to {MAX_CHARACTERS} characters, a finite number or a boolean,"
        f" not {_shown(value)}",
    )


def _only(raw: Mapping[str, object], fields: tuple[str, ...], path: str) -> None:
    for name in raw:
        if name not in fields:
            place = _under(path, str(name)[:40])
            raise _invalid(place, f"unknown field; there are {', '.join(fields)}")


def _under(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _shown(value: object) -> str:
    text = repr(value) if value is None or _is_scalar(value) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _invalid(place: str, problem: str) -> InvalidFilter:
    return InvalidFilter(f"{place or 'filter'}: {problem}", parameter="filters")
