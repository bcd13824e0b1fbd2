"""Reads a file with a loader of the operator's, such as LangChain's, as one document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from infra.contracts import Block, Document
from infra.errors import EmptyDocument, ExceedsLimit
from infra.plugins import load as load_plugin

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPE = "application/octet-stream"

_PARAGRAPH = re.compile(r"\S(?:.*\S)?(?:[^\S\n]*\n[^\S\n]*\S(?:.*\S)?)*")
_FORBIDDEN = re.compile("[\0\ud800-\udfff]")
_BETWEEN = "\n\n"
_OF_THE_FILE = frozenset({"source", "file_path", "page"})
"""Metadata that name the stored copy, or one part only."""


def loader_path(filename: str, limits: Loading) -> str | None:
    """Return the dotted path of the loader that the settings name for such a file."""
    return limits.loaders.get(PurePath(filename).suffix.lower())


def load(path: Path, limits: Loading, *, loader: str) -> Document:
    """Read a file with the callable at `loader`, given its path as text.

    It returns an object with `lazy_load`, as LangChain's loaders do, or the parts themselves: texts
    or objects with `page_content` and `metadata`. Each part begins a paragraph.

    Raises:
        UnreadableDocument: there is no text, or more than the limit.
        InvalidConfiguration: there is no such loader.
    """
    # Whatever else it raises, the process that reads reports as it does of our own parsers.
    target: Any = load_plugin("retrieval.loaders", loader)(str(path))
    parts = target.lazy_load() if hasattr(target, "lazy_load") else target
    blocks, texts, offset = [], [], 0
    metadata: dict[str, Any] = {}
    for text, found in _texts(parts, limits.max_text_characters):
        page = found.get("page")
        number = page + 1 if isinstance(page, int) and page >= 0 else None
        blocks += [
            Block("paragraph", offset + match.start(), offset + match.end(), page=number)
            for match in _PARAGRAPH.finditer(text)
        ]
        metadata = {**_flat(found), **metadata}
        texts.append(text)
        offset += len(text) + len(_BETWEEN)
    if not blocks:
        raise EmptyDocument(f"The loader {loader!r} found no text")
    title = str(metadata.get("title", ""))
    return Document(_BETWEEN.join(texts), tuple(blocks), MEDIA_TYPE, title, metadata)


def _texts(parts: Iterable[Any], max_characters: int) -> Iterator[tuple[str, dict[str, Any]]]:
    total = 0
    for part in parts:
        text = part if isinstance(part, str) else str(part.page_content)
        total += len(text) + len(_BETWEEN)
        if total > max_characters:
            raise ExceedsLimit(f"Its text has more than {max_characters} characters")
        yield _FORBIDDEN.sub(" ", text), dict(getattr(part, "metadata", {}))


def _flat(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in metadata.items()
        if key not in _OF_THE_FILE and isinstance(value, str | int | float | bool)
    }
