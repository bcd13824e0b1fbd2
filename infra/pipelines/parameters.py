"""Fills in `${params.x}`, `${inputs.x}` and their like; parameters can be overridden."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from infra.errors import InvalidRequest

_PLACEHOLDER = re.compile(r"\$\$|\$\{([^{}]*)\}")
PLACES = ("inputs", "outputs", "references")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def overridden(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a run; what is given as text gets the type of the default.

    Raises:
        InvalidRequest: a name is unknown (the nearest one is suggested), or a value does not fit.
    """
    for name in declared:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"params: {name!r} is no name; use letters, digits and '_'")
    for name in given:
        if name not in declared:
            raise InvalidRequest(
                f"No parameter {name!r}{near(name, declared)}", parameter=f"params.{name}"
            )
    return {
        name: _typed(name, given[name], like=value) if name in given else value
        for name, value in declared.items()
    }


def fill(value: Any, params: Mapping[str, Any], *, where: str, keep_places: bool = False) -> Any:
    """Return a value with every `${params.x}` replaced, in lists and mappings too.

    A text that is nothing but one placeholder becomes the parameter itself, number or list.

    With `keep_places`, what only the run knows, and `$$`, are left for `put_places`. `where` says
    what the value is, for errors.

    Raises:
        InvalidRequest: a placeholder means nothing; the nearest parameter is suggested.
    """

    def replace(inner: str) -> Any:
        kind, _, name = inner.partition(".")
        if kind == "params" and name in params:
            return _escaped(params[name]) if keep_places else params[name]
        if keep_places and kind in PLACES:
            return f"${{{inner}}}"
        known = [f"params.{each}" for each in params]
        hint = near(inner, known) or f"; there are {', '.join(known) or 'no parameters'}"
        if kind in PLACES:
            hint = "; it is known in `run` and `with` alone"
        raise InvalidRequest(f"{where}: '${{{inner}}}' means nothing{hint}")

    return _walk(value, replace, dollars="$$" if keep_places else "$")


def put_places(value: Any, places: Mapping[str, str], *, where: str) -> Any:
    """Return a value with `${inputs.x}` and `${outputs.x}` replaced by folders, and so on.

    Raises:
        InvalidRequest: there is no such input or output; the nearest one is suggested.
    """

    def replace(inner: str) -> str:
        if inner not in places:
            raise InvalidRequest(
                f"{where}: '${{{inner}}}' is not declared by the step{near(inner, places)}"
            )
        return places[inner]

    return _walk(value, replace, dollars="$")


def near(name: str, known: Mapping[str, Any] | list[str] | set[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing if no known name is like it."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def as_text(value: Any, *, where: str) -> str:
    """Return a number, a truth value or text as a command line would hold it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise InvalidRequest(f"{where}: {value!r:.80} does not fit into text; use a number or text")


def _walk(value: Any, replace: Callable[[str], Any], *, dollars: str) -> Any:
    if isinstance(value, str):
        return _text(value, replace, dollars=dollars)
    if isinstance(value, list | tuple):
        return [_walk(item, replace, dollars=dollars) for item in value]
    if isinstance(value, Mapping):
        return {key: _walk(item, replace, dollars=dollars) for key, item in value.items()}
    return value


def _text(text: str, replace: Callable[[str], Any], *, dollars: str) -> Any:
    whole = _PLACEHOLDER.fullmatch(text)
    if whole and whole[1] is not None:
        return replace(whole[1])
    return _PLACEHOLDER.sub(
        lambda found: (
            dollars
            if found[1] is None
            else as_text(replace(found[1]), where=f"'${{{found[1]}}}' within {text!r}")
        ),
        text,
    )


def _escaped(value: Any) -> Any:
    """Protect a parameter from being searched for placeholders itself."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    return value


def _typed(name: str, text: str, *, like: Any) -> Any:
    if isinstance(like, str) or like is None:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    kind = type(like)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise InvalidRequest(
            f"Parameter {name!r} is {kind.__name__} (default {like!r}), which {text!r} is not",
            parameter=f"params.{name}",
        )
    return value
