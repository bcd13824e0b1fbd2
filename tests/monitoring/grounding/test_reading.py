"""What features are read from: terms, names, denial, pieces that reach the end of long texts."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.grounding.claims import bare_of_marks, claims
from monitoring.grounding.evidence import PIECE_CHARACTERS, Evidence, Source
from monitoring.grounding.features import NAMES, Claim, measure
from monitoring.grounding.names import names
from monitoring.grounding.polarity import contradicted, denies
from monitoring.grounding.terms import Rarity, content_terms

RARITY = Rarity({"metre": 0.4})
FILLER = "Otters sleep afloat and hold each other by the paw. "


def test_names_are_told_from_words_that_open_a_sentence() -> None:
    found = [
        each.text for each in names("The bridge was built by Sir John Fowler for British Rail.")
    ]
    assert found == ["Sir John Fowler", "British Rail"]
    assert names("Bridges are long. Trains cross them.") == []


def test_names_are_not_told_where_every_noun_has_a_capital() -> None:
    assert names("Die Brücke über den Fluss hat einen Bogen aus Stahl und zwei Türme.") == []


@pytest.mark.parametrize(
    "text",
    [
        "It was never built.",
        "Das ist nicht wahr.",
        "Elle n'est pas venue.",
        "他不在。",
        "It isn't so.",
    ],
)
def test_denial_is_found_in_several_languages(text: str) -> None:
    assert denies(text)


def test_knot_and_nothing_that_denies() -> None:
    assert not denies("The knot was tied in Nottingham, noted by a notary.")


def test_opposite_of_a_word_contradicts_only_where_the_word_is_lacking() -> None:
    said = frozenset(content_terms("The dose increases pressure"))
    assert contradicted(said, frozenset(content_terms("The dose decreases pressure")))
    both = frozenset(content_terms("It increases first and decreases then"))
    assert not contradicted(said, both)


def test_long_text_is_read_in_pieces_to_its_end() -> None:
    text = FILLER * 2_000 + "The bridge is 2467 metres long."
    evidence = Evidence([Source(text)])
    assert evidence.coverage == 1
    assert len(evidence.pieces) > len(text) / PIECE_CHARACTERS * 0.9
    windows, columns = measure(Claim.of("The bridge is 2467 metres long.", RARITY), evidence)
    assert columns[0][NAMES.index("window")] == 1
    assert "2467" in evidence.text(windows[0].first, windows[0].last)


def test_text_without_a_stop_is_cut_and_loses_nothing() -> None:
    text = " ".join(f"word{number}" for number in range(5_000))
    evidence = Evidence([Source(text)])
    assert sum(len(each) for each in evidence.terms) == len(content_terms(text))


def test_what_lies_beyond_the_bound_is_told_by_coverage() -> None:
    evidence = Evidence([Source("a b c. " * 10), Source("d e f. " * 10)], most_characters=105)
    assert evidence.coverage == pytest.approx(105 / 140)


def test_order_of_texts_changes_nothing() -> None:
    claim = Claim.of("The bridge is 2467 metres long.", RARITY)
    texts = [Source(FILLER), Source("A bridge of 2467 metres."), Source("Long otters.")]
    _, one = measure(claim, Evidence(texts))
    _, two = measure(claim, Evidence(texts[::-1]))
    np.testing.assert_array_equal(one[0], two[0])


def test_claims_leave_out_markers_questions_and_lead_ins() -> None:
    answer = (
        "Here is what I found: The bridge is long. [1][2] Is it old? Yes. It opened in 1890 [3]."
    )
    assert [each.text for each in claims(answer)] == [
        "Here is what I found: The bridge is long.",
        "It opened in 1890.",
    ]


@settings(max_examples=25)
@given(st.text(max_size=400), st.lists(st.text(max_size=400), max_size=4))
def test_features_of_any_texts_are_bounded(claim: str, texts: list[str]) -> None:
    windows, columns = measure(Claim.of(claim, RARITY), Evidence([Source(text) for text in texts]))
    assert columns.shape == (len(windows), len(NAMES))
    assert ((columns >= -1e-9) & (columns <= 1 + 1e-9)).all()


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=200), st.lists(st.text(max_size=200), max_size=3))
def test_claim_that_a_text_holds_word_for_word_is_held_whole(claim: str, others: list[str]) -> None:
    """Unless sentences of the claim end where those of the text do not."""
    found = Claim.of(claim, RARITY)
    _, columns = measure(found, Evidence([*map(Source, others), Source(claim)]))
    if len(columns) and found.terms:
        assert columns[:, NAMES.index("anywhere")].min() == pytest.approx(1)


@given(st.text(alphabet=" \t\n\u00a0[]【】,19a", max_size=30))
def test_marks_go_with_the_white_space_before_them(text: str) -> None:
    plainly = re.compile(r"\s*(?:\[\d{1,3}(?:, ?\d{1,3})*\]|【[^】]{1,40}】)")
    assert bare_of_marks(text) == plainly.sub("", text)


@pytest.mark.parametrize("part", [" ", "\t", "\n", "\u00a0", "[1", "[1, ", "【", " [1] "])
def test_long_runs_are_read_in_one_pass(part: str) -> None:
    """By the square of their length, one of them would take as long as a test may."""
    assert claims("The bridge" + part * 100_000 + "was built in 1890.")
