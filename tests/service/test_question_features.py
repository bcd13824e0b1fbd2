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


def test_a_reference_that_kept_no_questions_is_refused_with_what_to_do(parts: Components) -> None:
    options = Questions(collection="bins")
    for none in (window([None] * 200), table([None] * 200)):
        with pytest.raises(InvalidRequest, match="telemetry.content = true"):
            question_features.beside(parts, options, none, window([]))
    tins = Questions(collection="tins")
    with pytest.raises(NotFound, match="tins"):
        question_features.beside(parts, tins, window([*QUESTIONS]), window([]))
