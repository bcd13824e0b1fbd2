"""What the demo reads and asks: the documentation, and a folder of documents beside it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import NotFound

if TYPE_CHECKING:
    from retrieval.sources import Source, Unwalkable

MAX_BYTES = 60_000
"""Larger files would keep a person waiting who wants to see a demo."""
MAX_PAGE_BYTES = 16_000
"""Of the documentation; what is larger lists settings, routes or figures."""

ABOUT_RAGSTONE = (
    "What happens to the documents when the process is killed during an ingest?",
    "Where are API keys stored?",
    "How do I use PostgreSQL instead of SQLite?",
)
ABOUT_THE_DOCUMENTS = (
    ("handbook-1p.docx", "Who appoints standing trustees?"),
    ("stanley-cups.xlsx", "How many Stanley Cups have the Maple Leafs won?"),
)
UNANSWERABLE = "How many penguins live on the moon?"


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of a folder that the demo reads."""

    sources: tuple[Source | Unwalkable, ...]
    too_large: int


def documentation() -> Path:
    """Return the folder of the documentation: of a checkout, else the one in the package.

    Raises:
        NotFound: the installation has neither.
    """
    spec = importlib.util.find_spec("service")
    if spec is not None and spec.submodule_search_locations:
        package = Path(next(iter(spec.submodule_search_locations)))
        for folder in (package.parent / "docs", package / "cli" / "documents"):
            if (folder / "index.md").is_file():
                return folder
    raise NotFound("documentation", "docs/index.md")


def neighbouring_documents() -> Path | None:
    """Return the folder of shared documents beside a checkout, if there is one."""
    folder = documentation().parent.parent / "shared" / "data" / "documents"
    return folder if folder.is_dir() else None


def select(sources: Iterable[Source | Unwalkable], *, max_bytes: int = MAX_BYTES) -> Selection:
    """Leave out the files that are larger than `max_bytes`."""
    from retrieval.sources import Source

    kept: list[Source | Unwalkable] = []
    too_large = 0
    for source in sources:
        if isinstance(source, Source) and source.path.stat().st_size > max_bytes:
            too_large += 1
        else:
            kept.append(source)
    return Selection(tuple(kept), too_large)
