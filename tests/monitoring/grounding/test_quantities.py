"""Numbers and dates are the same however they are written, and different where they differ."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.grounding.quantities import quantities


def agrees(said: str, held: str) -> bool:
    """Whether every quantity of one text is in the other."""
    found = quantities(said)
    assert found, said
    return all(each.is_among(quantities(held)) for each in found)


@pytest.mark.parametrize(
    ("said", "held"),
    [
        ("1,200 people", "1200 people"),
        ("1.200 Menschen", "1200 people"),
        ("12 ships", "twelve ships"),
        ("twenty-five ships", "25 ships"),
        ("2.5 million", "2,500,000 inhabitants"),
        ("five thousand", "5000"),
        ("about 3.1 million", "3,142,000"),
        ("14 March 1990", "March 14, 1990"),
        ("March 14, 1990", "1990-03-14"),
        ("in the 1970s", "in 1974"),
        ("٢٥ سفينة", "25 ships"),
        ("2019年", "in 2019"),
        ("3.50 euros", "3.5 euros"),
    ],
)
def test_same_quantity_is_found_however_it_is_written(said: str, held: str) -> None:
    assert agrees(said, held)


@pytest.mark.parametrize(
    ("said", "held"),
    [
        ("1,200 people", "1,300 people"),
        ("2467 metres", "2476 metres"),
        ("14 March 1990", "14 April 1990"),
        ("in 1991", "in 1990"),
        ("in 1890", "in 1891"),
        ("in the 1980s", "in 1974"),
        ("25 million", "25 thousand"),
        ("12 ships", "12.5 ships"),
    ],
)
def test_different_quantities_are_not_the_same(said: str, held: str) -> None:
    assert not agrees(said, held)


def test_pronoun_and_words_within_words_are_no_numbers() -> None:
    assert quantities("One may say that the tent is often heavy; someone may march on.") == []


@settings(max_examples=25)
@given(st.integers(2, 10**12))
def test_number_agrees_with_itself_with_and_without_commas(value: int) -> None:
    assert agrees(f"{value:,} things", f"{value} things")


@settings(max_examples=25)
@given(st.text(max_size=300))
def test_any_text_is_read_with_spans_within_it(text: str) -> None:
    for each in quantities(text):
        assert 0 <= each.start < each.end <= len(text)
        assert each.is_among([each])
