"""Citations are checked against the stored text, whatever the engine says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import Passage
from service.citations import check, read_markers
from service.engines import Quote

STORED = (
    "Preface. The White Tower was begun in 1078. Its ragstone came from Maidstone. It has ravens."
)


def passage(start: int = 0, end: int = len(STORED), *, text: str = STORED) -> Passage:
    return Passage(
        chunk_id=1,
        document_id="file-1",
        document_version=3,
        collection="towers",
        source="tower.txt",
        title="The tower",
        start_char=start,
        end_char=end,
        text=text[start:end],
        score=1.0,
        page=7,
    )


def read_text(document_id: str, version: int, start: int, end: int) -> str | None:
    return STORED[start:end] if (document_id, version) == ("file-1", 3) else None


def quote(start: int, end: int, *, position: int = 0, support: float = 0.8) -> Quote:
    return Quote(position, start, end, answer_start=0, answer_end=5, support=support)


def test_citation_spans_the_document_not_the_passage() -> None:
    start = STORED.index("The White")
    end = STORED.index(" It has ravens")
    checked = check([quote(0, 33)], [passage(start, end)], read_text=read_text)
    (citation,) = checked.citations
    assert citation.text == "The White Tower was begun in 1078"
    assert STORED[citation.start_char : citation.end_char] == citation.text
    assert (citation.document_id, citation.document_version) == ("file-1", 3)
    assert (citation.page, citation.support, citation.title) == (7, 0.8, "The tower")
    assert checked.unverified == 0


def test_quote_of_a_text_that_changed_is_dropped_and_counted() -> None:
    changed = passage(text=STORED.replace("1078", "1079"))
    checked = check([quote(9, 42), quote(0, 8)], [changed], read_text=read_text)
    assert [citation.text for citation in checked.citations] == ["Preface."]
    assert checked.unverified == 1


def test_quote_of_a_deleted_document_is_dropped() -> None:
    checked = check([quote(0, 8)], [passage()], read_text=lambda *_: None)
    assert checked.citations == ()
    assert checked.unverified == 1


@pytest.mark.parametrize(
    "wrong",
    [
        quote(0, 8, position=1),
        quote(0, 8, position=-1),
        quote(8, 8),
        quote(9, 8),
        quote(-3, 8),
        quote(0, len(STORED) + 1),
    ],
    ids=["no such passage", "negative passage", "empty", "backwards", "before", "beyond"],
)
def test_impossible_quote_is_dropped(wrong: Quote) -> None:
    checked = check([wrong], [passage()], read_text=read_text)
    assert (checked.citations, checked.unverified) == ((), 1)


@given(
    stored=st.text(min_size=1, max_size=200),
    claimed=st.text(max_size=200),
    bounds=st.tuples(st.integers(-5, 210), st.integers(-5, 210)),
    offset=st.integers(0, 50),
)
def test_every_citation_equals_the_stored_text(
    stored: str, claimed: str, bounds: tuple[int, int], offset: int
) -> None:
    found = passage(offset, offset + len(claimed), text="x" * offset + claimed)
    checked = check([quote(*bounds)], [found], read_text=lambda _d, _v, a, b: stored[a:b])
    assert len(checked.citations) + checked.unverified == 1
    for citation in checked.citations:
        assert citation.text == stored[citation.start_char : citation.end_char]
        assert citation.text


def test_marker_cites_the_sentence_that_shares_the_claims_words() -> None:
    text = "It was begun in 1078 [1]. Ravens live there."
    marked = read_markers(text, [passage()])
    (found,) = marked.quotes
    assert STORED[found.start : found.end] == "The White Tower was begun in 1078."
    assert text[found.answer_start : found.answer_end] == "It was begun in 1078"
    assert found.support == 1.0
    assert marked.unknown == 0


def test_marker_after_the_full_stop_belongs_to_the_sentence_before() -> None:
    text = "Hello. The ragstone came from Maidstone. [1] More follows."
    (found,) = read_markers(text, [passage()]).quotes
    assert text[found.answer_start : found.answer_end] == "The ragstone came from Maidstone."
    assert "Maidstone" in STORED[found.start : found.end]


def test_two_markers_in_a_sentence_split_its_claims() -> None:
    text = "Begun in 1078 [1], of ragstone from Maidstone [2]."
    first, second = read_markers(text, [passage(), passage()]).quotes
    assert text[first.answer_start : first.answer_end] == "Begun in 1078"
    assert text[second.answer_start : second.answer_end] == "of ragstone from Maidstone"
    assert (first.passage, second.passage) == (0, 1)


@pytest.mark.parametrize("markers", ["[1][2]", "[1, 2]", "[1] [2]", "【1】【2】"])
def test_markers_together_share_one_claim(markers: str) -> None:
    text = f"The tower has ravens {markers}."
    first, second = read_markers(text, [passage(), passage()]).quotes
    assert (first.passage, second.passage) == (0, 1)
    assert text[first.answer_start : first.answer_end] == "The tower has ravens"
    assert (first.answer_start, first.answer_end) == (second.answer_start, second.answer_end)


def test_half_supported_claim_has_half_the_support() -> None:
    (found,) = read_markers("Ravens and penguins [1].", [passage()]).quotes
    assert found.support == 0.5


@pytest.mark.parametrize("text", ["Ravens [2].", "Ravens [0].", "Penguins swim [1].", "[1]"])
def test_marker_that_points_at_nothing_is_counted(text: str) -> None:
    marked = read_markers(text, [passage()])
    assert (marked.quotes, marked.unknown) == ((), 1)


@given(
    st.lists(
        st.sampled_from(["Ravens", " ", "tower. ", "[1]", "[2, 9]", "\n", "【1】", "[x]", "塔。"])
    )
)
def test_every_marker_is_a_quote_or_counted(pieces: list[str]) -> None:
    text = "".join(pieces)
    marked = read_markers(text, [passage()])
    numbers = re.findall(r"\d+", text)
    assert len(marked.quotes) + marked.unknown == len(numbers)
    for found in marked.quotes:
        assert 0 <= found.answer_start < found.answer_end <= len(text)
        assert 0 < found.support <= 1
