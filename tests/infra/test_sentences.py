"""Sentence spans: boundaries in several scripts, the laws, and linear time on hostile text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith met Mrs. Jones at 3.14 p.m. in the U.S. Senate.",
        "J. R. R. Tolkien wrote it, e.g. The Hobbit, i.e. a book.",
        "See Fig. 3 and Eq. 12 on pp. 4-7, vol. 2, no. 5.",
        "It costs $3.50, as Smith et al. 2020 found at example.com.",
        '"Is it ready?" she asked.',
        "Wait... what does it do?",
        "Apple Inc. announced it vs. Microsoft Corp. in Jan. 2024.",
        "Yahoo! is a company (founded 1994.) that grew.",
        "The contents . . . . . . . . 12",
        "1. The first item of a list",
    ],
)
def test_abbreviations_numbers_and_quotes_do_not_end_a_sentence(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One here. Two here! Three?", ["One here.", "Two here!", "Three?"]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("He lives in the U.S. He likes it.", ["He lives in the U.S.", "He likes it."]),
        ("It was found.[12] Then lost.", ["It was found.[12]", "Then lost."]),
        ("She said no. Then 5. Next.", ["She said no.", "Then 5.", "Next."]),
        ("A heading\n\nIts text", ["A heading", "Its text"]),
        ("Things:\n- one\n- two\n2) three", ["Things:", "- one", "- two", "2) three"]),
        ("lines that\nare wrapped. And on", ["lines that\nare wrapped.", "And on"]),
        ("a | b\nc | d", ["a | b", "c | d"]),
        ("今天天气很好。我们去公园！好吗？", ["今天天气很好。", "我们去公园！", "好吗？"]),
        ("「你好。」他说。", ["「你好。」", "他说。"]),
        ("كيف حالك؟ أنا بخير.", ["كيف حالك؟", "أنا بخير."]),
        ("यह वाक्य है। दूसरा वाक्य।", ["यह वाक्य है।", "दूसरा वाक्य।"]),
        ("", []),
        (" \n\t ", []),
    ],
)
def test_sentences_end_where_a_reader_sees_them_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


PROSE = st.text(
    st.sampled_from(list("ab AZ09.!?…。؟।\n\t '\"”)]([|-•\u00a0\u2028\x1d")), max_size=200
)


@given(st.one_of(PROSE, st.text()))
def test_every_character_but_white_space_lies_in_exactly_one_span(text: str) -> None:
    spans = sentence_spans(text)
    end = 0
    for start, stop in spans:
        assert text[end:start].strip() == ""
        assert text[start:stop] == text[start:stop].strip() != ""
        end = stop
    assert text[end:].strip() == ""


@pytest.mark.parametrize(
    "text",
    [
        "word " * 1_000_000,
        "." * 1_000_000,
        "." * 1_000_000 + "x",
        ". " * 300_000,
        ".)" * 300_000 + "x",
        "\n" * 1_000_000 + "x",
        "\n" + " " * 1_000_000 + "x",
        "'" * 1_000_000 + ". A",
        "\n(" * 300_000,
        "1. " * 200_000,
        "。" * 1_000_000,
        "a | b\n" * 100_000,
    ],
    ids=lambda text: repr(text[:6]),
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    started = time.perf_counter()
    sentence_spans(text)
    assert time.perf_counter() - started < 20  # quadratic would be hours
