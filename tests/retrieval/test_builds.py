"""Builds: filled beside the live one, kept in step, swapped, rolled back and reclaimed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from sqlalchemy import func, select, update

from infra.contracts import Embedder, Vectors
from infra.database.schema import build_document, change, chunk, document
from infra.errors import Conflict, InvalidConfiguration, InvalidRequest
from retrieval.build_state import Build
from retrieval.building import Built
from retrieval.builds import Verdict
from retrieval.collections import Collection
from retrieval.commit import Committed
from retrieval.embedders.hashing import HashingEmbedder
from retrieval.recipe import Recipe
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components

DIMENSION = 64
TEXTS = {
    f"stone{number}.md": f"# Stone {number}\n\n"
    + " ".join(f"Block {number}-{row} of ragstone came up the Medway." for row in range(30))
    for number in range(12)
}


class CountingEmbedder(HashingEmbedder):
    """Remembers what it embedded."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension, 256)
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        if kind == "document":
            self.embedded += texts
        return super().embed(texts, kind=kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def collection(components: Components, folder: Path) -> Collection:
    made = components.collections.create("stones", components.recipe())
    ingest(components, made, folder)
    return made


def ingest(components: Components, into: Collection, folder: Path) -> list[Committed]:
    events = components.ingester.ingest(into, walk([folder]))
    return [event for event in events if isinstance(event, Committed)]


def smaller(components: Components, **changed: Any) -> Recipe:
    """The recipe of the same chunks with vectors of another length."""
    return components.recipe(
        embedder="hashing", embedder_options={"dimension": DIMENSION}, **changed
    )


def opening(components: Components, embedder: Embedder) -> None:
    """Have whatever embedder a recipe asks for be this one."""

    def open_(name: str, options: Mapping[str, Any]) -> Embedder:
        del name, options
        return embedder

    components.embedders.open = open_  # type: ignore[method-assign]


def fill(components: Components, whole: Collection, into: Build) -> list[int]:
    events = components.builder.fill(whole, into)
    return [event.document_id for event in events if isinstance(event, Built)]


def rows(components: Components, of: Build | Collection) -> list[tuple[Any, ...]]:
    number = of.id if isinstance(of, Build) else of.build_id
    with components.database.read() as connection:
        found = connection.execute(
            select(
                chunk.c.document_id,
                chunk.c.ordinal,
                chunk.c.text,
                chunk.c.start_char,
                chunk.c.vector,
            )
            .where(chunk.c.build_id == number)
            .order_by(chunk.c.document_id, chunk.c.ordinal)
        )
        return [tuple(row) for row in found]


def rebuilt(components: Components, whole: Collection, **changed: Any) -> Build:
    begun = components.builds.start(whole, smaller(components, **changed))
    fill(components, whole, begun)
    return begun


def current(components: Components, whole: Collection) -> Collection:
    return components.collections.get(whole.public_id)


def texts(components: Components, whole: Collection, question: str) -> list[str]:
    result = components.retriever.search(whole, SearchRequest(question, limit=5))
    return [passage.text for passage in result.passages]


def check_whole(components: Components, whole: Collection, of: Build) -> None:
    """A build holds every document once, in its current version, and its index every chunk."""
    with components.database.read() as connection:
        versions = dict(
            connection.execute(
                select(document.c.id, document.c.version).where(
                    document.c.collection_id == whole.id, document.c.version > 0
                )
            ).all()
        )
        held = dict(
            connection.execute(
                select(build_document.c.document_id, build_document.c.version).where(
                    build_document.c.build_id == of.id
                )
            ).all()
        )
    assert held == versions
    found = rows(components, of)
    assert {row[0] for row in found} == set(versions)
    assert all(len(row[4]) == 2 * of.recipe.dimension for row in found)
    view = components.views.get(of.of(whole))
    view.refresh()
    assert len(view.index) == len(found)


def test_rebuild_embeds_the_stored_chunks_with_the_new_model(
    components: Components, collection: Collection
) -> None:
    begun = rebuilt(components, collection)
    check_whole(components, collection, begun)
    before, after = rows(components, collection), rows(components, begun)
    assert [row[:4] for row in after] == [row[:4] for row in before]
    embedder = HashingEmbedder(DIMENSION, 256)
    one = after[3]
    title = f"Stone {one[2].split('Block ')[1].split('-')[0]}"
    expected = embedder.embed([f"{title}\n{one[2]}"], kind="document")[0].astype("<f2")
    np.testing.assert_array_equal(np.frombuffer(one[4], "<f2"), expected)


def test_rebuild_with_other_chunks_splits_the_stored_text(
    components: Components, collection: Collection
) -> None:
    begun = rebuilt(components, collection, chunk_tokens=100, overlap_tokens=0)
    check_whole(components, collection, begun)
    assert 0 < len(rows(components, begun)) < len(rows(components, collection))
    for number, _, text, start, _ in rows(components, begun):
        with components.database.read() as connection:
            file_id = connection.execute(
                select(document.c.file_id).where(document.c.id == number)
            ).scalar_one()
        assert components.documents.read_text(file_id, 1, start, start + len(text)) == text


def test_stored_text_stays_the_truth_when_the_bytes_read_differently(
    components: Components, collection: Collection
) -> None:
    [first, *_] = components.documents.list(collection).items
    path = components.blobs.path(first.digest)
    path.chmod(0o644)
    path.write_text("Something else altogether.", encoding="utf-8")
    begun = rebuilt(components, collection, chunk_tokens=100, overlap_tokens=0)
    found = [row for row in rows(components, begun) if row[0] == first.id]
    assert found
    for _, _, text, start, _ in found:
        assert components.documents.read_text(first.file_id, 1, start, start + len(text)) == text


def test_interrupted_rebuild_goes_on_without_embedding_again(
    components: Components, collection: Collection
) -> None:
    counting = CountingEmbedder(DIMENSION)
    opening(components, counting)
    begun = components.builds.start(collection, smaller(components))
    events = components.builder.fill(collection, begun)
    done = next(event for event in events if isinstance(event, Built))
    events.close()
    # What a window had embedded and not committed is embedded again; what was committed is not.
    finished = [row[2] for row in rows(components, begun) if row[0] == done.document_id]
    counting.embedded.clear()
    again = components.builds.start(collection, smaller(components))
    assert again.id == begun.id
    fill(components, collection, again)
    assert not [one for one in counting.embedded if any(one.endswith(text) for text in finished)]
    check_whole(components, collection, begun)


def test_second_rebuild_with_another_recipe_is_refused_while_one_is_under_way(
    components: Components, collection: Collection
) -> None:
    components.builds.start(collection, smaller(components))
    with pytest.raises(Conflict, match="under way"):
        components.builds.start(collection, smaller(components, chunk_tokens=100))


def test_rebuild_with_the_live_recipe_is_refused(
    components: Components, collection: Collection
) -> None:
    with pytest.raises(InvalidRequest, match="has this recipe already"):
        components.builds.start(collection, components.recipe())


def test_writes_and_deletes_go_to_every_build(
    components: Components, collection: Collection, folder: Path
) -> None:
    begun = rebuilt(components, collection)
    (folder / "stone3.md").write_text("# Stone 3\n\nIt was sold to Rochester.", encoding="utf-8")
    (folder / "new.md").write_text("# New\n\nA quarry at Boughton.", encoding="utf-8")
    assert len(ingest(components, collection, folder)) == 2
    gone = components.documents.list(collection, limit=1, descending=False).items[0]
    components.documents.delete(collection, gone.file_id)
    check_whole(components, collection, begun)
    for build in (collection, begun):
        words = " ".join(row[2] for row in rows(components, build))
        assert "Rochester" in words
        assert "Boughton" in words
        assert "3-7 of ragstone" not in words
        assert gone.id not in {row[0] for row in rows(components, build)}
    components.builds.swap(collection)
    assert "Boughton" in texts(components, current(components, collection), "quarry Boughton")[0]


def test_document_of_two_builds_with_one_model_is_embedded_once(
    components: Components, collection: Collection, folder: Path
) -> None:
    counting = CountingEmbedder(256)
    components.__dict__["embedder"] = counting
    recipe = components.recipe(chunk_tokens=100, overlap_tokens=0)
    begun = components.builds.start(collection, recipe)
    fill(components, collection, begun)
    counting.embedded.clear()
    (folder / "short.md").write_text("# Short\n\nOne chunk in either.", encoding="utf-8")
    ingest(components, collection, folder)
    assert len(counting.embedded) == 1
    check_whole(components, collection, begun)


def test_swap_makes_the_new_build_answer_and_rollback_the_old_one(
    components: Components, collection: Collection, folder: Path
) -> None:
    begun = rebuilt(components, collection)
    swap = components.builds.swap(collection, evaluate=components.evaluate)
    assert swap.verdict is not None
    assert swap.verdict.passed
    assert (swap.live.id, swap.standby.id) == (begun.id, collection.build_id)
    swapped = current(components, collection)
    assert (swapped.build_id, swapped.recipe.dimension) == (begun.id, DIMENSION)
    assert "Block 7-" in texts(components, swapped, "Block 7 ragstone")[0]
    # What is written now can be found after the rollback as well.
    (folder / "late.md").write_text("# Late\n\nGranite from Cornwall.", encoding="utf-8")
    [late] = ingest(components, swapped, folder)
    assert "Cornwall" in texts(components, swapped, "granite Cornwall")[0]
    back = components.builds.rollback(swapped)
    assert (back.live.id, back.standby.id) == (collection.build_id, begun.id)
    rolled = current(components, collection)
    assert "Cornwall" in texts(components, rolled, "granite Cornwall")[0]
    for acknowledged in (late.sequence, swap.sequence, back.sequence):
        components.retriever.search(rolled, SearchRequest("stone", min_sequence=acknowledged))
    kinds = [event.kind for event in components.builds.history(collection)]
    assert kinds == ["started", "swapped", "rolled_back"]


def test_swap_is_refused_by_the_evaluation(components: Components, collection: Collection) -> None:
    begun = rebuilt(components, collection)
    with pytest.raises(Conflict, match="worse than before"):
        components.builds.swap(collection, evaluate=lambda *_: Verdict(False, "worse than before"))
    assert current(components, collection).build_id == collection.build_id
    assert components.builds.get(collection, begun.id).state == "building"
    assert components.builds.history(collection)[-1].kind == "refused"


def test_self_check_refuses_a_build_that_finds_less(
    components: Components, collection: Collection
) -> None:
    begun = rebuilt(components, collection)
    with components.database.write() as connection:  # every passage of it claims to be another
        connection.execute(
            update(chunk)
            .where(chunk.c.build_id == begun.id)
            .values(text="lorem", heading="ipsum", vector=bytes(2 * DIMENSION))
        )
    with pytest.raises(Conflict, match="known passages"):
        components.builds.swap(collection, evaluate=components.evaluate)


def test_swap_expects_the_build_that_is_live(
    components: Components, collection: Collection
) -> None:
    begun = rebuilt(components, collection)
    with pytest.raises(Conflict, match="is live, not"):
        components.builds.swap(collection, expect=begun.id)
    components.builds.swap(collection, expect=collection.build_id)


def test_swap_finishes_the_tail_but_does_not_do_the_work_of_a_rebuild(
    components: Components, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = components.builds.start(collection, smaller(components))
    monkeypatch.setattr("retrieval.builds.TAIL_DOCUMENTS", len(TEXTS) - 1)
    with pytest.raises(Conflict, match="lacks 12 documents"):
        components.builds.swap(collection)
    monkeypatch.setattr("retrieval.builds.TAIL_DOCUMENTS", len(TEXTS))
    components.builds.swap(collection)
    check_whole(components, collection, begun)


def test_without_a_second_build_there_is_nothing_to_swap_or_roll_back_to(
    components: Components, collection: Collection
) -> None:
    with pytest.raises(Conflict, match="collections rebuild"):
        components.builds.swap(collection)
    with pytest.raises(Conflict, match="stands by"):
        components.builds.rollback(collection)


def test_retired_build_leaves_nothing_behind(
    components: Components, collection: Collection
) -> None:
    begun = rebuilt(components, collection)
    components.builds.swap(collection)
    folder = components.views.folder(collection)
    with pytest.raises(Conflict, match="is live"):
        components.builds.retire(collection, begun.id)
    assert components.builds.retire(collection, collection.build_id).state == "reclaimed"
    with components.database.read() as connection:
        for table in (chunk, change, build_document):
            left = connection.execute(
                select(func.count()).where(table.c.build_id == collection.build_id)
            ).scalar_one()
            assert left == 0
    assert not folder.exists()
    check_whole(components, collection, begun)
    assert components.builds.retire(collection, collection.build_id).state == "reclaimed"


def test_search_that_began_on_a_build_that_is_gone_is_answered_by_the_live_one(
    components: Components, collection: Collection
) -> None:
    rebuilt(components, collection)
    components.builds.swap(collection)
    components.builds.retire(collection, collection.build_id)
    assert "Block 7-" in texts(components, collection, "Block 7 ragstone")[0]


def test_next_swap_retires_the_build_that_stood_by(
    components: Components, collection: Collection
) -> None:
    begun = rebuilt(components, collection)
    components.builds.swap(collection)
    third = components.builds.start(collection, components.recipe(chunk_tokens=100))
    fill(components, collection, third)
    components.builds.swap(collection)
    states = {each.id: each.state for each in components.builds.list(collection)}
    assert states == {collection.build_id: "reclaimed", begun.id: "standby", third.id: "live"}


def test_cancelled_rebuild_is_forgotten_and_the_live_build_untouched(
    components: Components, collection: Collection
) -> None:
    before = rows(components, collection)
    begun = components.builds.start(collection, smaller(components))
    events = components.builder.fill(collection, begun)
    next(event for event in events if isinstance(event, Built))
    components.builds.retire(collection, begun.id)
    with pytest.raises(Conflict, match="retired"):
        list(events)
    assert rows(components, collection) == before
    assert components.builds.start(collection, smaller(components)).id != begun.id


def test_embedder_that_no_longer_fits_the_build_is_a_clear_error(
    components: Components, collection: Collection
) -> None:
    begun = components.builds.start(collection, smaller(components))
    wider = HashingEmbedder(96, 256)
    opening(components, wider)
    with pytest.raises(InvalidConfiguration, match="'stones' was built with 'hashing'"):
        list(components.builder.fill(collection, begun))
    opening(components, Posing())
    with pytest.raises(InvalidConfiguration, match="vectors of 64 numbers, 'hashing' gives 96"):
        list(components.builder.fill(collection, begun))


def test_write_says_which_build_keeps_it_out(
    components: Components, collection: Collection, folder: Path
) -> None:
    begun = rebuilt(components, collection)
    components.builds.swap(collection)
    components.builds.rollback(collection)
    opening(components, HashingEmbedder(96, 256))
    (folder / "late.md").write_text("# Late\n\nGranite.", encoding="utf-8")
    with pytest.raises(InvalidConfiguration, match=rf"Build {begun.id} .*standby.* retire it"):
        ingest(components, collection, folder)
    components.builds.retire(collection, begun.id)
    assert len(ingest(components, collection, folder)) == 1


class Posing(HashingEmbedder):
    """Says that it is another model than it is."""

    def __init__(self) -> None:
        super().__init__(96, 256)

    @property
    def identity(self) -> str:
        return f"hashing-{DIMENSION}"


def test_no_question_fails_and_no_answer_is_mixed_while_builds_change_places(
    components: Components, collection: Collection, folder: Path
) -> None:
    begun = rebuilt(components, collection, chunk_tokens=100, overlap_tokens=0)
    of_build = {
        number: {row[2] for row in rows(components, build)}
        for number, build in ((collection.build_id, collection), (begun.id, begun))
    }
    assert not of_build[collection.build_id] & of_build[begun.id]
    failures: list[Exception] = []
    asked: list[int] = []
    numbers = itertools.count()
    stop = threading.Event()

    def ask() -> None:
        found = set(texts(components, current(components, collection), "Medway ragstone"))
        [whose] = [number for number, known in of_build.items() if found and found <= known]
        asked.append(whose)

    def write() -> None:
        path = folder / "unrelated.txt"
        path.write_text(f"zzz {next(numbers)}", encoding="utf-8")
        ingest(components, collection, path)

    def repeat(work: Callable[[], None]) -> None:
        while not stop.is_set() and not failures:
            try:
                work()
            except Exception as error:  # noqa: BLE001  told to the thread that asserts
                failures.append(error)

    threads = [threading.Thread(target=repeat, args=[work]) for work in (ask, ask, ask, write)]
    for thread in threads:
        thread.start()
    try:
        components.builds.swap(collection)
        for _ in range(8):
            components.builds.rollback(collection)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert set(asked) == set(of_build)
    for each in components.builds.list(collection):
        check_whole(components, collection, each)
