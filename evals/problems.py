"""Says what is wrong with a suite: the line, the key, and the nearest name there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

_SHOWN = 8
_VALUE = "Value error, "
_IN_YAML = {"a valid tuple": "a list", "a valid list": "a list", "a valid dictionary": "a mapping"}
"""What pydantic calls things, and what they are in a suite."""


def unknown(kind: str, name: str, among: Iterable[str]) -> str:
    """Return the words for a name that means nothing.

    >>> unknown("metric", "exactmatch", ["exact_match", "latency"])
    "unknown metric 'exactmatch'; did you mean 'exact_match'?"
    """
    return f"unknown {kind} {name!r}{nearest(name, among)}"


def nearest(name: str, among: Iterable[str]) -> str:
    """Return the nearest name as a question, or all names."""
    known = list(among)
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def words(error: ValidationError, model: type[BaseModel], *, text: str, source: str) -> str:
    """Return everything that is wrong in one message, each with file and line."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    problems = _own(error.errors(include_url=False))
    lines = [_line(problem, model, root=root, source=source) for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    return "\n".join(lines)


def of_model(error: ValidationError, model: type[BaseModel]) -> str:
    """Return what is wrong with values that did not come from a file."""
    return "; ".join(
        f"{_key(each['loc'])}{_what(each, model)}" for each in _own(error.errors(include_url=False))
    )


def _own(problems: Sequence[Any]) -> list[Any]:
    """Leave out that a list is too short where it is not: what is wrong in it was not counted."""
    places = [each["loc"] for each in problems]
    return [
        each
        for each in problems
        if each["type"] != "too_short"
        or not any(
            len(other) > len(each["loc"]) and other[: len(each["loc"])] == each["loc"]
            for other in places
        )
    ]


def _line(problem: Any, model: type[BaseModel], *, root: Any, source: str) -> str:
    place = _written(problem["loc"], root)
    number = _number(place, root, of_key=problem["type"] == "extra_forbidden")
    return f"{source}, line {number}: {_key(place)}{_what(problem, model)}"


def _key(place: Sequence[int | str]) -> str:
    return f"{'.'.join(map(str, place))}: " if place else ""


def _what(problem: Any, model: type[BaseModel]) -> str:
    kind, place = problem["type"], problem["loc"]
    if kind == "extra_forbidden":
        return unknown("key", str(place[-1]), _keys(model, place[:-1]))
    if kind == "union_tag_invalid":
        known = [each.strip(" '") for each in problem["ctx"]["expected_tags"].split(",")]
        return unknown("kind", str(problem["ctx"]["tag"]), known)
    if kind == "too_short":
        return f"needs {problem['ctx']['min_length']} at least, not {problem['input']!r:.60}"
    said = str(problem["msg"])
    if said.startswith(_VALUE):
        return said.removeprefix(_VALUE)
    for its_word, word in _IN_YAML.items():
        said = said.replace(its_word, word)
    given = "" if kind in {"missing", "union_tag_not_found"} else f", not {problem['input']!r:.60}"
    return f"{said[:1].lower()}{said[1:]}{given}"


def _written(place: Sequence[int | str], root: Any) -> list[int | str]:
    """Leave out of pydantic's path what does not stand in the file: the tags of unions."""
    found: list[int | str] = []
    node = root
    for number, part in enumerate(place):
        child = _child(node, part)
        if child is None and number + 1 < len(place) and not isinstance(part, int):
            continue
        found.append(part)
        node = child
    return found


def _number(place: Sequence[int | str], root: Any, *, of_key: bool) -> int:
    """Return the line of a value, or of the nearest thing around it that is there."""
    node, mark = root, root.start_mark if root is not None else None
    for number, part in enumerate(place):
        key = _key_node(node, part) if of_key and number == len(place) - 1 else None
        node = _child(node, part)
        if node is None:
            break
        mark = (key or node).start_mark
    return int(mark.line) + 1 if mark is not None else 1


def _child(node: Any, part: int | str) -> Any:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part]
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    return None


def _key_node(node: Any, part: int | str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return next((key for key, _ in node.value if key.value == part), None)
    return None


def _keys(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the keys that may stand at a place of a model."""
    for number, part in enumerate(place):
        field = next(
            (each for name, each in model.model_fields.items() if part in (name, each.alias)), None
        )
        if field is None:
            continue
        inner = list(_models((field.annotation, *field.metadata)))
        rest = place[number + 1 :]
        if inner:
            return _keys(_tagged(inner, rest), rest)
    return [field.alias or name for name, field in model.model_fields.items()]


def _tagged(models: Sequence[type[BaseModel]], place: Sequence[int | str]) -> type[BaseModel]:
    """Choose the member of a union whose tag stands in the path."""
    for model in models:
        kind = model.model_fields.get("kind")
        if kind is not None and set(get_args(kind.annotation)) & set(place):
            return model
    return models[0]


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    inner = annotation if isinstance(annotation, tuple) else get_args(annotation)
    for each in inner:
        yield from _models(each)
