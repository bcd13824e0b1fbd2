"""Personal data is masked in answers as they are told, wherever the pieces end."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.contracts import Answer, Citation, Usage
from infra.expectations.recognizers import find, mask
from scripted_chat import cut
from service import redaction
from service.answering import AnswerEvent, Cited, Finished, Retrieved, Text
from service.redaction import MaskingFilter, Redactor, redacted

PARTS = [
    "ada@example.org", "+49 30 1234567", "(212) 555-0187", "4111 1111 1111 1111", "411", "1",
    "GB82 WEST 1234 5698 7654 32", "WEST", "GB82", "192.168.0.1", "123-45-6789", "call", "Call",
    "-----BEGIN RSA PRIVATE KEY-----", "rgs_abcdefghijklmnopqrstuvwx", " ", "  ", ". ", "\n", "。",
    ", ", "塔", "A", "@", "-", "+", "(", ")",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)
CHARACTERS = 40_000
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(text=st.one_of(TEXTS, st.text(max_size=80)), sizes=SIZES)
@example(text="+49 30 1234567  4111 1111 1111 1111", sizes=[1])
def test_any_cut_is_masked_as_the_whole(text: str, sizes: list[int]) -> None:
    redactor = Redactor()
    told = "".join(redactor.feed(piece) for piece in cut(text, sizes)) + redactor.end()
    assert told == mask(text)


@settings(max_examples=25, deadline=None)
@given(text=TEXTS, sizes=SIZES)
def test_places_move_with_the_text(text: str, sizes: list[int]) -> None:
    redactor = Redactor()
    told = "".join(redactor.feed(piece) for piece in cut(text, sizes)) + redactor.end()
    places = [redactor.position(at) for at in range(len(text) + 1)]
    ends = [redactor.position(at, is_end=True) for at in range(len(text) + 1)]
    assert places == sorted(places)
    assert ends == sorted(ends)
    assert ends[-1] == len(told)
    assert all(start <= end for start, end in zip(places, ends[1:], strict=False))


@pytest.mark.parametrize(
    ("part", "characters", "size"),
    [
        ("12 ", CHARACTERS, 7),
        ("12 ", CHARACTERS, CHARACTERS),
        ("ada@example.org\n", CHARACTERS, 7),
        ("A1", CHARACTERS, 7),
        ("x", CHARACTERS, 50),
        ("ABC ", CHARACTERS, 4_000),
        ("ABC ", CHARACTERS, CHARACTERS),
        ("4111 1111 1111 1111 ", CHARACTERS, CHARACTERS),
        pytest.param("ABC ", 10**6, 10**6, marks=pytest.mark.slow),
        pytest.param("4111 1111 1111 1111 ", 10**6, 10**6, marks=pytest.mark.slow),
    ],
)
def test_a_long_text_is_read_a_few_times_however_it_comes(
    part: str, characters: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = part * (characters // len(part))
    read = 0

    def reading(text: str) -> Any:
        nonlocal read
        read += len(text)
        return find(text)

    def looking_back(text: str, at: int) -> str:
        nonlocal read
        read += 1
        return word_before(text, at)

    word_before = redaction._word_before
    monkeypatch.setattr(redaction, "find", reading)
    monkeypatch.setattr(redaction, "_word_before", looking_back)
    redactor = Redactor()
    told = "".join(redactor.feed(piece) for piece in cut(text, [size])) + redactor.end()
    assert read <= 4 * len(text)
    assert told == mask(text)
    assert len(told) == redactor.position(len(text), is_end=True)


@pytest.mark.parametrize("lead", range(0, 40, 3))
def test_what_is_held_too_long_is_not_parted_within_a_number(lead: int) -> None:
    text = "7" * lead + " " + "4111 1111 1111 1111 " * 900
    redactor = Redactor()
    told = "".join(redactor.feed(piece) for piece in cut(text, [5])) + redactor.end()
    assert "4111" not in told
    assert told == mask(text)


def test_words_are_not_held_longer_than_a_number_might_go_on() -> None:
    redactor = Redactor()
    assert redactor.feed("The number is ") == "The number is "
    assert redactor.feed("+49 30 123") == ""
    assert redactor.feed("4567 now ") == "<phone> now "


def answer(text: str, *citations: Citation) -> Answer:
    return Answer("answer-1", "Who?", "c", text, True, None, citations, (), "echo", Usage())


def test_an_answer_is_told_masked_with_its_citations_in_place() -> None:
    text = "Write to ada@example.org. It costs nothing."
    start = text.index("It costs")
    citation = Citation(
        "file-1", 1, "a", "A", 0, 23, "ada@example.org costs x", start, len(text), 1.0
    )

    async def events() -> AsyncGenerator[AnswerEvent, None]:
        yield Retrieved(())
        for piece in cut(text, (3,)):
            yield Text(piece)
        yield Cited(citation)
        yield Finished(answer(text, citation))

    async def run() -> list[AnswerEvent]:
        return [event async for event in redacted(events())]

    seen = anyio.run(run)
    told = "".join(event.text for event in seen if isinstance(event, Text))
    assert told == "Write to <email>. It costs nothing."
    (cited,) = [event.citation for event in seen if isinstance(event, Cited)]
    assert told[cited.answer_start : cited.answer_end] == "It costs nothing."
    assert cited.text == "<email> costs x"
    last = seen[-1]
    assert isinstance(last, Finished)
    assert last.answer.text == told
    assert last.answer.citations == (cited,)


def test_log_lines_are_masked() -> None:
    record = logging.LogRecord("x", 20, "f", 1, "asked by %s", ("ada@example.org",), None)
    assert MaskingFilter().filter(record)
    assert record.getMessage() == "asked by <email>"
