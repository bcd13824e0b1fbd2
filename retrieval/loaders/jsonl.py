"""JSON and JSON Lines: text fields as prose, other values as `key: value` lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.contracts import Document
from infra.errors import Damaged
from retrieval.loaders._composer import Composer
from retrieval.loaders._decoding import decode
from retrieval.loaders.text import add_paragraphs

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({"application/json", "application/jsonl"})

_TEXT_FIELDS = frozenset(
    {
        "text",
        "content",
        "contents",
        "body",
        "page_content",
        "passage",
        "document",
        "abstract",
        "markdown",
    }
)
_TITLE_FIELDS = ("title", "headline", "heading", "subject")
_MAX_DEPTH = 100
_MAX_BAD_LINES_NAMED = 5


def load(path: Path, limits: Loading) -> Document:
    """Read a file of one or many JSON values.

    Raises:
        Damaged: nothing in it is JSON.
    """
    decoded = decode(path.read_bytes())
    composer = Composer("application/json", limits)
    for warning in decoded.warnings:
        composer.warn(warning)
    count = 0
    for record in _records(decoded.text.lstrip("\ufeff"), composer):
        count += 1
        _add_record(composer, record)
    return composer.document(metadata={"encoding": decoded.encoding, "records": count})


def _records(text: str, composer: Composer) -> Iterator[Any]:
    try:
        whole = json.loads(text)
    except ValueError as error:
        yield from _lines(text, composer, error)
        return
    except RecursionError as error:
        raise Damaged("Its JSON is nested too deeply to read") from error
    if isinstance(whole, list):
        yield from whole
    else:
        yield whole


def _lines(text: str, composer: Composer, whole_file: ValueError) -> Iterator[Any]:
    """Each line that is JSON; those that are not are named in warnings."""
    good, bad = 0, []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            bad.append(number)
        else:
            good += isinstance(record, dict | list)
            yield record
    if bad and good * 2 < len(bad):
        raise Damaged(f"It is not JSON: {whole_file}") from whole_file
    if bad:
        named = ", ".join(map(str, bad[:_MAX_BAD_LINES_NAMED]))
        more = ", ..." if len(bad) > _MAX_BAD_LINES_NAMED else ""
        composer.warn(f"{len(bad)} lines are not JSON and were left out (line {named}{more})")


def _add_record(composer: Composer, record: Any) -> None:
    if not isinstance(record, dict):
        composer.add("table", "\n".join(_leaves(record)))
        return
    prose = {key: value for key, value in record.items() if _is_prose(key, value)}
    rest = {key: value for key, value in record.items() if key not in prose}
    title = next((key for key in _TITLE_FIELDS if isinstance(record.get(key), str)), None)
    if title and prose:
        composer.add("heading", " ".join(rest.pop(title, "").split()), level=2)
    for value in prose.values():
        for text in [value] if isinstance(value, str) else value:
            add_paragraphs(composer, text)
    composer.add("table", "\n".join(_leaves(rest)))


def _is_prose(key: str, value: Any) -> bool:
    if key.lower() not in _TEXT_FIELDS:
        return False
    if isinstance(value, list):
        return bool(value) and all(isinstance(text, str) for text in value)
    return isinstance(value, str)


def _leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    """`a.b: value` for every value at the bottom of the tree; lists of plain values on one line."""
    if depth > _MAX_DEPTH:
        raise Damaged(f"Its JSON is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for number, inner in enumerate(value, start=1):
            yield from _leaves(inner, f"{path}[{number}]", depth + 1)
    else:
        shown = ", ".join(map(_plain, value)) if isinstance(value, list) else _plain(value)
        if shown:
            yield f"{path}: {shown}" if path else shown


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(str(value).split())
