"""Follow-up questions borrow what they lean on, and others do not."""

from __future__ import annotations

import pytest

from service.conversation import context_of, standalone
from service.engines import Turn

HISTORY = (
    Turn("system", "Be brief."),
    Turn("user", "Where do the stones come from?"),
    Turn("assistant", "From Kent."),
    Turn("user", "When was the White Tower begun?"),
    Turn("assistant", "In 1078."),
)


@pytest.mark.parametrize(
    "question",
    ["And who ordered it?", "Who ordered it?", "Why?", "What about the moat?", "In Kent?"],
)
def test_follow_up_leans_on_the_last_question(question: str) -> None:
    assert context_of(question, HISTORY) == "When was the White Tower begun?"
    searched = standalone(question, HISTORY, max_characters=8_000)
    assert searched == f"When was the White Tower begun?\n{question}"


@pytest.mark.parametrize(
    "question",
    ["How many ravens live near London Bridge?", "Who ordered the building of Dover Castle?"],
)
def test_question_of_its_own_stays_alone(question: str) -> None:
    assert context_of(question, HISTORY) == ""
    assert standalone(question, HISTORY, max_characters=8_000) == question


def test_nothing_was_asked_before() -> None:
    assert standalone("Why?", (), max_characters=10) == "Why?"
    assert standalone("Why?", (Turn("system", "Be brief."),), max_characters=10) == "Why?"


def test_long_history_is_cut_at_the_front() -> None:
    history = (Turn("user", "x" * 100 + " the tower"),)
    searched = standalone("Why so?", history, max_characters=20)
    assert len(searched) == 20
    assert searched.endswith("tower\nWhy so?")
