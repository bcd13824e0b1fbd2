"""Passages with the text around them: always what is stored at their span."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.contracts import Passage
from infra.settings import load_settings
from retrieval.ingest import Summary
from retrieval.neighbours import expand
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components

WORDS = ("stone", "tower", "river", "brücke", "石垣", "bread", "oven", "naïve 🙂", "keep", "moat")
DOCUMENTS = 3
SENTENCES = 60


def _text(document: int) -> str:
    sentences = [
        f"Sentence {number} of {document} tells of {WORDS[number % len(WORDS)]} and of "
        f"{WORDS[(number * 7 + document) % len(WORDS)]} at some length."
        for number in range(SENTENCES)
    ]
    return "\n\n".join(" ".join(sentences[start : start + 5]) for start in range(0, SENTENCES, 5))


class Library:
    """Three documents of a few dozen chunks, and every chunk as a passage."""

    def __init__(self, folder: Path) -> None:
        for number in range(DOCUMENTS):
            (folder / f"{number}.txt").write_text(_text(number), encoding="utf-8")
        settings = load_settings(
            data_folder=folder / "data",
            retrieval={"embedder": "hashing", "chunk_tokens": 40, "chunk_overlap_tokens": 8},
        )
        self.components = Components(settings)
        self.collection = self.components.collections.create("library", self.components.recipe())
        summary = Summary()
        paths = [folder / f"{number}.txt" for number in range(DOCUMENTS)]
        for event in self.components.ingester.ingest(self.collection, walk(paths)):
            summary.add(event)
        assert summary.added == DOCUMENTS
        request = SearchRequest("sentence", limit=1000)
        self.passages = self.components.retriever.search(self.collection, request).passages

    def stored(self, passage: Passage) -> str | None:
        return self.components.documents.read_text(
            passage.document_id, passage.document_version, passage.start_char, passage.end_char
        )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    library = Library(tmp_path_factory.mktemp("library"))
    yield library
    library.components.close()


def test_the_library_has_enough_chunks(library: Library) -> None:
    assert len(library.passages) > 30
    assert len({passage.document_id for passage in library.passages}) == DOCUMENTS


@hypothesis_settings(max_examples=60, deadline=None)
@given(data=st.data(), neighbours=st.integers(0, 4))
def test_the_text_is_what_is_stored_at_the_span(
    library: Library, data: st.DataObject, neighbours: int
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(library.passages), unique_by=id, max_size=8))
    expanded = expand(library.components.database, chosen, neighbours=neighbours)
    for passage in expanded:
        assert library.stored(passage) == passage.text
    for before in chosen:
        around = [
            passage
            for passage in expanded
            if passage.document_id == before.document_id
            and passage.start_char <= before.start_char
            and before.end_char <= passage.end_char
        ]
        assert len(around) == 1 or neighbours == 0
        assert before.text in around[0].text
    order = [passage.chunk_id for passage in expanded]
    assert order == [one.chunk_id for one in chosen if one.chunk_id in order]


@hypothesis_settings(max_examples=30, deadline=None)
@given(data=st.data(), neighbours=st.integers(1, 4))
def test_expanded_passages_do_not_overlap(
    library: Library, data: st.DataObject, neighbours: int
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(library.passages), unique_by=id, max_size=12))
    expanded = expand(library.components.database, chosen, neighbours=neighbours)
    spans = sorted((one.document_id, one.start_char, one.end_char) for one in expanded)
    for (document, _, end), (other, start, _) in zip(spans, spans[1:], strict=False):
        assert document != other or end <= start


def test_one_neighbour_reaches_as_far_as_the_chunks_beside(library: Library) -> None:
    document = library.passages[0].document_id
    chunks = sorted(
        (one for one in library.passages if one.document_id == document),
        key=lambda one: one.start_char,
    )
    middle = chunks[len(chunks) // 2]
    at = chunks.index(middle)
    (expanded,) = expand(library.components.database, [middle], neighbours=1)
    assert expanded.start_char == min(chunks[at - 1].start_char, middle.start_char)
    assert expanded.end_char == max(chunks[at + 1].end_char, middle.end_char)
    assert (expanded.score, expanded.chunk_id) == (middle.score, middle.chunk_id)


def test_no_neighbours_changes_nothing(library: Library) -> None:
    few = library.passages[:5]
    assert expand(library.components.database, few, neighbours=0) == list(few)


def test_a_passage_that_is_gone_stays_as_it_was(library: Library) -> None:
    gone = replace(library.passages[0], chunk_id=10**9)
    both = [gone, library.passages[1]]
    expanded = expand(library.components.database, both, neighbours=2)
    assert expanded[0] == gone
    assert len(expanded[1].text) > len(both[1].text)
