"""What is read is in at the end, whatever another writer does to the same document meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval.commit import Committed
from retrieval.documents import Documents
from retrieval.held import is_current
from retrieval.ingest import Unchanged
from retrieval.sources import Source
from service.wiring import Components


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("The moat is deep.")
    return path


def remove(components: Components, into: Any) -> None:
    stored = components.documents.of_source(into, "test:a")
    assert stored is not None
    components.documents.delete(into, stored.file_id)


@pytest.mark.parametrize("is_removed", [False, True])
def test_bytes_that_another_writer_brought_first_are_in_also_if_they_are_removed_at_once(
    components: Components, path: Path, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    into = components.collections.create("walls", components.recipe())
    looks: list[str] = []

    def sources() -> Iterator[Source]:
        yield Source("test:a", path, "a.txt")
        # It is read by now, and written when there are no more.
        faster = list(components.ingester.ingest(into, [Source("test:a", path, "a.txt")]))
        assert any(isinstance(event, Committed) for event in faster)

    def look(documents: Documents, *more: Any, **named: Any) -> bool:
        looks.append("")
        if is_removed and len(looks) == 3:  # both looked before they read; this one failed to write
            remove(components, into)
        return is_current(documents, *more, **named)

    monkeypatch.setattr("retrieval.ingest.is_current", look)
    events = list(components.ingester.ingest(into, sources()))
    assert any(isinstance(event, Committed if is_removed else Unchanged) for event in events)
    assert len(looks) == 3
    stored = components.documents.of_source(into, "test:a")
    assert stored is not None
    assert stored.status == "completed"


def test_document_removed_while_its_metadata_change_is_read_anew(
    components: Components, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = components.collections.create("walls", components.recipe())
    list(components.ingester.ingest(into, [Source("test:a", path, "a.txt", {"year": 1})]))
    real = Documents.update

    def update(self: Documents, *more: Any, **named: Any) -> Any:
        remove(components, into)
        return real(self, *more, **named)

    monkeypatch.setattr(Documents, "update", update)
    list(components.ingester.ingest(into, [Source("test:a", path, "a.txt", {"year": 2})]))
    stored = components.documents.of_source(into, "test:a")
    assert stored is not None
    assert (stored.version, stored.metadata["year"]) == (1, 2)
