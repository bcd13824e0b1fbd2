"""A run's parameters: nested as given, bounded, without secrets; flat for comparison."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, TypeAlias

from infra.errors import InvalidRequest, TooLarge
from infra.tracking.limits import MAX_KEY_CHARACTERS, MAX_PARAMETERS, cut, storable
from infra.tracking.redaction import HIDDEN, hide, is_secret

Parameters: TypeAlias = Mapping[str, Any]
"""JSON values, also not-a-number and infinity, in nested mappings."""

MAX_DEPTH = 20
_LARGEST_EXACT = 2**63


def plain(parameters: Parameters) -> dict[str, Any]:
    """Return parameters as they are recorded.

    Long texts and lists are cut, secrets hidden, and what is neither number, text, list nor
    mapping becomes text.

    Raises:
        InvalidRequest: a name is no text, is too long or means two parameters; or they nest too
            deep.
        TooLarge: there are too many.
    """
    recorded: dict[str, Any] = _plain(parameters, (), depth=0)
    if len(flatten(recorded)) > MAX_PARAMETERS:
        raise TooLarge(f"More than {MAX_PARAMETERS} parameters; record a file as an artifact")
    return recorded


def flatten(parameters: Parameters) -> dict[str, Any]:
    """Return parameters with the names of nested ones joined by dots.

    >>> flatten({"optimizer": {"name": "adam", "lr": 0.1}, "layers": [1, 2]})
    {'optimizer.name': 'adam', 'optimizer.lr': 0.1, 'layers': [1, 2]}

    Raises:
        InvalidRequest: two of them get the same name.
    """
    flat: dict[str, Any] = {}
    for key, value in parameters.items():
        inner = flatten(value) if isinstance(value, Mapping) and value else None
        named = {key: value} if inner is None else {f"{key}.{name}": v for name, v in inner.items()}
        for name in named.keys() & flat.keys():
            raise InvalidRequest(
                f"Two parameters are called {name!r}; rename one", parameter="parameters"
            )
        flat.update(named)
    return flat


def encode(parameters: Any) -> str:
    """Return JSON in ASCII, with `NaN` and `Infinity` where they were given."""
    return json.dumps(parameters, separators=(",", ":"))


def decode(text: str) -> Any:
    """Read what `encode` wrote."""
    return json.loads(text)


def as_json(value: Any) -> Any:
    """Return the value with texts for the numbers that JSON lacks: NaN, Infinity, -Infinity.

    >>> as_json({"loss": float("nan"), "best": 0.5})
    {'loss': 'NaN', 'best': 0.5}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value


def _plain(value: Any, path: tuple[str, ...], *, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidRequest(
            f"Parameters nest deeper than {MAX_DEPTH}: {'.'.join(path)[:80]!r}",
            parameter="parameters",
        )
    if path and is_secret(path[-1]) and value is not None:
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            _key(key): _plain(inner, (*path, _key(key)), depth=depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, Set):
        value = sorted(value, key=repr)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        items = [_plain(inner, path, depth=depth + 1) for inner in value]
        text = encode(items)
        return items if len(text) <= len(cut(text)) else cut(text)
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value) if abs(value) < _LARGEST_EXACT else cut(hex(value))
    item = getattr(value, "item", None)  # of numpy and torch
    if callable(item) and getattr(value, "ndim", None) == 0:
        number = item()
        if isinstance(number, bool | int | float):
            return number
    return cut(storable(hide(value if isinstance(value, str) else str(value))))


def _key(key: Any) -> str:
    text = storable(str(key)) if isinstance(key, str | int) else ""
    if not 0 < len(text) <= MAX_KEY_CHARACTERS:
        raise InvalidRequest(
            f"{repr(key)[:80]} cannot name a parameter: use 1 to {MAX_KEY_CHARACTERS} characters",
            parameter="parameters",
        )
    return text
