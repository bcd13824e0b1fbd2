"""Groundedness: what passages do not carry is told and named, what they carry is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import Answer, Citation, Groundedness, Passage, Usage
from monitoring.groundedness import Scorer
from monitoring.grounding.detectors import open_detector

BRIDGE = (
    "The Forth Bridge is a railway bridge across the Firth of Forth in the east of Scotland. "
    "It was designed by Sir John Fowler and Sir Benjamin Baker. It has a total length of "
    "2,467 metres and was opened on 4 March 1890. It is not open to cars. "
    "About 4,600 men worked on it, of whom 57 lost their lives."
)
OTTERS = "Otters sleep afloat and hold each other by the paw. They eat fish and crabs. "
LEAVE = (
    "Every full-time employee has 28 days of paid leave a year. Leave that is not taken by "
    "31 March of the next year lapses. Requests go to the line manager at least two weeks ahead."
)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(open_detector("trees"))


def passage(text: str, title: str = "Forth Bridge", number: int = 1) -> Passage:
    return Passage(number, "file-a", 1, "c", "a.md", title, 0, len(text), text, 0.9)


def answer(text: str, *texts: str, answerable: bool = True, **more: object) -> Answer:
    passages = tuple(passage(each, number=n) for n, each in enumerate(texts))
    values: dict[str, object] = {
        "id": "answer-1",
        "question": "?",
        "collection": "c",
        "text": text,
        "answerable": answerable,
        "reason": None,
        "citations": (),
        "passages": passages,
        "engine": "test",
        "usage": Usage(),
    }
    return Answer(**{**values, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "It has a total length of 2,467 metres and was opened on 4 March 1890.",
        "The Forth Bridge is 2467 metres long.",
        "The Forth Bridge opened in March 1890. [1]",
        "It was designed by Benjamin Baker and John Fowler.",
        "57 of the 4,600 men who worked on the bridge lost their lives.",
        "Cars may not use it: the Forth Bridge is not open to cars.",
    ],
)
def test_what_passages_say_in_these_or_other_words_is_not_flagged(
    scorer: Scorer, text: str
) -> None:
    found = scorer.score(answer(text, BRIDGE, OTTERS))
    assert found.unsupported == ()
    assert found.verdict in {"grounded", "uncertain"}


def test_copied_answer_is_grounded(scorer: Scorer) -> None:
    found = scorer.score(answer(BRIDGE, OTTERS, BRIDGE))
    assert found.verdict == "grounded"
    assert found.score is not None
    assert found.score > 0.9


@pytest.mark.parametrize(
    ("text", "kind", "said", "instead"),
    [
        ("The bridge has a total length of 3,467 metres.", "number", "3,467", "2,467"),
        ("It was opened on 4 March 1891.", "date", "1891", "1890"),
        ("About 4,600 men worked on it, of whom 75 lost their lives.", "number", "75", "57"),
    ],
)
def test_contradicted_number_date_or_name_is_flagged_and_named(
    scorer: Scorer, text: str, kind: str, said: str, instead: str | None
) -> None:
    found = scorer.score(answer(text, BRIDGE, OTTERS))
    assert found.verdict == "unsupported"
    (sentence,) = found.unsupported
    assert text[sentence.start : sentence.end] == text
    named = {(each.kind, each.said): each.instead for each in sentence.disagreements}
    assert (kind, said) in named
    if instead is not None:
        assert named[kind, said] == instead


def test_name_that_no_passage_has_is_named(scorer: Scorer) -> None:
    found = scorer.score(answer("It was designed by Sir John Fowler and Gustave Eiffel.", BRIDGE))
    assert found.verdict != "grounded"
    (sentence,) = (*found.unsupported, *found.doubtful)
    assert [(each.kind, each.said) for each in sentence.disagreements] == [
        ("name", "Gustave Eiffel")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Penguins paint the bridge every spring.",
        "It is the oldest suspension bridge of Wales.",
        "Employees receive a company car after six months.",
    ],
)
def test_what_no_passage_says_is_flagged(scorer: Scorer, text: str) -> None:
    assert scorer.score(answer(text, BRIDGE, LEAVE)).verdict == "unsupported"


def test_denial_turned_round_is_never_called_grounded(scorer: Scorer) -> None:
    right = scorer.score(answer("It is not open to cars.", BRIDGE, LEAVE))
    wrong = scorer.score(answer("It is open to cars.", BRIDGE, LEAVE))
    assert right.verdict == "grounded"
    assert wrong.verdict != "grounded"
    assert right.score is not None
    assert wrong.score is not None
    assert wrong.score < right.score - 0.4


def test_only_the_sentence_that_is_not_carried_is_flagged(scorer: Scorer) -> None:
    text = "It was opened on 4 March 1890. Penguins paint it every spring. It is not open to cars."
    (sentence,) = scorer.score(answer(text, BRIDGE)).unsupported
    assert text[sentence.start : sentence.end] == "Penguins paint it every spring."


def test_support_anywhere_is_support(scorer: Scorer) -> None:
    """Noise around the passage changes little, in whatever order it comes."""
    text = "The Forth Bridge was opened on 4 March 1890."
    alone = scorer.score(answer(text, BRIDGE)).score
    among = scorer.score(answer(text, *[OTTERS] * 9, BRIDGE)).score
    last = scorer.score(answer(text, BRIDGE, *[OTTERS] * 9)).score
    assert alone is not None
    assert among == last == pytest.approx(alone, abs=0.05)


@pytest.mark.parametrize("place", [0, 1])
def test_passages_of_100_000_characters_are_read_to_their_end(scorer: Scorer, place: int) -> None:
    noise = OTTERS * (100_000 // len(OTTERS))
    long = [noise, BRIDGE] if place else [BRIDGE, noise]
    right = scorer.score(answer("It was opened on 4 March 1890.", "\n\n".join(long)))
    wrong = scorer.score(answer("It was opened on 4 March 1931.", "\n\n".join(long)))
    assert right.coverage == wrong.coverage == 1
    assert right.unsupported == ()
    assert wrong.verdict == "unsupported"


def test_claim_at_the_end_of_a_long_answer_is_still_seen(scorer: Scorer) -> None:
    text = "It was opened on 4 March 1890. " * 60 + "Penguins paint it every spring."
    found = scorer.score(answer(text, BRIDGE))
    assert found.verdict == "unsupported"
    assert found.unsupported[-1].end == len(text)


def test_answer_of_too_many_sentences_is_not_called_grounded(scorer: Scorer) -> None:
    found = scorer.score(answer("It was opened on 4 March 1890. " * 300, BRIDGE))
    assert found.coverage < 1
    assert found.verdict == "uncertain"
    assert found.reason is not None


@pytest.mark.parametrize(
    ("text", "answerable", "texts"),
    [
        ("The documents do not say.", False, (BRIDGE,)),
        ("", True, (BRIDGE,)),
        ("[1] …", True, (BRIDGE,)),
        ("Which bridge do you mean?", True, (BRIDGE,)),
        ("The bridge is long.", True, ()),
        ("The bridge is long.", True, ("", "  ")),
    ],
)
def test_what_cannot_be_held_against_anything_is_unscored_with_a_reason(
    scorer: Scorer, text: str, answerable: bool, texts: tuple[str, ...]
) -> None:
    found = scorer.score(answer(text, *texts, answerable=answerable))
    assert found.verdict == "unscored"
    assert found.score is None
    assert found.unsupported == ()
    assert found.reason


LANGUAGES = {
    "zh": ("东京塔高333米。", "东京塔是日本东京的一座电视塔，高333米，1958年建成。", "333", "444"),
    "ja": (
        "東京タワーは1958年に完成した。",
        "東京タワーは1958年に完成した高さ333メートルの電波塔である。",
        "1958",
        "1985",
    ),
    "de": (
        "Die Brücke ist 2467 Meter lang.",
        "Die Brücke über den Forth ist 2467 Meter lang und wurde 1890 eröffnet.",
        "2467",
        "2647",
    ),
    "ar": ("طول الجسر 2467 مترا.", "يبلغ طول الجسر 2467 مترا وافتتح عام 1890.", "2467", "2647"),
    "th": ("สะพานยาว 2467 เมตร", "สะพานยาว 2467 เมตร เปิดในปี 1890", "2467", "2647"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_languages_and_scripts_are_read(scorer: Scorer, language: str) -> None:
    text, passage, right, wrong = LANGUAGES[language]
    assert scorer.score(answer(text, passage)).unsupported == ()
    found = scorer.score(answer(text.replace(right, wrong), passage))
    assert found.verdict == "unsupported"
    (named,) = found.unsupported[0].disagreements
    assert (named.said, named.instead) == (wrong, right)


def test_sentences_without_a_citation_and_with_a_wrong_one_are_told(scorer: Scorer) -> None:
    text = "It was opened on 4 March 1890. It is not open to cars."
    first = text.index(" It is")
    cited = Citation("file-b", 1, "o.md", "Otters", 0, 50, OTTERS, 0, first, 0.1)
    found = scorer.score(answer(text, BRIDGE, OTTERS, citations=(cited,)))
    assert found.miscited == ((0, first),)
    assert found.uncited == ((first + 1, len(text)),)
    assert found.unsupported == ()


@settings(max_examples=25)
@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=3))
def test_any_answer_is_scored_without_a_fault(text: str, texts: list[str]) -> None:
    found: Groundedness = Scorer(open_detector("trees")).score(answer(text, *texts))
    assert (found.score is None) == (found.verdict == "unscored")
    assert found.score is None or 0 <= found.score <= 1
    for each in found.unsupported:
        assert 0 <= each.start < each.end <= len(text)
