"""Chunking: its laws on arbitrary documents, and what people expect of ordinary ones."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.contracts import Block, BlockKind, Chunk, Document
from infra.errors import InvalidConfiguration
from infra.sentences import sentence_spans
from retrieval.chunking import MAX_CHARACTERS_PER_TOKEN, split

Part = tuple[BlockKind, int, str]


def document(*parts: Part) -> Document:
    text, blocks = "", []
    for number, (kind, level, content) in enumerate(parts):
        text += "\n\n" if text else ""
        blocks.append(Block(kind, len(text), len(text) + len(content), level, number // 3 + 1))
        text += content
    return Document(text, tuple(blocks), "text/plain")


def tokens(text: str) -> NDArray[np.int32]:
    spans = [match.span() for match in re.finditer(r"\w{1,5}|[^\w\s]", text)]
    return np.array(spans, dtype=np.int32).reshape(-1, 2)


def chunks(content: Document, max_tokens: int = 40, overlap_tokens: int = 10) -> list[Chunk]:
    return split(
        content, tokens(content.text), max_tokens=max_tokens, overlap_tokens=overlap_tokens
    )


WORDS = st.text(
    st.sampled_from(list("abcdeÄß漢字é\u0301🙂👩\u200d.!?,  \n-|")), min_size=1, max_size=300
)
KINDS = st.sampled_from(["heading", "paragraph", "list_item", "table", "code"])


@st.composite
def documents(draw: st.DrawFn) -> Document:
    parts: list[Part] = []
    for _ in range(draw(st.integers(0, 12))):
        content = draw(WORDS).strip()
        kind = draw(KINDS)
        if content:
            parts.append((kind, draw(st.integers(1, 4)) if kind == "heading" else 0, content))
    return document(*parts)


@given(documents(), st.integers(1, 60), st.integers(0, 59))
def test_chunks_keep_the_laws(content: Document, max_tokens: int, overlap: int) -> None:
    overlap = min(overlap, max_tokens - 1)
    spans = tokens(content.text)
    found = split(content, spans, max_tokens=max_tokens, overlap_tokens=overlap)
    covered = np.zeros(len(content.text), dtype=bool)
    previous = (-1, -1)
    for ordinal, chunk in enumerate(found):
        assert chunk.ordinal == ordinal
        assert chunk.text == content.text[chunk.start_char : chunk.end_char]
        assert chunk.text == chunk.text.strip() != ""
        inside = (spans[:, 0] >= chunk.start_char) & (spans[:, 1] <= chunk.end_char)
        assert int(inside.sum()) <= chunk.tokens <= max_tokens
        assert len(chunk.text) <= max_tokens * MAX_CHARACTERS_PER_TOKEN
        assert chunk.start_char > previous[0]
        assert chunk.end_char > previous[1]
        shared = (spans[:, 0] >= chunk.start_char) & (spans[:, 1] <= previous[1])
        assert int(shared.sum()) <= overlap
        previous = (chunk.start_char, chunk.end_char)
        covered[chunk.start_char : chunk.end_char] = True
    missed = "".join(c for c, seen in zip(content.text, covered, strict=True) if not seen)
    assert missed.strip() == ""


def prose(count: int, word: str = "stone") -> str:
    return " ".join(f"The {word} number {number} is grey." for number in range(count))


def test_chunks_end_with_sentences() -> None:
    content = document(("paragraph", 0, prose(40)))
    ends = {end for _, end in sentence_spans(content.text)}
    found = chunks(content)
    assert len(found) > 3
    assert {chunk.end_char for chunk in found} <= ends


def test_neighbours_share_whole_sentences_within_the_overlap() -> None:
    content = document(("paragraph", 0, prose(40)))
    starts = {start for start, _ in sentence_spans(content.text)}
    found = chunks(content, overlap_tokens=10)
    for before, after in zip(found, found[1:], strict=False):
        assert after.start_char < before.end_char
        assert after.start_char in starts


def test_no_overlap_is_made_when_none_is_asked_for() -> None:
    found = chunks(document(("paragraph", 0, prose(40))), overlap_tokens=0)
    for before, after in zip(found, found[1:], strict=False):
        assert after.start_char >= before.end_char


def test_a_chunk_does_not_cross_a_high_heading() -> None:
    content = document(
        ("heading", 1, "Towers"),
        ("paragraph", 0, prose(8, "tower")),
        ("heading", 2, "Bridges"),
        ("paragraph", 0, prose(8, "bridge")),
    )
    found = chunks(content)
    assert all(not ("tower" in chunk.text and "bridge" in chunk.text) for chunk in found)
    assert {chunk.heading for chunk in found} == {"Towers", "Towers > Bridges"}


def test_tiny_sections_join_up_to_the_budget() -> None:
    parts: list[Part] = []
    for name in ("Open", "Closed", "Prices", "Address"):
        parts += [("heading", 2, name), ("paragraph", 0, "Ask at the desk.")]
    found = chunks(document(*parts))
    assert len(found) == 1
    assert found[0].tokens <= 40


def test_a_heading_stays_with_the_text_below_it() -> None:
    parts: list[Part] = []
    for number in range(12):
        parts += [("heading", 3, f"Part {number}"), ("paragraph", 0, prose(2))]
    found = chunks(document(*parts))
    assert len(found) > 3
    assert not any(re.search(r"Part \d+$", chunk.text) for chunk in found)


def test_table_rows_stay_whole() -> None:
    rows = [f"row {number} | grey | {number * 7}" for number in range(60)]
    content = document(("table", 0, "\n".join(rows)))
    for chunk in chunks(content):
        assert set(chunk.text.split("\n")) <= set(rows)


def test_a_sentence_beyond_the_budget_is_cut_between_words() -> None:
    text = "pebble " * 300 + "end"
    found = chunks(document(("paragraph", 0, text)))
    assert [word for chunk in found for word in chunk.text.split()] == text.split()


def test_a_cut_does_not_tear_a_letter_from_its_mark() -> None:
    text = "e\u0301" * 2_000
    spans = np.array([(i, i + 1) for i in range(len(text))], dtype=np.int32)
    content = Document(text, (Block("paragraph", 0, len(text)),), "text/plain")
    found = split(content, spans, max_tokens=15, overlap_tokens=0)
    assert len(found) > 100
    assert all(chunk.text.startswith("e") for chunk in found)


def test_text_that_is_one_token_is_still_cut() -> None:
    text = "a" * 1_000_000
    content = Document(text, (Block("paragraph", 0, len(text)),), "text/plain")
    found = split(content, np.array([(0, len(text))]), max_tokens=200, overlap_tokens=32)
    assert "".join(chunk.text for chunk in found) == text
    assert max(len(chunk.text) for chunk in found) <= 200 * MAX_CHARACTERS_PER_TOKEN


def test_pages_and_heading_paths_follow_the_blocks() -> None:
    content = document(
        ("heading", 1, "Guide"),
        ("heading", 2, "Walls"),
        ("paragraph", 0, prose(6, "wall")),  # the last block of page 1
        ("paragraph", 0, prose(6, "gate")),
        ("heading", 3, "Keep\n----"),
        ("paragraph", 0, prose(6, "keep")),
    )
    found = chunks(content, overlap_tokens=0)
    by_page = {chunk.page for chunk in found}
    assert by_page == {1, 2}
    assert found[0].heading == "Guide > Walls"
    assert found[-1].heading == "Guide > Walls > Keep"


def test_an_empty_document_has_no_chunks() -> None:
    assert chunks(Document("", (), "text/plain")) == []


def test_an_overlap_as_large_as_the_chunk_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="chunk_overlap_tokens"):
        chunks(document(("paragraph", 0, "Text.")), max_tokens=32, overlap_tokens=32)


def test_a_book_is_split_in_seconds() -> None:
    parts: list[Part] = []
    for number in range(350):
        parts.append(("heading", 2, f"Chapter {number}"))
        parts += [("paragraph", 0, prose(12)) for _ in range(28)]
    content = document(*parts)
    assert len(content.text) > 3_000_000
    spans = tokens(content.text)
    started = time.perf_counter()
    found = split(content, spans, max_tokens=200, overlap_tokens=32)
    assert time.perf_counter() - started < 20  # 0.6 s on an idle core
    assert len(found) > 3_000
