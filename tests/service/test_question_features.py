"""What questions are about, beside the columns of a window: which rows count, and how many."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow
import pytest

from infra.errors import InvalidRequest, NotFound
from infra.monitoring_settings import Questions
from monitoring.comparison import Plan, compare
from monitoring.detector import Chosen
from monitoring.windows import Window
from service.wiring import Components
from service.work import question_features

pytest.importorskip("py3langid")
QUESTIONS = [f"When is bin {number} of street {number % 5} emptied?" for number in range(300)]


@pytest.fixture
def parts(fast_settings: Any, open_components: Any) -> Any:
    parts: Components = open_components(fast_settings())
    parts.collections.create("bins", parts.recipe())
    return parts


def window(questions: list[str | None]) -> Window:
    return Window.of({"question": questions, "row": np.arange(len(questions))})


def table(questions: list[str | None]) -> Window:
    return Window.of(pyarrow.table({"question": questions, "row": range(len(questions))}))


@pytest.mark.parametrize("window", [window, table])
def test_rows_without_a_question_are_left_out_and_the_others_keep_their_columns(
    parts: Components, window: Callable[[list[str | None]], Window]
) -> None:
    asked = window(
        [None, "When is bin 7 emptied?", " \u00a0", "Who sails to Oban on a Sunday?", ""]
    )
    options = Questions(collection="bins", topics=4)
    reference, now = question_features.beside(parts, options, window([*QUESTIONS]), asked)
    assert reference.rows == len(QUESTIONS) / 2, "the other half is what topics were found on"
    assert list(now.column("row").data) == [1, 3]
    assert list(now.column("question_length").data) == [22, 30]
    known, strange = now.column("question_distance").data
    assert known < strange
    assert now.column("question_vector").data.shape == (2, 256)


def test_no_more_rows_are_embedded_than_may_be(parts: Components) -> None:
    options = Questions(collection="bins", topics=4, most_rows=100)
    reference, now = question_features.beside(
        parts, options, window([*QUESTIONS]), window([*QUESTIONS])
    )
    assert (reference.rows, now.rows) == (100, 100)
    assert list(now.column("row").data) == sorted(set(now.column("row").data))


def test_of_a_large_window_only_what_is_drawn_becomes_text(parts: Components) -> None:
    options = Questions(collection="bins", topics=4, most_rows=100)
    known, long = table([*QUESTIONS]), [f"{number:>300}" for number in range(50_000)]
    large = table([*long])
    taken = sum(sys.getsizeof(each) for each in long)
    question_features.beside(parts, options, known, known)  # languages are loaded once
    tracemalloc.start()
    question_features.beside(parts, options, known, large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < taken / 2


def test_an_hour_without_questions_is_an_empty_window(parts: Components) -> None:
    options = Questions(collection="bins", topics=4)
    _, now = question_features.beside(parts, options, window([*QUESTIONS]), Window.of({}))
    assert now.rows == 0
    assert set(question_features.NAMES) - set(now.names) == {"retrieval_score"}


@pytest.mark.parametrize("in_arrow", [False, True])
def test_what_answers_cite_first_is_followed_and_moves_where_they_rest_on_other_passages(
    parts: Components, in_arrow: bool
) -> None:
    def answered(about: list[str | None]) -> Window:
        cited = [text and f"{text} {number}" for number, text in enumerate(about)]
        columns = {"question": QUESTIONS, "cited": cited}
        return Window.of(pyarrow.table(columns) if in_arrow else columns)

    options = Questions(collection="bins", topics=4, passages=True)
    usual = ["Bins are emptied on Mondays, near the street.", None, "Glass is on Fridays."] * 100
    other = ["Fees were raised by the council.", None, "Ferries sail to Oban on Sundays."] * 100
    plan = Plan(by_column={"passage_vector": Chosen("mmd", {"draws": 99})})
    verdicts = []
    for now in (usual, other):
        seen = question_features.beside(parts, options, answered(usual), answered(now))
        before, after = (each.only(["passage_vector"]) for each in seen)
        assert 0.3 < after.column("passage_vector").is_missing().mean() < 0.4
        verdicts.append(compare(before, after, plan).verdict)
    assert verdicts == ["stable", "drift"]
    assert "passage_vector" in question_features.names(options)
    assert question_features.names(Questions(collection="bins")) == question_features.NAMES


def test_passages_are_asked_of_a_reference_that_says_what_was_cited(parts: Components) -> None:
    options = Questions(collection="bins", topics=4, passages=True)
    with pytest.raises(InvalidRequest, match="pin one that this release exports"):
        question_features.beside(parts, options, window([*QUESTIONS]), window([*QUESTIONS]))
    reference = Window.of({"question": QUESTIONS, "cited": QUESTIONS})
    _, now = question_features.beside(parts, options, reference, Window.of({}))
    assert now.rows == 0
    assert "passage_vector" in now.names


def test_a_reference_that_kept_no_questions_is_refused_with_what_to_do(parts: Components) -> None:
    options = Questions(collection="bins")
    for none in (window([None] * 200), table([None] * 200)):
        with pytest.raises(InvalidRequest, match="telemetry.content = true"):
            question_features.beside(parts, options, none, window([]))
    tins = Questions(collection="tins")
    with pytest.raises(NotFound, match="tins"):
        question_features.beside(parts, tins, window([*QUESTIONS]), window([]))
