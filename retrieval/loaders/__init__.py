"""Loaders: plug-ins that extract one text, its blocks and metadata from a file's bytes.

A plug-in is a file with `MEDIA_TYPES`, the media types it reads, and
`load(path, limits) -> Document`. The laws, run over each by `tests/contracts/test_loaders.py`:
blocks rise, do not overlap, hold no surrogates or NUL, and every character outside them is white
space; hostile input raises `UnreadableDocument`, in bounded memory and time. Loaders run in a
process of their own (`retrieval/reading.py`), so that a crash in a parser is a report, not an
outage.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from infra.contracts import Document
from infra.errors import Unsupported
from infra.plugins import available
from retrieval.loaders._foreign import load as load_foreign
from retrieval.loaders._foreign import loader_path
from retrieval.media_types import detect

if TYPE_CHECKING:
    from infra.settings import Loading


class Loader(Protocol):
    """What the module of a plug-in offers."""

    MEDIA_TYPES: frozenset[str]

    def load(self, path: Path, limits: Loading) -> Document:
        """Extract the document; positions count code points of its text.

        Raises:
            UnreadableDocument: it is encrypted, damaged, empty, or exceeds a limit.
        """
        ...


def load(path: Path, limits: Loading, *, filename: str | None = None) -> Document:
    """Read a file with the loader of what its content is, in this process.

    Args:
        path: the file.
        limits: bounds on what is read.
        filename: its name where `path` is not named so; tells between kinds of text.

    Raises:
        UnreadableDocument: no loader reads it, or the loader refused.
    """
    foreign = loader_path(filename or path.name, limits)
    if foreign is not None:
        return load_foreign(path, limits, loader=foreign)
    return loader_for(detect(path, filename=filename)).load(path, limits)


def loader_for(media_type: str) -> Loader:
    """Return the plug-in that reads a media type."""
    for name in available(__name__):
        module = importlib.import_module(f"{__name__}.{name}")
        if media_type in module.MEDIA_TYPES:
            return cast("Loader", module)
    raise Unsupported(f"No loader reads {media_type!r}")
