"""Where documents come from: files and folders of this machine, walked in a stable order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Source:
    """One file to ingest."""

    uri: str
    """Its identity within a collection: the same URI again is a new version of the document."""
    path: Path
    filename: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unwalkable:
    """A path that could not be looked into."""

    uri: str
    reason: str


def walk(
    paths: Iterable[Path], *, metadata: Mapping[str, Any] | None = None
) -> Iterator[Source | Unwalkable]:
    """Yield the files at and below `paths`, sorted; hidden ones and linked folders are passed over.

    Raises:
        InvalidRequest: a path does not exist; nothing was walked yet.
    """
    roots = list(paths)
    for root in roots:
        if not root.exists():
            raise InvalidRequest(f"No file or folder {str(root)!r}", parameter="paths")
    return _walk(roots, dict(metadata or {}))


def _walk(roots: list[Path], metadata: dict[str, Any]) -> Iterator[Source | Unwalkable]:
    for root in roots:
        path = root.resolve()
        if not path.is_dir():
            yield _source(path, metadata)
            continue
        refused: list[OSError] = []
        for folder, subfolders, names in os.walk(path, onerror=refused.append):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith("."):
                    yield _source(Path(folder, name), metadata)
        for error in refused:
            yield Unwalkable(Path(error.filename).as_uri(), error.strerror or "cannot be read")


def _source(path: Path, metadata: dict[str, Any]) -> Source | Unwalkable:
    # A FIFO or a device would block for ever; a link is followed to the file it names.
    if not path.is_file():
        return Unwalkable(path.as_uri(), "not a regular file")
    # A name may be bytes that are no text; the URI keeps them, the label cannot.
    label = os.fsencode(path.name).decode(errors="replace")
    return Source(uri=path.as_uri(), path=path, filename=label, metadata=metadata)
