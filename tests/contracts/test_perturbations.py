"""Laws that every perturbation in the folder obeys."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.perturbation import (
    Changed,
    NotApplicable,
    Perturbation,
    Perturbed,
    Surroundings,
    open_perturbation,
)
from evals.trial import Case
from infra.errors import InvalidRequest
from infra.plugins import available

NAMES = available("evals.perturbations")
OF_TEXTS = {"typos", "casing", "punctuation", "paraphrase", "injection"}
OF_ROWS = {"missing_values", "noise_features", "jitter"}
QUESTION = "In 1889, what is the height of the tower that doesn't stand in Lyon?"
ROW = {"age": 42, "income": 3120.5, "sector": "private", "day": 3, "rent": -410.25}
TEXTS = [
    Case(str(n), f"{QUESTION[:-1]} or {n}?", metadata={"contexts": [f"Passage {n}."]}, cluster=c)
    for n, c in enumerate("abcdef")
]
ROWS = [
    Case(f"r{n}", {**ROW, "age": 20 + n, "income": 900.5 * n, "rent": -50.5 * n}, cluster=f"r{n}")
    for n in range(1, 40)
]
MESSAGES = Case("m", [{"role": "user", "content": "Hi"}, {"role": "user", "content": QUESTION}])
AROUND = Surroundings([*TEXTS, *ROWS])
HOSTILE: list[Any] = [
    *("", " ", "?", "a", "\x00", "\udc80", "\u0301" * 50, "??!!" * 500, "a" * 50_000, "如何?"),
    *("a b " * 5_000, "İİİİ ßßßß ﬁﬁﬁﬁ", "don't " * 500, "1,000.50", "{} {0} %s \\1"),
    *([], {}, [{}], [{"role": "user"}], [{"role": "user", "content": None}], [1.5, -2.0, 0]),
    *({"a": None}, {"a": float("nan")}, {"a": True}, {"a": 2**63}, {"a": 1.7e308}, {"a": []}),
    *(None, 7, 1.5, True, [None], [[1.0]]),
]


@pytest.fixture(params=NAMES)
def perturbation(request: pytest.FixtureRequest) -> Perturbation:
    return open_perturbation(request.param, {})


def name_of(perturbation: Perturbation) -> str:
    return type(perturbation).__module__.rpartition(".")[2]


def perturb(one: Perturbation, case: Case, seed: int = 0) -> Perturbed:
    return one.perturb(case, random.Random(seed), AROUND)


def test_folder_holds_the_perturbations_we_ship() -> None:
    assert set(NAMES) >= {*OF_TEXTS, *OF_ROWS, "distractors"}
    assert len(NAMES) >= 9


def test_what_it_is_for_is_changed(perturbation: Perturbation) -> None:
    cases = ROWS if name_of(perturbation) in OF_ROWS else TEXTS
    found = [perturb(perturbation, case) for case in cases]
    changed = [case for case in found if isinstance(case, Changed)]
    assert len(changed) >= len(cases) - 2, found
    for case, one in zip(cases, found, strict=True):
        assert isinstance(one, NotApplicable) or one.input != case.input


def test_same_seed_gives_the_same_input_and_another_mostly_another(
    perturbation: Perturbation,
) -> None:
    case = ROWS[20] if name_of(perturbation) in OF_ROWS else TEXTS[0]
    assert perturb(perturbation, case, 4) == perturb(perturbation, case, 4)
    if name_of(perturbation) != "casing":  # of which there is one by default
        many = {str(perturb(perturbation, case, seed)) for seed in range(20)}
        assert len(many) > 1


def test_the_case_itself_stays_as_it_is(perturbation: Perturbation) -> None:
    for case in (TEXTS[0], ROWS[20], MESSAGES):
        before = deepcopy(case)
        perturb(perturbation, case)
        assert case == before


@pytest.mark.parametrize("text", HOSTILE, ids=lambda value: repr(value)[:20])
def test_no_input_makes_it_crash(perturbation: Perturbation, text: Any) -> None:
    for seed in range(5):
        found = perturb(perturbation, Case("x", text), seed)
        if isinstance(found, NotApplicable):
            assert found.reason
        else:
            assert found.input != text


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80), seed=st.integers(0, 1_000))
@pytest.mark.parametrize("name", sorted(OF_TEXTS))
def test_any_text_is_changed_or_there_is_a_reason(name: str, text: str, seed: int) -> None:
    found = perturb(open_perturbation(name, {}), Case("x", text), seed)
    assert isinstance(found, NotApplicable) or found.input != text


@settings(max_examples=60, deadline=None)
@given(
    row=st.dictionaries(
        st.text(max_size=5),
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats()
        | st.text(max_size=9),
        max_size=6,
    ),
    seed=st.integers(0, 1_000),
)
@pytest.mark.parametrize("name", sorted(OF_ROWS))
def test_any_row_is_changed_or_there_is_a_reason(name: str, row: Any, seed: int) -> None:
    case = Case("x", row)
    one = open_perturbation(name, {})
    found = one.perturb(case, random.Random(seed), Surroundings([case, *ROWS]))
    if isinstance(found, Changed):
        assert found.input != row
        assert set(found.input) >= set(row)


def test_texts_are_changed_in_the_last_message_alone(perturbation: Perturbation) -> None:
    if name_of(perturbation) not in OF_TEXTS:
        return
    found = perturb(perturbation, MESSAGES)
    assert isinstance(found, Changed)
    assert found.input[0] == MESSAGES.input[0]
    assert found.input[1]["content"] != QUESTION


def test_unknown_parameter_is_refused_with_the_nearest(perturbation: Perturbation) -> None:
    with pytest.raises(InvalidRequest, match="unknown key 'colums'"):
        open_perturbation(name_of(perturbation), {"colums": ["a"]})
