"""Words of questions and sentences are compared across forms and scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.words import (
    Kind,
    content_terms,
    defines,
    holds_kind,
    read_question,
    stem,
    terms,
)


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        (("invent", "invented", "inventing", "inventions", "invention"), "invent"),
        (("stop", "stopped", "stopping", "stops"), "stop"),
        (("create", "created", "creating", "creates"), "creat"),
        (("city", "cities", "city's"), "city"),
        (("class", "classes"), "class"),
        (("bus",), "bus"),
        (("begin", "began", "begun", "begins", "beginning"), "begin"),
        (("come", "came", "coming"), "com"),
        (("6,924", "6924"), "6924"),
    ],
)
def test_forms_of_a_word_share_a_stem(forms: tuple[str, ...], expected: str) -> None:
    assert {stem(form) for form in forms} == {expected}


def test_unspaced_scripts_give_pairs_of_characters() -> None:
    assert terms("塔始建于1078年") == ["塔始", "始建", "建于", "1078", "年"]
    assert terms("Tower 塔") == ["tower", "塔"]


def test_stop_words_are_left_out_unless_there_is_nothing_else() -> None:
    assert content_terms("What is the height of the tower?") == ["height", "tower"]
    assert content_terms("What is it?") == ["what", "is", "it"]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When was the tower begun?", "date"),
        ("In what year did it burn?", "date"),
        ("Who ordered the building?", "person"),
        ("How many ravens live there?", "number"),
        ("What is the population of Kent?", "number"),
        ("What is the default chunk size in tokens?", "number"),
        ("Where does the stone come from?", "place"),
        ("Why was it built?", "reason"),
        ("How do I open the gate?", "manner"),
        ("What is ragstone?", "other"),
        ("Is it open?", "other"),
        ("Wann wurde der Turm gebaut?", "date"),
        ("Wie viele Raben gibt es?", "number"),
        ("塔有多少只乌鸦？", "number"),
        ("谁下令建造？", "person"),
    ],
)
def test_question_asks_for_a_kind(question: str, kind: Kind) -> None:
    assert read_question(question).kind == kind


@pytest.mark.parametrize(
    ("question", "sentence", "holds"),
    [
        ("When was it begun?", "It was begun in 1078.", True),
        ("When was it begun?", "It was begun by William.", False),
        ("What happened after 1078?", "In 1078 it was begun.", True),
        ("When, after 1078, did it burn?", "In 1078 it was begun.", False),
        ("How many ravens?", "Six ravens live there.", True),
        ("How many ravens?", "Ravens live there.", False),
        ("Who built it?", "The work was led by Gundulf.", True),
        ("Who was Gundulf's king?", "The work was led by Gundulf.", False),
        ("Where is the quarry?", "The quarry lies near Maidstone.", True),
        ("Where is the quarry?", "The quarry is large.", False),
        ("Why is it white?", "It is white because of the wash.", True),
        ("How do I open the gate?", "Run the command towerctl.", True),
        ("How do I open the gate?", "The gate closed in 1911.", False),
        ("谁建造了它？", "国王下令建造。", True),
    ],
)
def test_sentence_holds_what_is_asked_for(question: str, sentence: str, holds: bool) -> None:
    assert holds_kind(read_question(question), sentence) is holds


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A chunk is a piece of a document.", True),
        ("Chunks are pieces.", True),
        ("A chunk of stone is heavy.", False),
        ("It is a chunk.", False),
    ],
)
def test_definition_opens_with_what_is_asked(sentence: str, expected: bool) -> None:
    assert defines(read_question("What is a chunk?"), sentence) is expected


def test_question_knows_its_names_numbers_and_negation() -> None:
    question = read_question("Why did William not build 6,924 towers in Kent?")
    assert question.names == ("william", "kent")
    assert question.numbers == ("6924",)
    assert question.negated


def test_follow_up_borrows_terms_but_not_the_kind() -> None:
    question = read_question("And who ordered it?", context="When was the White Tower begun?")
    assert question.kind == "person"
    assert {"order", "tower"} <= set(question.terms)


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    question = read_question(text)
    assert set(question.names) <= set(question.terms)
    assert holds_kind(question, text) in {True, False}
