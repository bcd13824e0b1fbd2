"""Reads a pipeline file: plain YAML without tags, aliases or double keys, bounded in size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infra.errors import InvalidRequest, NotFound, TooLarge

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_VALUES = 20_000
# The core schema of YAML 1.2: `no` and `on` are words, `01` and `1:30` are not numbers.
_NULL = re.compile(r"|~|null|Null|NULL")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30}|[0-9]{1,30}(?=[eE]))([eE][-+]?[0-9]{1,2})?"
)


def read_yaml(path: Path) -> Any:
    """Return what a file says: mappings, lists, text, numbers, true, false, null.

    Raises:
        NotFound: there is no such file.
        TooLarge: it exceeds a limit.
        InvalidRequest: it is not YAML, or uses more of it than data needs; names the line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound("pipeline file", str(path), among=_near_files(path)) from None
    if len(data) > MAX_BYTES:
        raise TooLarge(
            f"{str(path)!r} is larger than {MAX_BYTES:,} bytes; name data, do not hold it"
        )
    try:
        return parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{str(path)!r} is not text in UTF-8: {error}") from None
    except InvalidRequest as error:
        raise type(error)(f"{str(path)!r}: {error.message}") from None


def parse_yaml(text: str) -> Any:
    """Return what YAML text says; raises as `read_yaml` does.

    >>> parse_yaml("params: {language: no, rows: 20}")
    {'params': {'language': 'no', 'rows': 20}}
    """
    try:
        return _Builder(_checked(yaml.parse(text, Loader=yaml.SafeLoader))).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).replace("\n", " ")
        raise InvalidRequest(f"{where}not YAML: {problem}") from None


def _checked(events: Iterator[Any]) -> Iterator[Any]:
    """Refuse what only a hostile or a confused file holds, before anything is built from it."""
    depth = values = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused(event, "anchors and aliases are not read; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise _refused(event, f"the tag {tag!r} is not read; leave it out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        values += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH or values > MAX_VALUES:
            line = event.start_mark.line + 1
            raise TooLarge(
                f"line {line}: more than {MAX_DEPTH} levels or {MAX_VALUES:,} values; no pipeline "
                "needs that"
            )
        yield event


class _Builder:
    """Makes values of the events of a parser."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events

    def document(self) -> Any:
        value: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refused(event, "a second document begins; a file holds one pipeline")
                value = self._value(next(self._events))
        return value

    def _value(self, event: Any) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping()
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence()
        return _scalar(event)

    def _mapping(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise _refused(event, "a key must be text")
            if event.value in found:
                raise _refused(event, f"the key {event.value!r} is there twice")
            found[event.value] = self._value(next(self._events))
        return found

    def _sequence(self) -> list[Any]:
        found = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event))
        return found


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block of text
        return text
    for pattern, value in ((_NULL, None), (_TRUE, True), (_FALSE, False)):
        if pattern.fullmatch(text):
            return value
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _refused(event: Any, why: str) -> InvalidRequest:
    return InvalidRequest(f"line {event.start_mark.line + 1}: {why}")


def _near_files(path: Path) -> list[str]:
    try:
        found = [each for each in path.parent.iterdir() if each.suffix in {".yaml", ".yml"}]
    except OSError:
        return []
    return [str(each) for each in found[:200]]
