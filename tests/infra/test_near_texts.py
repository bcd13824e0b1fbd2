"""Near texts: what is looked for in an index is found there as if every piece were compared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.near_texts import NearTexts

pytest.importorskip("datasketch")
WORDS = st.sampled_from(["the", "stone", "that", "a", "tower", "stands", "on", "größer", "東京"])
CHARACTERS = st.text("東京都大阪市。", max_size=40)
TEXTS = st.lists(WORDS, max_size=40).map(" ".join) | CHARACTERS


def pieces(text: str) -> set[str]:
    words = text.split()
    unspaced = sum(each in "東京都大阪市" for each in text)
    if len(words) > 3 and len(text) < 20 * len(words) and 2 * unspaced < len(text):
        return {" ".join(words[place : place + 3]) for place in range(len(words) - 2)}
    return {text[place : place + 5] for place in range(max(1, len(text) - 4))}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), similarity=st.sampled_from([0.3, 0.5, 0.8, 0.95, 1.0]))
def test_what_is_skipped_early_is_near_nothing(data: st.DataObject, similarity: float) -> None:
    texts = data.draw(st.lists(TEXTS, min_size=1, max_size=4))
    changed = data.draw(st.sampled_from(texts)).split(" ")
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(WORDS)
    asked = " ".join(changed)
    index = NearTexts([*texts, asked], similarity)
    for place in range(len(texts)):
        index.add(place)
    found = list(index.near(asked))
    for place, alike in found:
        shared, together = (
            pieces(asked) & pieces(texts[place]),
            pieces(asked) | pieces(texts[place]),
        )
        assert alike == len(shared) / len(together) >= similarity
    # A twin is looked for by the sketches alone, whatever the text begins with.
    assert index.twin(len(texts)) == (found[0][0] if found else None)
