"""Documents in, found, changed and removed: the whole retrieval side on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from infra.contracts import Vectors
from infra.errors import Conflict, InvalidConfiguration, InvalidRequest, NotFound
from infra.settings import Settings
from retrieval import filters
from retrieval.collections import Collection
from retrieval.commit import Committed
from retrieval.embedders.hashing import HashingEmbedder
from retrieval.ingest import Removed, Summary
from retrieval.receipts import Asked
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components

TOWER = "# The tower\n\nThe Tower of London stands on Kentish ragstone.\n"
BREAD = "# Bread\n\nKnead the dough for ten minutes. Let it rise overnight.\n"


class CountingEmbedder(HashingEmbedder):
    def __init__(self) -> None:
        super().__init__(256, 256)
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        if kind == "document":
            self.texts += texts
        return super().embed(texts, kind=kind)


@pytest.fixture
def counted(components: Components) -> CountingEmbedder:
    embedder = CountingEmbedder()
    components.__dict__["embedder"] = embedder
    return embedder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    (folder / "kitchen").mkdir(parents=True)
    (folder / "tower.md").write_text(TOWER)
    (folder / "kitchen" / "bread.md").write_text(BREAD)
    return folder


@pytest.fixture
def collection(components: Components, counted: CountingEmbedder) -> Collection:
    return components.collections.create("stones", components.recipe())


def ingest(
    components: Components, collection: Collection, *paths: Path, **metadata: str
) -> Summary:
    summary = Summary()
    for event in components.ingester.ingest(collection, walk(paths, metadata=metadata)):
        summary.add(event)
    return summary


def sources(components: Components, collection: Collection, query: str, **options: object) -> list:
    request = SearchRequest(query, **options)  # type: ignore[arg-type]
    found = components.retriever.search(collection, request)
    return [Path(passage.source).name for passage in found.passages]


def test_ingested_document_is_found_with_its_exact_span(
    components: Components, collection: Collection, folder: Path
) -> None:
    summary = ingest(components, collection, folder)
    assert (summary.added, summary.updated, len(summary.skipped)) == (2, 0, 0)
    found = components.retriever.search(collection, SearchRequest("kentish ragstone"))
    best = found.passages[0]
    assert Path(best.source).name == "tower.md"
    stored = components.documents.read_text(
        best.document_id, best.document_version, best.start_char, best.end_char
    )
    assert stored == best.text
    assert 0 < best.score <= 1
    assert {"embed", "dense", "lexical", "fuse", "fetch"} <= set(found.timings_ms)


def test_same_bytes_are_not_embedded_again(
    components: Components, collection: Collection, folder: Path, counted: CountingEmbedder
) -> None:
    ingest(components, collection, folder)
    counted.texts.clear()
    summary = ingest(components, collection, folder)
    assert (summary.unchanged, summary.added, counted.texts) == (2, 0, [])


def test_changed_document_replaces_its_former_version(
    components: Components, collection: Collection, folder: Path
) -> None:
    ingest(components, collection, folder)
    (folder / "tower.md").write_text("# The tower\n\nThe tower stands on Portland limestone.\n")
    summary = ingest(components, collection, folder)
    assert (summary.updated, summary.unchanged) == (1, 1)
    assert "tower.md" in sources(components, collection, "portland limestone")
    texts = components.retriever.search(collection, SearchRequest("kentish ragstone")).passages
    assert not [passage for passage in texts if "Kentish" in passage.text]


def test_only_changed_chunks_of_a_document_are_embedded_again(
    components: Components, collection: Collection, folder: Path, counted: CountingEmbedder
) -> None:
    sections = [f"# Part {n}\n\n" + f"Sentence {n} about subject {n}. " * 20 for n in range(6)]
    (folder / "long.md").write_text("\n\n".join(sections))
    ingest(components, collection, folder)
    before = len(counted.texts)
    counted.texts.clear()
    sections[3] = "# Part 3\n\nSomething else entirely."
    (folder / "long.md").write_text("\n\n".join(sections))
    ingest(components, collection, folder)
    assert 1 <= len(counted.texts) <= 3 < before


def test_deleted_document_is_not_returned(
    components: Components, collection: Collection, folder: Path
) -> None:
    ingest(components, collection, folder)
    listed = components.documents.list(collection).items
    tower = next(item for item in listed if item.filename == "tower.md")
    components.documents.delete(collection, tower.file_id)
    assert "tower.md" not in sources(components, collection, "kentish ragstone")
    with pytest.raises(NotFound):
        components.documents.get(collection, tower.file_id)


def test_deleted_documents_bytes_are_gone_unless_another_uses_them(
    components: Components, collection: Collection, folder: Path
) -> None:
    (folder / "copy.md").write_text(TOWER)
    ingest(components, collection, folder)
    same = [item for item in components.documents.list(collection).items if "rag" not in item.title]
    twins = [item for item in same if item.filename in {"tower.md", "copy.md"}]
    assert twins[0].digest == twins[1].digest
    components.documents.delete(collection, twins[0].file_id)
    components.files.sweep()
    assert components.files.path(twins[1].file_id).read_text() == TOWER
    components.documents.delete(collection, twins[1].file_id)
    assert components.files.sweep() == 1
    assert twins[1].digest not in set(components.blobs)


def test_pruned_ingest_removes_what_left_the_folder(
    components: Components, collection: Collection, folder: Path
) -> None:
    ingest(components, collection, folder)
    (folder / "tower.md").unlink()
    seen = {item.uri for item in walk([folder])}
    events = list(components.ingester.prune(collection, [folder], seen))
    assert events == [Removed((folder / "tower.md").as_uri())]
    assert sources(components, collection, "kentish ragstone") == ["bread.md"]


def test_metadata_filter_holds_and_can_change_without_embedding(
    components: Components, collection: Collection, folder: Path, counted: CountingEmbedder
) -> None:
    ingest(components, collection, folder / "tower.md", team="masons")
    ingest(components, collection, folder / "kitchen", team="bakers")
    bakers = filters.parse({"type": "eq", "key": "team", "value": "bakers"})
    assert sources(components, collection, "kentish ragstone", filter=bakers) == ["bread.md"]
    counted.texts.clear()
    ingest(components, collection, folder / "tower.md", team="bakers")
    assert "tower.md" in sources(components, collection, "kentish ragstone", filter=bakers)
    assert counted.texts == []


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_every_mode_finds_the_document(
    mode: str, components: Components, collection: Collection, folder: Path
) -> None:
    ingest(components, collection, folder)
    assert sources(components, collection, "knead the dough", mode=mode)[0] == "bread.md"


def test_write_is_read_by_its_sequence_in_another_process_view(
    settings: Settings,
    components: Components,
    collection: Collection,
    folder: Path,
    open_components: Callable[[Settings], Components],
) -> None:
    other = open_components(settings)
    other.__dict__["embedder"] = HashingEmbedder(256, 256)
    assert sources(other, collection, "kentish ragstone") == []
    sequence = ingest(components, collection, folder).sequence
    assert "tower.md" in sources(other, collection, "kentish ragstone", min_sequence=sequence)


def test_unreadable_document_is_skipped_with_its_reason(
    components: Components, collection: Collection, folder: Path
) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (folder / "empty.md").write_bytes(b"")
    summary = ingest(components, collection, folder)
    assert summary.added == 2
    codes = {Path(item.uri).name: item.code for item in summary.skipped}
    assert codes == {"broken.pdf": "damaged", "empty.md": "empty"}
    assert all(item.message for item in summary.skipped)


def test_unreadable_version_leaves_the_one_before(
    components: Components, collection: Collection, folder: Path
) -> None:
    ingest(components, collection, folder)
    (folder / "tower.md").write_bytes(b"")
    assert len(ingest(components, collection, folder).skipped) == 1
    assert "tower.md" in sources(components, collection, "kentish ragstone")


def test_file_that_disappears_after_it_was_listed_is_skipped_and_what_was_read_of_it_stays(
    components: Components, collection: Collection, folder: Path
) -> None:
    ingest(components, collection, folder)
    for name in ("tower.md", "new.md", "other.md"):
        (folder / name).write_text(f"# {name}\n\nSomething else stands in {name} now.")
    listed = list(walk([folder]))
    (folder / "tower.md").unlink()
    (folder / "new.md").unlink()
    summary = Summary()
    for event in components.ingester.ingest(collection, listed):
        summary.add(event)
    skipped = {Path(item.uri).name: item.message for item in summary.skipped}
    assert skipped == dict.fromkeys(("tower.md", "new.md"), "No such file or directory")
    assert summary.added == 1
    assert "tower.md" in sources(components, collection, "kentish ragstone")


def test_path_that_does_not_exist_is_refused_before_anything_is_read(
    components: Components, collection: Collection, folder: Path
) -> None:
    with pytest.raises(InvalidRequest, match="no-such"):
        ingest(components, collection, folder, folder / "no-such")
    assert components.documents.list(collection).items == ()


def test_special_files_are_skipped_not_waited_for(
    components: Components, collection: Collection, folder: Path
) -> None:
    __import__("os").mkfifo(folder / "pipe.md")
    summary = ingest(components, collection, folder)
    assert [Path(item.uri).name for item in summary.skipped] == ["pipe.md"]


def test_two_writers_of_one_folder_commit_each_document_once(
    settings: Settings,
    components: Components,
    collection: Collection,
    folder: Path,
    open_components: Callable[[Settings], Components],
) -> None:
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"Document {number} speaks of item {number}.")
    others = [open_components(settings) for _ in range(3)]
    summaries: list[Summary] = []

    def run(parts: Components) -> None:
        parts.__dict__["embedder"] = HashingEmbedder(256, 256)
        summaries.append(ingest(parts, collection, folder))

    threads = [threading.Thread(target=run, args=[parts]) for parts in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(summaries) == 3
    stored = components.documents.list(collection, limit=100).items
    assert len(stored) == 22
    assert {item.version for item in stored} == {1}
    assert sum(summary.added for summary in summaries) == 22


def test_cancelled_ingest_keeps_what_it_committed(
    components: Components, collection: Collection, folder: Path
) -> None:
    for number in range(60):
        text = " ".join(f"Document {number} speaks of item {item}." for item in range(80))
        (folder / f"{number}.txt").write_text(text)
    events: list[object] = []
    stream = components.ingester.ingest(
        collection, walk([folder]), is_cancelled=lambda: len(events) > 0
    )
    for event in stream:
        if isinstance(event, Committed):
            events.append(event)
    kept = {item.source for item in components.documents.list(collection, limit=1000).items}
    assert kept == {event.uri for event in events if isinstance(event, Committed)}
    assert 0 < len(kept) < 62


def test_attached_upload_is_in_progress_until_it_is_read(
    components: Components, collection: Collection
) -> None:
    stored = components.files.add("../../tower.md", [TOWER.encode()], purpose="assistants")
    assert stored.filename == "tower.md"
    attached = components.documents.attach(collection, stored.id, metadata={"team": "masons"})
    assert attached.status == "in_progress"
    assert components.documents.pending() == [(collection.public_id, stored.id)]
    components.ingester.process(collection, stored.id)
    read = components.documents.get(collection, stored.id)
    assert (read.status, read.version, read.chunks) == ("completed", 1, 1)
    assert read.metadata["team"] == "masons"
    assert components.documents.pending() == []


def test_unreadable_upload_is_marked_failed(components: Components, collection: Collection) -> None:
    stored = components.files.add("x.pdf", [b"%PDF-1.7"], purpose="assistants")
    components.documents.attach(collection, stored.id)
    assert components.ingester.process(collection, stored.id) is None
    read = components.documents.get(collection, stored.id)
    assert (read.status, read.error_code) == ("failed", "damaged")


def test_failed_upload_is_tried_again_when_attached_again(
    components: Components, collection: Collection
) -> None:
    stored = components.files.add("x.pdf", [b"%PDF-1.7"], purpose="assistants")
    components.documents.attach(collection, stored.id)
    components.ingester.process(collection, stored.id)
    assert components.documents.attach(collection, stored.id).status == "in_progress"
    components.ingester.process(collection, stored.id)
    assert components.documents.get(collection, stored.id).status == "failed"


def test_attributes_changed_while_an_upload_is_read_are_kept(
    components: Components, collection: Collection, counted: CountingEmbedder
) -> None:
    stored = components.files.add("tower.md", [TOWER.encode()], purpose="assistants")
    components.documents.attach(collection, stored.id, metadata={"team": "masons"})

    class Meddling(CountingEmbedder):
        def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
            components.documents.update(collection, stored.id, metadata={"team": "guides"})
            return super().embed(texts, kind=kind)

    components.__dict__["embedder"] = Meddling()
    assert components.ingester.process(collection, stored.id) is not None
    assert components.documents.get(collection, stored.id).metadata["team"] == "guides"


def test_upload_removed_while_it_is_read_leaves_nothing(
    components: Components, collection: Collection
) -> None:
    stored = components.files.add("tower.md", [TOWER.encode()], purpose="assistants")
    components.documents.attach(collection, stored.id)
    components.erasure.erase_file(components.documents, stored.id, asked=Asked("test"))
    assert components.ingester.process(collection, stored.id) is None
    assert components.collections.statistics(collection.id).documents == 0
    assert stored.digest not in components.blobs


def test_deleted_collection_leaves_no_rows_no_files_no_index(
    components: Components, collection: Collection, folder: Path, settings: Settings
) -> None:
    ingest(components, collection, folder)
    view = components.views.get(collection)
    view.refresh()
    view.checkpoint(at_least=1)
    assert components.views.folder(collection).exists()
    components.delete_collection("stones")
    assert not components.views.folder(collection).parent.exists()
    assert list(components.blobs) == []
    with pytest.raises(NotFound):
        components.collections.get("stones")


def test_collection_deleted_while_it_is_written_is_a_conflict(
    components: Components, collection: Collection, folder: Path
) -> None:
    stream = components.ingester.ingest(collection, walk([folder]))
    components.delete_collection("stones")
    with pytest.raises((Conflict, NotFound)):
        list(stream)
    assert components.collections.list().items == ()


def test_near_name_is_suggested(components: Components, collection: Collection) -> None:
    with pytest.raises(NotFound, match="did you mean 'stones'"):
        components.collections.get("stone")


def test_name_is_taken_once(components: Components, collection: Collection) -> None:
    with pytest.raises(Conflict, match="stones"):
        components.collections.create("stones", components.recipe())


@pytest.mark.parametrize("name", ["", " x", "a/b", "a\nb", "x" * 256, "nul\0"])
def test_impossible_names_are_refused(name: str, components: Components) -> None:
    with pytest.raises(InvalidRequest, match="name a collection"):
        components.collections.create(name, components.recipe())


def test_vectors_of_two_models_are_never_mixed(
    components: Components, collection: Collection, folder: Path
) -> None:
    components.__dict__["embedder"] = HashingEmbedder(128, 256)
    # Made before recipes kept what their embedder is opened with.
    recipe = replace(collection.recipe, embedder_options=None)
    former = replace(collection, recipe=recipe)
    with pytest.raises(InvalidConfiguration, match="stones"):
        ingest(components, former, folder)
    with pytest.raises(InvalidConfiguration, match="stones"):
        sources(components, former, "anything")


def test_collection_keeps_its_embedder_when_the_settings_choose_another(
    components: Components, collection: Collection, folder: Path
) -> None:
    components.__dict__["embedder"] = HashingEmbedder(128, 256)
    ingest(components, collection, folder)
    assert sources(components, collection, "anything")


def test_pages_walk_forward_and_back(components: Components, collection: Collection) -> None:
    for number in range(7):
        components.collections.create(f"c{number}", components.recipe())
    first = components.collections.list(limit=3)
    assert ([item.name for item in first.items], first.has_more) == (["c6", "c5", "c4"], True)
    second = components.collections.list(limit=3, after=first.items[-1].public_id)
    assert [item.name for item in second.items] == ["c3", "c2", "c1"]
    back = components.collections.list(limit=2, before=second.items[0].public_id)
    assert [item.name for item in back.items] == ["c5", "c4"]
    last = components.collections.list(limit=3, after=second.items[-1].public_id)
    assert ([item.name for item in last.items], last.has_more) == (["c0", "stones"], False)
