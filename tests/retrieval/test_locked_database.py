"""A database that another writer keeps locked: a clear error, searches go on, nothing is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.errors import StorageFailed
from infra.settings import load_settings
from retrieval.collections import Collection
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components

Work = Callable[[Components, Collection, Path], Any]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Components]:
    """With patience for a moment, not for a minute."""
    monkeypatch.setattr("infra.database.engine.BUSY_SECONDS", 0.05)
    retrieval = {"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10}
    opened = Components(load_settings(data_folder=tmp_path / "data", retrieval=retrieval))
    yield opened
    opened.close()


@pytest.fixture
def whole(parts: Components, tmp_path: Path) -> Collection:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "tower.txt").write_text("The tower stands on ragstone.", encoding="utf-8")
    made = parts.collections.create("walls", parts.recipe())
    _ingest(parts, made, texts)
    begun = parts.builds.start(made, _other(parts))
    for _ in parts.builder.fill(made, begun):
        pass
    (texts / "moat.txt").write_text("The moat is deep.", encoding="utf-8")
    return parts.collections.get("walls")


def _other(parts: Components) -> Any:
    return parts.recipe(embedder="hashing", embedder_options={"dimension": 48})


def _ingest(parts: Components, whole: Collection, texts: Path) -> None:
    for _ in parts.ingester.ingest(whole, walk([texts])):
        pass


def _delete(parts: Components, whole: Collection, _: Path) -> None:
    parts.documents.delete(whole, parts.documents.list(whole, limit=1).items[0].file_id)


def _swap(parts: Components, whole: Collection, _: Path) -> None:
    parts.builds.swap(whole, evaluate=parts.evaluate)


def _erase(parts: Components, whole: Collection, _: Path) -> None:
    parts.collections.delete(whole.name)


@contextmanager
def _locked(parts: Components) -> Iterator[None]:
    path = parts.settings.database_location.removeprefix("sqlite:///")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.parametrize("work", [_ingest, _delete, _swap, _erase])
def test_a_writer_is_told_and_leaves_all_as_it_was(
    parts: Components, whole: Collection, tmp_path: Path, work: Work
) -> None:
    before = parts.documents.list(whole, limit=9).items
    with _locked(parts):
        with pytest.raises(StorageFailed, match="locked"):
            work(parts, whole, tmp_path / "texts")
        found = parts.retriever.search(whole, SearchRequest("tower")).passages
        assert [each.text for each in found] == ["The tower stands on ragstone."]
    assert parts.documents.list(whole, limit=9).items == before
    assert parts.collections.get("walls").build_id == whole.build_id
    work(parts, whole, tmp_path / "texts")
