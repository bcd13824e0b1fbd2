"""What each perturbation does to a text or row, and what it leaves alone."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from evals.perturbation import Changed, NotApplicable, Surroundings, open_perturbation
from evals.trial import Case

SEEDS = range(40)


def inputs(name: str, case: Case, around: Any = (), **parameters: Any) -> list[Any]:
    one = open_perturbation(name, parameters)
    found = [one.perturb(case, random.Random(n), Surroundings(around or [case])) for n in SEEDS]
    return [each.input for each in found if isinstance(each, Changed)]


def test_typos_keep_numbers_short_words_and_the_ends_of_words() -> None:
    text = "How many of the 1,250 employees joined COVID-19 teams in 2021?"
    for new in inputs("typos", Case("1", text), share=1.0):
        words, before = new.split(), text.split()
        assert len(words) == len(before)
        changed = {old: word for old, word in zip(before, words, strict=True) if old != word}
        assert set(changed) == {"many", "employees", "joined", "teams"}
        assert all(word[0] == old[0] and word[-1] == old[-1] for old, word in changed.items())
        assert all(abs(len(word) - len(old)) <= 1 for old, word in changed.items())


def test_share_of_words_with_typos_is_what_was_asked_for() -> None:
    text = " ".join(["bridge"] * 100)
    for new in inputs("typos", Case("1", text), share=0.2):
        assert sum(word != "bridge" for word in new.split()) == 20


@pytest.mark.parametrize(
    ("to", "wanted"), [("lower", "who is ada?"), ("upper", "WHO IS ADA?"), ("swap", "wHO IS aDA?")]
)
def test_casing_is_as_asked(to: str, wanted: str) -> None:
    assert set(inputs("casing", Case("1", "Who is Ada?"), to=to)) == {wanted}


def test_text_without_case_has_no_copy() -> None:
    one = open_perturbation("casing", {"to": "any"})
    found = one.perturb(Case("1", "埃菲尔铁塔?"), random.Random(0), Surroundings([]))
    assert found == NotApplicable("the text is written so already, or its letters have no case")


def test_punctuation_changes_no_word_and_no_number() -> None:
    text = "Did it cost 1,250.50 euros?"
    seen = inputs("punctuation", Case("1", text))
    assert len(set(seen)) > 10
    for new in seen:
        assert re.findall(r"[\w.,]+", new) == ["Did", "it", "cost", "1,250.50", "euros"]


@pytest.mark.parametrize(
    ("text", "among"),
    [
        ("What is the height?", "What's the height?"),
        ("Why doesn't a tower stand?", "Why does not a tower stand?"),
        ("In France, who was king?", "Who was king, in France?"),
        ("Who was king?", "Question: Who was king?"),
        ("DO NOT go", "Don't go"),
    ],
)
def test_paraphrases_follow_their_rules(text: str, among: str) -> None:
    assert among in inputs("paraphrase", Case("1", text))


@pytest.mark.parametrize("text", ["Height of the tower", "Adolf's don'ts", "28 days", ""])
def test_what_no_rule_fits_is_left_alone(text: str) -> None:
    assert inputs("paraphrase", Case("1", text)) == []


def test_distractors_are_of_other_clusters_and_own_passages_stay_in_order() -> None:
    rows = [
        Case(str(n), {"question": "?", "contexts": [f"p{n}a", f"p{n}b"]}, cluster=f"c{n // 2}")
        for n in range(8)
    ]
    for new in inputs("distractors", rows[0], rows, count=3):
        passages = new["contexts"]
        assert [each for each in passages if each in {"p0a", "p0b"}] == ["p0a", "p0b"]
        assert len(passages) == 5
        assert "p1a" not in passages, "of the same cluster"


def test_distractors_stand_before_a_question_that_brings_no_passage_along() -> None:
    rows = [Case(str(n), f"Question {n}?", metadata={"contexts": f"Text {n}."}) for n in range(5)]
    cases = [Case(c.id, c.input, metadata=c.metadata, cluster=c.id) for c in rows]
    for new in inputs("distractors", cases[0], cases, count=1):
        assert re.fullmatch(r"Text [1-4]\.\n\nQuestion 0\?", new)


def test_injection_plants_a_canary_that_the_copy_names() -> None:
    one = open_perturbation("injection", {})
    seen = set()
    for seed in SEEDS:
        found = one.perturb(Case("1", "Who was king?"), random.Random(seed), Surroundings([]))
        assert isinstance(found, Changed)
        assert found.input.startswith("Who was king? ")
        assert found.metadata["canary"] in found.input
        seen.add(found.metadata["canary"])
    assert len(seen) == len(SEEDS), "a canary that repeats may be remembered"


def test_missing_values_are_unknown_and_in_the_columns_named() -> None:
    case = Case("1", {"a": 1, "b": "x", "c": 2.5, "d": None})
    for new in inputs("missing_values", case, share=0.5):
        assert sum(value is None for value in new.values()) == 3
    assert inputs("missing_values", case, columns=["b"])[0] == {**case.input, "b": None}
    assert inputs("missing_values", case, columns=["d"]) == []


@pytest.mark.parametrize("first", [False, True])
def test_noise_stands_beside_the_features_and_takes_no_name_that_there_is(first: bool) -> None:
    case = Case("1", {"a": 1, "noise_2": 7})
    new = inputs("noise_features", case, first=first)[0]
    assert {**new, **case.input} == new
    names = ["a", "noise_2"]
    noise = ["noise_1", "noise_3", "noise_4"]
    assert list(new) == ([*noise, *names] if first else [*names, *noise])


def test_jitter_keeps_unit_sign_range_and_codes() -> None:
    rows = [
        Case(str(n), {"age": 20 + n, "day": n % 7, "debt": -10.0 * n, "top": 1.0, "is": True})
        for n in range(1, 60)
    ]
    for new in inputs("jitter", rows[39], rows, deviation=0.1):
        assert isinstance(new["age"], int)
        assert 21 <= new["age"] <= 79
        assert new["debt"] < 0
        assert (new["day"], new["top"], new["is"]) == (40 % 7, 1.0, True)
        assert abs(new["age"] - 60) <= 0.3 * 60


def test_jitter_of_a_vector_moves_each_number() -> None:
    assert all(len(new) == 3 for new in inputs("jitter", Case("1", [1.0, -2.0, 0.5])))
    assert len(inputs("jitter", Case("1", [1.0, -2.0, 0.5]))) == len(SEEDS)
