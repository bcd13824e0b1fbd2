"""Snapshots: one moment of a collection that is written to, restored elsewhere as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from infra.database.schema import chunk, document, document_text
from infra.errors import Conflict, InvalidConfiguration, InvalidRequest
from infra.settings import Settings, load_settings
from retrieval.collections import Collection
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components
from service.work import snapshots

PAIRS = 3


@pytest.fixture
def elsewhere(tmp_path: Path, open_components: Callable[[Settings], Components]) -> Components:
    """Another machine: another database, other folders, the same artifact store's files."""
    components = open_components(
        load_settings(
            data_folder=tmp_path / "elsewhere",
            retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
        )
    )
    components.__dict__["embedder"] = Refusing(components.embedder)
    return components


class Refusing:
    """The real embedder, for questions only."""

    def __init__(self, embedder: Any) -> None:
        self._embedder = embedder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embed(self, texts: Any, *, kind: str) -> Any:
        assert kind == "query", "a document was embedded again"
        return self._embedder.embed(texts, kind=kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(PAIRS):
        put(folder, number, 0)
    return folder


@pytest.fixture
def collection(components: Components, folder: Path) -> Collection:
    made = components.collections.create("Stone & mortar", components.recipe())
    list(components.ingester.ingest(made, walk([folder])))
    return made


def put(folder: Path, number: int, turn: int) -> Path:
    path = folder / f"wall{number}.md"
    lines = (f"Course {row} of wall {number} in turn {turn}." for row in range(40))
    path.write_text(f"# Wall {number}\n\n{' '.join(lines)}", encoding="utf-8")
    return path


def moved(components: Components, reference: Any, elsewhere: Components, folder: Path) -> str:
    """Bring an artifact to the other machine, as a copied folder."""
    files = components.artifacts.checkout(str(reference), folder, mode="copy")
    return str(elsewhere.artifacts.put(files, "collection/moved"))


def contents(components: Components, of: Collection) -> dict[str, Any]:
    """Everything that a collection holds, by source, without the numbers of rows."""
    with components.database.read() as connection:
        held: dict[str, Any] = {}
        for row in connection.execute(
            select(document).where(document.c.collection_id == of.id)
        ).all():
            chunks = connection.execute(
                select(
                    *(chunk.c.ordinal, chunk.c.start_char, chunk.c.end_char, chunk.c.tokens),
                    *(chunk.c.page, chunk.c.heading, chunk.c.text, chunk.c.vector),
                )
                .where(chunk.c.document_id == row.id, chunk.c.build_id == of.build_id)
                .order_by(chunk.c.ordinal)
            )
            text = connection.execute(
                select(document_text.c.text)
                .where(document_text.c.document_id == row.id)
                .order_by(document_text.c.piece)
            ).scalars()
            values = row._asdict()
            for name in ("id", "collection_id"):
                del values[name]
            held[row.source] = (values, "".join(text), [tuple(each) for each in chunks])
    return held


def test_snapshot_is_restored_elsewhere_without_embedding(
    components: Components, collection: Collection, elsewhere: Components, tmp_path: Path
) -> None:
    stored = components.documents.list(collection).items[0]
    components.documents.update(collection, stored.file_id, metadata={"year": 1911})
    before = contents(components, collection)
    reference = snapshots.take(components, collection)
    assert str(reference) == "collection/Stone-mortar@v1"
    moved_to = moved(components, reference, elsewhere, tmp_path / "moved")
    made = snapshots.restore(elsewhere, moved_to, "walls")
    assert contents(elsewhere, made) == before
    question = SearchRequest("course 7 of wall 2", limit=3)
    found, expected = (
        [
            (passage.text, passage.document_id, passage.score)
            for passage in parts.retriever.search(whole, question).passages
        ]
        for parts, whole in ((elsewhere, made), (components, collection))
    )
    assert found == expected
    for each in elsewhere.documents.list(made).items:
        assert elsewhere.blobs.path(each.digest).read_bytes()
    assert [each.name for each in elsewhere.collections.list().items] == ["walls"]
    elsewhere.delete_collection("walls")


def test_snapshot_taken_during_writes_is_one_state_of_the_log(
    components: Components, collection: Collection, folder: Path
) -> None:
    stop = threading.Event()
    failures: list[Exception] = []

    def write() -> None:
        turn = 0
        while not stop.is_set() and not failures:
            turn += 1
            try:
                for number in range(PAIRS):
                    path = put(folder, number, turn)
                    list(components.ingester.ingest(collection, walk([path])))
            except Exception as error:  # noqa: BLE001  told to the thread that asserts
                failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        references = [snapshots.take(components, collection) for _ in range(3)]
    finally:
        stop.set()
        writer.join()
    assert failures == []
    for number, reference in enumerate(references):
        made = snapshots.restore(components, str(reference), f"copy {number}")
        held = contents(components, made)
        turns = []
        for wall in range(PAIRS):
            [(values, text, chunks)] = [
                value for source, value in held.items() if source.endswith(f"wall{wall}.md")
            ]
            turns.append(int(text.split("in turn ")[1].split(".")[0]))
            assert values["version"] == turns[-1] + 1
            assert all(text[each[1] : each[2]] == each[6] for each in chunks)
            bytes_as_they_came = components.blobs.path(values["digest"]).read_text()
            assert f"in turn {turns[-1]}." in bytes_as_they_came
        # Walls are written in turn: a state of the log is one in which none is ahead by two.
        assert turns == sorted(turns, reverse=True)
        assert turns[0] - turns[-1] <= 1


def test_files_can_be_left_out(
    components: Components, collection: Collection, elsewhere: Components, tmp_path: Path
) -> None:
    reference = snapshots.take(components, collection, with_bytes=False)
    moved_to = moved(components, reference, elsewhere, tmp_path / "moved")
    assert not (tmp_path / "moved" / "files").exists()
    made = snapshots.restore(elsewhere, moved_to, "walls")
    assert contents(elsewhere, made) == contents(components, collection)


def test_taken_name_is_refused_and_nothing_half_restored_stays(
    components: Components, collection: Collection, tmp_path: Path
) -> None:
    reference = snapshots.take(components, collection)
    with pytest.raises(Conflict, match="exists already"):
        snapshots.restore(components, str(reference), collection.name)
    damaged = components.artifacts.checkout(str(reference), tmp_path / "damaged", mode="copy")
    (damaged / "chunks.parquet").write_bytes(b"PAR1 nothing PAR1")
    put_back = components.artifacts.put(damaged, "collection/damaged")
    with pytest.raises(InvalidRequest, match=r"'chunks.parquet' of the snapshot cannot be read"):
        snapshots.restore(components, str(put_back), "other")
    assert [each.name for each in components.collections.list().items] == [collection.name]


def test_snapshot_of_another_model_is_refused(
    components: Components,
    collection: Collection,
    tmp_path: Path,
    open_components: Callable[[Settings], Components],
) -> None:
    reference = snapshots.take(components, collection)
    other = open_components(
        load_settings(
            data_folder=tmp_path / "other",
            retrieval={"embedder": "hashing", "embedder_options": {"dimension": 64}},
        )
    )
    moved_to = moved(components, reference, other, tmp_path / "moved")
    with pytest.raises(InvalidConfiguration, match="'Stone & mortar' was built with 'hashing'"):
        snapshots.restore(other, moved_to, "walls")


def test_artifact_that_is_no_snapshot_is_refused(components: Components, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.txt").write_text("a")
    reference = components.artifacts.put(tmp_path / "some", "dataset/some")
    with pytest.raises(InvalidRequest, match="no snapshot"):
        snapshots.restore(components, str(reference), "walls")
